//! Who gives way when there is no more room: a pure machine, told nothing of sockets or time.
//!
//! Whoever comes in gets a place, which weighs something and belongs to a crowd: to an address, say. When all
//! together weigh too much, the heaviest crowd gives way, its oldest place first; of crowds that weigh the
//! same, the one whose oldest place is the oldest. So whoever floods from one address is in his own way alone.
//! Who floods from many takes places from those that have had one the longest, and the honest need theirs for
//! a round trip.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

/// A place, by its number since the beginning: older ones have smaller numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket(u64);

/// The places that are taken.
#[derive(Debug)]
pub(crate) struct Places<K, V> {
    weight_max: usize,
    weight: usize,
    next: u64,
    places: BTreeMap<Ticket, Place<K, V>>,
    crowds: BTreeMap<K, Crowd>,
    /// The crowds, in the order in which they would give way, the first one last.
    order: BTreeSet<(usize, Reverse<Ticket>, K)>,
}

#[derive(Debug)]
struct Place<K, V> {
    crowd: K,
    weight: usize,
    value: V,
}

#[derive(Debug, Default)]
struct Crowd {
    weight: usize,
    tickets: BTreeSet<Ticket>,
}

impl<K: Copy + Ord, V> Places<K, V> {
    pub(crate) fn new(weight_max: usize) -> Self {
        Self {
            weight_max,
            weight: 0,
            next: 0,
            places: BTreeMap::new(),
            crowds: BTreeMap::new(),
            order: BTreeSet::new(),
        }
    }

    /// How many places are taken.
    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether a place of this weight could be had without anybody giving way.
    pub(crate) fn has_room(&self, weight: usize) -> bool {
        self.weight + weight <= self.weight_max
    }

    /// Whether a crowd has a place.
    pub(crate) fn has(&self, crowd: &K) -> bool {
        self.crowds.contains_key(crowd)
    }

    /// What the heaviest crowd weighs.
    pub(crate) fn heaviest(&self) -> usize {
        self.order.last().map_or(0, |(weight, ..)| *weight)
    }

    /// Takes a place; what had to give way for it comes back.
    pub(crate) fn enter(&mut self, crowd: K, weight: usize, value: V) -> (Ticket, Vec<V>) {
        let ticket = Ticket(self.next);
        self.next += 1;
        self.places.insert(ticket, Place { crowd, weight, value });
        self.change(crowd, |of| {
            of.tickets.insert(ticket);
            of.weight += weight;
        });
        self.weight += weight;
        (ticket, self.give_way())
    }

    /// Changes what a place weighs, if it is still taken; what had to give way for it comes back, and that may
    /// be the place itself.
    pub(crate) fn weigh(&mut self, ticket: Ticket, weight: usize) -> Vec<V> {
        let Some(place) = self.places.get_mut(&ticket) else { return Vec::new() };
        let (crowd, before) = (place.crowd, std::mem::replace(&mut place.weight, weight));
        self.change(crowd, |of| of.weight = of.weight - before + weight);
        self.weight = self.weight - before + weight;
        self.give_way()
    }

    /// Gives a place back, if it is still taken.
    pub(crate) fn leave(&mut self, ticket: Ticket) -> Option<V> {
        let Place { crowd, weight, value } = self.places.remove(&ticket)?;
        self.change(crowd, |of| {
            of.tickets.remove(&ticket);
            of.weight -= weight;
        });
        self.weight -= weight;
        Some(value)
    }

    /// The place that is the first to give way gives way.
    pub(crate) fn relieve(&mut self) -> Option<V> {
        let (.., crowd) = *self.order.last()?;
        let oldest = *self.crowds.get(&crowd)?.tickets.first()?;
        self.leave(oldest)
    }

    fn give_way(&mut self) -> Vec<V> {
        let mut gone = Vec::new();
        while self.weight > self.weight_max {
            gone.extend(self.relieve());
        }
        gone
    }

    fn change(&mut self, crowd: K, change: impl FnOnce(&mut Crowd)) {
        let of = self.crowds.entry(crowd).or_default();
        if let Some(oldest) = of.tickets.first() {
            self.order.remove(&(of.weight, Reverse(*oldest), crowd));
        }
        change(of);
        match of.tickets.first() {
            Some(oldest) => {
                self.order.insert((of.weight, Reverse(*oldest), crowd));
            }
            None => {
                self.crowds.remove(&crowd);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn whoever_floods_from_one_address_is_in_his_own_way_alone() {
        let mut places = Places::new(10);
        let (honest, _) = places.enter("phone", 1, 0);
        let mut gone = Vec::new();
        for number in 1..100 {
            gone.extend(places.enter("flood", 1, number).1);
        }
        assert_eq!(gone, (1..91).collect::<Vec<_>>(), "the flood's own, the oldest first");
        assert_eq!(places.len(), 10);
        assert_eq!(places.leave(honest), Some(0));
    }

    #[test]
    fn of_many_addresses_the_one_that_came_first_gives_way() {
        let mut places = Places::new(3);
        let gone: Vec<_> = (0..5).flat_map(|number| places.enter(number, 1, number).1).collect();
        assert_eq!(gone, [0, 1]);
    }

    #[test]
    fn the_heavy_give_way_before_the_many() {
        let mut places = Places::new(10);
        for number in 0..5 {
            places.enter(number, 1, number);
        }
        let (heavy, gone) = places.enter(9, 1, 9);
        assert!(gone.is_empty());
        assert!(places.weigh(heavy, 5).is_empty(), "there is room");
        assert_eq!(places.weigh(heavy, 6), [9], "it has to go itself");
        assert_eq!(places.weigh(heavy, 1), [0; 0], "it has gone");
        assert_eq!(places.len(), 5);
    }

    proptest! {
        /// After any calls, the books are right: nothing too heavy, nobody lost, no crowd left empty.
        #[test]
        fn the_books_are_right(calls in prop::collection::vec((0..4_u8, 0..6_u8, 0..5_usize), 0..200)) {
            let mut places = Places::new(12);
            let mut taken = BTreeMap::new();
            let mut tickets = Vec::new();
            for (call, crowd, weight) in calls {
                let some = tickets.get(usize::from(crowd) * 7 % tickets.len().max(1)).copied();
                let gone = match (call, some) {
                    (0 | 1, _) => {
                        let value = tickets.len();
                        let (ticket, gone) = places.enter(crowd, weight, value);
                        tickets.push(ticket);
                        taken.insert(value, weight);
                        gone
                    }
                    (2, Some(ticket)) => {
                        if let Some(held) = taken.get_mut(&(ticket.0 as usize)) {
                            *held = weight;
                        }
                        places.weigh(ticket, weight)
                    }
                    (_, Some(ticket)) => places.leave(ticket).into_iter().collect(),
                    (_, None) => Vec::new(),
                };
                for value in gone {
                    prop_assert!(taken.remove(&value).is_some());
                }
                prop_assert_eq!(places.weight, taken.values().sum::<usize>());
                prop_assert!(places.weight <= 12);
                prop_assert_eq!(places.len(), taken.len());
                prop_assert_eq!(places.order.len(), places.crowds.len());
                let heaviest = places.crowds.values().map(|of| of.weight).max().unwrap_or(0);
                prop_assert_eq!(places.heaviest(), heaviest);
            }
        }
    }
}
