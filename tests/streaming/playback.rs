//! Files played into channels by the server: who hears them, who may, and how they end.

use std::{io::Cursor, path::Path, time::Duration};

use antiphon_core::{
    gateway::{LeaveReason, ServerMessage},
    ids::{ChannelId, StreamId, UserId},
    wire::frame::FrameKind,
};
use antiphon_loadtest::{
    ServerUrl,
    client::{ClientEvent, HeardFrame},
    rest::{Account, NewChannel, Rest},
};
use ogg::PacketReader;
use reqwest::{Response, StatusCode, Url};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::support::{
    nodes::{Nodes, http},
    people::{PATIENCE, Person},
    process::{Process, Scratch},
    sounds::output,
};

/// A channel whose owner plays into it, by whichever node.
struct Stage {
    owner: Account,
    channel: ChannelId,
    folder: Scratch,
}

/// What of a player comes to somebody in the channel.
enum Came {
    Joined { user: UserId, stream: StreamId, shown: String },
    Frame(HeardFrame),
    Left(LeaveReason),
}

impl Stage {
    fn folder() -> Scratch {
        let folder = Scratch::new();
        tone(&folder.path().join("short.flac"), 2.0);
        tone(&folder.path().join("long.flac"), 60.0);
        folder
    }

    async fn on(url: ServerUrl, folder: Scratch, max_users: u32) -> Self {
        let rest = Rest::new(url).expect("a client");
        let owner = rest.register("owner", "a long enough password").await.expect("registered");
        let new = NewChannel { name: "stage".to_owned(), max_users: Some(max_users), max_speakers: None };
        let channel = rest.create_channel(&owner.access_token, &new).await.expect("created").id;
        Self { owner, channel, folder }
    }

    fn url(&self, node: &ServerUrl) -> Url {
        node.http(&format!("/api/channels/{}/playback", self.channel))
    }

    async fn play_as(&self, token: &str, node: &ServerUrl, body: Value) -> Response {
        http().post(self.url(node)).bearer_auth(token).json(&body).send().await.expect("answered")
    }

    /// Plays a file, which may be made first; what is told of it.
    async fn play(&self, node: &ServerUrl, body: Value) -> Value {
        loop {
            let answer = self.play_as(&self.owner.access_token, node, body.clone()).await;
            let (status, told) = (answer.status(), answer.json::<Value>().await.expect("JSON"));
            if status != StatusCode::SERVICE_UNAVAILABLE {
                assert_eq!(status, StatusCode::CREATED, "{told}");
                return told["data"].clone();
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn shown(&self, node: &ServerUrl) -> (StatusCode, Value) {
        let answer = http().get(self.url(node)).bearer_auth(&self.owner.access_token).send().await.expect("answered");
        (answer.status(), answer.json::<Value>().await.expect("JSON")["data"].clone())
    }

    /// Pauses, resumes or seeks.
    async fn change(&self, node: &ServerUrl, change: Value) -> (StatusCode, Value) {
        self.change_as(&self.owner.access_token, node, change).await
    }

    async fn change_as(&self, token: &str, node: &ServerUrl, change: Value) -> (StatusCode, Value) {
        let answer = http().put(self.url(node)).bearer_auth(token).json(&change).send().await.expect("answered");
        let (status, told) = (answer.status(), answer.json::<Value>().await.expect("JSON"));
        (status, if told["data"].is_null() { told } else { told["data"].clone() })
    }

    async fn stop(&self, node: &ServerUrl) -> StatusCode {
        let answer = http().delete(self.url(node)).bearer_auth(&self.owner.access_token).send().await;
        answer.expect("answered").status()
    }

    /// The packets of a file's quality, as a link to it has them.
    async fn packets(&self, node: &ServerUrl, path: &str, quality: &str) -> Vec<Vec<u8>> {
        let sign = http().post(node.http("/api/streams/sign")).bearer_auth(&self.owner.access_token);
        let body = json!({ "path": path, "ttl_s": 60, "quality": quality });
        let link = sign.json(&body).send().await.expect("answered").json::<Value>().await.expect("JSON");
        let link = node.http("/").join(link["data"]["url"].as_str().expect("a link")).expect("a link");
        let file = http().get(link).send().await.expect("answered").bytes().await.expect("read");
        let mut reader = PacketReader::new(Cursor::new(file.to_vec()));
        let mut packets = Vec::new();
        while let Some(packet) = reader.read_packet().expect("Ogg") {
            packets.push(packet.data);
        }
        packets.split_off(2)
    }
}

fn tone(path: &Path, seconds: f64) {
    let source = format!("sine=frequency=440:duration={seconds}:sample_rate=48000");
    output("ffmpeg", &["-v", "error", "-f", "lavfi", "-i", &source, "-y", path.to_str().expect("text")]);
}

/// What comes next of the player.
async fn came(person: &mut Person) -> Came {
    let own = person.joined.voice.stream_id;
    let next = async {
        loop {
            match person.events.recv().await.expect("goes on") {
                ClientEvent::Frame(frame) if frame.header.stream != own => return Came::Frame(frame),
                ClientEvent::Message(message) => match *message {
                    ServerMessage::UserJoined(joined) if joined.user.display_name.starts_with('♪') => {
                        let shown = format!("{} by {}", joined.user.display_name, joined.user.username);
                        return Came::Joined { user: joined.user_id, stream: joined.stream_id, shown };
                    }
                    ServerMessage::UserLeft(left) => return Came::Left(left.reason),
                    _ => {}
                },
                _ => {}
            }
        }
    };
    // A node that is killed is waited for 35 s.
    timeout(3 * PATIENCE, next).await.expect("something comes of it")
}

/// Hears a player from its coming to its going; its frames, and why it went.
async fn hear_out(person: &mut Person) -> (UserId, Vec<HeardFrame>, LeaveReason) {
    let Came::Joined { user, stream, shown } = came(person).await else { panic!("it comes first") };
    assert_eq!(shown, "♪ short.flac by ♪ owner");
    let mut frames = Vec::new();
    loop {
        match came(person).await {
            Came::Frame(frame) => {
                assert_eq!(frame.header.stream, stream);
                frames.push(frame);
            }
            Came::Left(reason) => return (user, frames, reason),
            Came::Joined { .. } => panic!("it came already"),
        }
    }
}

async fn until_heard(person: &mut Person) {
    while !matches!(came(person).await, Came::Frame(_)) {}
}

async fn until_left(person: &mut Person) -> LeaveReason {
    loop {
        if let Came::Left(reason) = came(person).await {
            return reason;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn members_on_two_nodes_hear_a_files_very_packets() {
    let folder = Stage::folder();
    let cluster = Nodes::start_with(2, &[("AUDIO_DIR", folder.path().to_str().expect("text"))]).await;
    let (here, there) = (cluster.nodes[0].url(), cluster.nodes[1].url());
    let stage = Stage::on(here.clone(), folder, 10).await;
    let mut listeners = Vec::new();
    for (node, name) in cluster.nodes.iter().zip(["here", "there"]) {
        let mut person = Person::join(node, name, stage.channel).await;
        person.udp_becomes(true).await;
        listeners.push(person);
    }
    let packets = stage.packets(&here, "short.flac", "high").await;
    let told = stage.play(&here, json!({ "path": "short.flac", "quality": "high" })).await;
    assert_eq!((&told["path"], &told["by"]), (&json!("short.flac"), &json!(stage.owner.user.id)));
    assert_eq!(told["duration_ms"], 2_000);
    let mut users = Vec::new();
    for listener in &mut listeners {
        let (user, frames, reason) = hear_out(listener).await;
        assert_eq!(reason, LeaveReason::Left, "at the file's end");
        let (last, sounding) = frames.split_last().expect("frames");
        assert_eq!(
            (sounding[0].header.kind(), last.header.kind()),
            (Some(FrameKind::AudioStart), Some(FrameKind::AudioStop))
        );
        assert_eq!(sounding.len(), packets.len(), "all of them");
        for (frame, packet) in sounding.iter().zip(&packets) {
            assert!(frame.bytes == *packet, "packet {} is the file's", frame.header.sequence);
            assert_eq!(frame.header.timestamp, u32::from(frame.header.sequence) * 960);
        }
        // ffmpeg's sine has an amplitude of an eighth: some -21 dB of full scale.
        let level = sounding[sounding.len() / 2].header.level;
        assert!((19..=23).contains(&level), "{level}");
        users.push(user);
    }
    assert_eq!(users[0], users[1]);
    assert_eq!(told["user_id"], json!(users[0]));
    // By whichever node it is asked about and stopped.
    stage.play(&there, json!({ "path": "long.flac", "quality": "low", "repeat": true })).await;
    until_heard(&mut listeners[0]).await;
    let (status, shown) = stage.shown(&here).await;
    assert_eq!((status, &shown["repeat"], &shown["quality"]), (StatusCode::OK, &json!(true), &json!("low")), "{shown}");
    assert!(shown["position_ms"].as_u64().expect("a number") < 60_000);
    assert_eq!(stage.stop(&here).await, StatusCode::OK);
    assert_eq!(until_left(&mut listeners[1]).await, LeaveReason::Kicked);
    assert_eq!(stage.shown(&there).await.0, StatusCode::NOT_FOUND);
    assert_eq!(stage.stop(&there).await, StatusCode::NOT_FOUND);
}

/// The frames that come until a spurt ends.
async fn rest_of_spurt(person: &mut Person) -> Vec<HeardFrame> {
    let mut frames = Vec::new();
    loop {
        let Came::Frame(frame) = came(person).await else { panic!("it goes on") };
        if frame.header.kind() == Some(FrameKind::AudioStop) {
            return frames;
        }
        frames.push(frame);
    }
}

/// Frames are a file's packets from there on, bit for bit.
fn check_packets(frames: &[HeardFrame], packets: &[Vec<u8>]) {
    assert!(frames.len() <= packets.len(), "{} of {}", frames.len(), packets.len());
    for (index, (frame, packet)) in frames.iter().zip(packets).enumerate() {
        assert!(frame.bytes == *packet, "packet {index} from there on");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_played_waits_goes_on_where_it_was_and_goes_elsewhere() {
    let folder = Stage::folder();
    let cluster = Nodes::start_with(2, &[("AUDIO_DIR", folder.path().to_str().expect("text"))]).await;
    let (here, there) = (cluster.nodes[0].url(), cluster.nodes[1].url());
    let stage = Stage::on(here.clone(), folder, 10).await;
    let mut listener = Person::join(&cluster.nodes[0], "listener", stage.channel).await;
    listener.udp_becomes(true).await;
    let packets = stage.packets(&here, "short.flac", "high").await;
    stage.play(&here, json!({ "path": "short.flac", "quality": "high" })).await;
    until_heard(&mut listener).await;
    // Asked of the node that does not play it.
    let (status, paused) = stage.change(&there, json!({ "paused": true })).await;
    assert_eq!((status, &paused["paused"]), (StatusCode::OK, &json!(true)), "{paused}");
    let first = rest_of_spurt(&mut listener).await;
    let played = first.len() + 1;
    assert_eq!(paused["position_ms"], played * 20, "as far as it was said");
    check_packets(&first, &packets[1..]);
    // While it waits nothing comes, however long that is, and it stays where it is.
    let (waited, quiet) = (Duration::from_secs(1), came(&mut listener));
    assert!(timeout(waited, quiet).await.is_err(), "something comes of what is paused");
    assert_eq!(stage.shown(&there).await.1["position_ms"], paused["position_ms"]);
    let (_, resumed) = stage.change(&here, json!({ "paused": false })).await;
    assert_eq!(resumed["paused"], false);
    let Came::Frame(again) = came(&mut listener).await else { panic!("it goes on") };
    assert_eq!((again.header.kind(), &again.bytes), (Some(FrameKind::AudioStart), &packets[played]), "where it was");
    let passed = again.header.timestamp - u32::try_from(played).expect("few") * 960;
    assert!(passed >= 48_000, "a second has passed for listeners: {passed}");
    // Ahead while it plays, and to the end.
    let (status, _) = stage.change(&there, json!({ "position_ms": 1_500 })).await;
    assert_eq!(status, StatusCode::OK);
    check_packets(&rest_of_spurt(&mut listener).await, &packets[played + 1..]);
    let rest = rest_of_spurt(&mut listener).await;
    assert_eq!(rest[0].header.kind(), Some(FrameKind::AudioStart));
    assert_eq!(rest.len(), packets.len() - 75, "from the packet at 1.5 s to the last");
    check_packets(&rest, &packets[75..]);
    assert_eq!(until_left(&mut listener).await, LeaveReason::Left);
    assert_eq!(stage.change(&here, json!({ "paused": true })).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_pause_where_to_seek_and_what_is_written_down_of_it() {
    let folder = Stage::folder();
    let server = Process::start(&[("AUDIO_DIR", folder.path().to_str().expect("text"))]).await;
    let url = server.url();
    let stage = Stage::on(url.clone(), folder, 10).await;
    let rest = Rest::new(url.clone()).expect("a client");
    let stranger = rest.guest("stranger").await.expect("a guest");
    let mut listener = Person::join(&server, "listener", stage.channel).await;
    listener.udp_becomes(true).await;
    assert_eq!(stage.change(&url, json!({ "paused": true })).await.0, StatusCode::NOT_FOUND, "nothing is played");
    stage.play(&url, json!({ "path": "short.flac", "quality": "low", "repeat": true })).await;
    let packets = stage.packets(&url, "short.flac", "low").await;
    until_heard(&mut listener).await;
    let (status, _) = stage.change_as(&stranger.access_token, &url, json!({ "paused": true })).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    for nonsense in [json!({}), json!({ "position_ms": 2_000 }), json!({ "position_ms": u64::MAX })] {
        let (status, told) = stage.change(&url, nonsense.clone()).await;
        assert_eq!((status, &told["error_code"]), (StatusCode::BAD_REQUEST, &json!("INVALID_INPUT")), "{nonsense}");
    }
    // Paused and sought at once: it waits there, and repeats from its beginning at its end.
    let (_, told) = stage.change(&url, json!({ "paused": true, "position_ms": 1_930 })).await;
    assert_eq!((&told["paused"], &told["position_ms"]), (&json!(true), &json!(1_930)));
    rest_of_spurt(&mut listener).await;
    stage.change(&url, json!({ "paused": false })).await;
    let mut wanted = packets[96..].iter().chain(&packets);
    for _ in 0..packets.len() {
        let Came::Frame(frame) = came(&mut listener).await else { panic!("it goes on") };
        assert!(frame.bytes == *wanted.next().expect("endless"), "{:?}", frame.header);
    }
    // Whoever is removed while they wait is gone.
    stage.change(&url, json!({ "paused": true })).await;
    assert_eq!(stage.stop(&url).await, StatusCode::OK);
    assert_eq!(until_left(&mut listener).await, LeaveReason::Kicked);
    assert_eq!(stage.shown(&url).await.0, StatusCode::NOT_FOUND);
    let audit = http().get(url.http("/api/advanced/admin/audit")).bearer_auth(&stage.owner.access_token);
    let audit = audit.send().await.expect("answered").text().await.expect("text");
    assert_eq!(audit.matches("playback.change").count(), 3, "{audit}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_killed_leaves_no_player_behind() {
    let folder = Stage::folder();
    let mut cluster = Nodes::start_with(2, &[("AUDIO_DIR", folder.path().to_str().expect("text"))]).await;
    let (here, there) = (cluster.nodes[0].url(), cluster.nodes[1].url());
    let stage = Stage::on(here.clone(), folder, 10).await;
    let mut listener = Person::join(&cluster.nodes[0], "here", stage.channel).await;
    listener.udp_becomes(true).await;
    stage.play(&there, json!({ "path": "long.flac", "quality": "low" })).await;
    until_heard(&mut listener).await;
    cluster.nodes[1].kill();
    assert_eq!(until_left(&mut listener).await, LeaveReason::Timeout);
    assert_eq!(stage.shown(&here).await.0, StatusCode::NOT_FOUND);
    // And its place is free for another.
    stage.play(&here, json!({ "path": "long.flac", "quality": "low" })).await;
    until_heard(&mut listener).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_play_how_much_at_once_and_in_place_of_what() {
    let folder = Stage::folder();
    let settings = [("AUDIO_DIR", folder.path().to_str().expect("text")), ("ANTIPHON_LIMITS__PLAYBACKS", "1")];
    let mut server = Process::start(&settings).await;
    let url = server.url();
    let stage = Stage::on(url.clone(), folder, 2).await;
    let rest = Rest::new(url.clone()).expect("a client");
    let stranger = rest.guest("stranger").await.expect("a guest");
    let long = json!({ "path": "long.flac", "quality": "low" });
    assert_eq!(stage.play_as(&stranger.access_token, &url, long.clone()).await.status(), StatusCode::FORBIDDEN);
    for (body, status) in [
        (json!({ "path": "none.flac" }), StatusCode::NOT_FOUND),
        (json!({ "path": "long.flac", "quality": "best" }), StatusCode::BAD_REQUEST),
    ] {
        assert_eq!(stage.play_as(&stage.owner.access_token, &url, body).await.status(), status);
    }
    let mut listener = Person::join(&server, "listener", stage.channel).await;
    listener.udp_becomes(true).await;
    stage.play(&url, long.clone()).await;
    until_heard(&mut listener).await;
    // It has the other place.
    let late = antiphon_loadtest::client::Client::connect(antiphon_loadtest::gateway::GatewayConfig {
        server: url.clone(),
        others: Vec::new(),
        encoding: antiphon_core::gateway::Encoding::Json,
        identity: antiphon_loadtest::gateway::Identity::Guest("late".to_owned()),
    });
    let (late, _events) = late.await.expect("connected");
    let full = late.join(crate::support::people::how_to_join(stage.channel)).await.expect_err("no place");
    assert!(full.to_string().contains("CHANNEL_FULL"), "{full}");
    // Another file takes its place, in the channel and on the node.
    stage.play(&url, json!({ "path": "short.flac", "quality": "low" })).await;
    assert_eq!(until_left(&mut listener).await, LeaveReason::Replaced);
    let new = NewChannel { name: "other".to_owned(), max_users: None, max_speakers: None };
    let other = rest.create_channel(&stage.owner.access_token, &new).await.expect("created").id;
    let other = Stage { owner: stage.owner.clone(), channel: other, folder: Scratch::new() };
    until_heard(&mut listener).await;
    let busy = other.play_as(&stage.owner.access_token, &url, long.clone()).await;
    assert_eq!(busy.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(until_left(&mut listener).await, LeaveReason::Left);
    // A moderator removes it as they do anybody.
    let told = stage.play(&url, long.clone()).await;
    until_heard(&mut listener).await;
    let kick = http().post(url.http(&format!("/api/channels/{}/kick", stage.channel)));
    let kick = kick.bearer_auth(&stage.owner.access_token).json(&json!({ "user_id": told["user_id"] }));
    assert_eq!(kick.send().await.expect("answered").status(), StatusCode::OK);
    assert_eq!(until_left(&mut listener).await, LeaveReason::Kicked);
    // It ends by itself where who began it may play there no longer.
    let moderator = rest.register("moderator", "a long enough password").await.expect("registered");
    let member = url.http(&format!("/api/channels/{}/members/{}", stage.channel, moderator.user.id));
    let promote = http().put(member.clone()).bearer_auth(&stage.owner.access_token);
    let promoted = promote.json(&json!({ "role": "moderator" })).send().await.expect("answered");
    assert_eq!(promoted.status(), StatusCode::OK);
    assert_eq!(stage.play_as(&moderator.access_token, &url, long.clone()).await.status(), StatusCode::CREATED);
    until_heard(&mut listener).await;
    let removed = http().delete(member).bearer_auth(&stage.owner.access_token).send().await.expect("answered");
    assert_eq!(removed.status(), StatusCode::OK);
    assert_eq!(until_left(&mut listener).await, LeaveReason::Left);
    assert_eq!(stage.shown(&url).await.0, StatusCode::NOT_FOUND);
    stage.play(&url, long).await;
    until_heard(&mut listener).await;
    server.signal("TERM");
    let ends = async { while !matches!(came(&mut listener).await, Came::Left(LeaveReason::Left)) {} };
    timeout(PATIENCE, ends).await.expect("it ends where the node drains");
    drop((listener, late));
    server.ended().await;
    assert!(stage.folder.path().exists());
}
