//! What a node makes once and keeps in its data dir: the token secret and its name, when neither is set.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use super::{Secret, Settings};
use crate::random;

/// The token secret and the node's name in force.
#[derive(Clone, Debug)]
pub struct LocalState {
    /// Signs access tokens.
    pub jwt_secret: Secret,
    /// Names this node to clients.
    pub node_id: String,
}

/// The data dir, or a file in it, cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use {} (data_dir, or ANTIPHON_DATA_DIR, names the folder): {error}", path.display())]
pub struct LocalStateError {
    path: PathBuf,
    error: io::Error,
}

/// The file of the generated token secret, in the data dir.
pub(super) const JWT_SECRET_FILE: &str = "jwt_secret";
/// The file of the generated node name, in the data dir.
pub(super) const NODE_ID_FILE: &str = "node_id";

/// Taken by the server that runs on the data dir.
const LOCK_FILE: &str = "lock";

/// The data dir is this server's alone until this is dropped, or the process has ended.
#[derive(Debug)]
pub struct DataDirLock {
    _file: File,
}

impl Settings {
    /// Takes the data dir for a server that has no others to share it with: two on one database whose people cannot hear each
    /// other would look like one that is broken. Nodes of a cluster know each other, and take none.
    ///
    /// # Errors
    /// When another server runs on it, or the file in it cannot be made.
    pub fn lock_data_dir(&self) -> Result<Option<DataDirLock>, LocalStateError> {
        if self.redis.url.is_some() {
            return Ok(None);
        }
        let path = self.data_dir.join(LOCK_FILE);
        let fail = |error| LocalStateError { path: path.clone(), error };
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(fail)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(DataDirLock { _file: file })),
            Err(TryLockError::WouldBlock) => Err(fail(io::Error::other(
                "another server runs on this folder; stop that one, or give this one another folder. Servers whose people are to \
                 meet need a Redis (redis.url)",
            ))),
            Err(TryLockError::Error(error)) => Err(fail(error)),
        }
    }

    /// Makes the data dir, reads what was generated into it before, and generates what is still missing.
    ///
    /// # Errors
    /// When the folder or a file in it cannot be made, read or written.
    pub fn local_state(&self) -> Result<LocalState, LocalStateError> {
        make_dir(&self.data_dir).map_err(|error| LocalStateError { path: self.data_dir.clone(), error })?;
        let jwt_secret = match &self.auth.jwt_secret {
            Some(secret) => secret.clone(),
            None => Secret::new(kept(&self.data_dir.join(JWT_SECRET_FILE), random::text::<32>)?),
        };
        let node_id = match &self.cluster.node_id {
            Some(id) => id.clone(),
            None => kept(&self.data_dir.join(NODE_ID_FILE), || format!("node-{}", random::text::<6>()))?,
        };
        Ok(LocalState { jwt_secret, node_id })
    }
}

/// Only its owner may look into the folder: the database in it holds password hashes.
fn make_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// The text in `path`, generated when there is no such file.
fn kept(path: &Path, generate: impl FnOnce() -> String) -> Result<String, LocalStateError> {
    let fail = |error| LocalStateError { path: path.to_owned(), error };
    if !path.exists() {
        write_new(path, &generate()).map_err(fail)?;
    }
    let text = fs::read_to_string(path).map_err(fail)?.trim().to_owned();
    if text.is_empty() {
        Err(fail(io::Error::other("the file is empty; delete it to have a new one made")))
    } else {
        Ok(text)
    }
}

/// Writes the whole file or none of it, readable by its owner only. Of two processes that start at once one wins.
fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let draft = path.with_extension(format!("{}.new", uuid::Uuid::now_v7()));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    let linked = fs::hard_link(&draft, path);
    fs::remove_file(&draft)?;
    match linked {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn settings_in_a_new_dir() -> Settings {
        let dir = std::env::temp_dir().join(format!("antiphon-state-{}", uuid::Uuid::now_v7()));
        Settings { data_dir: dir, ..Settings::default() }
    }

    #[test]
    fn a_second_server_on_a_folder_is_told_of_the_first() {
        let mut settings = settings_in_a_new_dir();
        settings.local_state().expect("the folder can be made");
        let lock = settings.lock_data_dir().expect("free");
        let refused = settings.lock_data_dir().expect_err("taken").to_string();
        assert!(refused.contains("another server runs"), "{refused}");
        settings.redis.url = Some("redis://localhost".parse().expect("a URL"));
        assert!(settings.lock_data_dir().expect("nodes of a cluster").is_none());
        settings.redis.url = None;
        drop(lock);
        assert!(settings.lock_data_dir().expect("free again").is_some());
        fs::remove_dir_all(&settings.data_dir).expect("ours");
    }

    #[test]
    fn what_is_generated_stays_and_only_its_owner_may_read_it() {
        let settings = settings_in_a_new_dir();
        let first = settings.local_state().expect("the folder can be made");
        let second = settings.local_state().expect("and read");
        assert_eq!((&first.jwt_secret, &first.node_id), (&second.jwt_secret, &second.node_id));
        assert!(first.jwt_secret.expose().len() >= 32);
        let mode = |path: &Path| fs::metadata(path).expect("is there").permissions().mode() & 0o777;
        assert_eq!(mode(&settings.data_dir), 0o700);
        for file in [JWT_SECRET_FILE, NODE_ID_FILE] {
            assert_eq!(mode(&settings.data_dir.join(file)), 0o600, "{file}");
        }
        assert_eq!(fs::read_dir(&settings.data_dir).expect("readable").count(), 2, "no draft is left");
        fs::remove_dir_all(&settings.data_dir).expect("ours");
    }

    #[test]
    fn of_many_starts_at_once_all_have_the_same_secret() {
        let settings = settings_in_a_new_dir();
        let secrets: Vec<_> = std::thread::scope(|scope| {
            let starts: Vec<_> =
                (0..8).map(|_| scope.spawn(|| settings.local_state().expect("works").jwt_secret)).collect();
            starts.into_iter().map(|start| start.join().expect("no panic")).collect()
        });
        assert!(secrets.iter().all(|secret| *secret == secrets[0]));
        fs::remove_dir_all(&settings.data_dir).expect("ours");
    }

    #[test]
    fn what_is_set_is_taken_and_nothing_is_generated() {
        let mut settings = settings_in_a_new_dir();
        settings.auth.jwt_secret = Some(Secret::new("set"));
        settings.cluster.node_id = Some("paris-1".to_owned());
        let state = settings.local_state().expect("the folder can be made");
        assert_eq!((state.jwt_secret.expose(), state.node_id.as_str()), ("set", "paris-1"));
        assert_eq!(fs::read_dir(&settings.data_dir).expect("readable").count(), 0);
        fs::remove_dir_all(&settings.data_dir).expect("ours");
    }

    #[test]
    fn a_folder_that_cannot_be_used_is_named_with_its_setting() {
        let settings = Settings { data_dir: "/proc/antiphon".into(), ..Settings::default() };
        let error = settings.local_state().expect_err("not there").to_string();
        assert!(error.contains("/proc/antiphon") && error.contains("ANTIPHON_DATA_DIR"), "{error}");
    }
}
