//! A node is taken out of service: its people move, the others notice nothing.

use std::time::Duration;

use antiphon_loadtest::{client::ClientEvent, rest::Rest};
use tokio::time::timeout;

use crate::support::{
    nodes::{Nodes, http, until_heard},
    people::{PATIENCE, Person, make_channel, number_of},
};

async fn resumed(person: &mut Person) {
    let wait = async {
        loop {
            match person.events.recv().await.expect("the session lives") {
                ClientEvent::Resumed(channels) => {
                    assert_eq!(channels[0].voice.stream_id, person.joined.voice.stream_id);
                    return;
                }
                ClientEvent::Closed(closed) => panic!("closed: {closed:?}"),
                _ => {}
            }
        }
    };
    timeout(PATIENCE, wait).await.expect("resumed elsewhere");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_told_to_stop_hands_its_people_over() {
    let mut cluster = Nodes::start(3).await;
    let channel = make_channel(&cluster.nodes[0], "lobby", 10).await;
    let mut moving = Person::join(&cluster.nodes[1], "moving", channel).await;
    let mut speaker = Person::join(&cluster.nodes[0], "speaker", channel).await;
    let mut listener = Person::join(&cluster.nodes[2], "listener", channel).await;
    for person in [&mut moving, &mut speaker, &mut listener] {
        person.udp_becomes(true).await;
    }
    let first = until_heard(&speaker, &mut [&mut listener]).await;
    cluster.nodes[1].signal("TERM");
    // Between the others not one frame is lost, whoever owned the channel.
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    for number in first..first + 150 {
        ticks.tick().await;
        speaker.say(number).await;
        let heard = loop {
            let heard = number_of(&listener.hear().await);
            if heard >= first {
                break heard;
            }
        };
        assert_eq!(heard, number);
    }
    resumed(&mut moving).await;
    cluster.nodes[1].ended().await;
    let next = until_heard(&moving, &mut [&mut listener]).await;
    assert!(next < 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_drains_a_node_through_another_and_takes_it_back() {
    let cluster = Nodes::start(2).await;
    let rest = Rest::new(cluster.nodes[0].url()).expect("a client");
    let admin = rest.register("admin", "a long enough password").await.expect("the first account");
    let channel = make_channel(&cluster.nodes[0], "lobby", 10).await;
    let mut moving = Person::join(&cluster.nodes[1], "moving", channel).await;
    let http = http();
    let drain = cluster.nodes[0].url().http("/api/v1/admin/nodes/node-1/drain");
    let body = serde_json::json!({ "deadline_s": 20 });
    let answer = http.post(drain.clone()).bearer_auth(&admin.access_token).json(&body).send().await.expect("answered");
    assert!(answer.status().is_success(), "{answer:?}");
    let answer: serde_json::Value = answer.json().await.expect("JSON");
    assert_eq!((&answer["data"]["mode"], &answer["data"]["connections_at_start"]), (&"handover".into(), &1.into()));
    resumed(&mut moving).await;
    let nodes = |token: &str| http.get(cluster.nodes[1].url().http("/api/v1/nodes")).bearer_auth(token).send();
    let wait = async {
        loop {
            let seen: serde_json::Value =
                nodes(&admin.access_token).await.expect("answered").json().await.expect("JSON");
            if seen["data"]["drain"]["stage"] == "drained" {
                return seen;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let seen = timeout(PATIENCE, wait).await.expect("drained");
    let state = |seen: &serde_json::Value| {
        let nodes = seen["data"]["nodes"].as_array().expect("nodes").clone();
        let node = nodes.into_iter().find(|node| node["node_id"] == "node-1").expect("still there");
        node["state"].as_str().map(str::to_owned)
    };
    assert_eq!(state(&seen).as_deref(), Some("draining"));
    let ready = http.get(cluster.nodes[1].url().http("/health/ready")).send().await.expect("answered");
    assert_eq!(ready.status(), 503);

    let answer = http.delete(drain).bearer_auth(&admin.access_token).send().await.expect("answered");
    assert!(answer.status().is_success(), "{answer:?}");
    let ready = http.get(cluster.nodes[1].url().http("/health/ready")).send().await.expect("answered");
    assert_eq!(ready.status(), 200);
    let _back = Person::join(&cluster.nodes[1], "back", channel).await;
}
