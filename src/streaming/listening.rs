//! Who listens to what: sessions, made of the requests of one listener for one file, without anybody's address.

use std::{
    collections::HashMap,
    fmt,
    net::IpAddr,
    ops::Range,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use antiphon_core::{
    gateway::{ListeningBegun, ListeningEnded},
    ids::ListeningId,
};
use aws_lc_rs::hmac;
use parking_lot::Mutex;
use time::OffsetDateTime;
use uuid::Uuid;

use super::FilePath;
use crate::{
    cluster::{ListeningEvent, ListeningNews},
    store::{Listen, rfc3339},
    telemetry::metrics::metrics,
    transcode::Quality,
};

/// Sessions that are followed at once; requests of further listeners are not followed.
const SESSIONS_MAX: usize = 50_000;

/// Sessions that wait for the database; the oldest of more are lost.
const WAITING_MAX: usize = 20_000;

/// Ranges of one session; where there are more, near ones are taken for one.
const RANGES_MAX: usize = 64;

/// What the key of origins is derived with.
const DERIVED: &[u8] = b"antiphon listeners v1";

/// Where a listener comes from, coarsely: it tells networks apart within a day, and no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Origin(u64);

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What tells sessions apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    path: FilePath,
    quality: Option<Quality>,
    /// Of the whole address and the program, in memory only.
    listener: u64,
}

impl Key {
    fn quality_name(&self) -> &'static str {
        self.quality.map_or("original", Quality::name)
    }
}

struct Session {
    id: Uuid,
    origin: Origin,
    length: u64,
    began: SystemTime,
    ended: SystemTime,
    last: Instant,
    /// Answers that are being sent.
    active: u32,
    bytes: u64,
    ranges: Ranges,
}

/// All sessions of this node.
pub struct Listening {
    key: hmac::Key,
    /// A session is over when nothing was asked for so long: a player that is paused may come back.
    idle: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    sessions: HashMap<Key, Session>,
    waiting: Vec<Listen>,
    /// What is not told yet; nothing while nobody watches.
    news: ListeningNews,
    is_watched: bool,
}

impl State {
    /// Takes sessions that are over out; all of them where the server stops.
    fn settle(&mut self, now: Instant, idle: Duration, all: bool) {
        let is_over = |session: &Session| session.active == 0 && now.saturating_duration_since(session.last) >= idle;
        let over = self.sessions.extract_if(|_, session| all || is_over(session)).collect::<Vec<_>>();
        for (key, session) in over {
            let listen = session.into_listen(&key);
            if self.is_watched {
                self.news.push(ListeningEvent::Ended(ended(&listen)));
            }
            if listen.bytes > 0 {
                self.waiting.push(listen);
            }
        }
        self.bound();
    }

    /// Loses the oldest of what waits where it is too much.
    fn bound(&mut self) {
        let surplus = self.waiting.len().saturating_sub(WAITING_MAX);
        self.waiting.drain(..surplus);
        metrics().streaming.listens_lost.increment(surplus as u64);
    }
}

/// One answer of a session, until it is dropped.
pub struct Heard {
    listening: Arc<Listening>,
    key: Option<Key>,
    ranges: Vec<Range<u64>>,
}

impl fmt::Debug for Listening {
    /// Without the key, and without anybody.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Listening")
    }
}

impl Listening {
    /// With a secret that all nodes share, so that they tell networks apart in the same way. A session of which nothing was
    /// asked for as long as `idle` is over.
    #[must_use]
    pub fn new(secret: &[u8], idle: Duration) -> Arc<Self> {
        let derived = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), DERIVED);
        Arc::new(Self { key: hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref()), idle, state: Mutex::default() })
    }

    /// An answer begins: with a file of `length` bytes, to somebody at `address` with a `program` (`User-Agent`).
    #[must_use]
    pub fn begin(
        self: &Arc<Self>,
        (path, quality, length): (&FilePath, Option<Quality>, u64),
        (address, program): (IpAddr, &str),
        now: (Instant, SystemTime),
    ) -> Heard {
        let listener = self.sum(&format!("{address}\n{program}"), now.1);
        let origin = Origin(self.sum(&network_of(address), now.1));
        let key = Key { path: path.clone(), quality, listener };
        let mut state = self.state.lock();
        if !state.sessions.contains_key(&key) && state.sessions.len() >= SESSIONS_MAX {
            metrics().streaming.listens_lost.increment(1);
            return Heard { listening: Arc::clone(self), key: None, ranges: Vec::new() };
        }
        let State { sessions, news, is_watched, .. } = &mut *state;
        let session = sessions.entry(key.clone()).or_insert_with(|| {
            let session = Session::new(origin, length, now);
            if *is_watched {
                news.push(ListeningEvent::Begun(session.begun(&key)));
            }
            session
        });
        session.active += 1;
        session.last = now.0;
        Heard { listening: Arc::clone(self), key: Some(key), ranges: Vec::new() }
    }

    /// Listeners now: sessions that are being sent something, or were a moment ago.
    #[must_use]
    pub fn live(&self) -> usize {
        self.state.lock().sessions.len()
    }

    /// What is listened to now: each path with its listeners, the most first.
    #[must_use]
    pub fn live_by_path(&self) -> Vec<(String, usize)> {
        let mut counts: HashMap<String, usize> = HashMap::new();
        for key in self.state.lock().sessions.keys() {
            *counts.entry(key.path.to_string()).or_default() += 1;
        }
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_unstable_by(|one, other| other.1.cmp(&one.1).then_with(|| one.0.cmp(&other.0)));
        counts
    }

    /// Sessions that are over, to be stored; all of them where the server stops.
    #[must_use]
    pub fn take_ended(&self, now: Instant, all: bool) -> Vec<Listen> {
        let mut state = self.state.lock();
        state.settle(now, self.idle, all);
        std::mem::take(&mut state.waiting)
    }

    /// Who began and ended to listen since this was last asked, if somebody watches; nothing is noted while nobody does.
    #[must_use]
    pub fn news(&self, now: Instant, is_watched: bool) -> ListeningNews {
        let mut state = self.state.lock();
        state.settle(now, self.idle, false);
        state.is_watched = is_watched;
        std::mem::take(&mut state.news)
    }

    /// Takes back what could not be stored now.
    pub fn give_back(&self, listens: Vec<Listen>) {
        let mut state = self.state.lock();
        state.waiting.extend(listens);
        state.bound();
    }

    /// Of a text, on this day.
    fn sum(&self, text: &str, now: SystemTime) -> u64 {
        let day = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs() / 86_400);
        let tag = hmac::sign(&self.key, format!("{day}\n{text}").as_bytes());
        tag.as_ref().first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
    }
}

impl Heard {
    /// So much of the file was sent.
    pub(super) fn sent(&mut self, range: Range<u64>) {
        match self.ranges.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => self.ranges.push(range),
        }
    }
}

impl Drop for Heard {
    fn drop(&mut self) {
        let Some(key) = &self.key else { return };
        let mut state = self.listening.state.lock();
        let Some(session) = state.sessions.get_mut(key) else { return };
        session.active -= 1;
        (session.last, session.ended) = (Instant::now(), SystemTime::now());
        for range in self.ranges.drain(..) {
            session.bytes += range.end - range.start;
            session.ranges.add(range);
        }
    }
}

impl Session {
    fn new(origin: Origin, length: u64, now: (Instant, SystemTime)) -> Self {
        Self {
            id: Uuid::now_v7(),
            origin,
            length,
            began: now.1,
            ended: now.1,
            last: now.0,
            active: 0,
            bytes: 0,
            ranges: Ranges::default(),
        }
    }

    fn begun(&self, key: &Key) -> ListeningBegun {
        ListeningBegun {
            listening_id: ListeningId(self.id),
            path: key.path.to_string(),
            quality: key.quality_name().to_owned(),
            network: self.origin.to_string(),
            began_at: rfc3339(OffsetDateTime::from(self.began)),
        }
    }

    fn into_listen(self, key: &Key) -> Listen {
        let heard = self.ranges.bytes().min(self.length);
        let permille = heard.saturating_mul(1_000).checked_div(self.length).unwrap_or(0);
        Listen {
            id: self.id,
            path: key.path.to_string(),
            quality: key.quality_name().to_owned(),
            began: self.began.into(),
            ended: self.ended.into(),
            bytes: self.bytes,
            heard_permille: u32::try_from(permille).unwrap_or(1_000),
            ranges: self.ranges.text(),
            origin: self.origin.to_string(),
        }
    }
}

/// As those who watch are told of it.
fn ended(listen: &Listen) -> ListeningEnded {
    ListeningEnded {
        begun: ListeningBegun {
            listening_id: ListeningId(listen.id),
            path: listen.path.clone(),
            quality: listen.quality.clone(),
            network: listen.origin.clone(),
            began_at: rfc3339(listen.began),
        },
        ended_at: rfc3339(listen.ended),
        sent_bytes: listen.bytes,
        heard: f64::from(listen.heard_permille) / 1_000.0,
    }
}

/// The network that an address is in: a /24 or a /48, of which many people share one.
fn network_of(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            format!("{a}.{b}.{c}")
        }
        IpAddr::V6(address) => {
            let [a, b, c, ..] = address.segments();
            format!("{a:x}:{b:x}:{c:x}")
        }
    }
}

/// Parts of a file, in order, none of which touch.
#[derive(Debug, Default)]
struct Ranges(Vec<Range<u64>>);

impl Ranges {
    fn add(&mut self, range: Range<u64>) {
        let mut merged = range;
        self.0.retain(|other| {
            let apart = other.end < merged.start || merged.end < other.start;
            if !apart {
                merged = merged.start.min(other.start)..merged.end.max(other.end);
            }
            apart
        });
        let at = self.0.partition_point(|other| other.start < merged.start);
        self.0.insert(at, merged);
        if self.0.len() > RANGES_MAX {
            self.join_nearest();
        }
    }

    fn join_nearest(&mut self) {
        let gaps = self.0.windows(2).map(|pair| pair[1].start - pair[0].end).enumerate();
        if let Some((at, _)) = gaps.min_by_key(|(_, gap)| *gap) {
            self.0[at].end = self.0.remove(at + 1).end;
        }
    }

    fn bytes(&self) -> u64 {
        self.0.iter().map(|range| range.end - range.start).sum()
    }

    fn text(&self) -> String {
        let ranges: Vec<String> = self.0.iter().map(|range| format!("{}-{}", range.start, range.end)).collect();
        ranges.join(",")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const IDLE: Duration = Duration::from_secs(60);

    fn path() -> FilePath {
        FilePath::new("a.mp3").expect("a path")
    }

    fn listening() -> Arc<Listening> {
        Listening::new(b"a secret", IDLE)
    }

    fn begin(listening: &Arc<Listening>, address: [u8; 4], program: &str) -> Heard {
        let now = (Instant::now(), SystemTime::now());
        listening.begin((&path(), None, 1_000), (address.into(), program), now)
    }

    #[test]
    fn requests_of_one_listener_are_one_session() {
        let listening = listening();
        let mut first = begin(&listening, [203, 0, 113, 7], "player");
        first.sent(0..300);
        first.sent(300..400);
        let mut second = begin(&listening, [203, 0, 113, 7], "player");
        second.sent(900..1_000);
        drop((first, second));
        let mut other = begin(&listening, [203, 0, 113, 8], "player");
        other.sent(0..1_000);
        assert_eq!((listening.live(), listening.live_by_path()), (2, vec![("a.mp3".to_owned(), 2)]));
        let now = Instant::now();
        assert_eq!(listening.take_ended(now, false).len(), 0, "they may come back");
        let late = now + IDLE + Duration::from_secs(1);
        let ended = listening.take_ended(late, false);
        let [ended] = &ended[..] else { panic!("one is over and one is still sent: {ended:?}") };
        assert_eq!((ended.bytes, ended.heard_permille, ended.ranges.as_str()), (500, 500, "0-400,900-1000"));
        drop(other);
        let [other] = &listening.take_ended(late, true)[..] else { panic!("the other") };
        assert_eq!(other.origin, ended.origin, "the same network");
        assert_ne!(other.id, ended.id);
    }

    #[test]
    fn what_is_stored_says_no_address() {
        let listening = listening();
        let mut heard = begin(&listening, [203, 0, 113, 7], "player");
        heard.sent(0..10);
        drop(heard);
        let ended = listening.take_ended(Instant::now(), true);
        // Ids and numbers may hold any three digits.
        assert!(!format!("{ended:?}").contains("203.0.113"), "{ended:?}");
        let elsewhere = Listening::new(b"another secret", IDLE);
        let mut heard = begin(&elsewhere, [203, 0, 113, 7], "player");
        heard.sent(0..10);
        drop(heard);
        assert_ne!(elsewhere.take_ended(Instant::now(), true)[0].origin, ended[0].origin, "nobody can look it up");
    }

    #[test]
    fn who_watches_is_told_of_beginnings_and_ends_from_then_on() {
        let listening = listening();
        let now = Instant::now();
        drop(begin(&listening, [203, 0, 113, 7], "before"));
        assert!(listening.news(now, true).is_empty(), "nobody had watched");
        let mut heard = begin(&listening, [203, 0, 113, 7], "player");
        drop(begin(&listening, [203, 0, 113, 7], "player"));
        heard.sent(0..250);
        let [ListeningEvent::Begun(begun)] = &listening.news(now, true).events[..] else {
            panic!("once, and it is one")
        };
        assert_eq!((begun.path.as_str(), begun.quality.as_str()), ("a.mp3", "original"));
        drop(heard);
        assert!(listening.news(now, true).is_empty(), "they may come back");
        let news = listening.news(Instant::now() + IDLE, true);
        let of = |event: &ListeningEvent| match event {
            ListeningEvent::Ended(ended) if ended.begun == *begun => Some((ended.sent_bytes, ended.heard)),
            _ => None,
        };
        assert_eq!(news.events.iter().filter_map(of).collect::<Vec<_>>(), [(250, 0.25)]);
        assert_eq!(news.events.len(), 2, "the one of before ends, too");
        assert_eq!(
            listening.take_ended(now, false).len(),
            1,
            "what was told is stored all the same, if anything was sent"
        );
        let _ = listening.news(now, false);
        drop(begin(&listening, [203, 0, 113, 7], "player"));
        assert!(listening.news(now, false).is_empty(), "nobody watches any more");
    }

    proptest! {
        #[test]
        fn ranges_are_what_was_sent(parts in proptest::collection::vec((0..200_u64, 1..30_u64), 0..40)) {
            let mut ranges = Ranges::default();
            let mut bytes = std::collections::BTreeSet::new();
            for (start, length) in parts {
                ranges.add(start..start + length);
                bytes.extend(start..start + length);
            }
            prop_assert_eq!(ranges.bytes(), bytes.len() as u64);
            prop_assert!(ranges.0.windows(2).all(|pair| pair[0].end < pair[1].start));
        }

        #[test]
        fn many_ranges_are_bounded(starts in proptest::collection::vec(0..1_000_000_u64, 0..200)) {
            let mut ranges = Ranges::default();
            for start in starts {
                ranges.add(start..start + 1);
            }
            prop_assert!(ranges.0.len() <= RANGES_MAX);
        }
    }
}
