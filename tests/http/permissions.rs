//! Who may do what: every role against every operation of a channel, public and private.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{client::Client, on_both_databases};

on_both_databases!(public_channels, private_channels);

/// Everyone who tries.
struct Cast {
    admin: Client,
    owner: Client,
    moderator: Client,
    member: Client,
    stranger: Client,
    nobody: Client,
}

/// What each of them must get, in the order admin, owner, moderator, member, stranger, nobody: a status, or a status
/// and another for strangers to a private channel.
type Expected = [u16; 6];

/// One operation on a channel: its name, method, path below the channel, body and what each must get where the channel
/// is public.
type Operation = (&'static str, Method, &'static str, fn(&Cast) -> Value, Expected);

/// Bodies and paths name the target, who is a plain member. Expected statuses: 200 and 201 done, 403 not allowed, 401
/// no token, 404 allowed but nothing to do (nobody is in voice or banned).
fn operations() -> Vec<Operation> {
    let none: fn(&Cast) -> Value = |_| json!({});
    let target: fn(&Cast) -> Value = |cast| json!({"user_id": cast.member.id()});
    vec![
        ("see", Method::GET, "", none, [200, 200, 200, 200, 200, 401]),
        ("see members", Method::GET, "/members", none, [200, 200, 200, 200, 200, 401]),
        ("see figures", Method::GET, "/audio/stats", none, [200, 200, 200, 200, 200, 401]),
        ("change", Method::PUT, "", none, [200, 200, 403, 403, 403, 401]),
        ("invite", Method::POST, "/invites", none, [201, 201, 201, 403, 403, 401]),
        ("see invites", Method::GET, "/invites", none, [200, 200, 200, 403, 403, 401]),
        ("revoke an invite", Method::DELETE, "/invites/none", none, [404, 404, 404, 403, 403, 401]),
        (
            "mute",
            Method::POST,
            "/mute",
            |cast| json!({"user_id": cast.member.id(), "muted": true}),
            [200, 200, 200, 403, 403, 401],
        ),
        ("kick", Method::POST, "/kick", target, [404, 404, 404, 403, 403, 401]),
        ("lift a ban", Method::DELETE, "/ban/{target}", none, [404, 404, 404, 403, 403, 401]),
        (
            "give a role",
            Method::PUT,
            "/members/{target}",
            |_| json!({"role": "member"}),
            [200, 200, 403, 403, 403, 401],
        ),
        (
            "give priority",
            Method::PUT,
            "/members/{target}",
            |_| json!({"priority": true}),
            [200, 200, 403, 403, 403, 401],
        ),
        (
            "demote the owner",
            Method::PUT,
            "/members/{owner}",
            |_| json!({"role": "member"}),
            [403, 403, 403, 403, 403, 401],
        ),
        ("remove the owner", Method::DELETE, "/members/{owner}", none, [403, 403, 403, 403, 403, 401]),
        (
            "kick a moderator",
            Method::POST,
            "/kick",
            |cast| json!({"user_id": cast.moderator.id()}),
            [404, 404, 403, 403, 403, 401],
        ),
        (
            "ban the owner",
            Method::POST,
            "/ban",
            |cast| json!({"user_id": cast.owner.id()}),
            [409, 403, 403, 403, 403, 401],
        ),
    ]
}

async fn public_channels(nobody: &Client) {
    every_operation(nobody, false).await;
}

async fn private_channels(nobody: &Client) {
    every_operation(nobody, true).await;
}

async fn every_operation(nobody: &Client, is_private: bool) {
    let cast = Cast {
        admin: nobody.register("admin").await,
        owner: nobody.register("owner").await,
        moderator: nobody.register("moderator").await,
        member: nobody.guest("member").await,
        stranger: nobody.register("stranger").await,
        nobody: nobody.clone(),
    };
    let channel = format!("/api/channels/{}", cast.owner.channel("General", is_private).await);
    for (who, role) in [(&cast.moderator, "moderator"), (&cast.member, "member")] {
        cast.owner.put(&format!("{channel}/members/{}", who.id()), json!({"role": role})).await.expect(200);
    }
    for (name, method, path, body, expected) in operations() {
        let path = path.replace("{target}", cast.member.id()).replace("{owner}", cast.owner.id());
        let actors = [&cast.admin, &cast.owner, &cast.moderator, &cast.member, &cast.stranger, &cast.nobody];
        for (actor, expected) in actors.into_iter().zip(expected) {
            let request = actor.request(method.clone(), &format!("{channel}{path}")).json(&body(&cast));
            let answer = actor.send(request).await;
            let is_stranger = std::ptr::eq(actor, &raw const cast.stranger);
            let context = format!("{name}, {}: {}", actor.user["username"], answer.text);
            if is_private && is_stranger {
                assert_eq!(answer.json()["error_code"], "CHANNEL_NOT_FOUND", "{context}");
            } else {
                assert_eq!(answer.status.as_u16(), expected, "{context}");
            }
        }
    }
    the_rest_in_order(&cast, &channel).await;
}

/// What changes who may do what comes last: ban, leave, delete.
async fn the_rest_in_order(cast: &Cast, channel: &str) {
    let member = format!("{channel}/members/{}", cast.member.id());
    let ban = json!({"user_id": cast.member.id()});
    cast.member.post(&format!("{channel}/ban"), ban.clone()).await.expect_error(403, "PERMISSION_DENIED");
    cast.member
        .delete(&format!("{channel}/members/{}", cast.moderator.id()))
        .await
        .expect_error(403, "PERMISSION_DENIED");
    cast.member.delete(&member).await.expect(200);
    cast.owner.put(&member, json!({})).await.expect(200);
    cast.moderator.delete(&member).await.expect(200);
    cast.moderator.post(&format!("{channel}/ban"), ban).await.expect(200);
    for actor in [&cast.moderator, &cast.member, &cast.stranger, &cast.nobody] {
        let answer = actor.delete(channel).await;
        assert!([401, 403, 404].contains(&answer.status.as_u16()), "{}", answer.text);
    }
    cast.admin.delete(channel).await.expect(200);
}
