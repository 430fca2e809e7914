//! Web push (RFC 8030): a message for a browser, sealed for it alone, posted to its push service, signed with the server's key.

mod aes128gcm;
mod vapid;

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Serialize;
use time::OffsetDateTime;

pub(super) use self::vapid::Vapid;
pub use self::vapid::VapidError;
use super::{endpoint, failure::Failure, wording::Words};
use crate::{
    random,
    store::{Notification, PushSubscription},
};

/// How long a push service may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// For how long a push service keeps a message for a browser that is off, in seconds: a day.
const TTL_S: &str = "86400";

/// Sends to browsers.
#[derive(Clone)]
pub(super) struct Push {
    http: reqwest::Client,
    vapid: Vapid,
    allow_private: bool,
}

/// What a browser gets.
#[derive(Serialize)]
struct Shown<'a> {
    /// The notification's.
    id: String,
    kind: &'static str,
    title: &'a str,
    body: &'a str,
    /// Where on the page it leads.
    path: String,
}

impl Push {
    /// Signing with that key; to private addresses, too, where that is allowed.
    ///
    /// # Errors
    /// When the system's roots of trust cannot be read.
    pub(super) fn new(vapid: Vapid, allow_private: bool) -> Result<Self, reqwest::Error> {
        Ok(Self { http: endpoint::client(allow_private)?, vapid, allow_private })
    }

    /// The key that browsers subscribe with.
    pub(super) fn public_key(&self) -> &str {
        self.vapid.public_key()
    }

    /// Checks what a browser gives of itself; its key and secret as bytes.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub(super) fn check(&self, endpoint: &str, p256dh: &str, auth: &str) -> Result<(Vec<u8>, Vec<u8>), String> {
        endpoint::check(endpoint, self.allow_private)?;
        let bytes = |text: &str| URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok();
        let key = bytes(p256dh).filter(|key| aes128gcm::is_public_key(key));
        let key = key.ok_or("keys.p256dh must be a point of P-256, uncompressed, in base64url")?;
        let auth = bytes(auth).filter(|auth| auth.len() == aes128gcm::AUTH_BYTES);
        Ok((key, auth.ok_or("keys.auth must be 16 bytes in base64url")?))
    }

    /// Sends a notification to a browser.
    ///
    /// # Errors
    /// Why it was not taken.
    pub(super) async fn send(
        &self,
        subscription: &PushSubscription,
        notification: &Notification,
        words: &Words,
    ) -> Result<(), Failure> {
        let url = endpoint::check(&subscription.endpoint, self.allow_private).map_err(Failure::Lasting)?;
        let path = notification.channel.map_or_else(|| "/".to_owned(), |id| format!("/#channel={id}"));
        let (title, body) = (words.title.as_str(), words.text.as_str());
        let shown = Shown { id: notification.id.to_string(), kind: notification.kind.as_str(), title, body, path };
        let plain = serde_json::to_vec(&shown).map_err(|error| Failure::Lasting(error.to_string()))?;
        let sealed = aes128gcm::seal(&plain, &subscription.p256dh, &subscription.auth, &random::bytes())
            .map_err(|error| Failure::Lasting(error.to_string()))?;
        let now_s = OffsetDateTime::now_utc().unix_timestamp();
        let request = self.http.post(url.clone()).timeout(PATIENCE);
        let request = request
            .header("authorization", self.vapid.authorization(&url.origin().ascii_serialization(), now_s))
            .header("content-encoding", "aes128gcm")
            .header("content-type", "application/octet-stream")
            .header("ttl", TTL_S)
            .header("urgency", "normal")
            // A repetition replaces what the browser has not fetched yet. At most 32 characters (RFC 8030, 5.4).
            .header("topic", URL_SAFE_NO_PAD.encode(notification.id.0.as_bytes()));
        let answer = request.body(sealed).send().await?;
        Failure::of_answer(&answer).map_or(Ok(()), Err)
    }
}

impl std::fmt::Debug for Push {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Push({})", self.public_key())
    }
}
