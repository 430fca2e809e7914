//! One who listens: range after range, file after file.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::{super::tally::Times, Pace, files::File};
use crate::rest::{Rest, RestError};

/// After a failure, so that whoever is told to come later does.
const AFTER_FAILURE: Duration = Duration::from_millis(100);

/// The code that stands for a connection that failed, and an answer that is no range.
const BROKEN: &str = "BROKEN";

/// What all listeners' requests came to.
pub(super) struct Tally {
    pub(super) requests: u64,
    pub(super) bytes: u64,
    pub(super) failures: BTreeMap<String, u64>,
    pub(super) corrupt: u64,
    pub(super) stalls: u64,
    pub(super) first_byte: Times,
    pub(super) whole: Times,
    pub(super) lateness: Times,
}

impl Tally {
    pub(super) fn new() -> Self {
        Self {
            requests: 0,
            bytes: 0,
            failures: BTreeMap::new(),
            corrupt: 0,
            stalls: 0,
            first_byte: Times::new(),
            whole: Times::new(),
            lateness: Times::new(),
        }
    }
}

/// One who listens.
pub(super) struct Listener {
    pub(super) rest: Rest,
    pub(super) files: Arc<[File]>,
    pub(super) range_bytes: u64,
    pub(super) pace: Pace,
    /// What is asked for then counts.
    pub(super) measured: Range<Instant>,
    pub(super) tally: Arc<Mutex<Tally>>,
}

/// An answer.
struct Fetched {
    bytes: u64,
    is_right: bool,
    first_byte: Duration,
}

impl Listener {
    /// Listens to the files in turn, beginning with the one of that number, until the measured time is over.
    pub(super) async fn listen(self, number: usize) {
        let mut place = number % self.files.len();
        while Instant::now() < self.measured.end {
            self.play(&self.files[place]).await;
            place = (place + 1) % self.files.len();
        }
    }

    /// Fetches one file from its beginning to its end.
    async fn play(&self, file: &File) {
        let (mut at, begun, mut ready) = (0, Instant::now(), Instant::now());
        let length = file.content.len() as u64;
        while at < length && ready < self.measured.end {
            let due = self.due(file, begun, at);
            if let Some(due) = due {
                tokio::time::sleep_until(due.min(self.measured.end)).await;
            }
            let now = Instant::now();
            if now >= self.measured.end {
                return;
            }
            let counts = self.measured.start <= now;
            if counts && let Some(due) = due {
                // Only what the load client itself is late by.
                let late = now.saturating_duration_since(due.max(ready));
                self.tally().lateness.record_us(late.as_micros() as u64);
            }
            let fetched = self.fetch(file, at..(at + self.range_bytes).min(length)).await;
            ready = Instant::now();
            if counts {
                self.count(&fetched, ready - now);
            }
            match fetched {
                Ok(fetched) => {
                    at += fetched.bytes;
                    if counts && self.due(file, begun, at).is_some_and(|next| ready > next) {
                        self.tally().stalls += 1;
                    }
                }
                Err(_) => {
                    tokio::time::sleep(AFTER_FAILURE).await;
                    ready = Instant::now();
                }
            }
        }
        if let Some(over) = self.due(file, begun, length) {
            tokio::time::sleep_until(over.min(self.measured.end)).await;
        }
    }

    /// When what is at that place of a file is wanted, where the file's pace is kept.
    fn due(&self, file: &File, begun: Instant, at: u64) -> Option<Instant> {
        let bytes_per_s = file.bytes_per_s.filter(|_| self.pace == Pace::Playing)?;
        Some(begun + Duration::from_secs_f64(at as f64 / bytes_per_s))
    }

    async fn fetch(&self, file: &File, range: Range<u64>) -> Result<Fetched, RestError> {
        let begun = Instant::now();
        let mut answer = self.rest.range(&file.link, range.clone()).await?;
        let first_byte = begun.elapsed();
        let wanted = &file.content[range.start as usize..range.end as usize];
        let (mut got, mut is_right) = (0, true);
        while let Some(chunk) = answer.next().await? {
            is_right &= wanted.get(got..got + chunk.len()) == Some(&*chunk);
            got += chunk.len();
        }
        // The server may answer with less than was asked for, but not with nothing.
        if got == 0 {
            return Err(RestError::Answer("a range without a byte".to_owned()));
        }
        Ok(Fetched { bytes: got as u64, is_right, first_byte })
    }

    fn count(&self, fetched: &Result<Fetched, RestError>, took: Duration) {
        let mut tally = self.tally();
        match fetched {
            Ok(fetched) => {
                tally.requests += 1;
                tally.bytes += fetched.bytes;
                tally.corrupt += u64::from(!fetched.is_right);
                tally.first_byte.record_us(fetched.first_byte.as_micros() as u64);
                tally.whole.record_us(took.as_micros() as u64);
            }
            Err(error) => *tally.failures.entry(code_of(error)).or_default() += 1,
        }
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a failure is counted as.
fn code_of(error: &RestError) -> String {
    match error {
        RestError::Refused { code: Some(code), .. } => code.as_str().to_owned(),
        RestError::Refused { status, .. } => format!("HTTP {status}"),
        RestError::Unreachable { .. } | RestError::Answer(_) => BROKEN.to_owned(),
    }
}
