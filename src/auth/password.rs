//! Passwords: argon2id, away from the runtime's threads, a bounded number at once.

use std::{sync::Arc, time::Instant};

use antiphon_core::gateway::ErrorCode;
use argon2::{
    Argon2,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use tokio::sync::Semaphore;

use crate::{error::AppError, telemetry::metrics::metrics};

/// The shortest password of a new account, in characters (NIST SP 800-63B 5.1.1.2).
const CHARS_MIN: usize = 8;
/// The longest password that is looked at, in bytes.
pub(super) const BYTES_MAX: usize = 1024;

/// A hash like any other, of a password that nobody knows: what an unknown name is checked against, so that it takes as
/// long.
const NOBODYS: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$N3Zb0l2rVXvYQ0a7c1nUrA$9m3e7w2q5tP0d8kS1xJ6vB4yH7rL0cN2fG5uA8iM3oE";

/// Hashes and checks passwords.
#[derive(Clone)]
pub(super) struct Passwords {
    /// One permit for each hash at once.
    turns: Arc<Semaphore>,
    /// One permit for each that runs or waits.
    places: Arc<Semaphore>,
}

/// When to come back when too many wait: about what they take.
const RETRY_AFTER_S: u64 = 2;

impl Passwords {
    /// At most `at_once` at once and `queue` waiting. 0 at once: half of the processors, so that voice keeps the
    /// others.
    pub(super) fn new(at_once: u16, queue: u32) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let at_once = if at_once == 0 { (processors / 2).max(1) } else { at_once.into() };
        Self {
            turns: Arc::new(Semaphore::new(at_once)),
            places: Arc::new(Semaphore::new(
                at_once.saturating_add(usize::try_from(queue).unwrap_or(usize::MAX)).min(Semaphore::MAX_PERMITS),
            )),
        }
    }

    /// The PHC string of a new account's password.
    pub(super) async fn hash(&self, password: String) -> Result<String, AppError> {
        let count = password.chars().count();
        if count < CHARS_MIN || password.len() > BYTES_MAX {
            let message = format!("password must have at least {CHARS_MIN} characters and at most {BYTES_MAX} bytes");
            return Err(AppError::new(ErrorCode::InvalidInput, message));
        }
        self.run(move || Argon2::default().hash_password(password.as_bytes()).map(|hash| hash.to_string()))
            .await?
            .map_err(|error| {
                tracing::error!(%error, "a password could not be hashed");
                internal()
            })
    }

    /// Whether `password` is the one behind `hash`. Without a hash it isn't, after as much work.
    pub(super) async fn verify(&self, password: String, hash: Option<String>) -> Result<bool, AppError> {
        self.run(move || {
            let parsed = PasswordHash::new(hash.as_deref().unwrap_or(NOBODYS));
            let matches =
                parsed.is_ok_and(|parsed| Argon2::default().verify_password(password.as_bytes(), &parsed).is_ok());
            matches && hash.is_some()
        })
        .await
    }

    /// Does `work` on a thread that may block, when it is its turn.
    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, AppError> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            AppError::retry(
                ErrorCode::TemporarilyUnavailable,
                "too many are logging in; try again shortly",
                RETRY_AFTER_S,
            )
        })?;
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(|_| internal())?;
        // The permits go along: whoever asked may have gone, the work still takes its processor and its memory.
        tokio::task::spawn_blocking(move || {
            let _held = (place, turn);
            let start = Instant::now();
            let done = work();
            metrics().auth.hash_duration.record(start.elapsed().as_secs_f64());
            done
        })
        .await
        .map_err(|_| internal())
    }
}

fn internal() -> AppError {
    AppError::new(ErrorCode::InternalError, "an internal error; the server's log has more")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_right_password_matches_its_hash() {
        let passwords = Passwords::new(1, 10);
        let hash = passwords.hash("correct horse".to_owned()).await.expect("long enough");
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert!(passwords.verify("correct horse".to_owned(), Some(hash.clone())).await.expect("a turn"));
        assert!(!passwords.verify("correct horsf".to_owned(), Some(hash)).await.expect("a turn"));
        assert!(!passwords.verify("correct horse".to_owned(), None).await.expect("a turn"));
    }

    #[test]
    fn nobodys_hash_takes_as_much_work_as_any() {
        let nobodys = PasswordHash::new(NOBODYS).expect("a PHC string");
        let anyones = Argon2::default().hash_password(b"correct horse").expect("hashes");
        assert_eq!(nobodys.algorithm, anyones.algorithm);
        assert_eq!(nobodys.version, anyones.version);
        assert_eq!(nobodys.params, anyones.params);
        assert_eq!(nobodys.hash.expect("an output").len(), anyones.hash.expect("an output").len());
        assert_eq!(nobodys.salt.expect("a salt").len(), anyones.salt.expect("a salt").len());
    }

    #[tokio::test]
    async fn new_passwords_are_neither_short_nor_endless() {
        let passwords = Passwords::new(1, 10);
        for wrong in ["", "seven77", &"x".repeat(BYTES_MAX + 1)] {
            assert_eq!(passwords.hash(wrong.to_owned()).await.expect_err("refused").code, ErrorCode::InvalidInput);
        }
    }

    #[tokio::test]
    async fn whoever_finds_the_queue_full_is_told_to_come_back() {
        let passwords = Passwords::new(1, 1);
        let (release, held) = std::sync::mpsc::channel::<()>();
        let running = tokio::spawn({
            let passwords = passwords.clone();
            async move { passwords.run(move || held.recv()).await }
        });
        let waiting = tokio::spawn({
            let passwords = passwords.clone();
            async move { passwords.run(|| ()).await }
        });
        while passwords.places.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let refused = passwords.run(|| ()).await.expect_err("the queue is full");
        assert_eq!(refused.code, ErrorCode::TemporarilyUnavailable);
        assert!(refused.retry_after_s.is_some());
        release.send(()).expect("the first one waits");
        running.await.expect("no panic").expect("a turn").expect("released");
        waiting.await.expect("no panic").expect("its turn came");
        passwords.run(|| ()).await.expect("there is room again");
    }
}
