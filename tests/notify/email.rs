//! Mail, by a real mail server that dies meanwhile.

use antiphon::settings::Settings;
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    is_delivery, newest, on_both, path, start,
    support::{
        chatters::{Chatter, call, channel, register},
        databases::TestDatabase,
        smtp::MailServer,
    },
};

on_both!(
    mail_comes_once_also_when_its_server_dies,
    an_address_is_confirmed_by_a_code,
    who_may_not_read_gets_no_mail_of_it
);

/// Runs a scenario with a mail server.
async fn run(database: TestDatabase, scenario: impl AsyncFnOnce(&str, &mut MailServer)) {
    let mut mail = MailServer::start().await;
    let server = start(&database, sending_by(&mail)).await;
    scenario(&server.url(), &mut mail).await;
    server.stop().await;
}

pub(crate) fn sending_by(mail: &MailServer) -> impl FnOnce(&mut Settings) + use<> {
    let url = mail.url().parse().expect("a URL");
    move |settings| {
        settings.notify.smtp_url = Some(url);
        settings.notify.smtp_from = Some("Antiphon <voice@example.org>".to_owned());
    }
}

/// Sets and confirms somebody's address.
pub(crate) async fn confirm(url: &str, token: &str, mail: &MailServer, address: &str) {
    let addresses = path(url, "/addresses/email");
    let (status, answer) = call(Method::PUT, &addresses, token, json!({"address": address})).await;
    assert_eq!(status, 200, "{answer}");
    let code = mail.mail(|mail| mail.header("to") == address).await.code();
    let (status, answer) = call(Method::POST, &format!("{addresses}/confirm"), token, json!({"code": code})).await;
    assert_eq!(status, 200, "{answer}");
}

async fn mail_comes_once_also_when_its_server_dies(url: &str, mail: &mut MailServer) {
    let ada = register(url, "ada").await;
    let id = channel(url, &ada, "lobby", json!({})).await;
    confirm(url, &ada, mail, "ada@example.org").await;
    let mut bob = Chatter::guest(url, "bob").await;
    bob.join("lobby").await;

    bob.say("lobby", "@ada: first").await;
    let first = mail.mail(|mail| mail.body.contains("first")).await;
    assert_eq!(first.header("subject"), "bob mentions you in lobby");
    assert_eq!((first.header("to"), first.header("from")), ("ada@example.org", "Antiphon <voice@example.org>"));
    assert_eq!(first.header("auto-submitted"), "auto-generated");
    assert!(first.header("message-id").ends_with("@example.org>"), "{first:?}");
    assert!(
        first.body.contains(&format!("https://talk.example.org/#channel=3D{id}"))
            || first.body.contains(&format!("https://talk.example.org/#channel={id}")),
        "{first:?}"
    );
    newest(url, &ada, |found| is_delivery(found, "email", "sent")).await;

    mail.kill();
    bob.say("lobby", "@ada: second").await;
    bob.dm("ada", "third, to you alone").await;
    // They are seen to fail before it is back.
    newest(url, &ada, |found| found["deliveries"][0]["attempts"].as_u64() > Some(0)).await;
    mail.start_again().await;
    for text in ["second", "third"] {
        mail.mail(|mail| mail.body.contains(text)).await;
    }
    newest(url, &ada, |found| is_delivery(found, "email", "sent")).await;
    for text in ["first", "second", "third"] {
        assert_eq!(mail.mails().iter().filter(|mail| mail.body.contains(text)).count(), 1, "{text}");
    }

    // What was read before its time has come is not sent: she reads while it is away.
    mail.kill();
    bob.say("lobby", "@ada: fourth").await;
    let failed = newest(url, &ada, |found| found["deliveries"][0]["attempts"].as_u64() > Some(0)).await;
    call(Method::POST, &path(url, "/read"), &ada, json!({"id": failed["id"]})).await;
    mail.start_again().await;
    newest(url, &ada, |found| is_delivery(found, "email", "skipped")).await;
    assert!(mail.mails().iter().all(|mail| !mail.body.contains("fourth")));
}

async fn who_may_not_read_gets_no_mail_of_it(url: &str, mail: &mut MailServer) {
    let (owner_token, eve) = (register(url, "owner").await, register(url, "eve").await);
    confirm(url, &eve, mail, "eve@example.org").await;
    let (_, me) = call(Method::GET, &format!("{url}/api/users/me"), &eve, Value::Null).await;
    let eve_id = me["data"]["id"].as_str().expect("an id");
    // One that she does not belong to, one whose history is not for her, one that she is banned from, and at last one for everybody.
    channel(url, &owner_token, "hidden", json!({"is_private": true})).await;
    let notes = channel(url, &owner_token, "notes", json!({})).await;
    let terms = json!({"history": "members"});
    assert_eq!(call(Method::PUT, &format!("{url}/api/channels/{notes}/chat"), &owner_token, terms).await.0, 200);
    let open = channel(url, &owner_token, "open", json!({})).await;
    let ban = json!({"user_id": eve_id});
    assert_eq!(call(Method::POST, &format!("{url}/api/channels/{open}/ban"), &owner_token, ban).await.0, 200);
    channel(url, &owner_token, "yard", json!({})).await;
    let mut owner = Chatter::with_token(url, &owner_token).await;
    for (room, text) in [("hidden", "a secret"), ("notes", "a secret"), ("open", "a secret"), ("yard", "a word")] {
        owner.join(room).await;
        owner.say(room, &format!("{text} for @eve")).await;
    }
    mail.mail(|mail| mail.body.contains("a word")).await;
    let told: Vec<_> = mail.mails().into_iter().filter(|mail| mail.body.contains("secret")).collect();
    assert!(told.is_empty(), "{told:?}");
}

async fn an_address_is_confirmed_by_a_code(url: &str, mail: &mut MailServer) {
    let ada = register(url, "ada").await;
    let addresses = path(url, "/addresses");
    let email = format!("{addresses}/email");
    let guest = Chatter::guest(url, "guest").await;
    let address = |address: &str| json!({"address": address});
    let (status, _) = call(Method::PUT, &email, &guest.token, address("guest@example.org")).await;
    assert_eq!(status, 403, "anybody can be a guest");
    for wrong in ["", "ada", "ada@example.org\r\nBcc: eve@example.org", "ada@example.org, eve@example.org"] {
        assert_eq!(call(Method::PUT, &email, &ada, address(wrong)).await.0, 400, "{wrong}");
    }
    assert_eq!(call(Method::PUT, &format!("{addresses}/push"), &ada, address("x")).await.0, 400);
    assert_eq!(call(Method::PUT, &format!("{addresses}/fax"), &ada, address("x")).await.0, 400);
    let (status, answer) = call(Method::PUT, &format!("{addresses}/sms"), &ada, address("+33612345678")).await;
    assert!(status == 400 && answer.to_string().contains("sms"), "none is set up: {answer}");

    assert_eq!(call(Method::PUT, &email, &ada, address("ada@example.org")).await.0, 200);
    let code = mail.mail(|mail| mail.header("to") == "ada@example.org").await.code();
    let (status, soon) = call(Method::PUT, &email, &ada, address("other@example.org")).await;
    assert_eq!((status, &soon["error_code"]), (429, &json!("RATE_LIMITED")), "{soon}");
    let (_, found) = call(Method::GET, &addresses, &ada, Value::Null).await;
    let wanted = json!({"available": true, "address": null, "pending": "ada@example.org"});
    assert_eq!((&found["data"]["email"], &found["data"]["sms"]["available"]), (&wanted, &json!(false)));

    // Nobody else's code, and not any number of tries.
    let confirm = format!("{email}/confirm");
    let eve = register(url, "eve").await;
    assert_eq!(call(Method::POST, &confirm, &eve, json!({"code": code})).await.0, 400);
    let wrong = json!({"code": if code == "00000000" { "00000001" } else { "00000000" }});
    for left in [4, 3] {
        let (status, answer) = call(Method::POST, &confirm, &ada, wrong.clone()).await;
        assert!(status == 400 && answer.to_string().contains(&format!("{left} tries")), "{answer}");
    }
    assert_eq!(call(Method::POST, &confirm, &ada, json!({"code": code})).await.0, 200);
    let (_, found) = call(Method::GET, &addresses, &ada, Value::Null).await;
    assert_eq!(found["data"]["email"], json!({"available": true, "address": "ada@example.org", "pending": null}));
    assert_eq!(call(Method::POST, &confirm, &ada, json!({"code": code})).await.0, 400, "a code works once");

    assert_eq!(call(Method::DELETE, &email, &ada, Value::Null).await.0, 200);
    assert_eq!(call(Method::DELETE, &email, &ada, Value::Null).await.0, 404);

    // After five wrong ones the right one does not help.
    assert_eq!(call(Method::PUT, &email, &eve, address("eve@example.org")).await.0, 200);
    let code = mail.mail(|mail| mail.header("to") == "eve@example.org").await.code();
    let wrong = json!({"code": if code == "00000000" { "00000001" } else { "00000000" }});
    for _ in 0..5 {
        assert_eq!(call(Method::POST, &confirm, &eve, wrong.clone()).await.0, 400);
    }
    assert_eq!(call(Method::POST, &confirm, &eve, json!({"code": code})).await.0, 400);

    // While the mail server is away that is said.
    let bob = register(url, "bob").await;
    mail.kill();
    let (status, answer) = call(Method::PUT, &email, &bob, address("bob@example.org")).await;
    assert_eq!((status, &answer["error_code"]), (503, &json!("TEMPORARILY_UNAVAILABLE")), "{answer}");
}
