//! The bounds of the histograms' buckets, each where its question lies.

use crate::media::FORWARDING_US;

/// Answers of the API and its database: from well under a millisecond, for a health check, to the 10 s after which a
/// request is given up.
pub(super) const REQUEST_SECONDS: [f64; 12] =
    [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0];

/// A password hash is made to take tens of milliseconds; waiting for a turn under a flood shows above that.
pub(super) const HASH_SECONDS: [f64; 8] = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0];

/// Making a quality: a jingle takes a tenth of a second, an hour's recording at fifty times its speed more than a minute.
pub(super) const TRANSCODE_SECONDS: [f64; 9] = [0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 180.0, 600.0, 1800.0];

/// Delays of tasks: a frame is 20 ms long, so the question is what is well below it and what is above.
pub(super) const LATENESS_SECONDS: [f64; 8] = [0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.1, 1.0];

/// Operations of Redis: from a script on a quiet server to the 0.8 s after which they are given up.
pub(super) const REDIS_SECONDS: [f64; 9] = [0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.2, 0.8];

/// Handing something to a mail server, a provider or a push service: from next door to the 20 s after which it is given up.
pub(super) const SENDING_SECONDS: [f64; 9] = [0.005, 0.01, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0, 20.0];

/// Forwarding: the bounds by which the media workers count, which `FORWARDING_US` explains.
pub(super) const FORWARDING_SECONDS: [f64; FORWARDING_US.len()] = {
    let mut seconds = [0.0; FORWARDING_US.len()];
    let mut index = 0;
    while index < seconds.len() {
        seconds[index] = FORWARDING_US[index] as f64 / 1e6;
        index += 1;
    }
    seconds
};

/// Loss: concealment hides 1 %, in-band correction some 10 %, and beyond 20 % people do not understand each other.
pub(super) const LOSS_RATIO: [f64; 8] = [0.0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5];

/// Jitter, which a receiver hides by waiting twice that long: from a wired network's to a bad radio link's.
pub(super) const JITTER_SECONDS: [f64; 8] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.04, 0.08, 0.2];

/// A mixing thread's tick: up to the 20 ms that it has.
pub(super) const TICK_SECONDS: [f64; 9] = [0.000_5, 0.001, 0.002, 0.004, 0.007, 0.01, 0.014, 0.02, 0.04];

/// What waits in a jitter buffer: a frame or two on a good network, a second after a stall.
pub(super) const DEPTH_SECONDS: [f64; 9] = [0.02, 0.04, 0.06, 0.08, 0.12, 0.2, 0.4, 0.8, 1.6];

/// Round trips between client and node: a city, a continent, an ocean; above 0.3 s people interrupt each other.
pub(super) const ROUND_TRIP_SECONDS: [f64; 9] = [0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 1.0];

/// The E-model's classes (G.107 annex B): above 90 very satisfied, 80 satisfied, 70 some dissatisfied, 60 many, 50 nearly
/// all.
pub(super) const RATINGS: [f64; 6] = [50.0, 60.0, 70.0, 80.0, 90.0, 94.0];
