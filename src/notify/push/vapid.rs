//! Who posts to a push service: a token signed with the server's key (RFC 8292).

use std::sync::Arc;

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::json;

use crate::settings::Secret;

/// How long a token holds, in seconds; a day at most (RFC 8292, 2).
const TOKEN_LASTS_S: i64 = 12 * 3_600;

/// The key cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("notify.push_key must be a private key of P-256: PKCS #8, in base64url")]
pub struct VapidError;

/// The server's key for push services, and whom to tell of trouble. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Vapid {
    key: Arc<EcdsaKeyPair>,
    public: Arc<str>,
    contact: Option<Arc<str>>,
}

impl Vapid {
    /// With a key as [`Vapid::generate`] makes them.
    ///
    /// # Errors
    /// When it is none.
    pub(crate) fn new(key: &Secret, contact: Option<&str>) -> Result<Self, VapidError> {
        let bytes = URL_SAFE_NO_PAD.decode(key.expose().trim_end_matches('=')).map_err(|_| VapidError)?;
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &bytes).map_err(|_| VapidError)?;
        let public = URL_SAFE_NO_PAD.encode(key.public_key().as_ref());
        Ok(Self { key: Arc::new(key), public: public.into(), contact: contact.map(Into::into) })
    }

    /// A new key.
    ///
    /// # Panics
    /// When the system has no randomness to give.
    #[must_use]
    pub(crate) fn generate() -> Secret {
        let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
        Secret::new(URL_SAFE_NO_PAD.encode(key.expect("the system's random source does not fail").as_ref()))
    }

    /// The public key, for browsers: an uncompressed point in base64url.
    pub(crate) fn public_key(&self) -> &str {
        &self.public
    }

    /// What stands in `Authorization` towards the push service at `origin`, at that time in Unix seconds.
    pub(crate) fn authorization(&self, origin: &str, now_s: i64) -> String {
        let mut claims = json!({"aud": origin, "exp": now_s + TOKEN_LASTS_S});
        if let Some(contact) = &self.contact {
            claims["sub"] = json!(**contact);
        }
        let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&json!({"typ": "JWT", "alg": "ES256"})), part(&claims));
        let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes());
        let signature = signature.expect("signing with a checked key does not fail");
        format!("vapid t={signed}.{}, k={}", URL_SAFE_NO_PAD.encode(signature.as_ref()), self.public)
    }
}

impl std::fmt::Debug for Vapid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Vapid({})", self.public)
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};

    use super::*;

    #[test]
    fn a_token_is_signed_for_one_push_service_and_some_hours() {
        let vapid = Vapid::new(&Vapid::generate(), Some("mailto:admin@example.org")).expect("our own key");
        let header = vapid.authorization("https://push.example.org", 1_700_000_000);
        let (token, key) = header.strip_prefix("vapid t=").and_then(|rest| rest.split_once(", k=")).expect("its form");
        assert_eq!(key, vapid.public_key());
        let (signed, signature) = token.rsplit_once('.').expect("three parts");
        let bytes = |text: &str| URL_SAFE_NO_PAD.decode(text).expect("base64url");
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, bytes(key));
        public.verify(signed.as_bytes(), &bytes(signature)).expect("signed by it");
        public.verify(b"another", &bytes(signature)).expect_err("and nothing else");
        let claims: serde_json::Value =
            serde_json::from_slice(&bytes(signed.split_once('.').expect("two parts").1)).expect("JSON");
        assert_eq!(
            claims,
            json!({"aud": "https://push.example.org", "exp": 1_700_043_200, "sub": "mailto:admin@example.org"})
        );
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for wrong in ["", "nonsense", "AAAA"] {
            assert!(Vapid::new(&Secret::new(wrong), None).is_err(), "{wrong}");
        }
        let key = Vapid::generate();
        let (one, other) =
            (Vapid::new(&key, None).expect("a key"), Vapid::new(&Vapid::generate(), None).expect("a key"));
        assert_eq!(one.public_key(), Vapid::new(&key, None).expect("a key").public_key());
        assert_ne!(one.public_key(), other.public_key());
        assert!(!format!("{one:?}").contains(key.expose()));
    }
}
