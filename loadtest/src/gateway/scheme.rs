//! A URL with `http` where the server speaks TLS, or with `https` where it does not: both look like a broken network.

use std::{error::Error, fmt};

use tokio_tungstenite::tungstenite;

/// What rustls says of a record that is none, as of an answer in plain HTTP (its `InvalidMessage::InvalidContentType`).
const NO_RECORD: &str = "InvalidContentType";

/// What a server with TLS says to plain HTTP.
const SPEAKS_TLS: &str = "this port speaks TLS";

/// Which scheme it should have been.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WrongScheme {
    /// The server speaks TLS.
    Https,
    /// It does not.
    Http,
}

impl fmt::Display for WrongScheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Https => "the server speaks TLS on this port: an https:// URL would do",
            Self::Http => "the server speaks no TLS on this port: an http:// URL would do",
        })
    }
}

impl WrongScheme {
    /// Whether that is why a WebSocket was not opened.
    pub(super) fn of_refusal(error: &tungstenite::Error) -> Option<Self> {
        match error {
            tungstenite::Error::Http(response) => {
                let body = String::from_utf8_lossy(response.body().as_deref().unwrap_or_default());
                body.contains(SPEAKS_TLS).then_some(Self::Https)
            }
            other => Self::of_failure(other),
        }
    }

    /// Whether a connection failed since it was begun with TLS.
    pub(crate) fn of_failure(error: &(dyn Error + 'static)) -> Option<Self> {
        let mut cause = Some(error);
        while let Some(error) = cause {
            if error.to_string().contains(NO_RECORD) {
                return Some(Self::Http);
            }
            cause = error.source();
        }
        None
    }
}
