//! Figures of the advanced and the metrics API: people who talk move every one of them, and a counter says what was sent.

use std::collections::BTreeSet;

use antiphon::settings::Settings;
use serde_json::{Value, json};

use crate::{
    Database,
    client::{Client, eventually_json, keys},
    live::{FRAMES, Talker},
    run, run_on,
    support::databases::TestDatabase,
};

fn as_configured(_: &mut Settings) {}

/// Asserts the keys of a value, and of the values at paths below it.
#[track_caller]
fn shape(value: &Value, wanted: &[(&str, &[&str])]) {
    for (path, wanted) in wanted {
        let found = value.pointer(path).unwrap_or_else(|| panic!("{path} in {value}"));
        let mut wanted = wanted.to_vec();
        wanted.sort_unstable();
        assert_eq!(keys(found), wanted, "{path}");
    }
}

fn number(value: &Value, path: &str) -> f64 {
    value.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("{path} in {value}"))
}

/// Two people in a channel, one of whom speaks for a second.
async fn talk(nobody: &Client) -> (Client, Client, String, Talker, Talker) {
    let (anna, ben) = (nobody.register("anna").await, nobody.guest("ben").await);
    let id = anna.channel("General", false).await;
    let (mut speaker, mut listener) = (Talker::connect(&anna).await, Talker::connect(&ben).await);
    speaker.join(&id).await.expect("there is room");
    listener.join(&id).await.expect("there is room");
    speaker.until_udp().await;
    listener.until_udp().await;
    speaker.speak(&id).await;
    (anna, ben, id, speaker, listener)
}

#[tokio::test]
async fn what_was_sent_is_what_the_figures_say() {
    let database = TestDatabase::sqlite();
    let (mut anna_id, mut channel_id) = (String::new(), String::new());
    run_on(&database, as_configured, async |nobody: &Client| {
        let (anna, ben, id, speaker, listener) = talk(nobody).await;
        let path = format!("/api/advanced/channels/{id}/statistics");
        let frames = json!(FRAMES);
        let channel = eventually_json(&anna, &path, |found| {
            found["audio_stats"]["packets_received"] == frames && !found["audio_stats"]["audio_quality_score"].is_null()
        })
        .await;
        shape(
            &channel,
            &[
                (
                    "",
                    &[
                        "channel_id",
                        "current_users",
                        "total_connections",
                        "uptime_seconds",
                        "audio_stats",
                        "performance_stats",
                    ],
                ),
                (
                    "/audio_stats",
                    &[
                        "packets_sent",
                        "packets_received",
                        "bytes_transferred",
                        "average_latency_ms",
                        "packet_loss_rate",
                        "audio_quality_score",
                        "jitter_ms",
                    ],
                ),
                (
                    "/performance_stats",
                    &["cpu_usage_percent", "memory_usage_mb", "active_streams", "processing_latency_us"],
                ),
            ],
        );
        assert_eq!((&channel["channel_id"], &channel["current_users"]), (&json!(id), &json!(2)));
        assert_eq!((&channel["total_connections"], &channel["audio_stats"]["packets_sent"]), (&json!(2), &frames));
        assert!(number(&channel, "/audio_stats/bytes_transferred") > f64::from(FRAMES) * 160.0);
        assert_eq!(number(&channel, "/audio_stats/packet_loss_rate"), 0.0);
        assert!((0.5..=1.0).contains(&number(&channel, "/audio_stats/audio_quality_score")));
        assert!(number(&channel, "/performance_stats/cpu_usage_percent") > 0.0);
        assert!(number(&channel, "/performance_stats/memory_usage_mb") > 1.0);
        assert!(number(&channel, "/performance_stats/processing_latency_us") > 0.0);

        let server = anna.get("/api/advanced/statistics/server").await.json();
        shape(
            &server,
            &[
                (
                    "",
                    &[
                        "total_users",
                        "active_users",
                        "total_channels",
                        "active_channels",
                        "uptime_seconds",
                        "total_audio_packets",
                        "total_data_transferred_mb",
                        "system_stats",
                    ],
                ),
                (
                    "/system_stats",
                    &["cpu_usage_percent", "memory_usage_mb", "network_throughput_mbps", "active_connections"],
                ),
            ],
        );
        assert_eq!((&server["total_users"], &server["active_users"]), (&json!(2), &json!(2)));
        assert_eq!((&server["total_channels"], &server["active_channels"]), (&json!(1), &json!(1)));
        assert_eq!(server["total_audio_packets"], frames);
        let megabytes = number(&channel, "/audio_stats/bytes_transferred") / 1e6;
        assert!((number(&server, "/total_data_transferred_mb") - megabytes).abs() < 1e-9);
        assert_eq!(server["system_stats"]["active_connections"], 2);
        assert!(number(&server, "/system_stats/memory_usage_mb") > 1.0);

        let user = |who: &Client| format!("/api/advanced/users/{}/statistics", who.id());
        let of_anna = anna.get(&user(&anna)).await.expect(200)["data"].clone();
        assert_eq!((&of_anna["packets_sent"], &of_anna["bytes_sent"]), (&frames, &json!(FRAMES * 80)));
        assert_eq!((&of_anna["total_connections"], &of_anna["channels_owned"]), (&json!(1), &json!(1)));
        assert!(number(&of_anna, "/voice_seconds") >= 1.0 && of_anna["last_voice_at"].is_string());
        let of_ben = anna.get(&user(&ben)).await.expect(200)["data"].clone();
        assert_eq!((&of_ben["packets_sent"], &of_ben["channels_joined"]), (&json!(0), &json!(0)));
        (anna_id, channel_id) = (anna.id().to_owned(), id);
        speaker.voice.close().await;
        listener.voice.close().await;
    })
    .await;
    // What was counted outlives the process, and what came last before it stopped is in it.
    run_on(&database, as_configured, async |nobody: &Client| {
        let carl = nobody.register("carl").await;
        let channel = carl.get(&format!("/api/advanced/channels/{channel_id}/statistics")).await.json();
        assert_eq!(
            (&channel["audio_stats"]["packets_received"], &channel["current_users"]),
            (&json!(FRAMES), &json!(0))
        );
        let user = carl.get(&format!("/api/advanced/users/{anna_id}/statistics")).await.expect(200)["data"].clone();
        assert_eq!(user["packets_sent"], FRAMES);
        assert!(number(&user, "/voice_seconds") >= 1.0);
    })
    .await;
}

#[tokio::test]
async fn metrics_move_with_what_happens() {
    run(Database::Sqlite, as_configured, async |nobody: &Client| {
        let (anna, _ben, id, speaker, listener) = talk(nobody).await;
        let spoken = async {
            loop {
                speaker.speak(&id).await;
            }
        };
        let seen = async {
            let current = eventually_json(&anna, "/api/metrics/current", |found| {
                let rate = &found["data"]["network_metrics"]["packets_received_per_second"];
                (40..=60).contains(&rate.as_u64().expect("a rate"))
                    && !found["data"]["audio_metrics"]["audio_quality_score"].is_null()
            });
            let current = current.await;
            check_current(&current["data"]);
            check_parts(&anna, &current["data"]).await;
            // Points are taken every five seconds; the first one is older than the talk.
            let history = eventually_json(&anna, "/api/metrics/history", |found| {
                let points = found["data"]["points"].as_array().expect("a list");
                points.last().is_some_and(|last| last["audio_metrics"]["active_users"] == 2)
            });
            check_history(&anna, &history.await["data"]).await;
        };
        tokio::select! {
            () = spoken => {}
            () = seen => {}
        }
        speaker.voice.close().await;
        listener.voice.close().await;
        eventually_json(&anna, "/api/metrics/current", |found| {
            let found = &found["data"];
            found["audio_metrics"]["active_channels"] == 0 && found["network_metrics"]["connection_count"] == 0
        })
        .await;
    })
    .await;
}

fn check_current(current: &Value) {
    shape(
        current,
        &[
            ("", &["timestamp", "audio_metrics", "performance_metrics", "network_metrics", "system_health"]),
            (
                "/audio_metrics",
                &[
                    "active_channels",
                    "active_users",
                    "average_latency_ms",
                    "packet_loss_percentage",
                    "audio_quality_score",
                ],
            ),
            ("/performance_metrics", &["cpu_usage_percent", "memory_usage_mb", "thread_pool_utilization"]),
            ("/network_metrics", &["packets_received_per_second", "packets_sent_per_second", "connection_count"]),
            ("/system_health", &["overall_health_score", "uptime_seconds"]),
        ],
    );
    let audio = &current["audio_metrics"];
    assert_eq!((&audio["active_channels"], &audio["active_users"]), (&json!(1), &json!(2)));
    assert_eq!(audio["packet_loss_percentage"], 0.0);
    assert!((0.5..=1.0).contains(&number(audio, "/audio_quality_score")));
    assert!(number(current, "/performance_metrics/cpu_usage_percent") > 0.0);
    assert!(number(current, "/performance_metrics/memory_usage_mb") > 1.0);
    assert!(number(current, "/performance_metrics/thread_pool_utilization") > 0.0);
    assert!(number(current, "/network_metrics/packets_sent_per_second") > 0.0);
    assert_eq!(current["network_metrics"]["connection_count"], 2);
    assert!(current["timestamp"].as_u64().expect("Unix seconds") > 1_700_000_000);
}

async fn check_parts(client: &Client, current: &Value) {
    for (part, figures) in
        [("audio", "audio_metrics"), ("performance", "performance_metrics"), ("network", "network_metrics")]
    {
        let found = client.get(&format!("/api/metrics/component/{part}")).await.expect(200)["data"].clone();
        assert_eq!(found["component"], part);
        assert_eq!(keys(&found["metrics"]), keys(&current[figures]));
    }
    client.get("/api/metrics/component/weather").await.expect_error(404, "NOT_FOUND");
    let summary = client.get("/api/metrics/summary").await.expect(200)["data"].clone();
    assert_eq!(
        (&summary["active_users"], &summary["nodes"], &summary["connection_count"]),
        (&json!(2), &json!(1), &json!(2))
    );
    let health = client.get("/api/metrics/health").await.expect(200)["data"].clone();
    assert_eq!((&health["nodes"][0]["active_users"], &health["nodes"][0]["state"]), (&json!(2), &json!("serving")));
    let components: BTreeSet<&str> = health["components"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|part| part["component"].as_str().expect("text"))
        .collect();
    assert_eq!(components, BTreeSet::from(["audio", "network", "nodes", "performance", "signalling"]));
}

async fn check_history(client: &Client, history: &Value) {
    shape(history, &[("", &["node", "since", "interval_seconds", "points"])]);
    let points = history["points"].as_array().expect("a list");
    assert!(points.len() >= 2 && points[0]["audio_metrics"]["active_users"] == 0, "{history}");
    let last = client.get("/api/metrics/history?limit=1").await.expect(200)["data"]["points"].clone();
    assert_eq!(last.as_array().expect("a list").len(), 1);
    assert!(last[0]["timestamp"].as_u64() >= points[points.len() - 1]["timestamp"].as_u64(), "the newest");
    for wrong in ["limit=0", "limit=2001", "period=0", "period=86401", "limit=many"] {
        client.get(&format!("/api/metrics/history?{wrong}")).await.expect_error(400, "INVALID_INPUT");
    }
}

#[tokio::test]
async fn alerts_are_asked_for_by_severity_and_component() {
    run(Database::Sqlite, as_configured, async |nobody: &Client| {
        let anna = nobody.register("anna").await;
        assert_eq!(
            anna.get("/api/metrics/alerts?severity=info&component=audio&limit=5").await.expect(200)["data"],
            json!([])
        );
        for wrong in ["severity=bad", "component=weather", "limit=0", "limit=1001"] {
            anna.get(&format!("/api/metrics/alerts?{wrong}")).await.expect_error(400, "INVALID_INPUT");
        }
        for path in ["current", "history", "health", "alerts", "summary", "component/audio"] {
            nobody.get(&format!("/api/metrics/{path}")).await.expect_error(401, "UNAUTHENTICATED");
        }
    })
    .await;
}

#[tokio::test]
async fn a_reset_ends_sessions_and_totals_and_keeps_the_rest() {
    run(Database::Sqlite, as_configured, async |nobody: &Client| {
        let (anna, _ben, id, mut speaker, mut listener) = talk(nobody).await;
        let path = format!("/api/advanced/channels/{id}/statistics");
        eventually_json(&anna, &path, |found| found["audio_stats"]["packets_received"] == FRAMES).await;
        let done = anna.post("/api/advanced/admin/reset", json!({})).await.expect(200)["data"].clone();
        assert_eq!((&done["sessions_ended"], &done["nodes"], &done["nodes_failed"]), (&json!(2), &json!(1), &json!(0)));
        assert!(number(&done, "/statistics_deleted") >= 4.0, "a channel, two people and the server");
        assert_eq!((speaker.expect_close().await, listener.expect_close().await), (4009, 4009));
        let after = eventually_json(&anna, &path, |found| found["current_users"] == 0).await;
        assert_eq!((&after["audio_stats"]["packets_received"], &after["channel_id"]), (&json!(0), &json!(id)));
        let server = anna.get("/api/advanced/statistics/server").await.json();
        assert_eq!((&server["total_audio_packets"], &server["total_users"]), (&json!(0), &json!(2)));
    })
    .await;
}
