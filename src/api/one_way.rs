//! Whether media will flow as a client of WHIP or WHEP means it: a session without any would be a member whom nobody hears,
//! and who hears nobody.

use antiphon_core::gateway::PeerRole;

/// The answer to such a client, in which media goes one way alone (RFC 9725, 4.2). `None` where nothing would flow, and where
/// a section of what is to be published is refused: half of it would go unheard, and who sends it would not know (4.4.3).
pub(super) fn one_way(answer: &str, role: PeerRole) -> Option<String> {
    let way = match role {
        PeerRole::Publisher => "a=recvonly",
        PeerRole::Subscriber => "a=sendonly",
    };
    let answer = answer.replace("a=sendrecv\r\n", &format!("{way}\r\n"));
    let sections = answer.split("\r\nm=").skip(1);
    let media = sections.filter(|section| section.starts_with("audio ") || section.starts_with("video "));
    let (mut flows, mut is_whole) = (false, true);
    for section in media {
        let is_taken = section.split(' ').nth(1).is_some_and(|port| port != "0");
        flows |= is_taken && section.lines().any(|line| line == way);
        is_whole &= is_taken || role == PeerRole::Subscriber;
    }
    (flows && is_whole).then_some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(sections: &[(&str, u16, &str)]) -> String {
        let section = |(kind, port, way): &(&str, u16, &str)| {
            format!("m={kind} {port} UDP/TLS/RTP/SAVPF 100\r\nc=IN IP4 0.0.0.0\r\na={way}\r\n")
        };
        format!("v=0\r\ns=-\r\nt=0 0\r\n{}", sections.iter().map(section).collect::<String>())
    }

    #[test]
    fn media_goes_one_way() {
        for (role, way, other) in
            [(PeerRole::Publisher, "recvonly", "sendonly"), (PeerRole::Subscriber, "sendonly", "recvonly")]
        {
            let wanted = answer(&[("audio", 9, way), ("video", 9, way)]);
            assert_eq!(one_way(&wanted, role), Some(wanted.clone()));
            let both_ways = answer(&[("audio", 9, "sendrecv"), ("video", 9, "sendrecv")]);
            assert_eq!(one_way(&both_ways, role), Some(wanted));
            for nothing in [other, "inactive"] {
                assert_eq!(one_way(&answer(&[("audio", 9, nothing)]), role), None, "{nothing}");
                let some = answer(&[("audio", 9, nothing), ("video", 9, way)]);
                assert_eq!(one_way(&some, role), Some(some.clone()), "{nothing}");
            }
            assert_eq!(one_way(&answer(&[("application", 9, way)]), role), None);
            assert_eq!(one_way(&answer(&[("audio", 0, way)]), role), None);
        }
    }

    #[test]
    fn nobody_publishes_half_of_what_they_offer() {
        let half = |way| answer(&[("audio", 9, way), ("video", 0, way)]);
        assert_eq!(one_way(&half("recvonly"), PeerRole::Publisher), None);
        assert_eq!(one_way(&half("sendonly"), PeerRole::Subscriber), Some(half("sendonly")), "they hear");
    }
}
