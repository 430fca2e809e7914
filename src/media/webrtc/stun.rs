//! Whom a STUN message is for: its user name begins with the fragment that we gave (RFC 8445, 7.2.2), and that with the
//! worker that the peer lives in, so that the kernel can steer by it.

use antiphon_core::ids::WorkerIndex;

use crate::random;

/// Where the value of a STUN message's first attribute begins: behind its header (RFC 8489, 5) and the attribute's own.
pub(in crate::media) const FIRST_VALUE_OFFSET: u32 = 24;
/// The letter that stands for zero; each of a fragment's first two stands for four bits of its worker's index.
pub(in crate::media) const ZERO: u8 = b'A';
/// The attribute's type (RFC 8489, 14.3).
const USERNAME: u16 = 0x0006;
/// RFC 8489, 5.
const HEADER_BYTES: usize = 20;

/// A new fragment for a peer in a worker, and the password that goes with it.
pub(in crate::media) fn credentials(worker: WorkerIndex) -> (String, String) {
    let nibble = |bits: u16| char::from(ZERO + (bits & 0x0f) as u8);
    // 48 and 144 bits (RFC 8445, 5.3: at least 24 and 128).
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let (name, password): ([u8; 6], [u8; 18]) = (random::bytes(), random::bytes());
    (format!("{}{}{}", nibble(worker.0 >> 4), nibble(worker.0), hex(&name)), hex(&password))
}

/// The worker that a fragment names.
pub(super) fn worker_of(fragment: &[u8]) -> Option<WorkerIndex> {
    let nibble = |letter: u8| letter.checked_sub(ZERO).filter(|bits| *bits < 16);
    let [first, second, ..] = *fragment else { return None };
    Some(WorkerIndex(u16::from(nibble(first)?) << 4 | u16::from(nibble(second)?)))
}

/// The fragment of ours in a message's user name; `None` where it has none.
pub(super) fn fragment_in(message: &[u8]) -> Option<&[u8]> {
    let mut rest = message.get(HEADER_BYTES..)?;
    while let Some(([t0, t1, l0, l1], after)) = rest.split_first_chunk::<4>() {
        let (kind, length) = (u16::from_be_bytes([*t0, *t1]), usize::from(u16::from_be_bytes([*l0, *l1])));
        let (value, _) = after.split_at_checked(length)?;
        if kind == USERNAME {
            return value.split(|byte| *byte == b':').next();
        }
        // Attributes begin at multiples of four bytes.
        rest = after.get(length.next_multiple_of(4)..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut message = vec![0; HEADER_BYTES];
        for (kind, value) in attributes {
            message.extend(kind.to_be_bytes());
            message.extend((value.len() as u16).to_be_bytes());
            message.extend(*value);
            message.resize(message.len().next_multiple_of(4), 0);
        }
        message
    }

    #[test]
    fn a_fragment_names_its_worker_and_no_two_are_alike() {
        for worker in [0, 1, 15, 16, 255] {
            let (fragment, password) = credentials(WorkerIndex(worker));
            assert_eq!(worker_of(fragment.as_bytes()), Some(WorkerIndex(worker)), "{fragment}");
            assert!(password.len() >= 22 && credentials(WorkerIndex(worker)).0 != fragment);
        }
        for other in ["", "A", "aB12", "AZ12"] {
            assert_eq!(worker_of(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn the_user_name_is_found_wherever_it_lies() {
        let first = message(&[(USERNAME, b"AB12:theirs"), (0x24, &[1; 4])]);
        assert_eq!(fragment_in(&first), Some(&b"AB12"[..]));
        assert_eq!(first[FIRST_VALUE_OFFSET as usize..][..4], *b"AB12");
        assert_eq!(fragment_in(&message(&[(0x24, &[1; 5]), (USERNAME, b"AB12:x")])), Some(&b"AB12"[..]));
        assert_eq!(fragment_in(&message(&[(0x24, &[1; 4])])), None);
    }

    #[test]
    fn what_is_cut_off_has_none() {
        let whole = message(&[(0x24, &[1; 6]), (USERNAME, b"AB12:theirs")]);
        (0..43).for_each(|length| assert_eq!(fragment_in(&whole[..length]), None, "{length}"));
    }
}
