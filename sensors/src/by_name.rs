//! What is known by name, where there may be a hundred thousand names.
//!
//! Looking one up then waits for memory several times, one wait after the other, and that costs more than all the rest of a
//! reading. [`ByName::look_ahead`] takes a group of names at once, step by step, so that the waits of a group run beside each
//! other, and remembers where they stand until they are asked for. It does not know what the names mean.

use std::hash::{BuildHasher as _, RandomState};
use std::hint::black_box;
use std::sync::Arc;

use hashbrown::HashTable;

/// So many names are looked ahead for at once.
pub const GROUP: usize = 32;

/// With fewer than these all are near anyway.
const MANY: usize = 2_048;

/// Values by name.
#[derive(Clone, Debug)]
pub struct ByName<V> {
    hasher: RandomState,
    /// Where each stands, by the hash of its name, which is not kept: five bytes a name.
    places: HashTable<u32>,
    named: Vec<(Arc<str>, V)>,
    /// Where those that were looked ahead for may stand, the next one last.
    ahead: Vec<u32>,
}

impl<V> Default for ByName<V> {
    fn default() -> Self {
        Self { hasher: RandomState::new(), places: HashTable::new(), named: Vec::new(), ahead: Vec::new() }
    }
}

impl<V> ByName<V> {
    pub fn len(&self) -> usize {
        self.named.len()
    }

    pub fn is_empty(&self) -> bool {
        self.named.is_empty()
    }

    /// Whether it is worth while to look ahead.
    pub fn are_many(&self) -> bool {
        self.named.len() >= MANY
    }

    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.named.iter().map(|(_, value)| value)
    }

    /// The name as it is kept, and what it stands for.
    pub fn get(&mut self, name: &str) -> Option<&(Arc<str>, V)> {
        let place = self.place(name)?;
        self.named.get(place)
    }

    pub fn insert(&mut self, name: Arc<str>, value: V) {
        match self.place(&name) {
            Some(place) => self.named[place] = (name, value),
            None => {
                let Self { hasher, places, named, .. } = self;
                let hash = hasher.hash_one(name.as_bytes());
                places.insert_unique(hash, named.len() as u32, |place| {
                    hasher.hash_one(named[*place as usize].0.as_bytes())
                });
                named.push((name, value));
            }
        }
    }

    fn place(&mut self, name: &str) -> Option<usize> {
        let Self { hasher, places, named, ahead } = self;
        let is_it = |place: &u32| named.get(*place as usize).is_some_and(|(known, _)| **known == *name);
        // One that was looked ahead for may not have been asked for.
        let near = ahead.pop().filter(is_it).or_else(|| ahead.pop_if(|place| is_it(place)));
        let place = near.or_else(|| places.find(hasher.hash_one(name.as_bytes()), is_it).copied());
        place.map(|place| place as usize)
    }

    pub fn clear(&mut self) {
        self.places.clear();
        self.named.clear();
        self.ahead.clear();
    }

    /// Finds the first [`GROUP`] of these names at once. They are what [`ByName::get`] is best asked for next, in this order; it finds
    /// every other name as well.
    pub fn look_ahead<'n>(&mut self, names: impl Iterator<Item = &'n [u8]>) {
        if !self.are_many() {
            return;
        }
        let mut seen = 0;
        let mut group: [&[u8]; GROUP] = [&[]; GROUP];
        for (place, name) in group.iter_mut().zip(names) {
            *place = name;
            seen ^= name.first().copied().unwrap_or(0);
        }
        // One step for all of them, then the next: within a step none waits for another.
        let hashes = group.map(|name| self.hasher.hash_one(name));
        // The first that may be it.
        let places = hashes.map(|hash| self.places.find(hash, |_| true).copied().unwrap_or(0));
        for place in places {
            let name = self.named.get(place as usize).and_then(|(name, _)| name.as_bytes().first());
            seen ^= name.copied().unwrap_or(0);
        }
        black_box(seen);
        self.ahead.clear();
        self.ahead.extend(places.into_iter().rev());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_by_name_is_found_by_it_whether_looked_ahead_for_or_not() {
        let mut names = ByName::default();
        let name = |n: usize| format!("site/d{n}/up");
        for n in 0..2 * MANY {
            names.insert(name(n).into(), n);
            let group: Vec<String> = (n.saturating_sub(3)..n + 3).map(name).collect();
            names.look_ahead(group.iter().map(String::as_bytes));
        }
        let value =
            |names: &mut ByName<usize>, name: &str| names.get(name).map(|(known, value)| (known.to_string(), *value));
        for n in 0..2 * MANY {
            assert_eq!(value(&mut names, &name(n)), Some((name(n), n)));
        }
        assert_eq!(value(&mut names, "site/d1"), None);
        // Asked for in their order; one left out, several left out, one between, one twice, one that nobody knows, none of them.
        let group: Vec<String> = (0..GROUP).map(|n| name(n * 7)).collect();
        for asked in
            [&[0, 1, 2, 3][..], &[0, 2, 3], &[4, 5, 6], &[0, 100, 1, 2], &[0, 0, 1], &[0, 9_999, 1], &[500, 501]]
        {
            names.look_ahead(group.iter().map(String::as_bytes));
            for n in asked.iter().map(|n| n * 7) {
                let wanted = (n < 2 * MANY).then(|| (name(n), n));
                assert_eq!(value(&mut names, &name(n)), wanted, "{asked:?}");
            }
        }
        names.look_ahead(group.iter().map(String::as_bytes));
        names.insert(name(7).into(), 0);
        assert_eq!((value(&mut names, &name(7)), names.len()), (Some((name(7), 0)), 2 * MANY));
        names.look_ahead(group.iter().map(String::as_bytes));
        names.clear();
        assert_eq!((value(&mut names, &name(0)), names.is_empty()), (None, true));
    }
}
