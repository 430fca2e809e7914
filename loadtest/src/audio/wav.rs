//! WAV files: PCM of 8 to 32 bits or 32-bit float in, 16-bit PCM out.
//!
//! ```text
//! "RIFF" | size (4) | "WAVE" | chunks
//! chunk:  id (4) | size (4) | bytes, padded to even
//! "fmt ": format (2) | channels (2) | rate (4) | byte rate (4) | block align (2) | bits (2) | …
//! ```
//! All numbers are little-endian.

use std::io::{self, Read, Seek, SeekFrom, Write};

use super::SAMPLE_RATE_HZ;

const FORMAT_PCM: u16 = 1;
const FORMAT_FLOAT: u16 = 3;
const FORMAT_EXTENSIBLE: u16 = 0xFFFE;

/// Chunks in front of the sound that are looked at before a file counts as broken.
const CHUNKS_MAX: usize = 64;

/// What is wrong with a WAV file.
#[derive(Debug, thiserror::Error)]
pub enum WavError {
    /// The file could not be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Not a WAV file.
    #[error("not a WAV file: {0}")]
    Malformed(&'static str),
    /// A WAV file of a kind that is not supported.
    #[error("unsupported WAV file: {0}")]
    Unsupported(String),
}

/// What a file's samples are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WavFormat {
    /// In Hz.
    pub rate_hz: u32,
    /// 1 or 2.
    pub channels: u16,
    encoding: SampleEncoding,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SampleEncoding {
    Unsigned8,
    Signed16,
    Signed24,
    Signed32,
    Float32,
}

impl SampleEncoding {
    const fn bytes(self) -> usize {
        match self {
            Self::Unsigned8 => 1,
            Self::Signed16 => 2,
            Self::Signed24 => 3,
            Self::Signed32 | Self::Float32 => 4,
        }
    }

    /// One sample between -1 and 1; `bytes` is as long as [`Self::bytes`] says.
    fn decode(self, bytes: &[u8]) -> f32 {
        match (self, bytes) {
            (Self::Unsigned8, &[byte]) => (f32::from(byte) - 128.0) / 128.0,
            (Self::Signed16, &[a, b]) => f32::from(i16::from_le_bytes([a, b])) / 32_768.0,
            (Self::Signed24, &[a, b, c]) => i32::from_le_bytes([0, a, b, c]) as f32 / 2_147_483_648.0,
            (Self::Signed32, &[a, b, c, d]) => i32::from_le_bytes([a, b, c, d]) as f32 / 2_147_483_648.0,
            (Self::Float32, &[a, b, c, d]) => f32::from_le_bytes([a, b, c, d]),
            _ => 0.0,
        }
    }
}

/// Reads a file's samples as a stream.
pub struct WavReader<R> {
    reader: R,
    format: WavFormat,
    /// Bytes of sound not read yet.
    remaining: u64,
    buffer: Vec<u8>,
}

impl<R: Read> WavReader<R> {
    /// Reads the header up to the first sample.
    ///
    /// # Errors
    /// When this is no WAV file of 8 to 48 kHz with one or two channels of a known sample format.
    pub fn new(mut reader: R) -> Result<Self, WavError> {
        let mut riff = [0; 12];
        reader.read_exact(&mut riff)?;
        if &riff[..4] != b"RIFF" || &riff[8..] != b"WAVE" {
            return Err(WavError::Malformed("it does not begin with RIFF and WAVE"));
        }
        let mut format = None;
        for _ in 0..CHUNKS_MAX {
            let mut head = [0; 8];
            reader.read_exact(&mut head)?;
            let size = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
            match &head[..4] {
                b"fmt " => format = Some(read_format(&mut reader, size)?),
                b"data" => {
                    let format = format.ok_or(WavError::Malformed("the sound comes before its format"))?;
                    // A size of 0 or all ones is what a pipe writes that could not seek back: read to the end.
                    let remaining = if matches!(size, 0 | u32::MAX) { u64::MAX } else { u64::from(size) };
                    return Ok(Self { reader, format, remaining, buffer: Vec::new() });
                }
                _ => skip(&mut reader, u64::from(size) + u64::from(size % 2))?,
            }
        }
        Err(WavError::Malformed("no sound among its first 64 chunks"))
    }

    /// What the samples are.
    pub fn format(&self) -> WavFormat {
        self.format
    }

    /// Appends up to `frames` sample frames (one sample of each channel), interleaved, and returns how many; 0 at the end.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read(&mut self, frames: usize, output: &mut Vec<f32>) -> Result<usize, WavError> {
        let sample_bytes = self.format.encoding.bytes();
        let frame_bytes = sample_bytes * usize::from(self.format.channels);
        let wanted = self.remaining.min((frames * frame_bytes) as u64);
        self.buffer.clear();
        self.reader.by_ref().take(wanted).read_to_end(&mut self.buffer)?;
        let read = self.buffer.len() / frame_bytes;
        self.remaining = if read < frames { 0 } else { self.remaining.saturating_sub(wanted) };
        let whole = &self.buffer[..read * frame_bytes];
        output.extend(whole.chunks_exact(sample_bytes).map(|bytes| self.format.encoding.decode(bytes)));
        Ok(read)
    }
}

fn read_format(reader: &mut impl Read, size: u32) -> Result<WavFormat, WavError> {
    if !(16..=1_024).contains(&size) {
        return Err(WavError::Malformed("its format chunk has an impossible size"));
    }
    let mut chunk = vec![0; (size + size % 2) as usize];
    reader.read_exact(&mut chunk)?;
    let u16_at = |at: usize| u16::from_le_bytes([chunk[at], chunk[at + 1]]);
    let rate_hz = u32::from_le_bytes([chunk[4], chunk[5], chunk[6], chunk[7]]);
    let (channels, bits) = (u16_at(2), u16_at(14));
    // The extensible form repeats the plain format code at the start of its sub-format.
    let code = if u16_at(0) == FORMAT_EXTENSIBLE && size >= 40 { u16_at(24) } else { u16_at(0) };
    let encoding = match (code, bits) {
        (FORMAT_PCM, 8) => SampleEncoding::Unsigned8,
        (FORMAT_PCM, 16) => SampleEncoding::Signed16,
        (FORMAT_PCM, 24) => SampleEncoding::Signed24,
        (FORMAT_PCM, 32) => SampleEncoding::Signed32,
        (FORMAT_FLOAT, 32) => SampleEncoding::Float32,
        _ => {
            let what = format!("format {code} with {bits} bits; 8 to 32-bit PCM or 32-bit float would do");
            return Err(WavError::Unsupported(what));
        }
    };
    if !(8_000..=SAMPLE_RATE_HZ).contains(&rate_hz) {
        return Err(WavError::Unsupported(format!("{rate_hz} Hz; 8,000 to 48,000 Hz would do")));
    }
    if !(1..=2).contains(&channels) {
        return Err(WavError::Unsupported(format!("{channels} channels; one or two would do")));
    }
    Ok(WavFormat { rate_hz, channels, encoding })
}

fn skip(reader: &mut impl Read, bytes: u64) -> Result<(), WavError> {
    let skipped = io::copy(&mut reader.take(bytes), &mut io::sink())?;
    if skipped < bytes { Err(WavError::Malformed("it ends inside a chunk")) } else { Ok(()) }
}

/// Writes 16-bit PCM at 48 kHz.
pub struct WavWriter<W: Write + Seek> {
    writer: W,
    data_bytes: u32,
}

impl<W: Write + Seek> WavWriter<W> {
    const HEADER_BYTES: u32 = 44;

    /// Writes the header of an empty file.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn new(mut writer: W, channels: u16) -> Result<Self, WavError> {
        let block_bytes = channels * 2;
        writer.write_all(b"RIFF")?;
        writer.write_all(&(Self::HEADER_BYTES - 8).to_le_bytes())?;
        writer.write_all(b"WAVEfmt ")?;
        writer.write_all(&16_u32.to_le_bytes())?;
        writer.write_all(&FORMAT_PCM.to_le_bytes())?;
        writer.write_all(&channels.to_le_bytes())?;
        writer.write_all(&SAMPLE_RATE_HZ.to_le_bytes())?;
        writer.write_all(&(SAMPLE_RATE_HZ * u32::from(block_bytes)).to_le_bytes())?;
        writer.write_all(&block_bytes.to_le_bytes())?;
        writer.write_all(&16_u16.to_le_bytes())?;
        writer.write_all(b"data")?;
        writer.write_all(&0_u32.to_le_bytes())?;
        Ok(Self { writer, data_bytes: 0 })
    }

    /// Appends interleaved samples between -1 and 1; beyond that they are clipped.
    ///
    /// # Errors
    /// When the file cannot be written or would pass the format's 4 GiB.
    pub fn write(&mut self, samples: &[f32]) -> Result<(), WavError> {
        let bytes: Vec<u8> = samples.iter().flat_map(|&sample| to_i16(sample).to_le_bytes()).collect();
        let total = u32::try_from(bytes.len()).ok().and_then(|added| self.data_bytes.checked_add(added));
        self.data_bytes = total
            .filter(|total| total.checked_add(Self::HEADER_BYTES).is_some())
            .ok_or_else(|| WavError::Unsupported("more than 4 GiB of sound".to_owned()))?;
        self.writer.write_all(&bytes)?;
        Ok(())
    }

    /// Puts the lengths into the header.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn finish(mut self) -> Result<W, WavError> {
        self.writer.seek(SeekFrom::Start(4))?;
        self.writer.write_all(&(Self::HEADER_BYTES - 8 + self.data_bytes).to_le_bytes())?;
        self.writer.seek(SeekFrom::Start(40))?;
        self.writer.write_all(&self.data_bytes.to_le_bytes())?;
        self.writer.flush()?;
        Ok(self.writer)
    }
}

fn to_i16(sample: f32) -> i16 {
    (sample * 32_768.0).round().clamp(-32_768.0, 32_767.0) as i16
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn header(code: u16, channels: u16, rate_hz: u32, bits: u16, data: &[u8]) -> Vec<u8> {
        let mut file = b"RIFF\0\0\0\0WAVE".to_vec();
        file.extend(b"LIST\x03\0\0\0abc\0"); // an odd chunk, padded
        file.extend(b"fmt \x10\0\0\0");
        file.extend(code.to_le_bytes());
        file.extend(channels.to_le_bytes());
        file.extend(rate_hz.to_le_bytes());
        file.extend([0; 6]);
        file.extend(bits.to_le_bytes());
        file.extend(b"data");
        file.extend(u32::try_from(data.len()).expect("short").to_le_bytes());
        file.extend(data);
        file
    }

    fn read_all(file: Vec<u8>) -> Result<(WavFormat, Vec<f32>), WavError> {
        let mut reader = WavReader::new(Cursor::new(file))?;
        let mut samples = Vec::new();
        while reader.read(100, &mut samples)? > 0 {}
        Ok((reader.format(), samples))
    }

    #[test]
    fn what_is_written_reads_back() {
        let samples: Vec<f32> = (0..2_000).map(|n| (n as f32 / 100.0).sin() * 0.9).collect();
        let mut writer = WavWriter::new(Cursor::new(Vec::new()), 2).expect("writes");
        writer.write(&samples).expect("writes");
        let file = writer.finish().expect("writes").into_inner();
        let (format, read) = read_all(file).expect("reads");
        assert_eq!((format.rate_hz, format.channels), (48_000, 2));
        assert_eq!(read.len(), samples.len());
        assert!(read.iter().zip(&samples).all(|(a, b)| (a - b).abs() < 1.0 / 32_000.0));
    }

    #[test]
    fn every_sample_format_is_scaled_alike() {
        let half: [(u16, u16, Vec<u8>); 5] = [
            (1, 8, vec![192]),
            (1, 16, 16_384_i16.to_le_bytes().to_vec()),
            (1, 24, vec![0, 0, 0x40]),
            (1, 32, (1_i32 << 30).to_le_bytes().to_vec()),
            (3, 32, 0.5_f32.to_le_bytes().to_vec()),
        ];
        for (code, bits, data) in half {
            let (_, samples) = read_all(header(code, 1, 16_000, bits, &data)).expect("reads");
            assert_eq!(samples, [0.5], "format {code}, {bits} bits");
        }
    }

    #[test]
    fn what_is_unfit_says_what_would_do() {
        let cases = [
            (header(1, 1, 96_000, 16, &[]), "48,000"),
            (header(1, 6, 48_000, 16, &[]), "one or two"),
            (header(2, 1, 48_000, 4, &[]), "PCM"),
            (b"RIFX0000WAVE".to_vec(), "RIFF"),
        ];
        for (file, hint) in cases {
            let error = read_all(file).expect_err("unfit").to_string();
            assert!(error.contains(hint), "{error}");
        }
        assert!(matches!(read_all(b"RIFF".to_vec()), Err(WavError::Io(_))));
    }

    #[test]
    fn a_file_cut_short_gives_what_it_has() {
        let mut file = header(1, 1, 8_000, 16, &[1, 0, 2, 0, 3, 0]);
        file.truncate(file.len() - 3);
        let (_, samples) = read_all(file).expect("reads");
        assert_eq!(samples.len(), 1);
    }
}
