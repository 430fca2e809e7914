//! Who speaks, and who hears it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use antiphon_core::ids::StreamId;
use tokio::{task::JoinHandle, time::MissedTickBehavior};

use crate::{people::Person, support::people::PATIENCE};

/// A frame's length.
const FRAME: Duration = Duration::from_millis(20);

/// How long the last frames get to arrive.
const ARRIVAL: Duration = Duration::from_secs(1);

/// Frames that everyone is to hear of everyone.
const FRAMES_EACH: usize = 5;

/// Numbers frames: none is ever said twice.
#[derive(Clone, Default)]
pub(crate) struct Numbers(Arc<AtomicU32>);

impl Numbers {
    fn next(&self) -> u32 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }

    fn newest(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Somebody who speaks without a pause, and somebody who listens.
pub(crate) struct Talk {
    listener: Arc<Person>,
    stream: StreamId,
    first: u32,
    begun: Instant,
    task: JoinHandle<()>,
    numbers: Numbers,
}

/// How it went.
#[derive(Clone, Debug)]
pub(crate) struct Talked {
    pub(crate) said: usize,
    /// Which were lost: 0 is the first that was said, a frame's length before the next.
    pub(crate) lost: Vec<u32>,
    pub(crate) longest_silence: Duration,
}

impl Talk {
    /// Begins once the one hears the other. Nobody else may speak meanwhile.
    pub(crate) async fn begin(speaker: Arc<Person>, listener: Arc<Person>, numbers: &Numbers) -> Result<Self, String> {
        let stream = speaker.seen().places.values().next().map(|place| place.stream).ok_or("in no channel")?;
        let first = numbers.newest();
        let begun = Instant::now();
        let is_heard = |listener: &Person| {
            listener.seen().heard.iter().any(|heard| heard.stream == stream && heard.number >= first)
        };
        while !is_heard(&listener) {
            if begun.elapsed() > PATIENCE {
                return Err(format!("stream {stream} is not heard at all before the step"));
            }
            speaker.say(numbers.next());
            tokio::time::sleep(FRAME).await;
        }
        let (first, begun) = (numbers.newest(), Instant::now());
        let task = tokio::spawn(speak(speaker, numbers.clone()));
        Ok(Self { listener, stream, first, begun, task, numbers: numbers.clone() })
    }

    /// Ends it; what was heard of it.
    pub(crate) async fn end(mut self) -> Talked {
        self.task.abort();
        let _ = (&mut self.task).await;
        let (end, ended) = (self.numbers.newest(), Instant::now());
        while self.heard().keys().next_back() != Some(&(end - 1)) && ended.elapsed() < ARRIVAL {
            tokio::time::sleep(FRAME).await;
        }
        let heard = self.heard();
        let said = (self.first..end).len();
        let mut arrivals: Vec<Instant> = heard.values().copied().chain([self.begun, ended]).collect();
        arrivals.sort_unstable();
        let silences = arrivals.windows(2).map(|pair| pair[1] - pair[0]);
        let lost = (self.first..end).filter(|number| !heard.contains_key(number)).map(|number| number - self.first);
        Talked { said, lost: lost.collect(), longest_silence: silences.max().unwrap_or_default() }
    }

    fn heard(&self) -> BTreeMap<u32, Instant> {
        let seen = self.listener.seen();
        let ours = seen.heard.iter().filter(|heard| heard.stream == self.stream && heard.number >= self.first);
        ours.map(|heard| (heard.number, heard.at)).collect()
    }
}

async fn speak(speaker: Arc<Person>, numbers: Numbers) {
    let mut ticks = tokio::time::interval(FRAME);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        speaker.say(numbers.next());
    }
}

/// Lets everyone in a channel speak until everyone else has heard them; nobody may hear who is muted.
pub(crate) async fn all_speak(members: &[(Arc<Person>, bool)], numbers: &Numbers) -> Result<(), String> {
    let first = numbers.newest();
    let begun = Instant::now();
    loop {
        for (person, _) in members {
            person.say(numbers.next());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(FRAME).await;
        let unheard = unheard(members, first)?;
        if unheard.is_empty() {
            return Ok(());
        }
        if begun.elapsed() > PATIENCE {
            return Err(format!("not heard, by whom: {unheard:?}"));
        }
    }
}

/// Pairs of speaker and listener of whom the one has not heard enough of the other.
fn unheard(members: &[(Arc<Person>, bool)], first: u32) -> Result<BTreeSet<(usize, usize)>, String> {
    let mut unheard = BTreeSet::new();
    for (by, (listener, _)) in members.iter().enumerate() {
        let mut counts: BTreeMap<StreamId, usize> = BTreeMap::new();
        for heard in listener.seen().heard.iter().filter(|heard| heard.number >= first) {
            *counts.entry(heard.stream).or_default() += 1;
        }
        for (who, (speaker, muted)) in members.iter().enumerate().filter(|(who, _)| *who != by) {
            let stream = speaker.seen().places.values().next().map(|place| place.stream);
            let count = stream.and_then(|stream| counts.get(&stream).copied()).unwrap_or(0);
            if *muted && count > 0 {
                return Err(format!("{by} hears {who}, who is muted"));
            }
            if !muted && count < FRAMES_EACH {
                unheard.insert((who, by));
            }
        }
    }
    Ok(unheard)
}
