//! The parser of what comes from other nodes, with any bytes.

use antiphon_core::relay::wire::{Hop, Kind, RECORD_HEADER_BYTES, Records};
use proptest::prelude::*;

proptest! {
    #[test]
    fn any_bytes_are_read_to_their_end_or_to_what_does_not_fit(bytes in prop::collection::vec(any::<u8>(), 0..1_500)) {
        let mut records = Records::new(&bytes);
        let mut read = 0;
        for record in records.by_ref() {
            read += RECORD_HEADER_BYTES + record.body.len();
        }
        prop_assert_eq!(read + records.rest().len(), bytes.len());
    }

    /// Records of any kind, known or not, are all found, whatever they hold.
    #[test]
    fn records_are_found_behind_unknown_ones(
        given in prop::collection::vec((any::<u128>(), any::<u8>(), prop::collection::vec(any::<u8>(), 0..60)), 0..20),
        cut in 0_usize..RECORD_HEADER_BYTES,
    ) {
        let mut bytes = Vec::new();
        for (channel, kind_hop, body) in &given {
            bytes.extend(channel.to_be_bytes());
            bytes.push(*kind_hop);
            bytes.extend(u16::try_from(body.len()).expect("short").to_be_bytes());
            bytes.extend(body);
        }
        bytes.extend(vec![0; cut]);
        let mut records = Records::new(&bytes);
        let read: Vec<_> = records.by_ref().collect();
        prop_assert_eq!(read.len(), given.len());
        prop_assert_eq!(records.rest().len(), cut);
        for (record, (channel, kind_hop, body)) in read.iter().zip(&given) {
            prop_assert_eq!(record.channel.0.as_u128(), *channel);
            prop_assert_eq!(record.body, &body[..]);
            let kinds = [
                Kind::Audio, Kind::Interest, Kind::NodeSet, Kind::SpeakerSet, Kind::Level, Kind::Heartbeat,
                Kind::Picture, Kind::Meeting,
            ];
            prop_assert_eq!(record.kind, kinds.get(usize::from(kind_hop >> 4)).copied());
            let hops = [Hop::ToOwner, Hop::FromOwner, Hop::Direct];
            prop_assert_eq!(record.hop, hops.get(usize::from(kind_hop & 15)).copied());
        }
    }
}
