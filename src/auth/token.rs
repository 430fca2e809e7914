//! Access tokens: JSON Web Tokens (RFC 7519) signed with HMAC-SHA-256 and a secret of ours.
//!
//! Pure: the time is a parameter.

use antiphon_core::{gateway::Role, ids::UserId};
use aws_lc_rs::digest;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::settings::Secret;

/// The longest token that is looked at, in bytes.
pub(super) const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// Why a token is not accepted. The text is for whoever holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum TokenError {
    #[error("this is no token that this server accepts")]
    Malformed,
    #[error("the token is signed in a way that this server does not accept")]
    Algorithm,
    #[error("the token is not signed by anyone this server trusts")]
    Signature,
    #[error("the token has expired")]
    Expired,
    #[error("the token is not valid yet")]
    NotYet,
    #[error("the token is not meant for this server")]
    Audience,
}

/// What a token says, signature checked.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Claims {
    /// Whom it is about.
    pub(super) sub: String,
    /// What they are called.
    pub(super) name: Option<String>,
    /// What external issuers call them for logging in.
    pub(super) preferred_username: Option<String>,
    /// What the maker of the token says they may do.
    pub(super) role: Option<String>,
    iss: Option<String>,
    #[serde(default)]
    aud: Audience,
    exp: serde_json::Number,
    nbf: Option<serde_json::Number>,
}

/// `aud` is one text or a list of them (RFC 7519 4.1.3).
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
    #[default]
    None,
}

impl Claims {
    /// When the token expires, in Unix seconds.
    pub(super) fn expires_at_s(&self) -> u64 {
        whole_seconds(&self.exp)
    }

    /// Checks what it says of time.
    pub(super) fn check_times(&self, now: OffsetDateTime) -> Result<(), TokenError> {
        let now_s = u64::try_from(now.unix_timestamp()).unwrap_or(0);
        if self.expires_at_s() <= now_s {
            return Err(TokenError::Expired);
        }
        if self.nbf.as_ref().is_some_and(|moment| whole_seconds(moment) > now_s) {
            return Err(TokenError::NotYet);
        }
        Ok(())
    }

    /// Checks who made it and, when asked for, whom it is for.
    pub(super) fn check_parties(&self, issuer: &str, audience: Option<&str>) -> Result<(), TokenError> {
        if self.iss.as_deref() != Some(issuer) {
            return Err(TokenError::Signature);
        }
        let Some(audience) = audience else { return Ok(()) };
        let named = match &self.aud {
            Audience::One(one) => one == audience,
            Audience::Many(many) => many.iter().any(|one| one == audience),
            Audience::None => false,
        };
        if named { Ok(()) } else { Err(TokenError::Audience) }
    }
}

/// A NumericDate, which may have a fraction (RFC 7519 2); what is no time at all is long past.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "casts of floats saturate")]
fn whole_seconds(number: &serde_json::Number) -> u64 {
    number.as_u64().unwrap_or_else(|| number.as_f64().unwrap_or(0.0) as u64)
}

/// Checks the signature of `token` with `key` and nothing else.
pub(super) fn verify(token: &str, key: &DecodingKey, algorithm: Algorithm) -> Result<Claims, TokenError> {
    let mut validation = Validation::new(algorithm);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    jsonwebtoken::decode(token, key, &validation).map(|data| data.claims).map_err(|error| {
        use jsonwebtoken::errors::ErrorKind;
        match error.kind() {
            ErrorKind::InvalidSignature => TokenError::Signature,
            ErrorKind::InvalidAlgorithm => TokenError::Algorithm,
            _ => TokenError::Malformed,
        }
    })
}

/// The header of `token`: its algorithm must be one that exists, and nothing in it may be critical (RFC 7515 4.1.11).
pub(super) fn header(token: &str) -> Result<Header, TokenError> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(TokenError::Malformed);
    }
    let header = jsonwebtoken::decode_header(token).map_err(|_| TokenError::Malformed)?;
    if header.crit.is_some() { Err(TokenError::Malformed) } else { Ok(header) }
}

/// A secret that tokens are signed with, and its name in their headers.
struct Key {
    kid: String,
    encoding: EncodingKey,
    decoding: DecodingKey,
}

impl Key {
    fn new(secret: &Secret) -> Self {
        let bytes = secret.expose().as_bytes();
        Self {
            kid: key_id(bytes),
            encoding: EncodingKey::from_secret(bytes),
            decoding: DecodingKey::from_secret(bytes),
        }
    }
}

/// A name for a secret that is the same on every node and says nothing of the secret.
fn key_id(secret: &[u8]) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(b"antiphon token key\0");
    context.update(secret);
    URL_SAFE_NO_PAD.encode(&context.finish().as_ref()[..9])
}

/// The secret in force and, while it is new, the one before.
pub(super) struct Keys {
    current: Key,
    previous: Option<Key>,
}

/// A token signed with one of our secrets.
#[derive(Debug)]
pub(super) struct Verified {
    pub(super) claims: Claims,
    /// Whether this server made it, rather than someone else with the same secret.
    pub(super) is_ours: bool,
}

#[derive(Serialize)]
struct OwnClaims<'a> {
    sub: UserId,
    name: &'a str,
    role: Role,
    iat: i64,
    exp: i64,
}

impl Keys {
    pub(super) fn new(current: &Secret, previous: Option<&Secret>) -> Self {
        Self { current: Key::new(current), previous: previous.map(Key::new) }
    }

    /// Makes a token.
    pub(super) fn sign(
        &self,
        user: UserId,
        name: &str,
        role: Role,
        now: OffsetDateTime,
        lifetime: time::Duration,
    ) -> Result<String, jsonwebtoken::errors::Error> {
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some(self.current.kid.clone());
        let exp = (now + lifetime).unix_timestamp();
        let claims = OwnClaims { sub: user, name, role, iat: now.unix_timestamp(), exp };
        jsonwebtoken::encode(&header, &claims, &self.current.encoding)
    }

    /// Checks signature and times of a token with the header `header`.
    pub(super) fn verify(&self, token: &str, header: &Header, now: OffsetDateTime) -> Result<Verified, TokenError> {
        if header.alg != Algorithm::HS256 {
            return Err(TokenError::Algorithm);
        }
        let keys = std::iter::once(&self.current).chain(&self.previous);
        let named = keys.clone().find(|key| header.kid.as_deref() == Some(key.kid.as_str()));
        let claims = match named {
            Some(key) => verify(token, &key.decoding, Algorithm::HS256)?,
            None => keys
                .map(|key| verify(token, &key.decoding, Algorithm::HS256))
                .find(|outcome| {
                    *outcome.as_ref().map_or_else(|error| error, |_| &TokenError::Malformed) != TokenError::Signature
                })
                .unwrap_or(Err(TokenError::Signature))?,
        };
        claims.check_times(now)?;
        Ok(Verified { claims, is_ours: named.is_some() })
    }
}
