//! People who speak all the time and take note of all that they hear and are told.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use antiphon_core::{
    gateway::{ChannelJoined, LeaveReason, MemberView, ServerMessage},
    ids::{ChannelId, StreamId, UserId},
};
use antiphon_loadtest::{
    ServerUrl,
    client::{Client, ClientEvent},
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::timeout,
};

use super::{
    people::{PATIENCE, Person, number_of, voice_frame},
    process::Process,
};

/// A frame every so often.
const FRAME: Duration = Duration::from_millis(20);

/// Somebody who speaks 50 frames a second, each with the next number.
pub struct Talker {
    pub client: Arc<Client>,
    pub joined: ChannelJoined,
    said: watch::Sender<u32>,
    notes: watch::Sender<Notes>,
    tasks: JoinSet<()>,
}

/// What somebody has heard and been told so far.
#[derive(Default)]
pub struct Notes {
    /// When each frame of each stream was heard.
    heard: HashMap<StreamId, BTreeMap<u32, Instant>>,
    /// Everyone in the channel.
    pub members: BTreeMap<UserId, StreamId>,
    came: Vec<(Instant, UserId)>,
    left: Vec<(Instant, UserId, LeaveReason)>,
    /// How often the session went on through another connection.
    pub resumed: usize,
    pub disconnected: usize,
    /// Why they are no longer in the channel, or have no session.
    pub gone: Option<String>,
}

impl Talker {
    /// A guest who joins on a node and speaks from then on, by UDP.
    pub async fn join(server: &Process, name: &str, channel: ChannelId) -> Self {
        Self::join_at(server.url(), Vec::new(), name, channel).await
    }

    /// Likewise by the URL of a node, or of what leads to one, and with other nodes to resume at.
    pub async fn join_at(server: ServerUrl, others: Vec<ServerUrl>, name: &str, channel: ChannelId) -> Self {
        let mut person = Person::join_at(server, others, name, channel).await;
        person.udp_becomes(true).await;
        Self::begin(person)
    }

    /// They speak from now on.
    pub fn begin(person: Person) -> Self {
        let Person { client, events, joined } = person;
        let (client, said, notes) = (Arc::new(client), watch::Sender::new(0), watch::Sender::new(Notes::default()));
        notes.send_modify(|notes| notes.state(&joined.members));
        let mut tasks = JoinSet::new();
        tasks.spawn(take_notes(events, notes.clone()));
        tasks.spawn(speak(Arc::clone(&client), joined.clone(), said.clone()));
        Self { client, joined, said, notes, tasks }
    }

    pub fn stream(&self) -> StreamId {
        self.joined.voice.stream_id
    }

    pub fn user(&self) -> UserId {
        self.client.user().id
    }

    /// The number of their next frame.
    pub fn next_number(&self) -> u32 {
        *self.said.borrow()
    }

    /// Waits until their notes are as `is_so` would have them.
    pub async fn until(&self, what: &str, is_so: impl FnMut(&Notes) -> bool) {
        self.until_within(PATIENCE, what, is_so).await;
    }

    /// Likewise, for so long.
    pub async fn until_within(&self, patience: Duration, what: &str, is_so: impl FnMut(&Notes) -> bool) {
        let mut notes = self.notes.subscribe();
        let waited = timeout(patience, notes.wait_for(is_so)).await.is_ok();
        assert!(waited, "{}: not within {patience:?}: {what}", self.client.user().username);
    }

    /// Waits until they hear what another says from now on.
    pub async fn until_hears(&self, other: &Self) {
        let (from, name) = (other.next_number(), &other.client.user().username);
        self.until(&format!("hears {name}"), |notes| notes.has_heard(other.stream(), from)).await;
    }

    /// Which of these frames of another they have not heard, once they have heard some later ones.
    pub async fn missed(&self, other: &Self, numbers: Range<u32>) -> Vec<u32> {
        self.until("hears later frames", |notes| notes.has_heard(other.stream(), numbers.end + 5)).await;
        let notes = self.notes.borrow();
        let heard = &notes.heard[&other.stream()];
        numbers.filter(|number| !heard.contains_key(number)).collect()
    }

    /// The longest time until now in which they heard nothing of another.
    pub fn silence(&self, other: &Self, since: Instant) -> Duration {
        let notes = self.notes.borrow();
        let heard = notes.heard.get(&other.stream()).into_iter().flat_map(BTreeMap::values);
        let mut times: Vec<Instant> = heard.copied().filter(|at| *at >= since).chain([since, Instant::now()]).collect();
        times.sort_unstable();
        times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }

    /// How often they were told since then that somebody came, and why that one left each time.
    pub fn told_of(&self, other: &Self, since: Instant) -> (usize, Vec<LeaveReason>) {
        let (notes, user) = (self.notes.borrow(), other.user());
        let came = notes.came.iter().filter(|(at, came)| *at >= since && *came == user).count();
        let left = notes.left.iter().filter(|(at, left, _)| *at >= since && *left == user);
        (came, left.map(|(_, _, reason)| *reason).collect())
    }

    pub fn members(&self) -> BTreeMap<UserId, StreamId> {
        self.notes.borrow().members.clone()
    }

    /// They say goodbye.
    pub async fn leave(mut self) {
        self.tasks.shutdown().await;
        Arc::into_inner(self.client).expect("nobody else has it").close().await;
    }

    /// What of their notes is asked for.
    pub fn note<T>(&self, read: impl FnOnce(&Notes) -> T) -> T {
        read(&self.notes.borrow())
    }
}

/// Waits until all of these people hear each other.
pub async fn all_hear_each_other(people: &[&Talker]) {
    for one in people {
        for other in people.iter().filter(|other| other.user() != one.user()) {
            one.until_hears(other).await;
        }
    }
}

/// Waits until all of these people are told that they, and nobody else, are in the channel.
pub async fn all_see_each_other(people: &[&Talker]) {
    let there = people.iter().map(|person| (person.user(), person.stream())).collect();
    for person in people {
        person.until("sees who is there", |notes| notes.members == there).await;
    }
}

impl Notes {
    fn has_heard(&self, stream: StreamId, from: u32) -> bool {
        self.heard.get(&stream).is_some_and(|heard| heard.range(from..).next().is_some())
    }

    /// Whether anything of a stream was heard since then.
    pub fn heard_since(&self, stream: StreamId, since: Instant) -> bool {
        self.heard.get(&stream).is_some_and(|heard| heard.values().any(|at| *at >= since))
    }

    /// Everyone is told anew. Who was not known has come, and who is not among them has left.
    fn state(&mut self, members: &[MemberView]) {
        let now = Instant::now();
        let members: BTreeMap<_, _> = members.iter().map(|member| (member.user_id, member.stream_id)).collect();
        let before = std::mem::replace(&mut self.members, members);
        let (members, known) = (&self.members, &before);
        self.came.extend(members.keys().filter(|user| !known.contains_key(user)).map(|user| (now, *user)));
        let gone = known.keys().filter(|user| !members.contains_key(user));
        self.left.extend(gone.map(|user| (now, *user, LeaveReason::Left)));
    }

    fn take(&mut self, event: ClientEvent) {
        match event {
            // The end of a spurt has no number.
            ClientEvent::Frame(frame) if frame.bytes.is_empty() => {}
            ClientEvent::Frame(frame) => {
                let number = number_of(&frame);
                self.heard.entry(frame.header.stream).or_default().entry(number).or_insert_with(Instant::now);
            }
            ClientEvent::Message(message) => self.told(*message),
            ClientEvent::Disconnected => self.disconnected += 1,
            ClientEvent::Resumed(channels) => {
                self.resumed += 1;
                match channels.first() {
                    Some(channel) => self.state(&channel.members),
                    None => self.gone = Some("not in the channel after a resume".to_owned()),
                }
            }
            ClientEvent::Closed(closed) => self.gone = Some(closed.to_string()),
            ClientEvent::UdpWorks(_) => {}
        }
    }

    fn told(&mut self, message: ServerMessage) {
        match message {
            ServerMessage::UserJoined(joined) => {
                self.came.push((Instant::now(), joined.user_id));
                self.members.insert(joined.user_id, joined.stream_id);
            }
            ServerMessage::UserLeft(left) => {
                self.left.push((Instant::now(), left.user_id, left.reason));
                // They may be there with a newer stream.
                if self.members.get(&left.user_id) == Some(&left.stream_id) {
                    self.members.remove(&left.user_id);
                }
            }
            ServerMessage::Recovered(recovered) => {
                if let Some(members) = &recovered.members {
                    self.state(members);
                }
            }
            ServerMessage::Removed(removed) => self.gone = Some(format!("removed: {:?}", removed.reason)),
            _ => {}
        }
    }
}

async fn take_notes(mut events: mpsc::Receiver<ClientEvent>, notes: watch::Sender<Notes>) {
    while let Some(event) = events.recv().await {
        notes.send_modify(|notes| notes.take(event));
    }
}

async fn speak(client: Arc<Client>, joined: ChannelJoined, said: watch::Sender<u32>) {
    let mut ticks = tokio::time::interval(FRAME);
    loop {
        ticks.tick().await;
        let number = *said.borrow();
        // Nobody speaks where they are not.
        if client.send(joined.channel_id, voice_frame(number)).await.is_err() {
            return;
        }
        said.send_modify(|said| *said += 1);
    }
}
