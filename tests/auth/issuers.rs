//! Tokens of others, whom the settings name: which are believed, by which keys, and where those come from.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use antiphon::auth::{Auth, IssuerConfig};
use antiphon_core::gateway::{ErrorCode, Role};
use aws_lc_rs::{
    encoding::AsDer,
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
        RsaKeyPair,
    },
};
use axum::response::IntoResponse;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header, jwk::Jwk};
use serde_json::{Value, json};

use crate::{
    Context, code, on_both, register, run, sign,
    support::databases::{TestDatabase, at_once},
};

on_both!(
    an_issuers_keys_of_each_kind_are_accepted,
    an_issuers_tokens_must_be_its_own_and_meant_for_us,
    a_public_key_is_no_secret,
    an_issuers_keys_are_fetched_rarely_and_kept,
    an_issuer_that_cannot_be_asked_is_a_passing_thing,
);

const ISSUER: &str = "https://id.example";

/// An RSA key as the JWT library takes it: the PKCS #1 part (RFC 8017 A.1.2) behind the 26 bytes of a 2048-bit key's
/// PKCS #8 wrapping.
pub(super) fn rsa_key(keys: &RsaKeyPair) -> EncodingKey {
    let pkcs8 = keys.as_der().expect("it can be written");
    EncodingKey::from_rsa_der(&pkcs8.as_ref()[26..])
}

/// A new key pair for `algorithm`, and its public half under the name `kid`.
fn key_pair(algorithm: Algorithm, kid: &str) -> (EncodingKey, Value) {
    let ec = |kind| {
        let keys = EcdsaKeyPair::generate(kind).expect("keys");
        EncodingKey::from_ec_der(keys.to_pkcs8v1().expect("it can be written").as_ref())
    };
    let key = match algorithm {
        Algorithm::ES256 => ec(&ECDSA_P256_SHA256_FIXED_SIGNING),
        Algorithm::ES384 => ec(&ECDSA_P384_SHA384_FIXED_SIGNING),
        Algorithm::EdDSA => {
            let keys = Ed25519KeyPair::generate().expect("keys");
            EncodingKey::from_ed_der(keys.to_pkcs8v1().expect("it can be written").as_ref())
        }
        _ => rsa_key(&RsaKeyPair::generate(KeySize::Rsa2048).expect("keys")),
    };
    let mut jwk = Jwk::from_encoding_key(&key, algorithm).expect("a public half");
    jwk.common.key_id = Some(kid.to_owned());
    (key, serde_json::to_value(jwk).expect("JSON"))
}

fn named(algorithm: Algorithm, kid: &str) -> Header {
    Header { kid: Some(kid.to_owned()), ..Header::new(algorithm) }
}

impl Context {
    /// Accepts the tokens of [`ISSUER`], whose keys are at `jwks`, meant for us.
    fn auth_with_issuer(&self, jwks: &str) -> Auth {
        self.auth(|config| {
            config.issuer = Some(IssuerConfig {
                issuer: ISSUER.to_owned(),
                audience: Some("antiphon".to_owned()),
                jwks: jwks.to_owned(),
            });
        })
    }

    fn key_file(&self, keys: &[Value]) -> String {
        let path = self.dir.join("keys.json");
        std::fs::write(&path, json!({ "keys": keys }).to_string()).expect("our folder");
        path.to_string_lossy().into_owned()
    }

    fn issued(&self, subject: &str) -> Value {
        json!({ "iss": ISSUER, "aud": "antiphon", "sub": subject, "name": subject, "exp": self.now_s() + 60 })
    }
}

async fn an_issuers_keys_of_each_kind_are_accepted(context: Context) {
    let kinds =
        [Algorithm::RS256, Algorithm::RS512, Algorithm::PS256, Algorithm::ES256, Algorithm::ES384, Algorithm::EdDSA];
    let pairs: Vec<_> = kinds.iter().map(|kind| key_pair(*kind, &format!("{kind:?}"))).collect();
    let set: Vec<_> = pairs.iter().map(|(_, public)| public.clone()).collect();
    let auth = context.auth_with_issuer(&context.key_file(&set));
    for (kind, (key, _)) in kinds.iter().zip(&pairs) {
        let subject = format!("{kind:?}");
        let identity = auth.authenticate(&sign(&named(*kind, &subject), &context.issued(&subject), key)).await;
        let identity = identity.unwrap_or_else(|error| panic!("{kind:?}: {error}"));
        assert_eq!((identity.user.username.as_str(), identity.user.role), (subject.as_str(), Role::User));
        let nameless = sign(&Header::new(*kind), &context.issued(&subject), key);
        assert_eq!(auth.authenticate(&nameless).await.expect("the key is found without its name").user, identity.user);
        let crossed = sign(&named(*kind, "another"), &context.issued(&subject), key);
        assert_eq!(code(auth.authenticate(&crossed).await), ErrorCode::Unauthenticated);
    }
    let ours = register(&auth, "Anna").await;
    auth.authenticate(&ours.access_token).await.expect("our own tokens go on");
}

async fn an_issuers_tokens_must_be_its_own_and_meant_for_us(context: Context) {
    let (key, public) = key_pair(Algorithm::ES256, "a");
    let (stranger, _) = key_pair(Algorithm::ES256, "a");
    let auth = context.auth_with_issuer(&context.key_file(&[public]));
    let try_with = async |key: &EncodingKey, change: Value| {
        let mut claims = context.issued("Anna");
        claims.as_object_mut().expect("claims").extend(change.as_object().expect("claims").clone());
        auth.authenticate(&sign(&named(Algorithm::ES256, "a"), &claims, key)).await
    };
    let anna = try_with(&key, json!({})).await.expect("good").user;
    assert_eq!(try_with(&key, json!({ "aud": ["other", "antiphon"], "name": "New" })).await.expect("good").user, anna);
    assert_eq!(try_with(&key, json!({ "role": "admin" })).await.expect("good").user.role, Role::User);
    let newcomer = json!({ "role": "admin", "sub": "b", "name": null, "preferred_username": "berta" });
    let berta = try_with(&key, newcomer).await.expect("good").user;
    assert_eq!((berta.username.as_str(), berta.role), ("berta", Role::User), "its word on roles does not count here");
    for (what, change) in [
        ("another issuer", json!({ "iss": "https://id.example.evil" })),
        ("no issuer", json!({ "iss": null })),
        ("meant for another", json!({ "aud": "other" })),
        ("meant for nobody", json!({ "aud": null })),
        ("over", json!({ "exp": context.now_s() })),
        ("no end", json!({ "exp": null })),
        ("not yet", json!({ "nbf": context.now_s() + 1 })),
    ] {
        assert_eq!(code(try_with(&key, change).await), ErrorCode::Unauthenticated, "{what}");
    }
    assert_eq!(code(try_with(&stranger, json!({})).await), ErrorCode::Unauthenticated, "not its key");
    let with_our_id = json!({ "sub": register(&auth, "Clara").await.user.id });
    let other = try_with(&key, with_our_id.clone()).await.expect("good").user;
    assert_ne!(json!(other.id), with_our_id["sub"], "an issuer's subject is never one of our ids");
}

/// The public half of a key is known to all: signed with it as if it were a secret, a token must not count.
async fn a_public_key_is_no_secret(context: Context) {
    let keys = RsaKeyPair::generate(KeySize::Rsa2048).expect("keys");
    let public = keys.public_key().as_ref().to_vec();
    let mut jwk = Jwk::from_encoding_key(&rsa_key(&keys), Algorithm::RS256).expect("a public half");
    jwk.common.key_id = Some("a".to_owned());
    let jwk = serde_json::to_value(jwk).expect("JSON");
    let symmetric = json!({ "kty": "oct", "kid": "b", "k": URL_SAFE_NO_PAD.encode(b"secret"), "alg": "HS256" });
    let auth = context.auth_with_issuer(&context.key_file(&[jwk.clone(), symmetric]));
    let text = jwk["n"].as_str().expect("a modulus").as_bytes().to_vec();
    for secret in [public, text, b"secret".to_vec()] {
        for kid in ["a", "b"] {
            let key = EncodingKey::from_secret(&secret);
            let token = sign(&named(Algorithm::HS256, kid), &context.issued("Anna"), &key);
            assert_eq!(code(auth.authenticate(&token).await), ErrorCode::Unauthenticated);
        }
    }
}

/// Answers each request with what `answer` makes, and counts them.
async fn serve<A: IntoResponse>(answer: impl Fn() -> A + Clone + Send + Sync + 'static) -> (String, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let handler = move || {
        counted.fetch_add(1, Ordering::Relaxed);
        let answer = answer().into_response();
        async { answer }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}/keys", listener.local_addr().expect("bound"));
    let app = axum::Router::new().route("/keys", axum::routing::get(handler));
    tokio::spawn(async move { axum::serve(listener, app).await });
    (url, count)
}

async fn an_issuers_keys_are_fetched_rarely_and_kept(context: Context) {
    let (key, public) = key_pair(Algorithm::EdDSA, "a");
    let body = json!({ "keys": [public] }).to_string();
    let (url, fetched) = serve(move || body.clone()).await;
    let auth = context.auth_with_issuer(&url);
    let good = sign(&named(Algorithm::EdDSA, "a"), &context.issued("Anna"), &key);
    let results = at_once(20, |_| {
        let (auth, good) = (auth.clone(), good.clone());
        async move { auth.authenticate(&good).await }
    });
    assert!(results.await.iter().all(Result::is_ok));
    assert_eq!(fetched.load(Ordering::Relaxed), 1, "one fetches, the others wait for it");
    for index in 0..20 {
        let made_up = sign(&named(Algorithm::EdDSA, &format!("made up {index}")), &context.issued("Anna"), &key);
        assert_eq!(code(auth.authenticate(&made_up).await), ErrorCode::Unauthenticated);
    }
    assert_eq!(fetched.load(Ordering::Relaxed), 1, "made-up names bring about no flood");
    auth.authenticate(&good).await.expect("and the known key goes on");
}

async fn an_issuer_that_cannot_be_asked_is_a_passing_thing(context: Context) {
    let (key, public) = key_pair(Algorithm::EdDSA, "a");
    let token = sign(&named(Algorithm::EdDSA, "a"), &context.issued("Anna"), &key);
    let set = json!({ "keys": [public] });
    let large = json!({ "keys": set["keys"], "padding": "x".repeat(300_000) }).to_string();
    let (good, _) = serve(move || set.to_string()).await;
    let (too_large, _) = serve(move || large.clone()).await;
    let (moved, _) = serve(move || axum::response::Redirect::temporary(&good)).await;
    let (broken, _) = serve(|| axum::http::StatusCode::INTERNAL_SERVER_ERROR).await;
    let (nonsense, _) = serve(|| "<html>").await;
    let missing = Path::new(&context.dir).join("missing.json").to_string_lossy().into_owned();
    for jwks in [too_large, moved, broken, nonsense, missing, "http://127.0.0.1:1/keys".to_owned()] {
        let auth = context.auth_with_issuer(&jwks);
        let error = auth.authenticate(&token).await.expect_err("no keys");
        assert_eq!(error.code, ErrorCode::TemporarilyUnavailable, "{jwks}");
        assert!(error.retry_after_s.is_some());
    }
    assert_eq!(context.store.users_count().await, Ok(0));
}
