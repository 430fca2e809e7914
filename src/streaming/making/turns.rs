//! What waits to be made, in turn by who asked for it: however much one of them orders, everybody else's next order
//! comes after one of theirs.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
    net::IpAddr,
};

use antiphon_core::ids::UserId;

/// Who asks for something to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Asker {
    /// Somebody with an account.
    Account(UserId),
    /// Whoever has a link, by their address as limits count it.
    Address(IpAddr),
    /// The process before, whose marks do not say for whom it was.
    LastProcess,
}

/// Queues, one for each who asks.
pub(super) struct Turns<K, T> {
    queues: HashMap<K, VecDeque<T>>,
    /// Everybody for whom something waits, whose turn is first before others.
    order: VecDeque<K>,
}

impl<K: Copy + Eq + Hash, T> Turns<K, T> {
    /// How many wait in all.
    pub(super) fn len(&self) -> usize {
        self.queues.values().map(VecDeque::len).sum()
    }

    /// How many wait for one of those who ask.
    pub(super) fn len_of(&self, asker: K) -> usize {
        self.queues.get(&asker).map_or(0, VecDeque::len)
    }

    pub(super) fn push(&mut self, asker: K, item: T) {
        let queue = self.queues.entry(asker).or_default();
        if queue.is_empty() {
            self.order.push_back(asker);
        }
        queue.push_back(item);
    }

    /// The next, of whose turn it is.
    pub(super) fn pop(&mut self) -> Option<T> {
        let asker = self.order.pop_front()?;
        let queue = self.queues.get_mut(&asker)?;
        let item = queue.pop_front();
        if queue.is_empty() {
            self.queues.remove(&asker);
        } else {
            self.order.push_back(asker);
        }
        item
    }

    /// Somebody else wants what another asked for: it waits in their queue from then on, where it is nearer to its turn there.
    pub(super) fn share(&mut self, asker: K, is_it: impl Fn(&T) -> bool) {
        let ahead = self.len_of(asker);
        // Where something is ahead of it, the queue that it leaves is not empty without it.
        let taken = self.queues.values_mut().find_map(|queue| {
            let place = queue.iter().position(&is_it).filter(|place| *place > ahead)?;
            queue.remove(place)
        });
        if let Some(item) = taken {
            self.push(asker, item);
        }
    }

    /// Takes out what is so.
    pub(super) fn extract(&mut self, is_so: impl Fn(&T) -> bool) -> Vec<T> {
        let mut extracted = Vec::new();
        for queue in self.queues.values_mut() {
            let (out, kept) = std::mem::take(queue).into_iter().partition::<Vec<_>, _>(&is_so);
            extracted.extend(out);
            *queue = kept.into();
        }
        self.queues.retain(|_, queue| !queue.is_empty());
        self.order.retain(|asker| self.queues.contains_key(asker));
        extracted
    }
}

impl<K, T> Default for Turns<K, T> {
    fn default() -> Self {
        Self { queues: HashMap::new(), order: VecDeque::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(items: &[(char, u32)]) -> Turns<char, u32> {
        let mut turns = Turns::default();
        items.iter().for_each(|(asker, item)| turns.push(*asker, *item));
        turns
    }

    fn all(mut turns: Turns<char, u32>) -> Vec<u32> {
        std::iter::from_fn(|| turns.pop()).collect()
    }

    const GREEDY: [(char, u32); 6] = [('a', 1), ('a', 2), ('a', 3), ('a', 4), ('b', 10), ('c', 20)];

    #[test]
    fn who_orders_much_lets_others_in_between() {
        assert_eq!(all(turns(&GREEDY)), [1, 10, 20, 2, 3, 4]);
        let mut turns = turns(&GREEDY);
        assert_eq!((turns.len(), turns.len_of('a'), turns.len_of('x')), (6, 4, 0));
        assert_eq!((turns.pop(), turns.pop()), (Some(1), Some(10)));
        turns.push('b', 11);
        turns.push('d', 30);
        assert_eq!(all(turns), [20, 2, 11, 30, 3, 4], "who comes back queues up anew");
    }

    #[test]
    fn what_another_wants_waits_where_it_is_nearer_to_its_turn() {
        let mut shared = turns(&GREEDY);
        shared.share('d', |item| *item == 4);
        assert_eq!(all(shared), [1, 10, 20, 4, 2, 3]);
        let mut shared = turns(&GREEDY);
        shared.share('b', |item| *item == 2);
        shared.share('d', |item| *item == 1);
        shared.share('d', |item| *item == 99);
        assert_eq!(all(shared), [1, 10, 20, 2, 3, 4], "it would come no sooner there, or waits nowhere");
    }

    #[test]
    fn what_is_taken_out_leaves_no_empty_turn() {
        let mut turns = turns(&GREEDY);
        let mut out = turns.extract(|item| *item >= 10 || *item == 2);
        out.sort_unstable();
        assert_eq!((out, turns.order.len()), (vec![2, 10, 20], 1));
        assert_eq!(all(turns), [1, 3, 4]);
    }
}
