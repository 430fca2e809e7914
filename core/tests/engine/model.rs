//! Anything that may happen to a channel, in any order, against a model that a reader can see through.

use std::collections::{BTreeMap, HashMap};

use antiphon_core::{
    clock::Micros,
    engine::{Command, Counter, Event, MemberFlags},
    gateway::Cipher,
    ids::KeyId,
    prng::Prng,
};

use crate::world::{Client, World, channel_id, gateway_voice, ms};

const CHANNEL: u128 = 3;
const HOME: usize = 1;

/// What is known of a member without looking into the engine.
struct Present {
    client: Client,
    flags: MemberFlags,
    /// Members of `media: websocket` have no session.
    has_udp: bool,
    proven: bool,
}

struct Model {
    world: World,
    prng: Prng,
    members: BTreeMap<u32, Present>,
    next_id: u32,
    key_id: KeyId,
}

impl Model {
    fn new(seed: u64) -> Self {
        let mut prng = Prng::new(seed);
        let mut world = World::new(2, Micros(prng.below(2) * 2_000));
        world.open_channel(HOME, channel_id(CHANNEL), 0);
        Self { world, prng, members: BTreeMap::new(), next_id: 10, key_id: KeyId::FIRST }
    }

    fn anyone(&mut self) -> Option<u32> {
        let chosen = self.prng.below(self.members.len() as u64) as usize;
        self.members.keys().nth(chosen).copied()
    }

    fn join(&mut self) {
        let id = self.next_id;
        self.next_id += 1;
        let mut client = Client::new(id, Cipher::ALL[self.prng.below(2) as usize]);
        let (has_udp, proven) = (self.prng.chance(0.9), self.prng.chance(0.8));
        if has_udp {
            self.world.join(HOME, channel_id(CHANNEL), &client);
        } else {
            self.world.add_member(HOME, channel_id(CHANNEL), client.stream, None);
        }
        if has_udp && proven {
            self.world.connect(&mut client);
        }
        let present = Present { client, flags: MemberFlags::default(), has_udp, proven: has_udp && proven };
        self.members.insert(id, present);
    }

    fn leave(&mut self) {
        let Some(member) = self.anyone().and_then(|id| self.members.remove(&id)) else { return };
        let (session, stream) = (member.client.session, member.client.stream);
        self.world.command(HOME, Command::RemoveMember { channel: channel_id(CHANNEL), stream });
        if member.has_udp {
            let worker = self.world.worker_of(session);
            self.world.command(worker, Command::RemoveSession { session });
        }
    }

    fn set_flags(&mut self) {
        let flags = MemberFlags {
            muted: self.prng.chance(0.3),
            deafened: self.prng.chance(0.3),
            priority: self.prng.chance(0.3),
        };
        let Some(id) = self.anyone() else { return };
        let member = self.members.get_mut(&id).expect("present");
        member.flags = flags;
        self.world.set_flags(HOME, channel_id(CHANNEL), &member.client, flags);
    }

    /// They lose UDP and say so by a frame, or prove it anew.
    fn change_proof(&mut self) {
        let Some(id) = self.anyone() else { return };
        let member = self.members.get_mut(&id).expect("present");
        if !member.has_udp {
            return;
        }
        if member.proven {
            let silence = gateway_voice(member.client.sequence);
            member.client.sequence += 1;
            self.world.gateway_frame(HOME, channel_id(CHANNEL), member.client.stream, silence);
        } else {
            self.world.connect(&mut member.client);
        }
        member.proven = !member.proven;
    }

    fn resume(&mut self) {
        let Some(id) = self.anyone() else { return };
        let next = self.next_id;
        self.next_id += 1;
        let cipher = Cipher::ALL[self.prng.below(2) as usize];
        let member = self.members.get_mut(&id).expect("present");
        if !member.has_udp {
            return;
        }
        let mut client = Client::new(next, cipher);
        client.stream = member.client.stream;
        client.sequence = member.client.sequence;
        self.world.add_session(&client);
        let udp = Some(self.world.member_udp(&client));
        let stream = client.stream;
        self.world.command(HOME, Command::SetMemberUdp { channel: channel_id(CHANNEL), stream, udp });
        self.world.attach(HOME, channel_id(CHANNEL), &client);
        self.world.connect(&mut client);
        member.client = client;
        member.proven = true;
    }

    fn rotate(&mut self) {
        self.key_id = self.key_id.next();
        let activate_at = self.world.now + ms(200);
        for cipher in Cipher::ALL {
            self.world.set_group_key(HOME, channel_id(CHANNEL), cipher, self.key_id, activate_at);
        }
    }

    /// Some speak at once, by UDP if they can; everyone hears exactly what the model says.
    fn speak(&mut self, seed: u64) {
        self.world.advance(ms(100));
        self.world.clear();
        let speakers: Vec<u32> = self.members.keys().copied().filter(|_| self.prng.chance(0.4)).collect();
        let mut datagrams = Vec::new();
        let mut by_gateway = 0;
        for id in &speakers {
            let member = self.members.get_mut(id).expect("present");
            if member.proven {
                datagrams.push((member.client.address, member.client.voice()));
            } else {
                let frame = gateway_voice(member.client.sequence);
                member.client.sequence += 1;
                by_gateway += 1;
                self.world.gateway_frame(HOME, channel_id(CHANNEL), member.client.stream, frame);
            }
        }
        self.world.send_all(datagrams);
        self.world.advance(ms(5));
        let heard = self.world.heard();
        let mut heard: HashMap<_, Vec<u32>> = heard
            .into_iter()
            .map(|(to, frames)| (to, frames.iter().map(|frame| frame.header.stream.0).collect()))
            .collect();
        let audible: Vec<u32> = speakers.iter().filter(|id| !self.members[id].flags.muted).copied().collect();
        for (id, member) in &self.members {
            let mut got = heard.remove(&member.client.address).unwrap_or_default();
            got.sort_unstable();
            let mut expected: Vec<u32> = audible
                .iter()
                .filter(|speaker| *speaker != id)
                .map(|speaker| self.members[speaker].client.stream.0)
                .collect();
            expected.sort_unstable();
            if !member.proven || member.flags.deafened {
                expected.clear();
            }
            assert_eq!(got, expected, "seed {seed}: member {id} of {}, {by_gateway} by gateway", self.members.len());
        }
        assert!(heard.is_empty(), "seed {seed}: {heard:?} heard without being there");
        let tunnelled = self.world.events().iter().filter(|event| matches!(event, Event::Tunnel { .. })).count();
        let unreached = |id: &u32| {
            let others = self.members.iter().filter(|(other, _)| *other != id);
            others.into_iter().any(|(_, member)| !member.proven && !member.flags.deafened)
        };
        assert_eq!(tunnelled, audible.iter().filter(|id| unreached(id)).count(), "seed {seed}");
    }
}

#[test]
fn whatever_happens_everyone_hears_what_they_should() {
    for seed in 0..200 {
        let mut model = Model::new(seed);
        for _ in 0..120 {
            match model.prng.below(12) {
                0..=2 if model.members.len() < 20 => model.join(),
                3 => model.leave(),
                4..=5 => model.set_flags(),
                6..=7 => model.change_proof(),
                8 => model.resume(),
                9 => model.rotate(),
                _ => model.speak(seed),
            }
            // Pings would keep the proofs; the whole takes less than one lifetime.
            let step = Micros(model.prng.below(300));
            model.world.advance(step);
        }
        model.speak(seed);
        assert_eq!(model.world.count(Counter::MembersPresent), model.members.len() as u64);
        assert_eq!(model.world.count(Counter::CommandsRefused), 0, "seed {seed}");
    }
}
