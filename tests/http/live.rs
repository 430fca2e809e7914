//! What the API does to those who are in voice: real clients on the gateway and UDP feel it and count in its figures.

use std::time::Duration;

use antiphon::settings::Settings;
use antiphon_core::{
    gateway::{Encoding, ErrorCode, JoinChannel, LeaveReason, MediaMode, MediaTransport, ServerMessage},
    ids::ChannelId,
    wire::frame::FrameKind,
};
use antiphon_loadtest::{
    client::{Client as VoiceClient, ClientError, ClientEvent, VoiceFrame},
    gateway::{GatewayConfig, Identity},
};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{
    sync::{Mutex, mpsc},
    time::timeout,
};

use crate::{
    Database,
    client::{Client, PASSWORD, eventually},
    run, run_on,
    support::databases::TestDatabase,
};

/// What arrives at all arrives within this time.
const PATIENCE: Duration = Duration::from_secs(30);

/// One second of speech.
pub(crate) const FRAMES: u32 = 50;

/// An account with a voice.
pub(crate) struct Talker {
    pub(crate) voice: VoiceClient,
    events: mpsc::Receiver<ClientEvent>,
}

impl Talker {
    pub(crate) async fn connect(account: &Client) -> Self {
        let config = GatewayConfig {
            server: account.base().parse().expect("a URL"),
            others: Vec::new(),
            encoding: Encoding::Json,
            identity: Identity::Token(account.token().to_owned()),
        };
        let (voice, events) = VoiceClient::connect(config).await.expect("the gateway takes it");
        Self { voice, events }
    }

    pub(crate) async fn join(&self, channel: &str) -> Result<(), ClientError> {
        let channel_id = channel.parse().expect("an id");
        let join = JoinChannel {
            channel_id,
            media: MediaTransport::Udp,
            mode: MediaMode::Forward,
            cipher: None,
            sample_rate: None,
            channels: None,
            invite: None,
        };
        self.voice.join(join).await.map(drop)
    }

    /// The next message that `pick` wants.
    async fn expect<T>(&mut self, pick: impl Fn(ServerMessage) -> Option<T>) -> T {
        let found = timeout(PATIENCE, async {
            loop {
                match self.events.recv().await.expect("the session goes on") {
                    ClientEvent::Message(message) => {
                        if let Some(found) = pick(*message) {
                            return found;
                        }
                    }
                    ClientEvent::Closed(closed) => panic!("{closed:?}"),
                    _ => {}
                }
            }
        });
        found.await.expect("the message comes")
    }

    async fn expect_removal(&mut self) -> (LeaveReason, Option<String>, Option<String>) {
        self.expect(|message| match message {
            ServerMessage::Removed(removed) => {
                Some((removed.reason, removed.by.map(|by| by.to_string()), removed.message))
            }
            _ => None,
        })
        .await
    }

    /// The code with which the server ends the session.
    pub(crate) async fn expect_close(&mut self) -> u16 {
        let closed = timeout(PATIENCE, async {
            loop {
                if let ClientEvent::Closed(closed) = self.events.recv().await.expect("the session goes on until then") {
                    return closed.code;
                }
            }
        });
        closed.await.expect("it ends")
    }

    /// Waits until frames go by UDP.
    pub(crate) async fn until_udp(&mut self) {
        let proven = timeout(PATIENCE, async {
            while !self.voice.stats().await.expect("the session goes on").udp_works {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        proven.await.expect("UDP works on loopback");
    }

    /// Speaks for a second at the pace of speech.
    pub(crate) async fn speak(&self, channel: &str) {
        let channel: ChannelId = channel.parse().expect("an id");
        let mut pace = tokio::time::interval(Duration::from_millis(20));
        for number in 0..FRAMES {
            pace.tick().await;
            let kind = if number == 0 { FrameKind::AudioStart } else { FrameKind::Audio };
            let frame = VoiceFrame { kind, flags: 0, level: 20, timestamp: number * 960, bytes: vec![0xfc; 80] };
            self.voice.send(channel, frame).await.expect("sent");
        }
    }
}

fn as_configured(_: &mut Settings) {}

#[tokio::test]
async fn an_offer_that_cannot_be_read_leaves_its_account_where_it_is() {
    run(Database::Sqlite, as_configured, async |nobody: &Client| {
        let anna = nobody.register("anna").await;
        let id = anna.channel("General", false).await;
        let speaker = Talker::connect(&anna).await;
        speaker.join(&id).await.expect("there is room");
        for way in ["whip", "whep"] {
            let offer = anna.request(Method::POST, &format!("/{way}/{id}")).header("content-type", "application/sdp");
            anna.send(offer.body("v=0")).await.expect_error(400, "INVALID_INPUT");
            assert_eq!(anna.get(&format!("/api/channels/{id}")).await.expect(200)["data"]["current_users"], 1);
        }
    })
    .await;
}

#[tokio::test]
async fn speech_shows_in_the_figures() {
    run(Database::Sqlite, as_configured, async |nobody: &Client| {
        let (anna, ben) = (nobody.register("anna").await, nobody.guest("ben").await);
        let id = anna.channel("General", false).await;
        let path = format!("/api/channels/{id}");
        let (mut speaker, mut listener) = (Talker::connect(&anna).await, Talker::connect(&ben).await);
        speaker.join(&id).await.expect("there is room");
        listener.join(&id).await.expect("there is room");
        speaker.until_udp().await;
        listener.until_udp().await;
        assert_eq!(anna.get(&path).await.expect(200)["data"]["current_users"], 2);
        let members = anna.get(&format!("{path}/members")).await.expect(200)["data"].clone();
        assert_eq!((&members[0]["role"], &members[0]["voice"]["media"]), (&json!("owner"), &json!("udp")));
        assert_eq!((&members[1]["role"], &members[1]["voice"]["muted"]), (&Value::Null, &json!(false)));
        assert_eq!(members[1]["user"], ben.user);

        speaker.speak(&id).await;
        let stats = eventually(&anna, &format!("{path}/audio/stats"), |stats| {
            stats["packets_received"] == FRAMES && !stats["audio_quality_score"].is_null()
        })
        .await;
        assert_eq!(stats["packets_sent"], FRAMES, "one listener");
        assert_eq!((&stats["current_users"], &stats["total_connections"]), (&json!(2), &json!(2)));
        assert!(stats["bytes_transferred"].as_u64().expect("counted") > u64::from(FRAMES) * 160);
        assert_eq!(stats["packet_loss_rate"], 0.0);
        assert!((0.0..1_000.0).contains(&stats["average_latency_ms"].as_f64().expect("reported")));
        assert!((0.0..1_000.0).contains(&stats["jitter_ms"].as_f64().expect("measured")));
        assert!((0.5..=1.0).contains(&stats["audio_quality_score"].as_f64().expect("rated")));

        let health = nobody.get("/health/detailed").await.expect(200)["data"]["activity"].clone();
        assert_eq!(
            (&health["channels"], &health["members"], &health["udp_sessions_proven"]),
            (&json!(1), &json!(2), &json!(2))
        );
        assert_eq!((&health["frames_received"], &health["frames_delivered"]), (&json!(FRAMES), &json!(FRAMES)));
        speaker.voice.close().await;
        listener.voice.close().await;
        eventually(&anna, &path, |channel| channel["current_users"] == 0).await;
    })
    .await;
}

#[tokio::test]
async fn switching_an_account_off_ends_its_sessions() {
    run(Database::Sqlite, as_configured, async |nobody: &Client| {
        let (admin, ben) = (nobody.register("admin").await, nobody.register("ben").await);
        let id = admin.channel("General", false).await;
        let mut talker = Talker::connect(&ben).await;
        talker.join(&id).await.expect("there is room");
        let account = format!("/api/users/{}", ben.id());
        ben.put(&account, json!({"is_active": true})).await.expect_error(403, "PERMISSION_DENIED");
        let own = format!("/api/users/{}", admin.id());
        admin.put(&own, json!({"is_active": false})).await.expect_error(403, "PERMISSION_DENIED");

        let off = admin.put(&account, json!({"is_active": false})).await.expect(200);
        assert_eq!(off["data"]["is_active"], false);
        let closed = timeout(PATIENCE, async {
            loop {
                if let ClientEvent::Closed(closed) = talker.events.recv().await.expect("told before the end") {
                    return closed;
                }
            }
        });
        let closed = closed.await.expect("the session ends");
        assert_eq!((closed.code, closed.reconnect, closed.resume), (4014, false, false));
        eventually(&admin, &format!("/api/channels/{id}"), |channel| channel["current_users"] == 0).await;
        ben.get("/api/users/me").await.expect_error(401, "UNAUTHENTICATED");

        admin.put(&account, json!({"is_active": true})).await.expect(200);
        ben.get("/api/users/me").await.expect(200);
    })
    .await;
}

#[tokio::test]
async fn moderation_reaches_those_in_voice() {
    run(Database::Sqlite, as_configured, async |nobody: &Client| {
        let (anna, ben) = (nobody.register("anna").await, nobody.register("ben").await);
        let id = anna.channel("General", false).await;
        let path = format!("/api/channels/{id}");
        let (mut owner, mut troll) = (Talker::connect(&anna).await, Talker::connect(&ben).await);
        owner.join(&id).await.expect("there is room");
        troll.join(&id).await.expect("there is room");

        anna.post(&format!("{path}/mute"), json!({"user_id": ben.id(), "muted": true})).await.expect(200);
        for talker in [&mut owner, &mut troll] {
            let change = talker.expect(|message| match message {
                ServerMessage::VoiceStateChanged(change) => Some(change),
                _ => None,
            });
            let change = change.await;
            assert_eq!(
                (change.user_id.to_string(), change.by.to_string()),
                (ben.id().to_owned(), anna.id().to_owned())
            );
            assert!(change.server_muted && !change.muted);
        }

        let because = json!({"user_id": ben.id(), "reason": "too loud"});
        anna.post(&format!("{path}/kick"), because).await.expect(200);
        let by_anna = Some(anna.id().to_owned());
        let removal = troll.expect_removal().await;
        assert_eq!(removal, (LeaveReason::Kicked, by_anna.clone(), Some("too loud".to_owned())));
        troll.join(&id).await.expect("one who was kicked may come back");

        anna.post(&format!("{path}/ban"), json!({"user_id": ben.id()})).await.expect(200);
        assert_eq!(troll.expect_removal().await, (LeaveReason::Banned, by_anna, None));
        refused(troll.join(&id).await, ErrorCode::PermissionDenied);
        anna.delete(&format!("{path}/ban/{}", ben.id())).await.expect(200);
        troll.join(&id).await.expect("the ban is lifted");
        owner.voice.close().await;
        troll.voice.close().await;
    })
    .await;
}

#[tokio::test]
async fn changes_of_a_channel_hold_at_once() {
    run(Database::Sqlite, as_configured, async |nobody: &Client| {
        let (anna, ben) = (nobody.register("anna").await, nobody.guest("ben").await);
        let id = anna.channel("General", false).await;
        let path = format!("/api/channels/{id}");
        let (mut owner, mut guest) = (Talker::connect(&anna).await, Talker::connect(&ben).await);
        owner.join(&id).await.expect("there is room");
        anna.put(&path, json!({"max_users": 1})).await.expect(200);
        refused(guest.join(&id).await, ErrorCode::ChannelFull);
        anna.put(&path, json!({"max_users": 2, "is_private": true})).await.expect(200);
        refused(guest.join(&id).await, ErrorCode::ChannelNotFound);

        let member = format!("{path}/members/{}", ben.id());
        anna.put(&member, json!({"priority": true})).await.expect(200);
        guest.join(&id).await.expect("a member sees it");
        anna.delete(&member).await.expect(200);
        assert_eq!(guest.expect_removal().await.0, LeaveReason::Kicked, "for a stranger it does not exist");
        refused(guest.join(&id).await, ErrorCode::ChannelNotFound);

        anna.delete(&path).await.expect(200);
        assert_eq!(owner.expect_removal().await.0, LeaveReason::Kicked);
        refused(owner.join(&id).await, ErrorCode::ChannelNotFound);
        owner.voice.close().await;
        guest.voice.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_mute_survives_a_restart() {
    for database in [TestDatabase::sqlite(), TestDatabase::postgres().await] {
        let kept = Mutex::new((String::new(), String::new()));
        run_on(&database, as_configured, async |nobody: &Client| {
            let (anna, ben) = (nobody.register("anna").await, nobody.register("ben").await);
            let id = anna.channel("General", false).await;
            anna.post(&format!("/api/channels/{id}/mute"), json!({"user_id": ben.id(), "muted": true}))
                .await
                .expect(200);
            *kept.lock().await = (id, ben.id().to_owned());
        })
        .await;
        let (id, ben_id) = kept.lock().await.clone();
        for muted in [true, false] {
            run_on(&database, as_configured, async |nobody: &Client| {
                let (anna, ben) = (logged_in(nobody, "anna").await, logged_in(nobody, "ben").await);
                let talker = Talker::connect(&ben).await;
                talker.join(&id).await.expect("there is room");
                let members = anna.get(&format!("/api/channels/{id}/members")).await.expect(200)["data"].clone();
                let in_voice = members.as_array().expect("members").iter().find(|entry| entry["user_id"] == ben_id);
                assert_eq!(in_voice.expect("ben is in")["voice"]["server_muted"], muted);
                let lift = json!({"user_id": ben_id, "muted": false});
                anna.post(&format!("/api/channels/{id}/mute"), lift).await.expect(200);
                talker.voice.close().await;
            })
            .await;
        }
    }
}

/// An account that was registered before.
async fn logged_in(nobody: &Client, username: &str) -> Client {
    let credentials = json!({"username": username, "password": PASSWORD});
    let answer = nobody.post("/api/auth/login", credentials).await.expect(200);
    nobody.with_token(Some(answer["access_token"].as_str().expect("a token")))
}

#[tokio::test]
async fn a_channel_made_private_keeps_only_those_who_may_enter() {
    run(Database::Sqlite, as_configured, async |nobody: &Client| {
        let admin = nobody.register("admin").await;
        let (anna, ben, clara) =
            (nobody.register("anna").await, nobody.register("ben").await, nobody.guest("clara").await);
        let id = anna.channel("General", false).await;
        let path = format!("/api/channels/{id}");
        anna.put(&format!("{path}/members/{}", ben.id()), json!({})).await.expect(200);
        let mut talkers = Vec::new();
        for account in [&admin, &anna, &ben, &clara] {
            let talker = Talker::connect(account).await;
            talker.join(&id).await.expect("there is room");
            talkers.push(talker);
        }
        let mut clara_talks = talkers.pop().expect("clara");
        // Only what changes it to private removes anybody.
        anna.put(&path, json!({"max_users": 20})).await.expect(200);
        assert_eq!(anna.get(&path).await.expect(200)["data"]["current_users"], 4);

        let answer = anna.put(&path, json!({"is_private": true})).await.expect(200);
        assert_eq!(answer["data"]["current_users"], 3, "the answer counts those who are left");
        let (reason, by, message) = clara_talks.expect_removal().await;
        assert_eq!((reason, by), (LeaveReason::Kicked, Some(anna.id().to_owned())));
        assert!(message.expect("says why").contains("private"));
        refused(clara_talks.join(&id).await, ErrorCode::ChannelNotFound);
        let listed = anna.get(&format!("{path}/members")).await.expect(200)["data"].clone();
        let in_voice = listed.as_array().expect("members").iter().filter(|entry| !entry["voice"].is_null());
        let mut in_voice: Vec<&str> = in_voice.map(|entry| entry["user_id"].as_str().expect("an id")).collect();
        let mut allowed = [admin.id(), anna.id(), ben.id()];
        in_voice.sort_unstable();
        allowed.sort_unstable();
        assert_eq!(in_voice, allowed);
        // Those in voice come after the members, on whatever page.
        let last = anna.get(&format!("{path}/members?limit=1&offset=2")).await.expect(200)["data"].clone();
        assert_eq!((&last[0]["user_id"], &last[0]["role"]), (&json!(admin.id()), &Value::Null));
        for talker in talkers {
            talker.voice.close().await;
        }
        clara_talks.voice.close().await;
    })
    .await;
}

#[track_caller]
fn refused(outcome: Result<(), ClientError>, code: ErrorCode) {
    match outcome {
        Err(ClientError::Refused(error)) => assert_eq!(error.error_code, code, "{}", error.error),
        other => panic!("{other:?}"),
    }
}
