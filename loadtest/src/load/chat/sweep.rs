//! All members in one thread, which nothing wakes: it sleeps until a message is due or until it is time to sweep the
//! sockets, as the thread with the voice does, so that the server's sends wake nobody.

use std::time::{Duration, Instant};

use super::{super::tally::Times, member::Member, tally::Tally};
use crate::gateway::ConnectionError;

/// Members looked at between two looks at what is due to be written.
const MEMBERS_AT_ONCE: usize = 32;

/// The code that stands for a writer whose session has ended.
const SESSION_ENDED: &str = "SESSION_ENDED";

/// How a node closes a connection whose reader is too slow.
const TOO_SLOW: u16 = 4011;

/// What is written, and when.
pub(super) struct Plan {
    pub(super) room: String,
    pub(super) writers: usize,
    pub(super) message_bytes: usize,
    /// When the first message is due.
    pub(super) from: Instant,
    pub(super) per_second: f64,
    pub(super) messages: u32,
    /// Those below are written before the measured time.
    pub(super) first_counted: u32,
    /// After the last message so long is waited for whoever was not told yet.
    pub(super) linger: Duration,
    /// Between two sweeps over the sockets.
    pub(super) interval: Duration,
}

/// The thread's state.
pub(super) struct Sweeper {
    plan: Plan,
    /// `None` once their session has ended.
    members: Vec<Option<Member>>,
    swept: Swept,
}

/// What came of it.
pub(super) struct Swept {
    pub(super) tally: Tally,
    /// How much later than due messages were written.
    pub(super) lateness: Times,
    /// How much later than planned the sockets were swept.
    pub(super) sweep_lateness: Times,
    /// The most that had piled up at one member between two sweeps.
    pub(super) piled_up_bytes_max: usize,
    pub(super) sessions_ended: u64,
    /// Of those, for reading too slowly.
    pub(super) too_slow: u64,
    /// How the first of them ended.
    pub(super) first_end: Option<String>,
}

impl Sweeper {
    pub(super) fn new(plan: Plan, members: Vec<Member>) -> Self {
        let count = members.len();
        let swept = Swept {
            tally: Tally::new(count, plan.first_counted),
            lateness: Times::new(),
            sweep_lateness: Times::new(),
            piled_up_bytes_max: 0,
            sessions_ended: 0,
            too_slow: 0,
            first_end: None,
        };
        Self { plan, members: members.into_iter().map(Some).collect(), swept }
    }

    /// Writes all, and reads until everybody was told of all or it took too long; gives up when nobody wants it any more.
    pub(super) fn run(mut self, is_wanted: &dyn Fn() -> bool) -> Swept {
        let give_up_at = self.due(self.plan.messages) + self.plan.linger;
        let mut begun = Instant::now();
        while !self.is_over() && begun < give_up_at && is_wanted() {
            self.sweep();
            self.rest(begun + self.plan.interval);
            let now = Instant::now();
            if self.swept.tally.next() > self.plan.first_counted && self.swept.tally.next() < self.plan.messages {
                let late = (now - begun).saturating_sub(self.plan.interval);
                self.swept.sweep_lateness.record_us(late.as_micros() as u64);
            }
            begun = now;
        }
        self.members.into_iter().flatten().for_each(Member::close);
        Swept { tally: self.swept.tally.concluded(), ..self.swept }
    }

    fn is_over(&self) -> bool {
        let all_written = self.swept.tally.next() >= self.plan.messages;
        all_written && (self.swept.tally.is_settled() || self.members.iter().all(Option::is_none))
    }

    fn due(&self, number: u32) -> Instant {
        self.plan.from + Duration::from_secs_f64(f64::from(number) / self.plan.per_second)
    }

    /// Looks at every member once.
    fn sweep(&mut self) {
        for index in 0..self.members.len() {
            if index % MEMBERS_AT_ONCE == 0 {
                self.write_due();
            }
            let Some(member) = &mut self.members[index] else { continue };
            let looked = member.look(self.plan.message_bytes, &mut self.swept.tally, Instant::now());
            self.swept.piled_up_bytes_max = self.swept.piled_up_bytes_max.max(member.stream.bytes());
            if let Err(error) = looked {
                self.ended(index, &error);
            }
        }
    }

    /// Sleeps until then, but for what is to be written meanwhile.
    fn rest(&mut self, until: Instant) {
        loop {
            let next = self.write_due();
            let now = Instant::now();
            if now >= until {
                return;
            }
            let wake_at = next.map_or(until, |next| next.min(until));
            std::thread::sleep(wake_at.saturating_duration_since(now));
        }
    }

    /// Writes what is due, and says when the next message will be.
    fn write_due(&mut self) -> Option<Instant> {
        loop {
            let number = self.swept.tally.next();
            if number >= self.plan.messages {
                return None;
            }
            let due = self.due(number);
            let Some(late) = Instant::now().checked_duration_since(due) else { return Some(due) };
            if number >= self.plan.first_counted {
                self.swept.lateness.record_us(late.as_micros() as u64);
            }
            self.write(number);
        }
    }

    /// Writers take turns.
    fn write(&mut self, number: u32) {
        let index = number as usize % self.plan.writers;
        let tally = &mut self.swept.tally;
        let Some(writer) = &mut self.members[index] else {
            tally.sent(0);
            return tally.refused(number, SESSION_ENDED);
        };
        if let Err(error) = writer.write(&self.plan.room, self.plan.message_bytes, tally) {
            tally.refused(number, SESSION_ENDED);
            self.ended(index, &error);
        }
    }

    fn ended(&mut self, index: usize, error: &ConnectionError) {
        self.members[index] = None;
        self.swept.sessions_ended += 1;
        self.swept.too_slow += u64::from(matches!(error, ConnectionError::Closed(closed) if closed.code == TOO_SLOW));
        self.swept.first_end.get_or_insert_with(|| error.to_string());
    }
}
