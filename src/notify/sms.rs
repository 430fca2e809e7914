//! Short messages, by whoever the operator has an account with.

use std::{fmt, time::Duration};

use futures_util::future::BoxFuture;
use serde::Serialize;
use time::OffsetDateTime;

use super::{delivery::signature, failure::Failure};
use crate::settings::Secret;

/// How long the provider may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Somebody who sends short messages. To have another, implement this and name it in `Outbox::start`.
pub(super) trait SmsProvider: Send + Sync + fmt::Debug {
    /// Sends a text to a number (E.164). `id` is the same in each attempt.
    fn send<'a>(&'a self, id: &'a str, to: &'a str, text: &'a str) -> BoxFuture<'a, Result<(), Failure>>;
}

/// Posts each message as JSON to a URL, signed as webhooks are. Most providers are a few lines of glue away.
pub(super) struct WebhookSms {
    http: reqwest::Client,
    url: String,
    secret: Secret,
}

impl WebhookSms {
    pub(super) const fn new(http: reqwest::Client, url: String, secret: Secret) -> Self {
        Self { http, url, secret }
    }

    async fn post(&self, message: &Sms<'_>) -> Result<(), Failure> {
        let body = serde_json::to_vec(message).map_err(|error| Failure::Lasting(error.to_string()))?;
        let at = OffsetDateTime::now_utc().unix_timestamp();
        let signed = format!("t={at},v1={}", signature(self.secret.expose(), at, &body));
        let request = self.http.post(&self.url).timeout(PATIENCE).header("content-type", "application/json");
        let request = request.header("antiphon-signature", signed).header("idempotency-key", message.id);
        let answer = request.body(body).send().await?;
        match Failure::of_answer(&answer) {
            None => Ok(()),
            // The URL and the secret are the operator's: that it is not there, or takes nothing from us, passes.
            Some(Failure::Gone | Failure::Refused(_)) => {
                Err(Failure::passing(format!("it answered {}", answer.status())))
            }
            Some(failure) => Err(failure),
        }
    }
}

/// What is posted.
#[derive(Serialize)]
struct Sms<'a> {
    /// The same in each attempt: what was taken once is not to be sent again.
    id: &'a str,
    to: &'a str,
    text: &'a str,
}

impl SmsProvider for WebhookSms {
    fn send<'a>(&'a self, id: &'a str, to: &'a str, text: &'a str) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(async move { self.post(&Sms { id, to, text }).await })
    }
}

impl fmt::Debug for WebhookSms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebhookSms")
    }
}

/// A number as it is kept: E.164, as all of the world can be reached by.
///
/// # Errors
/// What is wrong, in words.
pub(super) fn checked_number(text: &str) -> Result<String, String> {
    let number: String = text.chars().filter(|c| ![' ', '-', '(', ')', '.'].contains(c)).collect();
    let digits = number.strip_prefix('+').unwrap_or_default();
    let is_number = (8..=15).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    if is_number && !digits.starts_with('0') {
        return Ok(number);
    }
    Err("address must be a phone number with its country, such as +33 6 12 34 56 78".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_their_country() {
        assert_eq!(checked_number("+33 6 12-34.56 (78)").expect("right"), "+33612345678");
        for wrong in [
            "",
            "0612345678",
            "+0612345678",
            "+33",
            "+3361234567890123",
            "+33 6 12 34 56 7x",
            "+３３６１２３４５６７８",
        ] {
            assert!(checked_number(wrong).is_err(), "{wrong}");
        }
    }
}
