//! Listening sessions: what ranges, how much, how many; nobody's address.

use crate::{Streaming, client::PASSWORD, pattern, support::databases::TestDatabase};

#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_counted_completed_and_nobodys() {
    for database in [TestDatabase::sqlite(), TestDatabase::postgres().await] {
        let url = database.url();
        let streaming = Streaming::start(|settings| settings.database.url = Some(url.parse().expect("a URL"))).await;
        let root = streaming.nobody.register("root").await;
        streaming.put("a.mp3", &pattern(1_000_000));
        streaming.put("b.mp3", &pattern(1_000_000));
        let (a, b) = (streaming.link("a.mp3").await, streaming.link("b.mp3").await);
        let get = async |link: &str, program: &str, range: &str| {
            let request = streaming.nobody.request(reqwest::Method::GET, link);
            let answer = streaming.nobody.send(request.header("user-agent", program).header("range", range)).await;
            assert_eq!(answer.status.as_u16(), 206, "{}", answer.text);
        };
        // One player hears all of it in three parts, another a tenth; a third something else.
        for range in ["bytes=0-399999", "bytes=400000-899999", "bytes=900000-"] {
            get(&a, "one", range).await;
        }
        get(&a, "two", "bytes=500000-599999").await;
        get(&b, "one", "bytes=0-99999").await;
        let stats = async || root.get("/admin/stats?path=a.mp3").await.expect(200)["data"].clone();
        let live = stats().await;
        assert_eq!(live["live_listeners"], 3, "{live}");
        assert_eq!((&live["live"][0]["path"], &live["live"][0]["listeners"]), (&"a.mp3".into(), &2.into()));
        assert_eq!(live["totals"]["sessions"], 0, "none is over");

        // The server stops, which ends them all; the next one has them.
        streaming.stop().await;
        let again = Streaming::start(|settings| settings.database.url = Some(url.parse().expect("a URL"))).await;
        let body = serde_json::json!({"username": "root", "password": PASSWORD});
        let answer = again.nobody.post("/api/auth/login", body).await;
        let token = answer.expect(200)["access_token"].as_str().expect("a token").to_owned();
        let path = format!("/admin/stats?token={token}&path=a.mp3&days=1");
        let stats = again.nobody.get(&path).await.expect(200)["data"].clone();
        assert_eq!((&stats["live_listeners"], &stats["totals"]["sessions"]), (&0.into(), &3.into()), "{stats}");
        assert_eq!((&stats["totals"]["completed"], &stats["totals"]["completion_rate"]), (&1.into(), &0.333.into()));
        assert_eq!((&stats["totals"]["networks"], &stats["totals"]["sent_bytes"]), (&1.into(), &1_200_000.into()));
        assert_eq!((&stats["files"][0]["path"], &stats["files"][0]["sessions"]), (&"a.mp3".into(), &2.into()));
        let [day] = &stats["by_day"].as_array().expect("days")[..] else { panic!("one day: {stats}") };
        assert_eq!((&day["sessions"], &day["sent_bytes"]), (&3.into(), &1_200_000.into()), "{day}");
        assert!(day["day"].as_str().is_some_and(|day| day.ends_with("T00:00:00Z")), "{day}");
        assert_eq!(stats["days"], 1);
        assert_eq!((&stats["files"][0]["completed"], &stats["files"][1]["completed"]), (&1.into(), &0.into()));
        let session = &stats["sessions"][0];
        assert!(session["began_at"].as_str() <= session["ended_at"].as_str() && session["quality"] == "original");
        let sessions = stats["sessions"].as_array().expect("sessions");
        let mut heard: Vec<(f64, &str)> = sessions
            .iter()
            .map(|session| (session["heard"].as_f64().expect("a part"), session["ranges"].as_str().expect("ranges")))
            .collect();
        heard.sort_unstable_by(|one, other| one.0.total_cmp(&other.0));
        assert_eq!(heard, [(0.1, "500000-600000"), (1.0, "0-1000000")]);
        assert!(!stats.to_string().contains("127.0.0"), "{stats}");

        again.nobody.get("/admin/stats").await.expect_error(401, "UNAUTHENTICATED");
        again.nobody.get("/admin/stats?token=x").await.expect_error(401, "UNAUTHENTICATED");
        again.anna.get("/admin/stats").await.expect_error(403, "PERMISSION_DENIED");
        again.nobody.get(&format!("/admin/stats?token={token}&days=0")).await.expect_error(400, "INVALID_INPUT");
        again.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_kept_where_nothing_is_to_be() {
    let database = TestDatabase::sqlite();
    for _ in 0..2 {
        let streaming = Streaming::start(|settings| {
            settings.database.url = Some(database.url().parse().expect("a URL"));
            settings.streaming.listens_kept_days = 0;
        })
        .await;
        streaming.put("a.mp3", &pattern(1_000));
        streaming.nobody.get(&streaming.link("a.mp3").await).await;
        streaming.stop().await;
    }
    let store = antiphon::store::Store::open(&database.url()).await.expect("opens");
    let totals = store.listen_totals(time::OffsetDateTime::UNIX_EPOCH).await.expect("reads");
    assert_eq!(totals.listens, 0);
    store.close().await;
}
