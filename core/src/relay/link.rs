//! Another node, and the ways to its workers: keys, counters, what waits to be sent, and whether it is heard.

use std::collections::VecDeque;

use super::{
    Counter, NodeInfo, Output, RelayStats,
    keys::Secret,
    timers::Armed,
    wire::{BUNDLE_BYTES_MAX, Hop, Kind, PLAINTEXT_BYTES_MAX, RECORD_HEADER_BYTES, write_record},
};
use crate::{
    clock::Micros,
    hash::IdMap,
    ids::{ChannelId, KeyId, NodeNumber, WorkerIndex},
    replay::ReplayWindow,
    seal::{Direction, Key},
    slab::{Slab, SlabKey},
    wire::datagram::{DATAGRAM_BYTES_MAX, HEADER_BYTES, Header, PacketType},
};

/// A node to which nothing was sent for this long gets a heartbeat (DESIGN.md, Media path).
pub const HEARTBEAT: Micros = Micros::from_millis(50);
/// A node that is not heard for this long is suspect: three heartbeats.
const SUSPECT: Micros = Micros::from_millis(150);
/// A node that is not heard for this long owns nothing.
const LOST: Micros = Micros::from_millis(400);
/// A heartbeat goes out this often however much else does, since it alone tells the epoch.
pub const HEARTBEAT_AT_LEAST: Micros = Micros::from_secs(1);
/// Nodes that are gone from the registry and may come back under the same keys: their replay windows are kept.
const RETIRED_MAX: usize = 64;
/// A node that registered anew is known by its new number at once here, and a moment later or sooner there: for so long it goes
/// on under the old one, by which all know it still.
const RENUMBERED: Micros = Micros::from_secs(1);

/// A worker of another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PathKey {
    pub(super) link: SlabKey,
    pub(super) worker: WorkerIndex,
}

/// Whether a path is heard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Hearing {
    /// Yes, or nobody waits for it.
    #[default]
    Well,
    /// Not for [`SUSPECT`].
    Suspect,
    /// Not for [`LOST`].
    Lost,
}

/// Records that wait to leave together, where they are sealed.
struct Bundle {
    datagram: [u8; DATAGRAM_BYTES_MAX],
    length: usize,
    records: usize,
}

/// The way to one worker of another node.
#[derive(Default)]
pub(super) struct Path {
    receive_key: Option<Box<Key>>,
    window: ReplayWindow,
    bundle: Option<Box<Bundle>>,
    pub(super) hearing: Hearing,
    heard_at: Micros,
    sent_at: Micros,
    heartbeat_at: Micros,
    /// How many channels have it as owner, now or before.
    awaited: u32,
    awaited_since: Micros,
    /// How many channels have it as edge.
    served: u32,
    pub(super) armed: Armed,
}

impl Path {
    /// What is due on it: whether a heartbeat, whether it is heard less than before, and when to look again.
    pub(super) fn look(&mut self, now: Micros) -> Look {
        if self.awaited == 0 && self.served == 0 {
            return Look { heartbeat: false, worse: None, again_at: None };
        }
        let heartbeat = now.since(self.sent_at) >= HEARTBEAT || now.since(self.heartbeat_at) >= HEARTBEAT_AT_LEAST;
        if heartbeat {
            self.sent_at = now;
            self.heartbeat_at = now;
        }
        let mut again_at = (self.sent_at + HEARTBEAT).min(self.heartbeat_at + HEARTBEAT_AT_LEAST);
        let mut worse = None;
        if self.awaited > 0 {
            let since = self.heard_at.max(self.awaited_since);
            let silent = now.since(since);
            let hearing = match silent {
                silent if silent >= LOST => Hearing::Lost,
                silent if silent >= SUSPECT => Hearing::Suspect,
                _ => Hearing::Well,
            };
            if self.hearing != Hearing::Lost && hearing != self.hearing && hearing != Hearing::Well {
                self.hearing = hearing;
                worse = Some(hearing);
            }
            match self.hearing {
                Hearing::Well => again_at = again_at.min(since + SUSPECT),
                Hearing::Suspect => again_at = again_at.min(since + LOST),
                Hearing::Lost => {}
            }
        }
        Look { heartbeat, worse, again_at: Some(again_at) }
    }
}

/// What is due on a path.
pub(super) struct Look {
    pub(super) heartbeat: bool,
    pub(super) worse: Option<Hearing>,
    pub(super) again_at: Option<Micros>,
}

/// Another node.
pub(super) struct Link {
    pub(super) node: NodeInfo,
    version: u8,
    send_key: Key,
    counter: u64,
    /// The number that it had before it registered anew, by which it goes on for [`RENUMBERED`].
    former: Option<NodeNumber>,
    /// This node's former number, and until when datagrams to that node say it.
    sent_as: Option<(NodeNumber, Micros)>,
    pub(super) paths: Box<[Path]>,
}

impl Link {
    pub(super) fn path(&mut self, worker: WorkerIndex) -> &mut Path {
        &mut self.paths[usize::from(worker.0)]
    }

    /// What is now known of the node, whose number was `before`, and how this one is to be known to it for a moment.
    fn update(&mut self, before: NodeNumber, node: &NodeInfo, sent_as: Option<(NodeNumber, Micros)>) {
        self.node = node.clone();
        if before != node.number {
            self.former = Some(before);
        }
        if sent_as.is_some() {
            self.sent_as = sent_as;
        }
    }

    /// Nobody waits for it, and nothing waits for it.
    fn rest(&mut self) {
        (self.former, self.sent_as) = (None, None);
        for path in &mut self.paths {
            (path.awaited, path.served) = (0, 0);
            path.hearing = Hearing::Well;
            path.armed = Armed::default();
            path.bundle = None;
        }
    }
}

/// A record on its way out: its body is `head` and then `tail`.
pub(super) struct Outgoing<'a> {
    pub(super) channel: ChannelId,
    pub(super) kind: (Kind, Hop),
    pub(super) head: &'a [u8],
    pub(super) tail: &'a [u8],
}

/// What it takes to send.
pub(super) struct Leaving<'a, O> {
    pub(super) now: Micros,
    pub(super) stats: &'a mut RelayStats,
    pub(super) out: &'a mut O,
}

/// A datagram of another node, opened.
pub(super) struct Opened<'a> {
    pub(super) from: PathKey,
    pub(super) plaintext: &'a [u8],
}

/// All other nodes.
pub(super) struct Links {
    secret: Secret,
    worker: WorkerIndex,
    me: Option<NodeInfo>,
    links: Slab<Link>,
    by_number: IdMap<NodeNumber, SlabKey>,
    retired: VecDeque<Link>,
    /// No counter of a link that is gone reached this: where the counters of new links begin, so that none comes twice
    /// even if a node comes back that is no longer remembered.
    counter_floor: u64,
    /// Paths with something to send.
    dirty: Vec<PathKey>,
}

impl Links {
    pub(super) fn new(secret: &[u8], worker: WorkerIndex) -> Self {
        Self {
            secret: Secret::new(secret),
            worker,
            me: None,
            links: Slab::default(),
            by_number: IdMap::default(),
            retired: VecDeque::new(),
            counter_floor: 0,
            dirty: Vec::new(),
        }
    }

    pub(super) fn me(&self) -> Option<&NodeInfo> {
        self.me.as_ref()
    }

    pub(super) fn len(&self) -> usize {
        self.links.len()
    }

    /// The cluster is this. Links to nodes that stay keep their state, also under another number; a node that started anew is
    /// another.
    pub(super) fn set(&mut self, now: Micros, me: &NodeInfo, peers: &[NodeInfo]) {
        let same = |a: &NodeInfo, b: &NodeInfo| {
            a.id == b.id && a.started_at_us == b.started_at_us && a.workers == b.workers && a.versions == b.versions
        };
        let renewed = self.me.as_ref().is_some_and(|before| !same(before, me));
        if renewed {
            // Their keys were those of this node's earlier start.
            self.retired.clear();
        }
        let former = self.me.as_ref().map(|before| before.number).filter(|before| *before != me.number);
        let sent_as = former.map(|former| (former, now + RENUMBERED));
        let usable = |peer: &&NodeInfo| peer.id != me.id && (1..=super::WORKERS_MAX).contains(&peer.workers);
        let links = &self.links;
        let is_current = |number: NodeNumber, key| links.get(key).is_some_and(|link| link.node.number == number);
        let mut before: Vec<_> = self.by_number.drain().filter(|(number, key)| is_current(*number, *key)).collect();
        for peer in peers.iter().filter(usable) {
            let Some(version) = me.versions.common(peer.versions) else { continue };
            let known =
                |(_, key): &(_, SlabKey)| !renewed && self.links.get(*key).is_some_and(|link| same(&link.node, peer));
            let key = match before.iter().position(known) {
                Some(index) => {
                    let (number, key) = before.swap_remove(index);
                    if let Some(link) = self.links.get_mut(key) {
                        link.update(number, peer, sent_as);
                    }
                    key
                }
                None => self.add(me, peer, version),
            };
            self.by_number.insert(peer.number, key);
        }
        for (_, key) in before {
            self.retire(key);
        }
        for key in self.by_number.values().copied().collect::<Vec<_>>() {
            if let Some(former) = self.links.get(key).and_then(|link| link.former) {
                // Should it be another's by now, it is that one's.
                self.by_number.entry(former).or_insert(key);
            }
        }
        if renewed {
            self.retired.clear();
        }
        self.me = Some(me.clone());
    }

    fn add(&mut self, me: &NodeInfo, peer: &NodeInfo, version: u8) -> SlabKey {
        let same = |link: &Link| {
            link.node.id == peer.id
                && link.node.started_at_us == peer.started_at_us
                && link.node.workers == peer.workers
                && link.version == version
        };
        let back = self.retired.iter().position(same).and_then(|index| self.retired.remove(index));
        let link = back.unwrap_or_else(|| Link {
            node: peer.clone(),
            version,
            send_key: self.secret.key(version, me, peer, self.worker),
            counter: self.counter_floor,
            former: None,
            sent_as: None,
            paths: (0..peer.workers).map(|_| Path::default()).collect(),
        });
        self.links.insert_with(|_| Link { node: peer.clone(), ..link })
    }

    fn retire(&mut self, key: SlabKey) {
        let Some(mut link) = self.links.remove(key) else { return };
        self.counter_floor = self.counter_floor.max(link.counter);
        link.rest();
        self.retired.push_back(link);
        if self.retired.len() > RETIRED_MAX {
            self.retired.pop_front();
        }
    }

    pub(super) fn by_number(&self, number: NodeNumber) -> Option<SlabKey> {
        self.by_number.get(&number).copied()
    }

    pub(super) fn get(&self, key: SlabKey) -> Option<&Link> {
        self.links.get(key)
    }

    pub(super) fn path_mut(&mut self, key: PathKey) -> Option<&mut Path> {
        self.links.get_mut(key.link).map(|link| link.path(key.worker))
    }

    pub(super) fn hearing(&self, key: PathKey) -> Option<Hearing> {
        self.links.get(key.link).map(|link| link.paths[usize::from(key.worker.0)].hearing)
    }

    /// One more channel waits for this worker as its owner, or one fewer. True when it is to be looked at.
    pub(super) fn await_path(&mut self, now: Micros, key: PathKey, more: bool) -> bool {
        let Some(path) = self.path_mut(key) else { return false };
        let idle = path.awaited == 0;
        path.awaited = if more { path.awaited + 1 } else { path.awaited.saturating_sub(1) };
        if idle && more {
            path.awaited_since = now;
        }
        idle && more
    }

    /// One more channel has this worker as an edge, or one fewer. True when it is to be looked at.
    pub(super) fn serve_path(&mut self, key: PathKey, more: bool) -> bool {
        let Some(path) = self.path_mut(key) else { return false };
        let idle = path.served == 0;
        path.served = if more { path.served + 1 } else { path.served.saturating_sub(1) };
        idle && more
    }

    /// Opens a datagram, or says why it is dropped; then nothing has changed.
    pub(super) fn open<'a>(&mut self, now: Micros, datagram: &'a mut [u8]) -> Result<(Opened<'a>, Hearing), Counter> {
        let header = Header::parse(datagram).map_err(Counter::of_header_error)?;
        if header.packet_type != PacketType::Media {
            return Err(Counter::DroppedType);
        }
        let [n0, n1, n2, to] = header.id.to_be_bytes();
        let number = NodeNumber(u32::from_be_bytes([0, n0, n1, n2]));
        let me = self.me.as_ref().ok_or(Counter::DroppedUnknownPeer)?;
        let key = *self.by_number.get(&number).ok_or(Counter::DroppedUnknownPeer)?;
        if u16::from(to) != self.worker.0 {
            return Err(Counter::DroppedWrongWorker);
        }
        let Link { node, version, paths, .. } = self.links.get_mut(key).ok_or(Counter::DroppedUnknownPeer)?;
        let worker = WorkerIndex(header.key_id.0.into());
        let path = paths.get_mut(usize::from(worker.0)).ok_or(Counter::DroppedUnknownPeer)?;
        if !path.window.check(header.counter) {
            return Err(Counter::DroppedReplayed);
        }
        // Set aside at most once for each worker of a known node, whoever made it necessary.
        let receive_key = path.receive_key.get_or_insert_with(|| Box::new(self.secret.key(*version, node, me, worker)));
        let plaintext = receive_key.open(Direction::ToNode, &header, datagram).ok_or(Counter::DroppedNotAuthentic)?;
        path.window.accept(header.counter);
        path.heard_at = now;
        let before = std::mem::take(&mut path.hearing);
        Ok((Opened { from: PathKey { link: key, worker }, plaintext }, before))
    }

    /// Puts a record into the next datagram to a worker; one that is full leaves first. False when the record is longer
    /// than a datagram, or the node is gone.
    pub(super) fn push(&mut self, to: PathKey, record: &Outgoing<'_>, leaving: &mut Leaving<'_, impl Output>) -> bool {
        let length = RECORD_HEADER_BYTES + record.head.len() + record.tail.len();
        let Some(path) = self.path_mut(to) else { return false };
        let bundle = path
            .bundle
            .get_or_insert_with(|| Box::new(Bundle { datagram: [0; DATAGRAM_BYTES_MAX], length: 0, records: 0 }));
        if bundle.length == 0 {
            self.dirty.push(to);
        } else if bundle.length + length > BUNDLE_BYTES_MAX {
            self.seal_and_send(to, leaving);
        }
        let Some(bundle) = self.path_mut(to).and_then(|path| path.bundle.as_mut()) else { return false };
        let room = &mut bundle.datagram[HEADER_BYTES + bundle.length..HEADER_BYTES + PLAINTEXT_BYTES_MAX];
        let Some(written) = write_record(room, record.channel, record.kind, record.head, record.tail) else {
            return false;
        };
        bundle.length += written;
        bundle.records += 1;
        true
    }

    /// Sends everything that waits.
    pub(super) fn flush(&mut self, leaving: &mut Leaving<'_, impl Output>) {
        while let Some(path) = self.dirty.pop() {
            self.seal_and_send(path, leaving);
        }
    }

    fn seal_and_send(&mut self, to: PathKey, leaving: &mut Leaving<'_, impl Output>) {
        let Some(me) = &self.me else { return };
        let Some(Link { node, send_key, counter, sent_as, paths, .. }) = self.links.get_mut(to.link) else { return };
        let me = sent_as.filter(|(_, until)| leaving.now < *until).map_or(me.number, |(former, _)| former);
        let path = &mut paths[usize::from(to.worker.0)];
        let Some(bundle) = path.bundle.as_mut().filter(|bundle| bundle.length > 0) else { return };
        let header = Header {
            packet_type: PacketType::Media,
            key_id: KeyId(self.worker.0.to_be_bytes()[1]),
            id: (me.0 << 8) | u32::from(to.worker.0),
            counter: *counter,
        };
        *counter += 1;
        let length = send_key.seal(Direction::ToNode, &header, &mut bundle.datagram, bundle.length);
        leaving.out.send(node.address, &bundle.datagram[..length]);
        leaving.stats.count(Counter::of_bundle(bundle.records));
        leaving.stats.add(Counter::BytesSent, length as u64);
        (bundle.length, bundle.records) = (0, 0);
        path.sent_at = leaving.now;
    }
}
