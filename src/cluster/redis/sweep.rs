//! Removing what dead nodes left behind: each by exactly one node, once its sessions can no longer be taken up.

use antiphon_core::ids::{ChannelId, NodeNumber};
use fred::interfaces::{KeysInterface, SetsInterface};

use super::{
    connection::Connection,
    keys,
    registry::on_nodes,
    script,
    shared::{Failed, Shared, number},
};
use crate::{
    cluster::entry::Unavailable,
    telemetry::metrics::{RedisOperation, metrics},
};

/// How long whoever has begun to sweep a node's members has for it, before another begins anew.
const CLAIM_MS: u64 = 30_000;

/// Members removed in one step: it holds up everything else on the server.
const MEMBERS_AT_ONCE: u64 = 200;

/// Sweeps whatever there is to be swept, for ever. Begins once all nodes had the chance to renew their leases.
pub(super) async fn sweep_for_ever(shared: &Shared, connection: &Connection) {
    let start = tokio::time::Instant::now() + shared.config.lease_ttl;
    let mut ticks = tokio::time::interval_at(start, shared.config.renew_every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        while let Ok(Some(dead)) = claim(shared, connection).await {
            match sweep(shared, connection, dead).await {
                Ok(members) => tracing::info!(number = %dead, members, "swept what a node left behind"),
                Err(Unavailable) => break,
            }
        }
    }
}

/// A node whose grace is over, for this one to sweep.
async fn claim(shared: &Shared, connection: &Connection) -> Result<Option<NodeNumber>, Unavailable> {
    let grace = u64::try_from(shared.config.sweep_grace.as_millis()).unwrap_or(u64::MAX);
    let own = vec![number(grace), number(CLAIM_MS)];
    let claiming = on_nodes(connection, &script::CLAIM_SWEEP, own);
    let dead = shared.single(RedisOperation::Sweep, claiming).await?.as_u64().unwrap_or(0);
    Ok(u32::try_from(dead).ok().filter(|dead| *dead != 0).map(NodeNumber))
}

async fn sweep(shared: &Shared, connection: &Connection, dead: NodeNumber) -> Result<u64, Unavailable> {
    let client = connection.client();
    let key = keys::channels_of(dead);
    let channels: Vec<String> = shared.single(RedisOperation::Sweep, client.smembers(&key)).await?;
    let mut members = 0;
    for channel in channels.iter().filter_map(|channel| channel.parse().ok()) {
        members += sweep_channel(shared, channel, dead).await?;
    }
    shared.single(RedisOperation::Sweep, client.del::<(), _>(&key)).await?;
    let own = vec![number(dead.0.into())];
    shared.single(RedisOperation::Sweep, on_nodes(connection, &script::END_SWEEP, own)).await?;
    metrics().redis.members_swept.increment(members);
    Ok(members)
}

async fn sweep_channel(shared: &Shared, channel: ChannelId, dead: NodeNumber) -> Result<u64, Unavailable> {
    let mut members = 0;
    loop {
        let permit = shared.permit()?;
        let own = vec![number(dead.0.into()), number(MEMBERS_AT_ONCE)];
        let (_, mut answer) =
            shared.on_channel(RedisOperation::Sweep, &permit, &script::SWEEP, channel, None, own).await?;
        let removed = answer.number().map_err(|_| Failed::InDoubt)?;
        members += removed;
        if removed < MEMBERS_AT_ONCE {
            return Ok(members);
        }
    }
}

impl Shared {
    /// Takes a channel out of the list of those in which this node may have members. It may be there although this
    /// connection has not put it there.
    pub(super) async fn unlist(&self, connection: &Connection, channel: ChannelId) -> Result<(), fred::error::Error> {
        self.listed.remove(&channel);
        let key = keys::channels_of(self.lease.lock().number);
        super::connection::within(self.config.patience, connection.client().srem(key, channel.to_string())).await
    }
}
