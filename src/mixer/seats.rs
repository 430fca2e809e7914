//! Who hears a mix: so many in all, so many of one account and of one address, so that a few cannot take every place.

use std::{collections::HashMap, hash::Hash, net::IpAddr, sync::Arc};

use antiphon_core::{gateway::ErrorCode, ids::UserId};
use parking_lot::Mutex;

use crate::{
    error::AppError,
    telemetry::metrics::{MixRefusal, metrics},
};

/// Whose a seat is.
#[derive(Clone, Copy, Debug)]
pub struct Sitter {
    /// The account.
    pub user: UserId,
    /// Their client's address, as limits count it; `None` where there is none, as for the server's own members.
    pub address: Option<IpAddr>,
}

/// How many seats there are.
#[derive(Clone, Copy, Debug)]
pub(super) struct SeatLimits {
    pub(super) in_all: usize,
    pub(super) per_account: usize,
    pub(super) per_address: usize,
}

/// How often as many as there are may sit here when other nodes' members come over.
const TAKEN_OVER: usize = 2;

/// All seats of a node.
#[derive(Debug)]
pub(super) struct Seats {
    limits: SeatLimits,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    in_all: usize,
    by_account: HashMap<UserId, usize>,
    by_address: HashMap<IpAddr, usize>,
}

/// A listener's place among those that are mixed for; given back when it is dropped.
#[derive(Debug)]
pub struct MixSeat {
    seats: Arc<Seats>,
    sitter: Option<Sitter>,
}

impl Seats {
    pub(super) fn new(limits: SeatLimits) -> Arc<Self> {
        Arc::new(Self { limits, taken: Mutex::default() })
    }

    /// A seat for `sitter`, or for a channel's listeners outside, who are nobody in particular.
    pub(super) fn take(self: &Arc<Self>, sitter: Option<Sitter>) -> Result<MixSeat, AppError> {
        let mut taken = self.taken.lock();
        self.limits.check(&taken, sitter).map_err(|(refusal, message)| {
            metrics().mixer.refused.of(refusal).increment(1);
            AppError::new(ErrorCode::LimitReached, message)
        })?;
        Ok(self.seat(&mut taken, sitter))
    }

    /// A seat for somebody who had one on another node: when that has gone, this one takes over twice what it takes itself.
    pub(super) fn take_over(self: &Arc<Self>, sitter: Sitter) -> Option<MixSeat> {
        let mut taken = self.taken.lock();
        if taken.in_all >= self.limits.in_all.saturating_mul(TAKEN_OVER) {
            metrics().mixer.refused.of(MixRefusal::Moved).increment(1);
            return None;
        }
        Some(self.seat(&mut taken, Some(sitter)))
    }

    fn seat(self: &Arc<Self>, taken: &mut Taken, sitter: Option<Sitter>) -> MixSeat {
        taken.in_all += 1;
        if let Some(Sitter { user, address }) = sitter {
            *taken.by_account.entry(user).or_default() += 1;
            if let Some(address) = address {
                *taken.by_address.entry(address).or_default() += 1;
            }
        }
        metrics().mixer.listeners.increment(1.0);
        MixSeat { seats: Arc::clone(self), sitter }
    }

    /// How many are taken.
    pub(super) fn taken(&self) -> usize {
        self.taken.lock().in_all
    }
}

impl SeatLimits {
    /// Why there is no seat, where there is none.
    fn check(&self, taken: &Taken, sitter: Option<Sitter>) -> Result<(), (MixRefusal, String)> {
        let Self { in_all, per_account, per_address } = *self;
        let else_do = "join with `mode` `forward`";
        if taken.in_all >= in_all {
            let message = format!(
                "this node mixes for {in_all} members, the most that mixer.listeners_max allows: {else_do}, or through \
                 another node"
            );
            return Err((MixRefusal::Full, message));
        }
        let Some(Sitter { user, address }) = sitter else { return Ok(()) };
        if count_of(&taken.by_account, &user) >= per_account {
            let message = format!(
                "this account hears {per_account} mixes, the most that mixer.listeners_per_account allows: leave one of \
                 those channels, or {else_do}"
            );
            return Err((MixRefusal::Account, message));
        }
        if address.is_some_and(|address| count_of(&taken.by_address, &address) >= per_address) {
            let message = format!(
                "{per_address} mixes go to this address, the most that mixer.listeners_per_address allows: {else_do}"
            );
            return Err((MixRefusal::Address, message));
        }
        Ok(())
    }
}

impl Drop for MixSeat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken.lock();
        taken.in_all -= 1;
        if let Some(Sitter { user, address }) = self.sitter {
            one_less(&mut taken.by_account, &user);
            if let Some(address) = address {
                one_less(&mut taken.by_address, &address);
            }
        }
        metrics().mixer.listeners.decrement(1.0);
    }
}

fn count_of<K: Eq + Hash>(counts: &HashMap<K, usize>, key: &K) -> usize {
    counts.get(key).copied().unwrap_or(0)
}

/// Whoever has none any more is forgotten.
fn one_less<K: Eq + Hash>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn sitter(user: u128, last: u8) -> Sitter {
        Sitter { user: UserId(Uuid::from_u128(user)), address: Some(IpAddr::from([203, 0, 113, last])) }
    }

    #[test]
    fn a_few_cannot_take_every_seat_and_who_has_gone_is_forgotten() {
        let seats = Seats::new(SeatLimits { in_all: 6, per_account: 2, per_address: 3 });
        let take = |user, last| seats.take(Some(sitter(user, last)));
        let mine = [take(1, 1).expect("free"), take(1, 1).expect("free")];
        let refused = take(1, 2).expect_err("another address is the same account");
        assert!(refused.message.contains("mixer.listeners_per_account"), "{refused}");
        let guest = take(2, 1).expect("free");
        let refused = take(3, 1).expect_err("a new guest is the same address");
        assert_eq!(refused.code, ErrorCode::LimitReached);
        assert!(refused.message.contains("mixer.listeners_per_address"), "{refused}");
        let outside = seats.take(None).expect("nobody in particular");
        let others = [take(4, 4).expect("free"), take(5, 5).expect("free")];
        assert!(take(6, 6).expect_err("full").message.contains("mixer.listeners_max"));
        drop((mine, guest, outside, others));
        let taken = seats.taken.lock();
        assert!(taken.in_all == 0 && taken.by_account.is_empty() && taken.by_address.is_empty(), "{taken:?}");
    }

    #[test]
    fn those_of_another_node_are_taken_over_up_to_twice_as_many() {
        let seats = Seats::new(SeatLimits { in_all: 2, per_account: 1, per_address: 1 });
        let _own = seats.take(Some(sitter(1, 1))).expect("free");
        let over: Vec<_> = (0..9).filter_map(|_| seats.take_over(sitter(2, 2))).collect();
        assert_eq!((over.len(), seats.taken()), (3, 4));
        assert!(seats.take(Some(sitter(3, 3))).is_err(), "new ones only once there is room");
        drop(over);
        seats.take(Some(sitter(3, 3))).expect("free again");
    }
}
