//! Datagrams that leave for another node in one send, which the kernel or the network card cuts apart again
//! (`UDP_SEGMENT`; docs/adr/0009): those of one length for one worker of a node, and a shorter one at their end.
//!
//! ```text
//!  gathered   A1200 B1200 A1200 A900 B1200 A1200        A, B: where to
//!  trains     A1200 A1200 A900 | B1200 B1200 | A1200    what goes one way keeps its order
//! ```
//!
//! Only what goes to one worker is coupled, since a receiving kernel that leaves a train whole (loopback does) steers
//! all of it by its first datagram.

use super::{socket::NODE_WORKER_OFFSET, sys::Outgoing};

/// Couples gathered datagrams, of which `outgoing` names each once and in order, into trains, and puts both in the
/// order of the trains.
pub(super) fn couple(datagrams: &mut [&[u8]], outgoing: &mut Vec<Outgoing>) {
    debug_assert!(outgoing.iter().enumerate().all(|(place, one)| one.datagram == place && one.count == 1));
    let (mut first, mut trains) = (0, 0);
    while first < outgoing.len() {
        let end = gather(datagrams, outgoing, first);
        outgoing[trains] = Outgoing { datagram: first, count: end - first, to: outgoing[first].to };
        (first, trains) = (end, trains + 1);
    }
    outgoing.truncate(trains);
}

/// Moves what can leave together with the datagram at `first` behind it: where that ends.
fn gather(datagrams: &mut [&[u8]], outgoing: &mut [Outgoing], first: usize) -> usize {
    let (head, to) = (datagrams[first], outgoing[first].to);
    let worker = |datagram: &[u8]| datagram.get(NODE_WORKER_OFFSET).copied();
    let mut end = first + 1;
    for place in first + 1..outgoing.len() {
        let datagram = datagrams[place];
        if outgoing[place].to != to || worker(datagram) != worker(head) {
            continue;
        }
        if datagram.len() > head.len() {
            break;
        }
        datagrams[end..=place].rotate_right(1);
        outgoing[end..=place].rotate_right(1);
        end += 1;
        if datagram.len() < head.len() {
            break;
        }
    }
    end
}

/// Takes the trains from `first` on apart again.
pub(super) fn uncouple(outgoing: &mut Vec<Outgoing>, first: usize) {
    let mut place = first;
    while place < outgoing.len() {
        let train = outgoing[place];
        outgoing[place].count = 1;
        for behind in 1..train.count {
            outgoing.insert(place + behind, Outgoing::one(train.datagram + behind, train.to));
        }
        place += train.count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    /// A datagram by its way, `a` to `z`, its number, and its length; upper-case ways go to another worker.
    fn gathered(all: &[(char, u8, usize)]) -> (Vec<Vec<u8>>, Vec<Outgoing>) {
        let bytes = |(way, number, length): &(char, u8, usize)| {
            let mut bytes = vec![*number; *length];
            bytes[NODE_WORKER_OFFSET] = u8::from(way.is_uppercase());
            bytes
        };
        let to = |way: char| SocketAddr::from(([127, 0, 0, 1], way.to_ascii_lowercase() as u16));
        let outgoing = all.iter().enumerate().map(|(place, (way, ..))| Outgoing::one(place, to(*way)));
        (all.iter().map(bytes).collect(), outgoing.collect())
    }

    /// The numbers in each train.
    fn trains(all: &[(char, u8, usize)]) -> Vec<Vec<u8>> {
        let (bytes, mut outgoing) = gathered(all);
        let mut datagrams: Vec<_> = bytes.iter().map(Vec::as_slice).collect();
        couple(&mut datagrams, &mut outgoing);
        let of_train =
            |train: &Outgoing| datagrams[train.datagram..][..train.count].iter().map(|datagram| datagram[0]).collect();
        outgoing.iter().map(of_train).collect()
    }

    #[test]
    fn what_goes_one_way_in_one_length_leaves_together_and_in_order() {
        let all = [('a', 1, 90), ('b', 2, 90), ('a', 3, 90), ('a', 4, 60), ('b', 5, 90), ('a', 6, 90)];
        assert_eq!(trains(&all), [vec![1, 3, 4], vec![2, 5], vec![6]]);
    }

    #[test]
    fn a_longer_one_or_another_worker_does_not() {
        assert_eq!(trains(&[('a', 1, 60), ('a', 2, 90), ('a', 3, 60)]), [vec![1], vec![2, 3]]);
        assert_eq!(trains(&[('a', 1, 60), ('A', 2, 60), ('a', 3, 60)]), [vec![1, 3], vec![2]]);
        assert_eq!(trains(&[]), Vec::<Vec<u8>>::new());
    }

    #[test]
    fn apart_again_they_are_what_they_were() {
        let all = [('a', 1, 90), ('b', 2, 80), ('b', 3, 80), ('c', 4, 70), ('c', 5, 70)];
        let (bytes, singles) = gathered(&all);
        let (mut datagrams, mut outgoing): (Vec<_>, _) = (bytes.iter().map(Vec::as_slice).collect(), singles.clone());
        couple(&mut datagrams, &mut outgoing);
        assert_eq!(outgoing.iter().map(|train| train.count).collect::<Vec<_>>(), [1, 2, 2]);
        uncouple(&mut outgoing, 1);
        assert_eq!(outgoing, singles);
    }
}
