//! The threads that make things, and their queue.

use std::{collections::HashMap, io, path::Path, sync::Arc, thread, time::Instant};

use parking_lot::{Condvar, Mutex};

use super::{
    MakingConfig,
    facts::Facts,
    marks::ATTEMPTS_MAX,
    order::{Job, Key, Product, State},
    shelf::Shelf,
    turns::{Asker, Turns},
    version::Version,
};
use crate::{
    telemetry::metrics::{TranscodeOutcome, metrics},
    transcode::{Findings, Input, SAMPLE_RATE_HZ, TranscodeError, transcode},
};

/// The lowest priority there is (`nice`): what makes files gets what voice leaves over.
const NICE: i32 = 19;

/// The threads and their queue. They end when this is dropped, after what they are at.
pub(super) struct Workshop {
    shared: Arc<Shared>,
}

struct Shared {
    shelf: Arc<Shelf>,
    config: MakingConfig,
    orders: Mutex<Orders>,
    something: Condvar,
}

#[derive(Default)]
struct Orders {
    queue: Turns<Asker, Arc<Job>>,
    /// What is queued, running, or failed a moment ago.
    known: HashMap<Key, Arc<Job>>,
    stopping: bool,
}

/// Why an order is turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// As many wait as may.
    InAll,
    /// As many wait for whoever asks as may.
    ForAsker,
}

impl Workshop {
    pub(super) fn start(shelf: Arc<Shelf>, config: MakingConfig) -> Self {
        let threads = config.threads;
        let (orders, something) = (Mutex::default(), Condvar::new());
        let shared = Arc::new(Shared { shelf, config, orders, something });
        for index in 0..threads {
            let worker = Arc::clone(&shared);
            let started = thread::Builder::new().name(format!("transcode-{index}")).spawn(move || worker.work());
            if let Err(error) = started {
                tracing::error!(%error, "a thread that makes qualities does not start");
            }
        }
        Self { shared }
    }

    /// Whether anything is made at all.
    pub(super) fn works(&self) -> bool {
        self.shared.config.threads > 0
    }

    /// An order that is under way, or failed a moment ago.
    pub(super) fn job(&self, key: &Key) -> Option<Arc<Job>> {
        self.shared.orders.lock().known.get(key).cloned()
    }

    /// The same for somebody who wants it, too: it waits no longer than if they alone did.
    pub(super) fn wanted(&self, key: &Key, by: Asker) -> Option<Arc<Job>> {
        let mut orders = self.shared.orders.lock();
        let job = orders.known.get(key).filter(|known| known.counts(Instant::now())).map(Arc::clone)?;
        if job.state() == State::Queued && orders.queue.len_of(by) < self.shared.config.queue_max_of_each {
            orders.queue.share(by, |waiting| Arc::ptr_eq(waiting, &job));
        }
        Some(job)
    }

    /// Queues somebody's order, unless there is the same: then that one is given back.
    pub(super) fn queue(&self, job: Arc<Job>, by: Asker) -> Result<Arc<Job>, Full> {
        let mut orders = self.shared.orders.lock();
        if let Some(known) = orders.known.get(&job.key).filter(|known| known.counts(Instant::now())) {
            return Ok(Arc::clone(known));
        }
        if by != Asker::LastProcess && orders.queue.len_of(by) >= self.shared.config.queue_max_of_each {
            return Err(Full::ForAsker);
        }
        if orders.queue.len() >= self.shared.config.queue_max || orders.stopping {
            return Err(Full::InAll);
        }
        if orders.known.len() >= self.shared.config.queue_max {
            orders.known.retain(|_, job| job.counts(Instant::now()));
        }
        orders.known.insert(job.key.clone(), Arc::clone(&job));
        orders.queue.push(by, Arc::clone(&job));
        metrics().streaming.transcodes_queued.set(orders.queue.len() as f64);
        drop(orders);
        self.shared.something.notify_one();
        Ok(job)
    }

    /// Ends all orders of one content. Those that had not begun are given back: their marks are left behind.
    pub(super) fn cancel(&self, version: &Version) -> Vec<Arc<Job>> {
        let mut orders = self.shared.orders.lock();
        let is_its = |job: &Arc<Job>| job.key.version == *version;
        orders.known.values().filter(|job| is_its(job)).for_each(|job| job.stop());
        let cancelled = orders.queue.extract(is_its);
        for job in &cancelled {
            orders.known.remove(&job.key);
            job.end(State::Failed);
        }
        cancelled
    }

    /// Takes no more orders and ends those that are being made, which keep their marks.
    pub(super) fn stop(&self) {
        let mut orders = self.shared.orders.lock();
        orders.stopping = true;
        orders.known.values().for_each(|job| job.stop());
        for job in orders.queue.extract(|_| true) {
            job.end(State::Failed);
        }
        drop(orders);
        self.shared.something.notify_all();
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn work(&self) {
        if let Err(error) = rustix::process::setpriority_process(None, NICE) {
            tracing::warn!(%error, "making qualities competes with voice: its priority cannot be lowered");
        }
        while let Some(job) = self.next() {
            let streaming = &metrics().streaming;
            streaming.transcodes_running.increment(1.0);
            let began = Instant::now();
            let (state, outcome) = self.make(&job);
            streaming.transcodes_running.decrement(1.0);
            streaming.transcodes.of(outcome).increment(1);
            streaming.transcode_duration.record(began.elapsed().as_secs_f64());
            // What is on the disk needs no memory; a failure is remembered for a moment.
            if state != State::Failed {
                self.orders.lock().known.remove(&job.key);
            }
            job.end(state);
            if self.shelf.is_full() {
                self.shelf.tidy();
            }
        }
    }

    /// Waits for an order; `None` once there will be none.
    fn next(&self) -> Option<Arc<Job>> {
        let mut orders = self.orders.lock();
        loop {
            if orders.stopping {
                return None;
            }
            if let Some(job) = orders.queue.pop() {
                metrics().streaming.transcodes_queued.set(orders.queue.len() as f64);
                return Some(job);
            }
            self.something.wait(&mut orders);
        }
    }

    /// Makes one thing and says on the disk how that ended.
    fn make(&self, job: &Job) -> (State, TranscodeOutcome) {
        let marks = self.shelf.marks();
        let before = marks.begin(job).unwrap_or_else(|error| {
            tracing::warn!(%error, "an attempt is not counted on the disk");
            0
        });
        let made = if before >= ATTEMPTS_MAX {
            let why = format!("the server ended {before} times while it was decoded");
            Err(TranscodeError::Undecodable(why))
        } else {
            self.attempt(job)
        };
        let (noted, state, outcome) = match made {
            Ok(()) => (marks.remove(job), State::Ready, TranscodeOutcome::Made),
            Err(error) if error.is_of_the_file() => {
                tracing::info!(path = %job.path, product = job.key.product.name(), %error, "nothing can be made of a file");
                let why = error.to_string();
                let noted = self.shelf.refuse(&job.key.version, &why).and_then(|()| marks.remove(job));
                (noted, State::Refused(why.into()), TranscodeOutcome::Refused)
            }
            Err(TranscodeError::Stopped) => (marks.keep(job), State::Failed, TranscodeOutcome::Stopped),
            Err(error) => {
                tracing::warn!(path = %job.path, product = job.key.product.name(), %error, "something could not be made");
                (marks.keep(job), State::Failed, TranscodeOutcome::Failed)
            }
        };
        if let Err(error) = noted {
            tracing::warn!(%error, "how an order ended is not on the disk");
        }
        (state, outcome)
    }

    fn attempt(&self, job: &Job) -> Result<(), TranscodeError> {
        let watch = job.begin(self.config.patience);
        let ending = Path::new(job.path.as_str()).extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        let input = Input { file: &job.source.file, ending, ffmpeg: self.config.ffmpeg.as_deref() };
        let Product::Quality(quality) = job.key.product else {
            let found = transcode(&input, None, &self.config.bounds, watch)?;
            return Ok(self.keep(job, &found)?);
        };
        let mut part = self.shelf.part()?;
        let found = transcode(&input, Some((&mut part, quality)), &self.config.bounds, watch)?;
        // Where a quality is, what was found out is.
        self.keep(job, &found)?;
        Ok(self.shelf.put(&job.key.version, job.key.product, part)?)
    }

    fn keep(&self, job: &Job, found: &Findings) -> io::Result<()> {
        metrics().streaming.transcoded_seconds.increment(found.samples / u64::from(SAMPLE_RATE_HZ));
        let facts = Facts::from(found);
        if self.shelf.facts(&job.key.version).is_some_and(|known| known == facts) {
            self.shelf.share_findings(&job.key.version);
            return Ok(());
        }
        self.shelf.put_findings(&job.key.version, &facts, &found.peaks)
    }
}
