//! Whether UDP to the node and back works, and what to send to find out (docs/protocol.md, 2.5).
//!
//! ```text
//!             BindAck                        three pings in a row unanswered (1.5 s)
//!  Binding ───────────────▶ Working ────────────────────────────────────────────▶ Binding
//!  a Bind every second      a Ping every `ping` (5 s), every second while it matters,
//!  (sooner at first)        every 500 ms while one is unanswered
//! ```
//!
//! Only while working are frames sent by UDP; else they go over the gateway.

use std::collections::VecDeque;

use antiphon_core::clock::Micros;

/// How long an answer may take before a Ping is repeated.
const ANSWER_WAIT: Micros = Micros::from_millis(500);

/// So many unanswered pings in a row, each waited for, and UDP counts as lost.
const UNANSWERED_MAX: usize = 3;

/// Between Binds once UDP was lost.
const BIND_INTERVAL: Micros = Micros::from_secs(1);

/// Between the first two Binds of a session; doubles up to [`BIND_INTERVAL`].
const BIND_INTERVAL_FIRST: Micros = Micros::from_millis(250);

/// Between pings while speaking or while media has stopped unexpectedly.
const PING_INTERVAL_HURRIED: Micros = Micros::from_secs(1);

/// After binding, so many pings come a second apart: frames that were still under way over the gateway end the node's
/// proof of the way to us, and only a Ping with a later clock renews it.
const SETTLING_PINGS: u32 = 2;

/// Clocks of Binds and Pings that an answer is still accepted for.
const REMEMBERED_MAX: usize = 16;

/// What to send or tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PathAction {
    /// Send a Bind with this clock.
    Bind { client_clock: Micros },
    /// Send a Ping with these clocks.
    Ping { client_clock: Micros, node_clock: Micros },
    /// UDP works from now on.
    Restored,
    /// UDP no longer works.
    Lost,
}

/// The state machine.
#[derive(Debug)]
pub(super) struct Path {
    ping_interval: Micros,
    state: State,
    hurried: bool,
    /// The clocks of requests sent and not answered, oldest first.
    asked: VecDeque<Micros>,
    round_trip: Option<RoundTrip>,
    actions: VecDeque<PathAction>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Binding { next_at: Micros, interval: Micros },
    Working { pinged_at: Micros, unanswered: usize, node_clock: Micros, settling: u32 },
}

#[derive(Clone, Copy, Debug)]
struct RoundTrip {
    smoothed: Micros,
    /// The quickest answer so far, which tells the node's clock best.
    quickest: Micros,
    /// The node's clock minus ours, by the quickest answer.
    clock_difference: i64,
}

impl Path {
    /// A path that binds at once.
    pub(super) fn new(now: Micros, ping_interval: Micros) -> Self {
        Self {
            ping_interval,
            state: State::Binding { next_at: now, interval: BIND_INTERVAL_FIRST },
            hurried: false,
            asked: VecDeque::with_capacity(REMEMBERED_MAX),
            round_trip: None,
            actions: VecDeque::new(),
        }
    }

    /// Whether frames go by UDP.
    pub(super) fn works(&self) -> bool {
        matches!(self.state, State::Working { .. })
    }

    /// Whether to ping every second, since a loss would be heard.
    pub(super) fn hurry(&mut self, hurried: bool) {
        self.hurried = hurried;
    }

    /// The smoothed round-trip time, once there was an answer.
    pub(super) fn round_trip(&self) -> Option<Micros> {
        self.round_trip.map(|known| known.smoothed)
    }

    /// The node's clock now, once there was an answer; off by at most half the quickest round trip.
    pub(super) fn node_clock(&self, now: Micros) -> Option<Micros> {
        let known = self.round_trip?;
        now.0.checked_add_signed(known.clock_difference).map(Micros)
    }

    /// An authentic BindAck or Pong.
    pub(super) fn answer(&mut self, now: Micros, client_clock: Micros, node_clock: Micros) {
        // An answer to nothing that was asked lately says nothing about the path now.
        if !self.asked.contains(&client_clock) {
            return;
        }
        self.asked.retain(|asked| *asked > client_clock);
        self.measure(now, client_clock, node_clock);
        match &mut self.state {
            State::Binding { .. } => {
                self.asked.clear();
                self.actions.push_back(PathAction::Restored);
                self.state = State::Working { pinged_at: now, unanswered: 0, node_clock, settling: SETTLING_PINGS + 1 };
                self.ping(now);
            }
            State::Working { unanswered, node_clock: known, .. } => {
                *known = node_clock;
                *unanswered = self.asked.len();
            }
        }
    }

    fn measure(&mut self, now: Micros, client_clock: Micros, node_clock: Micros) {
        let sample = now - client_clock;
        let midway = client_clock + Micros(sample.0 / 2);
        let clock_difference = signed_difference(node_clock, midway);
        self.round_trip = Some(match self.round_trip {
            None => RoundTrip { smoothed: sample, quickest: sample, clock_difference },
            Some(known) => {
                // RFC 6298's gain of 1/8.
                let smoothed = Micros((known.smoothed.0 * 7 + sample.0) / 8);
                if sample <= known.quickest {
                    RoundTrip { smoothed, quickest: sample, clock_difference }
                } else {
                    RoundTrip { smoothed, ..known }
                }
            }
        });
    }

    /// When [`timeout`](Self::timeout) has something to do next.
    pub(super) fn poll_timeout(&self) -> Micros {
        match self.state {
            State::Binding { next_at, .. } => next_at,
            State::Working { pinged_at, unanswered, settling, .. } => pinged_at + self.wait(unanswered, settling),
        }
    }

    /// How long after the last Ping something is due.
    fn wait(&self, unanswered: usize, settling: u32) -> Micros {
        if unanswered > 0 {
            ANSWER_WAIT
        } else if self.hurried || settling > 0 {
            PING_INTERVAL_HURRIED.min(self.ping_interval)
        } else {
            self.ping_interval
        }
    }

    /// Does what is due.
    pub(super) fn timeout(&mut self, now: Micros) {
        match self.state {
            State::Binding { next_at, interval } if now >= next_at => {
                self.ask(now);
                self.actions.push_back(PathAction::Bind { client_clock: now });
                let doubled = Micros(interval.0 * 2).min(BIND_INTERVAL);
                self.state = State::Binding { next_at: now + interval, interval: doubled };
            }
            State::Working { pinged_at, unanswered, settling, .. }
                if now >= pinged_at + self.wait(unanswered, settling) =>
            {
                if unanswered >= UNANSWERED_MAX {
                    self.actions.push_back(PathAction::Lost);
                    self.asked.clear();
                    self.state = State::Binding { next_at: now, interval: BIND_INTERVAL };
                    self.timeout(now);
                } else {
                    self.ping(now);
                }
            }
            State::Binding { .. } | State::Working { .. } => {}
        }
    }

    /// What to do, in order.
    pub(super) fn poll_action(&mut self) -> Option<PathAction> {
        self.actions.pop_front()
    }

    fn ping(&mut self, now: Micros) {
        self.ask(now);
        if let State::Working { pinged_at, unanswered, node_clock, settling } = &mut self.state {
            *pinged_at = now;
            *settling = settling.saturating_sub(1);
            *unanswered = self.asked.len();
            self.actions.push_back(PathAction::Ping { client_clock: now, node_clock: *node_clock });
        }
    }

    fn ask(&mut self, now: Micros) {
        if self.asked.len() == REMEMBERED_MAX {
            self.asked.pop_front();
        }
        self.asked.push_back(now);
    }
}

fn signed_difference(a: Micros, b: Micros) -> i64 {
    // Clocks count from a process' or a machine's start: no difference comes near 2^63 µs.
    i64::try_from(i128::from(a.0) - i128::from(b.0)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PING: Micros = Micros::from_secs(5);

    fn ms(count: u64) -> Micros {
        Micros::from_millis(count)
    }

    fn actions(path: &mut Path) -> Vec<PathAction> {
        std::iter::from_fn(|| path.poll_action()).collect()
    }

    /// Lets `path` run without answers until `until` and returns when it did what.
    fn run(path: &mut Path, until: Micros) -> Vec<(u64, PathAction)> {
        let mut done = Vec::new();
        while path.poll_timeout() <= until {
            let now = path.poll_timeout();
            path.timeout(now);
            done.extend(actions(path).into_iter().map(|action| (now.0 / 1_000, action)));
        }
        done
    }

    fn working(now: Micros) -> Path {
        let mut path = Path::new(now, PING);
        path.timeout(now);
        path.answer(now + ms(10), now, ms(70_000));
        actions(&mut path);
        path.answer(now + ms(20), now + ms(10), ms(70_010));
        assert!(path.works());
        for _ in 0..SETTLING_PINGS {
            let now = path.poll_timeout();
            path.timeout(now);
            path.answer(now, now, ms(70_020));
        }
        actions(&mut path);
        path
    }

    #[test]
    fn binds_sooner_at_first_then_every_second() {
        let mut path = Path::new(ms(0), PING);
        let times: Vec<u64> = run(&mut path, ms(4_000)).into_iter().map(|(at, _)| at).collect();
        assert_eq!(times, [0, 250, 750, 1_750, 2_750, 3_750]);
        assert!(!path.works());
    }

    #[test]
    fn an_answer_to_the_bind_restores_and_pings_with_the_nodes_clock() {
        let mut path = Path::new(ms(100), PING);
        path.timeout(ms(100));
        actions(&mut path);
        path.answer(ms(130), ms(100), ms(9_000));
        let ping = PathAction::Ping { client_clock: ms(130), node_clock: ms(9_000) };
        assert_eq!(actions(&mut path), [PathAction::Restored, ping]);
        assert_eq!(path.round_trip(), Some(ms(30)));
        assert_eq!(path.node_clock(ms(1_115)), Some(ms(10_000)), "9,000 was midway, at 115");
    }

    #[test]
    fn pings_twice_more_soon_after_binding() {
        let mut path = Path::new(ms(0), PING);
        path.timeout(ms(0));
        path.answer(ms(10), ms(0), ms(1));
        path.answer(ms(12), ms(10), ms(2));
        let mut pinged = Vec::new();
        for _ in 0..3 {
            let now = path.poll_timeout();
            path.timeout(now);
            path.answer(now + ms(2), now, ms(3));
            pinged.push(now.0 / 1_000);
        }
        assert_eq!(pinged, [1_010, 2_010, 7_010]);
    }

    #[test]
    fn pings_every_five_seconds_or_every_second_in_a_hurry() {
        let mut path = working(ms(0));
        let mut pinged = Vec::new();
        for _ in 0..3 {
            let now = path.poll_timeout();
            path.timeout(now);
            pinged.push(now.0 / 1_000);
            path.answer(now + ms(5), now, ms(1));
            path.hurry(pinged.len() >= 2);
        }
        assert_eq!(pinged, [7_010, 12_010, 13_010]);
    }

    #[test]
    fn three_unanswered_pings_lose_the_path_within_a_second_and_a_half() {
        let mut path = working(ms(0));
        let done = run(&mut path, ms(11_000));
        let kinds: Vec<(u64, &str)> = done
            .iter()
            .map(|(at, action)| match action {
                PathAction::Bind { .. } => (*at, "bind"),
                PathAction::Ping { .. } => (*at, "ping"),
                PathAction::Restored => (*at, "restored"),
                PathAction::Lost => (*at, "lost"),
            })
            .collect();
        let expected = [
            (7_010, "ping"),
            (7_510, "ping"),
            (8_010, "ping"),
            (8_510, "lost"),
            (8_510, "bind"),
            (9_510, "bind"),
            (10_510, "bind"),
        ];
        assert_eq!(kinds, expected);
    }

    #[test]
    fn a_late_answer_to_an_earlier_ping_counts_for_that_one_only() {
        let mut path = working(ms(0));
        path.timeout(ms(7_010));
        path.timeout(ms(7_510));
        path.answer(ms(7_600), ms(7_010), ms(2));
        assert_eq!(path.poll_timeout(), ms(8_010), "the second is still out");
        path.answer(ms(7_700), ms(7_510), ms(3));
        assert_eq!(path.poll_timeout(), ms(12_510));
    }

    #[test]
    fn answers_to_nothing_asked_are_ignored() {
        let mut path = Path::new(ms(0), PING);
        path.timeout(ms(0));
        path.answer(ms(5), ms(3), ms(1));
        assert!(!path.works() && path.round_trip().is_none());
    }
}
