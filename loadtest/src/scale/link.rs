//! What a frame between two nodes costs: real relays over real sockets, and what the kernel's segmentation would gain.
//!
//! Two relays in one thread, each with a socket on loopback. Turns follow each other without waiting; in each, every
//! frame that is due by then is given to its speaker's relay, what the relays send is sent and received, and the frames
//! are delivered. Time passes for the relays by the length of a turn, so how many frames a turn brings is chosen, not met.
#![expect(unsafe_code, reason = "neither std nor socket2 has UDP_GRO")]

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    mem::MaybeUninit,
    net::{SocketAddr, UdpSocket},
    os::fd::AsRawFd,
    ptr,
    sync::Arc,
};

use antiphon_core::{
    clock::Micros,
    ids::{ChannelId, NodeNumber, StreamId, WorkerIndex},
    prng::Prng,
    relay::{NodeInfo, Output, Relay, RelayCommand, RelayConfig, RelayEvent, Versions},
    wire::{datagram::DATAGRAM_BYTES_MIN, frame::FrameHeader},
};
use serde::Serialize;
use socket2::{MaybeUninitSlice, MsgHdr, MsgHdrMut, SockAddr, SockRef};

use super::{
    model,
    world::{FRAME, node_id},
};

/// The kernel's limits for one send.
const SEGMENTS_MAX: usize = 64;
const SEND_BYTES_MAX: usize = 65_000;
/// Room for what one receive brings at most.
const RECEIVE_BYTES: usize = 1 << 16;
const SOCKET_BUFFER_BYTES: usize = 4 << 20;
/// A control message: its length, level and type, and up to eight bytes of value.
const CONTROL_HEAD_BYTES: usize = 16;
const CONTROL_BYTES: usize = CONTROL_HEAD_BYTES + 8;
/// Until both nodes know each other and every channel.
const SETTLE_TURNS: u64 = 4_000;

/// How datagrams go through the sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Sending {
    /// No relay: a datagram for each frame, not sealed. The floor.
    EachFrame,
    /// The relay's datagrams, a call for each.
    Datagrams,
    /// Datagrams of one length that follow each other in one call (`UDP_SEGMENT`).
    Segmented,
    /// Those, and received in one call (`UDP_GRO`).
    SegmentedAndCoalesced,
}

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub struct LinkConfig {
    /// Channels with members on both nodes; one speaks in each, in every second one on the first node.
    pub channels: u32,
    /// Bytes of a frame.
    pub frame_bytes: usize,
    /// By how much those vary: each frame has up to so many bytes fewer.
    pub frame_bytes_vary: usize,
    /// How long a turn is for the relays.
    pub turn: Micros,
    /// How much time passes for them.
    pub time: Micros,
    /// Chooses phases and lengths.
    pub seed: u64,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct LinkCost {
    /// How it was sent.
    pub sending: Sending,
    /// The length of a turn.
    pub turn_us: u64,
    /// Frames that crossed.
    pub frames: u64,
    /// Frames in a datagram.
    pub frames_per_datagram: f64,
    /// Datagrams in a call to send.
    pub datagrams_per_send: f64,
    /// CPU time for each frame, sending and receiving, in µs.
    pub cpu_us_per_frame: f64,
}

/// Measures one way of sending.
///
/// # Errors
/// When the sockets fail or the kernel lacks an option.
pub fn measure_link(config: &LinkConfig, sending: Sending) -> io::Result<LinkCost> {
    let mut pair = Pair::new(config, sending)?;
    for _ in 0..SETTLE_TURNS {
        pair.turn(false)?;
    }
    let (turns, before) = (config.time.0 / config.turn.0, cpu_ns()?);
    pair.counted = Counted::default();
    for _ in 0..turns {
        pair.turn(true)?;
    }
    let (cpu, counted) = (cpu_ns()? - before, pair.counted);
    Ok(LinkCost {
        sending,
        turn_us: config.turn.0,
        frames: counted.frames,
        frames_per_datagram: counted.frames as f64 / counted.datagrams as f64,
        datagrams_per_send: counted.datagrams as f64 / counted.sends as f64,
        cpu_us_per_frame: cpu as f64 / 1e3 / counted.frames as f64,
    })
}

/// The CPU time of this thread.
fn cpu_ns() -> io::Result<u64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let first = text.split_whitespace().next().and_then(|first| first.parse().ok());
    first.ok_or_else(|| io::Error::other("the kernel counts no CPU time (CONFIG_SCHED_INFO)"))
}

#[derive(Clone, Copy, Default)]
struct Counted {
    frames: u64,
    datagrams: u64,
    sends: u64,
}

/// Datagrams back to back, as a relay sent them, and how many frames were delivered.
#[derive(Default)]
struct Effects {
    bytes: Vec<u8>,
    lengths: VecDeque<usize>,
    delivered: u64,
}

impl Output for Effects {
    fn send(&mut self, _: SocketAddr, datagram: &[u8]) {
        self.bytes.extend_from_slice(datagram);
        self.lengths.push_back(datagram.len());
    }

    fn deliver(&mut self, _: ChannelId, _: &FrameHeader, _: &[u8]) {
        self.delivered += 1;
    }

    fn event(&mut self, _: RelayEvent) {}
}

/// One node.
struct Side {
    relay: Relay,
    socket: UdpSocket,
    address: SocketAddr,
    effects: Effects,
}

impl Side {
    fn new(coalesced: bool) -> io::Result<Self> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.set_nonblocking(true)?;
        SockRef::from(&socket).set_recv_buffer_size(SOCKET_BUFFER_BYTES)?;
        if coalesced {
            coalesce(&socket)?;
        }
        let relay = Relay::new(&RelayConfig { worker: WorkerIndex(0), secret: Arc::from(&b"a link's secret"[..]) });
        Ok(Self { relay, address: socket.local_addr()?, socket, effects: Effects::default() })
    }

    fn info(&self, index: usize) -> NodeInfo {
        NodeInfo {
            id: node_id(index),
            number: NodeNumber(index as u32 + 1),
            started_at_us: 1,
            address: self.address,
            workers: 1,
            versions: Versions::SPOKEN,
            capacity: 100,
            serving: true,
        }
    }

    /// Sends what was gathered: how many calls that took.
    fn send(&mut self, to: SocketAddr, segmented: bool) -> io::Result<u64> {
        let (to, mut rest, mut sends) = (SockAddr::from(to), &self.effects.bytes[..], 0);
        let lengths = self.effects.lengths.make_contiguous();
        let mut first = 0;
        while first < lengths.len() {
            let count = if segmented { run(&lengths[first..]) } else { 1 };
            let (now, later) = rest.split_at(lengths[first..first + count].iter().sum());
            let control = control(lengths[first]);
            let parts = [IoSlice::new(now)];
            let message = MsgHdr::new().with_addr(&to).with_buffers(&parts);
            let message = if count > 1 { message.with_control(&control) } else { message };
            SockRef::from(&self.socket).sendmsg(&message, libc::MSG_DONTWAIT)?;
            (rest, first, sends) = (later, first + count, sends + 1);
        }
        self.effects.bytes.clear();
        self.effects.lengths.clear();
        Ok(sends)
    }
}

/// How many of the next datagrams can leave in one call: those of one length, and one that is shorter.
fn run(lengths: &[usize]) -> usize {
    let first = lengths[0];
    let most = (SEND_BYTES_MAX / first).min(SEGMENTS_MAX).min(lengths.len());
    let equal = lengths[..most].iter().take_while(|length| **length == first).count();
    let shorter = equal < most && lengths[equal] < first;
    equal + usize::from(shorter)
}

/// The control message that says how long segments are.
fn control(segment_bytes: usize) -> [u8; CONTROL_BYTES] {
    let mut control = [0; CONTROL_BYTES];
    control[..8].copy_from_slice(&(CONTROL_HEAD_BYTES + 2).to_ne_bytes());
    control[8..12].copy_from_slice(&libc::SOL_UDP.to_ne_bytes());
    control[12..16].copy_from_slice(&libc::UDP_SEGMENT.to_ne_bytes());
    control[16..18].copy_from_slice(&(segment_bytes as u16).to_ne_bytes());
    control
}

/// Lets a socket receive in one call what was sent in one.
fn coalesce(socket: &UdpSocket) -> io::Result<()> {
    let on: libc::c_int = 1;
    let length = size_of_val(&on) as libc::socklen_t;
    // SAFETY: the option's value outlives the call and has the given length.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_UDP, libc::UDP_GRO, (&raw const on).cast(), length) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

struct Speaker {
    channel: ChannelId,
    side: usize,
    phase: Micros,
    frames: u64,
}

struct Pair {
    config: LinkConfig,
    sending: Sending,
    now: Micros,
    sides: [Side; 2],
    speakers: Vec<Speaker>,
    /// Who speaks next.
    next: usize,
    frame: Vec<u8>,
    prng: Prng,
    received: Vec<u8>,
    counted: Counted,
}

impl Pair {
    fn new(config: &LinkConfig, sending: Sending) -> io::Result<Self> {
        let coalesced = sending == Sending::SegmentedAndCoalesced;
        let mut sides = [Side::new(coalesced)?, Side::new(coalesced)?];
        let infos = [0, 1].map(|index: usize| sides[index].info(index));
        let mut prng = Prng::new(config.seed);
        let mut speakers = Vec::new();
        for index in 0..config.channels {
            let channel = model::channel_id(config.seed, index);
            speakers.push(Speaker { channel, side: index as usize % 2, phase: Micros(prng.below(FRAME.0)), frames: 0 });
        }
        speakers.sort_by_key(|speaker| speaker.phase);
        for (index, Side { relay, effects, .. }) in sides.iter_mut().enumerate() {
            let [me, peer] = [&infos[index], &infos[1 - index]].map(Clone::clone);
            relay.command(Micros::ZERO, RelayCommand::SetPeers { epoch: 1, me, peers: Arc::new([peer]) }, effects);
            for Speaker { channel, .. } in &speakers {
                relay.command(Micros::ZERO, RelayCommand::Open { channel: *channel, max_speakers: 0 }, effects);
            }
        }
        Ok(Self {
            config: *config,
            sending,
            now: Micros::ZERO,
            sides,
            speakers,
            next: 0,
            frame: vec![0x55; config.frame_bytes],
            prng,
            received: vec![0; RECEIVE_BYTES],
            counted: Counted::default(),
        })
    }

    /// One turn of both nodes.
    fn turn(&mut self, speaking: bool) -> io::Result<()> {
        self.now = self.now + self.config.turn;
        while speaking && self.due() <= self.now {
            self.speak();
        }
        let addresses = [0, 1].map(|index: usize| self.sides[1 - index].address);
        for (side, to) in self.sides.iter_mut().zip(addresses) {
            if self.sending != Sending::EachFrame {
                side.relay.timeout(self.now, &mut side.effects);
            }
            let segmented = matches!(self.sending, Sending::Segmented | Sending::SegmentedAndCoalesced);
            self.counted.datagrams += side.effects.lengths.len() as u64;
            self.counted.sends += side.send(to, segmented)?;
        }
        (0..2).try_for_each(|index| self.receive(index))
    }

    /// When the next frame is due; speakers take turns in the order of their phases.
    fn due(&self) -> Micros {
        let speaker = &self.speakers[self.next];
        let started_at = Micros(self.config.turn.0 * SETTLE_TURNS);
        started_at + speaker.phase + Micros(speaker.frames * FRAME.0)
    }

    fn speak(&mut self) {
        let speaker = &mut self.speakers[self.next];
        let Side { relay, effects, .. } = &mut self.sides[speaker.side];
        let fewer = self.prng.below(self.config.frame_bytes_vary as u64 + 1) as usize;
        let bytes = &self.frame[..self.config.frame_bytes - fewer];
        let header = FrameHeader {
            stream: StreamId(self.next as u32 + 1),
            sequence: speaker.frames as u16,
            timestamp: 0,
            kind_flags: 0,
            level: 30,
        };
        if self.sending == Sending::EachFrame {
            effects.bytes.resize(effects.bytes.len() + DATAGRAM_BYTES_MIN, 0);
            effects.bytes.extend_from_slice(bytes);
            effects.lengths.push_back(DATAGRAM_BYTES_MIN + bytes.len());
        } else {
            relay.local_frame(self.now, speaker.channel, &header, bytes, effects);
        }
        speaker.frames += 1;
        self.next = (self.next + 1) % self.speakers.len();
    }

    fn receive(&mut self, index: usize) -> io::Result<()> {
        loop {
            let (length, segment) = match self.receive_one(index) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            let Side { relay, effects, .. } = &mut self.sides[index];
            for datagram in self.received[..length].chunks_mut(segment) {
                let before = effects.delivered;
                if self.sending == Sending::EachFrame {
                    effects.delivered += 1;
                } else {
                    relay.datagram(self.now, datagram, effects);
                }
                self.counted.frames += effects.delivered - before;
            }
        }
    }

    /// Receives once: how many bytes, and how many of them are a datagram.
    fn receive_one(&mut self, index: usize) -> io::Result<(usize, usize)> {
        let socket = &self.sides[index].socket;
        if self.sending != Sending::SegmentedAndCoalesced {
            let length = socket.recv(&mut self.received)?;
            return Ok((length, length.max(1)));
        }
        let mut control = [MaybeUninit::new(0); CONTROL_BYTES];
        // SAFETY: initialised bytes are valid as bytes that may be uninitialised, and the kernel only writes to them.
        let room = unsafe { &mut *(ptr::from_mut(&mut self.received[..]) as *mut [MaybeUninit<u8>]) };
        let mut parts = [MaybeUninitSlice::new(room)];
        let mut message = MsgHdrMut::new().with_buffers(&mut parts).with_control(&mut control);
        let length = SockRef::from(socket).recvmsg(&mut message, libc::MSG_DONTWAIT)?;
        let told = message.control_len() >= CONTROL_HEAD_BYTES + 4;
        // SAFETY: all of it was initialised above.
        let segment = [16, 17, 18, 19].map(|place: usize| unsafe { control[place].assume_init() });
        let segment = usize::try_from(i32::from_ne_bytes(segment)).unwrap_or(0);
        Ok((length, if told && segment > 0 { segment } else { length.max(1) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_of_one_length_and_ends_with_one_that_is_shorter() {
        assert_eq!(run(&[100]), 1);
        assert_eq!(run(&[100, 100, 60, 100]), 3);
        assert_eq!(run(&[100, 110]), 1);
        assert_eq!(run(&[60; 80]), SEGMENTS_MAX);
        assert_eq!(run(&[1_200; 80]), 54);
    }

    /// However they are sent, all frames arrive.
    #[test]
    fn every_way_of_sending_carries_every_frame() {
        let config = LinkConfig {
            channels: 300,
            frame_bytes: 80,
            frame_bytes_vary: 0,
            turn: Micros::from_millis(2),
            time: Micros::from_secs(1),
            seed: 1,
        };
        use Sending::*;
        let costs = [EachFrame, Datagrams, Segmented, SegmentedAndCoalesced].map(|sending| {
            let cost = measure_link(&config, sending).expect("sockets");
            assert!((15_000 - 300..=15_000).contains(&cost.frames), "{cost:?}");
            cost
        });
        assert_eq!(costs[1].frames_per_datagram, costs[2].frames_per_datagram);
        assert!(costs[1].datagrams_per_send == 1.0 && costs[2].datagrams_per_send > 1.5, "{costs:?}");
    }
}
