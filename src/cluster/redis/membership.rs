//! Membership of channels with their journals, for the nodes of a cluster: one script for each change.

use std::sync::Arc;

use antiphon_core::{
    gateway::{LeaveReason, MediaTransport, Position},
    ids::{ChannelId, NodeNumber, SessionId, UserId},
};
use fred::{
    interfaces::{HashesInterface, SetsInterface},
    types::{Value, scripts::Script},
};
use tokio::sync::oneshot;

use super::{
    Handle,
    codec::{EntryRecord, LeaveRecord, MemberRecord, NumbersRecord, Unreadable, encode},
    keys::{self, Topic},
    script::{self, Answer},
    shared::{Doubt, Failed, Permit, Request, Shared, bytes, number, text, unreadable},
};
use crate::{
    cluster::{
        Member, NewMember, Snapshot, VoiceChange,
        entry::{Changed, Entry, JoinRefused, Joined, News, Unavailable},
        membership::new_epoch,
    },
    telemetry::metrics::RedisOperation,
};

/// Who is in which channel, and what happened there, in Redis.
///
/// Every operation is one atomic step for all nodes. It fails within [`super::RedisConfig::patience`], and when it
/// failed, nothing of it happens any more: a join of which that is not certain is undone as soon as Redis answers.
/// On behalf of a session, only the node that has the member may change it.
#[derive(Clone, Debug)]
pub struct RedisMembership {
    handle: Handle,
}

impl RedisMembership {
    pub(super) const fn new(handle: Handle) -> Self {
        Self { handle }
    }

    /// Makes somebody a member if there are fewer than `max_users`, or if they are one through another session, which
    /// they then leave in the same step.
    ///
    /// # Errors
    /// When no place is free, the stream id is taken, or Redis cannot be asked.
    pub async fn join(
        &self,
        channel: ChannelId,
        max_users: u32,
        new: NewMember,
        known: Option<&Position>,
    ) -> Result<Joined, JoinRefused> {
        let shared = self.shared();
        let permit = shared.permit().map_err(Unavailable::from)?;
        shared.list(&permit, channel).await?;
        let doubt = Doubt { channel, user: new.user.id, session: new.session, stream: new.stream };
        let member = Member {
            user: new.user,
            session: new.session,
            stream: new.stream,
            media: new.media,
            muted: false,
            deafened: false,
            server_muted: false,
            node: permit.number,
        };
        let own = vec![number(max_users.into()), bytes(encode(&MemberRecord::from(member)))];
        let result = shared.on_channel(RedisOperation::Join, &permit, &script::JOIN, channel, known, own).await;
        let (kind, mut answer) = match result {
            Ok(answer) => answer,
            Err(Failed::NotDone) => return Err(JoinRefused::Unavailable),
            Err(Failed::InDoubt) => {
                shared.doubt(doubt);
                return Err(JoinRefused::Unavailable);
            }
        };
        match kind.as_str() {
            "full" => return Err(JoinRefused::Full),
            "stream" => return Err(JoinRefused::StreamTaken),
            _ => {}
        }
        let mut read = || -> Result<Joined, Unreadable> {
            let member = answer.record::<MemberRecord>()?.into();
            let (news, position) = read_news(answer.list()?, channel)?;
            Ok(Joined { member, members: read_members(answer.list()?)?, position, news })
        };
        read().map_err(|error| Unavailable::from(unreadable(&error)).into())
    }

    /// Ends a membership that is `session`'s through this node, or anybody's when that is `None`. `None` when there is
    /// none.
    ///
    /// # Errors
    /// When Redis cannot be asked.
    #[expect(clippy::too_many_arguments, reason = "it takes what a leave has to say")]
    pub async fn leave(
        &self,
        channel: ChannelId,
        user: UserId,
        session: Option<SessionId>,
        reason: LeaveReason,
        by: Option<UserId>,
        message: Option<String>,
        known: Option<&Position>,
    ) -> Result<Option<Changed>, Unavailable> {
        let permit = self.shared().permit()?;
        let node = session.map_or(String::new(), |_| permit.number.to_string());
        let session = session.map_or(String::new(), |session| session.to_string());
        let why = encode(&LeaveRecord { reason, by, message });
        let own = vec![text(user.to_string()), bytes(why), text(session), text(node), text("")];
        self.change(RedisOperation::Leave, &permit, &script::LEAVE, channel, known, own).await
    }

    /// Sets a member's own switches, if the member is `session`'s through this node.
    ///
    /// # Errors
    /// When Redis cannot be asked.
    pub async fn set_voice(
        &self,
        channel: ChannelId,
        user: UserId,
        session: SessionId,
        change: VoiceChange,
        known: Option<&Position>,
    ) -> Result<Option<Changed>, Unavailable> {
        let permit = self.shared().permit()?;
        let switch = |switch: Option<bool>| text(switch.map_or("", flag));
        let own = vec![
            text(user.to_string()),
            text(session.to_string()),
            text(permit.number.to_string()),
            switch(change.muted),
            switch(change.deafened),
        ];
        self.change(RedisOperation::SetVoice, &permit, &script::SET_VOICE, channel, known, own).await
    }

    /// Mutes or unmutes somebody for everyone; it holds when they leave and come back, and before they first come.
    /// `None` when it was so already; else the member, if they are in.
    ///
    /// # Errors
    /// When Redis cannot be asked.
    pub async fn set_server_mute(
        &self,
        channel: ChannelId,
        user: UserId,
        muted: bool,
        by: UserId,
        known: Option<&Position>,
    ) -> Result<Option<Option<Changed>>, Unavailable> {
        let shared = self.shared();
        let permit = shared.permit()?;
        let own = vec![text(user.to_string()), text(flag(muted)), text(by.to_string())];
        let script = &script::SET_SERVER_MUTE;
        let (kind, answer) =
            shared.on_channel(RedisOperation::SetServerMute, &permit, script, channel, known, own).await?;
        match kind.as_str() {
            "same" => Ok(None),
            "absent" => Ok(Some(None)),
            _ => read_changed(answer, channel).map(|changed| Some(Some(changed))),
        }
    }

    /// Lets a member go on through this node, if it is still `session`'s through the node `from`. `None` when it is
    /// not, or gone. Nothing is told to others, for whom nothing has changed.
    ///
    /// # Errors
    /// When Redis cannot be asked.
    pub async fn claim(
        &self,
        channel: ChannelId,
        user: UserId,
        session: SessionId,
        from: NodeNumber,
        media: MediaTransport,
        known: Option<&Position>,
    ) -> Result<Option<Changed>, Unavailable> {
        let shared = self.shared();
        let permit = shared.permit()?;
        shared.list(&permit, channel).await?;
        let media = match media {
            MediaTransport::Udp => "udp",
            MediaTransport::Websocket => "websocket",
            MediaTransport::Webrtc => "webrtc",
        };
        let own = vec![
            text(user.to_string()),
            text(session.to_string()),
            text(from.to_string()),
            text(permit.number.to_string()),
            text(media),
        ];
        self.change(RedisOperation::Claim, &permit, &script::CLAIM, channel, known, own).await
    }

    /// Makes this node's members of a channel be `members`: whoever is missing is added with the stream they had, the
    /// numbers that this node had before are replaced, and whoever is this node's but not among them is removed. What
    /// is another node's is left alone: whoever is in the answer with another session or node than here is no longer
    /// this node's. The caller sees to it that no other operation of its own on the channel runs meanwhile.
    ///
    /// # Errors
    /// When Redis cannot be asked.
    pub async fn restore(
        &self,
        channel: ChannelId,
        members: Vec<Member>,
    ) -> Result<(Vec<Member>, Position), Unavailable> {
        let shared = self.shared();
        let permit = shared.permit()?;
        if !members.is_empty() {
            shared.list(&permit, channel).await?;
        }
        let former = encode(&NumbersRecord { numbers: permit.former.clone() });
        let mut own = vec![text(permit.number.to_string()), bytes(former)];
        own.extend(members.into_iter().map(|member| bytes(encode(&MemberRecord::from(member)))));
        let (_, mut answer) =
            shared.on_channel(RedisOperation::Restore, &permit, &script::RESTORE, channel, None, own).await?;
        let news = answer.list().and_then(|news| read_news(news, channel)).map_err(|error| unreadable(&error))?;
        match news {
            (News::State { members, position }, _) => Ok((members, position)),
            (News::Entries(_), position) => Ok((Vec::new(), position)),
        }
    }

    /// Everyone in the channel now, with what happened after `since`. `None` when nothing is known of the channel.
    ///
    /// # Errors
    /// When Redis cannot be asked.
    pub async fn snapshot(
        &self,
        channel: ChannelId,
        since: Option<&Position>,
    ) -> Result<Option<Snapshot>, Unavailable> {
        let shared = self.shared();
        let permit = shared.permit()?;
        let (kind, mut answer) = shared
            .on_channel(RedisOperation::Snapshot, &permit, &script::SNAPSHOT, channel, since, Vec::new())
            .await?;
        if kind == "none" {
            return Ok(None);
        }
        let read = || -> Result<Snapshot, Unreadable> {
            let position = Position { epoch: answer.text()?, offset: answer.number()? };
            let members = read_members(answer.list()?)?;
            let missed = read_entries(answer, channel)?;
            Ok(Snapshot { members, position, missed })
        };
        read().map(Some).map_err(|error| unreadable(&error).into())
    }

    /// How many are in each of the channels now.
    ///
    /// # Errors
    /// When Redis cannot be asked.
    pub async fn occupancy(&self, channels: &[ChannelId]) -> Result<Vec<u32>, Unavailable> {
        let shared = self.shared();
        let permit = shared.permit()?;
        // A pipeline sends them all at once, to whichever servers have them.
        let counting = async {
            let pipeline = permit.connection.client().pipeline();
            for channel in channels {
                let () = pipeline.hlen(keys::members(*channel)).await?;
            }
            pipeline.all::<Vec<u32>>().await
        };
        if channels.is_empty() {
            return Ok(Vec::new());
        }
        let counts = shared.single(RedisOperation::Occupancy, counting).await?;
        if counts.len() == channels.len() { Ok(counts) } else { Err(Unavailable) }
    }

    /// Forgets a deleted channel, once everyone has left.
    ///
    /// # Errors
    /// When Redis cannot be asked.
    pub async fn forget(&self, channel: ChannelId) -> Result<(), Unavailable> {
        let shared = self.shared();
        let permit = shared.permit()?;
        shared.on_channel(RedisOperation::Forget, &permit, &script::FORGET, channel, None, Vec::new()).await?;
        Ok(())
    }

    /// Has every entry of the channel's journal from now on told as a notice. To be called before the first join
    /// through this node.
    ///
    /// # Errors
    /// When Redis cannot be asked now. The channel is watched all the same from when it can;
    /// [`super::super::entry::Notice::Reconnected`] tells.
    pub async fn watch(&self, channel: ChannelId) -> Result<(), Unavailable> {
        let shared = self.shared();
        shared.watched.lock().entry(channel).or_default();
        let permit = shared.permit()?;
        let (done, subscribed) = oneshot::channel();
        let subscribing = async {
            shared.requests.send(Request::Watch(channel, done)).await.map_err(|_| Unavailable)?;
            subscribed.await.map_err(|_| Unavailable)
        };
        tokio::time::timeout(shared.config.patience, subscribing).await.map_err(|_| Unavailable)??;
        let position = shared.position(&permit, channel).await?;
        if let Some(told) = shared.watched.lock().get_mut(&channel) {
            // What was told meanwhile is newer.
            told.get_or_insert(position);
        }
        Ok(())
    }

    /// Ends the notices about a channel. To be called when nobody is in it through this node any more, and no operation
    /// on it runs.
    pub async fn unwatch(&self, channel: ChannelId) {
        let shared = self.shared();
        shared.watched.lock().remove(&channel);
        let _ = shared.requests.send(Request::Unwatch(channel)).await;
    }

    async fn change(
        &self,
        operation: RedisOperation,
        permit: &Permit,
        script: &Script,
        channel: ChannelId,
        known: Option<&Position>,
        own: Vec<Value>,
    ) -> Result<Option<Changed>, Unavailable> {
        let (kind, answer) = self.shared().on_channel(operation, permit, script, channel, known, own).await?;
        if kind == "none" { Ok(None) } else { read_changed(answer, channel).map(Some) }
    }

    fn shared(&self) -> &Arc<Shared> {
        self.handle.shared()
    }
}

impl Shared {
    /// Runs one of the scripts about a channel.
    pub(super) async fn on_channel(
        &self,
        operation: RedisOperation,
        permit: &Permit,
        script: &Script,
        channel: ChannelId,
        known: Option<&Position>,
        own: Vec<Value>,
    ) -> Result<(String, Answer), Failed> {
        let (epoch, offset) = known.map_or(("", 0), |position| (position.epoch.as_str(), position.offset));
        let mut arguments = vec![
            text(new_epoch()),
            number(u64::try_from(self.config.membership.journal_events.max(1)).unwrap_or(u64::MAX)),
            number(self.config.membership.empty_ttl.as_secs()),
            text(permit.connection.publish_command()),
            text(Topic::Channel(channel).name()),
            text(epoch),
            number(offset),
        ];
        arguments.extend(own);
        self.run(operation, permit, script, keys::channel(channel), arguments).await
    }

    /// Runs single commands, which change nothing that cannot be done twice.
    pub(super) async fn single<T>(
        &self,
        operation: RedisOperation,
        work: impl Future<Output = Result<T, fred::error::Error>>,
    ) -> Result<T, Unavailable> {
        use crate::telemetry::metrics::{RedisOutcome, metrics};
        let result = super::connection::within(self.config.patience, work).await;
        let outcome = if result.is_ok() { RedisOutcome::Ok } else { RedisOutcome::InDoubt };
        metrics().redis.operations.of((operation, outcome)).increment(1);
        result.map_err(|error| {
            tracing::debug!(%error, "a command of Redis failed");
            Unavailable
        })
    }

    /// Sees to it that whoever sweeps after this node finds the channel.
    async fn list(&self, permit: &Permit, channel: ChannelId) -> Result<(), Unavailable> {
        if self.listed.contains(&channel) {
            return Ok(());
        }
        let key = keys::channels_of(permit.number);
        self.single(RedisOperation::List, permit.connection.client().sadd::<(), _, _>(key, channel.to_string())).await?;
        // The node may have another number by now, whose list is another one.
        if self.lease.lock().number != permit.number {
            return Err(Unavailable);
        }
        self.listed.insert(channel);
        Ok(())
    }

    /// The newest entry's place; an empty epoch when nothing is known of the channel.
    async fn position(&self, permit: &Permit, channel: ChannelId) -> Result<Position, Unavailable> {
        let fields = vec!["epoch", "offset"];
        let reading = permit.connection.client().hmget::<(Option<String>, Option<u64>), _, _>(keys::meta(channel), fields);
        let (epoch, offset) = self.single(RedisOperation::Position, reading).await?;
        Ok(Position { epoch: epoch.unwrap_or_default(), offset: offset.unwrap_or(0) })
    }

    /// The entries after `since`, or the newest place when that cannot be said.
    pub(super) async fn missed(
        &self,
        channel: ChannelId,
        since: &Position,
    ) -> Result<Result<Vec<Entry>, Position>, Unavailable> {
        let permit = self.permit()?;
        let script = &script::MISSED;
        let (kind, mut answer) =
            self.on_channel(RedisOperation::Missed, &permit, script, channel, Some(since), Vec::new()).await?;
        let mut read = || -> Result<Result<Vec<Entry>, Position>, Unreadable> {
            let position = Position { epoch: answer.text()?, offset: answer.number()? };
            if kind == "short" {
                return Ok(Err(position));
            }
            Ok(Ok(entries(answer.list()?, channel)?))
        };
        read().map_err(|error| unreadable(&error).into())
    }

    /// Undoes joins of which nobody was told that they happened.
    pub(super) async fn undo_doubtful_joins(&self) {
        while let Some(doubt) = self.next_doubt() {
            let Ok(permit) = self.permit() else { return self.doubt(doubt) };
            let why = encode(&LeaveRecord { reason: LeaveReason::Left, by: None, message: None });
            let own = vec![
                text(doubt.user.to_string()),
                bytes(why),
                text(doubt.session.to_string()),
                text(""),
                text(doubt.stream.to_string()),
            ];
            let undone = self.on_channel(RedisOperation::Leave, &permit, &script::LEAVE, doubt.channel, None, own).await;
            if undone.is_err() {
                return self.doubt(doubt);
            }
        }
    }
}

const fn flag(is_set: bool) -> &'static str {
    if is_set { "1" } else { "0" }
}

fn read_changed(mut answer: Answer, channel: ChannelId) -> Result<Changed, Unavailable> {
    let mut read = || -> Result<Changed, Unreadable> {
        let member = answer.record::<MemberRecord>()?.into();
        Ok(Changed { member, news: read_news(answer.list()?, channel)?.0 })
    };
    read().map_err(|error| unreadable(&error).into())
}

fn read_news(mut answer: Answer, channel: ChannelId) -> Result<(News, Position), Unreadable> {
    let kind = answer.text()?;
    let position = Position { epoch: answer.text()?, offset: answer.number()? };
    let list = answer.list()?;
    let news = if kind == "entries" {
        News::Entries(entries(list, channel)?)
    } else {
        News::State { members: read_members(list)?, position: position.clone() }
    };
    Ok((news, position))
}

fn entries(list: Answer, channel: ChannelId) -> Result<Vec<Entry>, Unreadable> {
    Ok(list.records::<EntryRecord>()?.into_iter().map(|record| record.into_entry(channel)).collect())
}

fn read_members(list: Answer) -> Result<Vec<Member>, Unreadable> {
    let mut members: Vec<Member> = list.records::<MemberRecord>()?.into_iter().map(Member::from).collect();
    // v7 ids sort by age, so everyone sees the same order.
    members.sort_unstable_by_key(|member| member.user.id);
    Ok(members)
}

/// The events missed, if that can be said.
fn read_entries(
    mut answer: Answer,
    channel: ChannelId,
) -> Result<Option<Vec<Arc<antiphon_core::gateway::ServerMessage>>>, Unreadable> {
    if answer.is_empty() {
        return Ok(None);
    }
    Ok(Some(entries(answer.list()?, channel)?.into_iter().map(|entry| entry.event).collect()))
}
