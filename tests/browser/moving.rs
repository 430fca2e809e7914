//! The server's own page behind a balancer, when the node that it is on goes away.

use std::time::Duration;

use serde_json::Value;

use crate::{
    chromium::{Chromium, PATIENCE, Page},
    rooms::metric,
    support::{balancer::Balancer, nodes::Nodes, process::Process},
    visitors::{LOUDNESS, click, come_in, enter, fill, sees},
};

/// Notes when packets of voice came, by all connections that the page ever makes, and every error that it shows.
const WATCH: &str = "(() => {
    const peers = [], Plain = RTCPeerConnection;
    window.RTCPeerConnection = class extends Plain {
        constructor(...settings) { super(...settings); peers.push(this); }
    };
    window.seen = { longest_gap_ms: 0, errors: [] };
    const counts = new Map();
    let last = performance.now(), begun = false;
    setInterval(async () => {
        for (const peer of peers.filter((peer) => peer.connectionState === 'connected')) {
            for (const report of (await peer.getStats()).values()) {
                if (report.type !== 'inbound-rtp' || report.kind !== 'audio') continue;
                const key = peers.indexOf(peer) + report.id;
                if (report.packetsReceived > (counts.get(key) ?? 0)) {
                    const now = performance.now();
                    if (begun) seen.longest_gap_ms = Math.max(seen.longest_gap_ms, now - last);
                    [last, begun] = [now, true];
                }
                counts.set(key, report.packetsReceived);
            }
        }
        seen.silent_ms = begun ? performance.now() - last : null;
    }, 50);
    window.forget = () => { seen.longest_gap_ms = 0; };
    new MutationObserver(() => {
        const shown = [...document.querySelectorAll('#notices .error')].map((error) => error.textContent);
        seen.errors.push(...shown.filter((error) => !seen.errors.includes(error)));
    }).observe(document.querySelector('#notices'), { childList: true, subtree: true });
})()";

/// Which of some nodes a visitor is on, who is there alone so far.
async fn node_with_a_session(cluster: &Nodes, among: &[usize]) -> usize {
    let wait = async {
        loop {
            for index in among {
                if metric(&cluster.nodes[*index], "antiphon_gateway_sessions").await > 0.0 {
                    return *index;
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("it is on one of them")
}

/// Two visitors talk through a balancer, and the node of the first goes away: how long each heard nothing, in milliseconds.
async fn gaps_when_a_node_goes(go: impl FnOnce(&mut Nodes, usize)) -> [Value; 2] {
    let mut cluster = Nodes::start(2).await;
    let balancer = Balancer::start(&cluster.others(2)).await;
    let browser = Chromium::start().await;
    let home = balancer.url().http("/").to_string();
    let (anna, berta) = (browser.visit(&home).await, browser.visit(&home).await);
    for page in [&anna, &berta] {
        page.evaluate(WATCH).await;
    }
    come_in(&anna, "Anna").await;
    let leaves = node_with_a_session(&cluster, &[0, 1]).await;
    fill(&anna, "#create-name", "Tea").await;
    click(&anna, "#create-form button").await;
    sees(&anna, &["Anna"]).await;
    come_in(&berta, "Berta").await;
    enter(&berta, "Tea").await;
    for page in [&anna, &berta] {
        sees(page, &["Anna", "Berta"]).await;
        page.until(LOUDNESS, |loudness| loudness.as_f64() > Some(0.01)).await;
        page.until("seen.silent_ms", |silent| silent.as_f64() < Some(500.0)).await;
        page.evaluate("forget()").await;
    }
    go(&mut cluster, leaves);
    cluster.nodes[leaves].ended().await;
    let mut seen = Vec::new();
    for page in [&anna, &berta] {
        went_on(page).await;
        sees(page, &["Anna", "Berta"]).await;
        page.until(LOUDNESS, |loudness| loudness.as_f64() > Some(0.01)).await;
        seen.push(page.evaluate("seen").await);
    }
    seen.try_into().expect("two")
}

/// Waits until voice has come for a while again after a gap, or without one.
async fn went_on(page: &Page<'_>) {
    let look = "new Promise((resolve) => setTimeout(() => resolve(seen.silent_ms), 1000))";
    for _ in 0..3 {
        page.until(look, |silent| silent.as_f64() < Some(500.0)).await;
    }
}

fn gap(seen: &Value) -> Duration {
    Duration::from_secs_f64(seen["longest_gap_ms"].as_f64().expect("a number") / 1_000.0)
}

#[tokio::test]
async fn a_page_goes_on_elsewhere_when_its_node_is_drained_and_shows_no_error() {
    let seen = gaps_when_a_node_goes(|cluster, leaves| cluster.nodes[leaves].signal("TERM")).await;
    println!("after a drain: {seen:?}");
    for seen in &seen {
        assert_eq!(seen["errors"], serde_json::json!([]));
        assert!(gap(seen) < Duration::from_secs(10), "{seen}");
    }
}

#[tokio::test]
async fn a_page_talks_again_by_itself_when_its_node_is_killed() {
    let seen = gaps_when_a_node_goes(|cluster, leaves| cluster.nodes[leaves].kill()).await;
    println!("after a kill: {seen:?}");
    for seen in &seen {
        assert!(gap(seen) < Duration::from_secs(20), "{seen}");
    }
}

/// How the connection is said to be, and nothing where it is hidden.
const CONNECTION: &str = "(() => {
    const { hidden, dataset } = document.querySelector('#connection');
    return hidden ? null : dataset.state;
})()";

const PEOPLE_IN_TEA: &str = "document.querySelector('#channels .count')?.textContent";

/// Counts what the page sends by the types of its messages.
const COUNT_SENT: &str = "(() => {
    window.sent = {};
    const send = WebSocket.prototype.send;
    WebSocket.prototype.send = function (data) {
        const { type } = JSON.parse(data);
        sent[type] = (sent[type] ?? 0) + 1;
        return send.call(this, data);
    };
})()";

/// Kills the node that a page is on, with the others cut from Redis until the page has asked for its session for the second time and
/// `meanwhile` is over. Of `nodes` it leaves those that are left.
async fn goes_where_nobody_can_take_over(
    cluster: &mut Nodes,
    page: &Page<'_>,
    nodes: &mut Vec<usize>,
    meanwhile: impl AsyncFnOnce(),
) {
    let leaves = node_with_a_session(cluster, nodes).await;
    nodes.retain(|node| *node != leaves);
    let cut = |cluster: &Nodes, is_cut| nodes.iter().for_each(|node| cluster.cut_from_redis(*node, is_cut));
    cut(cluster, true);
    page.evaluate("sent.Resume = 0").await;
    cluster.nodes[leaves].kill();
    page.until("sent.Resume", |resumes| resumes.as_u64() >= Some(2)).await;
    meanwhile().await;
    cut(cluster, false);
    node_with_a_session(cluster, nodes).await;
}

#[tokio::test]
async fn a_page_asks_again_for_its_session_where_no_node_can_take_it_up_at_once() {
    let mut cluster = Nodes::start(4).await;
    let balancer = Balancer::start(&cluster.others(4)).await;
    let mut nodes = vec![0, 1, 2, 3];
    let browser = Chromium::start().await;
    let anna = browser.visit(balancer.url().http("/").as_str()).await;
    anna.evaluate(COUNT_SENT).await;
    come_in(&anna, "Anna").await;
    goes_where_nobody_can_take_over(&mut cluster, &anna, &mut nodes, async || {}).await;
    // In no channel, there is no connection to tell of.
    anna.until("document.querySelector('#connection').hidden", |is_hidden| *is_hidden == true).await;
    fill(&anna, "#create-name", "Tea").await;
    click(&anna, "#create-form button").await;
    anna.until(CONNECTION, |state| state == "good").await;
    let is_said_to_be_lost = async || {
        // Meanwhile ways of voice are looked at, which may stand still.
        anna.until("sent.Resume", |resumes| resumes.as_u64() >= Some(5)).await;
        assert_eq!(anna.evaluate(CONNECTION).await, "bad");
    };
    goes_where_nobody_can_take_over(&mut cluster, &anna, &mut nodes, is_said_to_be_lost).await;
    anna.until(CONNECTION, |state| state == "good").await;
    sees(&anna, &["Anna"]).await;
    // Who leaves without a connection has left once there is one.
    assert_eq!(anna.evaluate("sent.leave ?? 0").await, 0);
    goes_where_nobody_can_take_over(&mut cluster, &anna, &mut nodes, async || click(&anna, "#leave").await).await;
    anna.until(CONNECTION, Value::is_null).await;
    anna.until(PEOPLE_IN_TEA, |count| count == "0/10").await;
    assert_eq!(anna.evaluate("sent.Authenticate").await, 1, "it is the same session");
}

#[tokio::test]
async fn a_page_goes_on_while_the_only_node_waits_to_stop() {
    let server = Process::start(&[("ANTIPHON_SERVER__DRAIN_DEADLINE_S", "300")]).await;
    let browser = Chromium::start().await;
    let anna = browser.visit(server.url().http("/").as_str()).await;
    anna.evaluate(WATCH).await;
    anna.evaluate(
        "window.sockets = 0;
        window.WebSocket = class extends WebSocket {
            constructor(...settings) { super(...settings); window.sockets++; }
        }",
    )
    .await;
    come_in(&anna, "Anna").await;
    fill(&anna, "#create-name", "Tea").await;
    click(&anna, "#create-form button").await;
    sees(&anna, &["Anna"]).await;
    anna.until("document.querySelector('#chat').hidden", |hidden| hidden == false).await;
    server.signal("TERM");
    // It looks for another node, twice at least, and there is none.
    anna.until("window.sockets", |sockets| sockets.as_u64() > Some(2)).await;
    fill(&anna, "#message-text", "Still here?").await;
    click(&anna, "#message-form button.primary").await;
    let written = "[...document.querySelectorAll('#messages .text')].map((text) => text.textContent).join()";
    anna.until(written, |text| text == "Still here?").await;
    click(&anna, "#mute").await;
    let badges = "[...document.querySelectorAll('#people .badge')].map((badge) => badge.textContent).join()";
    anna.until(badges, |badges| badges.as_str().is_some_and(|badges| badges.contains("muted"))).await;
    assert_eq!(anna.evaluate("seen.errors").await, serde_json::json!([]));
}
