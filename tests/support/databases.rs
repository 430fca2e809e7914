//! A database for one test, of either kind.

use std::path::PathBuf;

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
