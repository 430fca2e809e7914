//! One audio file made into another: decoded, brought to 48 kHz, measured and encoded as Ogg Opus.
//!
//! ```text
//! source (symphonia, Opus, ffmpeg) > mix (one or two channels) > resample (48 kHz) > loudness, peaks
//!                                                                                  > encode > ogg_opus
//! ```
//!
//! Everything here blocks and is for threads of its own. It believes no file: what a header says is held against limits
//! before anything is made of it, and memory does not grow with a file but for its peaks ([`Bounds`]).

mod bounds;
mod decode;
mod encode;
mod error;
mod ffmpeg;
mod loudness;
mod mix;
mod ogg_opus;
mod peaks;
mod promise;
mod quality;
mod resample;
mod together;
mod watch;

use std::{
    fs::File,
    io::Write,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

pub use self::{
    bounds::Bounds,
    error::TranscodeError,
    loudness::Loudness,
    ogg_opus::{head, tags},
    peaks::{BASE_SAMPLES, Peaks},
    quality::Quality,
    together::{Voice, mix_together},
    watch::Watch,
};
use self::{
    decode::Decoded,
    encode::OpusFile,
    ffmpeg::Piped,
    loudness::Meter,
    mix::Mixed,
    resample::{To48k, check_rate},
};

/// The rate of everything that is made, in Hz: Opus knows no other (RFC 7845 section 5.1).
pub const SAMPLE_RATE_HZ: u32 = 48_000;

/// A file of sound, open for reading.
#[derive(Debug)]
pub struct Input<'a> {
    /// The file, read from its begin whatever others do with it.
    pub file: &'a File,
    /// Its name's ending, a hint at what it holds.
    pub ending: &'a str,
    /// An ffmpeg, for files that the built-in decoders do not know.
    pub ffmpeg: Option<&'a Path>,
}

/// What was found out about a file while all of it was decoded.
#[derive(Clone, Debug)]
pub struct Findings {
    /// Its length in samples at 48 kHz.
    pub samples: u64,
    /// Its own rate in Hz.
    pub sample_rate_hz: u32,
    /// Its own channels.
    pub channels: u16,
    /// How loud it is.
    pub loudness: Loudness,
    /// Its waveform.
    pub peaks: Peaks,
    /// Parts of it that could not be decoded and are silence.
    pub damaged_packets: u32,
}

/// Decodes and measures all of a file and, where `output` names one, writes it as Ogg Opus of that quality.
///
/// # Errors
/// When the file holds nothing that can be decoded, breaks a bound, or `output` cannot be written; also when the watch
/// says to stop. What was written until then is no whole file.
pub fn transcode(
    input: &Input<'_>,
    output: Option<(&mut dyn Write, Quality)>,
    bounds: &Bounds,
    watch: &Watch,
) -> Result<Findings, TranscodeError> {
    // A decoder that panics over a damaged file is that file's end, not the thread's.
    let work = AssertUnwindSafe(|| run(input, output, bounds, watch));
    catch_unwind(work).unwrap_or_else(|_| Err(TranscodeError::Undecodable("its decoder gave up".to_owned())))
}

/// Looks whether a file is what its ending says and begins with something that can be decoded.
///
/// # Errors
/// When it is not.
pub fn check(input: &Input<'_>, bounds: &Bounds, watch: &Watch) -> Result<(), TranscodeError> {
    let work = AssertUnwindSafe(|| {
        let mut sound = Sound::open(input, bounds, watch)?;
        if let Sound::Decoded(decoded) = &sound {
            decoded.check_ending(input.ending)?;
        }
        check_rate(sound.rate_hz())?;
        let mut samples = Vec::new();
        let begins = sound.next(&mut samples)?;
        begins.then_some(()).ok_or_else(|| TranscodeError::Undecodable("it holds no sound".to_owned()))
    });
    catch_unwind(work).unwrap_or_else(|_| Err(TranscodeError::Undecodable("its decoder gave up".to_owned())))
}

fn run(
    input: &Input<'_>,
    output: Option<(&mut dyn Write, Quality)>,
    bounds: &Bounds,
    watch: &Watch,
) -> Result<Findings, TranscodeError> {
    let mut sound = Sound::open(input, bounds, watch)?;
    let (rate, channels) = (sound.rate_hz(), sound.channels());
    let mixed = Mixed::new(channels);
    let mut resample = To48k::new(rate, mixed.channels())?;
    let mut made = Made::new(mixed.channels(), output)?;
    let (mut raw, mut stereo, mut out) = (Vec::new(), Vec::new(), Vec::new());
    while sound.next(&mut raw)? {
        watch.check()?;
        stereo.clear();
        mixed.mix(&raw, sound.layout(), &mut stereo);
        out.clear();
        resample.push(&stereo, &mut out)?;
        made.take(&out)?;
        bounds.check_length(made.samples)?;
    }
    out.clear();
    resample.finish(&mut out)?;
    made.take(&out)?;
    made.finish(rate, channels, sound.damaged_packets())
}

/// Where the samples come from.
enum Sound<'a> {
    Decoded(Box<Decoded<'a>>),
    Piped(Piped<'a>),
}

impl<'a> Sound<'a> {
    /// By the built-in decoders; by ffmpeg, where there is one, for what they do not know.
    fn open(input: &Input<'a>, bounds: &'a Bounds, watch: &'a Watch) -> Result<Self, TranscodeError> {
        match (Decoded::open(input.file, input.ending, bounds, watch), input.ffmpeg) {
            (Ok(decoded), _) => Ok(Self::Decoded(Box::new(decoded))),
            (Err(TranscodeError::Unsupported(_)), Some(ffmpeg)) => {
                watch.lose_sight();
                Ok(Self::Piped(Piped::open(ffmpeg, input.file, bounds, watch)?))
            }
            (Err(error), _) => Err(error),
        }
    }

    fn rate_hz(&self) -> u32 {
        match self {
            Self::Decoded(decoded) => decoded.rate_hz(),
            Self::Piped(_) => SAMPLE_RATE_HZ,
        }
    }

    fn channels(&self) -> u16 {
        match self {
            Self::Decoded(decoded) => decoded.layout().len(),
            Self::Piped(_) => ffmpeg::CHANNELS,
        }
    }

    fn layout(&self) -> &mix::Layout {
        match self {
            Self::Decoded(decoded) => decoded.layout(),
            Self::Piped(_) => &mix::Layout::STEREO,
        }
    }

    /// Replaces `out` by the next samples, interleaved; false at the end.
    fn next(&mut self, out: &mut Vec<f32>) -> Result<bool, TranscodeError> {
        match self {
            Self::Decoded(decoded) => decoded.next(out),
            Self::Piped(piped) => piped.next(out),
        }
    }

    fn damaged_packets(&self) -> u32 {
        match self {
            Self::Decoded(decoded) => decoded.damaged_packets(),
            Self::Piped(_) => 0,
        }
    }
}

/// What is made of the samples.
struct Made<'w> {
    samples: u64,
    channels: usize,
    meter: Meter,
    peaks: Peaks,
    file: Option<OpusFile<'w>>,
}

impl<'w> Made<'w> {
    fn new(channels: u16, output: Option<(&'w mut dyn Write, Quality)>) -> Result<Self, TranscodeError> {
        let file = output.map(|(writer, quality)| OpusFile::new(writer, quality, channels)).transpose()?;
        let meter = Meter::new(channels)?;
        Ok(Self { samples: 0, channels: channels.into(), meter, peaks: Peaks::new(), file })
    }

    fn take(&mut self, samples: &[f32]) -> Result<(), TranscodeError> {
        self.samples += (samples.len() / self.channels) as u64;
        self.meter.add(samples)?;
        self.peaks.add(samples, self.channels);
        self.file.as_mut().map_or(Ok(()), |file| file.add(samples))
    }

    fn finish(mut self, sample_rate_hz: u32, channels: u16, damaged_packets: u32) -> Result<Findings, TranscodeError> {
        if self.samples == 0 {
            return Err(TranscodeError::Undecodable("it holds no sound".to_owned()));
        }
        if let Some(file) = self.file {
            file.finish()?;
        }
        self.peaks.end();
        let loudness = self.meter.read()?;
        Ok(Findings { samples: self.samples, sample_rate_hz, channels, loudness, peaks: self.peaks, damaged_packets })
    }
}
