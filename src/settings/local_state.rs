//! What a node makes once and keeps in its data dir: the token secret and its name, when neither is set.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use super::{Secret, Settings};

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

impl Settings {
    /// Makes the data dir, reads what was generated into it before, and generates what is still missing.
    ///
    /// # Errors
    /// When the folder or a file in it cannot be made, read or written.
    pub fn local_state(&self) -> Result<LocalState, LocalStateError> {
        make_dir(&self.data_dir).map_err(|error| LocalStateError { path: self.data_dir.clone(), error })?;
        let jwt_secret = match &self.auth.jwt_secret {
            Some(secret) => secret.clone(),
            None => Secret::new(kept(&self.data_dir.join(JWT_SECRET_FILE), || random_text::<32>())?),
        };
        let node_id = match &self.cluster.node_id {
            Some(id) => id.clone(),
            None => kept(&self.data_dir.join(NODE_ID_FILE), || Ok(format!("node-{}", random_text::<6>()?)))?,
        };
        Ok(LocalState { jwt_secret, node_id })
    }
}

/// Only its owner may look into the folder: the database in it holds password hashes.
fn make_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// The text in `path`, generated when there is no such file.
fn kept(path: &Path, generate: impl FnOnce() -> io::Result<String>) -> Result<String, LocalStateError> {
    let fail = |error| LocalStateError { path: path.to_owned(), error };
    if !path.exists() {
        write_new(path, &generate().map_err(fail)?).map_err(fail)?;
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
    let draft = path.with_extension(format!("{}.new", std::process::id()));
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

/// `BYTES` random bytes as text.
fn random_text<const BYTES: usize>() -> io::Result<String> {
    let mut bytes = [0; BYTES];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| io::Error::other("the system gives no random numbers"))?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}
