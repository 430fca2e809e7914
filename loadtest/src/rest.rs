//! What of the HTTP API a client needs: an account, a channel by its name, and what nodes tell of themselves.

use std::{ops::Range, time::Duration};

use antiphon_core::{
    gateway::{ChannelView, ErrorCode, UserView},
    ids::{ChannelId, NodeId},
};
use reqwest::{Method, StatusCode, header};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    gateway::{WrongScheme, install_crypto_provider},
    server_url::ServerUrl,
    tls,
};

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Why a request came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum RestError {
    /// No answer.
    #[error("no answer from {server}: {reason}")]
    Unreachable {
        /// Which server was asked.
        server: String,
        /// What went wrong, innermost cause last.
        reason: String,
    },
    /// The server said no.
    #[error("{message} ({}HTTP status {status})", .code.map(|code| format!("{}, ", code.as_str())).unwrap_or_default())]
    Refused {
        /// The HTTP status.
        status: u16,
        /// For programs; `None` when the answer was not the server's own.
        code: Option<ErrorCode>,
        /// For people.
        message: String,
    },
    /// An answer that is not what the API promises.
    #[error("the server's answer is not understood: {0}")]
    Answer(String),
}

impl RestError {
    /// The server's error code, where there is one.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused { code, .. } => *code,
            Self::Unreachable { .. } | Self::Answer(_) => None,
        }
    }
}

/// An account and what proves it.
#[derive(Clone, Deserialize)]
pub struct Account {
    /// Who.
    pub user: UserView,
    /// For the gateway and the API.
    pub access_token: String,
    /// For new ones, once.
    pub refresh_token: String,
    /// How long the access token lasts.
    #[serde(rename = "expires_in")]
    pub expires_in_s: u64,
}

impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Account {{ user: {:?}, .. }}", self.user)
    }
}

/// What a new channel is to be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct NewChannel {
    /// Unique, case folded.
    pub name: String,
    /// How many may be in voice; `None` is the server's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_users: Option<u32>,
    /// 0: everyone is forwarded; else the loudest so many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_speakers: Option<u32>,
}

/// A node, as `GET /api/v1/nodes` tells of it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct NodeView {
    /// Its name.
    pub node_id: NodeId,
    /// `serving`, or `draining`: then it owns no channels.
    pub state: String,
    /// Its share of channels in relation to other nodes'.
    pub capacity: u32,
    /// Whether it is the one that answered.
    pub me: bool,
}

/// The cluster as one of its nodes sees it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct NodesView {
    /// Grows with every change.
    pub epoch: u64,
    /// Every live node.
    pub nodes: Vec<NodeView>,
}

/// An audio file, as `GET /api/streams` tells of it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct StreamFile {
    /// Its path in the folder.
    pub path: String,
    /// Its length in bytes.
    pub size_bytes: u64,
}

/// A part of an audio file on its way.
pub(crate) struct RangeAnswer {
    response: reqwest::Response,
    server: ServerUrl,
}

impl RangeAnswer {
    /// Its next bytes; `None` at its end.
    pub(crate) async fn next(&mut self) -> Result<Option<impl std::ops::Deref<Target = [u8]>>, RestError> {
        self.response.chunk().await.map_err(|error| unreachable(&self.server, &error))
    }
}

/// The API of one server.
#[derive(Clone, Debug)]
pub struct Rest {
    http: reqwest::Client,
    server: ServerUrl,
}

impl Rest {
    /// A client; connects on the first request.
    ///
    /// # Errors
    /// When the system's certificates cannot be read.
    pub fn new(server: ServerUrl) -> Result<Self, RestError> {
        install_crypto_provider();
        let builder = reqwest::Client::builder().timeout(TIMEOUT);
        let builder = match tls::chosen() {
            Some(config) => builder.tls_backend_preconfigured((*config).clone()),
            None => builder,
        };
        let http = builder.build().map_err(|error| unreachable(&server, &error))?;
        Ok(Self { http, server })
    }

    /// Makes an account with a password.
    ///
    /// # Errors
    /// When there is no answer or the server refuses.
    pub async fn register(&self, username: &str, password: &str) -> Result<Account, RestError> {
        #[derive(Serialize)]
        struct Body<'a> {
            username: &'a str,
            password: &'a str,
        }
        self.call(Method::POST, "/api/auth/register", None, Some(&Body { username, password })).await
    }

    /// Logs in with a password.
    ///
    /// # Errors
    /// When there is no answer or the server refuses.
    pub async fn login(&self, username: &str, password: &str) -> Result<Account, RestError> {
        #[derive(Serialize)]
        struct Body<'a> {
            username: &'a str,
            password: &'a str,
        }
        self.call(Method::POST, "/api/auth/login", None, Some(&Body { username, password })).await
    }

    /// Makes a guest.
    ///
    /// # Errors
    /// When there is no answer or the server refuses.
    pub async fn guest(&self, username: &str) -> Result<Account, RestError> {
        #[derive(Serialize)]
        struct Body<'a> {
            username: &'a str,
            display_name: &'a str,
        }
        self.call(Method::POST, "/api/users", None, Some(&Body { username, display_name: username })).await
    }

    /// New tokens for an account; the refresh token given is used up.
    ///
    /// # Errors
    /// When there is no answer or the server refuses.
    pub async fn refresh(&self, refresh_token: &str) -> Result<Account, RestError> {
        #[derive(Serialize)]
        struct Body<'a> {
            refresh_token: &'a str,
        }
        self.call(Method::POST, "/api/auth/refresh", None, Some(&Body { refresh_token })).await
    }

    /// The channels that an account sees.
    ///
    /// # Errors
    /// When there is no answer or the server refuses.
    pub async fn channels(&self, access_token: &str) -> Result<Vec<ChannelView>, RestError> {
        self.data(Method::GET, "/api/channels", access_token, None::<&()>).await
    }

    /// Makes a channel.
    ///
    /// # Errors
    /// When there is no answer or the server refuses.
    pub async fn create_channel(&self, access_token: &str, channel: &NewChannel) -> Result<ChannelView, RestError> {
        self.data(Method::POST, "/api/channels", access_token, Some(channel)).await
    }

    /// Uses an invite: the account is a member of its channel then, which is yielded.
    ///
    /// # Errors
    /// When there is no answer or the server refuses.
    pub async fn use_invite(&self, access_token: &str, code: &str) -> Result<ChannelView, RestError> {
        self.data(Method::POST, &format!("/api/invites/{code}"), access_token, None::<&()>).await
    }

    /// Deletes a channel that the account owns.
    ///
    /// # Errors
    /// When there is no answer or the server refuses.
    pub async fn delete_channel(&self, access_token: &str, channel: ChannelId) -> Result<(), RestError> {
        let path = format!("/api/channels/{channel}");
        let _deleted: serde_json::Value = self.call(Method::DELETE, &path, Some(access_token), None::<&()>).await?;
        Ok(())
    }

    /// The nodes of the server's cluster.
    ///
    /// # Errors
    /// When there is no answer or the server refuses.
    pub async fn nodes(&self, access_token: &str) -> Result<NodesView, RestError> {
        self.data(Method::GET, "/api/v1/nodes", access_token, None::<&()>).await
    }

    /// Lets a node drain, or take on work again; the account must be an administrator's.
    ///
    /// # Errors
    /// When there is no answer or the server refuses.
    pub async fn set_draining(&self, access_token: &str, node: &NodeId, draining: bool) -> Result<(), RestError> {
        let method = if draining { Method::POST } else { Method::DELETE };
        let path = format!("/api/v1/admin/nodes/{}/drain", node.0);
        let body = draining.then(|| serde_json::json!({}));
        let _progress: serde_json::Value = self.call(method, &path, Some(access_token), body.as_ref()).await?;
        Ok(())
    }

    /// The server's metrics, in Prometheus' text format.
    ///
    /// # Errors
    /// When there is no answer or the server refuses.
    pub async fn metrics(&self) -> Result<String, RestError> {
        let bytes = self.bytes(Method::GET, "/metrics", None, None::<&()>).await?;
        String::from_utf8(bytes).map_err(|error| RestError::Answer(error.to_string()))
    }

    /// The first audio files that the server lists, at most so many.
    ///
    /// # Errors
    /// When there is no answer or the server refuses.
    pub async fn streams(&self, access_token: &str, limit: usize) -> Result<Vec<StreamFile>, RestError> {
        let link = format!("/api/streams?limit={limit}");
        let bytes = read(self.get(&link, |request| request.bearer_auth(access_token)).await?, &self.server).await?;
        Ok(parse::<Answer<Vec<StreamFile>>>(&bytes)?.data)
    }

    /// A link to an audio file, relative to any node of the cluster, that is good for so long.
    ///
    /// # Errors
    /// When there is no answer or the server refuses.
    pub async fn sign_stream(&self, access_token: &str, path: &str, ttl: Duration) -> Result<String, RestError> {
        #[derive(Deserialize)]
        struct Link {
            url: String,
        }
        let body = serde_json::json!({ "path": path, "ttl_s": ttl.as_secs() });
        let link: Link = self.data(Method::POST, "/api/streams/sign", access_token, Some(&body)).await?;
        Ok(link.url)
    }

    /// How many seconds an audio file plays, which the server finds out; `None` where it cannot.
    ///
    /// # Errors
    /// When there is no answer or the server refuses.
    pub async fn stream_seconds(&self, access_token: &str, path: &str) -> Result<Option<f64>, RestError> {
        #[derive(Deserialize)]
        struct Facts {
            duration_s: f64,
        }
        #[derive(Deserialize)]
        struct View {
            facts: Option<Facts>,
        }
        let path = format!("/api/streams/{path}");
        // It decodes a file for its waveform, and knows then.
        self.bytes(Method::GET, &format!("{path}/waveform"), Some(access_token), None::<&()>).await?;
        let view: View = self.data(Method::GET, &path, access_token, None::<&()>).await?;
        Ok(view.facts.map(|facts| facts.duration_s))
    }

    /// A part of an audio file behind a signed link.
    ///
    /// # Errors
    /// When there is no answer or the server refuses.
    pub(crate) async fn range(&self, link: &str, range: Range<u64>) -> Result<RangeAnswer, RestError> {
        let value = format!("bytes={}-{}", range.start, range.end.saturating_sub(1));
        let response = self.get(link, |request| request.header(header::RANGE, value)).await?;
        match response.status() {
            StatusCode::PARTIAL_CONTENT => Ok(RangeAnswer { response, server: self.server.clone() }),
            status if status.is_success() => Err(RestError::Answer(format!("HTTP status {status} to a range"))),
            status => Err(refusal(status, &response.bytes().await.map_err(|error| unreachable(&self.server, &error))?)),
        }
    }

    /// The answer to a link, which may have a query, whatever its status is.
    async fn get(
        &self,
        link: &str,
        with: impl FnOnce(reqwest::RequestBuilder) -> reqwest::RequestBuilder,
    ) -> Result<reqwest::Response, RestError> {
        let url = self.server.http("/").join(link).map_err(|error| RestError::Answer(format!("{link}: {error}")))?;
        with(self.http.get(url)).send().await.map_err(|error| unreachable(&self.server, &error))
    }

    /// The channel of that name, made where there is none yet. Two clients that do so at once get the same one.
    ///
    /// # Errors
    /// When there is no answer or the server refuses.
    pub async fn find_or_create_channel(
        &self,
        access_token: &str,
        channel: &NewChannel,
    ) -> Result<ChannelView, RestError> {
        match self.find_channel(access_token, &channel.name).await? {
            Some(found) => Ok(found),
            None => self.make_channel(access_token, channel).await,
        }
    }

    /// Makes a channel, or finds the one that somebody else made meanwhile.
    ///
    /// # Errors
    /// When there is no answer or the server refuses.
    pub async fn make_channel(&self, access_token: &str, channel: &NewChannel) -> Result<ChannelView, RestError> {
        match self.create_channel(access_token, channel).await {
            Err(error) if error.code() == Some(ErrorCode::Conflict) => {
                let found = self.find_channel(access_token, &channel.name).await?;
                found.ok_or(error)
            }
            created => created,
        }
    }

    /// The channel of that name, if there is one that the account sees.
    ///
    /// # Errors
    /// When there is no answer or the server refuses.
    pub async fn find_channel(&self, access_token: &str, name: &str) -> Result<Option<ChannelView>, RestError> {
        let folded = name.to_lowercase();
        let channels = self.channels(access_token).await?;
        Ok(channels.into_iter().find(|channel| channel.name.to_lowercase() == folded))
    }

    async fn data<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        access_token: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, RestError> {
        let answer: Answer<T> = self.call(method, path, Some(access_token), body).await?;
        Ok(answer.data)
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        access_token: Option<&str>,
        body: Option<&impl Serialize>,
    ) -> Result<T, RestError> {
        let bytes = self.bytes(method, path, access_token, body).await?;
        parse(&bytes)
    }

    async fn bytes(
        &self,
        method: Method,
        path: &str,
        access_token: Option<&str>,
        body: Option<&impl Serialize>,
    ) -> Result<Vec<u8>, RestError> {
        let mut request = self.http.request(method, self.server.http(path));
        if let Some(token) = access_token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.map_err(|error| unreachable(&self.server, &error))?;
        read(response, &self.server).await
    }
}

/// What nearly every answer looks like.
#[derive(Deserialize)]
struct Answer<T> {
    data: T,
}

/// All of an answer, if the server has not refused.
async fn read(response: reqwest::Response, server: &ServerUrl) -> Result<Vec<u8>, RestError> {
    let status = response.status();
    let bytes = response.bytes().await.map_err(|error| unreachable(server, &error))?;
    if status.is_success() { Ok(bytes.into()) } else { Err(refusal(status, &bytes)) }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, RestError> {
    serde_json::from_slice(bytes).map_err(|error| RestError::Answer(error.to_string()))
}

fn unreachable(server: &ServerUrl, error: &reqwest::Error) -> RestError {
    let reason = WrongScheme::of_failure(error).map_or_else(|| causes(error), |wrong| wrong.to_string());
    RestError::Unreachable { server: server.to_string(), reason }
}

fn refusal(status: StatusCode, body: &[u8]) -> RestError {
    #[derive(Deserialize)]
    struct Body {
        error: String,
        error_code: ErrorCode,
    }
    match serde_json::from_slice::<Body>(body) {
        Ok(Body { error, error_code }) => {
            RestError::Refused { status: status.as_u16(), code: Some(error_code), message: error }
        }
        Err(_) => {
            let message = "it is not the answer of an Antiphon server".to_owned();
            RestError::Refused { status: status.as_u16(), code: None, message }
        }
    }
}

/// An error with its causes: the outermost of a failed request says little.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_carries_the_servers_own_words() {
        let body = br#"{"success":false,"error":"the name is taken","error_code":"CONFLICT","timestamp":1}"#;
        let error = refusal(StatusCode::CONFLICT, body);
        assert_eq!(error.code(), Some(ErrorCode::Conflict));
        assert!(error.to_string().contains("the name is taken"));
        let foreign = refusal(StatusCode::BAD_GATEWAY, b"<html>");
        assert_eq!(foreign.code(), None);
        assert!(foreign.to_string().contains("502"));
    }

    #[tokio::test]
    async fn an_unreachable_server_is_named() {
        // A port that was free a moment ago: nobody listens there.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
        let address = listener.local_addr().expect("bound");
        drop(listener);
        let rest = Rest::new(format!("http://{address}").parse().expect("a URL")).expect("a client");
        let error = rest.login("ann", "secret").await.expect_err("nobody there").to_string();
        assert!(error.contains(&address.to_string()), "{error}");
        assert!(!error.contains("secret"));
    }
}
