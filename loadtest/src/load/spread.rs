//! Which node each client connects to: in every channel speakers and listeners are spread over all nodes, and which node
//! comes first moves on from channel to channel, so that small channels spread, too.

/// The place among `nodes` of the client with that number in its channel; a channel's speakers have its lowest numbers.
///
/// Any run of consecutive numbers is spread evenly, and so are the speakers and the listeners each by themselves.
pub(super) fn node_of(channel: usize, client: usize, nodes: usize) -> usize {
    (channel + client) % nodes.max(1)
}

/// The other nodes, in the order in which a client whose node is lost tries them: neighbours try different ones first.
pub(super) fn others(node: usize, client: usize, nodes: usize) -> Vec<usize> {
    let mut others: Vec<usize> = (0..nodes).filter(|other| *other != node).collect();
    if !others.is_empty() {
        // Clients of one node are `nodes` apart.
        let first = client / nodes % others.len();
        others.rotate_left(first);
    }
    others
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(nodes: usize, places: impl Iterator<Item = usize>) -> Vec<usize> {
        let mut counts = vec![0; nodes];
        places.for_each(|node| counts[node] += 1);
        counts
    }

    #[test]
    fn speakers_and_listeners_of_a_channel_are_each_spread_evenly() {
        for (clients, speakers, nodes) in [(200, 20, 3), (8, 1, 3), (7, 5, 2), (5, 2, 5), (6, 3, 1)] {
            for channel in 0..4 {
                for range in [0..speakers, speakers..clients, 0..clients] {
                    let counts = counts(nodes, range.map(|client| node_of(channel, client, nodes)));
                    let (least, most) = (counts.iter().min().expect("nodes"), counts.iter().max().expect("nodes"));
                    assert!(most - least <= 1, "{clients} {speakers} {nodes}: {counts:?}");
                }
            }
        }
    }

    #[test]
    fn the_only_speakers_of_many_channels_are_spread_evenly() {
        assert_eq!(counts(3, (0..999).map(|channel| node_of(channel, 0, 3))), [333, 333, 333]);
    }

    #[test]
    fn whoever_loses_their_node_tries_every_other_one_and_not_all_the_same_first() {
        assert_eq!(others(0, 0, 1), [0; 0]);
        let firsts: Vec<usize> = (0..30)
            .filter(|client| node_of(0, *client, 3) == 1)
            .map(|client| {
                let others = others(1, client, 3);
                assert!(others.len() == 2 && others.contains(&0) && others.contains(&2), "{others:?}");
                others[0]
            })
            .collect();
        assert_eq!(counts(3, firsts.into_iter()), [5, 0, 5]);
    }
}
