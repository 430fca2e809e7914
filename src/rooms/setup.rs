//! What a member is told on entering a channel: who is there, and how to send and receive.

use antiphon_core::{
    gateway::{ChannelJoined, ChannelView, KeyRotated, MemberView, Position, UdpSetup, VoiceSetup},
    ids::{ChannelId, StreamId},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{Rooms, presence::Link, room::Room, roster::view, udp::UdpSession};
use crate::{
    cluster::{Member, Unavailable},
    error::AppError,
};

impl Rooms {
    /// Everyone in a channel's voice now, as all nodes know it, or else as this one does.
    ///
    /// # Errors
    /// When what all nodes share cannot be reached, and this node has nobody in the channel.
    pub async fn members(&self, channel: ChannelId) -> Result<Vec<MemberView>, AppError> {
        let room = self.room(channel);
        if let Some(alone) = room.as_ref().filter(|room| room.is_alone()) {
            return Ok(alone.live().roster.views());
        }
        match (self.inner.membership.snapshot(channel, None).await, room) {
            (Ok(found), room) => Ok(member_views(room.as_deref(), found.map_or(Vec::new(), |found| found.members))),
            (Err(Unavailable), Some(room)) => Ok(room.live().roster.views()),
            (Err(away), None) => Err(away.into()),
        }
    }

    /// How many are in a channel's voice now.
    pub async fn occupancy(&self, channel: ChannelId) -> u32 {
        self.occupancies(&[channel]).await.first().copied().unwrap_or(0)
    }

    /// How many are in each channel's voice now, in the order asked for. While what all nodes share cannot be reached:
    /// as this node knows those that it has members of, and none of the others.
    pub async fn occupancies(&self, channels: &[ChannelId]) -> Vec<u32> {
        match self.inner.membership.occupancy(channels).await {
            Ok(occupied) => occupied,
            Err(Unavailable) => channels.iter().map(|channel| self.occupancy_here(*channel)).collect(),
        }
    }

    fn occupancy_here(&self, channel: ChannelId) -> u32 {
        let members = self.room(channel).map_or(0, |room| room.live().roster.len());
        u32::try_from(members).unwrap_or(u32::MAX)
    }

    /// What a member is told, and the group key that follows within 200 ms if there is one.
    pub(super) fn channel_joined(
        &self,
        room: &Room,
        stream: StreamId,
        udp: Option<&UdpSession>,
        link: &Link,
        members: Vec<MemberView>,
        position: Position,
    ) -> (ChannelJoined, Option<KeyRotated>) {
        let (udp, next_key) = udp.and_then(|udp| self.udp_setup(room, udp, link)).unzip();
        let channel = self.channel_view(room, members.len());
        let recording = room.live().recording.clone();
        let mix_stream_id =
            room.live().members.get(&stream).and_then(|member| member.mix.as_ref()).map(|mix| mix.stream);
        let answer = ChannelJoined {
            channel_id: room.id,
            channel,
            members,
            position,
            voice: VoiceSetup { stream_id: stream, mix_stream_id, udp },
            recording,
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
    pub(super) fn addresses(&self, link: &Link) -> Vec<String> {
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

/// Members as clients see them; whether they speak, only nodes with members of the channel know.
pub(super) fn member_views(room: Option<&Room>, members: Vec<Member>) -> Vec<MemberView> {
    let live = room.map(Room::live);
    let speaks = |stream| live.as_ref().and_then(|live| live.roster.get(stream)).is_some_and(|listed| listed.speaking);
    let view_of = |member: Member| {
        let speaking = speaks(member.stream);
        view(member, speaking)
    };
    members.into_iter().map(view_of).collect()
}
