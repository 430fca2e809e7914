//! Everyone of a phase, numbered: channel after channel, in each the talkers first.

use antiphon_core::gateway::MediaTransport;

use super::{members::Seat, spread};
use crate::scenario::{Group, Transports};

/// The golden ratio's fraction: its multiples fill every interval evenly, however many there are.
const GOLDEN: f64 = 0.618_033_988_749_894_9;

/// One channel and the numbers of those in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    pub(super) first_slot: usize,
    pub(super) clients: usize,
    pub(super) talkers: usize,
}

/// The channels of all groups, in order.
pub(super) fn rooms(groups: &[Group]) -> Vec<Room> {
    let of_groups = groups.iter().flat_map(|group| std::iter::repeat_n(group, group.channels));
    let mut first_slot = 0;
    of_groups
        .map(|group| {
            let room = Room { first_slot, clients: group.clients(), talkers: group.talkers };
            first_slot += room.clients;
            room
        })
        .collect()
}

/// How many there are.
pub(super) fn total(groups: &[Group]) -> usize {
    groups.iter().map(|group| group.channels * group.clients()).sum()
}

/// Of those, how many are in channels where somebody talks.
pub(super) fn hearing(groups: &[Group]) -> usize {
    groups.iter().filter(|group| group.talkers > 0).map(|group| group.channels * group.clients()).sum()
}

/// The slot and the channel of each talker.
pub(super) fn talkers(rooms: &[Room]) -> Vec<(usize, usize)> {
    let of_room = |(channel, room): (usize, &Room)| {
        let first_slot = room.first_slot;
        (0..room.talkers).map(move |index| (first_slot + index, channel))
    };
    rooms.iter().enumerate().flat_map(of_room).collect()
}

/// Which node each connects to.
pub(super) fn seats(rooms: &[Room], nodes: usize) -> Vec<Seat> {
    let of_room = |(channel, room): (usize, &Room)| {
        (0..room.clients).map(move |client| Seat { node: spread::node_of(channel, client, nodes), client })
    };
    rooms.iter().enumerate().flat_map(of_room).collect()
}

/// How the voice of whoever has that number in a room travels. WebRTC is for those who only hear, and only where there is
/// something to hear: nothing is offered elsewhere.
pub(super) fn carrier(slot: usize, room: &Room, transports: Transports) -> MediaTransport {
    let place = ((slot as f64 + 1.0) * GOLDEN).fract();
    let tunnel = transports.share(transports.tunnel);
    if place < tunnel {
        return MediaTransport::Websocket;
    }
    let listens = slot >= room.first_slot + room.talkers && room.talkers > 0;
    let by_webrtc = listens && place < tunnel + transports.share(transports.webrtc);
    if by_webrtc { MediaTransport::Webrtc } else { MediaTransport::Udp }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUPS: [Group; 2] =
        [Group { channels: 2, talkers: 1, listeners: 2 }, Group { channels: 1, talkers: 0, listeners: 4 }];

    #[test]
    fn everyone_has_a_number_and_talkers_come_first_in_their_channel() {
        let rooms = rooms(&GROUPS);
        assert_eq!((rooms.len(), total(&GROUPS), hearing(&GROUPS)), (3, 10, 6));
        assert_eq!(rooms[2], Room { first_slot: 6, clients: 4, talkers: 0 });
        assert_eq!(talkers(&rooms), [(0, 0), (3, 1)]);
        assert_eq!(seats(&rooms, 2).len(), 10);
    }

    #[test]
    fn each_carrier_has_the_share_asked_for_among_any_run_of_numbers() {
        for (udp, tunnel, webrtc) in
            [(0.9, 0.1, 0.0), (1.0, 0.0, 0.0), (0.0, 2.0, 0.0), (3.0, 1.0, 4.0), (0.0, 0.0, 1.0)]
        {
            let transports = Transports { udp, tunnel, webrtc };
            for first_slot in [0, 777] {
                let room = Room { first_slot, clients: 1_001, talkers: 1 };
                let count = |media| {
                    (first_slot + 1..first_slot + 1_001)
                        .filter(|slot| carrier(*slot, &room, transports) == media)
                        .count()
                };
                for (share, media) in [(tunnel, MediaTransport::Websocket), (webrtc, MediaTransport::Webrtc)] {
                    let (count, share) = (count(media), transports.share(share));
                    assert!((count as f64 / 1_000.0 - share).abs() < 0.01, "{count} of 1,000, not {share}");
                }
            }
        }
    }

    #[test]
    fn by_webrtc_is_heard_only_where_there_is_something_to_hear() {
        let all = Transports { udp: 0.0, tunnel: 0.0, webrtc: 1.0 };
        let room = Room { first_slot: 10, clients: 3, talkers: 1 };
        assert_eq!(carrier(10, &room, all), MediaTransport::Udp, "who talks");
        assert_eq!(carrier(11, &room, all), MediaTransport::Webrtc);
        assert_eq!(carrier(11, &Room { talkers: 0, ..room }, all), MediaTransport::Udp, "nobody talks");
    }
}
