//! Everything at once: people with several sessions join, leave, speak, mute, lose their connections, resume, are removed
//! and come back, in channels with too few places, while moderators are busy. Then everyone goes, and nothing is left.

use std::{sync::Arc, time::Duration};

use antiphon_core::{
    engine::Counter,
    gateway::{AudioBytes, AudioData, LeaveChannel, MediaTransport, Recover, ServerMessage, SetVoiceState, StartAudio},
    ids::{ChannelId, NodeNumber, UserId},
    prng::Prng,
};

use tokio::task::JoinSet;

use crate::{
    client::{Client, join, resume},
    server::{PATIENCE, Server},
};

const PEOPLE: u64 = 12;
const SESSIONS_EACH: u64 = 2;
const STEPS: u64 = 60;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_left_when_everyone_has_gone() {
    live_and_go(vec![Server::start().await]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nor_on_two_nodes_between_which_they_move() {
    let (one, two, _) = Server::two(|_, rooms| rooms.old_udp_grace = Duration::from_millis(20)).await;
    live_and_go(vec![one, two]).await;
}

/// Each stays on a node of their own there, as nobody moves while what both share is away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nor_where_what_they_share_comes_and_goes() {
    let (one, two, cluster) = Server::two(|_, rooms| rooms.settle = Duration::from_millis(20)).await;
    let lives = [vec![one], vec![two]].map(Arc::<[Server]>::from);
    let owner = lives[0][0].guest("owner").await.user.id;
    let channels = channels_of(&lives[0][0], owner).await;
    let mut tasks = JoinSet::new();
    for (node, servers) in lives.iter().enumerate() {
        let people = begin_lives(servers, &channels, &format!("node{node}"), &mut tasks).await;
        let (servers, channels) = (Arc::clone(servers), Arc::clone(&channels));
        tasks.spawn(async move { a_moderator(&servers, owner, &people, &channels).await });
    }
    while tasks.len() > 2 {
        for (node, reachable) in [(1, false), (2, false), (1, true), (2, true)] {
            cluster.set_reachable(NodeNumber(node), reachable);
            tokio::time::sleep(Duration::from_millis(15)).await;
        }
        while tasks.try_join_next().is_some() {}
    }
    tasks.join_all().await;
    let servers = [&lives[0][0], &lives[1][0]];
    let settled = async {
        for (server, channel) in servers.iter().flat_map(|server| channels.iter().map(move |channel| (server, channel)))
        {
            while server.rooms.occupancy(*channel).await != 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    };
    if tokio::time::timeout(PATIENCE, settled).await.is_err() {
        for server in servers {
            for channel in channels.iter() {
                eprintln!("{channel} {:?} {:?}", server.rooms, server.rooms.members(*channel).await);
            }
        }
        panic!("somebody is left");
    }
    for server in servers {
        nothing_is_left_on(server).await;
    }
}

async fn channels_of(server: &Server, owner: UserId) -> Arc<[ChannelId]> {
    let mut channels = Vec::new();
    for places in [3, 8, 100] {
        channels.push(server.channel(owner, places).await);
    }
    channels.into()
}

/// Begins the life of each session of some people, who are yielded.
async fn begin_lives(
    servers: &Arc<[Server]>,
    channels: &Arc<[ChannelId]>,
    name: &str,
    tasks: &mut JoinSet<()>,
) -> Vec<UserId> {
    let mut people = Vec::new();
    for person in 0..PEOPLE {
        let tokens = servers[0].guest(&format!("{name}{person}")).await;
        people.push(tokens.user.id);
        for session in 0..SESSIONS_EACH {
            let (servers, channels) = (Arc::clone(servers), Arc::clone(channels));
            let token = tokens.access_token.clone();
            tasks.spawn(async move { somebody(&servers, &token, &channels, person * 100 + session).await });
        }
    }
    people
}

async fn live_and_go(servers: Vec<Server>) {
    let servers: Arc<[Server]> = servers.into();
    let server = &servers[0];
    let owner = server.guest("owner").await.user.id;
    let channels = channels_of(server, owner).await;
    let mut tasks = JoinSet::new();
    let people = begin_lives(&servers, &channels, "person", &mut tasks).await;
    {
        let (servers, channels) = (Arc::clone(&servers), Arc::clone(&channels));
        tasks.spawn(async move { a_moderator(&servers, owner, &people, &channels).await });
    }
    tasks.join_all().await;

    let mut joins = 0;
    for channel in channels.iter() {
        for server in servers.iter() {
            joins += server.rooms.traffic(*channel).await.joins;
        }
        assert_eq!(server.rooms.occupancy(*channel).await, 0);
        assert!(server.rooms.members(*channel).await.expect("known").is_empty());
    }
    assert!(joins > PEOPLE * SESSIONS_EACH * 5, "only {joins} joins: too little went on");
    for server in servers.iter() {
        nothing_is_left_on(server).await;
    }
}

async fn nothing_is_left_on(server: &Server) {
    assert_eq!(server.gateway.sessions_count(), 0);
    // The workers have been told everything by now; they take it in turn by turn.
    let left = || {
        let engine = server.media.counters().engine;
        [Counter::MembersPresent, Counter::ChannelsOpen, Counter::SessionsOpen].map(|counter| engine[counter])
    };
    let empty = async {
        while left() != [0, 0, 0] {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, empty).await.is_ok(), "left behind: {:?}", left());
    assert_eq!(server.media.counters().engine[Counter::CommandsRefused], 0, "a command named what does not exist");
}

/// One session's life, drawn from `seed`; it ends with a goodbye.
async fn somebody(servers: &[Server], token: &str, channels: &[ChannelId], seed: u64) {
    let mut prng = Prng::new(seed);
    let mut client = Client::with_token(any(servers, &mut prng), token).await;
    for step in 0..STEPS {
        let channel_id = channels[prng.next_u64() as usize % channels.len()];
        match prng.next_u64() % 10 {
            0..4 => {
                let media =
                    if prng.next_u64().is_multiple_of(3) { MediaTransport::Websocket } else { MediaTransport::Udp };
                client.request(join(channel_id, media)).await;
            }
            4 | 5 => _ = client.request(LeaveChannel { channel_id }).await,
            6 => {
                let muted = Some(prng.next_u64().is_multiple_of(2));
                client.request(SetVoiceState { channel_id, muted, deafened: muted }).await;
            }
            7 => {
                client.request(StartAudio { channel_id }).await;
                let data = AudioBytes(vec![0xfc; 40]);
                let sequence = Some(step as u16);
                client.send(AudioData { channel_id, data, sequence, timestamp: None, kind: None, level: None }).await;
            }
            8 => {
                let (resumed, answer) = Client::resume(any(servers, &mut prng), resume(&client.lose())).await;
                client = resumed;
                if let Some(one) = answer.channels.first() {
                    let position = one.joined.position.clone();
                    let recover = Recover { channel_id: one.joined.channel_id, position };
                    let answer = client.request(recover).await;
                    // Or it was removed between the two.
                    assert!(matches!(answer, ServerMessage::Recovered(_) | ServerMessage::Error(_)), "{answer:?}");
                }
            }
            _ => {
                // Without awaiting the answers: they are carried out in order all the same.
                client.send(join(channel_id, MediaTransport::Udp)).await;
                client.send(LeaveChannel { channel_id }).await;
            }
        }
        client.passed_over.clear();
    }
    client.close(1000).await;
}

fn any<'a>(servers: &'a [Server], prng: &mut Prng) -> &'a Server {
    &servers[prng.next_u64() as usize % servers.len()]
}

/// Kicks, mutes and changes channels until the others should be done.
async fn a_moderator(servers: &[Server], by: UserId, people: &[UserId], channels: &[ChannelId]) {
    let mut prng = Prng::new(7);
    for _ in 0..STEPS * 4 {
        let server = any(servers, &mut prng);
        let target = people[prng.next_u64() as usize % people.len()];
        let channel = channels[prng.next_u64() as usize % channels.len()];
        match prng.next_u64() % 4 {
            0 => _ = server.rooms.kick(channel, target, by, None).await,
            1 => _ = server.rooms.set_server_mute(channel, target, prng.next_u64().is_multiple_of(2), by).await,
            2 => server.rooms.set_priority(channel, target, prng.next_u64().is_multiple_of(2)).await,
            _ => {
                let changed = server.store.channel(channel).await.expect("asked").expect("there");
                server.rooms.channel_changed(changed).await;
            }
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
