//! A channel's mix as an endless Ogg Opus file for ordinary players: who may listen is the link's and the channel's matter,
//! how many at once and what they are sent is decided here.

mod body;
mod ogg;

use std::{net::IpAddr, sync::Arc};

use antiphon_core::{gateway::ErrorCode, ids::ChannelId};

use crate::places::{NoPlace, Place, Places};
use crate::{
    error::AppError,
    telemetry::metrics::{LiveRefusal, metrics},
};

pub use self::body::LiveBody;

/// The most that a listener may ask for to be filled up to, in bits per second.
pub const FLOOR_MAX_BPS: u32 = 256_000;

/// When to come back where there is no place, in seconds.
const RETRY_S: u64 = 5;

/// How many listen at once, and how they are sent what they hear.
#[derive(Clone, Copy, Debug)]
pub struct LiveConfig {
    /// Listeners of this node.
    pub listeners_max: u32,
    /// Of those, from one address.
    pub per_address: u32,
    /// Of those, of one channel.
    pub per_channel: u32,
    /// Packets are filled up so that a second has as many bits at least.
    pub floor_bps: u32,
}

/// The listeners of this node.
pub struct Live {
    floor_bps: u32,
    by_address: Arc<Places<IpAddr>>,
    by_channel: Arc<Places<ChannelId>>,
}

/// A place among them, until it is dropped.
pub struct LivePlace {
    _by_address: Place<IpAddr>,
    _by_channel: Place<ChannelId>,
}

impl Live {
    pub(super) fn new(config: LiveConfig) -> Self {
        let LiveConfig { listeners_max, per_address, per_channel, floor_bps } = config;
        Self {
            floor_bps,
            by_address: Arc::new(Places::new(listeners_max, per_address, &metrics().streaming.live_listeners)),
            by_channel: Arc::new(Places::unseen(u32::MAX, per_channel)),
        }
    }

    /// What packets are filled up to where a listener asks for nothing else, in bits per second.
    #[must_use]
    pub fn floor_bps(&self) -> u32 {
        self.floor_bps
    }

    /// A place for a listener.
    ///
    /// # Errors
    /// `RATE_LIMITED` where the address has its share, `LIMIT_REACHED` where the channel has, `TEMPORARILY_UNAVAILABLE` where
    /// the node has.
    pub fn place(&self, address: IpAddr, channel: ChannelId) -> Result<LivePlace, AppError> {
        let by_address = Places::take(&self.by_address, address).map_err(|why| match why {
            NoPlace::InAll(most) => {
                let message =
                    format!("{most} listen through this node, and no more may: try again later, or another node");
                refused(LiveRefusal::Busy, ErrorCode::TemporarilyUnavailable, message)
            }
            NoPlace::ForEach(most) => {
                let message = format!("too many listen from this address: at most {most} may at once");
                refused(LiveRefusal::AddressBusy, ErrorCode::RateLimited, message)
            }
        })?;
        let by_channel =
            Places::take(&self.by_channel, channel).map_err(|(NoPlace::InAll(most) | NoPlace::ForEach(most))| {
                let message = format!("{most} listen to this channel through this node, and no more may");
                refused(LiveRefusal::ChannelBusy, ErrorCode::LimitReached, message)
            })?;
        Ok(LivePlace { _by_address: by_address, _by_channel: by_channel })
    }
}

fn refused(why: LiveRefusal, code: ErrorCode, message: String) -> AppError {
    metrics().streaming.live_refused.of(why).increment(1);
    AppError::retry(code, message, RETRY_S)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn listeners_are_bounded_in_all_for_each_address_and_for_each_channel() {
        let live = Live::new(LiveConfig { listeners_max: 4, per_address: 2, per_channel: 2, floor_bps: 0 });
        let channel = |number| ChannelId(Uuid::from_u128(number));
        let code = |last: u8, number| {
            live.place(IpAddr::from([203, 0, 113, last]), channel(number)).map_err(|error| error.code)
        };
        let _first = code(1, 1).expect("free");
        let second = code(1, 2).expect("free");
        assert_eq!(code(1, 3).err(), Some(ErrorCode::RateLimited));
        let _third = code(2, 1).expect("free");
        assert_eq!(code(3, 1).err(), Some(ErrorCode::LimitReached));
        let _fourth = code(3, 2).expect("who was refused holds no place");
        assert_eq!(code(4, 3).err(), Some(ErrorCode::TemporarilyUnavailable));
        drop(second);
        code(1, 2).expect("free again");
    }
}
