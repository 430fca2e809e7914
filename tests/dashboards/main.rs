//! The boards in `grafana/` and the rules in `deploy/prometheus/` ask for what there is: a real Prometheus scrapes real
//! servers with people in them, and every expression of every panel and rule is run. A metric or a label that is renamed
//! makes this fail.

#![allow(clippy::print_stdout, reason = "what is asked for is listed for those who read the test's output")]

#[path = "../support/mod.rs"]
mod support;

mod boards;
mod expressions;
mod load;
mod prometheus;
mod rules;

use std::{collections::BTreeSet, time::Duration};

use antiphon_loadtest::rest::Rest;
use boards::Board;
use expressions::{Expression, Wanted};
use load::Load;
use prometheus::Prometheus;
use serde_json::Value;
use support::{
    nodes::{Nodes, http},
    process::Process,
};

/// Far above what scrapes and evaluations every second need.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a node measures of Redis, and what a rule makes of that.
const REDIS_TIMES: [&str; 2] =
    ["antiphon_redis_operation_duration_seconds", "instance:antiphon_redis_operation_seconds:p99_rate5m"];

#[tokio::test(flavor = "multi_thread")]
async fn every_expression_has_data_in_a_cluster() {
    // So that what is written goes outside while the test lasts.
    let cluster = Nodes::start_with(2, &[("ANTIPHON_NOTIFY__WAIT_S", "0")]).await;
    let nodes: Vec<&Process> = cluster.nodes.iter().collect();
    check_every_expression(&nodes, Wanted::Number, &[]).await;
}

/// Some histograms are empty, so that quantiles are there and not numbers; Redis' times are not there at all.
#[tokio::test(flavor = "multi_thread")]
async fn every_expression_has_data_on_a_node_on_its_own() {
    // As in a cluster: how long it takes to send is measured once something is sent.
    let node = Process::start(&[("ANTIPHON_NOTIFY__WAIT_S", "0")]).await;
    check_every_expression(&[&node], Wanted::Series, &REDIS_TIMES).await;
}

/// Of expressions in which one of `lacking` stands nothing is wanted.
async fn check_every_expression(nodes: &[&Process], wanted: Wanted, lacking: &[&str]) {
    let prometheus = Prometheus::start(nodes).await;
    // Only what happens after the first scrape has a rate.
    prometheus.until_scraped(nodes.len()).await;
    let load = Load::begin(nodes).await;

    let mut expressions: Vec<Expression> = boards::all().iter().flat_map(|board| board.expressions(wanted)).collect();
    expressions.extend(prometheus.rules().await.iter().flat_map(|rule| rule.expressions(wanted)));
    expressions.retain(|expression| !lacking.iter().any(|name| expression.text.contains(name)));
    let selectors: BTreeSet<String> = expressions.iter().flat_map(Expression::selectors).collect();
    println!("{} expressions, {} selectors:", expressions.len(), selectors.len());
    let selectors = selectors.into_iter().map(Expression::of_selector);
    prometheus.until_all_have_data(expressions.into_iter().chain(selectors).collect(), PATIENCE).await;
    for rule in prometheus.rules().await {
        assert_eq!((rule.health.as_str(), rule.last_error.as_str()), ("ok", ""), "{}", rule.name);
    }
    load.end();
}

/// The alert that matters most in a cluster, from end to end, in Prometheus and in what the nodes themselves say; the
/// others' tests are promtool's.
#[tokio::test(flavor = "multi_thread")]
async fn the_alert_fires_while_redis_is_away() {
    let mut cluster = Nodes::start(2).await;
    let prometheus = Prometheus::start(&cluster.nodes.iter().collect::<Vec<_>>()).await;
    prometheus.until_scraped(2).await;
    let alert = "ALERTS{alertname=\"AntiphonRedisUnavailable\", alertstate=\"firing\"}";
    let becomes = async |condition: String| {
        let expression = Expression::new("alert".to_owned(), &condition, Wanted::Number);
        prometheus.until_all_have_data(vec![expression], PATIENCE).await;
    };
    let rest = Rest::new(cluster.nodes[0].url()).expect("a client");
    let token = rest.register("admin", "a long enough password").await.expect("registered").access_token;
    becomes(format!("absent({alert})")).await;
    nodes_tell_of(&cluster, &token, false).await;
    cluster.redis.kill();
    becomes(format!("count({alert}) == 2")).await;
    nodes_tell_of(&cluster, &token, true).await;
    cluster.redis.start_again(true);
    becomes(format!("absent({alert})")).await;
    nodes_tell_of(&cluster, &token, false).await;
}

/// Waits until every node lists the alert for itself, or none does for any.
async fn nodes_tell_of(cluster: &Nodes, token: &str, fires: bool) {
    for (index, node) in cluster.nodes.iter().enumerate() {
        let name = format!("node-{index}");
        let mut url = node.url().http("/api/metrics/alerts");
        url.set_query(Some("severity=critical&component=network"));
        let mut told = Value::Null;
        let asked = async {
            loop {
                let answer = http().get(url.clone()).bearer_auth(token).send().await.expect("answered");
                told = answer.json::<Value>().await.expect("JSON");
                let alerts = told["data"].as_array().unwrap_or_else(|| panic!("a list: {told}"));
                let its = |alert: &&Value| alert["name"] == "AntiphonRedisUnavailable";
                let own = alerts.iter().filter(its).find(|alert| alert["node"] == name.as_str());
                match own {
                    Some(alert) if fires => {
                        assert_eq!(alert["message"], format!("{name} cannot reach Redis"));
                        assert_eq!((&alert["severity"], &alert["component"]), (&"critical".into(), &"network".into()));
                        return;
                    }
                    None if !fires && alerts.is_empty() => return,
                    _ => tokio::time::sleep(Duration::from_millis(250)).await,
                }
            }
        };
        let done = tokio::time::timeout(PATIENCE, asked).await.is_ok();
        assert!(done, "{name}: the alert never was {fires}: {told}");
    }
}

#[test]
fn boards_are_alike_and_lead_to_each_other() {
    let boards = boards::all();
    assert!(boards.len() >= 6);
    let uids: BTreeSet<&str> = boards.iter().map(Board::uid).collect();
    assert_eq!(uids.len(), boards.len(), "each has a uid of its own");
    for board in &boards {
        board.check(&uids);
    }
}
