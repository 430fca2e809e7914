//! What became of each message: who was told, once and in order, and what its writer was answered.

use std::collections::BTreeMap;

use super::super::tally::Times;

/// Each member's memory of what they have seen.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// A bit for each number.
    numbers: Vec<u64>,
    last_id: u64,
}

/// How a message came to somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coming {
    /// For the first time, after all that the server numbered lower.
    InOrder,
    /// For the first time, but after something that the server numbered higher.
    OutOfOrder,
    /// Once more.
    Again,
}

impl Seen {
    /// Takes note of the message with that number of ours, and that id of the server's.
    pub(super) fn comes(&mut self, number: u32, id: u64) -> Coming {
        let (word, bit) = (number as usize / 64, 1 << (number % 64));
        if self.numbers.len() <= word {
            self.numbers.resize(word + 1, 0);
        }
        if self.numbers[word] & bit != 0 {
            return Coming::Again;
        }
        self.numbers[word] |= bit;
        let in_order = id > self.last_id;
        self.last_id = self.last_id.max(id);
        if in_order { Coming::InOrder } else { Coming::OutOfOrder }
    }

    /// The highest id that the server gave any of them; 0 before the first.
    pub(super) const fn last_id(&self) -> u64 {
        self.last_id
    }
}

/// What the writer was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    None,
    Stored,
    Refused,
}

#[derive(Clone, Copy, Debug)]
struct Message {
    sent_ns: u64,
    /// How many others were told.
    told: u64,
    answer: Answer,
    /// It was written when its writer's session went on: perhaps once more.
    again: bool,
}

/// All messages, by number.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    messages: Vec<Message>,
    /// How many write, in turn.
    writers: usize,
    /// Those below were written before the measured time.
    first_counted: u32,
    /// Who is to be told of each: all but its writer.
    others: u64,
    /// Not answered yet.
    unanswered: u64,
    /// Of all messages, stored and told.
    stored: u64,
    told: u64,
    pub(super) counts: Counts,
    /// From just before the message was written to when it arrived at somebody else's socket.
    pub(super) latency: Times,
    /// And to the acknowledgement's arrival at its writer's.
    pub(super) acknowledgement: Times,
}

/// What was counted of the messages of the measured time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) sent: u64,
    pub(super) acknowledged: u64,
    /// By error code.
    pub(super) refused: BTreeMap<String, u64>,
    pub(super) unanswered: u64,
    /// Deliveries that should have been, were, and were not.
    pub(super) expected: u64,
    pub(super) delivered: u64,
    pub(super) lost: u64,
    pub(super) doubled: u64,
    pub(super) out_of_order: u64,
    /// What is none of the messages that were written.
    pub(super) corrupt: u64,
    /// Written, once more or late, when their writer's session went on.
    pub(super) again: u64,
}

impl Tally {
    /// Of so many members and, of those, writers, which counts messages from that number on.
    pub(super) fn new(members: usize, writers: usize, first_counted: u32) -> Self {
        Self {
            messages: Vec::new(),
            writers: writers.max(1),
            first_counted,
            others: members.saturating_sub(1) as u64,
            unanswered: 0,
            stored: 0,
            told: 0,
            counts: Counts::default(),
            latency: Times::new(),
            acknowledgement: Times::new(),
        }
    }

    /// The number of the next message.
    pub(super) fn next(&self) -> u32 {
        self.messages.len() as u32
    }

    /// The next message is written now.
    pub(super) fn sent(&mut self, sent_ns: u64) {
        self.counts.sent += u64::from(self.is_counted(self.next()));
        self.unanswered += 1;
        self.messages.push(Message { sent_ns, told: 0, answer: Answer::None, again: false });
    }

    /// Whose turn that message is.
    pub(super) const fn writer_of(&self, number: u32) -> usize {
        number as usize % self.writers
    }

    /// Whether the member at that place writes it.
    pub(super) const fn is_by(&self, number: u32, index: usize) -> bool {
        self.writer_of(number) == index
    }

    /// What the member at that place has written and got no answer to, in order.
    pub(super) fn unanswered_by(&self, index: usize) -> Vec<u32> {
        let theirs = (0..self.next()).skip(index).step_by(self.writers).filter(|_| index < self.writers);
        theirs.filter(|number| self.messages[*number as usize].answer == Answer::None).collect()
    }

    /// It is written since its writer's session goes on: perhaps once more.
    pub(super) fn sent_again(&mut self, number: u32) {
        self.counts.again += u64::from(self.is_counted(number));
        if let Some(message) = self.messages.get_mut(number as usize) {
            message.again = true;
        }
    }

    /// Somebody other than its writer got it.
    pub(super) fn told(&mut self, number: u32, coming: Coming, at_ns: u64) {
        let is_counted = self.is_counted(number);
        let Some(message) = self.messages.get_mut(number as usize) else { return self.corrupt() };
        if coming != Coming::Again {
            message.told += 1;
            self.told += 1;
        }
        if is_counted {
            if coming != Coming::Again {
                self.counts.delivered += 1;
                self.latency.record_us(at_ns.saturating_sub(message.sent_ns) / 1_000);
            }
            self.count(coming);
        }
    }

    /// Its writer got it: it is stored.
    pub(super) fn acknowledged(&mut self, number: u32, coming: Coming, at_ns: u64) {
        let is_counted = self.is_counted(number);
        let Some(message) = self.messages.get_mut(number as usize) else { return self.corrupt() };
        if message.answer == Answer::None {
            message.answer = Answer::Stored;
            self.unanswered -= 1;
            self.stored += 1;
            if is_counted {
                self.counts.acknowledged += 1;
                self.acknowledgement.record_us(at_ns.saturating_sub(message.sent_ns) / 1_000);
            }
        }
        // The answer to what was written again says once more what the session may have been told when it went on.
        if is_counted && !(message.again && coming == Coming::Again) {
            self.count(coming);
        }
    }

    /// The server, or the session's end, says no.
    pub(super) fn refused(&mut self, number: u32, code: &str) {
        let is_counted = self.is_counted(number);
        let Some(message) = self.messages.get_mut(number as usize) else { return };
        if message.answer == Answer::None {
            message.answer = Answer::Refused;
            self.unanswered -= 1;
            if is_counted {
                *self.counts.refused.entry(code.to_owned()).or_default() += 1;
            }
        }
    }

    /// Something came that nobody wrote.
    pub(super) fn corrupt(&mut self) {
        self.counts.corrupt += 1;
    }

    /// Whether every message is answered, and everybody was told of what is stored.
    pub(super) fn is_settled(&self) -> bool {
        self.unanswered == 0 && self.told >= self.stored * self.others
    }

    /// What it all came to. What one was told of, or is acknowledged, everybody should have been told of.
    pub(super) fn concluded(mut self) -> Self {
        for message in self.messages.iter().skip(self.first_counted as usize) {
            self.counts.unanswered += u64::from(message.answer == Answer::None);
            if message.answer == Answer::Stored || message.told > 0 {
                self.counts.expected += self.others;
                self.counts.lost += self.others.saturating_sub(message.told);
            }
        }
        self
    }

    fn is_counted(&self, number: u32) -> bool {
        number >= self.first_counted
    }

    fn count(&mut self, coming: Coming) {
        self.counts.doubled += u64::from(coming == Coming::Again);
        self.counts.out_of_order += u64::from(coming == Coming::OutOfOrder);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_sees_each_message_once_and_in_the_servers_order() {
        let mut seen = Seen::default();
        let order = [(0, 10), (2, 11), (1, 12), (200, 20), (3, 15), (2, 11), (200, 20), (4, 21)];
        let comings: Vec<Coming> = order.iter().map(|(number, id)| seen.comes(*number, *id)).collect();
        use Coming::{Again, InOrder, OutOfOrder};
        assert_eq!(comings, [InOrder, InOrder, InOrder, InOrder, OutOfOrder, Again, Again, InOrder]);
    }

    #[test]
    fn what_one_was_told_of_all_should_have_been() {
        let mut tally = Tally::new(4, 1, 1);
        (0..5).for_each(|number| tally.sent(number * 1_000_000));
        for number in [0, 1, 2] {
            tally.acknowledged(number, Coming::InOrder, u64::from(number) * 1_000_000 + 500_000);
        }
        tally.refused(3, "RATE_LIMITED");
        assert!(!tally.is_settled());
        for (number, times) in [(0, 3), (1, 3), (2, 1), (4, 2)] {
            (0..times).for_each(|_| tally.told(number, Coming::InOrder, u64::from(number) * 1_000_000 + 2_000_000));
        }
        tally.told(1, Coming::Again, 9_000_000);
        tally.told(9, Coming::InOrder, 9_000_000);
        let tally = tally.concluded();
        let counts = &tally.counts;
        assert_eq!((counts.sent, counts.acknowledged, counts.unanswered), (4, 2, 1), "the first was a warm-up");
        assert_eq!((counts.expected, counts.delivered, counts.lost), (9, 6, 3));
        assert_eq!((counts.doubled, counts.out_of_order, counts.corrupt), (1, 0, 1));
        assert_eq!(counts.refused.get("RATE_LIMITED"), Some(&1));
        let (latency, acknowledgement) = (tally.latency.summary(), tally.acknowledgement.summary());
        assert_eq!((latency.count, acknowledgement.count), (6, 2));
        assert!((latency.p50_ms - 2.0).abs() < 0.01 && (acknowledgement.p50_ms - 0.5).abs() < 0.01);
    }

    #[test]
    fn what_is_written_again_and_was_there_is_not_doubled() {
        let mut tally = Tally::new(3, 2, 0);
        (0..6).for_each(|number| tally.sent(number));
        tally.acknowledged(0, Coming::InOrder, 1);
        tally.refused(4, "TEMPORARILY_UNAVAILABLE");
        assert_eq!(tally.unanswered_by(0), [2]);
        assert_eq!((tally.unanswered_by(1), tally.unanswered_by(2)), (vec![1, 3, 5], vec![]));
        tally.sent_again(2);
        tally.acknowledged(2, Coming::InOrder, 2);
        tally.acknowledged(2, Coming::Again, 3);
        assert_eq!((tally.counts.again, tally.counts.acknowledged, tally.counts.doubled), (1, 2, 0));
        tally.acknowledged(0, Coming::Again, 3);
        assert_eq!(tally.counts.doubled, 1, "nobody wrote that again");
    }

    #[test]
    fn it_is_settled_when_all_are_answered_and_told() {
        let mut tally = Tally::new(2, 1, 0);
        assert!(tally.is_settled());
        tally.sent(0);
        tally.acknowledged(0, Coming::InOrder, 1);
        assert!(!tally.is_settled());
        tally.told(0, Coming::InOrder, 1);
        assert!(tally.is_settled());
    }
}
