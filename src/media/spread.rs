//! Long lists of listeners are sent over by several workers.
//!
//! A channel lives in one worker, which opens, checks and seals its frames. What costs is the sending, and that can be
//! shared: where this worker is busy and others are not, a sealed datagram and a part of the list of addresses goes to
//! each of them. A part is long enough that waking its worker costs little beside sending it, and it is carried inline,
//! so that nothing is allocated and nothing needs to be kept in step. A worker that has no room for a part is passed
//! over: the part is sent here.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::atomic::{AtomicU8, Ordering},
};

use antiphon_core::{clock::Micros, wire::datagram::DATAGRAM_BYTES_MAX};

/// Listeners in one part: 160 µs of sending, for which a wake-up of 5 µs is a small price.
pub(super) const PART_LISTENERS: usize = 64;
/// Shorter lists are not shared.
pub(super) const LISTENERS_MIN: usize = 4 * PART_LISTENERS;
/// A worker busier than this gets no parts of others.
const HELPER_BUSY_MAX: u8 = 80;
/// How long a worker's load is averaged over.
const LOAD_WINDOW: Micros = Micros::from_millis(100);

/// A datagram and some of those who are to get it.
pub(super) struct Part {
    length: u16,
    bytes: [u8; DATAGRAM_BYTES_MAX],
    count: u8,
    to: [SocketAddr; PART_LISTENERS],
}

impl Part {
    /// Copies both.
    ///
    /// # Panics
    /// When there are more bytes than a datagram has or more listeners than a part has.
    pub(super) fn new(datagram: &[u8], to: &[SocketAddr]) -> Self {
        let nobody = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
        let mut part = Self {
            length: datagram.len() as u16,
            bytes: [0; DATAGRAM_BYTES_MAX],
            count: to.len() as u8,
            to: [nobody; PART_LISTENERS],
        };
        part.bytes[..datagram.len()].copy_from_slice(datagram);
        part.to[..to.len()].copy_from_slice(to);
        part
    }

    pub(super) fn datagram(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    pub(super) fn to(&self) -> &[SocketAddr] {
        &self.to[..usize::from(self.count)]
    }
}

/// How busy a worker is, as the others see it.
#[derive(Debug, Default)]
pub(super) struct Load(AtomicU8);

impl Load {
    /// Whether the worker has time for parts of others.
    pub(super) fn has_time(&self) -> bool {
        self.0.load(Ordering::Relaxed) < HELPER_BUSY_MAX
    }
}

/// A worker's own measure of how busy it is, and whether it shares.
#[derive(Debug)]
pub(super) struct Spread {
    /// From this share of its time on, in percent, a worker lets others help; above 100 never.
    from_percent: u16,
    since: Micros,
    busy: Micros,
    sharing: bool,
}

impl Spread {
    pub(super) fn new(now: Micros, from_percent: u16) -> Self {
        Self { from_percent, since: now, busy: Micros::ZERO, sharing: from_percent == 0 }
    }

    /// Whether long lists are shared just now.
    pub(super) fn is_sharing(&self) -> bool {
        self.sharing
    }

    /// A turn took so long. `helpers` is how many could help.
    pub(super) fn worked(&mut self, now: Micros, busy: Micros, helpers: usize, load: &Load) {
        self.busy = self.busy + busy;
        let passed = now.since(self.since).0;
        if passed < LOAD_WINDOW.0 {
            return;
        }
        let percent = (self.busy.0 * 100 / passed).min(100);
        load.0.store(percent as u8, Ordering::Relaxed);
        // While it shares, its load is a part of what it would be alone: it stops well below where it began.
        let alone = if self.sharing { percent * (helpers as u64 + 1) * 5 / 4 } else { percent };
        self.sharing = alone >= self.from_percent.into();
        (self.since, self.busy) = (now, Micros::ZERO);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(spread: &mut Spread, window: u64, percent: u64, load: &Load) -> bool {
        let now = Micros(window * LOAD_WINDOW.0);
        spread.worked(now, Micros(LOAD_WINDOW.0 * percent / 100), 1, load);
        spread.is_sharing()
    }

    #[test]
    fn a_busy_worker_shares_until_it_could_do_alone_again() {
        let (mut spread, load) = (Spread::new(Micros::ZERO, 60), Load::default());
        assert!(!work(&mut spread, 1, 59, &load));
        assert!(work(&mut spread, 2, 90, &load));
        assert!(!load.has_time());
        assert!(work(&mut spread, 3, 45, &load), "half of what it was: not idler, but helped");
        assert!(load.has_time());
        assert!(!work(&mut spread, 4, 20, &load));
    }

    #[test]
    fn zero_always_shares_and_above_a_hundred_never() {
        let load = Load::default();
        assert!(work(&mut Spread::new(Micros::ZERO, 0), 1, 0, &load));
        assert!(!work(&mut Spread::new(Micros::ZERO, 101), 1, 100, &load));
    }

    #[test]
    fn a_part_holds_what_it_was_made_of() {
        let to: Vec<SocketAddr> = (1..=PART_LISTENERS as u16).map(|port| ([127, 0, 0, 1], port).into()).collect();
        let part = Part::new(&[7; DATAGRAM_BYTES_MAX], &to);
        assert_eq!((part.datagram(), part.to()), (&[7; DATAGRAM_BYTES_MAX][..], &to[..]));
        let part = Part::new(&[1, 2], &to[..1]);
        assert_eq!((part.datagram(), part.to().len()), (&[1, 2][..], 1));
    }
}
