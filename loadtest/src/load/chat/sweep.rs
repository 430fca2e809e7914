//! All members in one thread, which nothing wakes: it sleeps until a message is due or until it is time to sweep the
//! sockets, as the thread with the voice does, so that the server's sends wake nobody. Whoever loses their node is not
//! swept until they are back.

use std::time::{Duration, Instant};

use super::{
    super::{system::realtime_ns, tally::Times},
    member::Member,
    returning::{How, Returned, Returning},
    tally::Tally,
};
use crate::{ServerUrl, gateway::ConnectionError};

/// Members looked at between two looks at what is due to be written.
const MEMBERS_AT_ONCE: usize = 32;

/// How the sessions ended of those who were on their way when all was over.
const STILL_AWAY: &str = "not resumed when all was over";

/// The code that stands for a writer whose session has ended.
const SESSION_ENDED: &str = "SESSION_ENDED";

/// How a node closes a connection whose reader is too slow.
const TOO_SLOW: u16 = 4011;

/// What is written, and when.
pub(super) struct Plan {
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
    members: Vec<Slot>,
    returning: Returning,
    swept: Swept,
}

/// A member's place.
enum Slot {
    Here(Box<Member>),
    /// Their session goes on elsewhere soon.
    Away,
    /// Their session has ended.
    Gone,
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
    /// Sessions that went on at another node, or the same.
    pub(super) returned: u64,
    /// How long each of these was not read.
    pub(super) away: Times,
    /// Of those, the ones whose journal did not reach back, so that the room's history was read.
    pub(super) from_history: u64,
    /// Messages that came with them.
    pub(super) caught_up: u64,
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
            tally: Tally::new(count, plan.writers, plan.first_counted),
            lateness: Times::new(),
            sweep_lateness: Times::new(),
            piled_up_bytes_max: 0,
            returned: 0,
            away: Times::new(),
            from_history: 0,
            caught_up: 0,
            sessions_ended: 0,
            too_slow: 0,
            first_end: None,
        };
        let members = members.into_iter().map(|member| Slot::Here(Box::new(member))).collect();
        Self { plan, members, returning: Returning::new(), swept }
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
        for _ in 0..self.returning.count() {
            self.note_end(STILL_AWAY);
        }
        for slot in self.members {
            if let Slot::Here(member) = slot {
                member.close();
            }
        }
        Swept { tally: self.swept.tally.concluded(), ..self.swept }
    }

    fn is_over(&self) -> bool {
        let all_written = self.swept.tally.next() >= self.plan.messages;
        all_written && (self.swept.tally.is_settled() || self.members.iter().all(|slot| matches!(slot, Slot::Gone)))
    }

    fn due(&self, number: u32) -> Instant {
        self.plan.from + Duration::from_secs_f64(f64::from(number) / self.plan.per_second)
    }

    /// Looks at every member once.
    fn sweep(&mut self) {
        for returned in self.returning.returned() {
            self.welcome(returned);
        }
        for index in 0..self.members.len() {
            if index % MEMBERS_AT_ONCE == 0 {
                self.write_due();
            }
            let Slot::Here(member) = &mut self.members[index] else { continue };
            let looked = member.look(self.plan.message_bytes, &mut self.swept.tally, Instant::now());
            self.swept.piled_up_bytes_max = self.swept.piled_up_bytes_max.max(member.stream.bytes());
            match looked {
                Ok(nodes) if nodes.is_empty() => {}
                Ok(nodes) => self.set_out(index, nodes),
                Err(error) => self.lost(index, &error),
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

    /// Writers take turns. Who is on their way writes when they are back.
    fn write(&mut self, number: u32) {
        let tally = &mut self.swept.tally;
        let index = tally.writer_of(number);
        tally.sent(realtime_ns());
        match &mut self.members[index] {
            Slot::Here(writer) => {
                if let Err(error) = writer.write(number, self.plan.message_bytes) {
                    self.lost(index, &error);
                }
            }
            Slot::Away => {}
            Slot::Gone => tally.refused(number, SESSION_ENDED),
        }
    }

    /// A connection is lost: its session goes on elsewhere, unless the server or our own slowness has ended it.
    fn lost(&mut self, index: usize, error: &ConnectionError) {
        match error {
            ConnectionError::Closed(closed) if closed.code == TOO_SLOW => {
                self.swept.too_slow += 1;
                self.end(index, &error.to_string());
            }
            ConnectionError::Closed(closed) if !closed.resume => self.end(index, &error.to_string()),
            _ => self.set_out(index, Vec::new()),
        }
    }

    fn set_out(&mut self, index: usize, named: Vec<ServerUrl>) {
        if let Slot::Here(member) = std::mem::replace(&mut self.members[index], Slot::Away) {
            self.returning.set_out(index, member, named);
        }
    }

    fn welcome(&mut self, Returned { index, since, how }: Returned) {
        match how {
            How::Back(mut member, missed) => {
                let swept = &mut self.swept;
                swept.returned += 1;
                swept.away.record_us(since.elapsed().as_micros() as u64);
                swept.from_history += u64::from(!missed.recovered);
                swept.caught_up += member.catch_up(&missed, self.plan.message_bytes, &mut swept.tally);
                self.members[index] = Slot::Here(member);
                self.write_again(index);
            }
            How::Stays(member) => {
                self.members[index] = Slot::Here(member);
                self.write_again(index);
            }
            How::Ended(reason) => self.end(index, &reason),
        }
    }

    /// Writes what was due meanwhile, and once more what had got no answer before.
    fn write_again(&mut self, index: usize) {
        for number in self.swept.tally.unanswered_by(index) {
            let Slot::Here(member) = &mut self.members[index] else { return };
            self.swept.tally.sent_again(number);
            if let Err(error) = member.write(number, self.plan.message_bytes) {
                self.lost(index, &error);
            }
        }
    }

    fn end(&mut self, index: usize, reason: &str) {
        self.members[index] = Slot::Gone;
        self.note_end(reason);
    }

    fn note_end(&mut self, reason: &str) {
        self.swept.sessions_ended += 1;
        self.swept.first_end.get_or_insert_with(|| reason.to_owned());
    }
}
