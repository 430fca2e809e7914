//! A database for one test, of either kind.

use std::{path::PathBuf, sync::Arc};

use tokio::sync::Barrier;

use super::postgres::{PostgresDatabase, fresh_database};

/// An empty database that no other test uses; gone when dropped.
pub enum TestDatabase {
    /// A file in a folder of its own.
    Sqlite(PathBuf),
    /// One of the tests' own server.
    Postgres(PostgresDatabase),
}

impl TestDatabase {
    /// A new SQLite file.
    pub fn sqlite() -> Self {
        let dir = std::env::temp_dir().join(format!("antiphon-sqlite-{}", uuid::Uuid::now_v7()));
        std::fs::create_dir(&dir).expect("a new folder");
        Self::Sqlite(dir)
    }

    /// A new PostgreSQL database.
    pub async fn postgres() -> Self {
        Self::Postgres(fresh_database().await)
    }

    /// For `DATABASE_URL`.
    pub fn url(&self) -> String {
        match self {
            Self::Sqlite(dir) => format!("sqlite:{}", dir.join("antiphon.db").display()),
            Self::Postgres(database) => database.url.clone(),
        }
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        if let Self::Sqlite(dir) = self {
            let _ = std::fs::remove_dir_all(dir);
        }
    }
}

/// Declares each check as a test on each database: `super::run(database, check)` runs it.
#[macro_export]
macro_rules! on_both {
    ($($check:ident),+ $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $check() {
                super::run(super::TestDatabase::sqlite(), super::$check).await;
            })+
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $check() {
                super::run(super::TestDatabase::postgres().await, super::$check).await;
            })+
        }
    };
}

/// Runs `task(0)` to `task(count - 1)` at once and gives their results.
pub async fn at_once<T, F>(count: usize, task: impl Fn(usize) -> F) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let barrier = Arc::new(Barrier::new(count));
    let tasks: Vec<_> = (0..count)
        .map(|index| {
            let (barrier, work) = (Arc::clone(&barrier), task(index));
            tokio::spawn(async move {
                barrier.wait().await;
                work.await
            })
        })
        .collect();
    let mut results = Vec::new();
    for task in tasks {
        results.push(task.await.expect("no panic"));
    }
    results
}
