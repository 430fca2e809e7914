//! Requests to others: an issuer's keys, the other nodes.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use reqwest::{Certificate, Client, ClientBuilder};

/// How long anything may take where a request does not say otherwise.
const TIMEOUT: Duration = Duration::from_secs(5);

/// There is no client with the certificates that are set.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The file cannot be read, or holds something else.
    #[error("cannot use the certificates in {} (cluster.ca_file): {why}", path.display())]
    Certificates {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The system's roots of trust cannot be read.
    #[error("cannot make an HTTPS client: {0}")]
    Client(#[from] reqwest::Error),
}

/// A client that follows no redirection, since whoever is asked was named on purpose.
///
/// # Errors
/// When the system's roots of trust cannot be read.
pub(crate) fn http_client() -> Result<Client, reqwest::Error> {
    builder().build()
}

/// One for other nodes, whose certificates must be signed by those in `ca_file`, where that is set.
///
/// # Errors
/// When the file is of no use, or the system's roots of trust cannot be read.
pub(crate) fn node_client(ca_file: Option<&Path>) -> Result<Client, ClientError> {
    let Some(path) = ca_file else { return Ok(http_client()?) };
    let wrong = |why: String| ClientError::Certificates { path: path.to_owned(), why };
    let text = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
    let certificates = Certificate::from_pem_bundle(&text).map_err(|error| wrong(error.to_string()))?;
    if certificates.is_empty() {
        return Err(wrong("it holds no certificate in PEM form".to_owned()));
    }
    Ok(builder().tls_certs_only(certificates).build()?)
}

/// One for this very machine's own node, whose certificate is of another name than the one it is asked by.
///
/// # Errors
/// When the system's roots of trust cannot be read.
pub(crate) fn own_client() -> Result<Client, ClientError> {
    Ok(builder().tls_danger_accept_invalid_certs(true).build()?)
}

/// What all of these have in common.
pub(crate) fn builder() -> ClientBuilder {
    // The process may have installed one already, which is as good.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    Client::builder()
        .timeout(TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("antiphon/", env!("CARGO_PKG_VERSION")))
}
