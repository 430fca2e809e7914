//! Three nodes behind a balancer are started again one after the other, and nobody notices.

use std::time::{Duration, Instant};

use antiphon_core::{gateway::Encoding, ids::ChannelId};
use antiphon_loadtest::{
    ServerUrl,
    client::{Client, ClientError, ClientEvent},
    gateway::{Closed, ConnectionError, GatewayConfig, GatewayError, Identity},
};
use tokio::{sync::watch, task::JoinSet};

use crate::support::{
    balancer::Balancer,
    nodes::Nodes,
    people::{how_to_join, make_channel},
    talkers::{Talker, all_hear_each_other},
};

/// Somebody comes every so often, and stays so long.
const COMES_EVERY: Duration = Duration::from_millis(40);
const STAYS: Duration = Duration::from_secs(2);

/// A moved stream loses fewer frames than that.
const LOST_MAX: usize = 5;

/// Comes in by the balancer, joins, stays a while and leaves; what went wrong.
async fn visit(server: ServerUrl, name: String, channel: ChannelId) -> Result<(), String> {
    let config =
        GatewayConfig { server, others: Vec::new(), encoding: Encoding::Json, identity: Identity::Guest(name) };
    let (client, mut events) = loop {
        match Client::connect(config.clone()).await {
            Ok(connected) => break connected,
            // As the close code says.
            Err(GatewayError::Connection(ConnectionError::Closed(Closed { code: 4012, reconnect: true, .. }))) => {}
            Err(error) => return Err(format!("connect: {error}")),
        }
    };
    let mut left = Box::pin(tokio::time::sleep(STAYS));
    let mut join = Box::pin(client.join(how_to_join(channel)));
    let mut is_in = false;
    loop {
        tokio::select! {
            joined = &mut join, if !is_in => match joined {
                Ok(_) => is_in = true,
                // What was asked on a connection that was left is asked again on the next.
                Err(ClientError::Disconnected) => join.set(client.join(how_to_join(channel))),
                Err(error) => return Err(format!("join: {error}")),
            },
            event = events.recv() => match event {
                Some(ClientEvent::Closed(closed)) => return Err(format!("closed: {closed}")),
                Some(ClientEvent::Resumed(channels)) if is_in && channels.len() != 1 => {
                    return Err("not in the channel after a move".to_owned());
                }
                Some(ClientEvent::Resumed(_)) if !is_in => join.set(client.join(how_to_join(channel))),
                Some(_) => {}
                None => return Err("the session ended".to_owned()),
            },
            () = &mut left, if is_in => break,
        }
    }
    drop(join);
    client.close().await;
    Ok(())
}

/// Lets people come and go until told to stop; how many did, and what went wrong.
async fn traffic(server: ServerUrl, channel: ChannelId, stop: watch::Receiver<bool>) -> (usize, Vec<String>) {
    let (mut visits, mut number) = (JoinSet::new(), 0);
    let mut ticks = tokio::time::interval(COMES_EVERY);
    while !*stop.borrow() {
        ticks.tick().await;
        number += 1;
        visits.spawn(visit(server.clone(), format!("visitor-{number}"), channel));
    }
    let outcomes = visits.join_all().await;
    (outcomes.len(), outcomes.into_iter().filter_map(Result::err).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_start_again_one_after_the_other_and_nobody_is_refused_or_missed() {
    let mut cluster = Nodes::start(3).await;
    let channel = make_channel(&cluster.nodes[0], "lobby", 1_000).await;
    let busy = make_channel(&cluster.nodes[0], "busy", 1_000).await;
    let balancer = Balancer::start(&cluster.nodes.iter().map(|node| node.url()).collect::<Vec<_>>()).await;
    let resident = Talker::join_at(balancer.url(), Vec::new(), "resident", channel).await;
    let (stop, stopping) = watch::channel(false);
    let traffic = tokio::spawn(traffic(balancer.url(), busy, stopping));
    for index in 0..3 {
        restart(&mut cluster, index, channel, &resident).await;
    }
    stop.send_replace(true);
    let (visits, failures) = traffic.await.expect("no panic");
    println!("{visits} people came and went by the balancer meanwhile; went wrong: {failures:?}");
    assert_eq!(failures, Vec::<String>::new());
    assert_eq!(resident.note(|notes| notes.gone.clone()), None);
}

/// Starts a node again while somebody on it, and others elsewhere, speak.
async fn restart(cluster: &mut Nodes, index: usize, channel: ChannelId, resident: &Talker) {
    let others = [(index + 1) % 3, (index + 2) % 3];
    let mover = Talker::join(&cluster.nodes[index], &format!("mover-{index}"), channel).await;
    let one = Talker::join(&cluster.nodes[others[0]], &format!("one-{index}"), channel).await;
    let two = Talker::join(&cluster.nodes[others[1]], &format!("two-{index}"), channel).await;
    all_hear_each_other(&[&mover, &one, &two, resident]).await;
    let from = [&mover, &one, &two, resident].map(Talker::next_number);

    let begun = Instant::now();
    cluster.nodes[index].signal("TERM");
    mover.until("goes on elsewhere", |notes| notes.resumed == 1).await;
    cluster.nodes[index].ended().await;
    let ended = begun.elapsed();
    cluster.restart(index).await;
    cluster.all_see(3).await;
    all_hear_each_other(&[&mover, &one, &two, resident]).await;
    // The balancer has found it, too.
    while cluster.health(index).await["activity"]["members"] == 0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!("node {index}: stopped after {ended:?}, in service again after {:?}", begun.elapsed());

    for (from, speaker, listener) in [(from[1], &one, &two), (from[2], &two, &one)] {
        assert_eq!(listener.missed(speaker, from..speaker.next_number()).await, Vec::<u32>::new());
    }
    // In both directions: what the moved one says, and what they hear.
    let lost = [
        one.missed(&mover, from[0]..mover.next_number()).await.len(),
        mover.missed(&one, from[1]..one.next_number()).await.len(),
        one.missed(resident, from[3]..resident.next_number()).await.len(),
    ];
    println!("  frames lost of the moved one's, by the moved one, of the resident's: {lost:?}");
    assert!(lost.iter().all(|lost| *lost < LOST_MAX), "{lost:?}");
    for person in [mover, one, two] {
        person.leave().await;
    }
}
