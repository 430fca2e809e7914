//! The media workers with real sockets.

mod client;
mod ice_tcp;
mod relay;

use std::{io::ErrorKind, net::SocketAddr, time::Duration};

use antiphon::media::{Media, MediaConfig, SocketCounter, webrtc::PeerCounter};
use antiphon_core::{
    engine::{Command, Counter, Event, Family, GatewayFrame, Hears, MemberFlags, MemberUdp},
    gateway::Cipher,
    ids::{ChannelId, GroupId, KeyId, MediaSessionId, StreamId, WorkerIndex},
};
use client::{Client, group_key_bytes, session_key_bytes};
use tokio::{sync::mpsc::Receiver, time::timeout};
use uuid::Uuid;

/// Generous: nothing here takes more than milliseconds.
const PATIENCE: Duration = Duration::from_secs(20);
const GROUP: GroupId = GroupId(1);

fn start(workers: u16) -> (Media, Receiver<Event>) {
    Media::start(MediaConfig { workers, ..MediaConfig::default() }).expect("starts")
}

fn home_of(media: &Media, session: MediaSessionId) -> WorkerIndex {
    WorkerIndex(u16::try_from(session.0 % u32::from(media.workers())).expect("a worker"))
}

async fn add_session(media: &Media, session: u32) -> Client {
    let id = MediaSessionId(session);
    let cipher = Cipher::Aes128Gcm;
    let add = Command::AddSession { session: id, cipher, key: session_key_bytes(id).into() };
    media.send(home_of(media, id), add).await;
    Client::new(id, media.local_addr())
}

async fn open_channel(media: &Media) -> (WorkerIndex, ChannelId) {
    let channel = ChannelId(Uuid::now_v7());
    (open_this_channel(media, channel).await, channel)
}

async fn open_this_channel(media: &Media, channel: ChannelId) -> WorkerIndex {
    let home = media.place_channel(channel);
    media.send(home, Command::OpenChannel { channel, max_speakers: 0 }).await;
    let key = Command::SetGroupKey {
        channel,
        group: GROUP,
        cipher: Cipher::Aes128Gcm,
        key_id: KeyId::FIRST,
        key: group_key_bytes().into(),
        activate_at: media.now(),
    };
    media.send(home, key).await;
    home
}

async fn join(media: &Media, home: WorkerIndex, channel: ChannelId, client: &Client) {
    let (session, stream) = (client.session, client.stream);
    let worker = home_of(media, session);
    let udp = Some(MemberUdp { session, worker, cipher: Cipher::Aes128Gcm });
    let flags = MemberFlags::default();
    media
        .send(home, Command::AddMember { channel, stream, udp, hears: Hears::Streams, flags, last_sequence: None })
        .await;
    media.send(worker, Command::AttachStream { session, stream, channel, home }).await;
}

/// Waits until as many sessions are proven.
async fn proven(events: &mut Receiver<Event>, mut sessions: usize) {
    while sessions > 0 {
        let event = timeout(PATIENCE, events.recv()).await.expect("in time").expect("the workers live");
        sessions -= usize::from(matches!(event, Event::Proven { proven: true, .. }));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sessions_datagrams_reach_its_worker() {
    let (media, mut events) = start(3);
    let mut clients = Vec::new();
    for session in 100..130 {
        clients.push(add_session(&media, session).await);
    }
    for client in &mut clients {
        client.connect(media.now());
    }
    proven(&mut events, clients.len()).await;
    media.stop().await;
    let counters = media.counters();
    assert_eq!(counters.engine[Counter::BindReceived], 30);
    assert_eq!(counters.engine.total(Family::DatagramsDropped), 0, "each worker knows only its own sessions");
    assert_eq!(counters.socket[SocketCounter::DatagramsReceived], 60);
    assert_eq!(counters.socket[SocketCounter::DatagramsSent], 60);
}

/// A list of listeners so long that all workers send over it: everyone hears every frame once.
#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_is_sent_to_by_all_workers() {
    const LISTENERS: usize = 300;
    const FRAMES: u16 = 20;
    let config = MediaConfig { workers: 2, spread_from_percent: 0, ..MediaConfig::default() };
    let (media, mut events) = Media::start(config).expect("starts");
    let (home, channel) = open_channel(&media).await;
    let mut clients = Vec::new();
    for session in 0..=LISTENERS {
        let client = add_session(&media, 100 + u32::try_from(session).expect("small")).await;
        join(&media, home, channel, &client).await;
        clients.push(client);
    }
    for client in &mut clients {
        client.connect(media.now());
    }
    proven(&mut events, clients.len()).await;
    let (speaker, listeners) = clients.split_first_mut().expect("somebody");
    for sequence in 0..FRAMES {
        speaker.speak(sequence);
        for listener in listeners.iter_mut() {
            listener.hear_until(usize::from(sequence) + 1, PATIENCE);
        }
    }
    media.stop().await;
    let counters = media.counters().socket;
    assert!(counters[SocketCounter::PartsLeft] >= 2 * u64::from(FRAMES), "{counters:?}");
    for listener in listeners {
        let mut sequences: Vec<_> = listener.heard.iter().map(|frame| frame.sequence).collect();
        sequences.sort_unstable();
        assert_eq!(sequences, (0..FRAMES).collect::<Vec<_>>());
    }
}

/// People in one channel, on both workers, speak in turn; everyone hears every frame of the others once.
async fn everyone_hears_everyone(workers: u16, bind: SocketAddr, reach: Option<SocketAddr>) {
    const FRAMES: u16 = 100;
    let (media, mut events) = Media::start(MediaConfig { workers, bind, ..MediaConfig::default() }).expect("starts");
    let (home, channel) = open_channel(&media).await;
    let mut clients = Vec::new();
    for session in 1..=6 {
        let mut client = add_session(&media, session).await;
        if let Some(reach) = reach {
            client.connect_to(SocketAddr::new(reach.ip(), media.local_addr().port()));
        }
        join(&media, home, channel, &client).await;
        client.connect(media.now());
        clients.push(client);
    }
    proven(&mut events, clients.len()).await;
    for frame in 0..FRAMES {
        for client in &mut clients {
            client.speak(frame);
        }
        for client in &mut clients {
            client.hear_until(5 * (usize::from(frame) + 1), PATIENCE);
        }
    }
    media.stop().await;
    let spoken: Vec<_> = clients.iter().map(|client| client.stream).collect();
    for client in &clients {
        for stream in spoken.iter().filter(|stream| **stream != client.stream) {
            let mut heard: Vec<_> =
                client.heard.iter().filter(|frame| frame.stream == *stream).map(|frame| frame.sequence).collect();
            heard.sort_unstable();
            assert_eq!(heard, (0..FRAMES).collect::<Vec<_>>(), "{stream} heard by {}", client.stream);
        }
    }
    let counters = media.counters();
    assert_eq!(counters.engine[Counter::FramesSent], 6 * 5 * u64::from(FRAMES));
    assert_eq!(counters.engine.total(Family::FramesDropped), 0);
    let away = spoken.iter().filter(|stream| home_of(&media, MediaSessionId(stream.0)) != home).count() as u64;
    assert_eq!(counters.engine[Counter::FramesHandedOver], away * u64::from(FRAMES));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_is_heard_across_workers() {
    everyone_hears_everyone(2, ([127, 0, 0, 1], 0).into(), None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_worker_alone_serves_too() {
    everyone_hears_everyone(1, ([127, 0, 0, 1], 0).into(), None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ipv6_address_serves_both_families() {
    let any = SocketAddr::from(([0_u16; 8], 0));
    if std::net::UdpSocket::bind(any).is_err() {
        return;
    }
    everyone_hears_everyone(2, any, Some(([127, 0, 0, 1], 0).into())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_from_the_gateway_are_sent_and_audio_for_it_comes_out() {
    let (media, mut events) = start(2);
    let (home, channel) = open_channel(&media).await;
    let mut client = add_session(&media, 4).await;
    join(&media, home, channel, &client).await;
    client.connect(media.now());
    proven(&mut events, 1).await;
    let stream = StreamId(900);
    let add = Command::AddMember {
        channel,
        stream,
        udp: None,
        hears: Hears::Streams,
        flags: MemberFlags::default(),
        last_sequence: None,
    };
    media.send(home, add).await;
    let frame = GatewayFrame { sequence: Some(5), timestamp: Some(0), kind: 0, level: 20, bytes: vec![8; 80] };
    assert!(media.try_frame(home, Command::Frame { channel, stream, frame }));
    client.hear_until(1, PATIENCE);
    assert_eq!((client.heard[0].stream, client.heard[0].sequence), (stream, 5));
    client.speak(0);
    let tunnelled = loop {
        match timeout(PATIENCE, events.recv()).await.expect("in time").expect("the workers live") {
            Event::Tunnel { header, .. } => break header,
            _ => continue,
        }
    };
    assert_eq!(tunnelled.stream, client.stream);
    media.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_is_counted_and_not_answered() {
    let (media, _events) = start(2);
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let garbage: [&[u8]; 6] = [&[], &[0, 1], &[0xc0; 7], &[0xc0; 64], &[0xff; 1_500], &[0x16; 200]];
    for bytes in garbage {
        socket.send_to(bytes, media.local_addr()).expect("sends");
    }
    let dropped = || {
        let counters = media.counters();
        let by_peers = counters.peers[PeerCounter::Unknown] + counters.peers[PeerCounter::NotAuthentic];
        counters.engine.total(Family::DatagramsDropped) + by_peers
    };
    timeout(PATIENCE, async {
        while dropped() < garbage.len() as u64 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("all are counted");
    media.stop().await;
    assert_eq!(media.counters().socket[SocketCounter::DatagramsSent], 0);
}

#[tokio::test]
async fn a_port_in_use_is_refused() {
    let (media, _events) = start(2);
    let again = MediaConfig { bind: media.local_addr(), workers: 2, ..MediaConfig::default() };
    let error = Media::start(again).err().expect("refused");
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    let none = Media::start(MediaConfig { workers: 0, ..MediaConfig::default() }).err().expect("refused");
    assert_eq!(none.kind(), ErrorKind::InvalidInput);
    media.stop().await;
}

#[tokio::test]
async fn stopping_ends_the_workers_and_their_events() {
    let (media, mut events) = start(2);
    media.stop().await;
    assert!(events.recv().await.is_none());
    media.stop().await;
    media.send(WorkerIndex(0), Command::CloseChannel { channel: ChannelId(Uuid::now_v7()) }).await;
}

#[tokio::test]
async fn workers_end_with_the_last_handle() {
    let (media, mut events) = start(2);
    drop(media);
    assert!(timeout(PATIENCE, events.recv()).await.expect("in time").is_none());
}

#[tokio::test]
async fn frames_beyond_the_queue_are_dropped_and_counted() {
    let config = MediaConfig { workers: 1, frame_queue: 4, ..MediaConfig::default() };
    let (media, _events) = Media::start(config).expect("starts");
    media.stop().await;
    let frame = || Command::Frame {
        channel: ChannelId(Uuid::nil()),
        stream: StreamId(1),
        frame: GatewayFrame { sequence: None, timestamp: None, kind: 0, level: 0, bytes: vec![1] },
    };
    let taken = (0..10).filter(|_| media.try_frame(WorkerIndex(0), frame())).count();
    assert_eq!(taken, 4);
    assert_eq!(media.counters().socket[SocketCounter::GatewayFramesDropped], 6);
}

fn some_channel() -> ChannelId {
    ChannelId(Uuid::now_v7())
}

#[tokio::test]
async fn channels_are_placed_where_there_are_fewest() {
    let (media, _events) = start(3);
    let mut placed = [0; 3];
    for _ in 0..9 {
        placed[usize::from(media.place_channel(some_channel()).0)] += 1;
    }
    assert_eq!(placed, [3, 3, 3]);
    for _ in 0..2 {
        media.send(WorkerIndex(1), Command::CloseChannel { channel: ChannelId(Uuid::nil()) }).await;
    }
    assert_eq!([media.place_channel(some_channel()), media.place_channel(some_channel())], [WorkerIndex(1); 2]);
    media.give_back(WorkerIndex(2));
    assert_eq!(media.place_channel(some_channel()), WorkerIndex(2));
    for _ in 0..9 {
        // More is given back than was placed: none is the least.
        media.give_back(WorkerIndex(0));
    }
    assert_eq!([(); 3].map(|()| media.place_channel(some_channel())), [WorkerIndex(0); 3]);
    media.stop().await;
}
