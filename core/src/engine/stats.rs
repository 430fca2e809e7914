//! What an engine counts: every datagram and frame, and why one went no further.

use std::ops::{AddAssign, Index};

use crate::wire::datagram::HeaderError;

/// What a counter counts. Counters of one family are told apart by a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// Authentic datagrams received; label: type.
    DatagramsReceived,
    /// Datagrams dropped on arrival, unanswered; label: reason.
    DatagramsDropped,
    /// Frames accepted from members.
    FramesAccepted,
    /// Frames dropped, after their datagram was found authentic or by the gateway; label: reason.
    FramesDropped,
    /// Frames missing between the sequence numbers of accepted ones.
    FramesLost,
    /// Frames delivered over UDP: each listener of each frame counts.
    FramesSent,
    /// Frames given to the control plane for members without proven UDP.
    FramesTunnelled,
    /// Media datagrams sent; label: how many frames they carry.
    DatagramsSent,
    /// BindAcks and Pongs sent.
    Answers,
    /// Bytes of all datagrams sent.
    BytesSent,
    /// Times a datagram was sealed.
    Sealed,
    /// Frames handed to another worker.
    FramesHandedOver,
    /// Events that the control plane had no room for; label: whether they are told again.
    EventsRefused,
    /// Commands that name what does not exist, or carry a key of the wrong length.
    CommandsRefused,
    /// Now: UDP sessions; label: state.
    Sessions,
    /// Now: channels whose home is this worker.
    Channels,
    /// Now: members of those channels.
    Members,
}

impl Family {
    /// Whether its numbers go up and down; the others only grow.
    #[must_use]
    pub const fn is_gauge(self) -> bool {
        matches!(self, Self::Sessions | Self::Channels | Self::Members)
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident: $family:ident $(, $label:literal)?;)+) => {
        /// One number of [`EngineStats`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Counter {
            $($(#[$doc])* $name,)+
        }

        impl Counter {
            /// Every counter, in the order of the numbers.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// What it counts.
            #[must_use]
            pub const fn family(self) -> Family {
                match self {
                    $(Self::$name => Family::$family,)+
                }
            }

            /// What tells it from others of its family; empty where it is alone.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self {
                    $(Self::$name => concat!($($label)?),)+
                }
            }
        }
    };
}

counters! {
    /// Media datagrams.
    MediaReceived: DatagramsReceived, "media";
    /// Binds.
    BindReceived: DatagramsReceived, "bind";
    /// Pings.
    PingReceived: DatagramsReceived, "ping";
    /// Reports.
    ReportReceived: DatagramsReceived, "report";
    /// Shorter than header and tag.
    DroppedTooShort: DatagramsDropped, "too_short";
    /// Longer than 1,500 bytes.
    DroppedTooLong: DatagramsDropped, "too_long";
    /// Another protocol's first byte.
    DroppedNotNative: DatagramsDropped, "not_native";
    /// A version unknown here.
    DroppedVersion: DatagramsDropped, "version";
    /// A type unknown here, or one that only nodes send.
    DroppedType: DatagramsDropped, "type";
    /// No session of this worker.
    DroppedUnknownSession: DatagramsDropped, "unknown_session";
    /// Seen before, or too old to tell.
    DroppedReplayed: DatagramsDropped, "replayed";
    /// Not sealed with the session's key.
    DroppedNotAuthentic: DatagramsDropped, "not_authentic";
    /// Authentic, but before the session's first Bind.
    DroppedNotBound: DatagramsDropped, "not_bound";
    /// Authentic, but without what its type must hold.
    DroppedMalformed: DatagramsDropped, "malformed";
    /// Reports in too quick succession.
    DroppedReportRate: DatagramsDropped, "report_rate";
    /// Accepted from members.
    FramesAccepted: FramesAccepted;
    /// The datagram ended within the frame.
    FrameCutOff: FramesDropped, "cut_off";
    /// The stream is none of the session's.
    FrameForeignStream: FramesDropped, "foreign_stream";
    /// No such channel here, or no such member in it.
    FrameUnknownMember: FramesDropped, "unknown_member";
    /// An unknown kind, or Audio without a byte.
    FrameMalformed: FramesDropped, "malformed";
    /// More bytes than a datagram can carry.
    FrameTooLong: FramesDropped, "too_long";
    /// More frames than Opus can make.
    FrameRate: FramesDropped, "rate";
    /// Its sequence number was forwarded before.
    FrameDuplicate: FramesDropped, "duplicate";
    /// Its speaker is muted.
    FrameMuted: FramesDropped, "muted";
    /// Comfort noise sooner than 400 ms after the last.
    FrameSurplusSilence: FramesDropped, "surplus_silence";
    /// Others are louder, and the channel limits its speakers.
    FrameNotSelected: FramesDropped, "not_selected";
    /// The listeners' group has no key yet.
    FrameNoGroupKey: FramesDropped, "no_group_key";
    /// Missing between accepted ones.
    FramesLost: FramesLost;
    /// Delivered over UDP.
    FramesSent: FramesSent;
    /// For members without proven UDP.
    FramesTunnelled: FramesTunnelled;
    /// Of one frame.
    DatagramsOfOne: DatagramsSent, "1";
    /// Of two.
    DatagramsOfTwo: DatagramsSent, "2";
    /// Of three or four.
    DatagramsOfFour: DatagramsSent, "3-4";
    /// Of five to eight.
    DatagramsOfEight: DatagramsSent, "5-8";
    /// Of more.
    DatagramsOfMore: DatagramsSent, "9+";
    /// BindAcks and Pongs.
    AnswersSent: Answers;
    /// All of them.
    BytesSent: BytesSent;
    /// For a group or as an answer.
    Sealed: Sealed;
    /// On their way to their channel's worker.
    FramesHandedOver: FramesHandedOver;
    /// Their channel's worker could not keep up.
    FrameWorkerBusy: FramesDropped, "worker_busy";
    /// Frames and reports: gone.
    EventsLost: EventsRefused, "lost";
    /// State: told again soon.
    EventsDelayed: EventsRefused, "delayed";
    /// Nothing was done.
    CommandsRefused: CommandsRefused;
    /// With a key, bound or not.
    SessionsOpen: Sessions, "open";
    /// UDP to them is proven.
    SessionsProven: Sessions, "proven";
    /// Channels.
    ChannelsOpen: Channels;
    /// Members.
    MembersPresent: Members;
}

impl Counter {
    pub(super) const fn of_header_error(error: HeaderError) -> Self {
        match error {
            HeaderError::TooShort => Self::DroppedTooShort,
            HeaderError::TooLong => Self::DroppedTooLong,
            HeaderError::NotNative => Self::DroppedNotNative,
            HeaderError::Version => Self::DroppedVersion,
            HeaderError::Type => Self::DroppedType,
        }
    }

    pub(super) const fn of_bundle(frames: usize) -> Self {
        match frames {
            0..=1 => Self::DatagramsOfOne,
            2 => Self::DatagramsOfTwo,
            3..=4 => Self::DatagramsOfFour,
            5..=8 => Self::DatagramsOfEight,
            _ => Self::DatagramsOfMore,
        }
    }
}

/// An engine's numbers since it was made, and its gauges as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineStats {
    numbers: [u64; Self::COUNT],
}

impl Default for EngineStats {
    fn default() -> Self {
        Self { numbers: [0; Self::COUNT] }
    }
}

impl EngineStats {
    /// How many numbers there are.
    pub const COUNT: usize = Counter::ALL.len();

    /// The numbers in the order of [`Counter::ALL`].
    #[must_use]
    pub const fn numbers(&self) -> &[u64; Self::COUNT] {
        &self.numbers
    }

    /// From numbers in the order of [`Counter::ALL`].
    #[must_use]
    pub const fn from_numbers(numbers: [u64; Self::COUNT]) -> Self {
        Self { numbers }
    }

    /// The sum of a family's counters.
    #[must_use]
    pub fn total(&self, family: Family) -> u64 {
        Counter::ALL.iter().filter(|counter| counter.family() == family).map(|counter| self[*counter]).sum()
    }

    pub(super) fn count(&mut self, counter: Counter) {
        self.add(counter, 1);
    }

    pub(super) fn add(&mut self, counter: Counter, count: u64) {
        self.numbers[counter as usize] += count;
    }

    pub(super) fn down(&mut self, gauge: Counter) {
        let number = &mut self.numbers[gauge as usize];
        *number = number.saturating_sub(1);
    }
}

impl Index<Counter> for EngineStats {
    type Output = u64;
    fn index(&self, counter: Counter) -> &u64 {
        &self.numbers[counter as usize]
    }
}

impl AddAssign for EngineStats {
    fn add_assign(&mut self, other: Self) {
        for (number, more) in self.numbers.iter_mut().zip(other.numbers) {
            *number += more;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_counter_has_its_number_and_a_name_of_its_own() {
        let names: HashSet<_> = Counter::ALL.iter().map(|counter| (counter.family(), counter.label())).collect();
        assert_eq!(names.len(), EngineStats::COUNT);
        for (index, counter) in Counter::ALL.iter().enumerate() {
            assert_eq!(*counter as usize, index);
        }
    }

    #[test]
    fn a_family_of_several_labels_all_of_them() {
        for counter in Counter::ALL {
            let siblings = Counter::ALL.iter().filter(|other| other.family() == counter.family()).count();
            assert_eq!(counter.label().is_empty(), siblings == 1, "{counter:?}");
        }
    }

    #[test]
    fn stats_add_up() {
        let mut one = EngineStats::default();
        one.count(Counter::DroppedTooShort);
        one.add(Counter::DroppedReplayed, 2);
        let mut sum = EngineStats::from_numbers(*one.numbers());
        sum += one;
        assert_eq!(sum[Counter::DroppedReplayed], 4);
        assert_eq!(sum.total(Family::DatagramsDropped), 6);
    }
}
