//! Which tokens open the door.

use antiphon::settings::{Secret, Settings};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use crate::{Database, client::Client, run};

const SECRET: &str = "a secret that only this test knows, 32+ bytes";
const PREVIOUS: &str = "the secret before that one, also 32+ bytes long";

fn with_secrets(settings: &mut Settings) {
    settings.auth.jwt_secret = Some(Secret::new(SECRET));
    settings.auth.jwt_secret_previous = Some(Secret::new(PREVIOUS));
}

fn signed(algorithm: Algorithm, secret: &str, claims: &Value) -> String {
    encode(&Header::new(algorithm), claims, &EncodingKey::from_secret(secret.as_bytes())).expect("signs")
}

/// Seconds since 1970, `offset` from now.
fn moment(offset: i64) -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    i64::try_from(now.as_secs()).expect("fits") + offset
}

fn claims(user: &Client, expires_in_s: i64) -> Value {
    json!({"sub": user.id(), "name": "alice", "role": "user", "iat": moment(-10), "exp": moment(expires_in_s)})
}

#[tokio::test]
async fn only_our_own_unexpired_tokens_are_taken() {
    run(Database::Sqlite, with_secrets, async |nobody: &Client| {
        let alice = nobody.register("alice").await;
        let good = claims(&alice, 60);
        let mut without_expiry = good.clone();
        without_expiry.as_object_mut().expect("a map").remove("exp");
        let unsigned = format!(
            "{}.{}.",
            URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"JWT"}"#),
            URL_SAFE_NO_PAD.encode(good.to_string())
        );
        let genuine = signed(Algorithm::HS256, SECRET, &good);
        for accepted in [&genuine, &signed(Algorithm::HS256, PREVIOUS, &good)] {
            nobody.with_token(Some(accepted)).get("/api/users/me").await.expect(200);
        }
        let mut damaged = genuine.clone();
        damaged.truncate(genuine.len() - 4);
        for (why, token) in [
            ("another secret", signed(Algorithm::HS256, "somebody else's secret of enough bytes", &good)),
            ("another algorithm", signed(Algorithm::HS512, SECRET, &good)),
            ("no signature", unsigned),
            ("run out", signed(Algorithm::HS256, SECRET, &claims(&alice, -120))),
            ("no expiry", signed(Algorithm::HS256, SECRET, &without_expiry)),
            ("cut off", damaged),
            ("a refresh token", "iZ3k2nq9".repeat(5)),
            ("words", "let me in".to_owned()),
            ("dots", "..".to_owned()),
            ("long", "x".repeat(8_000)),
        ] {
            let answer = nobody.with_token(Some(&token)).get("/api/users/me").await;
            let sentence = answer.expect_error(401, "UNAUTHENTICATED");
            assert_eq!(answer.header("www-authenticate"), "Bearer", "{why}");
            assert!(!sentence.contains(&token), "{why}: the token is not repeated");
        }
    })
    .await;
}

#[tokio::test]
async fn every_route_that_needs_a_token_refuses_without_one() {
    run(Database::Sqlite, with_secrets, async |nobody: &Client| {
        let document = nobody.get("/api/openapi.json").await.json();
        let mut refused = 0;
        for (path, operations) in document["paths"].as_object().expect("paths") {
            for (method, operation) in operations.as_object().expect("operations") {
                if operation.get("security").is_some() {
                    continue; // Open, or with a token only for more.
                }
                let path = path
                    .replace("{id}", "00000000-0000-7000-8000-000000000000")
                    .replace("{user}", "00000000-0000-7000-8000-000000000000")
                    .replace("{code}", "code");
                let method = method.to_uppercase().parse().expect("a method");
                let answer = nobody.send(nobody.request(method, &path).json(&json!({}))).await;
                answer.expect_error(401, "UNAUTHENTICATED");
                refused += 1;
            }
        }
        assert!(refused >= 17, "{refused}");
    })
    .await;
}

#[tokio::test]
async fn an_authorization_that_is_no_bearer_token_is_refused_also_where_none_is_needed() {
    run(Database::Sqlite, with_secrets, async |nobody: &Client| {
        for value in ["Basic YTpi", "Bearer", "Bearer "] {
            let request = nobody.request(reqwest::Method::GET, "/api/channels").header("authorization", value);
            nobody.send(request).await.expect_error(401, "UNAUTHENTICATED");
        }
    })
    .await;
}
