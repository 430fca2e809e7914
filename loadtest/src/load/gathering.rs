//! Everyone whom a phase needs, in their channels: how they come, and how they go.

use antiphon_core::ids::ChannelId;
use tokio::time::Instant;

use super::{
    LoadError,
    account::{TokenPair, sign_in},
    crowd::{self, Room},
    members::{InChannel, Place, Shared, connect_all, join_all},
    nodes::NodesConfig,
    outcome::Joins,
    process::CpuUsed,
    swarm::Role,
    thread::Stage,
};
use crate::{
    rest::NewChannel,
    scenario::{Group, Scenario},
};

/// Everyone in their channels.
pub(super) struct Gathered {
    members: Vec<InChannel>,
    pub(super) channels: Vec<ChannelId>,
    /// Whose channels they are.
    pub(super) owner: TokenPair,
}

/// Connects everyone, makes the channels with room for as many visitors, and lets everyone join.
pub(super) async fn gather(
    scenario: &Scenario,
    config: &NodesConfig,
    shared: &Shared,
    groups: &[Group],
    visitors: usize,
    stage: &(dyn Fn(Stage) + Sync),
) -> Result<(Gathered, Joins), LoadError> {
    let (rooms, total) = (crowd::rooms(groups), crowd::total(groups));
    let seats = crowd::seats(&rooms, config.servers.len());
    let connected = connect_all(shared, seats, |count| stage(Stage::Connecting(count, total))).await?;
    let (clients, mut tokens): (Vec<_>, Vec<_>) = connected.into_iter().unzip();
    let mut owner = match tokens.pop() {
        Some(owner) => owner,
        // Nobody is in voice, and what is there belongs to nobody.
        None => TokenPair::of(sign_in(shared, 0, "nobody").await?),
    };
    let channels = make_channels(shared, &mut owner, &rooms, visitors).await?;
    let places = rooms.iter().enumerate().flat_map(|(channel, room)| {
        let channel_id = channels[channel];
        (room.first_slot..room.first_slot + room.clients).map(move |slot| {
            let media = crowd::carrier(slot, room, scenario.transports);
            Place { slot, channel, channel_id, role: Role::Stays, media, quiet: room.talkers == 0 }
        })
    });

    let cpu_before = config.cpu();
    let begun = Instant::now();
    let clients = clients.into_iter().zip(places).collect();
    let members = join_all(shared, clients, scenario.ramp_per_s, |count| stage(Stage::Joining(count, total))).await?;
    let took = begun.elapsed();
    // A node that an earlier phase has ended has no CPU time.
    let cpu = cpu_before.and_then(|before| Ok((before, config.cpu()?))).map(|(before, after)| {
        let used: Vec<_> = after.iter().zip(&before).map(|(after, before)| Some(after.since(before))).collect();
        CpuUsed::sum(&used)
    });
    let joins = Joins::new(members.iter().map(|member| member.took), took, cpu.ok().flatten());
    Ok((Gathered { members, channels, owner }, joins))
}

async fn make_channels(
    shared: &Shared,
    owner: &mut TokenPair,
    rooms: &[Room],
    visitors: usize,
) -> Result<Vec<ChannelId>, LoadError> {
    let rest = shared.rest();
    let made = uuid::Uuid::new_v4().as_u128() & 0xffff;
    let mut channels = Vec::with_capacity(rooms.len());
    for (number, room) in rooms.iter().enumerate() {
        let max_users =
            u32::try_from(room.clients + visitors).map_err(|_| LoadError::Arguments("too many clients".to_owned()))?;
        let name = format!("{}-{made:04x}-{number}", shared.run);
        let channel = NewChannel { name, max_users: Some(max_users), max_speakers: Some(0) };
        channels.push(rest.create_channel(&owner.access(rest).await?, &channel).await?.id);
    }
    Ok(channels)
}

/// Lets everyone leave; nothing stays behind but the guests' names. Failures change no figure. `node` is one that answers.
pub(super) async fn send_home(shared: &Shared, people: Gathered, node: usize) {
    let Gathered { members, channels, mut owner, .. } = people;
    let rest = &shared.rests[node];
    shared.leave_all(members).await;
    for channel in channels {
        let deleted = match owner.access(rest).await {
            Ok(access) => rest.delete_channel(&access, channel).await.map_err(LoadError::from),
            Err(error) => Err(error),
        };
        if let Err(error) = deleted {
            tracing::warn!(%error, %channel, "a channel stays behind");
        }
    }
}
