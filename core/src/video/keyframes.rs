//! When a publisher is asked for a whole picture: it costs several times an ordinary one, and every subscriber may want it.

use crate::clock::Micros;

/// A publisher's encoder is asked at most so often.
pub const KEYFRAME_INTERVAL: Micros = Micros::from_millis(500);

/// The requests for one layer of one video.
#[derive(Debug, Default)]
pub struct KeyframeRequests {
    asked_at: Option<Micros>,
    wanted: bool,
}

impl KeyframeRequests {
    /// Somebody cannot go on without a whole picture.
    pub fn want(&mut self) {
        self.wanted = true;
    }

    /// A whole picture begins: all who waited have it.
    pub fn begun(&mut self) {
        self.wanted = false;
    }

    /// Whether the publisher is to be asked now. Where it was asked and no picture came, it is asked again.
    pub fn poll(&mut self, now: Micros) -> bool {
        let may = self.asked_at.is_none_or(|at| now.since(at) >= KEYFRAME_INTERVAL);
        let asks = self.wanted && may;
        if asks {
            self.asked_at = Some(now);
        }
        asks
    }

    /// When to look again; `None` while nobody waits.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Micros> {
        self.wanted.then(|| self.asked_at.map_or(Micros::ZERO, |at| at + KEYFRAME_INTERVAL))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_who_ask_are_one_request_in_half_a_second() {
        let mut requests = KeyframeRequests::default();
        assert!(!requests.poll(Micros::ZERO) && requests.poll_timeout().is_none());
        let mut asked = 0;
        for ms in 0..2_000 {
            requests.want();
            asked += u32::from(requests.poll(Micros::from_millis(ms)));
        }
        assert_eq!(asked, 4);
    }

    #[test]
    fn a_request_that_is_not_met_is_repeated_and_one_that_is_met_is_not() {
        let mut requests = KeyframeRequests::default();
        requests.want();
        assert!(requests.poll(Micros::from_millis(10)));
        assert_eq!(requests.poll_timeout(), Some(Micros::from_millis(510)));
        assert!(!requests.poll(Micros::from_millis(509)) && requests.poll(Micros::from_millis(510)));
        requests.begun();
        assert!(!requests.poll(Micros::from_secs(9)) && requests.poll_timeout().is_none());
    }
}
