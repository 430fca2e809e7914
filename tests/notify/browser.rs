//! A browser that is subscribed, and its push service: what comes is checked as RFC 8292 says and decrypted as RFC 8291 does.

use aws_lc_rs::{
    aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    agreement::{ECDH_P256, PrivateKey, UnparsedPublicKey, agree},
    hkdf::{HKDF_SHA256, KeyType, Salt},
    signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey as VerifyingKey},
};
use axum::http::HeaderMap;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

/// A browser's side of a subscription.
pub(crate) struct Browser {
    key: PrivateKey,
    public: Vec<u8>,
    auth: [u8; 16],
    /// The key that it subscribed with.
    server_key: String,
}

impl Browser {
    pub(crate) fn new(server_key: &str) -> Self {
        let key = PrivateKey::generate(&ECDH_P256).expect("a key");
        let public = key.compute_public_key().expect("a point").as_ref().to_vec();
        Self { key, public, auth: *uuid::Uuid::new_v4().as_bytes(), server_key: server_key.to_owned() }
    }

    /// As `PushSubscription.toJSON()` gives it.
    pub(crate) fn subscription(&self, endpoint: &str) -> Value {
        let (p256dh, auth) = (URL_SAFE_NO_PAD.encode(&self.public), URL_SAFE_NO_PAD.encode(self.auth));
        json!({"endpoint": endpoint, "expirationTime": null, "keys": {"p256dh": p256dh, "auth": auth}})
    }

    /// What is said in a message that its push service got at `origin`; `None` when the service would refuse it.
    pub(crate) fn open(&self, origin: &str, headers: &HeaderMap, body: &[u8]) -> Option<Value> {
        self.check_sender(origin, headers)?;
        let text = |name: &str| headers.get(name)?.to_str().ok();
        (text("content-encoding")? == "aes128gcm" && text("ttl")?.parse::<u32>().is_ok()).then_some(())?;
        serde_json::from_slice(&self.decrypt(body)?).ok()
    }

    /// RFC 8292.
    fn check_sender(&self, origin: &str, headers: &HeaderMap) -> Option<()> {
        let authorization = headers.get("authorization")?.to_str().ok()?.strip_prefix("vapid t=")?;
        let (token, key) = authorization.split_once(", k=")?;
        (key == self.server_key).then_some(())?;
        let (signed, signature) = token.rsplit_once('.')?;
        let bytes = |text: &str| URL_SAFE_NO_PAD.decode(text).ok();
        let key = VerifyingKey::new(&ECDSA_P256_SHA256_FIXED, bytes(key)?);
        key.verify(signed.as_bytes(), &bytes(signature)?).ok()?;
        let (head, claims) = signed.split_once('.')?;
        let [head, claims] = [head, claims].map(|part| bytes(part).and_then(|part| serde_json::from_slice(&part).ok()));
        let (head, claims): (Value, Value) = (head?, claims?);
        let lasts_s = claims["exp"].as_i64()? - time::OffsetDateTime::now_utc().unix_timestamp();
        (head["alg"] == "ES256" && claims["aud"] == origin && (1..=86_400).contains(&lasts_s)).then_some(())
    }

    /// RFC 8291, 3.4, from the receiver's side.
    fn decrypt(&self, body: &[u8]) -> Option<Vec<u8>> {
        let (salt, rest) = body.split_at_checked(16)?;
        let (record_size, rest) = rest.split_at_checked(4)?;
        let (length, rest) = rest.split_first()?;
        let (sender, record) = rest.split_at_checked((*length).into())?;
        let record_size = u32::from_be_bytes(record_size.try_into().ok()?);
        (record.len() <= usize::try_from(record_size).ok()?).then_some(())?;
        let peer = UnparsedPublicKey::new(&ECDH_P256, sender);
        let secret = agree(&self.key, peer, (), |secret| Ok(secret.to_vec())).ok()?;
        let info = [&b"WebPush: info\0"[..], &self.public, sender].concat();
        let input = derive(&self.auth, &secret, &info, 32);
        let key = UnboundKey::new(&AES_128_GCM, &derive(salt, &input, b"Content-Encoding: aes128gcm\0", 16)).ok()?;
        let nonce = derive(salt, &input, b"Content-Encoding: nonce\0", 12);
        let mut record = record.to_vec();
        let nonce = Nonce::try_assume_unique_for_key(&nonce).ok()?;
        let plain = LessSafeKey::new(key).open_in_place(nonce, Aad::empty(), &mut record).ok()?;
        // The last record ends with 2 and any number of zeros.
        let end = plain.iter().rposition(|byte| *byte != 0)?;
        (plain[end] == 2).then(|| plain[..end].to_vec())
    }
}

struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

fn derive(salt: &[u8], input: &[u8], info: &[u8], length: usize) -> Vec<u8> {
    let mut output = vec![0; length];
    let key = Salt::new(HKDF_SHA256, salt).extract(input);
    key.expand(&[info], Length(length)).expect("short").fill(&mut output).expect("as long");
    output
}
