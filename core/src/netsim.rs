//! A network that misbehaves as asked, in virtual time: loss, delay, jitter, reordering, duplicates, outages.
//!
//! Like every machine here it is driven by the time and holds neither clock nor socket, and the same seed gives the
//! same run. Tests connect clients and engines with it; the load tester puts it in front of its own sockets.
//!
//! ```text
//!  send(now, datagram) ──► lost? duplicated? ──► delay + jitter ──► poll_timeout(), receive(now)
//! ```

use std::{cmp::Reverse, collections::BinaryHeap};

use crate::{clock::Micros, prng::Prng};

/// How one direction of a network behaves. The default is a perfect one.
#[derive(Clone, Debug, PartialEq)]
pub struct NetworkConfig {
    /// The share of datagrams lost, 0 to 1.
    pub loss: f64,
    /// How many are lost in a row on average. Independent losses have runs of 1 / (1 - loss), which is the least;
    /// above that they come in bursts with the same total share.
    pub loss_burst_mean: f64,
    /// What every datagram takes.
    pub delay: Micros,
    /// Up to so much more, evenly spread. Jitter alone never changes the order, as in a queue.
    pub jitter: Micros,
    /// The share of datagrams held back by [`reorder_delay`](Self::reorder_delay) while later ones pass, 0 to 1.
    pub reorder: f64,
    /// How long those are held back.
    pub reorder_delay: Micros,
    /// The share of datagrams delivered twice, 0 to 1.
    pub duplicate: f64,
    /// How many may be under way; more are lost, and counted as [`NetworkStats::overflowed`].
    pub in_flight_max: usize,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self {
            loss: 0.0,
            loss_burst_mean: 1.0,
            delay: Micros::ZERO,
            jitter: Micros::ZERO,
            reorder: 0.0,
            reorder_delay: Micros::from_millis(30),
            duplicate: 0.0,
            in_flight_max: 65_536,
        }
    }
}

/// What became of the datagrams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetworkStats {
    /// Given to the network.
    pub sent: u64,
    /// Handed out, duplicates included.
    pub delivered: u64,
    /// Lost by chance.
    pub lost: u64,
    /// Lost because the network was blocked.
    pub blocked: u64,
    /// Lost because too many were under way.
    pub overflowed: u64,
    /// Delivered a second time.
    pub duplicated: u64,
    /// Held back.
    pub reordered: u64,
}

/// One direction of a network.
#[derive(Debug)]
pub struct Network<T> {
    config: NetworkConfig,
    prng: Prng,
    in_flight: BinaryHeap<Reverse<InFlight<T>>>,
    /// Orders what arrives at the same time.
    next_number: u64,
    /// When the last one that kept its place arrives: none that keeps its own arrives before it.
    last_arrival: Micros,
    losing: bool,
    blocked: bool,
    stats: NetworkStats,
}

impl<T: Clone> Network<T> {
    /// An empty network.
    #[must_use]
    pub fn new(config: NetworkConfig, seed: u64) -> Self {
        Self {
            config,
            prng: Prng::new(seed),
            in_flight: BinaryHeap::new(),
            next_number: 0,
            last_arrival: Micros::ZERO,
            losing: false,
            blocked: false,
            stats: NetworkStats::default(),
        }
    }

    /// From now on the network behaves so; what is under way is not affected.
    pub fn set_config(&mut self, config: NetworkConfig) {
        self.config = config;
    }

    /// Blocked, everything sent is lost; what is under way still arrives.
    pub fn set_blocked(&mut self, blocked: bool) {
        self.blocked = blocked;
    }

    /// Sends a datagram.
    pub fn send(&mut self, now: Micros, datagram: T) {
        self.stats.sent += 1;
        if self.blocked {
            self.stats.blocked += 1;
            return;
        }
        if self.loses_one() {
            self.stats.lost += 1;
            return;
        }
        if self.prng.chance(self.config.duplicate) {
            self.stats.duplicated += 1;
            self.put_under_way(now, datagram.clone());
        }
        self.put_under_way(now, datagram);
    }

    /// When the next datagram arrives.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Micros> {
        self.in_flight.peek().map(|Reverse(first)| first.arrival)
    }

    /// The next datagram that has arrived by `now`.
    pub fn receive(&mut self, now: Micros) -> Option<T> {
        if self.poll_timeout()? > now {
            return None;
        }
        let Reverse(first) = self.in_flight.pop()?;
        self.stats.delivered += 1;
        Some(first.datagram)
    }

    /// What became of the datagrams so far.
    #[must_use]
    pub const fn stats(&self) -> NetworkStats {
        self.stats
    }

    /// Decides by two states, as Gilbert's model does: within a burst everything is lost.
    fn loses_one(&mut self) -> bool {
        let kept = 1.0 - self.config.loss;
        if kept <= 0.0 {
            return true;
        }
        let burst_ends = kept.min(1.0 / self.config.loss_burst_mean.max(1.0));
        // The share of time in the losing state is begins / (begins + ends); it is to be `loss`.
        let burst_begins = self.config.loss * burst_ends / kept;
        self.losing = if self.losing { !self.prng.chance(burst_ends) } else { self.prng.chance(burst_begins) };
        self.losing
    }

    fn put_under_way(&mut self, now: Micros, datagram: T) {
        if self.in_flight.len() >= self.config.in_flight_max {
            self.stats.overflowed += 1;
            return;
        }
        let jitter = Micros(self.prng.below(self.config.jitter.0 + 1));
        let mut arrival = now + self.config.delay + jitter;
        if self.prng.chance(self.config.reorder) {
            self.stats.reordered += 1;
            arrival = arrival + self.config.reorder_delay;
        } else {
            arrival = arrival.max(self.last_arrival);
            self.last_arrival = arrival;
        }
        let number = self.next_number;
        self.next_number += 1;
        self.in_flight.push(Reverse(InFlight { arrival, number, datagram }));
    }
}

#[derive(Debug)]
struct InFlight<T> {
    arrival: Micros,
    number: u64,
    datagram: T,
}

impl<T> PartialEq for InFlight<T> {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl<T> Eq for InFlight<T> {}

impl<T> PartialOrd for InFlight<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for InFlight<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.arrival, self.number).cmp(&(other.arrival, other.number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COUNT: u32 = 20_000;

    /// Sends `COUNT` numbers, one each millisecond, and returns them with their delays in the order of arrival.
    fn run(config: NetworkConfig, seed: u64) -> (Vec<(u32, Micros)>, NetworkStats) {
        let mut network = Network::new(config, seed);
        let mut received = Vec::new();
        let sent_at = |number: u32| Micros::from_millis(u64::from(number));
        let mut drain = |network: &mut Network<u32>, now: Micros| {
            while let Some(at) = network.poll_timeout().filter(|at| *at <= now) {
                let number = network.receive(at).expect("it has arrived");
                received.push((number, at - sent_at(number)));
            }
        };
        for number in 0..COUNT {
            drain(&mut network, sent_at(number));
            network.send(sent_at(number), number);
        }
        drain(&mut network, sent_at(COUNT) + Micros::from_secs(10));
        (received, network.stats())
    }

    #[test]
    fn a_perfect_network_delivers_everything_at_once_in_order() {
        let (received, stats) = run(NetworkConfig::default(), 1);
        assert_eq!(received, (0..COUNT).map(|number| (number, Micros::ZERO)).collect::<Vec<_>>());
        assert_eq!(stats, NetworkStats { sent: COUNT.into(), delivered: COUNT.into(), ..NetworkStats::default() });
    }

    #[test]
    fn a_seed_is_a_run() {
        let config = NetworkConfig { loss: 0.1, jitter: Micros::from_millis(9), duplicate: 0.1, ..Default::default() };
        assert_eq!(run(config.clone(), 7), run(config.clone(), 7));
        assert_ne!(run(config.clone(), 7), run(config, 8));
    }

    #[test]
    fn loss_has_its_share_in_bursts_or_not() {
        for (asked, burst) in [(1.0, 1.0 / 0.9), (4.0, 4.0)] {
            let config = NetworkConfig { loss: 0.1, loss_burst_mean: asked, ..Default::default() };
            let (received, stats) = run(config, 3);
            assert_eq!(stats.lost + received.len() as u64, u64::from(COUNT));
            let share = stats.lost as f64 / f64::from(COUNT);
            assert!((0.08..0.12).contains(&share), "{share} with bursts of {burst}");
            let bursts = received.windows(2).filter(|pair| pair[1].0 - pair[0].0 > 1).count();
            let mean = stats.lost as f64 / bursts as f64;
            assert!((0.8 * burst..1.3 * burst).contains(&mean), "bursts of {mean} instead of {burst}");
        }
    }

    #[test]
    fn everything_or_nothing_is_lost_at_the_ends() {
        let (received, stats) = run(NetworkConfig { loss: 1.0, ..Default::default() }, 3);
        assert!(received.is_empty());
        assert_eq!(stats.lost, u64::from(COUNT));
    }

    #[test]
    fn jitter_delays_and_keeps_the_order() {
        let (delay, jitter) = (Micros::from_millis(40), Micros::from_millis(25));
        let (received, _) = run(NetworkConfig { delay, jitter, ..Default::default() }, 5);
        assert!(received.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert!(received.iter().all(|(_, took)| (delay..=delay + jitter).contains(took)));
        let late = received.iter().filter(|(_, took)| *took > delay + Micros::from_millis(20)).count();
        assert!(late > received.len() / 10, "{late}");
    }

    #[test]
    fn reordering_holds_some_back() {
        let (received, stats) = run(NetworkConfig { reorder: 0.05, ..Default::default() }, 5);
        assert_eq!(received.len(), COUNT as usize);
        let overtaken = received.windows(2).filter(|pair| pair[0].0 > pair[1].0).count() as u64;
        assert!(overtaken > 0 && overtaken <= stats.reordered);
        assert!((800..1_200).contains(&stats.reordered), "{}", stats.reordered);
    }

    #[test]
    fn duplicates_come_twice() {
        let (received, stats) = run(NetworkConfig { duplicate: 0.05, ..Default::default() }, 5);
        assert_eq!(received.len() as u64, u64::from(COUNT) + stats.duplicated);
        assert!((800..1_200).contains(&stats.duplicated), "{}", stats.duplicated);
    }

    #[test]
    fn a_blocked_network_delivers_what_was_under_way() {
        let config = NetworkConfig { delay: Micros::from_millis(5), ..Default::default() };
        let mut network = Network::new(config, 1);
        network.send(Micros::ZERO, 1);
        network.set_blocked(true);
        network.send(Micros::ZERO, 2);
        network.set_blocked(false);
        network.send(Micros::ZERO, 3);
        let end = Micros::from_secs(1);
        assert_eq!([network.receive(end), network.receive(end), network.receive(end)], [Some(1), Some(3), None]);
        assert_eq!(network.stats().blocked, 1);
    }

    #[test]
    fn what_is_under_way_is_bounded() {
        let config = NetworkConfig { delay: Micros::from_millis(5), in_flight_max: 10, ..Default::default() };
        let mut network = Network::new(config, 1);
        for number in 0..15 {
            network.send(Micros::ZERO, number);
        }
        assert_eq!(network.stats().overflowed, 5);
        assert_eq!(network.poll_timeout(), Some(Micros::from_millis(5)));
    }
}
