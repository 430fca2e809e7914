//! Signing up, logging in and out, and accounts.

use serde_json::json;

use crate::{
    Database,
    client::{Client, PASSWORD, keys},
    on_both_databases, run,
};

on_both_databases!(
    sign_up_log_in_and_out,
    refresh_tokens_rotate_and_reuse_ends_the_login,
    names_are_unique_and_checked,
    users_see_each_other_and_change_themselves,
    the_first_account_is_admin,
);

const USER_KEYS: [&str; 7] = ["created_at", "display_name", "id", "is_active", "is_guest", "role", "username"];

async fn sign_up_log_in_and_out(nobody: &Client) {
    let body = json!({"username": "Alice", "password": PASSWORD, "display_name": "Alice A."});
    let registered = nobody.post("/api/auth/register", body).await.expect(201);
    assert_eq!(keys(&registered), ["access_token", "expires_in", "refresh_token", "success", "user"]);
    assert_eq!(keys(&registered["user"]), USER_KEYS);
    assert_eq!(registered["user"]["display_name"], "Alice A.");
    assert_eq!(registered["user"]["is_guest"], false);
    assert_eq!(registered["expires_in"], 900);

    let logged_in =
        nobody.post("/api/auth/login", json!({"username": "aLICE", "password": PASSWORD})).await.expect(200);
    assert_eq!(logged_in["user"], registered["user"]);
    for (name, password) in [("Alice", "wrong password"), ("nobody", PASSWORD)] {
        let refused = nobody.post("/api/auth/login", json!({"username": name, "password": password})).await;
        refused.expect_error(401, "UNAUTHENTICATED");
        assert_eq!(refused.header("www-authenticate"), "Bearer");
    }

    let refresh_token = logged_in["refresh_token"].as_str().expect("a token");
    let logout = nobody.post("/api/auth/logout", json!({"refresh_token": refresh_token})).await.expect(200);
    assert_eq!(logout["data"]["logged_out"], true);
    for path in ["/api/auth/refresh", "/api/auth/logout"] {
        nobody.post(path, json!({"refresh_token": refresh_token})).await.expect_error(401, "UNAUTHENTICATED");
    }
    // Another login of the same account goes on.
    let other = json!({"refresh_token": registered["refresh_token"]});
    nobody.post("/api/auth/refresh", other).await.expect(200);
}

async fn refresh_tokens_rotate_and_reuse_ends_the_login(nobody: &Client) {
    let first = nobody.post("/api/auth/register", json!({"username": "bob", "password": PASSWORD})).await.expect(201);
    let refresh =
        async |token: &serde_json::Value| nobody.post("/api/auth/refresh", json!({"refresh_token": token})).await;
    let second = refresh(&first["refresh_token"]).await.expect(200);
    assert_ne!(second["refresh_token"], first["refresh_token"]);
    assert_eq!(second["user"], first["user"]);
    let me = nobody.with_token(second["access_token"].as_str()).get("/api/users/me").await.expect(200);
    assert_eq!(me["data"], first["user"]);

    refresh(&first["refresh_token"]).await.expect_error(401, "UNAUTHENTICATED");
    refresh(&second["refresh_token"]).await.expect_error(401, "UNAUTHENTICATED");
    refresh(&json!("made up")).await.expect_error(401, "UNAUTHENTICATED");
}

async fn names_are_unique_and_checked(nobody: &Client) {
    nobody.register("carol").await;
    nobody.guest("guest one").await;
    for taken in ["carol", "CAROL", "Guest One"] {
        let with_password = json!({"username": taken, "password": PASSWORD});
        for (path, body) in [
            ("/api/auth/register", with_password.clone()),
            ("/api/users", with_password),
            ("/api/users", json!({"username": taken})),
        ] {
            nobody.post(path, body).await.expect_error(409, "CONFLICT");
        }
    }
    for wrong in ["", " dave", "da\nve", &"d".repeat(33)] {
        for body in [json!({"username": wrong, "password": PASSWORD}), json!({"username": wrong})] {
            let sentence = nobody.post("/api/users", body).await.expect_error(400, "INVALID_INPUT");
            assert!(sentence.starts_with("username must"), "{sentence}");
        }
    }
    let short = json!({"username": "dave", "password": "short"});
    let sentence = nobody.post("/api/auth/register", short).await.expect_error(400, "INVALID_INPUT");
    assert!(sentence.contains("password"), "{sentence}");
}

async fn users_see_each_other_and_change_themselves(nobody: &Client) {
    let (alice, bob) = (nobody.register("alice").await, nobody.guest("bob").await);
    assert_eq!(bob.user["is_guest"], true);
    let seen = bob.get(&format!("/api/users/{}", alice.id())).await.expect(200);
    assert_eq!(seen["data"], alice.user);

    for path in ["/api/users/me".to_owned(), format!("/api/users/{}", alice.id())] {
        let changed = alice.put(&path, json!({"display_name": format!("from {}", path.len())})).await.expect(200);
        assert_eq!(changed["data"]["display_name"], format!("from {}", path.len()));
        assert_eq!(alice.get("/api/users/me").await.expect(200)["data"], changed["data"]);
    }
    let foreign = bob.put(&format!("/api/users/{}", alice.id()), json!({"display_name": "Mallory"})).await;
    foreign.expect_error(403, "PERMISSION_DENIED");
    alice.put("/api/users/me", json!({"display_name": ""})).await.expect_error(400, "INVALID_INPUT");

    let unknown = "/api/users/00000000-0000-7000-8000-000000000000";
    alice.get(unknown).await.expect_error(404, "USER_NOT_FOUND");
    let sentence = alice.get("/api/users/lobby").await.expect_error(400, "INVALID_INPUT");
    assert!(sentence.contains("UUID"), "{sentence}");
}

async fn the_first_account_is_admin(nobody: &Client) {
    let guest = nobody.guest("guest").await;
    let (first, second) = (nobody.register("first").await, nobody.register("second").await);
    let roles = [&guest, &first, &second].map(|client| client.user["role"].as_str().expect("a role"));
    assert_eq!(roles, ["user", "admin", "user"]);
}

#[tokio::test]
async fn guests_can_be_turned_away() {
    let without_guests = |settings: &mut antiphon::settings::Settings| settings.auth.guests = false;
    run(Database::Sqlite, without_guests, async |nobody: &Client| {
        nobody.post("/api/users", json!({"username": "eve"})).await.expect_error(403, "PERMISSION_DENIED");
        nobody.post("/api/users", json!({"username": "eve", "password": PASSWORD})).await.expect(201);
    })
    .await;
}
