//! Membership of channels with their journals, for the nodes of a cluster: one script for each change.

use std::sync::Arc;

use antiphon_core::{
    gateway::{Position, ServerMessage},
    ids::{ChannelId, MessageId, NodeNumber, SessionId, UserId},
};
use fred::{
    interfaces::{HashesInterface, SetsInterface},
    types::{Value, scripts::Script},
};
use tokio::sync::oneshot;

use super::{
    Handle,
    codec::{EntryRecord, LeaveRecord, MemberRecord, NodeMessage, NumbersRecord, Said, Unreadable, encode, event_text},
    keys::{self, Topic},
    script::{self, Answer},
    shared::{Failed, Permit, Request, Shared, bytes, number, text, unreadable},
};
use crate::{
    cluster::{
        entry::{
            Appended, Changed, Entry, JoinRefused, Joined, Leave, Member, NewMember, News, Notice, Publishing,
            Snapshot, Unavailable, VoiceChange, Written,
        },
        sessions::Moves,
    },
    random,
    telemetry::metrics::{RedisOperation, RedisOutcome, metrics},
};

/// Who is in which channel, and what happened there, in Redis.
///
/// Every operation is one atomic step for all nodes. It fails within [`super::RedisConfig::patience`], and once it has
/// failed it does not happen any more; where it may have happened without an answer, the node hears
/// [`Notice::Reconnected`], and with [`Self::restore`] says what is to hold.
#[derive(Clone, Debug)]
pub struct RedisMembership {
    handle: Handle,
}

impl RedisMembership {
    pub(super) const fn new(handle: Handle) -> Self {
        Self { handle }
    }

    /// This node, as it is registered now.
    #[must_use]
    pub fn node(&self) -> NodeNumber {
        self.shared().view.borrow().me
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
        let member = Member {
            user: new.user,
            session: new.session,
            stream: new.stream,
            media: new.media,
            muted: false,
            deafened: false,
            server_muted: false,
            publishes: false,
            node: NodeNumber(0),
        };
        let joining = async {
            let permit = shared.permitted()?;
            shared.list(&permit, channel).await?;
            let record = encode(&MemberRecord::from(Member { node: permit.number, ..member }));
            let own = vec![number(max_users.into()), bytes(record)];
            let joining = shared.on_channel(RedisOperation::Join, &permit, &script::JOIN, channel, known, own);
            joining.await.map_err(Unavailable::from)
        };
        let (kind, mut answer) = joining.await.map_err(|Unavailable| JoinRefused::Unavailable)?;
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
        read().map_err(|error| {
            unreadable(&error);
            JoinRefused::Unavailable
        })
    }

    /// Ends a membership. `None` when there is none, or it is another session's or node's than the one named.
    ///
    /// # Errors
    /// When Redis cannot be asked.
    pub async fn leave(
        &self,
        channel: ChannelId,
        leave: &Leave,
        known: Option<&Position>,
    ) -> Result<Option<Changed>, Unavailable> {
        let permit = self.shared().permitted()?;
        let (session, numbers) =
            leave.session.map_or_else(Default::default, |session| (session.to_string(), numbers(&permit)));
        let own =
            vec![text(leave.user.to_string()), bytes(encode(&LeaveRecord::from(leave))), text(session), bytes(numbers)];
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
        let permit = self.shared().permitted()?;
        let switch = |switch: Option<bool>| text(switch.map_or("", flag));
        let own = vec![
            text(user.to_string()),
            text(session.to_string()),
            bytes(numbers(&permit)),
            switch(change.muted),
            switch(change.deafened),
        ];
        self.change(RedisOperation::SetVoice, &permit, &script::SET_VOICE, channel, known, own).await
    }

    /// Gives `session`'s member one of the `most` places for those who publish, unless others have them all, or with `None` takes
    /// it back. Nobody is told.
    ///
    /// # Errors
    /// When Redis cannot be asked.
    pub async fn publish(
        &self,
        channel: ChannelId,
        user: UserId,
        session: SessionId,
        most: Option<u32>,
    ) -> Result<Publishing, Unavailable> {
        let shared = self.shared();
        let permit = shared.permitted()?;
        let own = vec![
            text(user.to_string()),
            text(session.to_string()),
            bytes(numbers(&permit)),
            most.map_or_else(|| text(""), |most| number(most.into())),
        ];
        let asking = shared.on_channel(RedisOperation::Publish, &permit, &script::PUBLISH, channel, None, own);
        Ok(match asking.await?.0.as_str() {
            "ok" => Publishing::Done,
            "full" => Publishing::Full,
            _ => Publishing::None,
        })
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
        let permit = shared.permitted()?;
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

    /// Makes `session`'s member this node's, which the session has moved to. Nobody is told: for others nothing has
    /// changed. Yields the channel as it is then, with what happened after `since`; `None` when the session is not in
    /// it.
    ///
    /// # Errors
    /// When Redis cannot be asked.
    pub async fn adopt(
        &self,
        channel: ChannelId,
        user: UserId,
        session: SessionId,
        moves: Moves,
        since: Option<&Position>,
    ) -> Result<Option<Snapshot>, Unavailable> {
        let shared = self.shared();
        let permit = shared.permitted()?;
        shared.list(&permit, channel).await?;
        let own =
            vec![text(user.to_string()), text(session.to_string()), text(permit.number.to_string()), number(moves.0)];
        let adopting = shared.on_channel(RedisOperation::Adopt, &permit, &script::ADOPT, channel, since, own);
        let (kind, answer) = adopting.await?;
        read_snapshot(&kind, answer, channel)
    }

    /// Says again who is in the channel through this node: exactly `ours`. Whoever is missing is put back whatever the
    /// number of places, switches become what they are in `ours`, members under a number that this node had before get
    /// its number of now, and members of this node that are not in `ours` leave. What is another session's or node's by
    /// now stays. Every change but that of a number has its journal entry.
    ///
    /// # Errors
    /// When Redis cannot be asked.
    pub async fn restore(
        &self,
        channel: ChannelId,
        ours: Vec<Member>,
        known: Option<&Position>,
    ) -> Result<News, Unavailable> {
        let shared = self.shared();
        let permit = shared.permitted()?;
        if !ours.is_empty() {
            shared.list(&permit, channel).await?;
        }
        let former = encode(&NumbersRecord { numbers: permit.former.clone() });
        let mut own = vec![text(permit.number.to_string()), bytes(former)];
        own.extend(ours.into_iter().map(|member| bytes(encode(&MemberRecord::from(member)))));
        let restoring = shared.on_channel(RedisOperation::Restore, &permit, &script::RESTORE, channel, known, own);
        let (_, mut answer) = restoring.await?;
        let news = answer.list().and_then(|news| read_news(news, channel)).map_err(|error| unreadable(&error))?;
        Ok(news.0)
    }

    /// The same, and everyone who is in the channel then.
    ///
    /// # Errors
    /// When Redis cannot be asked.
    pub async fn restore_all(
        &self,
        channel: ChannelId,
        ours: Vec<Member>,
    ) -> Result<(Vec<Member>, Position), Unavailable> {
        if let News::State { members, position } = self.restore(channel, ours, None).await? {
            return Ok((members, position));
        }
        // Entries alone do not tell who else is there. What happens from here on is told by notices.
        let nobody = || (Vec::new(), Position { epoch: String::new(), offset: 0 });
        let snapshot = self.snapshot(channel, None).await?;
        Ok(snapshot.map_or_else(nobody, |snapshot| (snapshot.members, snapshot.position)))
    }

    /// Appends what was written in a channel, if `previous` is the number of the newest that the journal has, or the journal
    /// has none yet. A channel that has no journal gets one.
    ///
    /// # Errors
    /// When Redis cannot be asked.
    pub async fn append(
        &self,
        channel: ChannelId,
        previous: MessageId,
        written: &[Written],
        known: Option<&Position>,
    ) -> Result<Appended, Unavailable> {
        let shared = self.shared();
        let permit = shared.permitted()?;
        let mut own = vec![number(previous.0)];
        own.extend(written.iter().flat_map(|written| [number(written.number.0), bytes(event_text(&written.event))]));
        let appending = shared.on_channel(RedisOperation::Append, &permit, &script::APPEND, channel, known, own);
        let (kind, mut answer) = appending.await?;
        let mut read = || -> Result<Appended, Unreadable> {
            let newest = MessageId(answer.number()?);
            let (news, position) = read_news(answer.list()?, channel)?;
            Ok(Appended { is_done: kind == "ok", newest, news, position })
        };
        read().map_err(|error| unreadable(&error).into())
    }

    /// Tells everyone in a channel something about the channel itself, which gets its place. A channel that has no journal gets
    /// one.
    ///
    /// # Errors
    /// When Redis cannot be asked.
    pub async fn tell(
        &self,
        channel: ChannelId,
        event: &ServerMessage,
        known: Option<&Position>,
    ) -> Result<News, Unavailable> {
        let shared = self.shared();
        let permit = shared.permitted()?;
        let own = vec![bytes(event_text(event))];
        let telling = shared.on_channel(RedisOperation::Tell, &permit, &script::TELL, channel, known, own);
        let (_, mut answer) = telling.await?;
        let news = answer.list().and_then(|news| read_news(news, channel)).map_err(|error| unreadable(&error))?;
        Ok(news.0)
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
        let permit = shared.permitted()?;
        let reading =
            shared.on_channel(RedisOperation::Snapshot, &permit, &script::SNAPSHOT, channel, since, Vec::new());
        let (kind, answer) = reading.await?;
        read_snapshot(&kind, answer, channel)
    }

    /// How many are in each of the channels now.
    ///
    /// # Errors
    /// When Redis cannot be asked.
    pub async fn occupancy(&self, channels: &[ChannelId]) -> Result<Vec<u32>, Unavailable> {
        let shared = self.shared();
        let permit = shared.permitted()?;
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
    pub async fn forget(&self, channel: ChannelId) {
        let shared = self.shared();
        if let Ok(permit) = shared.permitted() {
            let forgetting =
                shared.on_channel(RedisOperation::Forget, &permit, &script::FORGET, channel, None, Vec::new());
            let _ = forgetting.await;
        }
    }

    /// Has every entry of the channel's journal from now on told as a notice, each once and in order. To be called
    /// before the first join through this node.
    ///
    /// # Errors
    /// When Redis cannot be asked. What was watched before still is.
    pub async fn watch(&self, channel: ChannelId) -> Result<(), Unavailable> {
        let shared = self.shared();
        let permit = shared.permitted()?;
        let is_new = shared.watched.lock().insert_if_missing(channel);
        let watching = async {
            let (done, subscribed) = oneshot::channel();
            shared.requests.send(Request::Watch(channel, done)).await.map_err(|_| Unavailable)?;
            subscribed.await.map_err(|_| Unavailable)?;
            shared.position(&permit, channel).await
        };
        match tokio::time::timeout(shared.config.patience, watching).await {
            Ok(Ok(position)) => {
                shared.watched.lock().begin_at(channel, position);
                Ok(())
            }
            _ => {
                shared.failed();
                if is_new {
                    self.unwatch(channel).await;
                }
                Err(Unavailable)
            }
        }
    }

    /// Ends the notices about a channel. To be called when nobody is in it through this node any more, and no operation
    /// on it runs.
    pub async fn unwatch(&self, channel: ChannelId) {
        let shared = self.shared();
        if shared.watched.lock().remove(channel) {
            // While Redis is away nobody takes requests; everything watched is subscribed to anew afterwards.
            let _ = shared.requests.try_send(Request::Unwatch(channel));
        }
    }

    /// Tells all other nodes of a change in the database. It gets lost while Redis cannot be asked; then
    /// [`Notice::Reconnected`] makes them look.
    pub async fn announce(&self, notice: Notice) {
        let said = match notice {
            Notice::ChannelChanged { channel } => Said::ChannelChanged { channel },
            Notice::StandingChanged { channel, user } => Said::StandingChanged { channel, user },
            Notice::Removed { channel, leave } => Said::Removed { channel, leave },
            Notice::Direct(direct) => Said::Direct { direct },
            Notice::Entry { .. } | Notice::Lost { .. } | Notice::Reconnected => return,
        };
        let _ = self.shared().say(&Topic::AllNodes, said).await;
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

/// Every number under which members of this node may be: between a new number and [`RedisMembership::restore`] that is
/// one that it had before.
fn numbers(permit: &Permit) -> Vec<u8> {
    let numbers = permit.former.iter().chain([&permit.number]).copied().collect();
    encode(&NumbersRecord { numbers })
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
    pub(super) fn single<T>(
        &self,
        operation: RedisOperation,
        work: impl Future<Output = Result<T, fred::error::Error>>,
    ) -> impl Future<Output = Result<T, Unavailable>> {
        let work = super::connection::within(self.config.patience, work);
        async move {
            let result = work.await;
            let outcome = if result.is_ok() { RedisOutcome::Ok } else { RedisOutcome::InDoubt };
            metrics().redis.operations.of((operation, outcome)).increment(1);
            result.map_err(|error| {
                tracing::debug!(%error, "a command of Redis failed");
                self.failed();
                Unavailable
            })
        }
    }

    /// Sees to it that whoever sweeps after this node finds the channel.
    async fn list(&self, permit: &Permit, channel: ChannelId) -> Result<(), Unavailable> {
        if self.listed.contains(&channel) {
            return Ok(());
        }
        let key = keys::channels_of(permit.number);
        self.single(RedisOperation::List, permit.connection.client().sadd::<(), _, _>(key, channel.to_string()))
            .await?;
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
        let reading =
            permit.connection.client().hmget::<(Option<String>, Option<u64>), _, _>(keys::meta(channel), fields);
        let (epoch, offset) = self.single(RedisOperation::Position, reading).await?;
        Ok(Position { epoch: epoch.unwrap_or_default(), offset: offset.unwrap_or(0) })
    }

    /// The entries after `since`; `None` when that cannot be said.
    pub(super) async fn missed(&self, channel: ChannelId, since: &Position) -> Result<Option<Vec<Entry>>, Unavailable> {
        let permit = self.permitted()?;
        let script = &script::MISSED;
        let reading = self.on_channel(RedisOperation::Missed, &permit, script, channel, Some(since), Vec::new());
        let (_, answer) = reading.await?;
        read_missed(answer, channel).map_err(|error| unreadable(&error).into())
    }

    /// Says something to other nodes.
    pub(super) async fn say(&self, topic: &Topic, said: Said) -> Result<(), Unavailable> {
        let permit = self.permitted()?;
        let message = encode(&NodeMessage { from: self.process, said });
        self.single(RedisOperation::Say, permit.connection.publish(topic, message)).await
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
    list.records::<EntryRecord>()?.into_iter().map(|record| record.into_entry(channel)).collect()
}

fn read_members(list: Answer) -> Result<Vec<Member>, Unreadable> {
    let mut members: Vec<Member> = list.records::<MemberRecord>()?.into_iter().map(Member::from).collect();
    // v7 ids sort by age, so everyone sees the same order.
    members.sort_unstable_by_key(|member| member.user.id);
    Ok(members)
}

fn read_snapshot(kind: &str, mut answer: Answer, channel: ChannelId) -> Result<Option<Snapshot>, Unavailable> {
    if kind == "none" {
        return Ok(None);
    }
    let read = || -> Result<Snapshot, Unreadable> {
        let position = Position { epoch: answer.text()?, offset: answer.number()? };
        let members = read_members(answer.list()?)?;
        Ok(Snapshot { members, position, missed: read_missed(answer, channel)? })
    };
    read().map(Some).map_err(|error| unreadable(&error).into())
}

/// The entries missed, at an answer's end; `None` when that cannot be said.
fn read_missed(mut answer: Answer, channel: ChannelId) -> Result<Option<Vec<Entry>>, Unreadable> {
    if answer.is_empty() { Ok(None) } else { entries(answer.list()?, channel).map(Some) }
}

/// Text that no earlier journal has had: 64 random bits are enough to tell one channel's journals apart.
fn new_epoch() -> String {
    format!("{:016x}", u64::from_ne_bytes(random::bytes()))
}
