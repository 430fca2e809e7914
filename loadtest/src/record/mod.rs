//! Writes what is heard into files, through the jitter buffer: driven by frames and the time.
//!
//! - `NAME.ogg`: the Opus packets as they came, bit for bit. With one speaker that is the file; with several, each has
//!   one of their own, `NAME-<user>.ogg`. A lost frame, and a pause between spurts, stand in it as packets without
//!   content, so that what follows keeps its time.
//! - `NAME.wav`: everyone decoded and mixed, as a listener would hear it.

mod track;

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
};

use antiphon_core::{clock::Micros, ids::StreamId, jitter::JitterStats};

use self::track::{Mix, MixTrack, OggTrack, Track, TrackWriter};
use crate::{
    audio::{OggOpusError, WavError},
    client::HeardFrame,
};

/// How often [`Recorder::tick`] is to be called.
pub const TICK: Micros = Micros::from_millis(20);

/// After the end so much is still played out of the buffers: their longest delay and one more.
const PLAY_OUT: Micros = Micros::from_millis(1_500);

/// Speakers recorded at once.
const TRACKS_MAX: usize = 256;

/// Why nothing can be written.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The file system.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The Ogg file.
    #[error(transparent)]
    Ogg(#[from] OggOpusError),
    /// The WAV file.
    #[error(transparent)]
    Wav(#[from] WavError),
    /// libopus.
    #[error("libopus: {0}")]
    Opus(#[from] opus::Error),
    /// The folder it is to go into is not there.
    #[error("there is no folder `{0}`")]
    NoFolder(PathBuf),
    /// A name that says nothing of the format.
    #[error("`{0}` ends neither in .ogg nor in .wav")]
    Format(PathBuf),
    /// Too many speakers.
    #[error("more than {TRACKS_MAX} speakers in one recording")]
    TooManySpeakers,
}

/// What was recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    /// The files, in the order of their speakers' first frames.
    pub files: Vec<PathBuf>,
    /// How many spoke.
    pub speakers: usize,
    /// Packets written (or mixed) as they came.
    pub frames: u64,
    /// Frames that never came, or too late.
    pub lost: u64,
    /// Frames that came too late.
    pub late: u64,
    /// Frames that came twice.
    pub duplicates: u64,
}

/// A recording under way.
pub struct Recorder {
    path: PathBuf,
    mix: Option<Mix>,
    tracks: HashMap<StreamId, Track>,
    order: Vec<StreamId>,
    names: HashMap<StreamId, String>,
    /// Frames with content that have arrived, late ones included.
    arrived: u64,
    last_arrival: Option<Micros>,
}

impl Recorder {
    /// A recording into `path`; its ending chooses the format.
    ///
    /// # Errors
    /// When the ending is unknown, the folder is not there, or a WAV file cannot be made.
    pub fn new(path: &Path) -> Result<Self, RecordError> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.is_dir()) {
            return Err(RecordError::NoFolder(folder.to_owned()));
        }
        let ending = path.extension().map(|ending| ending.to_ascii_lowercase());
        let mix = match ending.as_deref().and_then(|ending| ending.to_str()) {
            Some("wav") => Some(Mix::create(path)?),
            Some("ogg" | "opus" | "oga") => None,
            _ => return Err(RecordError::Format(path.to_owned())),
        };
        Ok(Self {
            path: path.to_owned(),
            mix,
            tracks: HashMap::new(),
            order: Vec::new(),
            names: HashMap::new(),
            arrived: 0,
            last_arrival: None,
        })
    }

    /// Whose a stream is, to name their file.
    pub fn name(&mut self, stream: StreamId, username: &str) {
        if self.names.len() < TRACKS_MAX * 16 {
            self.names.insert(stream, username.to_owned());
        }
    }

    /// Frames with content that have arrived so far.
    pub fn arrived(&self) -> u64 {
        self.arrived
    }

    /// When the last frame arrived.
    pub fn last_arrival(&self) -> Option<Micros> {
        self.last_arrival
    }

    /// Takes a frame.
    ///
    /// # Errors
    /// When there are too many speakers or a file cannot be made.
    pub fn push(&mut self, frame: &HeardFrame) -> Result<(), RecordError> {
        let stream = frame.header.stream;
        if !self.tracks.contains_key(&stream) {
            if self.tracks.len() == TRACKS_MAX {
                return Err(RecordError::TooManySpeakers);
            }
            let writer = match self.mix {
                Some(_) => TrackWriter::Mix(MixTrack::new()?),
                None => TrackWriter::Ogg(OggTrack::new(self.track_path(stream), self.name_of(stream))),
            };
            self.order.push(stream);
            self.tracks.insert(stream, Track::new(writer));
        }
        if let Some(track) = self.tracks.get_mut(&stream) {
            track.jitter.push(frame.at, frame.header, &frame.bytes);
        }
        self.arrived += u64::from(!frame.bytes.is_empty());
        self.last_arrival = Some(frame.at);
        Ok(())
    }

    /// Writes what is due; to be called every [`TICK`].
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn tick(&mut self, now: Micros) -> Result<(), RecordError> {
        for track in self.tracks.values_mut() {
            track.play(now)?;
        }
        match &mut self.mix {
            Some(mix) if !self.tracks.is_empty() => mix.write(self.tracks.values_mut()),
            _ => Ok(()),
        }
    }

    /// Plays out what is buffered and closes the files. `duplicates` were dropped before they came here.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn finish(mut self, mut now: Micros, duplicates: u64) -> Result<Recorded, RecordError> {
        let until = now + PLAY_OUT;
        while now < until && self.tracks.values().any(|track| track.jitter.depth() > 0) {
            now = now + TICK;
            self.tick(now)?;
        }
        let mut recorded = Recorded { duplicates, speakers: self.tracks.len(), ..Recorded::default() };
        for stream in &self.order {
            let Some(track) = self.tracks.remove(stream) else { continue };
            let JitterStats { played, lost, late, duplicates, .. } = track.jitter.stats();
            recorded.frames += played;
            recorded.lost += lost;
            recorded.late += late;
            recorded.duplicates += duplicates;
            if let TrackWriter::Ogg(track) = track.writer {
                recorded.files.extend(track.finish()?);
            }
        }
        if let Some(mix) = self.mix {
            mix.file.finish()?;
            recorded.files.push(self.path);
        } else if let [only] = recorded.files.as_mut_slice() {
            fs::rename(&*only, &self.path)?;
            *only = self.path;
        }
        Ok(recorded)
    }

    fn name_of(&self, stream: StreamId) -> String {
        self.names.get(&stream).cloned().unwrap_or_else(|| format!("stream-{stream}"))
    }

    /// `NAME-<user>.ogg`, with a number behind it for a user's further streams.
    fn track_path(&self, stream: StreamId) -> PathBuf {
        let stem = self.path.file_stem().unwrap_or_default().to_string_lossy();
        let ending = self.path.extension().unwrap_or_default().to_string_lossy();
        let name = file_name_of(&self.name_of(stream));
        let taken = |path: &PathBuf| {
            self.tracks.values().any(|track| matches!(&track.writer, TrackWriter::Ogg(track) if track.path == *path))
        };
        let numbered = (2_u32..).map(|number| format!("{stem}-{name}-{number}.{ending}"));
        let mut candidates = std::iter::once(format!("{stem}-{name}.{ending}")).chain(numbered);
        let free = candidates.by_ref().map(|file| self.path.with_file_name(file)).find(|path| !taken(path));
        free.unwrap_or_else(|| self.path.clone())
    }
}

/// A username without what a file name should not hold.
fn file_name_of(username: &str) -> String {
    let safe = |letter: char| if letter.is_alphanumeric() || matches!(letter, '-' | '_') { letter } else { '_' };
    username.chars().map(safe).collect()
}

#[cfg(test)]
mod tests {
    use antiphon_core::{
        ids::ChannelId,
        wire::frame::{FrameHeader, FrameKind},
    };
    use uuid::Uuid;

    use std::fs::File;

    use super::*;
    use crate::{
        audio::{EncoderHint, FRAME_SAMPLES, FrameEncoder, OggOpusReader, WavReader},
        voice::Route,
    };

    /// A directory of a test's own, removed at its end.
    struct Directory(PathBuf);

    impl Directory {
        fn new() -> Self {
            let path = std::env::temp_dir().join(format!("antiphon-record-{}", Uuid::new_v4()));
            fs::create_dir_all(&path).expect("temporary directory");
            Self(path)
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _left = fs::remove_dir_all(&self.0);
        }
    }

    fn tone_packets(count: usize) -> Vec<Vec<u8>> {
        let mut encoder = FrameEncoder::new(1, EncoderHint::speech(1)).expect("libopus");
        let tone = |n: usize| (n as f32 * 0.06).sin() * 0.4;
        (0..count)
            .map(|frame| {
                let samples: Vec<f32> = (0..FRAME_SAMPLES).map(|n| tone(frame * FRAME_SAMPLES + n)).collect();
                encoder.encode(&samples).expect("encodes").expect("no DTX").to_vec()
            })
            .collect()
    }

    fn frame(stream: u32, index: usize, packet: &[u8]) -> HeardFrame {
        let kind = if index == 0 { FrameKind::AudioStart } else { FrameKind::Audio };
        HeardFrame {
            at: Micros::from_millis(20 * index as u64 + 7),
            channel: ChannelId(Uuid::from_u128(1)),
            header: FrameHeader {
                stream: StreamId(stream),
                sequence: index as u16,
                timestamp: index as u32 * 960,
                kind_flags: kind as u8,
                level: 20,
            },
            bytes: packet.to_vec(),
            route: Route::Udp,
        }
    }

    /// Plays frames in, in the given order of arrival, and returns what was recorded.
    fn record(path: &Path, frames: &[HeardFrame]) -> Recorded {
        let mut recorder = Recorder::new(path).expect("starts");
        recorder.name(StreamId(1), "ann");
        recorder.name(StreamId(2), "bob/../x");
        let mut now = Micros::ZERO;
        let mut waiting = frames.iter().peekable();
        while waiting.peek().is_some() {
            now = now + TICK;
            while let Some(frame) = waiting.next_if(|frame| frame.at <= now) {
                recorder.push(frame).expect("records");
            }
            recorder.tick(now).expect("records");
        }
        recorder.finish(now, 0).expect("records")
    }

    fn packets_of(path: &Path) -> Vec<Vec<u8>> {
        let mut reader = OggOpusReader::new(File::open(path).expect("opens")).expect("Ogg Opus");
        std::iter::from_fn(|| reader.next_packet().expect("reads")).collect()
    }

    #[test]
    fn a_folder_that_is_not_there_is_named_at_once() {
        let path = std::env::temp_dir().join(format!("antiphon-no-such-{}", Uuid::new_v4())).join("heard.ogg");
        let refused = Recorder::new(&path).map(|_| ()).expect_err("no folder");
        assert!(
            matches!(&refused, RecordError::NoFolder(folder) if Some(folder.as_path()) == path.parent()),
            "{refused}"
        );
    }

    #[test]
    fn one_speaker_is_one_file_bit_for_bit() {
        let directory = Directory::new();
        let path = directory.0.join("heard.ogg");
        let packets = tone_packets(60);
        let frames: Vec<_> = packets.iter().enumerate().map(|(index, packet)| frame(1, index, packet)).collect();
        let recorded = record(&path, &frames);
        assert_eq!(packets_of(&path), packets);
        assert_eq!((recorded.frames, recorded.lost, recorded.speakers), (60, 0, 1));
        assert_eq!(recorded.files, [path]);
    }

    #[test]
    fn lost_frames_leave_room_and_swapped_ones_are_put_right() {
        let directory = Directory::new();
        let path = directory.0.join("heard.ogg");
        let packets = tone_packets(60);
        let mut frames: Vec<_> = packets.iter().enumerate().map(|(index, packet)| frame(1, index, packet)).collect();
        let late = Micros::from_millis(60);
        frames[30].at = frames[30].at + late;
        frames.remove(20);
        frames.sort_by_key(|frame| frame.at);
        let recorded = record(&path, &frames);
        let written = packets_of(&path);
        assert_eq!(written.len(), 60);
        assert_eq!(written[20], [packets[19][0] & 0xfc], "a packet without content where one was lost");
        assert!((0..60).filter(|index| *index != 20).all(|index| written[index] == packets[index]));
        assert_eq!((recorded.frames, recorded.lost, recorded.late), (59, 1, 0));
    }

    #[test]
    fn several_speakers_have_a_file_each() {
        let directory = Directory::new();
        let packets = tone_packets(20);
        let mut frames: Vec<_> = packets.iter().enumerate().map(|(index, packet)| frame(1, index, packet)).collect();
        frames.extend(packets.iter().enumerate().map(|(index, packet)| frame(2, index, packet)));
        frames.sort_by_key(|frame| frame.at);
        let recorded = record(&directory.0.join("heard.ogg"), &frames);
        assert_eq!(recorded.files, [directory.0.join("heard-ann.ogg"), directory.0.join("heard-bob____x.ogg")]);
        assert!(recorded.files.iter().all(|file| packets_of(file) == packets));
        assert!(!directory.0.join("heard.ogg").exists());
    }

    #[test]
    fn a_wav_holds_the_mix() {
        let directory = Directory::new();
        let path = directory.0.join("heard.wav");
        let packets = tone_packets(50);
        let mut frames: Vec<_> = packets.iter().enumerate().map(|(index, packet)| frame(1, index, packet)).collect();
        frames.extend(packets.iter().enumerate().map(|(index, packet)| frame(2, index, packet)));
        frames.sort_by_key(|frame| frame.at);
        let recorded = record(&path, &frames);
        assert_eq!((recorded.frames, recorded.speakers), (100, 2));
        let mut reader = WavReader::new(File::open(&path).expect("opens")).expect("a WAV file");
        let mut samples = Vec::new();
        while reader.read(1_000, &mut samples).expect("reads") > 0 {}
        let loudest = samples.iter().fold(0.0_f32, |loudest, sample| loudest.max(sample.abs()));
        assert!((0.7..=0.95).contains(&loudest), "two voices of 0.4 in step make 0.8, not {loudest}");
    }

    #[test]
    fn another_ending_is_refused() {
        assert!(matches!(Recorder::new(Path::new("heard.mp3")), Err(RecordError::Format(_))));
    }
}
