//! What a member is told on entering a channel: who is there, and how to send and receive.

use antiphon_core::{
    gateway::{ChannelJoined, ChannelView, KeyRotated, MemberView, Position, UdpSetup, VoiceSetup},
    ids::{ChannelId, StreamId},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{Rooms, presence::Link, room::Room, udp::UdpSession};
use crate::cluster::Member;

impl Rooms {
    /// Everyone in a channel's voice now.
    pub async fn members(&self, channel: ChannelId) -> Vec<MemberView> {
        let members = self.inner.membership.snapshot(channel, None).await.map_or(Vec::new(), |found| found.members);
        member_views(self.room(channel).as_deref(), members)
    }

    /// How many are in a channel's voice now.
    #[must_use]
    pub fn occupancy(&self, channel: ChannelId) -> u32 {
        self.inner.membership.occupancy(channel)
    }

    /// What a member is told, and the group key that follows within 200 ms if there is one.
    pub(super) fn channel_joined(
        &self,
        room: &Room,
        stream: StreamId,
        udp: Option<&UdpSession>,
        link: &Link,
        members: Vec<Member>,
        position: Position,
    ) -> (ChannelJoined, Option<KeyRotated>) {
        let (udp, next_key) = udp.and_then(|udp| self.udp_setup(room, udp, link)).unzip();
        let channel = self.channel_view(room, members.len());
        let answer = ChannelJoined {
            channel_id: room.id,
            channel,
            members: member_views(Some(room), members),
            position,
            voice: VoiceSetup { stream_id: stream, udp },
        };
        (answer, next_key.flatten())
    }

    fn udp_setup(&self, room: &Room, udp: &UdpSession, link: &Link) -> Option<(UdpSetup, Option<KeyRotated>)> {
        let now = self.inner.media.now();
        let mut live = room.live_mut();
        let group = live.groups[udp.cipher as usize].as_mut()?;
        let (group_key, next_key) = group.keys(room.id, now);
        let setup = UdpSetup {
            session_id: udp.id,
            group_id: group.id,
            udp: self.addresses(link),
            cipher: udp.cipher,
            session_key: STANDARD.encode(&udp.key),
            group_key,
            ping_ms: self.inner.config.ping_ms,
        };
        Some((setup, next_key))
    }

    /// Where clients send datagrams: what is set, else the address by which this one came.
    fn addresses(&self, link: &Link) -> Vec<String> {
        let config = &self.inner.config;
        if config.advertise.is_empty() {
            vec![format!("{}:{}", link.reached_host, self.inner.media.local_addr().port())]
        } else {
            config.advertise.clone()
        }
    }

    fn channel_view(&self, room: &Room, current_users: usize) -> ChannelView {
        let live = room.live();
        let channel = live.channel.as_ref().expect("set with the first member, before anybody is told of the room");
        channel.view(u32::try_from(current_users).unwrap_or(u32::MAX))
    }
}

/// Members as clients see them; whether they speak, only their own node knows.
pub(super) fn member_views(room: Option<&Room>, members: Vec<Member>) -> Vec<MemberView> {
    let live = room.map(Room::live);
    let view = |member: Member| MemberView {
        user_id: member.user.id,
        stream_id: member.stream,
        muted: member.muted,
        deafened: member.deafened,
        server_muted: member.server_muted,
        speaking: live.as_ref().and_then(|live| live.members.get(&member.stream)).is_some_and(|local| local.speaking),
        media: member.media,
        user: member.user,
    };
    members.into_iter().map(view).collect()
}
