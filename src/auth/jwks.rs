//! The public keys of an external issuer: a JWK set (RFC 7517) in a file or behind a URL.
//!
//! Kept for an hour; read again early when a token names a key that is not among them, since issuers announce new keys
//! that way, but not more than every ten seconds, since anyone can make up names. Only asymmetric algorithms are taken
//! from here.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse},
};
use parking_lot::RwLock;
use tokio::sync::Mutex;

use crate::http_client::http_client;

/// The longest JWK set that is read, in bytes.
const SET_BYTES_MAX: usize = 256 * 1024;
/// The most keys that are kept of a set.
const KEYS_MAX: usize = 64;

/// How long keys are used, read again and waited for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ages {
    /// From this age on keys are read again.
    pub(super) fresh: Duration,
    /// From this age on keys are not used any more, when they cannot be read again.
    pub(super) usable: Duration,
    /// The shortest time between two readings.
    pub(super) between: Duration,
}

impl Default for Ages {
    fn default() -> Self {
        Self { fresh: Duration::from_secs(3600), usable: Duration::from_secs(86_400), between: Duration::from_secs(10) }
    }
}

/// Where a JWK set is.
#[derive(Clone, Debug)]
pub(super) enum Source {
    File(PathBuf),
    Url(String, reqwest::Client),
}

impl Source {
    /// An `http(s)` URL, or else a file's path.
    pub(super) fn new(text: &str) -> Result<Self, reqwest::Error> {
        if !text.starts_with("http://") && !text.starts_with("https://") {
            return Ok(Self::File(text.into()));
        }
        Ok(Self::Url(text.to_owned(), http_client()?))
    }

    async fn read(&self) -> Result<Vec<u8>, String> {
        match self {
            Self::File(path) => {
                let length = tokio::fs::metadata(path).await.map_err(|error| error.to_string())?.len();
                if length > SET_BYTES_MAX as u64 {
                    return Err(format!("it is longer than {SET_BYTES_MAX} bytes"));
                }
                tokio::fs::read(path).await.map_err(|error| error.to_string())
            }
            Self::Url(url, client) => {
                let say = |error: reqwest::Error| error.without_url().to_string();
                let mut response = client.get(url).send().await.map_err(say)?.error_for_status().map_err(say)?;
                if response.status().is_redirection() {
                    return Err("it is a redirection; name the address itself".to_owned());
                }
                let mut body = Vec::new();
                while let Some(chunk) = response.chunk().await.map_err(say)? {
                    if body.len() + chunk.len() > SET_BYTES_MAX {
                        return Err(format!("it is longer than {SET_BYTES_MAX} bytes"));
                    }
                    body.extend_from_slice(&chunk);
                }
                Ok(body)
            }
        }
    }
}

/// A key that may check signatures, with the algorithms it is good for.
pub(super) struct PublicKey {
    kid: Option<String>,
    algorithms: Vec<Algorithm>,
    pub(super) key: DecodingKey,
}

impl PublicKey {
    fn new(jwk: &Jwk) -> Option<Self> {
        if jwk.common.public_key_use.as_ref().is_some_and(|intended| *intended != PublicKeyUse::Signature) {
            return None;
        }
        let mut algorithms = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => vec![
                Algorithm::RS256,
                Algorithm::RS384,
                Algorithm::RS512,
                Algorithm::PS256,
                Algorithm::PS384,
                Algorithm::PS512,
            ],
            AlgorithmParameters::EllipticCurve(key) => match key.curve {
                EllipticCurve::P256 => vec![Algorithm::ES256],
                EllipticCurve::P384 => vec![Algorithm::ES384],
                _ => return None,
            },
            AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => vec![Algorithm::EdDSA],
            _ => return None,
        };
        if let Some(named) = jwk.common.key_algorithm {
            let named = Algorithm::try_from(named).ok()?;
            algorithms.retain(|algorithm| *algorithm == named);
        }
        let key = DecodingKey::from_jwk(jwk).ok().filter(|_| !algorithms.is_empty())?;
        Some(Self { kid: jwk.common.key_id.clone(), algorithms, key })
    }

    fn may_check(&self, kid: Option<&str>, algorithm: Algorithm) -> bool {
        self.algorithms.contains(&algorithm) && (kid.is_none() || self.kid.as_deref() == kid)
    }
}

/// The usable keys of a set; those of kinds we don't know are passed over.
fn parse(text: &[u8]) -> Result<Vec<PublicKey>, String> {
    #[derive(serde::Deserialize)]
    struct Set {
        keys: Vec<serde_json::Value>,
    }
    let set: Set = serde_json::from_slice(text).map_err(|error| format!("it is no JWK set: {error}"))?;
    let jwks = set.keys.into_iter().filter_map(|value| serde_json::from_value::<Jwk>(value).ok());
    let keys: Vec<_> = jwks.filter_map(|jwk| PublicKey::new(&jwk)).take(KEYS_MAX).collect();
    if keys.is_empty() { Err("it has no key that could check a signature".to_owned()) } else { Ok(keys) }
}

struct KeySet {
    keys: Vec<PublicKey>,
    read_at: Instant,
}

/// No keys can be had now.
#[derive(Debug)]
pub(super) struct Unavailable;

/// An issuer's keys, kept and renewed.
pub(super) struct Jwks {
    source: Source,
    ages: Ages,
    set: RwLock<Option<Arc<KeySet>>>,
    /// When reading was last tried. Held while reading, so that one reads and the others wait for it.
    tried_at: Mutex<Option<Instant>>,
}

impl Jwks {
    pub(super) fn new(source: Source, ages: Ages) -> Self {
        Self { source, ages, set: RwLock::new(None), tried_at: Mutex::new(None) }
    }

    /// Tries the keys that may have signed a token with this header, until `check` gives something else than `None`.
    pub(super) async fn try_keys<T>(
        &self,
        kid: Option<&str>,
        algorithm: Algorithm,
        check: impl Fn(&PublicKey) -> Option<T>,
    ) -> Result<Option<T>, Unavailable> {
        let find = |set: &KeySet| set.keys.iter().filter(|key| key.may_check(kid, algorithm)).find_map(&check);
        let known = |set: &KeySet| set.keys.iter().any(|key| key.may_check(kid, algorithm));
        let before = self.set.read().clone();
        if let Some(set) = before.as_ref().filter(|set| set.read_at.elapsed() < self.ages.fresh && known(set)) {
            return Ok(find(set));
        }
        self.read_again(before.as_ref()).await;
        let after = self.set.read().clone().filter(|set| set.read_at.elapsed() < self.ages.usable);
        after.map(|set| find(&set)).ok_or(Unavailable)
    }

    /// Reads the set, unless somebody did since `before` was seen, or it was tried a moment ago.
    async fn read_again(&self, before: Option<&Arc<KeySet>>) {
        let mut tried_at = self.tried_at.lock().await;
        let is_renewed = match (before, self.set.read().as_ref()) {
            (Some(before), Some(now)) => !Arc::ptr_eq(before, now),
            (None, now) => now.is_some(),
            (Some(_), None) => false,
        };
        if is_renewed || tried_at.is_some_and(|tried_at| tried_at.elapsed() < self.ages.between) {
            return;
        }
        *tried_at = Some(Instant::now());
        match self.source.read().await.and_then(|text| parse(&text)) {
            Ok(keys) => {
                tracing::info!(keys = keys.len(), "read the external issuer's keys");
                *self.set.write() = Some(Arc::new(KeySet { keys, read_at: Instant::now() }));
            }
            Err(error) => tracing::warn!(%error, "cannot read the external issuer's keys (auth.issuer_jwks)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_keys_that_check_signatures_are_taken() {
        let set = serde_json::json!({ "keys": [
            { "kty": "oct", "kid": "a", "k": "c2VjcmV0", "alg": "HS256" },
            { "kty": "RSA", "kid": "b", "use": "enc", "n": "AQAB", "e": "AQAB" },
            { "kty": "RSA", "kid": "c", "alg": "RSA-OAEP", "n": "AQAB", "e": "AQAB" },
            { "kty": "RSA", "kid": "d", "alg": "ES256", "n": "AQAB", "e": "AQAB" },
            { "kty": "EC", "kid": "e", "crv": "P-521", "x": "AQAB", "y": "AQAB" },
            { "kty": "new", "kid": "f" },
            "nonsense",
            { "kty": "RSA", "kid": "g", "n": "AQAB", "e": "AQAB", "alg": "PS256" },
            { "kty": "OKP", "kid": "h", "crv": "Ed25519", "x": "AQAB" },
        ]});
        let keys = parse(set.to_string().as_bytes()).expect("some are usable");
        let named: Vec<_> = keys.iter().map(|key| (key.kid.as_deref(), key.algorithms.as_slice())).collect();
        assert_eq!(named, [(Some("g"), [Algorithm::PS256].as_slice()), (Some("h"), [Algorithm::EdDSA].as_slice())]);
        assert!(parse(br#"{"keys":[]}"#).is_err());
        assert!(parse(b"<html>").is_err());
    }

    #[test]
    fn a_named_key_checks_only_tokens_that_name_it() {
        let set = serde_json::json!({ "keys": [{ "kty": "OKP", "kid": "h", "crv": "Ed25519", "x": "AQAB" }] });
        let keys = parse(set.to_string().as_bytes()).expect("usable");
        assert!(keys[0].may_check(Some("h"), Algorithm::EdDSA));
        assert!(keys[0].may_check(None, Algorithm::EdDSA), "a token may leave the name out");
        assert!(!keys[0].may_check(Some("i"), Algorithm::EdDSA));
        assert!(!keys[0].may_check(Some("h"), Algorithm::RS256));
    }

    #[tokio::test]
    async fn made_up_key_names_do_not_make_it_read_again_and_again() {
        let dir = std::env::temp_dir().join(format!("antiphon-jwks-{}", uuid::Uuid::now_v7()));
        let set = |kid: &str| {
            serde_json::json!({ "keys": [{ "kty": "OKP", "kid": kid, "crv": "Ed25519", "x": "AQAB" }] }).to_string()
        };
        let has = async |jwks: &Jwks, kid: &str| {
            jwks.try_keys(Some(kid), Algorithm::EdDSA, |_| Some(())).await.expect("keys are there").is_some()
        };
        std::fs::write(&dir, set("one")).expect("writable");
        let jwks = Jwks::new(Source::new(&dir.to_string_lossy()).expect("a file"), Ages::default());
        assert!(has(&jwks, "one").await);
        std::fs::write(&dir, set("two")).expect("writable");
        assert!(!has(&jwks, "two").await, "it was read a moment ago");
        assert!(has(&jwks, "one").await);

        let eager = Ages { between: Duration::ZERO, ..Ages::default() };
        let jwks = Jwks::new(Source::new(&dir.to_string_lossy()).expect("a file"), eager);
        assert!(has(&jwks, "two").await);
        std::fs::write(&dir, set("three")).expect("writable");
        assert!(has(&jwks, "three").await, "a new key's name makes it read again");
        std::fs::remove_file(&dir).expect("was there");
        assert!(!has(&jwks, "four").await);
        assert!(has(&jwks, "three").await, "while it cannot be read, what was read last counts");

        let strict = Ages { fresh: Duration::ZERO, usable: Duration::ZERO, between: Duration::ZERO };
        let jwks = Jwks::new(Source::new(&dir.to_string_lossy()).expect("a file"), strict);
        assert!(jwks.try_keys(None, Algorithm::EdDSA, |_| Some(())).await.is_err());
    }
}
