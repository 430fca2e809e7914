//! The names of keys and of pub/sub channels. What one script touches shares a hash tag, so that Redis Cluster keeps it
//! in one place.

use antiphon_core::ids::{ChannelId, NodeNumber, SessionId};

/// The keys of a channel, in the order in which scripts want them.
pub(super) fn channel(channel: ChannelId) -> Vec<String> {
    ["meta", "members", "streams", "journal", "muted"]
        .iter()
        .map(|name| format!("antiphon:{{{channel}}}:{name}"))
        .collect()
}

/// The members of a channel by user.
pub(super) fn members(channel: ChannelId) -> String {
    format!("antiphon:{{{channel}}}:members")
}

/// A channel's epoch and offset.
pub(super) fn meta(channel: ChannelId) -> String {
    format!("antiphon:{{{channel}}}:meta")
}

/// The keys of the register of nodes, in the order in which scripts want them.
pub(super) fn nodes() -> Vec<String> {
    ["live", "records", "states", "names", "ids", "meta", "dead", "sweeping"]
        .iter()
        .map(|name| format!("antiphon:{{nodes}}:{name}"))
        .collect()
}

/// The channels in which a node may have members: all of those, and perhaps more.
pub(super) fn channels_of(node: NodeNumber) -> String {
    format!("antiphon:{{node-{node}}}:channels")
}

/// Who has a session at a node, and where they are: hash from user to record.
pub(super) fn people_of(node: NodeNumber) -> String {
    format!("antiphon:{{node-{node}}}:people")
}

/// A session's record.
pub(super) fn session(session: SessionId) -> String {
    format!("antiphon:{{{session}}}:session")
}

/// A pub/sub channel.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Topic {
    /// Entries of a channel's journal.
    Channel(ChannelId),
    /// The newest epoch of the register of nodes.
    Nodes,
    /// What is said to one node.
    Node(NodeNumber),
    /// What is said to all nodes.
    AllNodes,
    /// Where a process of a node listens for itself. A cluster has one for each of its servers.
    Probe {
        /// Which process: when it started.
        process: u64,
        /// Which of its probes.
        probe: u32,
    },
}

impl Topic {
    /// Its name.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Channel(channel) => format!("antiphon:{{{channel}}}:entries"),
            Self::Nodes => "antiphon:{nodes}:epoch".to_owned(),
            Self::Node(node) => format!("antiphon:{{node-{node}}}:inbox"),
            Self::AllNodes => "antiphon:{nodes}:inbox".to_owned(),
            Self::Probe { process, probe } => format!("antiphon:{{probe-{process}-{probe}}}:probe"),
        }
    }

    /// The topic of that name.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let (tag, kind) = name.strip_prefix("antiphon:{")?.split_once("}:")?;
        match kind {
            "entries" => tag.parse().ok().map(Self::Channel),
            "epoch" => Some(Self::Nodes),
            "inbox" if tag == "nodes" => Some(Self::AllNodes),
            "inbox" => tag.strip_prefix("node-")?.parse().ok().map(|number| Self::Node(NodeNumber(number))),
            "probe" => {
                let (process, probe) = tag.strip_prefix("probe-")?.split_once('-')?;
                Some(Self::Probe { process: process.parse().ok()?, probe: probe.parse().ok()? })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_topic_is_known_by_its_name() {
        let topics = [
            Topic::Channel(ChannelId(Uuid::from_u128(7))),
            Topic::Nodes,
            Topic::AllNodes,
            Topic::Node(NodeNumber(0xff_ffff)),
            Topic::Probe { process: 1_700_000_000_000_000, probe: 12 },
        ];
        for topic in topics {
            assert_eq!(Topic::parse(&topic.name()), Some(topic));
        }
        assert_eq!(Topic::parse("antiphon:{lobby}:entries"), None);
        assert_eq!(Topic::parse("somebody:else"), None);
    }

    #[test]
    fn what_belongs_to_a_channel_is_in_one_place() {
        let id = ChannelId(Uuid::from_u128(7));
        let slot = |name: &str| fred::types::cluster::ClusterRouting::hash_key(name.as_bytes());
        let mut names = channel(id);
        names.extend([members(id), meta(id), Topic::Channel(id).name()]);
        assert!(names.iter().all(|name| slot(name) == slot(&names[0])));
        let mut names = nodes();
        names.push(Topic::Nodes.name());
        assert!(names.iter().all(|name| slot(name) == slot(&names[0])));
    }
}
