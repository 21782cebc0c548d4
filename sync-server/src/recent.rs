//! A bounded map that forgets what was not used for long.

use std::{collections::HashMap, hash::Hash};

/// Keeps what was used recently, between `capacity` and twice as many values.
///
/// Two generations: what is used moves to the young one; when that is full, it becomes the old one and
/// what was old is forgotten. No list to keep in order, no scan.
#[derive(Debug)]
pub(crate) struct Recent<K, V> {
    capacity: usize,
    young: HashMap<K, V>,
    old: HashMap<K, V>,
}

impl<K: Hash + Eq + Copy, V> Recent<K, V> {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { capacity, young: HashMap::new(), old: HashMap::new() }
    }

    /// Looks a value up, which keeps it from being forgotten soon.
    pub(crate) fn get(&mut self, key: &K) -> Option<&mut V> {
        if let Some(value) = self.old.remove(key) {
            self.young.insert(*key, value);
        }
        self.young.get_mut(key)
    }

    /// Puts a value in, and forgets what is too old.
    pub(crate) fn put(&mut self, key: K, value: V) {
        self.hold(key, value);
        self.forget();
    }

    /// Puts a value in and forgets nothing: for those who use several at a time.
    pub(crate) fn hold(&mut self, key: K, value: V) {
        self.old.remove(&key);
        self.young.insert(key, value);
    }

    /// Forgets the old generation if the young one is full.
    pub(crate) fn forget(&mut self) {
        if self.young.len() >= self.capacity {
            self.old = std::mem::take(&mut self.young);
        }
    }

    pub(crate) fn remove(&mut self, key: &K) {
        self.young.remove(key);
        self.old.remove(key);
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_the_rest_goes() {
        let mut recent = Recent::new(4);
        for key in 0..100 {
            recent.put(key, key);
            assert_eq!(recent.get(&0), Some(&mut 0), "used each time");
        }
        assert!(recent.len() <= 8);
        assert_eq!(recent.get(&50), None);
    }
}
