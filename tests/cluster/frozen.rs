//! A node stops for a while and goes on (SIGSTOP, SIGCONT), as a machine does whose disk or hypervisor hangs: its lease
//! has run out meanwhile, and what it holds true is old.

use std::time::{Duration, Instant};

use antiphon_core::{gateway::LeaveReason, ids::ChannelId};
use antiphon_loadtest::ServerUrl;

use crate::support::{
    network::TcpWay,
    nodes::{Nodes, SILENCE_MAX},
    talkers::{Talker, all_hear_each_other, all_see_each_other},
};

/// Longer than a lease lasts, and shorter than the others wait before they remove a dead node's members.
const SHORT: Duration = Duration::from_secs(10);
/// Longer than it takes the others to remove a dead node's members: 5 s of lease, 30 s of grace, and some.
const SWEPT: Duration = Duration::from_secs(60);

/// Somebody on a node by a way of their own, and that way.
async fn talker_by_a_way(
    cluster: &Nodes,
    index: usize,
    others: Vec<ServerUrl>,
    name: &str,
    channel: ChannelId,
) -> (Talker, TcpWay) {
    let port = cluster.nodes[index].url().http("/").port().expect("it has one");
    let way = TcpWay::open(port).await.expect("a port");
    let url = format!("http://{}", way.address()).parse().expect("a URL");
    (Talker::join_at(url, others, name, channel).await, way)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_for_ten_seconds_acts_on_nothing_old_when_it_goes_on() {
    let cluster = Nodes::start(3).await;
    let channel = cluster.channel_owned_by(1).await;
    let one = Talker::join(&cluster.nodes[0], "one", channel).await;
    let two = Talker::join(&cluster.nodes[2], "two", channel).await;
    let staying = Talker::join(&cluster.nodes[1], "staying", channel).await;
    let (moving, moving_way) = talker_by_a_way(&cluster, 1, cluster.others(1), "moving", channel).await;
    let (vanishing, vanishing_way) = talker_by_a_way(&cluster, 1, Vec::new(), "vanishing", channel).await;
    all_see_each_other(&[&one, &two, &staying, &moving, &vanishing]).await;
    all_hear_each_other(&[&one, &two, &staying, &moving, &vanishing]).await;

    cluster.nodes[1].signal("STOP");
    let stopped = Instant::now();
    drop(moving_way);
    drop(vanishing_way);
    moving.until("goes on elsewhere", |notes| notes.resumed == 1).await;
    one.until_hears(&moving).await;
    println!("resumed at another node and heard there {:?} after the stop", stopped.elapsed());
    cluster.node_sees(0, 2).await;
    cluster.node_sees(2, 2).await;
    println!("the lease had run out {:?} after the stop", stopped.elapsed());
    tokio::time::sleep_until((stopped + SHORT).into()).await;
    let silences = [one.silence(&two, stopped), two.silence(&one, stopped)];
    println!("longest silence of the others, whose channel's owner stopped: {silences:?}");
    assert!(silences.iter().all(|silence| *silence < SILENCE_MAX), "{silences:?}");

    cluster.nodes[1].signal("CONT");
    let went_on = Instant::now();
    cluster.all_see(3).await;
    all_hear_each_other(&[&one, &two, &staying, &moving]).await;
    println!(
        "all hear each other {:?} after it went on; it had {:?}",
        went_on.elapsed(),
        staying.note(|notes| (notes.resumed, notes.disconnected))
    );
    // The one whose client never came back is removed when their time to is over, and nobody else is.
    for person in [&one, &two] {
        person
            .until_within(SWEPT, "is told of the one who vanished", |notes| {
                !notes.members.contains_key(&vanishing.user())
            })
            .await;
    }
    println!("the one who did not come back was removed {:?} after the stop", stopped.elapsed());
    all_see_each_other(&[&one, &two, &staying, &moving]).await;
    all_hear_each_other(&[&one, &two, &staying, &moving]).await;
    cluster.views_become(channel, 4).await;
    for person in [&one, &two] {
        assert_eq!(person.told_of(&vanishing, stopped), (0, vec![LeaveReason::Timeout]));
        assert_eq!(person.told_of(&moving, stopped), (0, vec![]), "a resume is neither a leave nor a join");
        assert_eq!(person.told_of(&staying, stopped), (0, vec![]));
    }
    assert_eq!((one.told_of(&two, stopped), two.told_of(&one, stopped)), ((0, vec![]), (0, vec![])));
    let gone: Vec<_> =
        [&one, &two, &staying, &moving].iter().map(|person| person.note(|notes| notes.gone.clone())).collect();
    assert_eq!(gone, vec![None; 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_until_its_members_are_removed_leaves_no_ghosts_when_it_goes_on() {
    let cluster = Nodes::start(3).await;
    let channel = cluster.channel_owned_by(0).await;
    let one = Talker::join(&cluster.nodes[0], "one", channel).await;
    let two = Talker::join(&cluster.nodes[2], "two", channel).await;
    let swept = Talker::join(&cluster.nodes[1], "swept", channel).await;
    all_see_each_other(&[&one, &two, &swept]).await;
    all_hear_each_other(&[&one, &two, &swept]).await;

    cluster.nodes[1].signal("STOP");
    let stopped = Instant::now();
    for person in [&one, &two] {
        person.until_within(SWEPT, "is told of the removal", |notes| !notes.members.contains_key(&swept.user())).await;
        assert_eq!(person.told_of(&swept, stopped), (0, vec![LeaveReason::Timeout]), "removed once");
    }
    println!("removed {:?} after the stop", stopped.elapsed());
    cluster.nodes[1].signal("CONT");
    let went_on = Instant::now();
    cluster.all_see(3).await;
    // Their session may have lasted: then they are in the channel again. Or it is over, and they know it.
    swept
        .until_within(SWEPT, "hears others again, or knows that they are out", |notes| {
            notes.gone.is_some() || notes.heard_since(one.stream(), went_on)
        })
        .await;
    let gone = swept.note(|notes| notes.gone.clone());
    println!("{:?} after it went on their session {}", went_on.elapsed(), gone.as_deref().unwrap_or("goes on"));
    let people = if gone.is_some() { vec![&one, &two] } else { vec![&one, &two, &swept] };
    all_hear_each_other(&people).await;
    all_see_each_other(&people).await;
    cluster.views_become(channel, people.len() as u64).await;
    let came_back = usize::from(gone.is_none());
    for person in [&one, &two] {
        assert_eq!(person.told_of(&swept, stopped), (came_back, vec![LeaveReason::Timeout]));
    }
    assert_eq!((one.told_of(&two, stopped), two.told_of(&one, stopped)), ((0, vec![]), (0, vec![])));
}
