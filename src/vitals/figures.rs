//! The cluster in figures: sums and means over what its nodes tell.

use crate::{
    alerts::{FiringAlert, Severity},
    cluster::{NodeRecord, VoiceSums},
};

/// All nodes together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ClusterFigures {
    /// Live nodes.
    pub nodes: u32,
    /// Channels with somebody in voice.
    pub channels: u32,
    /// People in voice; who is so through two nodes counts twice.
    pub people: u32,
    /// What is measured of their voice.
    pub voice: VoiceSums,
    /// Gateway connections.
    pub connections: u32,
    /// Gateway sessions, connected or waiting to be resumed.
    pub sessions: u32,
    /// Frames taken from speakers, each second.
    pub packets_in_per_s: f64,
    /// Frames delivered to listeners over UDP, each second.
    pub packets_out_per_s: f64,
    /// Bytes of datagrams with clients, both ways, each second.
    pub bytes_per_s: f64,
    /// Share of its processors that a node uses, in percent, the mean over nodes.
    pub cpu_percent: f64,
    /// Resident memory of all nodes.
    pub memory_bytes: u64,
    /// Share of the media workers' time that is used, in percent.
    pub busy_percent: f64,
    /// Media workers of all nodes.
    pub workers: u32,
    /// Of those, how many run.
    pub workers_running: u32,
    /// The median of how long frames are in a node: that of the slowest node.
    pub forwarding_us: u32,
    /// How long the node runs that has run longest.
    pub uptime_s: u64,
    /// Who listens to audio files; who does so through two nodes counts twice.
    pub listeners: u64,
    /// Who listens to channels, by links.
    pub channel_listeners: u64,
}

impl ClusterFigures {
    /// Of these nodes.
    #[must_use]
    pub fn of(nodes: &[NodeRecord]) -> Self {
        let mut sum = Self { nodes: u32::try_from(nodes.len()).unwrap_or(u32::MAX), ..Self::default() };
        for node in nodes {
            let its = &node.statistics;
            sum.channels += its.channels;
            sum.people += its.people;
            sum.voice += its.voice;
            sum.connections += its.connections;
            sum.sessions += node.load.sessions;
            sum.packets_in_per_s += f64::from(its.packets_in_per_s);
            sum.packets_out_per_s += f64::from(its.packets_out_per_s);
            sum.bytes_per_s += its.bytes_per_s;
            sum.cpu_percent += f64::from(its.cpu_percent) / nodes.len() as f64;
            sum.memory_bytes += its.memory_bytes;
            sum.busy_percent += f64::from(node.load.busy) * 100.0 * f64::from(node.workers);
            sum.workers += u32::from(node.workers);
            sum.workers_running += u32::from(its.workers_running);
            sum.forwarding_us = sum.forwarding_us.max(its.forwarding_us);
            sum.listeners += u64::from(its.listeners);
            sum.channel_listeners += u64::from(its.channel_listeners);
            sum.uptime_s = sum.uptime_s.max(its.uptime_s);
        }
        sum.busy_percent /= f64::from(sum.workers.max(1));
        sum
    }
}

/// How well the cluster is, 0 to 1: 1 less 0.25 for each critical alert that fires, 0.15 for each error and 0.05 for each
/// warning.
#[must_use]
pub fn health_score(alerts: &[FiringAlert]) -> f64 {
    let hundredths: u32 = alerts.iter().map(|alert| weight(alert.severity)).sum();
    f64::from(100 - hundredths.min(100)) / 100.0
}

/// What an alert of a severity takes, in hundredths.
const fn weight(severity: Severity) -> u32 {
    match severity {
        Severity::Info => 0,
        Severity::Warning => 5,
        Severity::Error => 15,
        Severity::Critical => 25,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        alerts::Component,
        cluster::{Load, NodeStatistics},
    };

    fn node(workers: u16, busy: f32, statistics: NodeStatistics) -> NodeRecord {
        let load = Load { sessions: 2, members: 1, busy };
        NodeRecord { workers, load, statistics, ..NodeRecord::idle("one", 1) }
    }

    #[test]
    fn nodes_are_added_up_or_averaged() {
        let one = NodeStatistics {
            connections: 3,
            people: 2,
            channels: 1,
            cpu_percent: 30.0,
            memory_bytes: 100,
            uptime_s: 9,
            ..NodeStatistics::default()
        };
        let other = NodeStatistics { cpu_percent: 10.0, forwarding_us: 700, ..one.clone() };
        let sum = ClusterFigures::of(&[node(3, 0.8, one), node(1, 0.0, other)]);
        assert_eq!((sum.nodes, sum.connections, sum.people, sum.channels, sum.sessions), (2, 6, 4, 2, 4));
        assert_eq!((sum.cpu_percent, sum.memory_bytes, sum.uptime_s, sum.forwarding_us), (20.0, 200, 9, 700));
        assert!((sum.busy_percent - 60.0).abs() < 1e-4, "by their workers: {}", sum.busy_percent);
        assert_eq!(ClusterFigures::of(&[]), ClusterFigures::default());
    }

    #[test]
    fn alerts_take_from_the_score_by_their_severity() {
        let alert = |severity| FiringAlert {
            name: String::new(),
            severity,
            component: Component::Nodes,
            labels: std::collections::BTreeMap::new(),
            value: 1.0,
            summary: String::new(),
            description: String::new(),
            runbook_url: String::new(),
            since: std::time::UNIX_EPOCH,
        };
        assert_eq!(health_score(&[]), 1.0);
        assert_eq!(health_score(&Severity::ALL.map(alert)), 0.55);
        assert_eq!(health_score(&[Severity::Critical; 9].map(alert)), 0.0);
    }
}
