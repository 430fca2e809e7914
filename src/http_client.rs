//! Requests to others: an issuer's keys, the other nodes.

use std::time::Duration;

/// How long anything may take where a request does not say otherwise.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A client that follows no redirection, since whoever is asked was named on purpose.
///
/// # Errors
/// When the system's roots of trust cannot be read.
pub(crate) fn http_client() -> Result<reqwest::Client, reqwest::Error> {
    // The process may have installed one already, which is as good.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    reqwest::Client::builder()
        .timeout(TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("antiphon/", env!("CARGO_PKG_VERSION")))
        .build()
}
