//! The nodes and the people, and how a step is done to them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use antiphon_core::ids::ChannelId;
use antiphon_loadtest::rest::{NewChannel, Rest};
use tokio::time::timeout;

use crate::{
    checks,
    model::{Deed, Ghost, Model, Wish},
    people::{Map, Person},
    report::Report,
    steps::{Event, Fault, Step},
    support::{nodes::Nodes, process::Process},
    talk::{Numbers, Talk, all_speak},
};

/// How long all may take to be as it is to be once nothing is broken any more. Five seconds are promised; a test asserts
/// no more of the clock than it must.
pub(crate) const HEALED_WITHIN: Duration = Duration::from_secs(60);

/// Far above the 400 ms that an owner's death may cost the others.
const SILENCE_MAX: Duration = Duration::from_secs(3);

/// The channels: the first is the watchers', and node 0 owns it.
pub(crate) const CHANNELS: usize = 2;

/// People who come and go.
const WANDERERS: usize = 6;

pub(crate) struct World {
    pub(crate) nodes: Nodes,
    pub(crate) map: Map,
    /// First one watcher for each node, then wanderers.
    pub(crate) people: Vec<Arc<Person>>,
    pub(crate) model: Model,
    /// Proves that requests are somebody's.
    pub(crate) token: String,
    numbers: Numbers,
    arrivals: usize,
    pub(crate) report: Report,
}

impl World {
    pub(crate) async fn begin(count: usize) -> Self {
        let nodes = Nodes::start_with(count, &[("ANTIPHON_AUTH__ACCESS_TOKEN_TTL_S", "86400")]).await;
        let (token, channels) = make_channels(&nodes).await;
        let map = Map { nodes: nodes.nodes.iter().map(Process::url).collect(), channels: channels.into() };
        let mut world = Self {
            report: Report::new(&nodes),
            nodes,
            map,
            people: Vec::new(),
            model: Model::default(),
            token,
            numbers: Numbers::default(),
            arrivals: 0,
        };
        for index in 0..count + WANDERERS {
            let channel = (index < count).then_some(0);
            world.model.wishes.push(Wish { channel, muted: false });
            let person = world.newcomer(index % count).await;
            person.wants(world.model.wishes[index]);
            world.people.push(person);
        }
        world
    }

    /// Indices of those who wander.
    pub(crate) fn wanderers(&self) -> (usize, usize) {
        (self.nodes.nodes.len(), self.people.len())
    }

    async fn newcomer(&mut self, node: usize) -> Arc<Person> {
        self.arrivals += 1;
        let name = format!("guest-{}", self.arrivals);
        Arc::new(Person::arrive(&self.map, node, &name).await.expect("a guest comes in"))
    }

    /// Does a step, heals it, and checks everything.
    pub(crate) async fn carry_out(&mut self, index: usize, step: &Step) -> Result<(), String> {
        for person in &self.people {
            let mut seen = person.seen();
            seen.heard.clear();
            seen.leavers.clear();
            seen.may_end = step.may_end_sessions();
        }
        let talk = match self.pair(index, step) {
            Some((speaker, listener)) => Some(Talk::begin(speaker, listener, &self.numbers).await?),
            None => None,
        };
        let begun = Instant::now();
        for (at_ms, event) in step.timeline() {
            tokio::time::sleep_until((begun + Duration::from_millis(at_ms)).into()).await;
            self.happen(event, step).await;
        }
        let healed_at = Instant::now();
        self.nodes.all_see(self.nodes.nodes.len()).await;
        if let Some(talk) = talk {
            self.judge(step, talk).await?;
        }
        self.settled().await?;
        let agreed = checks::all_agree(self).await;
        self.report.views_equal_after.push(healed_at.elapsed());
        agreed?;
        if !step.may_end_sessions() {
            checks::nobody_seemed_to_leave(self)?;
        }
        self.spread_watchers().await?;
        self.everyone_speaks().await?;
        checks::no_violation(self)
    }

    async fn judge(&mut self, step: &Step, talk: Talk) -> Result<(), String> {
        let talked = talk.end().await;
        self.report.talked(step, &talked);
        if step.harms_nobody_else() && !talked.lost.is_empty() {
            return Err(format!("others lost frames: {talked:?}"));
        }
        if step.faults.len() < 2 && talked.longest_silence > SILENCE_MAX {
            return Err(format!("others heard nothing for too long: {talked:?}"));
        }
        Ok(())
    }

    async fn happen(&mut self, event: Event, step: &Step) {
        match event {
            Event::Do(person, deed) => {
                let wish = self.model.does(person, deed);
                match deed {
                    Deed::Move(node) => self.people[person].move_to(node),
                    Deed::Go(_) | Deed::Leave | Deed::Mute(_) => self.people[person].wants(wish),
                }
            }
            Event::Begin(fault) => self.begin_fault(fault, step).await,
            Event::Heal(fault) => self.heal(fault).await,
        }
    }

    async fn begin_fault(&mut self, fault: Fault, step: &Step) {
        match fault {
            Fault::Kill(node) => {
                let at = self.nodes.nodes[node].udp_address();
                self.nodes.nodes[node].kill();
                if step.gives_up {
                    self.somebody_gives_up(node, at).await;
                }
            }
            Fault::Drain(node) => self.nodes.nodes[node].signal("TERM"),
            Fault::Freeze(node) => self.nodes.nodes[node].signal("STOP"),
            Fault::CutRelay(one, other) => self.nodes.cut_between(one, other, true),
            Fault::CutRedis(node) => self.nodes.cut_from_redis(node, true),
            Fault::KillRedis { .. } => self.nodes.redis.kill(),
        }
    }

    async fn heal(&mut self, fault: Fault) {
        match fault {
            Fault::Kill(node) => self.nodes.restart(node).await,
            Fault::Drain(node) => {
                self.nodes.nodes[node].ended().await;
                self.nodes.restart(node).await;
            }
            Fault::Freeze(node) => self.nodes.nodes[node].signal("CONT"),
            Fault::CutRelay(one, other) => self.nodes.cut_between(one, other, false),
            Fault::CutRedis(node) => self.nodes.cut_from_redis(node, false),
            Fault::KillRedis { keeps_data } => self.nodes.redis.start_again(keeps_data),
        }
    }

    /// A wanderer of a node that has just died never comes back; a new one comes in their place.
    async fn somebody_gives_up(&mut self, node: usize, at: std::net::SocketAddr) {
        let (first, end) = self.wanderers();
        let is_there = |person: usize| self.people[person].seen().node == Some(at);
        let found = (first..end).find(|person| self.model.wishes[*person].channel.is_some() && is_there(*person));
        let Some((person, channel)) = found.and_then(|person| Some((person, self.model.wishes[person].channel?)))
        else {
            return;
        };
        let begun = Instant::now();
        while !self.people[person].vanish().await {
            if begun.elapsed() > Duration::from_secs(1) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        self.report.gave_up += 1;
        self.model.ghosts.push(Ghost { user: self.people[person].user, channel, since: Instant::now() });
        let newcomer = self.newcomer((node + 1) % self.nodes.nodes.len()).await;
        newcomer.wants(self.model.wishes[person]);
        self.report.gone(&self.people[person]);
        self.people[person] = newcomer;
    }

    /// A watcher who speaks and one who listens, on different nodes that the step does not concern.
    fn pair(&self, index: usize, step: &Step) -> Option<(Arc<Person>, Arc<Person>)> {
        let nodes = 0..self.nodes.nodes.len();
        let on = |node: usize| {
            let at = self.nodes.nodes[node].udp_address();
            self.people[nodes.clone()].iter().find(|watcher| watcher.seen().node == Some(at)).cloned()
        };
        let mut free: Vec<Arc<Person>> = nodes.clone().filter(|node| !step.concerns(*node)).filter_map(on).collect();
        let count = free.len();
        if count < 2 {
            return None;
        }
        free.rotate_left(index % count);
        Some((Arc::clone(&free[0]), Arc::clone(&free[1])))
    }

    /// Waits until everyone is as they want to be.
    pub(crate) async fn settled(&self) -> Result<(), String> {
        for (index, person) in self.people.iter().enumerate() {
            if timeout(HEALED_WITHIN, person.settled(self.model.wishes[index])).await.is_err() {
                return Err(format!("{index} does not come to {:?}: {:?}", self.model.wishes[index], person.seen()));
            }
        }
        checks::no_violation(self)
    }

    /// Sends watchers to nodes that have none.
    async fn spread_watchers(&self) -> Result<(), String> {
        let count = self.nodes.nodes.len();
        for (index, watcher) in self.people[..count].iter().enumerate() {
            if watcher.seen().node != Some(self.nodes.nodes[index].udp_address()) {
                watcher.move_to(index);
            }
        }
        self.settled().await?;
        checks::all_agree(self).await
    }

    async fn everyone_speaks(&self) -> Result<(), String> {
        for channel in 0..CHANNELS {
            let members = self.model.members(channel);
            let members: Vec<_> =
                members.into_iter().map(|(index, muted)| (Arc::clone(&self.people[index]), muted)).collect();
            all_speak(&members, &self.numbers).await.map_err(|error| format!("in channel {channel}: {error}"))?;
        }
        Ok(())
    }
}

/// An account, and the channels, the first of which node 0 owns: so a seed says whether an owner is killed.
async fn make_channels(nodes: &Nodes) -> (String, Vec<ChannelId>) {
    let rest = Rest::new(nodes.nodes[0].url()).expect("a client");
    let owner = rest.register("owner", "a long enough password").await.expect("registered");
    let mut channels: Vec<ChannelId> = Vec::new();
    for number in 0.. {
        let channel = NewChannel { name: format!("channel-{number}"), max_users: Some(50), max_speakers: None };
        let id = rest.create_channel(&owner.access_token, &channel).await.expect("created").id;
        if channels.is_empty() && nodes.owner_of(id) != 0 {
            continue;
        }
        channels.push(id);
        if channels.len() == CHANNELS {
            break;
        }
    }
    (owner.access_token, channels)
}
