//! Where a server is: one HTTP URL, from which the gateway's follows.

use std::{fmt, str::FromStr};

use reqwest::Url;

/// The HTTP URL of a node, as in `http://127.0.0.1:3000`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerUrl(Url);

/// Why a text is no server URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServerUrlError {
    /// No URL at all.
    #[error("`{text}` is no URL ({reason}); something like http://127.0.0.1:3000 would do")]
    Malformed {
        /// What was given.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A URL of another kind.
    #[error("`{0}` is neither an http nor an https URL")]
    Scheme(String),
}

impl ServerUrl {
    /// The URL of a path on the server; `path` begins with a slash.
    #[must_use]
    pub fn http(&self, path: &str) -> Url {
        let mut url = self.0.clone();
        url.set_path(path);
        url
    }

    /// The gateway's URL.
    ///
    /// # Panics
    /// Never: http and https turn into ws and wss.
    #[must_use]
    pub fn gateway(&self) -> Url {
        let mut url = self.http("/ws");
        let scheme = if self.0.scheme() == "https" { "wss" } else { "ws" };
        url.set_scheme(scheme).expect("an http URL can become a ws one");
        url
    }

    /// The host as the URL names it.
    #[must_use]
    pub fn host(&self) -> &str {
        self.0.host_str().unwrap_or_default()
    }
}

impl FromStr for ServerUrl {
    type Err = ServerUrlError;

    fn from_str(text: &str) -> Result<Self, ServerUrlError> {
        let malformed = |reason: String| ServerUrlError::Malformed { text: text.to_owned(), reason };
        let mut url = Url::parse(text).map_err(|error| malformed(error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(ServerUrlError::Scheme(text.to_owned()));
        }
        url.set_query(None);
        url.set_fragment(None);
        Ok(Self(url))
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_str().trim_end_matches('/').fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gateway_follows_from_the_http_url() {
        let server: ServerUrl = "http://127.0.0.1:3000/".parse().expect("a URL");
        assert_eq!(server.gateway().as_str(), "ws://127.0.0.1:3000/ws");
        assert_eq!(server.http("/api/users").as_str(), "http://127.0.0.1:3000/api/users");
        assert_eq!(server.to_string(), "http://127.0.0.1:3000");
        let server: ServerUrl = "https://voice.example.org".parse().expect("a URL");
        assert_eq!(server.gateway().as_str(), "wss://voice.example.org/ws");
    }

    #[test]
    fn what_is_no_server_says_what_would_do() {
        let error = "voice".parse::<ServerUrl>().expect_err("no URL").to_string();
        assert!(error.contains("http://127.0.0.1:3000"), "{error}");
        assert!(matches!("ftp://voice".parse::<ServerUrl>(), Err(ServerUrlError::Scheme(_))));
    }
}
