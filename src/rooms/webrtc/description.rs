//! What clients send of their connections, read: descriptions (SDP) and the ways to them (ICE candidates), those apart, so that there
//! is one bound for all of them.

use antiphon_core::gateway::ErrorCode;
use str0m::{
    Candidate,
    change::{SdpAnswer, SdpOffer},
};

use crate::{
    error::AppError,
    media::webrtc::{CANDIDATES_MAX, PeerError, way},
};

/// Media sections of one description: those of all that one may subscribe to, and as many that were closed.
const SECTIONS_MAX: usize = 256;
/// Media sections of an offer: a voice, a camera, a screen, and again as many that were closed.
const OFFERED_SECTIONS_MAX: usize = 16;
/// Candidates for RTP; RTCP shares its way (RFC 8445, 4; RFC 5761).
const RTP_COMPONENT: &str = "1";

/// Reads an offer, and the candidates in it.
///
/// # Errors
/// When it is none, or too large.
pub(super) fn offer(sdp: &str) -> Result<(SdpOffer, Vec<Candidate>), AppError> {
    let (sdp, candidates) = taken_apart(sdp, OFFERED_SECTIONS_MAX)?;
    Ok((SdpOffer::from_sdp_string(&sdp).map_err(|error| PeerError::sdp(&error))?, candidates))
}

/// Reads an answer, and the candidates in it.
///
/// # Errors
/// As [`offer`].
pub(super) fn answer(sdp: &str) -> Result<(SdpAnswer, Vec<Candidate>), AppError> {
    let (sdp, candidates) = taken_apart(sdp, SECTIONS_MAX)?;
    Ok((SdpAnswer::from_sdp_string(&sdp).map_err(|error| PeerError::sdp(&error))?, candidates))
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

/// A description without its candidates, and those: but for such as cannot be read, for whatever a client says beyond what we know
/// must not keep it out (RFC 8839, 5.1).
fn taken_apart(sdp: &str, sections_max: usize) -> Result<(String, Vec<Candidate>), AppError> {
    check_sections(sdp, sections_max)?;
    let (mut rest, mut candidates) = (String::with_capacity(sdp.len()), Vec::new());
    for line in sdp.split_inclusive('\n') {
        match line.strip_prefix("a=").filter(|line| line.starts_with("candidate:")).map(str::trim_end) {
            Some(candidate) if is_of_use(candidate) => {
                if let Ok(candidate) = Candidate::from_sdp_string(candidate) {
                    add(&mut candidates, candidate)?;
                }
            }
            Some(_) => {}
            None => rest.push_str(line),
        }
    }
    Ok((rest, candidates))
}

fn check_sections(sdp: &str, most: usize) -> Result<(), AppError> {
    let sections = sdp.lines().filter(|line| line.starts_with("m=")).count();
    if (1..=most).contains(&sections) {
        return Ok(());
    }
    let message = format!("the SDP has {sections} media sections: from 1 to {most} are taken");
    Err(AppError::new(ErrorCode::InvalidInput, message))
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
        let (rest, candidates) = taken_apart(&sdp(&all), 1).expect("read");
        assert_eq!(rest, sdp(&[]));
        assert_eq!(candidates.iter().map(|candidate| candidate.addr().port()).collect::<Vec<_>>(), [7, 8]);
    }

    #[test]
    fn as_many_candidates_are_taken_as_may_be() {
        let most: Vec<_> = (1..=CANDIDATES_MAX).map(named).collect();
        let all_twice = [&most[..], &most[..]].concat();
        assert_eq!(taken_apart(&sdp(&all_twice), 1).expect("read").1.len(), CANDIDATES_MAX);
        let more = [&most[..], &[named(1_000)]].concat();
        assert!(taken_apart(&sdp(&more), 1).is_err_and(|error| error.message.contains("at most 64")));
        let more: Vec<_> = more.iter().map(String::as_str).collect();
        assert!(candidates(&more).is_err() && candidates(&more[1..]).is_ok_and(|read| read.len() == CANDIDATES_MAX));
    }

    #[test]
    fn what_is_sent_by_itself_must_be_a_candidate() {
        assert!(candidates(&["", "candidate:1 1 udp 1 abc.local 9 typ host"]).expect("read").is_empty());
        assert!(candidates(&["candidate:rubbish"]).is_err_and(|error| error.message.contains("no ICE candidate")));
    }
}
