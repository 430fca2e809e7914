//! The floor: a relay that does nothing but receive a datagram and send it to each listener, as a process of its own
//! whose CPU time is what forwarding costs at the least. Or, to see what bundling alone gains, one that holds frames
//! for a moment and sends them together, without any cryptography.
//!
//! Clients make themselves known by a Bind, which comes back as a BindAck. Client n is in channel n / clients per channel.

use std::{
    collections::VecDeque,
    io,
    net::{SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use antiphon_core::{
    ids::KeyId,
    wire::datagram::{DATAGRAM_BYTES_MAX, DATAGRAM_BYTES_USUAL_MAX, HEADER_BYTES, Header, PacketType, TAG_BYTES},
};
use socket2::SockRef;

/// As much as the system gives, so that a relay that falls behind for a moment does not lose.
const RECEIVE_BUFFER_BYTES: usize = 8 << 20;

/// What the relay is to do.
#[derive(Clone, Copy, Debug)]
pub struct RelayConfig {
    /// How many clients there are in all.
    pub clients: u32,
    /// How many of them form a channel.
    pub clients_per_channel: u32,
    /// How long frames wait for others to travel with; `None` sends each as it is.
    pub bundle: Option<Duration>,
}

/// The relay.
pub struct Relay {
    socket: UdpSocket,
    config: RelayConfig,
    addresses: Vec<Option<SocketAddr>>,
    buffer: [u8; DATAGRAM_BYTES_MAX],
}

impl Relay {
    /// Binds to a free port of the loopback address.
    ///
    /// # Errors
    /// When there is no socket.
    pub fn bind(config: RelayConfig) -> io::Result<Self> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
        let addresses = vec![None; config.clients as usize];
        Ok(Self { socket, config, addresses, buffer: [0; DATAGRAM_BYTES_MAX] })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the socket is gone.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Relays until the process ends.
    ///
    /// # Errors
    /// When the socket fails.
    pub fn run(mut self) -> io::Result<()> {
        match self.config.bundle {
            None => loop {
                self.relay_one()?;
            },
            Some(hold) => self.bundle(hold),
        }
    }

    fn relay_one(&mut self) -> io::Result<()> {
        let (length, from) = self.socket.recv_from(&mut self.buffer)?;
        let Some(sender) = self.accept(length, from)? else { return Ok(()) };
        for listener in self.channel_of(sender).filter(|listener| *listener != sender) {
            if let Some(address) = self.addresses[listener as usize] {
                // A full socket is a lost datagram, as with any server.
                let _lost = self.socket.send_to(&self.buffer[..length], address);
            }
        }
        Ok(())
    }

    /// Takes note of a Bind, or says who sent media.
    fn accept(&mut self, length: usize, from: SocketAddr) -> io::Result<Option<u32>> {
        let Ok(header) = Header::parse(&self.buffer[..length]) else { return Ok(None) };
        if header.id >= self.config.clients {
            return Ok(None);
        }
        if header.packet_type == PacketType::Bind {
            self.addresses[header.id as usize] = Some(from);
            let answer = Header { packet_type: PacketType::BindAck, ..header };
            if let Some(head) = self.buffer.first_chunk_mut() {
                answer.write(head);
            }
            self.socket.send_to(&self.buffer[..length], from)?;
            return Ok(None);
        }
        Ok(Some(header.id))
    }

    fn channel_of(&self, client: u32) -> impl Iterator<Item = u32> + use<> {
        let size = self.config.clients_per_channel;
        let first = client / size * size;
        first..(first + size).min(self.config.clients)
    }

    fn bundle(&mut self, hold: Duration) -> io::Result<()> {
        let mut waiting: VecDeque<Bundle> = VecDeque::new();
        loop {
            // With nothing to send wait for the next frame; else for the end of the first one's hold.
            if waiting.is_empty() {
                let (length, from) = self.socket.recv_from(&mut self.buffer)?;
                self.take(length, from, hold, &mut waiting)?;
            }
            if let Some(first) = waiting.front() {
                std::thread::sleep(first.due.saturating_duration_since(Instant::now()));
            }
            self.take_waiting(hold, &mut waiting)?;
            let now = Instant::now();
            while waiting.front().is_some_and(|bundle| bundle.due <= now) {
                if let Some(bundle) = waiting.pop_front() {
                    self.send_bundle(&bundle);
                }
            }
        }
    }

    /// Takes what is there already.
    fn take_waiting(&mut self, hold: Duration, waiting: &mut VecDeque<Bundle>) -> io::Result<()> {
        self.socket.set_nonblocking(true)?;
        loop {
            match self.socket.recv_from(&mut self.buffer) {
                Ok((length, from)) => self.take(length, from, hold, waiting)?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        self.socket.set_nonblocking(false)
    }

    fn take(
        &mut self,
        length: usize,
        from: SocketAddr,
        hold: Duration,
        waiting: &mut VecDeque<Bundle>,
    ) -> io::Result<()> {
        let Some(sender) = self.accept(length, from)? else { return Ok(()) };
        let channel = sender / self.config.clients_per_channel;
        let frames = &self.buffer[HEADER_BYTES..length - TAG_BYTES];
        let fits =
            |bundle: &Bundle| bundle.bytes() + frames.len() + HEADER_BYTES + TAG_BYTES <= DATAGRAM_BYTES_USUAL_MAX;
        match waiting.iter_mut().rev().find(|bundle| bundle.channel == channel) {
            Some(bundle) if fits(bundle) => bundle.frames.push((sender, frames.to_vec())),
            _ => {
                let frames = vec![(sender, frames.to_vec())];
                waiting.push_back(Bundle { channel, due: Instant::now() + hold, frames });
            }
        }
        Ok(())
    }

    fn send_bundle(&self, bundle: &Bundle) {
        let header = Header { packet_type: PacketType::Media, key_id: KeyId::FIRST, id: 0, counter: 0 };
        let all = bundle.datagram(&header, None);
        for listener in self.channel_of(bundle.channel * self.config.clients_per_channel) {
            let Some(address) = self.addresses[listener as usize] else { continue };
            let speaks = bundle.frames.iter().any(|(speaker, _)| *speaker == listener);
            let own = speaks.then(|| bundle.datagram(&header, Some(listener)));
            let datagram = own.as_ref().unwrap_or(&all);
            if datagram.len() > HEADER_BYTES + TAG_BYTES {
                let _lost = self.socket.send_to(datagram, address);
            }
        }
    }
}

/// Frames of one channel on their way.
struct Bundle {
    channel: u32,
    due: Instant,
    frames: Vec<(u32, Vec<u8>)>,
}

impl Bundle {
    fn bytes(&self) -> usize {
        self.frames.iter().map(|(_, bytes)| bytes.len()).sum()
    }

    /// All frames but those of one speaker.
    fn datagram(&self, header: &Header, without: Option<u32>) -> Vec<u8> {
        let mut datagram = vec![0; HEADER_BYTES];
        if let Some(head) = datagram.first_chunk_mut() {
            header.write(head);
        }
        for (_, bytes) in self.frames.iter().filter(|(speaker, _)| Some(*speaker) != without) {
            datagram.extend_from_slice(bytes);
        }
        datagram.extend([0; TAG_BYTES]);
        datagram
    }
}

#[cfg(test)]
mod tests {
    use antiphon_core::wire::frame::{FrameHeader, Frames, write_frame};

    use super::*;

    fn datagram(packet_type: PacketType, id: u32, frame: &[u8]) -> Vec<u8> {
        let mut plaintext = [0; 200];
        let header = FrameHeader {
            stream: antiphon_core::ids::StreamId(id),
            sequence: 0,
            timestamp: 0,
            kind_flags: 0,
            level: 1,
        };
        let length = if frame.is_empty() { 0 } else { write_frame(&header, frame, &mut plaintext).expect("short") };
        let mut bytes = vec![0; HEADER_BYTES];
        Header { packet_type, key_id: KeyId::SESSION, id, counter: 0 }.write(bytes.first_chunk_mut().expect("room"));
        bytes.extend(&plaintext[..length]);
        bytes.extend([0; TAG_BYTES]);
        bytes
    }

    /// Four clients in two channels, all known to the relay.
    fn start(bundle: Option<Duration>) -> Vec<UdpSocket> {
        let config = RelayConfig { clients: 4, clients_per_channel: 2, bundle };
        let relay = Relay::bind(config).expect("binds");
        let address = relay.local_addr().expect("bound");
        std::thread::spawn(move || relay.run());
        (0..4)
            .map(|id| {
                let socket = UdpSocket::bind("127.0.0.1:0").expect("binds");
                socket.connect(address).expect("connects");
                socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
                socket.send(&datagram(PacketType::Bind, id, &[])).expect("sends");
                let mut buffer = [0; 100];
                let length = socket.recv(&mut buffer).expect("answers");
                let answer = Header::parse(&buffer[..length]).expect("a header");
                assert_eq!((answer.packet_type, answer.id), (PacketType::BindAck, id));
                socket
            })
            .collect()
    }

    #[test]
    fn the_plain_relay_sends_the_same_bytes_to_the_channel_only() {
        let clients = start(None);
        let sent = datagram(PacketType::Media, 0, b"hello");
        clients[0].send(&sent).expect("sends");
        clients[2].send(&datagram(PacketType::Media, 2, b"other")).expect("sends");
        let mut buffer = [0; 200];
        let length = clients[1].recv(&mut buffer).expect("hears");
        assert_eq!(buffer[..length], sent);
        let length = clients[3].recv(&mut buffer).expect("hears");
        assert_eq!(buffer[..length], datagram(PacketType::Media, 2, b"other"));
    }

    #[test]
    fn the_bundling_relay_sends_frames_together_and_nobody_their_own() {
        let clients = start(Some(Duration::from_millis(200)));
        clients[0].send(&datagram(PacketType::Media, 0, b"one")).expect("sends");
        clients[1].send(&datagram(PacketType::Media, 1, b"two")).expect("sends");
        clients[0].send(&datagram(PacketType::Media, 0, b"three")).expect("sends");
        let heard = |client: usize| {
            let mut buffer = [0; 200];
            let length = clients[client].recv(&mut buffer).expect("hears");
            let frames = Frames::new(&buffer[HEADER_BYTES..length - TAG_BYTES]);
            frames.map(|(_, bytes)| bytes.to_vec()).collect::<Vec<_>>()
        };
        assert_eq!(heard(0), [b"two".to_vec()]);
        assert_eq!(heard(1), [b"one".to_vec(), b"three".to_vec()]);
    }
}
