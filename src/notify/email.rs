//! Mail, by the operator's SMTP server. Plain text.

use std::time::{Duration, SystemTime};

use lettre::{
    Address, AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor,
    message::{
        Mailbox,
        header::{ContentType, HeaderName, HeaderValue},
    },
    transport::smtp::{PoolConfig, extension::ClientId},
};

use super::{failure::Failure, wording::one_line};
use crate::settings::ConnectionUrl;

/// How long the server may take for one step.
const PATIENCE: Duration = Duration::from_secs(10);

/// Connections at once.
const CONNECTIONS_MAX: u32 = 8;

/// The longest address in bytes (RFC 5321, 4.5.3.1.3).
const ADDRESS_BYTES_MAX: usize = 254;

/// The mail server cannot be used as it is set.
#[derive(Debug, thiserror::Error)]
pub enum EmailError {
    /// The URL is none of a mail server.
    #[error("notify.smtp_url: {0}")]
    Url(#[from] lettre::transport::smtp::Error),
    /// The sender is no address.
    #[error("notify.smtp_from is no mail address: {0}")]
    From(lettre::address::AddressError),
}

/// Sends mail.
#[derive(Clone)]
pub(super) struct Email {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
}

impl Email {
    /// By the server at `url`, as `from` (`name@example.org`, or with a name before it in front of `<…>`).
    ///
    /// # Errors
    /// When one of them cannot be right.
    pub(super) fn new(url: &ConnectionUrl, from: &str) -> Result<Self, EmailError> {
        let from: Mailbox = from.parse().map_err(EmailError::From)?;
        let mut transport = AsyncSmtpTransport::<Tokio1Executor>::from_url(url.expose())?;
        // The URL's path is the name that we greet with; servers distrust who has none.
        if reqwest::Url::parse(url.expose()).is_ok_and(|url| url.path().len() <= 1) {
            transport = transport.hello_name(ClientId::Domain(from.email.domain().to_owned()));
        }
        let pool = PoolConfig::new().max_size(CONNECTIONS_MAX);
        Ok(Self { transport: transport.timeout(Some(PATIENCE)).pool_config(pool).build(), from })
    }

    /// Sends a text; `id` makes the mail's own id, by which receivers tell repetitions.
    ///
    /// # Errors
    /// Why it was not taken.
    pub(super) async fn send(&self, id: &str, to: &str, subject: &str, text: String) -> Result<(), Failure> {
        let message = self.message(id, to, subject, text)?;
        self.transport.send(message).await.map(|_| ()).map_err(|error| failure(&error))
    }

    fn message(&self, id: &str, to: &str, subject: &str, text: String) -> Result<Message, Failure> {
        let to: Address = to.parse().map_err(|_| Failure::Lasting("this is no mail address".to_owned()))?;
        let automatic = HeaderValue::new(HeaderName::new_from_ascii_str("Auto-Submitted"), "auto-generated".to_owned());
        Message::builder()
            .from(self.from.clone())
            .to(Mailbox::new(None, to))
            .subject(one_line(subject))
            .message_id(Some(format!("<{id}@{}>", self.from.email.domain())))
            .date(SystemTime::now())
            .raw_header(automatic)
            .header(ContentType::TEXT_PLAIN)
            .body(text)
            .map_err(|error| Failure::Lasting(error.to_string()))
    }
}

/// Asks the mail server at `url` for a sign of life, logging in where the URL says so.
///
/// # Errors
/// What is wrong, in words.
pub async fn ask_mail_server(url: &ConnectionUrl, from: &str) -> Result<(), String> {
    let email = Email::new(url, from).map_err(|error| error.to_string())?;
    match tokio::time::timeout(PATIENCE, email.transport.test_connection()).await {
        Ok(Ok(true)) => Ok(()),
        Ok(Ok(false)) => Err("it does not answer".to_owned()),
        Ok(Err(error)) => Err(one_line(&error.to_string())),
        Err(_) => Err(format!("it does not answer within {} s", PATIENCE.as_secs())),
    }
}

/// What the server's refusal means. That it does not take our password is no fault of the receiver's.
fn failure(error: &lettre::transport::smtp::Error) -> Failure {
    let status = error.status().map(|code| code.to_string());
    let is_ours = status.as_deref().is_some_and(|code| ["530", "534", "535", "538"].contains(&code));
    let mut text = one_line(&error.to_string());
    text.truncate(text.floor_char_boundary(300));
    if error.is_permanent() && !is_ours {
        Failure::Lasting(text)
    } else if error.is_timeout() {
        Failure::Unanswered(text)
    } else {
        Failure::passing(text)
    }
}

/// An address as it is kept.
///
/// # Errors
/// What is wrong, in words.
pub(super) fn checked_address(text: &str) -> Result<String, String> {
    let text = text.trim();
    let is_plain = text.is_ascii() && text.len() <= ADDRESS_BYTES_MAX && !text.contains(|c: char| c.is_control());
    match text.parse::<Address>() {
        // Quoted local parts and addresses of hosts by number are allowed by the standard, and used by nobody honest.
        Ok(address) if is_plain && !text.contains(['"', '[', ' ']) => Ok(address.to_string()),
        _ => Err(format!(
            "address must be a mail address of at most {ADDRESS_BYTES_MAX} characters, such as ada@example.org"
        )),
    }
}

impl std::fmt::Debug for Email {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Email(as {})", self.from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn email() -> Email {
        let url = "smtp://127.0.0.1:1".parse().expect("a URL");
        Email::new(&url, "Antiphon <voice@example.org>").expect("right")
    }

    #[tokio::test]
    async fn nothing_that_people_write_becomes_a_header() {
        let subject = "hello\r\nBcc: eve@example.org\r\n\r\nbody";
        let text = "line\r\n.\r\nMAIL FROM:<eve@example.org>\n\u{202e}é".to_owned();
        let message = email().message("an-id", "ada@example.org", subject, text).expect("made");
        let bytes = String::from_utf8(message.formatted()).expect("text");
        let (head, _) = bytes.split_once("\r\n\r\n").expect("a head");
        assert!(!head.lines().any(|line| line.starts_with("Bcc")), "{head}");
        assert!(
            head.contains("Message-ID: <an-id@example.org>") && head.contains("Auto-Submitted: auto-generated"),
            "{head}"
        );
        assert_eq!(message.envelope().to().iter().map(ToString::to_string).collect::<Vec<_>>(), ["ada@example.org"]);
    }

    #[test]
    fn addresses_are_plain() {
        assert_eq!(checked_address(" ada+x@example.org ").expect("right"), "ada+x@example.org");
        for wrong in [
            "",
            "ada",
            "ada@",
            "@example.org",
            "ada@example.org\r\nBcc: x@example.org",
            "a b@example.org",
            "\"a\"@example.org",
            "ada@[127.0.0.1]",
            "ädä@example.org",
            "ada@example.org, eve@example.org",
            &format!("{}@example.org", "x".repeat(255)),
        ] {
            assert!(checked_address(wrong).is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn a_server_that_is_away_is_tried_again() {
        let failed = email().send("id", "ada@example.org", "x", "x".to_owned()).await.expect_err("nobody is there");
        assert!(matches!(failed, Failure::Passing { .. }), "{failed:?}");
    }
}
