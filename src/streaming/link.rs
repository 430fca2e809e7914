//! Signed links: whoever has one may read one file, or hear one channel, until it runs out.

use std::fmt;

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use super::FilePath;
use antiphon_core::{
    gateway::ErrorCode,
    ids::{ChannelId, UserId},
};

use crate::error::AppError;

/// The longest time ahead, in seconds, at which a link may run out: 7 days.
pub const TTL_MAX_S: u64 = 7 * 86_400;

/// Clocks of nodes and signers differ by a little: a link made for just 7 days elsewhere must not be refused for it.
const CLOCK_TOLERANCE_S: u64 = 60;

/// What links are derived with where the operator has set no secret for them.
const DERIVED: &[u8] = b"antiphon stream links v1";

/// The secret that signs links, and the one before while it is being replaced.
#[derive(Clone)]
pub struct Secrets {
    current: hmac::Key,
    previous: Option<hmac::Key>,
}

/// What a link says.
#[derive(Clone, Copy, Debug)]
pub struct Link<'a> {
    /// Which file.
    pub path: &'a FilePath,
    /// Until when, in Unix seconds, as it is written.
    pub expires: &'a str,
    /// Which quality; empty when it names none.
    pub quality: &'a str,
}

/// What a link to a channel's mix says.
#[derive(Clone, Copy, Debug)]
pub struct LiveLink<'a> {
    /// Which channel.
    pub channel: ChannelId,
    /// Whose link it is: it is good while they may hear the channel.
    pub user: UserId,
    /// Until when a listener may begin, in Unix seconds, as it is written.
    pub expires: &'a str,
}

impl Secrets {
    /// Secrets for links alone.
    #[must_use]
    pub fn new(current: &[u8], previous: Option<&[u8]>) -> Self {
        let key = |secret: &[u8]| hmac::Key::new(hmac::HMAC_SHA256, secret);
        Self { current: key(current), previous: previous.map(key) }
    }

    /// Secrets that follow from others, which they do not give away: HMAC-SHA256 of a fixed text.
    #[must_use]
    pub fn derived(current: &[u8], previous: Option<&[u8]>) -> Self {
        let derive = |secret: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), DERIVED);
        Self::new(derive(current).as_ref(), previous.map(derive).as_ref().map(AsRef::as_ref))
    }

    /// The `sig` of a link.
    #[must_use]
    pub fn sign(&self, link: impl Signed) -> String {
        URL_SAFE_NO_PAD.encode(hmac::sign(&self.current, link.signed().as_bytes()))
    }

    /// Whether `sig` is a link's, and the link good at `now_s` (Unix seconds).
    ///
    /// # Errors
    /// `BAD_SIGNATURE`, also for a link that runs out too far ahead; `LINK_EXPIRED`.
    pub fn check(&self, link: impl Signed, sig: &str, now_s: u64) -> Result<(), AppError> {
        let bad = |message: &str| AppError::new(ErrorCode::BadSignature, message);
        let tag = URL_SAFE_NO_PAD.decode(sig).map_err(|_| bad("the link's sig is no signature"))?;
        let signed = link.signed();
        let is_of = |key: &hmac::Key| hmac::verify(key, signed.as_bytes(), &tag).is_ok();
        if !is_of(&self.current) && !self.previous.as_ref().is_some_and(is_of) {
            return Err(bad("the link's sig is not this server's for what the link says"));
        }
        let expires: u64 = link.expires().parse().map_err(|_| bad("the link's expires is no number of seconds"))?;
        if expires <= now_s {
            return Err(AppError::new(ErrorCode::LinkExpired, "the link has run out; ask for a new one"));
        }
        if expires > now_s + TTL_MAX_S + CLOCK_TOLERANCE_S {
            return Err(bad("the link runs out more than 7 days ahead"));
        }
        Ok(())
    }
}

/// A link that can be signed.
pub trait Signed {
    /// What its signature is of. No two kinds of links have a text in common.
    fn signed(&self) -> String;
    /// Until when it is good, as it is written.
    fn expires(&self) -> &str;
}

impl Signed for Link<'_> {
    /// Begins with the path, which is never empty.
    fn signed(&self) -> String {
        format!("{}\n{}\n{}", self.path, self.expires, self.quality)
    }

    fn expires(&self) -> &str {
        self.expires
    }
}

impl Signed for LiveLink<'_> {
    /// Begins with a line break, as no path does.
    fn signed(&self) -> String {
        format!("\nlisten\n{}\n{}\n{}", self.channel, self.user, self.expires)
    }

    fn expires(&self) -> &str {
        self.expires
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets")
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const NOW: u64 = 1_700_000_000;

    fn refused(secrets: &Secrets, link: Link<'_>, sig: &str) -> ErrorCode {
        secrets.check(link, sig, NOW).expect_err("refused").code
    }

    #[test]
    fn a_signature_is_the_documented_one() {
        let path = FilePath::new("subfolder/track3.mp3").expect("a path");
        let link = Link { path: &path, expires: "1700000600", quality: "" };
        // printf 'subfolder/track3.mp3\n1700000600\n' | openssl dgst -sha256 -hmac your-32-chars-secret-key-here -binary
        //   | base64 | tr '+/' '-_' | tr -d '='
        let sig = "NQ8yR11pLps7YTEmEW7Ok0AIRTEcKmjCwSXZb1pcKAc";
        let secrets = Secrets::new(b"your-32-chars-secret-key-here", None);
        assert_eq!(secrets.sign(link), sig);
        secrets.check(link, sig, NOW).expect("good");
    }

    #[test]
    fn whatever_is_changed_breaks_the_link() {
        let (path, other) = (FilePath::new("a.mp3").expect("a path"), FilePath::new("b.mp3").expect("a path"));
        let secrets = Secrets::new(b"one", None);
        let link = Link { path: &path, expires: "1700000600", quality: "low" };
        let sig = secrets.sign(link);
        secrets.check(link, &sig, NOW).expect("good");
        for changed in [
            Link { path: &other, ..link },
            Link { expires: "1700000601", ..link },
            Link { expires: "01700000600", ..link },
            Link { quality: "", ..link },
            Link { quality: "high", ..link },
        ] {
            assert_eq!(refused(&secrets, changed, &sig), ErrorCode::BadSignature, "{changed:?}");
        }
        for sig in ["", "x", "====", &sig[1..], &format!("{sig}A"), &format!("{sig}=")] {
            assert_eq!(refused(&secrets, link, sig), ErrorCode::BadSignature, "{sig}");
        }
    }

    #[test]
    fn a_link_to_a_channel_is_none_to_a_file_and_the_other_way_round() {
        let (channel, user) = (ChannelId(Uuid::from_u128(7)), UserId(Uuid::from_u128(8)));
        let secrets = Secrets::new(b"your-32-chars-secret-key-here", None);
        let live = LiveLink { channel, user, expires: "1700000600" };
        // printf '\nlisten\n00000000-0000-0000-0000-000000000007\n00000000-0000-0000-0000-000000000008\n1700000600' |
        //   openssl dgst -sha256 -hmac your-32-chars-secret-key-here -binary | base64 | tr '+/' '-_' | tr -d '='
        let sig = "2_Ed7W6-cuzSMWjmAMg056lZQXbfuQFez9bX6td73DE";
        assert_eq!(secrets.sign(live), sig);
        secrets.check(live, sig, NOW).expect("good");
        Secrets::new(b"new", Some(b"your-32-chars-secret-key-here")).check(live, sig, NOW).expect("still good");
        for changed in [
            LiveLink { channel: ChannelId(Uuid::from_u128(9)), ..live },
            LiveLink { user: UserId(Uuid::from_u128(7)), ..live },
            LiveLink { expires: "1700000601", ..live },
        ] {
            assert_eq!(secrets.check(changed, sig, NOW).expect_err("refused").code, ErrorCode::BadSignature);
        }
        // Whatever path is asked for under the same signature, its text does not begin as a channel's does.
        for path in ["listen", "a.mp3", &channel.to_string()] {
            let path = FilePath::new(path).or_else(|| FilePath::new("x.ogg")).expect("a path");
            let (expires, user) = (user.to_string(), "1700000600");
            let file = Link { path: &path, expires: &expires, quality: user };
            assert!(!file.signed().starts_with('\n'));
            assert_eq!(secrets.check(file, sig, NOW).expect_err("refused").code, ErrorCode::BadSignature);
            assert_eq!(
                secrets.check(live, &secrets.sign(file), NOW).expect_err("refused").code,
                ErrorCode::BadSignature
            );
        }
        assert!(FilePath::new("").is_none() && FilePath::new("\nlisten").is_none());
    }

    #[test]
    fn links_run_out_and_last_seven_days_at_most() {
        let path = FilePath::new("a.mp3").expect("a path");
        let secrets = Secrets::new(b"one", None);
        let checked = |expires: u64| {
            let expires = expires.to_string();
            let link = Link { path: &path, expires: &expires, quality: "" };
            secrets.check(link, &secrets.sign(link), NOW).map_err(|error| error.code)
        };
        assert_eq!(checked(NOW + 1), Ok(()));
        assert_eq!(checked(NOW), Err(ErrorCode::LinkExpired));
        assert_eq!(checked(0), Err(ErrorCode::LinkExpired));
        assert_eq!(checked(NOW + TTL_MAX_S), Ok(()));
        assert_eq!(checked(NOW + TTL_MAX_S + CLOCK_TOLERANCE_S + 1), Err(ErrorCode::BadSignature));
        assert_eq!(checked(u64::MAX), Err(ErrorCode::BadSignature));
    }

    #[test]
    fn two_secrets_hold_while_one_is_replaced() {
        let path = FilePath::new("a.mp3").expect("a path");
        let link = Link { path: &path, expires: "1700000600", quality: "" };
        let old = Secrets::new(b"old", None).sign(link);
        Secrets::new(b"new", Some(b"old")).check(link, &old, NOW).expect("still good");
        assert_eq!(refused(&Secrets::new(b"new", None), link, &old), ErrorCode::BadSignature);
        assert_ne!(Secrets::derived(b"old", None).sign(link), old, "what is derived is another key");
    }
}
