// SPDX-License-Identifier: GPL-2.0-only

//! Finds a few of many.

use std::borrow::Borrow;
use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

/// The numbers of things, by the keys that they have.
#[derive(Clone, Debug)]
pub struct Index<K>(HashMap<K, Vec<usize>>);

impl<K> Default for Index<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash> Index<K> {
    /// Says which keys a thing has, which may be told more than once. Things come one after the other, by rising numbers.
    pub fn add(&mut self, thing: usize, keys: impl Iterator<Item = K>) {
        for key in keys {
            let things = self.0.entry(key).or_default();
            if things.last() != Some(&thing) {
                things.push(thing);
            }
        }
    }

    /// Those that have a key, by rising numbers.
    pub fn with<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> &[usize]
    where
        K: Borrow<Q>,
    {
        self.0.get(key).map_or(&[], Vec::as_slice)
    }

    /// Those that have any of these keys, each once, by rising numbers.
    pub fn with_any<'a, Q: Eq + Hash + ?Sized + 'a>(
        &self,
        keys: impl Iterator<Item = &'a Q>,
    ) -> BTreeSet<usize>
    where
        K: Borrow<Q>,
    {
        keys.flat_map(|key| self.with(key)).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_are_found_by_each_of_their_keys_once() {
        let mut index = Index::default();
        for (thing, keys) in [(0, &["a", "b", "a"][..]), (1, &[]), (2, &["b"])] {
            index.add(thing, keys.iter().map(|key| key.to_string()));
        }
        assert_eq!(index.with("a"), [0]);
        assert_eq!(index.with("b"), [0, 2]);
        assert!(index.with("c").is_empty());
        let any = index.with_any(["b", "a", "c"].into_iter());
        assert_eq!(any.into_iter().collect::<Vec<_>>(), [0, 2]);
    }
}
