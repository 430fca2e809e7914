//! Which bytes of a file a request wants (RFC 9110 14).

use std::ops::Range;

/// So many ranges are answered in one; more are as good as none, since whoever plays asks for few.
const RANGES_MAX: usize = 16;

/// What a request wants of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// All of it.
    Whole,
    /// These bytes, in the request's order; at least one range, none empty.
    Parts(Vec<Range<u64>>),
    /// Bytes that the file does not have.
    Unsatisfiable,
}

/// What a `Range` header wants of a file of `length` bytes, no range being longer than `range_bytes_max` unless it reaches
/// the file's end.
///
/// A header that is malformed, of another unit, of very many ranges, or that adds up to more than the file is ignored, as
/// RFC 9110 14.2 has it. A longer range is cut: its answer says where (14.4), and who wants more asks again. What reaches
/// the end is how players ask for a file that they will read as they play, some of whom take a shorter answer for an
/// error; the answer takes no more memory for being long.
#[must_use]
pub fn wanted(header: Option<&str>, length: u64, range_bytes_max: u64) -> Wanted {
    let Some(specs) = header.and_then(specs) else { return Wanted::Whole };
    let parts: Vec<Range<u64>> = specs.iter().filter_map(|spec| spec.of(length, range_bytes_max)).collect();
    let sum = parts.iter().fold(0_u64, |sum, part| sum.saturating_add(part.end - part.start));
    match parts.len() {
        0 => Wanted::Unsatisfiable,
        1 => Wanted::Parts(parts),
        _ if sum > length => Wanted::Whole,
        _ => Wanted::Parts(parts),
    }
}

/// A range as it is written.
#[derive(Clone, Copy, Debug)]
enum Spec {
    FromTo(u64, u64),
    From(u64),
    Last(u64),
}

impl Spec {
    /// `None` where the file has none of its bytes.
    fn of(self, length: u64, bytes_max: u64) -> Option<Range<u64>> {
        let part = match self {
            Self::FromTo(from, to) if to < length - length.min(1) => from..(to + 1).min(from.saturating_add(bytes_max)),
            Self::FromTo(from, _) | Self::From(from) => from..length,
            Self::Last(count) => length.saturating_sub(count)..length,
        };
        (part.start < part.end).then_some(part)
    }
}

/// The header's ranges; `None` where it is to be ignored.
fn specs(header: &str) -> Option<Vec<Spec>> {
    let (unit, list) = header.split_once('=')?;
    if !unit.eq_ignore_ascii_case("bytes") {
        return None;
    }
    // Empty elements of a list are passed over (RFC 9110 5.6.1).
    let written = list.split(',').map(|spec| spec.trim_matches([' ', '\t'])).filter(|spec| !spec.is_empty());
    let mut specs = Vec::new();
    for spec in written {
        if specs.len() == RANGES_MAX {
            return None;
        }
        specs.push(parse(spec)?);
    }
    (!specs.is_empty()).then_some(specs)
}

fn parse(spec: &str) -> Option<Spec> {
    match spec.split_once('-')? {
        ("", count) => Some(Spec::Last(number(count)?)),
        (from, "") => Some(Spec::From(number(from)?)),
        (from, to) => {
            let (from, to) = (number(from)?, number(to)?);
            (from <= to).then_some(Spec::FromTo(from, to))
        }
    }
}

/// Digits alone; numbers beyond all files are as good as the largest.
fn number(digits: &str) -> Option<u64> {
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
#[expect(clippy::single_range_in_vec_init, reason = "lists of one range are meant")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LENGTH: u64 = 1_000;

    fn of(header: &str) -> Wanted {
        wanted(Some(header), LENGTH, u64::MAX)
    }

    fn parts<const N: usize>(parts: [Range<u64>; N]) -> Wanted {
        Wanted::Parts(parts.to_vec())
    }

    #[test]
    fn ranges_are_read_as_the_rfc_writes_them() {
        assert_eq!(wanted(None, LENGTH, 1), Wanted::Whole);
        assert_eq!(of("bytes=0-0"), parts([0..1]));
        assert_eq!(of("bytes=0-499"), parts([0..500]));
        assert_eq!(of("Bytes=500-"), parts([500..1_000]));
        assert_eq!(of("bytes=-500"), parts([500..1_000]));
        assert_eq!(of("bytes=-5000"), parts([0..1_000]));
        assert_eq!(of("bytes=900-99999999999999999999999"), parts([900..1_000]));
        assert_eq!(of("bytes=0-0, -1,, 5-6 "), parts([0..1, 999..1_000, 5..7]));
        assert_eq!(of("bytes=1000-, 3-4"), parts([3..5]), "one that can be satisfied is enough");
    }

    #[test]
    fn what_the_file_has_not_is_unsatisfiable_and_nonsense_is_ignored() {
        for header in ["bytes=1000-", "bytes=1000-1001", "bytes=-0", "bytes=5000-,-0"] {
            assert_eq!(of(header), Wanted::Unsatisfiable, "{header}");
        }
        for header in ["bytes=0-", "bytes=-1", "bytes=0-0"] {
            assert_eq!(wanted(Some(header), 0, u64::MAX), Wanted::Unsatisfiable, "{header} of nothing");
        }
        for header in [
            "",
            "bytes",
            "bytes=",
            "bytes=,",
            "bytes=-",
            "bytes=a-b",
            "bytes=5-4",
            "bytes=0-1-2",
            "bytes=+1-2",
            "bytes=1 -2",
            "items=0-1",
            "bytes 0-1",
            "bytes=0-1;2-3",
            "bytes=0x0-1",
            "bytes=--1",
        ] {
            assert_eq!(of(header), Wanted::Whole, "{header}");
        }
    }

    #[test]
    fn many_ranges_or_overlapping_ones_do_not_multiply_a_file() {
        let list = |count: usize| format!("bytes={}", vec!["1-1"; count].join(","));
        assert_eq!(of(&list(RANGES_MAX)), Wanted::Parts(vec![1..2; RANGES_MAX]));
        assert_eq!(of(&list(RANGES_MAX + 1)), Wanted::Whole);
        assert_eq!(of("bytes=0-,0-"), Wanted::Whole);
        assert_eq!(of("bytes=0-499,500-"), parts([0..500, 500..1_000]));
    }

    #[test]
    fn long_ranges_are_cut_unless_they_reach_the_end() {
        let cut = |header| wanted(Some(header), LENGTH, 100);
        assert_eq!(cut("bytes=0-99"), parts([0..100]));
        assert_eq!(cut("bytes=0-998"), parts([0..100]));
        for player in ["bytes=0-", "bytes=0-999", "bytes=0-5000", "bytes=-1000"] {
            assert_eq!(cut(player), parts([0..1_000]), "{player}");
        }
        assert_eq!(cut("bytes=0-200,300-350"), parts([0..100, 300..351]));
    }

    proptest! {
        #[test]
        fn any_header_is_answered_within_the_file(header in "(bytes=)?[-0-9, a]{0,40}", length in 0..50_u64, max in 1..60_u64) {
            if let Wanted::Parts(parts) = wanted(Some(&header), length, max) {
                prop_assert!(!parts.is_empty() && parts.len() <= RANGES_MAX);
                prop_assert!(parts.iter().all(|part| part.start < part.end && part.end <= length));
                prop_assert!(parts.iter().all(|part| part.end - part.start <= max || part.end == length));
                prop_assert!(parts.len() == 1 || parts.iter().map(|part| part.end - part.start).sum::<u64>() <= length);
            }
        }
    }
}
