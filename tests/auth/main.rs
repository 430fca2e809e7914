//! Accounts, passwords and tokens, on both databases.

mod issuers;

#[path = "../support/mod.rs"]
mod support;

use std::{
    future::Future,
    net::IpAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use antiphon::{
    auth::{Auth, AuthConfig, Register, Tokens},
    error::AppError,
    settings::{LocalState, Secret, Settings},
    store::Store,
};
use antiphon_core::{
    gateway::{ErrorCode, Role},
    ids::UserId,
};
use aws_lc_rs::{rsa::KeySize, signature::RsaKeyPair};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use issuers::rsa_key;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use support::databases::{TestDatabase, at_once};
use time::OffsetDateTime;
use uuid::Uuid;

on_both!(
    an_account_registers_logs_in_refreshes_and_logs_out,
    what_an_access_token_says,
    names_and_passwords_that_will_not_do,
    a_wrong_password_and_an_unknown_name_look_the_same,
    guessing_has_to_wait_and_nobody_else_does,
    guessing_from_everywhere_does_not_lock_out_where_one_logged_in,
    one_address_cannot_guess_at_all_accounts,
    guesses_at_once_do_not_pass_together,
    a_reused_refresh_token_ends_its_login,
    of_many_refreshes_at_once_one_wins,
    guests_come_with_a_name_only,
    a_guest_who_stays_connected_is_not_forgotten,
    an_account_switched_off_stays_out,
    the_database_says_what_one_may_do,
    tokens_made_elsewhere_are_accepted,
    whoever_is_new_gets_the_nearest_free_name,
    one_newcomer_at_once_gets_one_account,
    nothing_else_is_accepted,
    a_token_of_an_account_that_is_gone_makes_no_new_one,
    two_secrets_count_while_one_is_replaced,
);

/// What a check gets.
struct Context {
    store: Store,
    clock: Arc<AtomicI64>,
    /// For files of the check's own.
    dir: PathBuf,
}

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const PASSWORD: &str = "correct horse";

async fn run<F: Future<Output = ()>>(database: TestDatabase, check: fn(Context) -> F) {
    let store = Store::open(&database.url()).await.expect("the database opens");
    let dir = std::env::temp_dir().join(format!("antiphon-auth-{}", Uuid::now_v7()));
    std::fs::create_dir(&dir).expect("a new folder");
    let clock = Arc::new(AtomicI64::new(1_900_000_000));
    check(Context { store: store.clone(), clock, dir: dir.clone() }).await;
    store.close().await;
    std::fs::remove_dir_all(dir).expect("ours");
}

impl Context {
    /// As set by default, with our secret and clock and quick limits, then as `change` says.
    fn auth(&self, change: impl FnOnce(&mut AuthConfig)) -> Auth {
        let local = LocalState { jwt_secret: Secret::new(SECRET), node_id: "node".to_owned() };
        let mut config = AuthConfig::new(&Settings::default(), &local);
        config.guessing.per_account_and_address = 3;
        config.guessing.per_account = 6;
        config.guessing.per_address = 12;
        let clock = Arc::clone(&self.clock);
        config.clock = Arc::new(move || moment(clock.load(Ordering::Relaxed)));
        change(&mut config);
        Auth::new(self.store.clone(), config).expect("a client can be made")
    }

    fn now_s(&self) -> i64 {
        self.clock.load(Ordering::Relaxed)
    }

    fn pass(&self, seconds: i64) {
        self.clock.fetch_add(seconds, Ordering::Relaxed);
    }

    /// A token as someone else with our secret makes it, valid for a minute, with more `claims`.
    fn elsewhere(&self, claims: &Value) -> String {
        let mut all = json!({ "exp": self.now_s() + 60 });
        let more = claims.as_object().expect("claims").clone();
        all.as_object_mut().expect("claims").extend(more);
        sign(&Header::new(Algorithm::HS256), &all, &EncodingKey::from_secret(SECRET.as_bytes()))
    }
}

fn moment(unix_s: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(unix_s).expect("a moment")
}

fn sign(header: &Header, claims: &Value, key: &EncodingKey) -> String {
    jsonwebtoken::encode(header, claims, key).expect("it can be signed")
}

fn address(last: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, last])
}

async fn register(auth: &Auth, name: &str) -> Tokens {
    let register = Register { username: name.to_owned(), password: PASSWORD.to_owned(), display_name: None };
    auth.register(register).await.expect("a free name")
}

fn code<T>(result: Result<T, AppError>) -> ErrorCode {
    result.err().expect("refused").code
}

/// A part of a token, decoded.
fn part(token: &str, index: usize) -> Value {
    let text = token.split('.').nth(index).expect("three parts");
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).expect("base64url")).expect("JSON")
}

async fn an_account_registers_logs_in_refreshes_and_logs_out(context: Context) {
    let auth = context.auth(|_| ());
    let full = Register {
        username: "Anna".to_owned(),
        password: PASSWORD.to_owned(),
        display_name: Some("Anna B.".to_owned()),
    };
    let registered = auth.register(full).await.expect("a free name");
    assert_eq!((registered.user.username.as_str(), registered.user.display_name.as_str()), ("Anna", "Anna B."));
    assert_eq!((registered.user.role, registered.expires_in), (Role::Admin, 900));
    assert_eq!(register(&auth, "Berta").await.user.role, Role::User);

    let identity = auth.authenticate(&registered.access_token).await.expect("a good token");
    assert_eq!(identity.user, registered.user);
    assert_eq!(i64::try_from(identity.expires_at_s), Ok(context.now_s() + 900));

    let logged_in = auth.login(address(1), "aNNA", PASSWORD).await.expect("the right password");
    assert_eq!(logged_in.user, registered.user);
    let refreshed = auth.refresh(&logged_in.refresh_token).await.expect("a good token");
    assert_ne!(refreshed.refresh_token, logged_in.refresh_token);
    auth.authenticate(&refreshed.access_token).await.expect("a good token");

    auth.logout(&refreshed.refresh_token).await.expect("logged in");
    assert_eq!(code(auth.refresh(&refreshed.refresh_token).await), ErrorCode::Unauthenticated);
    assert_eq!(code(auth.logout(&refreshed.refresh_token).await), ErrorCode::Unauthenticated);
    auth.refresh(&registered.refresh_token).await.expect("another login goes on");
    context.pass(900);
    assert_eq!(code(auth.authenticate(&refreshed.access_token).await), ErrorCode::Unauthenticated, "it ran out");
}

async fn what_an_access_token_says(context: Context) {
    let auth = context.auth(|_| ());
    let tokens = register(&auth, "Anna").await;
    let header = part(&tokens.access_token, 0);
    assert_eq!((&header["alg"], &header["typ"]), (&json!("HS256"), &json!("JWT")));
    assert!(!header["kid"].as_str().expect("a key's name").is_empty());
    let now_s = context.now_s();
    let expected = json!({ "sub": tokens.user.id, "name": "Anna", "role": "admin", "iat": now_s, "exp": now_s + 900 });
    assert_eq!(part(&tokens.access_token, 1), expected);
}

async fn names_and_passwords_that_will_not_do(context: Context) {
    let auth = context.auth(|_| ());
    let try_names = async |username: &str, display_name: Option<&str>, password: &str| {
        let register = Register {
            username: username.to_owned(),
            password: password.to_owned(),
            display_name: display_name.map(str::to_owned),
        };
        code(auth.register(register).await)
    };
    for name in ["", " Anna", "An\nna", "x".repeat(33).as_str(), Uuid::nil().to_string().as_str()] {
        assert_eq!(try_names(name, None, PASSWORD).await, ErrorCode::InvalidInput, "{name:?}");
        assert_eq!(code(auth.guest(address(1), name, None).await), ErrorCode::InvalidInput, "{name:?}");
    }
    assert_eq!(try_names("Anna", Some("\u{202e}"), PASSWORD).await, ErrorCode::InvalidInput);
    for password in ["", "seven77", "x".repeat(1025).as_str()] {
        assert_eq!(try_names("Anna", None, password).await, ErrorCode::InvalidInput, "{password:?}");
    }
    register(&auth, "Anna").await;
    assert_eq!(try_names("aNNA", None, PASSWORD).await, ErrorCode::Conflict);
    assert_eq!(code(auth.guest(address(1), "ANNA", None).await), ErrorCode::Conflict);
}

async fn a_wrong_password_and_an_unknown_name_look_the_same(context: Context) {
    let auth = context.auth(|_| ());
    register(&auth, "Anna").await;
    auth.guest(address(1), "Guest", None).await.expect("allowed");
    let mut errors = Vec::new();
    for name in ["Anna", "nobody", "Guest"] {
        let mut each = Vec::new();
        for _ in 0..5 {
            each.push(auth.login(address(2), name, "wrong horse").await.err().expect("refused"));
        }
        errors.push(each);
    }
    assert_eq!(errors[0][0].code, ErrorCode::Unauthenticated);
    assert_eq!(errors[0][4].code, ErrorCode::RateLimited);
    assert!(errors.iter().all(|each| *each == errors[0]), "{errors:#?}");
    assert_eq!(code(auth.login(address(3), &"x".repeat(500), PASSWORD).await), ErrorCode::Unauthenticated);
    assert_eq!(code(auth.login(address(3), "Anna", &"x".repeat(5_000)).await), ErrorCode::Unauthenticated);
}

async fn guessing_has_to_wait_and_nobody_else_does(context: Context) {
    let auth = context.auth(|_| ());
    register(&auth, "Anna").await;
    for _ in 0..3 {
        assert_eq!(code(auth.login(address(1), "Anna", "wrong horse").await), ErrorCode::Unauthenticated);
    }
    let refused = auth.login(address(1), "Anna", PASSWORD).await.err().expect("even the right one has to wait");
    assert_eq!((refused.code, refused.retry_after_s), (ErrorCode::RateLimited, Some(60)));
    auth.login(address(2), "Anna", PASSWORD).await.expect("elsewhere one need not wait");
    context.pass(59);
    let refused = auth.login(address(1), "Anna", PASSWORD).await.err().expect("not yet");
    assert_eq!(refused.retry_after_s, Some(1), "trying meanwhile makes it no longer");
    context.pass(1);
    auth.login(address(1), "Anna", PASSWORD).await.expect("it is over");
    for _ in 0..3 {
        assert_eq!(code(auth.login(address(1), "Anna", "wrong horse").await), ErrorCode::Unauthenticated, "forgiven");
    }
    let typo_and_right = async || {
        assert_eq!(code(auth.login(address(2), "Anna", "wrong horse").await), ErrorCode::Unauthenticated);
        auth.login(address(2), "Anna", PASSWORD).await.expect("right");
    };
    for _ in 0..5 {
        typo_and_right().await;
    }
}

async fn guessing_from_everywhere_does_not_lock_out_where_one_logged_in(context: Context) {
    let auth = context.auth(|_| ());
    register(&auth, "Anna").await;
    auth.login(address(100), "Anna", PASSWORD).await.expect("right");
    for last in 1..=6 {
        assert_eq!(code(auth.login(address(last), "Anna", "wrong horse").await), ErrorCode::Unauthenticated);
    }
    assert_eq!(code(auth.login(address(7), "Anna", "wrong horse").await), ErrorCode::RateLimited);
    assert_eq!(code(auth.login(address(8), "Anna", PASSWORD).await), ErrorCode::RateLimited, "from a new place");
    auth.login(address(100), "Anna", PASSWORD).await.expect("where she logged in before");
    context.pass(60);
    auth.login(address(9), "Anna", PASSWORD).await.expect("and from anywhere once there is room");
}

async fn one_address_cannot_guess_at_all_accounts(context: Context) {
    let auth = context.auth(|_| ());
    register(&auth, "Anna").await;
    for index in 0..12 {
        let name = format!("user{index}");
        assert_eq!(code(auth.login(address(1), &name, "wrong horse").await), ErrorCode::Unauthenticated);
    }
    assert_eq!(code(auth.login(address(1), "Anna", PASSWORD).await), ErrorCode::RateLimited);
    auth.login(address(2), "Anna", PASSWORD).await.expect("another address");
}

async fn guesses_at_once_do_not_pass_together(context: Context) {
    let auth = context.auth(|_| ());
    register(&auth, "Anna").await;
    let results = at_once(20, |_| {
        let auth = auth.clone();
        async move { code(auth.login(address(1), "Anna", "wrong horse").await) }
    });
    let results = results.await;
    assert_eq!(results.iter().filter(|code| **code == ErrorCode::Unauthenticated).count(), 3, "{results:?}");
    assert_eq!(results.iter().filter(|code| **code == ErrorCode::RateLimited).count(), 17, "{results:?}");
}

async fn a_reused_refresh_token_ends_its_login(context: Context) {
    let auth = context.auth(|_| ());
    let first = register(&auth, "Anna").await;
    let second = auth.refresh(&first.refresh_token).await.expect("good");
    assert_eq!(code(auth.refresh(&first.refresh_token).await), ErrorCode::Unauthenticated);
    assert_eq!(
        code(auth.refresh(&second.refresh_token).await),
        ErrorCode::Unauthenticated,
        "the thief's or hers: both end"
    );
    for nonsense in ["", "nonsense", &second.access_token] {
        assert_eq!(code(auth.refresh(nonsense).await), ErrorCode::Unauthenticated, "{nonsense:?}");
    }
    let again = auth.login(address(1), "Anna", PASSWORD).await.expect("right");
    context.pass(30 * 86_400);
    assert_eq!(code(auth.refresh(&again.refresh_token).await), ErrorCode::Unauthenticated, "it ran out");
}

async fn of_many_refreshes_at_once_one_wins(context: Context) {
    let auth = context.auth(|_| ());
    let tokens = register(&auth, "Anna").await;
    let results = at_once(8, |_| {
        let (auth, token) = (auth.clone(), tokens.refresh_token.clone());
        async move { auth.refresh(&token).await }
    });
    let results = results.await;
    let won: Vec<_> = results.iter().filter_map(|result| result.as_ref().ok()).collect();
    assert_eq!(won.len(), 1);
    assert!(
        results.iter().filter_map(|result| result.as_ref().err()).all(|error| error.code == ErrorCode::Unauthenticated)
    );
    assert_eq!(
        code(auth.refresh(&won[0].refresh_token).await),
        ErrorCode::Unauthenticated,
        "the others were its reuse"
    );
}

async fn guests_come_with_a_name_only(context: Context) {
    let auth = context.auth(|config| {
        config.guests_max = 3;
        config.guests_per_minute_per_address = 2;
    });
    let guest = auth.guest(address(1), "Visitor", Some("A visitor")).await.expect("allowed");
    assert!(guest.user.is_guest && guest.user.role == Role::User && guest.user.display_name == "A visitor");
    assert_eq!(auth.authenticate(&guest.access_token).await.expect("good").user, guest.user);
    auth.refresh(&guest.refresh_token).await.expect("good");
    assert_eq!(code(auth.login(address(1), "Visitor", "").await), ErrorCode::Unauthenticated, "there is no password");
    assert_eq!(code(auth.guest(address(2), "vISITOR", None).await), ErrorCode::Conflict);
    assert_eq!(register(&auth, "Anna").await.user.role, Role::Admin, "guests are no accounts");

    auth.guest(address(1), "Second", None).await.expect("within the rate");
    assert_eq!(code(auth.guest(address(1), "Third", None).await), ErrorCode::RateLimited);
    auth.guest(address(3), "Third", None).await.expect("from another address");
    assert_eq!(code(auth.guest(address(4), "Fourth", None).await), ErrorCode::LimitReached);

    let shared = context.auth(|config| config.guests_per_address = 1);
    shared.guest(address(6), "Fifth", None).await.expect("there is room for many");
    let refused = shared.guest(address(6), "Sixth", None).await.map(|_| ()).expect_err("but not for one address");
    assert!(refused.code == ErrorCode::RateLimited && refused.message.contains("at most 1 in"), "{refused}");
    shared.guest(address(7), "Sixth", None).await.expect("from another address");

    let closed = context.auth(|config| config.guests = false);
    assert_eq!(code(closed.guest(address(5), "Seventh", None).await), ErrorCode::PermissionDenied);
}

async fn a_guest_who_stays_connected_is_not_forgotten(context: Context) {
    let auth = context.auth(|_| ());
    let staying = auth.guest(address(1), "Staying", None).await.expect("allowed");
    let gone = auth.guest(address(1), "Gone", None).await.expect("allowed");
    let refreshed = auth.refresh(&staying.refresh_token).await.expect("good");
    context.pass(86_000);
    auth.keep_guests(&[staying.user.id]).await.expect("works");
    context.pass(86_000);
    let created_long_ago = moment(context.now_s()).max(OffsetDateTime::now_utc() + time::Duration::DAY);
    context.store.sweep(created_long_ago).await.expect("works");
    assert_eq!(context.store.user(gone.user.id).await, Ok(None));
    let still_there = auth.refresh(&refreshed.refresh_token).await.expect("the token lasts as long as they stayed");
    assert_eq!(still_there.user, staying.user);
    auth.keep_guests(&[staying.user.id, gone.user.id]).await.expect("who is gone is no error");
}

async fn an_account_switched_off_stays_out(context: Context) {
    let auth = context.auth(|_| ());
    let tokens = register(&auth, "Anna").await;
    let more = auth.login(address(1), "Anna", PASSWORD).await.expect("right");
    context.store.set_active(tokens.user.id, false).await.expect("works");
    assert_eq!(code(auth.authenticate(&tokens.access_token).await), ErrorCode::Unauthenticated);
    assert_eq!(code(auth.refresh(&tokens.refresh_token).await), ErrorCode::Unauthenticated);
    assert_eq!(code(auth.login(address(1), "Anna", PASSWORD).await), ErrorCode::PermissionDenied);
    assert_eq!(code(auth.login(address(1), "Anna", "wrong horse").await), ErrorCode::Unauthenticated);
    context.store.set_active(tokens.user.id, true).await.expect("works");
    auth.authenticate(&tokens.access_token).await.expect("on again");
    assert_eq!(code(auth.refresh(&more.refresh_token).await), ErrorCode::Unauthenticated, "all its logins had ended");
}

async fn the_database_says_what_one_may_do(context: Context) {
    let auth = context.auth(|_| ());
    let anna = register(&auth, "Anna").await;
    context.store.set_role(anna.user.id, Role::User).await.expect("works");
    assert_eq!(part(&anna.access_token, 1)["role"], "admin");
    assert_eq!(auth.authenticate(&anna.access_token).await.expect("good").user.role, Role::User);
    let token = context.elsewhere(&json!({ "sub": anna.user.id, "name": "Anna", "role": "admin" }));
    assert_eq!(auth.authenticate(&token).await.expect("good").user.role, Role::User);
    assert_eq!(part(&auth.refresh(&anna.refresh_token).await.expect("good").access_token, 1)["role"], "user");
}

async fn tokens_made_elsewhere_are_accepted(context: Context) {
    let auth = context.auth(|_| ());
    let anna = register(&auth, "Anna").await;
    let known =
        auth.authenticate(&context.elsewhere(&json!({ "sub": anna.user.id, "name": "Other" }))).await.expect("good");
    assert_eq!(known.user, anna.user, "who is known keeps their name");

    let id = UserId(Uuid::now_v7());
    let token = context.elsewhere(&json!({ "sub": id, "name": "Berta", "role": "user", "iat": 1, "more": [1] }));
    let made = auth.authenticate(&token).await.expect("good");
    assert_eq!((made.user.id, made.user.username.as_str(), made.user.role), (id, "Berta", Role::User));
    assert!(!made.user.is_guest);
    assert_eq!(i64::try_from(made.expires_at_s), Ok(context.now_s() + 60));
    assert_eq!(auth.authenticate(&token).await.expect("good"), made, "the same again");

    let admin = context.elsewhere(&json!({ "sub": UserId(Uuid::now_v7()), "name": "Clara", "role": "admin" }));
    assert_eq!(auth.authenticate(&admin).await.expect("good").user.role, Role::Admin);
    let number = context.elsewhere(&json!({ "sub": "42", "name": "Dora" }));
    let dora = auth.authenticate(&number).await.expect("good");
    assert_eq!(auth.authenticate(&number).await.expect("good"), dora, "a subject that is no UUID is someone, too");

    let mut header = Header::new(Algorithm::HS256);
    header.kid = Some("their own key's name".to_owned());
    let claims = json!({ "sub": id, "exp": f64::from(2_000_000_000_u32) + 0.5, "nbf": context.now_s() });
    let token = sign(&header, &claims, &EncodingKey::from_secret(SECRET.as_bytes()));
    assert_eq!(auth.authenticate(&token).await.expect("good").expires_at_s, 2_000_000_000);

    let empty = context.auth(|_| ());
    assert_eq!(
        empty
            .register(Register { username: "New".to_owned(), password: PASSWORD.to_owned(), display_name: None })
            .await
            .expect("free")
            .user
            .role,
        Role::User,
        "accounts made for tokens are accounts"
    );
}

async fn whoever_is_new_gets_the_nearest_free_name(context: Context) {
    let auth = context.auth(|_| ());
    let name_of =
        async |claims: Value| auth.authenticate(&context.elsewhere(&claims)).await.expect("good").user.username;
    register(&auth, "Anna").await;
    for expected in ["Anna-2", "Anna-3"] {
        assert_eq!(name_of(json!({ "sub": UserId(Uuid::now_v7()), "name": "Anna" })).await, expected);
    }
    assert_eq!(name_of(json!({ "sub": UserId(Uuid::now_v7()) })).await, "user");
    assert_eq!(name_of(json!({ "sub": UserId(Uuid::now_v7()), "name": "\u{200b}" })).await, "user-2");
    assert_eq!(name_of(json!({ "sub": UserId(Uuid::now_v7()), "name": " Jean \n Pierre " })).await, "Jean Pierre");
    let long = "x".repeat(40);
    assert_eq!(name_of(json!({ "sub": UserId(Uuid::now_v7()), "name": long })).await, "x".repeat(32));
    assert_eq!(name_of(json!({ "sub": UserId(Uuid::now_v7()), "name": long })).await, format!("{}-2", "x".repeat(30)));
    for _ in 0..12 {
        let name = name_of(json!({ "sub": UserId(Uuid::now_v7()), "name": "Zoe" })).await;
        assert!(name == "Zoe" || name.starts_with("Zoe-"), "{name}");
    }
}

async fn one_newcomer_at_once_gets_one_account(context: Context) {
    let auth = context.auth(|_| ());
    for claims in
        [json!({ "sub": UserId(Uuid::now_v7()), "name": "Anna" }), json!({ "sub": "forty-two", "name": "Berta" })]
    {
        let token = context.elsewhere(&claims);
        let before = context.store.users_count().await.expect("works");
        let results = at_once(12, |_| {
            let (auth, token) = (auth.clone(), token.clone());
            async move { auth.authenticate(&token).await.expect("good").user.id }
        });
        let ids = results.await;
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
        assert_eq!(context.store.users_count().await, Ok(before + 1));
    }
}

async fn nothing_else_is_accepted(context: Context) {
    let auth = context.auth(|_| ());
    let anna = register(&auth, "Anna").await;
    let good = json!({ "sub": anna.user.id, "exp": context.now_s() + 60 });
    let secret = EncodingKey::from_secret(SECRET.as_bytes());
    let with = |header: Value, claims: &Value, signature: &str| {
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        format!("{}.{}.{signature}", encode(&header), encode(claims))
    };
    let signature_of = |token: &str| token.rsplit('.').next().expect("three parts").to_owned();
    let signed = context.elsewhere(&json!({ "sub": anna.user.id }));
    let mut critical = Header::new(Algorithm::HS256);
    critical.crit = Some(vec!["b64".to_owned()]);
    let foreign = EncodingKey::from_secret(b"another secret that is long enough");
    let keys = RsaKeyPair::generate(KeySize::Rsa2048).expect("keys");
    let cases = [
        ("no algorithm", with(json!({ "alg": "none" }), &good, "")),
        ("no algorithm, capitals", with(json!({ "alg": "nOnE", "typ": "JWT" }), &good, &signature_of(&signed))),
        ("a longer hash", sign(&Header::new(Algorithm::HS384), &good, &secret)),
        ("the longest hash", sign(&Header::new(Algorithm::HS512), &good, &secret)),
        ("no end", sign(&Header::new(Algorithm::HS256), &json!({ "sub": anna.user.id }), &secret)),
        ("an end in words", context.elsewhere(&json!({ "sub": anna.user.id, "exp": "tomorrow" }))),
        ("over", context.elsewhere(&json!({ "sub": anna.user.id, "exp": context.now_s() }))),
        ("not yet", context.elsewhere(&json!({ "sub": anna.user.id, "nbf": context.now_s() + 1 }))),
        ("nobody's", context.elsewhere(&json!({ "name": "Anna" }))),
        ("an empty subject", context.elsewhere(&json!({ "sub": "" }))),
        ("an endless subject", context.elsewhere(&json!({ "sub": "x".repeat(256) }))),
        ("another secret", sign(&Header::new(Algorithm::HS256), &good, &foreign)),
        ("a key pair nobody knows", sign(&Header::new(Algorithm::RS256), &good, &rsa_key(&keys))),
        ("something critical", sign(&critical, &good, &secret)),
        (
            "changed",
            with(
                json!({ "alg": "HS256" }),
                &json!({ "sub": UserId(Uuid::nil()), "exp": 2_000_000_000 }),
                &signature_of(&signed),
            ),
        ),
        ("no signature", with(json!({ "alg": "HS256" }), &good, "")),
        ("too long", context.elsewhere(&json!({ "sub": anna.user.id, "name": "x".repeat(9_000) }))),
        ("two parts", "e30.e30".to_owned()),
        ("nothing", String::new()),
        ("a refresh token", anna.refresh_token.clone()),
    ];
    auth.authenticate(&signed).await.expect("what the others are compared with");
    for (what, token) in cases {
        assert_eq!(code(auth.authenticate(&token).await), ErrorCode::Unauthenticated, "{what}");
    }
    assert_eq!(context.store.users_count().await, Ok(1), "nobody new came of it");
}

async fn a_token_of_an_account_that_is_gone_makes_no_new_one(context: Context) {
    let auth = context.auth(|_| ());
    let guest = auth.guest(address(1), "Visitor", None).await.expect("allowed");
    auth.logout(&guest.refresh_token).await.expect("logged in");
    context.store.sweep(OffsetDateTime::now_utc() + time::Duration::DAY).await.expect("works");
    assert_eq!(context.store.user(guest.user.id).await, Ok(None));
    assert_eq!(code(auth.authenticate(&guest.access_token).await), ErrorCode::Unauthenticated);
    assert_eq!(context.store.users_count().await, Ok(0));
}

async fn two_secrets_count_while_one_is_replaced(context: Context) {
    let old = context.auth(|_| ());
    let anna = register(&old, "Anna").await;
    let replace = |config: &mut AuthConfig| config.jwt_secret = Secret::new("a new secret, as long as the old one");
    let both = context.auth(|config| {
        replace(config);
        config.jwt_secret_previous = Some(Secret::new(SECRET));
    });
    both.authenticate(&anna.access_token).await.expect("the old one still counts");
    both.authenticate(&context.elsewhere(&json!({ "sub": anna.user.id }))).await.expect("without a key's name, too");
    let renewed = both.refresh(&anna.refresh_token).await.expect("good");
    assert_ne!(part(&renewed.access_token, 0)["kid"], part(&anna.access_token, 0)["kid"]);
    let new = context.auth(replace);
    new.authenticate(&renewed.access_token).await.expect("signed with the new one");
    assert_eq!(code(new.authenticate(&anna.access_token).await), ErrorCode::Unauthenticated, "the old one is gone");
    assert_eq!(code(old.authenticate(&renewed.access_token).await), ErrorCode::Unauthenticated);
}
