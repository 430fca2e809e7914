//! One speaker as this node hears them: their packets as they came, in a file of their own, each where it was said.

use std::{collections::BTreeMap, fs::File, io, os::unix::fs::MetadataExt as _, path::Path};

use antiphon_core::{
    clock::Micros,
    opus_packet::{duration_samples, is_stereo, validate},
    red,
    wire::frame::{FrameHeader, FrameKind},
};

use super::{
    ended::{LINES_ENDING, SOUND_ENDING, being_written},
    ogg::Pages,
    placing::{HOLE_SAMPLES, Placing},
    silence,
    timeline::{Line, Lines, TrackHead},
};
use crate::{
    media::FrameToRecord,
    telemetry::metrics::{RecordDrop, metrics},
};

/// A page is full with so much: what a player that seeks reads too much at most.
const PAGE_SAMPLES: u64 = 48_000;

/// How long a frame waits for those before it, and how many wait.
const ORDER_PATIENCE: Micros = Micros::from_millis(100);
const WAITING_MAX: usize = 16;

/// A track is ended after so many samples, an hour, and another begun: a file is to be of a length that people can handle.
const SAMPLES_MAX: i64 = 48_000 * 3_600;

/// How often a folder that another process removed is made anew.
const TRIES_MAX: u32 = 4;

/// A frame that waits for those before it.
struct Waiting {
    at: Micros,
    packet: Vec<u8>,
    samples: u32,
    sequence: u16,
}

/// A track that grows.
pub(super) struct Track {
    pages: Pages<File>,
    lines: Lines,
    placing: Placing,
    /// The clock of the wall, in microseconds since 1970, when the node's shows zero.
    wall_us: i64,
    /// Samples in the file.
    end: i64,
    waiting: BTreeMap<i64, Waiting>,
    newest: Option<u16>,
    /// At which sample the page that grows was begun.
    page_since: u64,
    /// When what had been said by then could be read, and up to which sample.
    shown: (Micros, i64),
    /// As it was last written.
    began: Micros,
    speaks: bool,
    packets: u64,
    late: u64,
    /// Bytes written that the metrics have.
    counted: u64,
    _counted: Counted,
}

/// A frame's packet and how long it lasts, if it is one.
pub(super) fn packet_of(frame: &FrameToRecord) -> Option<(&[u8], u32)> {
    let bytes = frame.bytes.as_slice();
    let packet = match frame.header.has(FrameHeader::FLAG_REDUNDANT) {
        // What was said before came in time or is lost; it is not waited for here.
        true => red::newest(bytes)?,
        false => bytes,
    };
    validate(packet).ok()?;
    Some((packet, duration_samples(packet).ok()?))
}

impl Track {
    /// Begins a track with the frame that is to be its first.
    pub(super) fn begin(folder: &Path, mut head: TrackHead, wall_us: i64, first: &FrameToRecord) -> io::Result<Self> {
        let stereo = packet_of(first).is_some_and(|(packet, _)| is_stereo(packet));
        head.channels = if stereo { 2 } else { 1 };
        head.started_us = wall_us + micros_of(first.at);
        let folder = being_written(folder, head.recording);
        let file = create(&folder, &format!("{}.{SOUND_ENDING}", head.track))?;
        let lines = Lines::create(&folder.join(format!("{}.{LINES_ENDING}", head.track)), head.clone())?;
        Ok(Self {
            pages: Pages::begin(file, head.channels)?,
            lines,
            placing: Placing::new(first.at, first.header.timestamp),
            wall_us,
            end: 0,
            waiting: BTreeMap::new(),
            newest: None,
            page_since: 0,
            shown: (first.at, 0),
            began: first.at,
            speaks: false,
            packets: 0,
            late: 0,
            counted: 0,
            _counted: Counted::new(),
        })
    }

    /// Whether it is long enough, or has so many bytes, that another is to be begun.
    pub(super) fn is_full(&self, bytes_max: u64, now: Micros) -> bool {
        self.pages.written() >= bytes_max
            || self.end >= SAMPLES_MAX
            || super::placing::samples(now.since(self.began)) >= SAMPLES_MAX
    }

    /// Takes a frame, whose packet lasts so many samples.
    pub(super) fn push(&mut self, frame: &FrameToRecord, (packet, samples): (&[u8], u32)) -> io::Result<()> {
        let FrameHeader { sequence, timestamp, .. } = frame.header;
        let is_newer = self.newest.is_none_or(|newest| sequence.wrapping_sub(newest).cast_signed() > 0);
        let begins = self.placing.begins(timestamp, frame.header.kind() == Some(FrameKind::AudioStart));
        let mut place = self.placing.place(frame.at, timestamp, begins, self.end);
        if place < self.end - i64::from(silence::SAMPLES_MIN) {
            if !is_newer {
                return self.drop_late();
            }
            // It says that it was said while something else was: it goes on from there.
            place = self.placing.is_at(timestamp, self.end);
        }
        if is_newer {
            self.newest = Some(sequence);
        }
        let waits = Waiting { at: frame.at, packet: packet.to_vec(), samples, sequence };
        if self.waiting.insert(place, waits).is_some() {
            self.drop_late()?;
        }
        self.write_due(frame.at)
    }

    /// Time has passed: what waited long enough is written. What was written by then can be read from the file `shown_after` so
    /// long, full page or not: a process that is killed loses no more.
    pub(super) fn tick(&mut self, now: Micros, shown_after: Micros) -> io::Result<()> {
        self.write_due(now)?;
        if self.end > self.shown.1 && now.since(self.shown.0) >= shown_after {
            self.pages.show()?;
            self.shown = (now, self.end);
            let written = self.pages.written();
            metrics().recording.written_bytes.increment(written - self.counted);
            self.counted = written;
        }
        self.note_begin()
    }

    /// Ends the track.
    pub(super) fn finish(mut self) -> io::Result<()> {
        while let Some((place, waiting)) = self.waiting.pop_first() {
            self.put(place, &waiting)?;
        }
        self.note_begin()?;
        self.pause()?;
        let samples = u64::try_from(self.end).unwrap_or(0);
        self.lines.add(&Line::Ended { samples, packets: self.packets, late: self.late })?;
        // Its lock ends with it: whoever looks for tracks that are ended finds it.
        let file = self.pages.finish()?;
        metrics().recording.written_bytes.increment(file.metadata()?.len().saturating_sub(self.counted));
        file.sync_data()
    }

    /// Writes what waits, up to the first that is missing and may still come.
    fn write_due(&mut self, now: Micros) -> io::Result<()> {
        while let Some(first) = self.waiting.first_entry() {
            let is_next = *first.key() <= self.end + i64::from(silence::SAMPLES_MIN);
            let is_due = now.since(first.get().at) >= ORDER_PATIENCE;
            if !is_next && !is_due && self.waiting.len() <= WAITING_MAX && self.end > 0 {
                return Ok(());
            }
            if let Some((place, waiting)) = self.waiting.pop_first() {
                self.put(place, &waiting)?;
            }
        }
        Ok(())
    }

    /// Puts a packet where it belongs; a hole before it becomes silence.
    fn put(&mut self, place: i64, waiting: &Waiting) -> io::Result<()> {
        let hole = place - self.end;
        if hole < -i64::from(silence::SAMPLES_MIN) {
            return self.drop_late();
        }
        if hole > HOLE_SAMPLES {
            self.pause()?;
        }
        while let Some((samples, packet)) = silence::packet(place - self.end) {
            self.add(packet, samples)?;
        }
        if !self.speaks {
            self.speaks = true;
            let us = self.wall_us + micros_of(waiting.at);
            let sample = u64::try_from(self.end).unwrap_or(0);
            self.lines.add(&Line::Speaks { sample, us, sequence: waiting.sequence })?;
        }
        self.packets += 1;
        metrics().recording.packets.increment(1);
        self.add(&waiting.packet, waiting.samples)
    }

    fn add(&mut self, packet: &[u8], samples: u32) -> io::Result<()> {
        if !self.pages.is_waiting() {
            self.page_since = u64::try_from(self.end).unwrap_or(0);
        }
        self.end += i64::from(samples);
        let end = u64::try_from(self.end).unwrap_or(0);
        self.pages.add(packet, end)?;
        if end - self.page_since >= PAGE_SAMPLES { self.pages.flush() } else { Ok(()) }
    }

    fn pause(&mut self) -> io::Result<()> {
        if !std::mem::take(&mut self.speaks) {
            return Ok(());
        }
        self.lines.add(&Line::Pauses { sample: u64::try_from(self.end).unwrap_or(0) })
    }

    /// Notes that the track began earlier than its first frame had it.
    fn note_begin(&mut self) -> io::Result<()> {
        if self.placing.began() == self.began {
            return Ok(());
        }
        self.began = self.placing.began();
        self.lines.add(&Line::Started { us: self.wall_us + micros_of(self.began) })
    }

    fn drop_late(&mut self) -> io::Result<()> {
        self.late += 1;
        metrics().recording.dropped.of(RecordDrop::Late).increment(1);
        Ok(())
    }
}

/// A track that is counted among those being written.
struct Counted;

impl Counted {
    fn new() -> Self {
        metrics().recording.tracks.increment(1.0);
        Self
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        metrics().recording.tracks.decrement(1.0);
    }
}

fn micros_of(at: Micros) -> i64 {
    i64::try_from(at.0).unwrap_or(i64::MAX)
}

/// A new file, locked: whoever finds one that is not locked takes it for one that was left behind.
fn create(folder: &Path, name: &str) -> io::Result<File> {
    let mut tries_left = TRIES_MAX;
    loop {
        tries_left -= 1;
        // Whoever finished the last track in it may just have removed it.
        std::fs::create_dir_all(folder)?;
        let file = match File::options().read(true).write(true).create_new(true).open(folder.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && tries_left > 0 => continue,
            opened => opened?,
        };
        file.lock()?;
        if file.metadata()?.nlink() > 0 {
            return Ok(file);
        }
        if tries_left == 0 {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
    }
}
