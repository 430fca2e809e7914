//! Which of the nodes under test owns a channel: computed as the nodes compute it, from what they tell of each other.

use std::time::Duration;

use antiphon_core::{
    ids::{ChannelId, NodeId, NodeNumber},
    ring::Ring,
};
use futures_util::future::join_all;

use super::LoadError;
use crate::rest::{NodesView, Rest};

/// How long a node may take to answer; one that is stopped never does.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The place in the list of servers of the node that owns a channel now.
pub(super) async fn owner_of(servers: &[Rest], access_token: &str, channel: ChannelId) -> Result<usize, LoadError> {
    let asked = servers.iter().map(|server| tokio::time::timeout(TIMEOUT, server.nodes(access_token)));
    let answers: Vec<Option<NodesView>> = join_all(asked).await.into_iter().map(|answer| answer.ok()?.ok()).collect();
    owner_among(&answers, channel)
}

/// What a server calls itself.
pub(super) async fn own_id(server: &Rest, access_token: &str) -> Result<NodeId, LoadError> {
    let view = server.nodes(access_token).await?;
    let me = view.nodes.into_iter().find(|node| node.me);
    Ok(me.ok_or(LoadError::Protocol("does not say which node it is"))?.node_id)
}

/// The owner by the nodes' answers, in the order of the list.
fn owner_among(answers: &[Option<NodesView>], channel: ChannelId) -> Result<usize, LoadError> {
    let newest = answers.iter().flatten().max_by_key(|answer| answer.epoch);
    let newest = newest.ok_or(LoadError::Protocol("did not say which nodes there are"))?;
    let serving: Vec<_> = newest.nodes.iter().filter(|node| node.state == "serving").collect();
    // The numbers only name the nodes here; where a channel lies follows from their ids.
    let numbered = serving.iter().zip(0..).map(|(node, number)| (&node.node_id, NodeNumber(number), node.capacity));
    let owner = Ring::new(newest.epoch, numbered).owner(channel);
    let owner = owner.and_then(|number| serving.get(number.0 as usize));
    let owner = owner.ok_or(LoadError::Protocol("has no node that takes on work"))?;
    let is_owner = |answer: &NodesView| answer.nodes.iter().any(|node| node.me && node.node_id == owner.node_id);
    let place = answers.iter().position(|answer| answer.as_ref().is_some_and(is_owner));
    place.ok_or_else(|| {
        let text = format!("the channel's owner, {}, is none of the servers that were named", owner.node_id);
        LoadError::Arguments(text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rest::NodeView;

    /// What the node at `me` answers when these serve.
    fn answer(epoch: u64, me: usize, serving: &[usize]) -> Option<NodesView> {
        let node = |place: usize| NodeView {
            node_id: NodeId(format!("node-{place}")),
            state: if serving.contains(&place) { "serving" } else { "draining" }.to_owned(),
            capacity: 100,
            me: place == me,
        };
        Some(NodesView { epoch, nodes: (0..3).map(node).collect() })
    }

    fn channel(number: u128) -> ChannelId {
        ChannelId(uuid::Uuid::from_u128(number))
    }

    #[test]
    fn the_owner_is_the_rings_wherever_it_stands_in_the_list() {
        let owners: Vec<usize> = (0..30)
            .map(|number| {
                let listed: Vec<_> = (0..3).map(|me| answer(1, me, &[0, 1, 2])).collect();
                let owner = owner_among(&listed, channel(number)).expect("an owner");
                let reversed: Vec<_> = listed.into_iter().rev().collect();
                assert_eq!(owner_among(&reversed, channel(number)).expect("an owner"), 2 - owner);
                owner
            })
            .collect();
        assert!((0..3).all(|place| owners.contains(&place)), "{owners:?}");
    }

    #[test]
    fn the_newest_view_counts_and_who_drains_owns_nothing() {
        for number in 0..30 {
            let listed = [answer(1, 0, &[0, 1, 2]), None, answer(2, 2, &[2])];
            assert_eq!(owner_among(&listed, channel(number)).expect("an owner"), 2);
        }
    }

    #[test]
    fn an_owner_that_was_not_named_is_said_to_be_so() {
        let error = owner_among(&[answer(1, 0, &[1])], channel(1)).expect_err("node-1 is not listed").to_string();
        assert!(error.contains("node-1"), "{error}");
        assert!(owner_among(&[None], channel(1)).is_err() && owner_among(&[answer(1, 0, &[])], channel(1)).is_err());
    }
}
