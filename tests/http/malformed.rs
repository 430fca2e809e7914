//! Ten thousand bodies that cannot be right, each of which must get an answer that says so.

use antiphon::settings::Settings;
use antiphon_core::prng::Prng;
use reqwest::Method;
use serde_json::{Value, json};

use crate::{Database, client::Client, run};

const BODIES: usize = 10_000;

/// A route and a body that would be right, and would not be with a field less.
fn routes(channel: &str, user: &str) -> Vec<(Method, String, Value)> {
    let credentials = json!({"username": "mallory", "password": "correct horse"});
    let below = |path: &str| format!("/api/channels/{channel}{path}");
    vec![
        (Method::POST, "/api/auth/register".into(), credentials.clone()),
        (Method::POST, "/api/auth/login".into(), credentials),
        (Method::POST, "/api/auth/refresh".into(), json!({"refresh_token": "token"})),
        (Method::POST, "/api/auth/logout".into(), json!({"refresh_token": "token"})),
        (Method::POST, "/api/users".into(), json!({"username": "mallory"})),
        (Method::PUT, "/api/users/me".into(), json!({"display_name": "Mallory"})),
        (Method::PUT, format!("/api/users/{user}"), json!({"display_name": "Mallory"})),
        (Method::POST, "/api/channels".into(), json!({"name": "Channel"})),
        (Method::POST, below("/kick"), json!({"user_id": user})),
        (Method::POST, below("/ban"), json!({"user_id": user})),
        (Method::POST, below("/mute"), json!({"user_id": user, "muted": true})),
    ]
}

/// Something that no field takes.
fn wrong_value(random: &mut Prng) -> Value {
    match random.below(6) {
        0 => Value::Null,
        1 => json!([]),
        2 => json!({"nested": {"deeper": [1, 2, 3]}}),
        3 => json!(-1.5e300),
        4 => json!(u64::MAX),
        _ => json!([true, null, "text"]),
    }
}

/// Spoils `right` in one of many ways, none of which leaves it acceptable.
fn spoilt(right: &Value, random: &mut Prng) -> Vec<u8> {
    let fields: Vec<&String> = right.as_object().expect("a map").keys().collect();
    let field = fields[random.below(fields.len() as u64) as usize].clone();
    let text = right.to_string().into_bytes();
    match random.below(10) {
        // Cut off before its last brace.
        0 => text[..random.below(text.len() as u64) as usize].to_vec(),
        // Followed by more.
        1 => [text.as_slice(), b" x"].concat(),
        // Random bytes; the first begins no JSON.
        2 => {
            let mut bytes = vec![0; 1 + random.below(300) as usize];
            random.fill(&mut bytes);
            bytes[0] = 0xff;
            bytes
        }
        // Deeper than any parser should follow.
        3 => vec![if random.chance(0.5) { b'[' } else { b'{' }; 200 + random.below(30_000) as usize],
        // A field of the wrong type.
        4 | 5 => {
            let mut body = right.clone();
            body[&field] = wrong_value(random);
            body.to_string().into_bytes()
        }
        // A field too few.
        6 => {
            let mut body = right.clone();
            body.as_object_mut().expect("a map").remove(&field);
            body.to_string().into_bytes()
        }
        // A field twice.
        7 => {
            let twice = format!("{{\"{field}\":{0},\"{field}\":{0}}}", right[&field]);
            twice.into_bytes()
        }
        // Bytes that are no UTF-8 inside a text.
        8 => {
            let mut body = format!("{{\"{field}\":\"").into_bytes();
            body.extend([0xc3, 0x28, 0xf0, 0x9f, b'"', b'}']);
            body
        }
        // No map at all.
        _ => wrong_value(random).to_string().replace('{', "[").replace('}', "]").replace(':', ",").into_bytes(),
    }
}

#[tokio::test]
async fn ten_thousand_malformed_bodies_each_get_a_clear_answer() {
    let unlimited = |settings: &mut Settings| {
        settings.limits.http_per_minute_per_address = 0;
        settings.limits.http_per_minute_per_account = 0;
        settings.limits.logins_per_minute_per_address = 0;
    };
    run(Database::Sqlite, unlimited, async |nobody: &Client| {
        let alice = nobody.register("alice").await;
        let channel = alice.channel("General", false).await;
        let routes = routes(&channel, alice.id());
        let mut random = Prng::new(0xA17);
        let panics_before = panics(nobody).await;
        for number in 0..BODIES {
            let (method, path, right) = &routes[random.below(routes.len() as u64) as usize];
            let body = spoilt(right, &mut random);
            let request = alice.request(method.clone(), path).header("content-type", "application/json");
            let answer = alice.send(request.body(body.clone())).await;
            let shown = String::from_utf8_lossy(&body[..body.len().min(80)]).into_owned();
            assert_eq!(answer.status, 400, "{number}: {method} {path} {shown}: {}", answer.text);
            let sentence = answer.expect_error(400, "INVALID_INPUT");
            let is_clear = ["the body ", "nothing to change"].iter().any(|start| sentence.starts_with(start));
            assert!(is_clear, "{shown}: {sentence}");
        }
        assert_eq!(panics(nobody).await, panics_before);
        alice.get("/api/users/me").await.expect(200);
    })
    .await;
}

/// How often a handler has panicked.
async fn panics(client: &Client) -> String {
    let metrics = client.get("/metrics").await.text;
    let line = metrics.lines().find(|line| line.starts_with("antiphon_http_panics_total ")).expect("it is counted");
    line.to_owned()
}
