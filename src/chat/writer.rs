//! Stores what is written: what waits for one channel or pair is stored in one step, so that many writers share the price
//! of a transaction, and told before the next step begins.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Instant,
};

use antiphon_core::{
    gateway::{ErrorCode, RequestId},
    ids::MessageId,
};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::Chat;
use crate::{
    error::AppError,
    rooms::{Presence, Sent, Stored},
    store::{Applied, Change, Outcome, Scope, StoreError},
    telemetry::metrics::metrics,
};

/// Changes stored in one step at most, so that one that fails takes few others with it.
const AT_ONCE: usize = 64;

/// When to try again where too much waits.
const RETRY_AFTER_S: u64 = 1;

/// What waits for each scope that somebody writes in now.
#[derive(Default)]
pub(super) struct Writers(Mutex<HashMap<Scope, VecDeque<Waiting>>>);

/// A change that waits to be stored.
pub(super) struct Job {
    pub(super) change: Change,
    /// The channel's name; empty between two people.
    pub(super) name: String,
    /// Who is answered as soon as it is told: with the event itself.
    pub(super) from: Option<(Arc<Presence>, Option<RequestId>)>,
}

type Reply = oneshot::Sender<Result<Outcome, AppError>>;

/// A job with where its outcome goes.
struct Waiting {
    job: Job,
    reply: Reply,
    since: Instant,
}

impl Chat {
    /// Stores a change and tells it; when this returns, both are done, and who asked is answered if the outcome is `Done`.
    pub(super) async fn write(&self, scope: Scope, job: Job) -> Result<Outcome, AppError> {
        let (reply, outcome) = oneshot::channel();
        self.enqueue(scope, Waiting { job, reply, since: Instant::now() })?;
        let gone = || AppError::new(ErrorCode::InternalError, "what was to be stored was lost");
        outcome.await.map_err(|_| gone())?
    }

    fn enqueue(&self, scope: Scope, waiting: Waiting) -> Result<(), AppError> {
        let mut writers = self.inner.writers.0.lock();
        let is_idle = !writers.contains_key(&scope);
        let queue = writers.entry(scope).or_default();
        if queue.len() >= self.inner.config.waiting {
            metrics().chat.queue_full.increment(1);
            let message = "too much is being written here at once: try again";
            return Err(AppError::retry(ErrorCode::RateLimited, message, RETRY_AFTER_S));
        }
        queue.push_back(waiting);
        if is_idle {
            let chat = self.clone();
            tokio::spawn(async move { chat.serve(scope).await });
        }
        Ok(())
    }

    /// Until nothing waits for the scope.
    async fn serve(&self, scope: Scope) {
        while let Some(batch) = self.take(scope) {
            self.store_and_tell(scope, batch).await;
        }
    }

    fn take(&self, scope: Scope) -> Option<Vec<Waiting>> {
        let mut writers = self.inner.writers.0.lock();
        let queue = writers.get_mut(&scope)?;
        if queue.is_empty() {
            writers.remove(&scope);
            return None;
        }
        let count = queue.len().min(AT_ONCE);
        Some(queue.drain(..count).collect())
    }

    async fn store_and_tell(&self, scope: Scope, batch: Vec<Waiting>) {
        let changes: Vec<Change> = batch.iter().map(|waiting| waiting.job.change.clone()).collect();
        let mut noted = Vec::new();
        let applied =
            self.store().apply_noting(scope, &changes, |outcomes| self.note(&batch, outcomes, &mut noted)).await;
        for waiting in &batch {
            metrics().chat.store_duration.record(waiting.since.elapsed().as_secs_f64());
        }
        match applied {
            Ok(applied) => self.tell(scope, batch, applied).await,
            Err(error) => {
                // Should it be stored all the same, they hear of it as everybody does.
                self.forget(&mut noted);
                for waiting in batch {
                    let _ = waiting.reply.send(Err(refusal(&error)));
                }
            }
        }
    }

    /// Notes who is to be answered with what will have been stored.
    fn note(&self, batch: &[Waiting], outcomes: &[Outcome], noted: &mut Vec<MessageId>) {
        self.forget(noted);
        for (Waiting { job, .. }, outcome) in batch.iter().zip(outcomes) {
            if let (Outcome::Done(event), Some((presence, request_id))) = (outcome, job.from.clone()) {
                self.rooms().awaited().note(Sent { number: event.number, presence, request_id });
                noted.push(event.number);
            }
        }
    }

    fn forget(&self, noted: &mut Vec<MessageId>) {
        for number in noted.drain(..) {
            drop(self.rooms().awaited().take(number));
        }
    }

    async fn tell(&self, scope: Scope, batch: Vec<Waiting>, applied: Applied) {
        let Applied { previous, outcomes } = applied;
        let name = batch.first().map(|waiting| waiting.job.name.clone()).unwrap_or_default();
        let (mut events, mut replies) = (Vec::new(), Vec::new());
        for (Waiting { reply, .. }, outcome) in batch.into_iter().zip(outcomes) {
            if let Outcome::Done(event) = &outcome {
                events.push(event.clone());
            }
            replies.push((reply, outcome));
        }
        metrics().chat.stored.increment(u64::try_from(events.len()).unwrap_or(u64::MAX));
        let stored = Stored { previous, events };
        match scope {
            // What was sent again may not be told yet, should the node that stored it have died since.
            Scope::Room(channel) => self.rooms().chat_stored(channel, &name, stored).await,
            Scope::Pair(..) => self.pair_stored(scope, stored).await,
        }
        for (reply, outcome) in replies {
            // Whoever asked may be gone.
            let _ = reply.send(Ok(outcome));
        }
    }
}

fn refusal(error: &StoreError) -> AppError {
    match error {
        StoreError::Missing => super::no_such_room(),
        error => error.clone().into(),
    }
}
