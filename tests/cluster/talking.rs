//! One channel, its members on several nodes.

use antiphon_core::{gateway::ServerMessage, ids::ChannelId};
use antiphon_loadtest::{client::ClientEvent, rest::Rest};

use crate::support::{
    databases::at_once,
    nodes::{Nodes, http, until_heard},
    people::{PATIENCE, Person, how_to_join, make_channel, number_of, payload},
};

#[tokio::test(flavor = "multi_thread")]
async fn members_on_three_nodes_hear_each_other_bit_exact() {
    let cluster = Nodes::start(3).await;
    let channel = make_channel(&cluster.nodes[0], "lobby", 10).await;
    let mut people = Vec::new();
    for (index, node) in cluster.nodes.iter().enumerate() {
        let mut person = Person::join(node, &format!("person-{index}"), channel).await;
        person.udp_becomes(true).await;
        people.push(person);
    }
    assert_eq!(people[2].joined.members.len(), 3, "the last one sees all");
    for speaker in 0..3 {
        let (before, rest) = people.split_at_mut(speaker);
        let (speaking, after) = rest.split_first_mut().expect("somebody");
        let mut listeners: Vec<&mut Person> = before.iter_mut().chain(after).collect();
        let begun = until_heard(speaking, &mut listeners).await;
        for number in begun..begun + 100 {
            speaking.say(number).await;
            for listener in &mut listeners {
                let frame = loop {
                    let frame = listener.hear().await;
                    if frame.header.stream == speaking.joined.voice.stream_id && number_of(&frame) >= begun {
                        break frame;
                    }
                };
                assert_eq!((number_of(&frame), &frame.bytes), (number, &payload(number)));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn places_are_counted_over_all_nodes() {
    let cluster = Nodes::start(3).await;
    for round in 0..5 {
        let channel = make_channel(&cluster.nodes[round % 3], &format!("small-{round}"), 10).await;
        let urls: Vec<_> = cluster.nodes.iter().map(|node| node.url()).collect();
        let joined = at_once(30, move |index| {
            let url = urls[index % 3].clone();
            async move { joins(url, format!("guest-{round}-{index}"), channel).await }
        })
        .await;
        // They are kept, so that nobody leaves meanwhile.
        assert_eq!(joined.iter().filter(|client| client.1).count(), 10);
    }
}

/// A guest who tries to join, and whether there was a place.
async fn joins(
    server: antiphon_loadtest::ServerUrl,
    name: String,
    channel: ChannelId,
) -> (antiphon_loadtest::client::Client, bool) {
    let config = antiphon_loadtest::gateway::GatewayConfig {
        server,
        others: Vec::new(),
        encoding: antiphon_core::gateway::Encoding::Json,
        identity: antiphon_loadtest::gateway::Identity::Guest(name),
    };
    let (client, _events) = antiphon_loadtest::client::Client::connect(config).await.expect("connected");
    match client.join(how_to_join(channel)).await {
        Ok(_) => (client, true),
        Err(error) => {
            assert!(error.to_string().contains("CHANNEL_FULL"), "{error}");
            (client, false)
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moderator_on_one_node_removes_somebody_on_another() {
    let cluster = Nodes::start(2).await;
    let rest = Rest::new(cluster.nodes[0].url()).expect("a client");
    let owner = rest.register("owner", "a long enough password").await.expect("registered");
    let new = antiphon_loadtest::rest::NewChannel { name: "lobby".to_owned(), max_users: None, max_speakers: None };
    let channel = rest.create_channel(&owner.access_token, &new).await.expect("created").id;
    let mut guest = Person::join(&cluster.nodes[1], "guest", channel).await;
    let kicked = http()
        .post(cluster.nodes[0].url().http(&format!("/api/channels/{channel}/kick")))
        .bearer_auth(&owner.access_token)
        .json(&serde_json::json!({ "user_id": guest.client.user().id, "reason": "enough" }))
        .send()
        .await
        .expect("answered");
    assert!(kicked.status().is_success(), "{kicked:?}");
    let removed = async {
        loop {
            if let Some(ClientEvent::Message(message)) = guest.events.recv().await
                && let ServerMessage::Removed(removed) = *message
            {
                return removed;
            }
        }
    };
    let removed = tokio::time::timeout(PATIENCE, removed).await.expect("they are told");
    assert_eq!((removed.channel_id, removed.message.as_deref()), (channel, Some("enough")));
}
