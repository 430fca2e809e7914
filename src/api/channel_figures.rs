//! A channel in figures: its totals from the database, and how it is right now on all nodes that have members in it.

use antiphon_core::{gateway::UserView, ids::ChannelId};
use axum::http::{HeaderMap, Method};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Api,
    error::ApiResult,
    peers::{ask_all, other_nodes},
};
use crate::{
    cluster::VoiceSums,
    rooms::ChannelFigures,
    store::{Channel, ChannelTotals, Counted},
};

/// A channel in figures.
pub(super) struct ChannelWide {
    /// What is set of it.
    pub(super) channel: Channel,
    /// What it carried; `None` when nothing is counted yet.
    pub(super) counted: Option<Counted<ChannelTotals>>,
    /// Members in voice.
    pub(super) current_users: u32,
    /// How it is now, over all nodes that answered.
    pub(super) now: ChannelOnNodes,
}

/// How a channel is on the nodes that have members in it, added up.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ChannelOnNodes {
    pub(super) figures: ChannelFigures,
    pub(super) memory_bytes: f64,
    /// That of the slowest node.
    pub(super) forwarding_us: u32,
}

/// How a channel is on one node, as nodes ask each other.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub(super) struct ChannelOnNode {
    /// Members through this node.
    members: u32,
    /// Of those, in a talk spurt.
    speaking: u32,
    /// Of those, who hear a mix.
    mixed: u32,
    /// Those who listen by a link, without being members.
    listeners: u32,
    /// Streams of which listeners here have reported.
    streams: u32,
    /// Their round trips, each stream's median, added up.
    round_trip_ms: f64,
    /// Likewise the shares of frames that they report lost.
    reported_loss: f64,
    /// Frames taken from speakers here since the node started.
    frames_in: u64,
    /// Frames lost on their way to the node.
    frames_lost: u64,
    /// The jitter of those frames, times their number.
    jitter_ms_frames: f64,
    /// The share of one processor that the channel's frames take here, in percent.
    cpu_percent: f64,
    /// The node's memory, by the channel's share of its members.
    memory_bytes: f64,
    /// The median of how long frames are in the node.
    forwarding_us: u32,
}

impl std::ops::AddAssign<ChannelOnNode> for ChannelOnNodes {
    fn add_assign(&mut self, more: ChannelOnNode) {
        self.figures += ChannelFigures {
            members: more.members,
            speaking: more.speaking,
            mixed: more.mixed,
            listeners: more.listeners,
            voice: VoiceSums {
                streams: more.streams,
                round_trip_ms: more.round_trip_ms,
                reported_loss: more.reported_loss,
                frames_in: more.frames_in,
                frames_lost: more.frames_lost,
                jitter_ms_frames: more.jitter_ms_frames,
            },
            cpu_percent: more.cpu_percent,
        };
        self.memory_bytes += more.memory_bytes;
        self.forwarding_us = self.forwarding_us.max(more.forwarding_us);
    }
}

/// How a channel is on this node.
pub(super) fn here(api: &Api, channel: ChannelId) -> ChannelOnNode {
    let figures = api.directory.figures_here(channel);
    if figures.members == 0 {
        return ChannelOnNode { listeners: figures.listeners, ..ChannelOnNode::default() };
    }
    let me = api.registry.number();
    let nodes = api.vitals.nodes();
    let own = nodes.iter().find(|node| node.number == me);
    let members = own.map_or(figures.members, |own| own.load.members.max(figures.members));
    let share = f64::from(figures.members) / f64::from(members.max(1));
    let ChannelFigures { members, speaking, mixed, listeners, voice, cpu_percent } = figures;
    ChannelOnNode {
        members,
        speaking,
        mixed,
        listeners,
        streams: voice.streams,
        round_trip_ms: voice.round_trip_ms,
        reported_loss: voice.reported_loss,
        frames_in: voice.frames_in,
        frames_lost: voice.frames_lost,
        jitter_ms_frames: voice.jitter_ms_frames,
        cpu_percent,
        memory_bytes: own.map_or(0.0, |own| own.statistics.memory_bytes as f64 * share),
        forwarding_us: own.map_or(0, |own| own.statistics.forwarding_us),
    }
}

/// A channel in figures, for somebody who may see it.
pub(super) async fn cluster_wide(
    api: &Api,
    caller: &UserView,
    id: ChannelId,
    headers: &HeaderMap,
) -> ApiResult<ChannelWide> {
    let channel = api.directory.seen(caller, id).await?;
    let counted = api.store.channel_totals(id).await?;
    let with_members = api.directory.nodes_of(id).await;
    let mut others = other_nodes(api);
    others.retain(|node| with_members.contains(&node.number));
    let path = format!("/api/advanced/channels/{id}/statistics/node");
    let mut now = ChannelOnNodes::default();
    now += here(api, id);
    for node in ask_all::<ChannelOnNode>(api, &others, Method::GET, &path, headers).await.into_iter().flatten() {
        now += node;
    }
    let current_users = api.directory.occupancy(id).await;
    Ok(ChannelWide { channel, counted, current_users, now })
}
