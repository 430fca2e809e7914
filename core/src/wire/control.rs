//! Bind, Ping, their answers, and reports: the plaintexts of all datagrams but Media.
//!
//! ```text
//!  Bind            client's clock (8) | 0 (8)
//!  Ping            client's clock (8) | node's clock from the last BindAck or Pong (8)
//!  BindAck, Pong   client's clock from what is answered (8) | node's clock (8)
//!                  | 4 or 6 (1) | the client's address (4 or 16) | port (2)
//!  Report          blocks: stream id (4) | lost (2) | round trip, ms (2) | jitter, µs (4) | received (4)
//! ```
//!
//! Clocks are microseconds of whoever's monotonic clock it is. Bytes beyond what is drawn are ignored.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::{clock::Micros, ids::StreamId, wire::datagram::DATAGRAM_BYTES_MIN};

/// The plaintext of a Bind or a Ping.
pub const REQUEST_BYTES: usize = 16;
/// The longest plaintext of a BindAck or Pong.
pub const ANSWER_BYTES_MAX: usize = 8 + 8 + 1 + 16 + 2;
// An answer to what may be forged is never more than three times as long.
const _: () = assert!(DATAGRAM_BYTES_MIN + ANSWER_BYTES_MAX <= 3 * (DATAGRAM_BYTES_MIN + REQUEST_BYTES));

/// One block of a Report.
pub const REPORT_BLOCK_BYTES: usize = 16;

/// A client says where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bind {
    /// The client's clock.
    pub client_clock: Micros,
}

impl Bind {
    /// Reads a Bind's plaintext.
    #[must_use]
    pub fn parse(plaintext: &[u8]) -> Option<Self> {
        let (client_clock, _) = clocks(plaintext)?;
        Some(Self { client_clock })
    }

    /// Writes it.
    pub fn write(&self, out: &mut [u8; REQUEST_BYTES]) {
        write_clocks(self.client_clock, Micros::ZERO, out);
    }
}

/// A client keeps the way open and proves that it heard the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ping {
    /// The client's clock.
    pub client_clock: Micros,
    /// The node's clock from the last BindAck or Pong.
    pub node_clock: Micros,
}

impl Ping {
    /// Reads a Ping's plaintext.
    #[must_use]
    pub fn parse(plaintext: &[u8]) -> Option<Self> {
        let (client_clock, node_clock) = clocks(plaintext)?;
        Some(Self { client_clock, node_clock })
    }

    /// Writes it.
    pub fn write(&self, out: &mut [u8; REQUEST_BYTES]) {
        write_clocks(self.client_clock, self.node_clock, out);
    }
}

/// A BindAck or a Pong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The client's clock from the Bind or Ping.
    pub client_clock: Micros,
    /// The node's clock; the next Ping echoes it.
    pub node_clock: Micros,
    /// The client's address as the node sees it. IPv4 in IPv6 travels as IPv4.
    pub address: SocketAddr,
}

impl Answer {
    /// Reads an answer's plaintext.
    #[must_use]
    pub fn parse(plaintext: &[u8]) -> Option<Self> {
        let (client_clock, node_clock) = clocks(plaintext)?;
        let (&family, rest) = plaintext.get(16..)?.split_first()?;
        let (ip, rest): (IpAddr, _) = match family {
            4 => {
                let (ip, rest) = rest.split_first_chunk::<4>()?;
                (Ipv4Addr::from(*ip).into(), rest)
            }
            6 => {
                let (ip, rest) = rest.split_first_chunk::<16>()?;
                (Ipv6Addr::from(*ip).into(), rest)
            }
            _ => return None,
        };
        let port = u16::from_be_bytes(*rest.first_chunk::<2>()?);
        Some(Self { client_clock, node_clock, address: SocketAddr::new(ip, port) })
    }

    /// Writes it and returns its length.
    #[must_use]
    pub fn write(&self, out: &mut [u8; ANSWER_BYTES_MAX]) -> usize {
        let (head, tail) = out.split_at_mut(REQUEST_BYTES);
        if let Some(head) = head.first_chunk_mut() {
            write_clocks(self.client_clock, self.node_clock, head);
        }
        let port = self.address.port().to_be_bytes();
        let length = match self.address.ip().to_canonical() {
            IpAddr::V4(ip) => {
                tail[0] = 4;
                tail[1..5].copy_from_slice(&ip.octets());
                tail[5..7].copy_from_slice(&port);
                7
            }
            IpAddr::V6(ip) => {
                tail[0] = 6;
                tail[1..17].copy_from_slice(&ip.octets());
                tail[17..19].copy_from_slice(&port);
                19
            }
        };
        REQUEST_BYTES + length
    }
}

/// What a client says of one stream it receives, about every 2 s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReportBlock {
    /// Which stream it receives.
    pub stream: StreamId,
    /// Lost frames in 1/65536 of those expected.
    pub lost_fraction: u16,
    /// Round-trip time.
    pub round_trip_ms: u16,
    /// Interarrival jitter.
    pub jitter_us: u32,
    /// Frames received since the last report.
    pub received: u32,
}

impl ReportBlock {
    /// Reads one block.
    #[must_use]
    pub fn parse(bytes: &[u8; REPORT_BLOCK_BYTES]) -> Self {
        let [s0, s1, s2, s3, l0, l1, t0, t1, j0, j1, j2, j3, r0, r1, r2, r3] = *bytes;
        Self {
            stream: StreamId(u32::from_be_bytes([s0, s1, s2, s3])),
            lost_fraction: u16::from_be_bytes([l0, l1]),
            round_trip_ms: u16::from_be_bytes([t0, t1]),
            jitter_us: u32::from_be_bytes([j0, j1, j2, j3]),
            received: u32::from_be_bytes([r0, r1, r2, r3]),
        }
    }

    /// Writes one block.
    pub fn write(&self, out: &mut [u8; REPORT_BLOCK_BYTES]) {
        let [s0, s1, s2, s3] = self.stream.0.to_be_bytes();
        let [l0, l1] = self.lost_fraction.to_be_bytes();
        let [t0, t1] = self.round_trip_ms.to_be_bytes();
        let [j0, j1, j2, j3] = self.jitter_us.to_be_bytes();
        let [r0, r1, r2, r3] = self.received.to_be_bytes();
        *out = [s0, s1, s2, s3, l0, l1, t0, t1, j0, j1, j2, j3, r0, r1, r2, r3];
    }

    /// `lost` of `expected` frames as a block carries it.
    #[must_use]
    pub fn fraction(lost: u32, expected: u32) -> u16 {
        if expected == 0 {
            return 0;
        }
        let fraction = u64::from(lost) * 65_536 / u64::from(expected);
        u16::try_from(fraction).unwrap_or(u16::MAX)
    }
}

/// The blocks of a Report's plaintext; a last one that is cut off is ignored.
pub fn report_blocks(plaintext: &[u8]) -> impl Iterator<Item = ReportBlock> + '_ {
    plaintext.as_chunks::<REPORT_BLOCK_BYTES>().0.iter().map(ReportBlock::parse)
}

fn clocks(plaintext: &[u8]) -> Option<(Micros, Micros)> {
    let (first, rest) = plaintext.split_first_chunk::<8>()?;
    let second = rest.first_chunk::<8>()?;
    Some((Micros(u64::from_be_bytes(*first)), Micros(u64::from_be_bytes(*second))))
}

fn write_clocks(first: Micros, second: Micros, out: &mut [u8; REQUEST_BYTES]) {
    out[..8].copy_from_slice(&first.0.to_be_bytes());
    out[8..].copy_from_slice(&second.0.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_lie_as_drawn() {
        let mut out = [0xff; REQUEST_BYTES];
        let bind = Bind { client_clock: Micros(0x0102_0304_0506_0708) };
        bind.write(&mut out);
        assert_eq!(out, [1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Bind::parse(&out), Some(bind));
        let ping = Ping { client_clock: Micros(1), node_clock: Micros(0x0100) };
        ping.write(&mut out);
        assert_eq!(out, [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 0]);
        assert_eq!(Ping::parse(&out), Some(ping));
        assert_eq!(Ping::parse(&out[..15]), None);
    }

    #[test]
    fn answers_carry_either_family() {
        let mut out = [0; ANSWER_BYTES_MAX];
        for (text, length) in [("192.0.2.7:4660", 23), ("[2001:db8::1]:65535", 35)] {
            let answer =
                Answer { client_clock: Micros(5), node_clock: Micros(6), address: text.parse().expect("an address") };
            assert_eq!(answer.write(&mut out), length, "{text}");
            assert_eq!(Answer::parse(&out[..length]), Some(answer));
            assert_eq!(Answer::parse(&out[..length - 1]), None);
        }
        assert_eq!(out[16], 6);
        out[16] = 5;
        assert_eq!(Answer::parse(&out), None);
    }

    #[test]
    fn a_mapped_address_travels_as_ipv4() {
        let mapped: SocketAddr = "[::ffff:192.0.2.7]:9".parse().expect("an address");
        let mut out = [0; ANSWER_BYTES_MAX];
        let length = Answer { client_clock: Micros(5), node_clock: Micros(6), address: mapped }.write(&mut out);
        assert_eq!(out[16..length], [4, 192, 0, 2, 7, 0, 9]);
    }

    #[test]
    fn reports_are_blocks() {
        let blocks = [1, 2].map(|n| ReportBlock {
            stream: StreamId(n),
            lost_fraction: 0x0a0b,
            round_trip_ms: 40,
            jitter_us: 0x0c0d_0e0f,
            received: 100,
        });
        let mut out = [0; 2 * REPORT_BLOCK_BYTES + 7];
        for (block, chunk) in blocks.iter().zip(out.as_chunks_mut::<REPORT_BLOCK_BYTES>().0) {
            block.write(chunk);
        }
        assert_eq!(out[..16], [0, 0, 0, 1, 0x0a, 0x0b, 0, 40, 0x0c, 0x0d, 0x0e, 0x0f, 0, 0, 0, 100]);
        assert_eq!(report_blocks(&out).collect::<Vec<_>>(), blocks);
    }

    #[test]
    fn fractions_of_loss() {
        for (lost, expected, fraction) in [(0, 0, 0), (0, 9, 0), (1, 2, 32_768), (1, 1, u16::MAX), (9, 1, u16::MAX)] {
            assert_eq!(ReportBlock::fraction(lost, expected), fraction, "{lost} of {expected}");
        }
    }
}
