//! Messages that are reported: who sees that, and who deals with it, once.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    on_both, run,
    support::{
        chatters::{Chatter, call, channel, register},
        databases::TestDatabase,
    },
};

on_both!(
    a_report_is_open_until_somebody_handles_it,
    reports_are_handled_by_those_who_keep_order,
    who_reports_a_message_again_opens_it_again,
    of_several_who_handle_a_report_one_did,
);

/// A channel with people in it, and a message that one of them reported.
struct Scene {
    url: String,
    /// The first account.
    admin: String,
    id: String,
    owner: Chatter,
    moderator: Chatter,
    alice: Chatter,
    bob: Chatter,
    /// Alice's, which Bob reported.
    message: Value,
}

impl Scene {
    async fn on(url: &str) -> Self {
        let admin = register(url, "admin").await;
        let (owner, moderator) = (register(url, "owner").await, register(url, "moderator").await);
        let id = channel(url, &owner, "lobby", json!({})).await;
        let mut owner = Chatter::with_token(url, &owner).await;
        let mut moderator = Chatter::with_token(url, &moderator).await;
        let role = format!("{url}/api/channels/{id}/members/{}", moderator.id());
        assert_eq!(call(Method::PUT, &role, &owner.token, json!({"role": "moderator"})).await.0, 200);
        let (mut alice, mut bob) = (Chatter::guest(url, "alice").await, Chatter::guest(url, "bob").await);
        for chatter in [&mut owner, &mut moderator, &mut alice, &mut bob] {
            chatter.join("lobby").await;
        }
        let message = alice.say("lobby", "rude").await["id"].clone();
        let mut scene = Self { url: url.to_owned(), admin, id, owner, moderator, alice, bob, message };
        scene.report("rude").await;
        scene
    }

    /// Bob reports Alice's message.
    async fn report(&mut self, reason: &str) {
        let report = json!({"type": "report", "id": self.message, "reason": reason});
        assert_eq!(self.bob.ask(report).await["type"], "Ack");
    }

    /// What the owner is shown, with a filter.
    async fn reports(&self, filter: &str) -> Value {
        let url = format!("{}/api/channels/{}/reports{filter}", self.url, self.id);
        let (status, answer) = call(Method::GET, &url, &self.owner.token, Value::Null).await;
        assert_eq!(status, 200, "{answer}");
        answer["data"].clone()
    }

    /// Makes something of what Bob reported of a message.
    async fn handle(&self, token: &str, message: &Value, change: Value) -> (u16, Value) {
        let url = format!("{}/api/channels/{}/reports/{message}/{}", self.url, self.id, self.bob.id());
        let (status, answer) = call(Method::PUT, &url, token, change).await;
        (status, if status == 200 { answer["data"].clone() } else { answer["error_code"].clone() })
    }

    /// What the audit log has of one action, the newest first.
    async fn audit(&self, action: &str) -> Vec<Value> {
        let url = format!("{}/api/advanced/admin/audit?action={action}", self.url);
        let (status, answer) = call(Method::GET, &url, &self.admin, Value::Null).await;
        assert_eq!(status, 200, "{answer}");
        answer["data"].as_array().expect("a list").clone()
    }
}

async fn a_report_is_open_until_somebody_handles_it(url: &str) {
    let scene = Box::pin(Scene::on(url)).await;
    let open = scene.reports("").await;
    assert_eq!((open.as_array().map(Vec::len), &open[0]["state"]), (Some(1), &json!("open")));
    assert!(open[0].get("handled_by").is_none() && open[0].get("note").is_none(), "{open}");
    assert_eq!(scene.reports("?state=open").await, open);
    assert_eq!(scene.reports("?state=handled").await, json!([]));
    let wrong = format!("{url}/api/channels/{}/reports?state=done", scene.id);
    assert_eq!(call(Method::GET, &wrong, &scene.owner.token, Value::Null).await.0, 400);

    let moderator = &scene.moderator.token;
    let handled = json!({"state": "handled", "note": "warned <b>her</b>"});
    let (status, now) = scene.handle(moderator, &scene.message, handled).await;
    assert_eq!((status, &now["state"], &now["reason"]), (200, &json!("handled"), &json!("rude")), "{now}");
    assert_eq!((&now["handled_by"], &now["note"]), (&json!(scene.moderator.id()), &json!("warned <b>her</b>")));
    assert!(now["handled_at"].as_str() >= now["at"].as_str(), "{now}");
    assert_eq!(scene.reports("?state=open").await, json!([]));
    assert_eq!((scene.reports("").await, scene.reports("?state=handled").await), (json!([now]), json!([now])));
    let written = scene.audit("report.handle").await;
    let detail = json!({
        "channel_id": scene.id, "author": scene.alice.id(), "reported_by": scene.bob.id(), "note": "warned <b>her</b>",
    });
    assert_eq!((written.len(), &written[0]["detail"]), (1, &detail));
    assert_eq!(
        (&written[0]["actor_id"], &written[0]["target"]),
        (&json!(scene.moderator.id()), &json!(scene.message.to_string()))
    );

    let (status, now) = scene.handle(moderator, &scene.message, json!({"state": "open"})).await;
    assert_eq!((status, json!([now])), (200, open), "as it was");
    assert_eq!(scene.audit("report.reopen").await[0]["target"], json!(scene.message.to_string()));
    for wrong in [
        json!({"state": "handled", "note": "x".repeat(501)}),
        json!({"state": "handled", "note": "a\u{1b}[31m"}),
        json!({"state": "open", "note": "why"}),
        json!({"state": "done"}),
        json!({}),
    ] {
        assert_eq!(scene.handle(moderator, &scene.message, wrong.clone()).await.0, 400, "{wrong}");
    }
    assert_eq!((scene.audit("report.handle").await.len(), scene.audit("report.reopen").await.len()), (1, 1));
}

async fn reports_are_handled_by_those_who_keep_order(url: &str) {
    let mut scene = Box::pin(Scene::on(url)).await;
    let own = scene.moderator.say("lobby", "rude, too").await["id"].clone();
    let unreported = scene.alice.say("lobby", "polite").await["id"].clone();
    assert_eq!(scene.bob.ask(json!({"type": "report", "id": own, "reason": "x"})).await["type"], "Ack");
    let stranger = register(url, "stranger").await;
    let (no, gone) = (json!("PERMISSION_DENIED"), json!("NOT_FOUND"));
    for (who, token, of_others, of_the_moderator, of_nothing) in [
        ("author", &scene.alice.token, (403, &no), (403, &no), (403, &no)),
        ("reporter", &scene.bob.token, (403, &no), (403, &no), (403, &no)),
        ("stranger", &stranger, (403, &no), (403, &no), (403, &no)),
        ("moderator", &scene.moderator.token, (200, &Value::Null), (403, &no), (404, &gone)),
        ("owner", &scene.owner.token, (200, &Value::Null), (200, &Value::Null), (404, &gone)),
        ("admin", &scene.admin, (200, &Value::Null), (200, &Value::Null), (404, &gone)),
    ] {
        for (message, (expected, code)) in
            [(&scene.message, of_others), (&own, of_the_moderator), (&unreported, of_nothing)]
        {
            let (status, answer) = scene.handle(token, message, json!({"state": "handled"})).await;
            assert!(status == expected && (status == 200 || answer == *code), "{who}: {status} {answer}");
            if status == 200 {
                let (status, answer) = scene.handle(token, message, json!({"state": "open"})).await;
                assert_eq!((status, &answer["state"]), (200, &json!("open")), "{who}");
            }
        }
    }
    // Of another channel of the same owner, and of one that the moderator does not see.
    for (name, further, token, expected) in [
        ("square", json!({}), &scene.owner.token, "NOT_FOUND"),
        ("club", json!({"is_private": true}), &scene.moderator.token, "CHANNEL_NOT_FOUND"),
    ] {
        let id = channel(url, &scene.owner.token, name, further).await;
        let path = format!("{url}/api/channels/{id}/reports/{}/{}", scene.message, scene.bob.id());
        let (status, answer) = call(Method::PUT, &path, token, json!({"state": "handled"})).await;
        assert_eq!((status, &answer["error_code"]), (404, &json!(expected)), "{name}");
    }
    // A message that was taken away leaves its report to be handled.
    scene.owner.ask(json!({"type": "delete", "id": scene.message})).await;
    let (status, now) = scene.handle(&scene.moderator.token, &scene.message, json!({"state": "handled"})).await;
    assert_eq!((status, &now["content"], &now["note"]), (200, &json!(""), &json!("")));
}

async fn who_reports_a_message_again_opens_it_again(url: &str) {
    let mut scene = Box::pin(Scene::on(url)).await;
    let handled = json!({"state": "handled", "note": "nothing in it"});
    assert_eq!(scene.handle(&scene.owner.token, &scene.message, handled).await.0, 200);
    scene.report("look again").await;
    let open = scene.reports("?state=open").await;
    assert_eq!((open.as_array().map(Vec::len), &open[0]["reason"]), (Some(1), &json!("look again")));
    assert!(open[0].get("note").is_none(), "{open}");
    // Another's report of the same message is one of its own.
    let report = json!({"type": "report", "id": scene.message, "reason": "me, too"});
    assert_eq!(scene.moderator.ask(report).await["type"], "Ack");
    assert_eq!(scene.handle(&scene.owner.token, &scene.message, json!({"state": "handled"})).await.0, 200);
    let open = scene.reports("?state=open").await;
    assert_eq!((open.as_array().map(Vec::len), &open[0]["by"]), (Some(1), &json!(scene.moderator.id())));
}

async fn of_several_who_handle_a_report_one_did(url: &str) {
    let scene = Box::pin(Scene::on(url)).await;
    let handle = async |token: &str, note: &str| {
        scene.handle(token, &scene.message, json!({"state": "handled", "note": note})).await
    };
    let (one, other) = tokio::join!(handle(&scene.owner.token, "one"), handle(&scene.moderator.token, "other"));
    assert_eq!((one.0, other.0), (200, 200));
    assert_eq!(one.1, other.1, "both are told who did");
    let late = handle(&scene.moderator.token, "late").await;
    assert_eq!(late.1, one.1);
    assert!(late.1["note"] == "one" || late.1["note"] == "other", "{}", late.1);
}
