//! What must hold once nothing is broken, and in the end.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use antiphon_core::ids::{StreamId, UserId};
use serde_json::Value;

use crate::{
    journal::{Seat, Seats},
    support::{nodes::http, process::Process},
    world::{CHANNELS, HEALED_WITHIN, World},
};

/// When who was left behind by a dead node must be gone: its lease, the grace, and the time to notice and to sweep.
const GHOST_MAX: Duration = Duration::from_secs(60);

/// A node's memory may not grow beyond this; a fresh one has some 40 MB.
const RESIDENT_BYTES_MAX: u64 = 512 * 1024 * 1024;

/// Waits until every node and everyone who is there says that exactly those are in each channel who are to be.
pub(crate) async fn all_agree(world: &World) -> Result<(), String> {
    until(|| disagreement(world)).await
}

async fn until<F>(mut wrong: impl FnMut() -> F) -> Result<(), String>
where
    F: Future<Output = Option<String>>,
{
    let begun = Instant::now();
    while let Some(error) = wrong().await {
        if begun.elapsed() > HEALED_WITHIN {
            return Err(error);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

async fn disagreement(world: &World) -> Option<String> {
    for channel in 0..CHANNELS {
        let wanted = wanted(world, channel);
        for (index, person) in world.people.iter().enumerate() {
            let seats = person.seen().places.get(&world.map.channels[channel]).map(|place| place.view.seats().clone());
            if let Some(error) = seats.and_then(|seats| difference(world, channel, &wanted, &seats)) {
                return Some(format!("person {index} knows of channel {channel}: {error}"));
            }
        }
        for (index, node) in world.nodes.nodes.iter().enumerate() {
            let error = match members(world, node, channel).await {
                Ok(seats) => difference(world, channel, &wanted, &seats),
                Err(error) => Some(error),
            };
            if let Some(error) = error {
                return Some(format!("node {index} says of channel {channel}: {error}"));
            }
        }
    }
    for (index, node) in world.nodes.nodes.iter().enumerate() {
        if let Some(error) = unhealthy(node).await {
            return Some(format!("node {index}: {error}"));
        }
    }
    None
}

/// Who is to be in a channel, by the model, each with the stream that they were given.
fn wanted(world: &World, channel: usize) -> Seats {
    let seat = |(index, muted): (usize, bool)| {
        let person = &world.people[index];
        let stream = person.seen().places.get(&world.map.channels[channel]).map(|place| place.stream);
        (person.user, Seat { stream: stream.unwrap_or(StreamId(0)), muted })
    };
    world.model.members(channel).into_iter().map(seat).collect()
}

/// What is wrong with a view. Who never came back may be in it for a while.
fn difference(world: &World, channel: usize, wanted: &Seats, found: &Seats) -> Option<String> {
    let is_ghost = |user: &UserId| {
        let ghosts = world.model.ghosts.iter();
        ghosts.clone().any(|ghost| (ghost.user, ghost.channel) == (*user, channel) && ghost.since.elapsed() < GHOST_MAX)
    };
    let found: Seats = found.iter().filter(|(user, _)| !is_ghost(user)).map(|(user, seat)| (*user, *seat)).collect();
    if found == *wanted {
        return None;
    }
    let missing: Vec<_> = wanted.iter().filter(|(user, seat)| found.get(user) != Some(seat)).collect();
    let surplus: Vec<_> = found.iter().filter(|(user, seat)| wanted.get(user) != Some(seat)).collect();
    Some(format!("missing {missing:?}, surplus {surplus:?}"))
}

/// Who is in a channel, as a node says.
async fn members(world: &World, node: &Process, channel: usize) -> Result<Seats, String> {
    let path = format!("/api/channels/{}/members", world.map.channels[channel]);
    let answer = http().get(node.url().http(&path)).bearer_auth(&world.token).send().await;
    let answer: Value = answer.map_err(|error| error.to_string())?.json().await.map_err(|error| error.to_string())?;
    let entries = answer["data"].as_array().ok_or_else(|| answer.to_string())?;
    let seat = |entry: &Value| {
        let voice = &entry["voice"];
        let user = serde_json::from_value(entry["user_id"].clone()).ok()?;
        let stream = serde_json::from_value(voice["stream_id"].clone()).ok()?;
        Some((user, Seat { stream, muted: voice["muted"].as_bool()? }))
    };
    Ok(entries.iter().filter_map(seat).collect())
}

/// What a node's own figures say that must not be.
async fn unhealthy(node: &Process) -> Option<String> {
    let answer = match metrics(node).await {
        Ok(answer) => answer,
        Err(error) => return Some(error),
    };
    let figures: BTreeMap<&str, &str> = answer.lines().filter_map(|line| line.rsplit_once(' ')).collect();
    for name in ["antiphon_media_commands_refused_total", "antiphon_rooms_degraded"] {
        match figures.get(name) {
            Some(&"0") => {}
            value => return Some(format!("{name} is {value:?}")),
        }
    }
    None
}

async fn metrics(node: &Process) -> Result<String, String> {
    let answer = http().get(node.url().http("/metrics")).send().await.map_err(|error| error.to_string())?;
    answer.text().await.map_err(|error| error.to_string())
}

/// What nodes say that they have dropped, for whoever looks for the reason of a loss.
pub(crate) async fn dropped(world: &World) -> Vec<String> {
    let mut dropped = Vec::new();
    for (index, node) in world.nodes.nodes.iter().enumerate() {
        let figures = metrics(node).await.unwrap_or_else(|error| error);
        let lines =
            figures.lines().filter(|line| line.contains("drop") && !line.starts_with('#') && !line.ends_with(" 0"));
        dropped.extend(lines.map(|line| format!("node {index}: {line}")));
    }
    dropped
}

/// Watchers stay where they are, whatever becomes of their nodes: nobody may have been told that one has left.
pub(crate) fn nobody_seemed_to_leave(world: &World) -> Result<(), String> {
    let watchers = &world.people[..world.nodes.nodes.len()];
    for (index, person) in world.people.iter().enumerate() {
        let seen = person.seen();
        let left = watchers.iter().position(|watcher| seen.leavers.contains(&watcher.user));
        if let Some(left) = left {
            return Err(format!("person {index} was told that person {left} has left, who stayed"));
        }
    }
    Ok(())
}

/// Nobody has seen what must not be.
pub(crate) fn no_violation(world: &World) -> Result<(), String> {
    for (index, person) in world.people.iter().enumerate() {
        let seen = person.seen();
        if !seen.violations.is_empty() {
            let at = world.nodes.nodes.iter().position(|node| seen.node == Some(node.udp_address()));
            return Err(format!("person {index}, last at node {at:?}: {:#?}, {:?}", seen.violations, seen.counts));
        }
    }
    Ok(())
}

/// Everyone leaves: nothing of them is left anywhere.
pub(crate) async fn nothing_is_left(world: &mut World) -> Result<(), String> {
    for person in &world.people {
        person.quit().await;
        world.report.gone(person);
    }
    world.model.wishes.clear();
    world.people.clear();
    all_agree(world).await?;
    until(async || left_in_redis(world)).await?;
    for node in &world.nodes.nodes {
        let bytes = node.resident_bytes();
        world.report.resident_bytes.push(bytes);
        if bytes > RESIDENT_BYTES_MAX {
            return Err(format!("a node occupies {bytes} bytes"));
        }
    }
    Ok(())
}

/// A key of Redis that should not be there, or not without an end. Dead nodes are swept once the grace is over.
fn left_in_redis(world: &World) -> Option<String> {
    let redis = &world.nodes.redis;
    for set in ["dead", "sweeping"] {
        let key = format!("antiphon:{{nodes}}:{set}");
        let left = redis.cli(&["ZCARD", &key]);
        if left != "0" {
            return Some(format!("{key} has {left}"));
        }
    }
    for key in redis.cli(&["KEYS", "antiphon:*"]).lines() {
        let is_node = key.starts_with("antiphon:{nodes}:");
        let ends = redis.cli(&["PTTL", key]).parse::<i64>().is_ok_and(|ttl_ms| ttl_ms != -1);
        if !is_node && !ends {
            return Some(format!("{key} stays for ever"));
        }
        if key.ends_with(":members") || key.ends_with(":streams") || key.ends_with(":session") {
            return Some(format!("{key} is still there"));
        }
    }
    None
}
