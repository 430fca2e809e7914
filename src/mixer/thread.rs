//! A mixing thread: takes what the media workers left, and every 20 ms gives each listener of its channels what they hear.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use antiphon_core::{
    clock::Micros,
    ids::{ChannelId, StreamId, WorkerIndex},
    mix::{ChannelMix, MixOutput, MixStats, MixTo, Shed, Shedder, TICK, TOGETHER_MAX},
};
use tokio::sync::mpsc;

use super::{Command, MixerConfig, Shown, codec::OpusCodec, feed::Feed};
use crate::{
    media::{Media, MixInlets, MixedPacket},
    priority,
    telemetry::metrics::metrics,
};

/// Ticks behind from which on they are left out: what is late by more than this is of no use to anybody.
const BEHIND_MAX: u32 = 3;
/// Between two looks at how full the buffers are, in ticks.
const DEPTHS_EVERY: u64 = 10;

/// What a thread begins with.
pub(super) struct Setup {
    pub(super) index: usize,
    pub(super) config: MixerConfig,
    pub(super) inlets: MixInlets,
    pub(super) media: Media,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) shown: Arc<Shown>,
    pub(super) stop: Arc<AtomicBool>,
}

/// A channel that has listeners.
struct Mixed {
    home: WorkerIndex,
    mix: ChannelMix<OpusCodec>,
    /// For those who are no members, where there are any.
    feed: Option<Feed>,
}

impl Mixed {
    fn skip(&mut self, ticks: u64) {
        self.mix.skip(ticks);
        if let Some(feed) = &mut self.feed {
            feed.skip(ticks);
        }
    }
}

/// A thread.
pub(super) struct MixThread {
    setup: Setup,
    codec: OpusCodec,
    channels: HashMap<ChannelId, Mixed>,
    stats: MixStats,
    /// What of it the metrics have.
    told: MixStats,
    shedder: Shedder,
    /// What is given up, as it was last shown.
    shed: Shed,
    ticks: u64,
}

impl MixThread {
    pub(super) fn new(setup: Setup) -> Self {
        metrics().mixer.threads.of(Shed::Nothing.into()).increment(1.0);
        Self {
            codec: OpusCodec::new(setup.config.bitrate),
            channels: HashMap::new(),
            stats: MixStats::default(),
            told: MixStats::default(),
            shedder: Shedder::new(setup.media.now(), TICK),
            shed: Shed::Nothing,
            ticks: 0,
            setup,
        }
    }

    /// Works until told to stop, or until nobody can want anything any more.
    pub(super) fn run(mut self) {
        // Forwarding comes first wherever both want the same processor.
        priority::lower(self.setup.config.niceness);
        let tick = Duration::from_micros(TICK.0);
        let mut next = Instant::now();
        while !self.setup.stop.load(Ordering::Relaxed) {
            if self.channels.is_empty() {
                self.rest();
                let Some(command) = self.setup.commands.blocking_recv() else { return };
                self.obey(command);
                next = Instant::now() + tick;
                continue;
            }
            let now = Instant::now();
            if let Some(wait) = next.checked_duration_since(now) {
                std::thread::sleep(wait);
            }
            let skipped = self.catch_up(&mut next, tick);
            if !self.take_commands() {
                return;
            }
            self.tick(skipped);
            next += tick;
        }
    }

    /// Leaves out ticks that are too late to be of use; how many.
    fn catch_up(&mut self, next: &mut Instant, tick: Duration) -> u64 {
        let late = Instant::now().saturating_duration_since(*next);
        if late < tick * BEHIND_MAX {
            return 0;
        }
        let skipped = u64::try_from(late.as_micros()).unwrap_or(0) / TICK.0;
        *next += tick * u32::try_from(skipped).unwrap_or(u32::MAX);
        self.channels.values_mut().for_each(|channel| channel.skip(skipped));
        metrics().mixer.ticks_skipped.increment(skipped);
        skipped
    }

    /// False when no more can come.
    fn take_commands(&mut self) -> bool {
        loop {
            match self.setup.commands.try_recv() {
                Ok(command) => self.obey(command),
                Err(mpsc::error::TryRecvError::Empty) => return true,
                Err(mpsc::error::TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Add { channel, home, member, mix } => {
                self.add(channel, home, member, mix);
            }
            Command::AddFeed { channel, home, member, feed } => {
                // Of one who is no member the stream of their mix is of no matter.
                self.add(channel, home, member, member).feed = Some(Feed::new(member, feed));
            }
            Command::Remove { channel, member } => self.remove(channel, member),
            Command::SetDeafened { channel, member, deafened } => {
                if let Some(mixed) = self.channels.get_mut(&channel) {
                    mixed.mix.set_deafened(member, deafened);
                }
            }
            Command::SetLevel { channel, member, speaker, gain } => {
                if let Some(mixed) = self.channels.get_mut(&channel) {
                    // Whoever set as many as they may was told so.
                    let _ = mixed.mix.set_level(member, speaker, gain);
                }
            }
        }
    }

    fn add(&mut self, channel: ChannelId, home: WorkerIndex, member: StreamId, mix: StreamId) -> &mut Mixed {
        let Self { channels, codec, setup, .. } = self;
        let new = || {
            metrics().mixer.channels.increment(1.0);
            Mixed { home, mix: ChannelMix::new(setup.config.mix()), feed: None }
        };
        let mixed = channels.entry(channel).or_insert_with(new);
        // A channel that was closed and opened anew may live elsewhere.
        mixed.home = home;
        mixed.mix.add_listener(member, mix, codec);
        mixed
    }

    fn remove(&mut self, channel: ChannelId, member: StreamId) {
        let Self { channels, codec, .. } = self;
        let Some(mixed) = channels.get_mut(&channel) else { return };
        mixed.mix.remove_listener(member, codec);
        mixed.feed.take_if(|feed| feed.member == member);
        if mixed.mix.listeners() == 0
            && let Some(mixed) = channels.remove(&channel)
        {
            metrics().mixer.channels.decrement(1.0);
            mixed.mix.close(codec);
        }
    }

    /// Takes the frames that came, and mixes.
    fn tick(&mut self, skipped: u64) {
        let begun = self.setup.media.now();
        let complexity = self.shedder.shed().complexity(self.setup.config.complexity);
        self.take_frames();
        let Self { channels, codec, stats, setup, .. } = self;
        for (channel, mixed) in channels.iter_mut() {
            let Mixed { home, mix, feed } = mixed;
            let out = &mut Outlet { channel: *channel, home: *home, media: &setup.media, feed: feed.as_mut() };
            mix.tick(begun, complexity, codec, out, stats);
            if let Some(feed) = feed {
                feed.ticked();
            }
        }
        self.ticks += 1;
        if self.ticks.is_multiple_of(DEPTHS_EVERY) {
            self.show_depths();
        }
        let busy = self.setup.media.now().since(begun);
        let shed = self.shedder.ticked(begun, busy, skipped);
        self.show(shed, busy);
    }

    fn take_frames(&mut self) {
        let Self { channels, codec, stats, setup, .. } = self;
        // What comes meanwhile is the next tick's.
        for _ in 0..setup.inlets.waiting(setup.index) {
            let Some(frame) = setup.inlets.take(setup.index) else { return };
            // Its last listener may have left.
            let Some(mixed) = channels.get_mut(&frame.channel) else { continue };
            mixed.mix.push(frame.at, frame.header, frame.bytes.as_slice(), codec, stats);
        }
    }

    fn show_depths(&self) {
        let depth = &metrics().mixer.buffer_depth;
        let frames = self.channels.values().flat_map(|channel| channel.mix.depths());
        frames.for_each(|frames| depth.record(frames as f64 * TICK.0 as f64 / 1e6));
    }

    fn show(&mut self, shed: Shed, busy: Micros) {
        self.show_shed(shed);
        metrics().mixer.tick_duration.record(busy.0 as f64 / 1e6);
        metrics().mixer.add(&self.stats, &self.told);
        self.told = self.stats;
    }

    fn show_shed(&mut self, shed: Shed) {
        if shed == self.shed {
            return;
        }
        tracing::warn!(
            thread = self.setup.index,
            ?shed,
            load = self.shedder.load(),
            "what the mixer gives up has changed"
        );
        let threads = &metrics().mixer.threads;
        threads.of(self.shed.into()).decrement(1.0);
        threads.of(shed.into()).increment(1.0);
        self.shed = shed;
        self.setup.shown.set(shed);
    }

    /// There is nothing to do: nothing need be given up.
    fn rest(&mut self) {
        self.shedder = Shedder::new(self.setup.media.now(), TICK);
        self.show_shed(Shed::Nothing);
    }
}

impl Drop for MixThread {
    fn drop(&mut self) {
        metrics().mixer.threads.of(self.shed.into()).decrement(1.0);
        metrics().mixer.channels.decrement(self.channels.len() as f64);
    }
}

/// Gives packets to the channel's media worker, and to its feed.
struct Outlet<'a> {
    channel: ChannelId,
    home: WorkerIndex,
    media: &'a Media,
    feed: Option<&'a mut Feed>,
}

impl MixOutput for Outlet<'_> {
    fn mixed(&mut self, to: &[MixTo], timestamp: u32, level: u8, bytes: &[u8]) {
        let place = self.feed.as_ref().and_then(|feed| to.iter().position(|to| to.member == feed.member));
        let Some(place) = place else { return self.give(to, timestamp, level, bytes) };
        if let Some(feed) = &mut self.feed {
            feed.take(bytes);
        }
        let mut members = [MixTo::NOBODY; TOGETHER_MAX];
        members[..to.len()].copy_from_slice(to);
        members.copy_within(place + 1..to.len(), place);
        self.give(&members[..to.len() - 1], timestamp, level, bytes);
    }
}

impl Outlet<'_> {
    fn give(&self, to: &[MixTo], timestamp: u32, level: u8, bytes: &[u8]) {
        if to.is_empty() {
            return;
        }
        let packet = MixedPacket::new(self.channel, to, timestamp, level, bytes);
        if !self.media.try_mixed(self.home, packet) {
            metrics().mixer.packets_refused.increment(1);
        }
    }
}
