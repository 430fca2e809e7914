//! UDP blocked in one direction or both, before a call and in the middle of it: people hear each other all the same,
//! and return to UDP when it opens.

use std::time::Duration;

use antiphon_loadtest::voice::Route;
use tokio::time::{Instant, timeout};

use super::{
    people::{PATIENCE, Person, make_channel, number_of},
    process::Process,
    udp_proxy::UdpProxy,
};

/// How long people may not hear each other once a direction is blocked.
const HEARD_WITHIN: Duration = Duration::from_secs(3);

#[derive(Clone, Copy, Debug)]
struct Block {
    to_server: bool,
    to_client: bool,
}

const BLOCKS: [Block; 3] = [
    Block { to_server: true, to_client: false },
    Block { to_server: false, to_client: true },
    Block { to_server: true, to_client: true },
];

fn apply(proxy: &UdpProxy, block: Block) {
    proxy.block_to_server(block.to_server);
    proxy.block_to_client(block.to_client);
}

async fn server_behind_proxy() -> (Process, UdpProxy) {
    let proxy = UdpProxy::start().await.expect("a proxy");
    let advertise = proxy.address().to_string();
    let server = Process::start(&[("ANTIPHON_AUDIO__ADVERTISE", &advertise)]).await;
    proxy.forward_to(server.udp_address());
    (server, proxy)
}

/// Speaks every 20 ms until `heard` says that enough was heard.
async fn talk_until(
    speaker: &Person,
    listener: &mut Person,
    number: &mut u32,
    mut enough: impl FnMut(u32, Route) -> bool,
) -> Duration {
    let started = Instant::now();
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    let talk = async {
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    speaker.say(*number).await;
                    *number += 1;
                }
                frame = listener.hear() => {
                    if !frame.bytes.is_empty() && enough(number_of(&frame), frame.route) {
                        return started.elapsed();
                    }
                }
            }
        }
    };
    timeout(PATIENCE, talk).await.expect("heard")
}

#[tokio::test(flavor = "multi_thread")]
async fn blocked_from_the_start() {
    let (server, proxy) = server_behind_proxy().await;
    for (round, block) in BLOCKS.into_iter().enumerate() {
        apply(&proxy, block);
        let channel = make_channel(&server, &format!("start-{round}"), 10).await;
        let mut one = Person::join(&server, &format!("one-{round}"), channel).await;
        let mut two = Person::join(&server, &format!("two-{round}"), channel).await;
        let mut number = 0;
        let there = talk_until(&one, &mut two, &mut number, |_, _| true).await;
        let back = talk_until(&two, &mut one, &mut number, |_, _| true).await;
        assert!(there < HEARD_WITHIN && back < HEARD_WITHIN, "{block:?}: {there:?}, {back:?}");
        apply(&proxy, Block { to_server: false, to_client: false });
        one.udp_becomes(true).await;
        two.udp_becomes(true).await;
        talk_until(&one, &mut two, &mut number, |_, route| route == Route::Udp).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn blocked_in_the_middle_of_a_call() {
    let (server, proxy) = server_behind_proxy().await;
    for (round, block) in BLOCKS.into_iter().enumerate() {
        let channel = make_channel(&server, &format!("middle-{round}"), 10).await;
        let mut one = Person::join(&server, &format!("one-{round}"), channel).await;
        let mut two = Person::join(&server, &format!("two-{round}"), channel).await;
        one.udp_becomes(true).await;
        two.udp_becomes(true).await;
        let mut number = 0;
        talk_until(&one, &mut two, &mut number, |_, route| route == Route::Udp).await;
        apply(&proxy, block);
        let blocked_at = number;
        let silence = talk_until(&one, &mut two, &mut number, |heard, _| heard > blocked_at).await;
        assert!(silence < HEARD_WITHIN, "{block:?}: {silence:?} of silence");
        apply(&proxy, Block { to_server: false, to_client: false });
        talk_until(&one, &mut two, &mut number, |_, route| route == Route::Udp).await;
        one.udp_becomes(true).await;
        two.udp_becomes(true).await;
    }
}
