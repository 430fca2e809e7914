//! One channel, its members on several nodes.

use std::sync::Arc;

use antiphon_core::gateway::{Encoding, ServerMessage};
use antiphon_loadtest::{
    ServerUrl,
    client::{Client, ClientEvent},
    gateway::{GatewayConfig, Identity},
    rest::Rest,
};

use crate::support::{
    databases::at_once,
    nodes::{Nodes, http, until_heard},
    people::{PATIENCE, Person, how_to_join, make_channel, number_of, payload},
    process::Process,
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
    let urls: Vec<_> = cluster.nodes.iter().map(Process::url).collect();
    for round in 0..20 {
        let channel = make_channel(&cluster.nodes[round % 3], &format!("small-{round}"), 10).await;
        let urls = urls.clone();
        let guests = at_once(60, move |index| guest(urls[index % 3].clone(), format!("guest-{round}-{index}"))).await;
        let guests: Arc<[_]> = guests.into();
        let trying = Arc::clone(&guests);
        let outcomes = at_once(60, move |index| {
            let guests = Arc::clone(&trying);
            async move { guests[index].join(how_to_join(channel)).await.map(|_| ()) }
        })
        .await;
        // They are kept, so that nobody leaves meanwhile.
        let refused: Vec<_> = outcomes.into_iter().filter_map(Result::err).collect();
        assert_eq!(refused.len(), 50, "round {round}");
        for error in refused {
            assert!(error.to_string().contains("CHANNEL_FULL"), "round {round}: {error}");
        }
        cluster.views_become(channel, 10).await;
        drop(guests);
    }
    println!("20 rounds: of 60 who joined at once over three nodes, 10 got in each time");
}

async fn guest(server: ServerUrl, name: String) -> Client {
    let identity = Identity::Guest(name);
    let config = GatewayConfig { server, others: Vec::new(), encoding: Encoding::Json, identity };
    Client::connect(config).await.expect("connected").0
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
