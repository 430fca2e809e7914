//! What clients send of their connections, read: descriptions (SDP) and the ways to them (ICE candidates). Those and the sources that
//! a description names are noted apart, so that there is one bound for all of a connection's.

use std::collections::BTreeSet;

use antiphon_core::gateway::ErrorCode;
use str0m::{
    Candidate,
    change::{SdpAnswer, SdpOffer},
};

use crate::{
    error::AppError,
    media::webrtc::{CANDIDATES_MAX, Described, PeerError, SECTIONS_MAX, SOURCES_NEW_MAX, way},
};

/// What one description has at most. Reading a line takes microseconds; but what a section says of its formats the library compares each
/// with each other, three times over.
struct Most {
    sections: usize,
    lines: usize,
    /// Lines that say which format a payload type is (`a=rtpmap`), and as many that say more of one (`a=fmtp`), of a section.
    formats: usize,
}

/// A voice, a camera, a screen, and again as many sections that were closed. A browser's offer of three has some 400 lines, and in Debian's
/// Chromium 156 a picture's section 23 formats. There are 61 numbers to give, 35 to 63 and 96 to 127 (RFC 3551, 6; RFC 5761, 4).
const OFFER: Most = Most { sections: 16, lines: OFFER_LINES_MAX as usize, formats: 64 };
/// Lines of an offer.
pub(in crate::rooms) const OFFER_LINES_MAX: u32 = 2_000;
/// Of all that one may subscribe to: a picture's section is offered 8 formats, and has 46 lines in a browser's answer; a voice's has 16.
const ANSWER: Most = Most { sections: SECTIONS_MAX, lines: 4_000, formats: 16 };
/// The longest line: a browser's has some hundred bytes, and more where it names addresses or keys.
const LINE_BYTES_MAX: usize = 2_000;
/// Sources that an offer names: of each of its sections some, as of three layers and what repairs them. All may be new.
const SOURCES_MAX: usize = SOURCES_NEW_MAX;
/// What a browser measures its way by. It does so with packets of nothing, too, under the numbers of what it sends: among those of
/// voice they would pass for losses. So voice goes without, and pictures are what a way is measured by.
const MEASURES: [&str; 3] = [
    "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01",
    "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time",
    "urn:ietf:params:rtp-hdrext:toffset",
];
/// Candidates for RTP; RTCP shares its way (RFC 8445, 4; RFC 5761).
const RTP_COMPONENT: &str = "1";

/// What a description is for.
#[derive(Clone, Copy)]
enum Purpose {
    /// Its client sends.
    Publishing,
    /// Its client receives, whatever it says.
    Subscribing,
}

/// Reads an offer to publish.
///
/// # Errors
/// When it is none, or too large.
pub(super) fn offer_to_publish(sdp: &str) -> Result<Described<SdpOffer>, AppError> {
    read(sdp, (Purpose::Publishing, OFFER), SdpOffer::from_sdp_string)
}

/// Reads an offer to receive.
///
/// # Errors
/// As [`offer_to_publish`].
pub(super) fn offer_to_play(sdp: &str) -> Result<Described<SdpOffer>, AppError> {
    read(sdp, (Purpose::Subscribing, OFFER), SdpOffer::from_sdp_string)
}

/// Reads the answer to an offer to send.
///
/// # Errors
/// As [`offer_to_publish`].
pub(super) fn answer(sdp: &str) -> Result<Described<SdpAnswer>, AppError> {
    read(sdp, (Purpose::Subscribing, ANSWER), SdpAnswer::from_sdp_string)
}

/// Reads candidates that a client sends by themselves.
///
/// # Errors
/// For one that is none, and when there are too many.
pub(super) fn candidates(named: &[&str]) -> Result<Vec<Candidate>, AppError> {
    let mut candidates = Vec::new();
    for candidate in named.iter().copied().filter(|candidate| is_of_use(candidate)) {
        let refused = |error| AppError::new(ErrorCode::InvalidInput, format!("this is no ICE candidate: {error}"));
        add(&mut candidates, Candidate::from_sdp_string(candidate).map_err(refused)?)?;
    }
    Ok(candidates)
}

fn read<T, E: std::fmt::Display>(
    sdp: &str,
    (purpose, most): (Purpose, Most),
    read: impl FnOnce(&str) -> Result<T, E>,
) -> Result<Described<T>, AppError> {
    check_size(sdp, &most)?;
    let Described { sdp, candidates, sources } = taken_apart(sdp, purpose)?;
    Ok(Described { sdp: read(&sdp).map_err(|error| PeerError::sdp(&error))?, candidates, sources })
}

fn check_size(sdp: &str, most: &Most) -> Result<(), AppError> {
    let sections = sdp.lines().filter(|line| line.starts_with("m=")).count();
    if !(1..=most.sections).contains(&sections) {
        return Err(refused(format!("the SDP has {sections} media sections: from 1 to {} are taken", most.sections)));
    }
    let lines = sdp.lines().count();
    if lines > most.lines {
        return Err(refused(format!("the SDP has {lines} lines: at most {} are taken", most.lines)));
    }
    if let Some(line) = sdp.lines().find(|line| line.len() > LINE_BYTES_MAX) {
        let length = line.len();
        return Err(refused(format!("the SDP has a line of {length} bytes: at most {LINE_BYTES_MAX} are taken")));
    }
    // What repeats a format is looked for among all of them, too.
    if sdp.lines().any(|line| line.starts_with("a=fmtp:") && line.matches("apt=").count() > 1) {
        return Err(refused(
            "the SDP has a line a=fmtp that names more than one format by apt=: one is repeated".to_owned(),
        ));
    }
    for of_formats in ["a=rtpmap:", "a=fmtp:"] {
        let formats = most_in_a_section(sdp, of_formats);
        if formats > most.formats {
            let most = most.formats;
            return Err(refused(format!(
                "the SDP has {formats} lines {of_formats} in a section: at most {most} are taken"
            )));
        }
    }
    Ok(())
}

/// How many lines begin so, in the section that has most of them.
fn most_in_a_section(sdp: &str, begin: &str) -> usize {
    let (mut here, mut most) = (0, 0);
    for line in sdp.lines() {
        here = if line.starts_with("m=") { 0 } else { here + usize::from(line.starts_with(begin)) };
        most = most.max(here);
    }
    most
}

/// A description without its candidates, and those: but for such as cannot be read, for whatever a client says beyond what we know
/// must not keep it out (RFC 8839, 5.1). Likewise the sources of one who sends; what another says of its own is left out.
fn taken_apart(sdp: &str, purpose: Purpose) -> Result<Described<String>, AppError> {
    let (mut rest, mut candidates, mut sources) = (String::with_capacity(sdp.len()), Vec::new(), BTreeSet::new());
    let mut is_voice = false;
    for line in sdp.split_inclusive('\n') {
        if line.starts_with("m=") {
            is_voice = line.starts_with("m=audio");
        }
        if let Some(candidate) = line.strip_prefix("a=").filter(|line| line.starts_with("candidate:")) {
            if let Some(candidate) = usable(candidate.trim_end()) {
                add(&mut candidates, candidate)?;
            }
        } else if match purpose {
            Purpose::Publishing => !(is_voice && measures(line)),
            Purpose::Subscribing => !line.starts_with("a=ssrc"),
        } {
            sources.extend(sources_in(line));
            rest.push_str(line);
        }
    }
    if sources.len() > SOURCES_MAX {
        let message = format!("the SDP names {} sources (a=ssrc): at most {SOURCES_MAX} are taken", sources.len());
        return Err(refused(message));
    }
    Ok(Described { sdp: rest, candidates, sources })
}

fn refused(message: String) -> AppError {
    AppError::new(ErrorCode::InvalidInput, message)
}

fn usable(candidate: &str) -> Option<Candidate> {
    is_of_use(candidate).then(|| Candidate::from_sdp_string(candidate).ok())?
}

/// The sources that a line speaks of: one and what it is called, or a group (RFC 5576, 4.1 and 4.2).
fn sources_in(line: &str) -> impl Iterator<Item = u32> {
    let (named, skipped, count) = match (line.strip_prefix("a=ssrc:"), line.strip_prefix("a=ssrc-group:")) {
        (Some(named), _) => (named, 0, 1),
        (_, Some(named)) => (named, 1, usize::MAX),
        _ => ("", 0, 0),
    };
    named.split_whitespace().skip(skipped).take(count).filter_map(|word| word.parse().ok())
}

fn measures(line: &str) -> bool {
    line.starts_with("a=extmap:") && line.split_whitespace().any(|word| MEASURES.contains(&word))
}

/// Adds a candidate, unless it is there: each media section repeats them.
fn add(candidates: &mut Vec<Candidate>, new: Candidate) -> Result<(), PeerError> {
    if candidates.iter().any(|known| way(known) == way(&new)) {
        return Ok(());
    }
    if candidates.len() == CANDIDATES_MAX {
        return Err(PeerError::CANDIDATES);
    }
    candidates.push(new);
    Ok(())
}

/// Not that there are no more, nor a name that only the client's own network knows: its checks will show where it is.
fn is_of_use(candidate: &str) -> bool {
    let mut fields = candidate.split_whitespace().skip(1);
    let is_for_rtcp = fields.next().is_some_and(|component| component != RTP_COMPONENT);
    let is_name = fields.nth(2).is_some_and(|host| host.ends_with(".local"));
    !candidate.is_empty() && !is_for_rtcp && !is_name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(port: usize) -> String {
        format!("candidate:1 1 udp 2130706431 192.0.2.1 {port} typ host")
    }

    fn sdp(candidates: &[String]) -> String {
        let lines = candidates.iter().map(|candidate| format!("a={candidate}\r\n")).collect::<String>();
        format!("v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\n{lines}a=mid:0\r\n")
    }

    #[test]
    fn a_description_is_read_without_its_candidates() {
        let odd =
            ["candidate:1 1 udp 1 abc.local 9 typ host", "candidate:1 2 udp 1 192.0.2.1 8 typ host", "candidate:x"];
        let all: Vec<_> = odd.map(String::from).into_iter().chain([named(7), named(8), named(7)]).collect();
        let taken = taken_apart(&sdp(&all), Purpose::Publishing).expect("read");
        assert_eq!(taken.sdp, sdp(&[]));
        assert_eq!(taken.candidates.iter().map(|candidate| candidate.addr().port()).collect::<Vec<_>>(), [7, 8]);
    }

    #[test]
    fn what_would_be_long_to_read_is_refused() {
        let of =
            |lines: &str| format!("v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\n{lines}m=audio 9 RTP/AVP 0\r\n{lines}");
        for (line, count, why) in [
            ("a=rtpmap:9 PCMU/8000\r\n", OFFER.formats, "64 are taken"),
            ("a=fmtp:9 apt=8\r\n", OFFER.formats, "64 are taken"),
            ("a=x\r\n", OFFER.lines / 2 - 2, "2000 are taken"),
        ] {
            assert!(check_size(&of(&line.repeat(count)), &OFFER).is_ok());
            let error = check_size(&of(&line.repeat(count + 1)), &OFFER).expect_err("too much");
            assert!(error.message.contains(why), "{}", error.message);
        }
        let long = |length: usize| of(&format!("a={}\n", "x".repeat(length - 2)));
        assert!(check_size(&long(LINE_BYTES_MAX), &OFFER).is_ok());
        assert!(check_size(&long(LINE_BYTES_MAX + 1), &OFFER).is_err_and(|error| error.message.contains("2001 bytes")));
        let twice = check_size(&of("a=fmtp:9 apt=8;apt=8\r\n"), &OFFER);
        assert!(twice.is_err_and(|error| error.message.contains("more than one format")));
    }

    #[test]
    fn as_many_candidates_are_taken_as_may_be() {
        let taken = |named: &[String]| taken_apart(&sdp(named), Purpose::Subscribing);
        let most: Vec<_> = (1..=CANDIDATES_MAX).map(named).collect();
        let all_twice = [&most[..], &most[..]].concat();
        assert_eq!(taken(&all_twice).expect("read").candidates.len(), CANDIDATES_MAX);
        let more = [&most[..], &[named(1_000)]].concat();
        assert!(taken(&more).is_err_and(|error| error.message.contains("at most 64")));
        let more: Vec<_> = more.iter().map(String::as_str).collect();
        assert!(candidates(&more).is_err() && candidates(&more[1..]).is_ok_and(|read| read.len() == CANDIDATES_MAX));
    }

    #[test]
    fn the_sources_of_one_who_sends_are_noted_and_bounded() {
        let of = |lines: String| format!("v=0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\n{lines}a=mid:0\r\n");
        let named =
            of("a=ssrc-group:FID 7 8\r\na=ssrc:7 cname:9\r\na=ssrc:8 cname:9\r\na=ssrc:x cname:9\r\n".to_owned());
        let taken = taken_apart(&named, Purpose::Publishing).expect("read");
        assert_eq!((taken.sdp, taken.sources.into_iter().collect::<Vec<_>>()), (named.clone(), vec![7, 8]));
        let taken = taken_apart(&named, Purpose::Subscribing).expect("read");
        assert_eq!((taken.sdp, taken.sources.len()), (of(String::new()), 0));
        let many = |count: usize| (0..count).map(|ssrc| format!("a=ssrc:{ssrc} cname:a\r\n")).collect::<String>();
        let taken = |count| taken_apart(&of(many(count)), Purpose::Publishing).map(|taken| taken.sources.len());
        assert_eq!(taken(SOURCES_MAX).expect("read"), SOURCES_MAX);
        assert!(taken(SOURCES_MAX + 1).is_err_and(|error| error.message.contains("at most 64")));
    }

    #[test]
    fn a_way_is_measured_by_pictures_alone() {
        let section = |media: &str, uris: &[&str]| {
            let lines = uris.iter().enumerate().map(|(id, uri)| format!("a=extmap:{} {uri}\r\n", id + 1));
            format!("m={media} 9 UDP/TLS/RTP/SAVPF 111\r\n{}", lines.collect::<String>())
        };
        let level = "urn:ietf:params:rtp-hdrext:ssrc-audio-level";
        let all = [&[level][..], &MEASURES].concat();
        let offered = section("audio", &all) + &section("video", &all);
        let taken = taken_apart(&offered, Purpose::Publishing).expect("read");
        assert_eq!(taken.sdp, section("audio", &[level]) + &section("video", &all));
    }

    #[test]
    fn what_is_long_is_refused_before_it_is_read() {
        let refused = |sdp: &str| check_size(sdp, &OFFER).err().map(|error| error.message);
        assert_eq!(refused(&("v=0\n".to_owned() + &"m=audio\n".repeat(16) + &"a=x\n".repeat(2_000 - 17))), None);
        let said = |message: &str| Some(message.to_owned());
        assert_eq!(refused("v=0\n"), said("the SDP has 0 media sections: from 1 to 16 are taken"));
        assert_eq!(refused(&"m=audio\n".repeat(17)), said("the SDP has 17 media sections: from 1 to 16 are taken"));
        let long = "m=audio\n".to_owned() + &"a=x\n".repeat(2_000);
        assert_eq!(refused(&long), said("the SDP has 2001 lines: at most 2000 are taken"));
    }

    #[test]
    fn what_is_sent_by_itself_must_be_a_candidate() {
        assert!(candidates(&["", "candidate:1 1 udp 1 abc.local 9 typ host"]).expect("read").is_empty());
        assert!(candidates(&["candidate:rubbish"]).is_err_and(|error| error.message.contains("no ICE candidate")));
    }
}
