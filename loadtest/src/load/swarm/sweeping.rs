//! Sweeps the sockets for what has arrived.

use std::{io, sync::atomic::Ordering, time::Instant};

use antiphon_core::wire::datagram::Header;

use super::{Role, Swarm, client::SwarmClient};
use crate::load::system::{Batch, realtime_ns};

/// Clients swept between two looks at what is due to be sent.
const SLICE: usize = 32;

/// Clients in channels where nobody talks are swept once in so many rounds: all that comes to them are answers to pings,
/// and those carry the time of their arrival.
const QUIET_ROUNDS: usize = 16;

impl Swarm {
    /// Empties the next few sockets.
    pub(super) fn sweep_slice(&mut self, now: Instant) -> io::Result<()> {
        if self.cursor == 0 {
            if let Some(last) = self.last_sweep.replace(now) {
                self.sweep_gap.record_us((now - last).as_micros() as u64);
            }
            self.next_sweep = now + self.config.sweep_interval;
        }
        let end = (self.cursor + SLICE).min(self.clients.len());
        for slot in self.cursor..end {
            if (slot + self.round).is_multiple_of(QUIET_ROUNDS) || self.hears(slot) {
                self.sweep(slot)?;
            }
        }
        self.cursor = end;
        if end == self.clients.len() {
            self.cursor = 0;
            self.round += 1;
            // Before a run clients bind, and wait for their answers.
            let step = if self.run.is_some() { QUIET_ROUNDS } else { 1 };
            for index in (self.round % step..self.shared.len()).step_by(step) {
                self.sweep_shared(index)?;
            }
            self.tell_progress();
        }
        Ok(())
    }

    /// Whether somebody talks, or will, in that client's channel.
    pub(super) fn hears(&self, slot: usize) -> bool {
        let client = self.clients.get(slot).and_then(Option::as_ref);
        client.is_some_and(|client| !client.seen.is_empty() || !client.works())
    }

    pub(super) fn tell_progress(&self) {
        let stays = |client: &&SwarmClient| client.role == Role::Stays && client.works();
        let (progress, tally) = (&self.progress, &self.hearing.tally);
        progress.working.store(self.clients.iter().flatten().filter(stays).count(), Ordering::Relaxed);
        progress.delivered.store(tally.delivered, Ordering::Relaxed);
        let expected = self.hearing.speakers.iter().map(|speaker| speaker.counted * speaker.listeners).sum();
        progress.expected.store(expected, Ordering::Relaxed);
        progress.p99_us.store(tally.series.latest_p99_us(realtime_ns()), Ordering::Relaxed);
    }

    /// Takes what has come to a client's own socket, and lets it do what is due.
    pub(super) fn sweep(&mut self, slot: usize) -> io::Result<()> {
        let Some(client) = self.clients.get_mut(slot).and_then(Option::as_mut) else { return Ok(()) };
        let clock = self.config.clock;
        if let Some(socket) = client.own_socket() {
            loop {
                let count = socket.receive(&mut self.batch)?;
                for index in 0..count {
                    let (datagram, stamp_ns) = self.batch.datagram(index);
                    self.hearing.arrived(client, clock, stamp_ns.unwrap_or_else(realtime_ns), datagram);
                }
                if count < Batch::DATAGRAMS {
                    break;
                }
            }
        }
        let now = clock.now();
        while let Some((at, mut datagram)) = client.next_arrival(now) {
            self.hearing.datagram(client, at, clock.stamp_of(at), &mut datagram);
        }
        while let Some(output) = client.wire.poll(now) {
            client.output(now, output);
        }
        self.departures.extend(client.next_departure(slot));
        Ok(())
    }

    /// Takes what has come to a socket that several share; each answer names the session it is for.
    pub(super) fn sweep_shared(&mut self, index: usize) -> io::Result<()> {
        let Some((socket, slots)) = self.shared.get(index) else { return Ok(()) };
        loop {
            let count = socket.receive(&mut self.batch)?;
            for index in 0..count {
                let (datagram, stamp_ns) = self.batch.datagram(index);
                let slot = Header::parse(datagram).ok().and_then(|header| slots.get(&header.id).copied());
                let client = slot.and_then(|slot| self.clients.get_mut(slot)?.as_mut());
                match client {
                    Some(client) => {
                        let stamp_ns = stamp_ns.unwrap_or_else(realtime_ns);
                        self.hearing.arrived(client, self.config.clock, stamp_ns, datagram);
                    }
                    None => self.hearing.unopened += 1,
                }
            }
            if count < Batch::DATAGRAMS {
                return Ok(());
            }
        }
    }
}
