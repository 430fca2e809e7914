//! Rate limits, each by what it counts.

use antiphon::settings::Settings;
use reqwest::Method;
use serde_json::json;

use crate::{
    Database,
    client::{Client, PASSWORD},
    run,
};

#[tokio::test]
async fn an_address_has_so_many_requests_a_minute() {
    let few = |settings: &mut Settings| settings.limits.http_per_minute_per_address = 5;
    run(Database::Sqlite, few, async |nobody: &Client| {
        for _ in 0..5 {
            nobody.get("/api/channels").await.expect(200);
        }
        let refused = nobody.get("/nothing").await;
        let sentence = refused.expect_error(429, "RATE_LIMITED");
        assert!(sentence.contains("at most 5 a minute"), "{sentence}");
        assert!((1..=60).contains(&refused.header("retry-after").parse::<u32>().expect("seconds")));
        // Load balancers and collectors are answered all the same.
        for path in ["/health", "/health/ready", "/metrics"] {
            assert_eq!(nobody.get(path).await.status, 200, "{path}");
        }
        // Whose address that is, nobody else may say.
        let spoofed = nobody.request(Method::GET, "/api/channels").header("x-forwarded-for", "203.0.113.7");
        nobody.send(spoofed).await.expect_error(429, "RATE_LIMITED");
    })
    .await;
}

#[tokio::test]
async fn a_stranger_does_not_take_all_channels() {
    let few = |settings: &mut Settings| {
        settings.limits.max_channels = 6;
        settings.limits.channels_per_minute_per_address = 5;
    };
    run(Database::Sqlite, few, async |nobody: &Client| {
        let admin = nobody.register("admin").await;
        let owner = nobody.register("owner").await;
        let room = |number: u32| json!({"name": format!("Room {number}")});
        // A new guest makes each.
        for number in 0..3 {
            nobody.post("/api/v1/rooms", room(number)).await.expect(201);
        }
        let full = nobody.post("/api/v1/rooms", room(3)).await.expect_error(409, "LIMIT_REACHED");
        assert!(full.contains("guests"), "{full}");
        owner.post("/api/channels", room(3)).await.expect(201);
        for path in ["/api/v1/rooms", "/api/channels"] {
            let refused = owner.post(path, room(4)).await;
            let sentence = refused.expect_error(429, "RATE_LIMITED");
            assert!(sentence.contains("at most 5 a minute"), "{sentence}");
            assert!((1..=60).contains(&refused.header("retry-after").parse::<u32>().expect("seconds")));
        }
        for number in 4..9 {
            admin.post("/api/channels", room(number)).await.expect(201);
        }
    })
    .await;
}

#[tokio::test]
async fn an_account_makes_so_many_offers_to_whip_and_whep_a_minute() {
    let few = |settings: &mut Settings| settings.limits.webrtc_offers_per_minute_per_account = 4;
    run(Database::Sqlite, few, async |nobody: &Client| {
        let (alice, berta) = (nobody.register("alice").await, nobody.register("berta").await);
        let channel = alice.channel("General", false).await;
        let offers = async |who: &Client, way: &str| {
            let offer =
                who.request(Method::POST, &format!("/{way}/{channel}")).header("content-type", "application/sdp");
            who.send(offer.body("no SDP")).await
        };
        for way in ["whip", "whep", "whip", "whep"] {
            offers(&alice, way).await.expect_error(400, "INVALID_INPUT");
        }
        for way in ["whip", "whep"] {
            let sentence = offers(&alice, way).await.expect_error(429, "RATE_LIMITED");
            assert!(sentence.contains("WebRTC offers") && sentence.contains("at most 4 a minute"), "{sentence}");
        }
        offers(&berta, "whip").await.expect_error(400, "INVALID_INPUT");
    })
    .await;
}

#[tokio::test]
async fn figures_have_a_limit_of_their_own_and_probes_none() {
    run(
        Database::Sqlite,
        |_| {},
        async |nobody: &Client| {
            let mut refused = None;
            for asked in 0..600 {
                let path = if asked % 2 == 0 { "/metrics" } else { "/health/detailed" };
                let answer = nobody.get(path).await;
                if answer.status != 200 {
                    refused = Some(answer.expect_error(429, "RATE_LIMITED"));
                    break;
                }
            }
            let sentence = refused.expect("refused within some hundred requests");
            assert!(sentence.contains("requests for figures"), "{sentence}");
            for path in ["/health", "/health/live", "/health/ready"] {
                assert_eq!(nobody.get(path).await.status, 200, "{path}");
            }
            nobody.get("/api/channels").await.expect(200);
        },
    )
    .await;
}

#[tokio::test]
async fn behind_a_trusted_proxy_each_client_has_its_own() {
    let behind_proxy = |settings: &mut Settings| {
        settings.limits.http_per_minute_per_address = 2;
        settings.server.trusted_proxies = vec!["127.0.0.0/8".parse().expect("a network")];
    };
    run(Database::Sqlite, behind_proxy, async |nobody: &Client| {
        let from = async |client: &str| {
            nobody.send(nobody.request(Method::GET, "/api/channels").header("x-forwarded-for", client)).await
        };
        for _ in 0..2 {
            from("203.0.113.7").await.expect(200);
            from("203.0.113.8").await.expect(200);
        }
        from("203.0.113.7").await.expect_error(429, "RATE_LIMITED");
        from("198.51.100.1, 203.0.113.8").await.expect_error(429, "RATE_LIMITED");
        from("203.0.113.9").await.expect(200);
    })
    .await;
}

#[tokio::test]
async fn an_account_has_so_many_requests_a_minute() {
    let few = |settings: &mut Settings| settings.limits.http_per_minute_per_account = 3;
    run(Database::Sqlite, few, async |nobody: &Client| {
        let (alice, bob) = (nobody.register("alice").await, nobody.register("bob").await);
        for _ in 0..3 {
            alice.get("/api/users/me").await.expect(200);
        }
        alice.get("/api/users/me").await.expect_error(429, "RATE_LIMITED");
        bob.get("/api/users/me").await.expect(200);
    })
    .await;
}

#[tokio::test]
async fn sign_ups_and_logins_of_an_address_are_counted_together() {
    let few = |settings: &mut Settings| settings.limits.logins_per_minute_per_address = 3;
    run(Database::Sqlite, few, async |nobody: &Client| {
        let credentials = json!({"username": "alice", "password": PASSWORD});
        let account = nobody.post("/api/auth/register", credentials.clone()).await.expect(201);
        nobody.post("/api/auth/login", credentials.clone()).await.expect(200);
        let refresh = json!({"refresh_token": account["refresh_token"]});
        nobody.post("/api/auth/refresh", refresh.clone()).await.expect(200);
        for (path, body) in [
            ("/api/auth/register", &credentials),
            ("/api/auth/login", &credentials),
            ("/api/auth/refresh", &refresh),
            ("/api/users", &credentials),
        ] {
            nobody.post(path, body.clone()).await.expect_error(429, "RATE_LIMITED");
        }
        nobody.get("/api/channels").await.expect(200);
    })
    .await;
}

#[tokio::test]
async fn guessing_a_password_locks_the_guesser_out() {
    let few = |settings: &mut Settings| settings.auth.failures_per_account_and_address = 3;
    run(Database::Sqlite, few, async |nobody: &Client| {
        nobody.register("alice").await;
        let wrong = json!({"username": "alice", "password": "a wrong password"});
        for _ in 0..3 {
            nobody.post("/api/auth/login", wrong.clone()).await.expect_error(401, "UNAUTHENTICATED");
        }
        let locked = nobody.post("/api/auth/login", json!({"username": "alice", "password": PASSWORD})).await;
        locked.expect_error(429, "RATE_LIMITED");
        assert!(!locked.header("retry-after").is_empty());
    })
    .await;
}
