//! The built-in decoders: symphonia's, and Opus.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::FileExt,
};

use symphonia::core::{
    audio::Channels,
    codecs::audio::{AudioCodecParameters, AudioDecoder, AudioDecoderOptions, well_known::CODEC_ID_OPUS},
    common::Limit,
    errors::Error,
    formats::{
        FormatId, FormatOptions, FormatReader, TrackType,
        probe::Hint,
        well_known::{FORMAT_ID_ADTS, FORMAT_ID_FLAC, FORMAT_ID_ISOMP4, FORMAT_ID_MP3, FORMAT_ID_OGG, FORMAT_ID_WAVE},
    },
    io::{MediaSource, MediaSourceStream, MediaSourceStreamOptions},
    meta::MetadataOptions,
    packet::Packet,
};

use super::{Bounds, SAMPLE_RATE_HZ, TranscodeError, Watch, bounds::CHANNELS_MAX, mix::Layout};

/// What formats' files are called.
const ENDINGS: [(FormatId, &[&str]); 6] = [
    (FORMAT_ID_MP3, &["mp3"]),
    (FORMAT_ID_OGG, &["ogg", "oga", "opus"]),
    (FORMAT_ID_FLAC, &["flac"]),
    (FORMAT_ID_WAVE, &["wav"]),
    (FORMAT_ID_ISOMP4, &["m4a", "mp4"]),
    (FORMAT_ID_ADTS, &["aac"]),
];

/// The longest Opus packet, in samples: 120 ms (RFC 6716 section 2.1.4).
const OPUS_FRAMES_MAX: usize = 5_760;

/// So many damaged packets in a row, and there is nothing more to be hoped for.
const DAMAGED_RUN_MAX: u32 = 100;

/// The longest silence for one damaged packet, in frames: what its header says is not believed beyond it.
const SILENCE_FRAMES_MAX: u64 = 8_192;

/// A tag or picture of a file is of no use here; so much of it is read.
const TAG_BYTES_MAX: usize = 64 * 1_024;

/// By how much a file may be shorter than its header says, in seconds, and as a part of it.
const SHORT_SECONDS: f64 = 1.0;
const SHORT_PART: f64 = 0.01;

/// Data of a WAV file that was written to a pipe: its length was not known (2^32 - 1), or a round number below.
const WAV_UNKNOWN_BYTES: u64 = 0xf000_0000;

/// A file that is being decoded.
pub(super) struct Decoded<'a> {
    format: Box<dyn FormatReader + 'a>,
    track: u32,
    codec: Codec,
    rate_hz: u32,
    channels: Channels,
    layout: Layout,
    watch: &'a Watch,
    /// The first samples, which say what kind they are.
    first: Option<Vec<f32>>,
    /// What the header promises, in seconds.
    declared_s: Option<f64>,
    frames: u64,
    packets: u64,
    damaged: u32,
    damaged_run: u32,
}

enum Codec {
    Symphonia(Box<dyn AudioDecoder>),
    Opus { decoder: Box<opus::Decoder>, channels: u8, buffer: Vec<f32> },
}

impl<'a> Decoded<'a> {
    /// Reads a file's head and its first sound.
    pub(super) fn open(
        file: &'a File,
        ending: &str,
        bounds: &Bounds,
        watch: &'a Watch,
    ) -> Result<Self, TranscodeError> {
        let source = MediaSourceStream::new(Box::new(Watched::new(file, watch)?), MediaSourceStreamOptions::default());
        let mut hint = Hint::new();
        hint.with_extension(ending);
        let metadata = MetadataOptions::default()
            .limit_tag_bytes(Limit::Maximum(TAG_BYTES_MAX))
            .limit_visual_bytes(Limit::Maximum(TAG_BYTES_MAX));
        let format = symphonia::default::get_probe()
            .probe(&hint, source, FormatOptions::default(), metadata)
            .map_err(|error| failed(watch, error))?;
        let none = || TranscodeError::Unsupported("there is no sound in it that could be decoded".to_owned());
        let track = format.default_track(TrackType::Audio).ok_or_else(none)?;
        let parameters = track.codec_params.as_ref().and_then(|parameters| parameters.audio()).ok_or_else(none)?;
        check_channels(parameters.channels.as_ref())?;
        let declared_s = declared_seconds(format.format_info().format, track.num_frames, parameters);
        if let Some(seconds) = declared_s.filter(|seconds| *seconds <= 1e9) {
            // No need to decode for an hour what is too long anyway.
            bounds.check_length((seconds * f64::from(SAMPLE_RATE_HZ)) as u64)?;
        }
        let (track, codec) = (track.id, Codec::of(parameters).map_err(|error| failed(watch, error))?);
        let mut opened = Self {
            format,
            track,
            codec,
            rate_hz: 0,
            channels: Channels::None,
            layout: Layout::STEREO,
            watch,
            first: None,
            declared_s,
            frames: 0,
            packets: 0,
            damaged: 0,
            damaged_run: 0,
        };
        let mut first = Vec::new();
        if opened.read(&mut first)? {
            opened.first = Some(first);
        }
        if opened.rate_hz == 0 {
            return Err(TranscodeError::Undecodable("it holds no sound".to_owned()));
        }
        Ok(opened)
    }

    /// Whether its format is the one that an ending stands for: what is sent as `audio/mpeg` must be it.
    pub(super) fn check_ending(&self, ending: &str) -> Result<(), TranscodeError> {
        let info = self.format.format_info();
        let endings = ENDINGS.iter().find(|(format, _)| *format == info.format).map_or(&[][..], |(_, endings)| endings);
        if endings.iter().any(|known| known.eq_ignore_ascii_case(ending)) {
            return Ok(());
        }
        let message = format!("it is called .{ending} and is {}", info.long_name);
        Err(TranscodeError::Undecodable(message))
    }

    pub(super) fn rate_hz(&self) -> u32 {
        self.rate_hz
    }

    pub(super) fn layout(&self) -> &Layout {
        &self.layout
    }

    pub(super) fn damaged_packets(&self) -> u32 {
        self.damaged
    }

    /// Replaces `out` by the next samples, interleaved; false at the end.
    pub(super) fn next(&mut self, out: &mut Vec<f32>) -> Result<bool, TranscodeError> {
        if let Some(first) = self.first.take() {
            *out = first;
            return Ok(true);
        }
        self.read(out)
    }

    fn read(&mut self, out: &mut Vec<f32>) -> Result<bool, TranscodeError> {
        loop {
            self.watch.check()?;
            out.clear();
            match self.format.next_packet() {
                Ok(Some(packet)) if packet.track_id != self.track => continue,
                Ok(Some(packet)) => {
                    self.packets += 1;
                    if let Err(error) = self.decode(&packet, out) {
                        self.take_damage(error)?;
                        let frames = packet.dur.get().min(SILENCE_FRAMES_MAX);
                        out.clear();
                        out.resize(usize::try_from(frames).unwrap_or(0) * usize::from(self.layout.len()), 0.0);
                        // Before the first sound it is not known what silence is.
                        if self.rate_hz == 0 {
                            continue;
                        }
                    } else {
                        self.damaged_run = 0;
                    }
                }
                Ok(None) => return self.end(),
                Err(Error::IoError(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return self.end(),
                Err(error @ Error::DecodeError(_)) => {
                    self.take_damage(error)?;
                    continue;
                }
                Err(error) => return Err(failed(self.watch, error)),
            }
            if !out.is_empty() {
                self.frames += (out.len() / usize::from(self.layout.len()).max(1)) as u64;
                return Ok(true);
            }
        }
    }

    /// Counts a packet that could not be decoded, until there are too many.
    fn take_damage(&mut self, error: Error) -> Result<(), TranscodeError> {
        if !matches!(error, Error::DecodeError(_) | Error::IoError(_)) {
            return Err(failed(self.watch, error));
        }
        self.watch.check()?;
        self.damaged += 1;
        self.damaged_run += 1;
        if self.damaged_run > DAMAGED_RUN_MAX {
            return Err(TranscodeError::Undecodable(format!(
                "{DAMAGED_RUN_MAX} packets in a row are damaged ({error})"
            )));
        }
        Ok(())
    }

    fn decode(&mut self, packet: &Packet, out: &mut Vec<f32>) -> Result<(), Error> {
        match &mut self.codec {
            Codec::Symphonia(decoder) => {
                let buffer = decoder.decode(packet)?;
                if buffer.frames() == 0 {
                    return Ok(());
                }
                let (rate, channels) = (buffer.spec().rate(), buffer.spec().channels().clone());
                buffer.copy_to_vec_interleaved(out);
                self.take_kind(rate, channels)
            }
            Codec::Opus { decoder, channels, buffer } => {
                let count = usize::from(*channels);
                let frames = decoder
                    .decode_float(&packet.data, buffer, false)
                    .map_err(|_| Error::DecodeError("not an Opus packet"))?;
                let trimmed = |trim: u64| usize::try_from(trim).unwrap_or(usize::MAX).min(frames);
                let from = trimmed(packet.trim_start.get());
                let until = (frames - trimmed(packet.trim_end.get())).max(from);
                out.extend_from_slice(&buffer[from * count..until * count]);
                let channels = Channels::Discrete((*channels).into());
                self.take_kind(SAMPLE_RATE_HZ, channels)
            }
        }
    }

    /// What kind of samples came. Channels may change on the way, the rate may not.
    fn take_kind(&mut self, rate_hz: u32, channels: Channels) -> Result<(), Error> {
        if self.rate_hz != 0 && rate_hz != self.rate_hz {
            return Err(Error::Unsupported("its sample rate changes on the way"));
        }
        if channels != self.channels {
            if !(1..=CHANNELS_MAX).contains(&channels.count()) {
                return Err(Error::LimitError("it has more channels than are decoded"));
            }
            self.layout = Layout::of(&channels);
            self.channels = channels;
        }
        self.rate_hz = rate_hz;
        Ok(())
    }

    /// Nothing more comes: was that all?
    fn end(&mut self) -> Result<bool, TranscodeError> {
        self.watch.check()?;
        if u64::from(self.damaged) * 2 > self.packets {
            let message = format!("{} of its {} packets are damaged", self.damaged, self.packets);
            return Err(TranscodeError::Undecodable(message));
        }
        check_whole(self.declared_s, self.frames as f64 / f64::from(self.rate_hz.max(1)))?;
        Ok(false)
    }
}

/// Whether a file holds as many seconds as its header promises, where that is known.
pub(super) fn check_whole(declared_s: Option<f64>, seconds: f64) -> Result<(), TranscodeError> {
    match declared_s {
        Some(declared) if seconds + SHORT_SECONDS + declared * SHORT_PART < declared => {
            let message = format!("it is cut short: its header promises {declared:.1} s, and it holds {seconds:.1} s");
            Err(TranscodeError::Undecodable(message))
        }
        _ => Ok(()),
    }
}

impl Codec {
    fn of(parameters: &AudioCodecParameters) -> Result<Self, Error> {
        if parameters.codec == CODEC_ID_OPUS {
            return Self::opus(parameters.extra_data.as_deref().unwrap_or_default());
        }
        let decoder =
            symphonia::default::get_codecs().make_audio_decoder(parameters, &AudioDecoderOptions::default())?;
        Ok(Self::Symphonia(decoder))
    }

    /// By the identification header (RFC 7845 section 5.1).
    fn opus(head: &[u8]) -> Result<Self, Error> {
        let head = head.first_chunk::<19>().ok_or(Error::DecodeError("no OpusHead"))?;
        let (channels, gain) = (head[9], i16::from_le_bytes([head[16], head[17]]));
        let layout = match channels {
            1 => opus::Channels::Mono,
            2 => opus::Channels::Stereo,
            _ => return Err(Error::Unsupported("Opus of more than two channels")),
        };
        let failed = |_| Error::Unsupported("no Opus decoder");
        let mut decoder = opus::Decoder::new(SAMPLE_RATE_HZ, layout).map_err(failed)?;
        decoder.set_gain(gain.into()).map_err(failed)?;
        let buffer = vec![0.0; OPUS_FRAMES_MAX * usize::from(channels)];
        Ok(Self::Opus { decoder: Box::new(decoder), channels, buffer })
    }
}

/// How long a file says that it is, where that is written and not guessed from its size.
fn declared_seconds(format: FormatId, frames: Option<u64>, parameters: &AudioCodecParameters) -> Option<f64> {
    let is_written = [FORMAT_ID_FLAC, FORMAT_ID_ISOMP4, FORMAT_ID_WAVE].contains(&format);
    let (frames, rate) = (frames.filter(|_| is_written)?, parameters.sample_rate.filter(|rate| *rate > 0)?);
    let channels = parameters.channels.as_ref().map_or(1, Channels::count) as u64;
    let frame_bytes = u64::from(parameters.bits_per_sample.unwrap_or(8).div_ceil(8)) * channels;
    let unknown = format == FORMAT_ID_WAVE && frames.saturating_mul(frame_bytes) >= WAV_UNKNOWN_BYTES;
    (!unknown).then(|| frames as f64 / f64::from(rate))
}

fn check_channels(channels: Option<&Channels>) -> Result<(), TranscodeError> {
    match channels.map(Channels::count) {
        Some(count) if count > CHANNELS_MAX => {
            Err(TranscodeError::TooMuch(format!("it has {count} channels, and up to {CHANNELS_MAX} are decoded")))
        }
        _ => Ok(()),
    }
}

/// What an error of a format's reader means.
fn failed(watch: &Watch, error: Error) -> TranscodeError {
    if let Err(stopped) = watch.check() {
        return stopped;
    }
    match error {
        Error::Unsupported(what) => TranscodeError::Unsupported(what.to_owned()),
        Error::LimitError(what) => TranscodeError::TooMuch(what.to_owned()),
        Error::ResetRequired => TranscodeError::Unsupported("it is several recordings in a row".to_owned()),
        Error::IoError(error) if error.kind() != io::ErrorKind::UnexpectedEof && error.raw_os_error().is_some() => {
            TranscodeError::Io(error)
        }
        other => TranscodeError::Undecodable(other.to_string()),
    }
}

/// A file whose reader is watched and can be stopped. It has a place of its own, since others read the same open file.
struct Watched<'a> {
    file: &'a File,
    length: u64,
    at: u64,
    watch: &'a Watch,
}

impl<'a> Watched<'a> {
    fn new(file: &'a File, watch: &'a Watch) -> io::Result<Self> {
        Ok(Self { file, length: file.metadata()?.len(), at: 0, watch })
    }
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.watch.check().map_err(io::Error::other)?;
        let count = self.file.read_at(buffer, self.at)?;
        self.at += count as u64;
        self.watch.has_read(self.at);
        Ok(count)
    }
}

impl Seek for Watched<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let to = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(offset) => self.length.checked_add_signed(offset),
            SeekFrom::Current(offset) => self.at.checked_add_signed(offset),
        };
        self.at = to.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

impl MediaSource for Watched<'_> {
    fn is_seekable(&self) -> bool {
        true
    }

    fn byte_len(&self) -> Option<u64> {
        Some(self.length)
    }
}
