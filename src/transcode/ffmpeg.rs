//! An ffmpeg that decodes what the built-in decoders do not know.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    sync::{Arc, OnceLock},
    thread::{self, JoinHandle},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::retry_on_intr,
};

use super::{Bounds, SAMPLE_RATE_HZ, TranscodeError, Watch, decode::check_whole, promise};

/// Channels of what it writes.
pub(super) const CHANNELS: u16 = 2;

/// Formats that hold sound, and no playlist or description that names other files: a hostile one must not be followed.
const FORMATS: &str = "matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,mp3,ogg,flac,wav,w64,aac,aiff,caf,asf,ape,wv";

/// How often the watch is asked while nothing comes.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

/// What is read at once.
const READ_BYTES: usize = 32 * 1_024;

/// An ffmpeg that writes samples to a pipe. It ends with this.
pub(super) struct Piped<'a> {
    child: Child,
    pipe: ChildStdout,
    watch: &'a Watch,
    buffer: Vec<u8>,
    /// Bytes of a sample that was cut.
    kept: usize,
    /// Samples that came, of each channel.
    frames: u64,
    bounds: &'a Bounds,
    /// How many seconds the file's header promises, where it does, once ffmpeg has said so: it takes a file that is cut short for a short
    /// one.
    promised_s: Arc<OnceLock<Option<f64>>>,
    /// Reads what it says.
    reader: Option<JoinHandle<()>>,
}

impl<'a> Piped<'a> {
    /// Starts `program` on a file.
    pub(super) fn open(
        program: &Path,
        file: &File,
        bounds: &'a Bounds,
        watch: &'a Watch,
    ) -> Result<Self, TranscodeError> {
        let mut child = Command::new(program)
            .args(["-nostdin", "-hide_banner", "-nostats", "-v", "info", "-threads", "1"])
            .args(["-protocol_whitelist", "file", "-format_whitelist", FORMATS])
            // Not `pipe:0`, which cannot seek: the very file, whatever its name is now, with a place of its own.
            .args(["-i", "file:/dev/stdin", "-map", "0:a:0", "-vn", "-sn", "-dn"])
            .args(["-ac", "2", "-ar", "48000", "-f", "f32le", "pipe:1"])
            .stdin(file.try_clone()?)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| {
                let message = format!("cannot run {} (streaming.ffmpeg): {error}", program.display());
                io::Error::new(error.kind(), message)
            })?;
        let Some(pipe) = child.stdout.take() else {
            return Err(TranscodeError::Io(io::Error::other("ffmpeg has no output")));
        };
        let promised_s = Arc::new(OnceLock::new());
        let (said, promised) = (child.stderr.take(), Arc::clone(&promised_s));
        // It ends with ffmpeg, which would wait for a reader.
        let read = |said| thread::Builder::new().spawn(move || promise::read(said, &promised));
        let buffer = vec![0; READ_BYTES];
        let mut piped = Self { child, pipe, watch, buffer, kept: 0, frames: 0, bounds, promised_s, reader: None };
        // Where there is no thread for it, ffmpeg ends with what is dropped.
        piped.reader = said.map(read).transpose()?;
        Ok(piped)
    }

    /// Replaces `out` by the next samples; false at the end.
    pub(super) fn next(&mut self, out: &mut Vec<f32>) -> Result<bool, TranscodeError> {
        out.clear();
        while out.is_empty() {
            self.wait()?;
            if let Some(Some(seconds)) = self.promised_s.get() {
                // No need to decode for an hour what is too long anyway.
                self.bounds.check_length((seconds * f64::from(SAMPLE_RATE_HZ)) as u64)?;
            }
            let count = self.pipe.read(&mut self.buffer[self.kept..])?;
            if count == 0 {
                return self.end();
            }
            // Whole frames only, so that left stays left.
            let filled = self.kept + count;
            let (frames, rest) = self.buffer[..filled].as_chunks::<8>();
            for [a, b, c, d, e, f, g, h] in frames {
                out.extend([f32::from_le_bytes([*a, *b, *c, *d]), f32::from_le_bytes([*e, *f, *g, *h])]);
            }
            self.frames += frames.len() as u64;
            self.kept = rest.len();
            self.buffer.copy_within(filled - self.kept..filled, 0);
        }
        Ok(true)
    }

    fn wait(&self) -> Result<(), TranscodeError> {
        loop {
            self.watch.check()?;
            let mut ready = [PollFd::new(&self.pipe, PollFlags::IN)];
            // A signal to the server, such as that to read its certificates again, is none of its business.
            if retry_on_intr(|| poll(&mut ready, Some(&LOOK))).map_err(io::Error::from)? > 0 {
                return Ok(());
            }
        }
    }

    fn end(&mut self) -> Result<bool, TranscodeError> {
        if !self.child.wait()?.success() {
            return Err(TranscodeError::Undecodable("ffmpeg cannot decode it either".to_owned()));
        }
        if self.kept > 0 {
            // It says that all is well, and does not end between two samples.
            return Err(TranscodeError::Io(io::Error::other("what ffmpeg wrote is cut short")));
        }
        // What panicked has said so, and promises nothing.
        let _ = self.reader.take().map(JoinHandle::join);
        check_whole(self.promised_s.get().copied().flatten(), self.frames as f64 / f64::from(SAMPLE_RATE_HZ))?;
        Ok(false)
    }
}

impl Drop for Piped<'_> {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn output_that_ends_within_a_sample_is_an_error() {
        let (file, watch) = (File::open("/dev/null").expect("opens"), Watch::new(0, Duration::from_secs(60)));
        // It writes its arguments, which are no whole number of samples, and says that all is well.
        let bounds = Bounds { sound: Duration::from_secs(60) };
        let mut piped = Piped::open(Path::new("echo"), &file, &bounds, &watch).expect("starts");
        let mut samples = Vec::new();
        let ended = loop {
            match piped.next(&mut samples) {
                Ok(true) => assert!(!samples.is_empty()),
                ended => break ended,
            }
        };
        assert!(matches!(ended, Err(TranscodeError::Io(_))), "{ended:?}");
    }
}
