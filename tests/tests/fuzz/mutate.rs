//! Inputs that nobody meant to write: seeds with bytes, numbers, lines and pieces of other seeds changed.

use anmin::sim::scenario::mix;
use anmin_tests::fuzz::WORDS;

/// Chance that can be repeated.
pub struct Dice(u64, u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed, 0)
    }

    /// Below `end`; 0 where that is 0.
    pub fn below(&mut self, end: usize) -> usize {
        self.1 += 1;
        (mix(self.0, self.1) % end.max(1) as u64) as usize
    }
}

/// One to eight changes.
pub fn mutate(dice: &mut Dice, seed: &[u8], other: &[u8], longest: usize) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=dice.below(3) * dice.below(4) {
        change(dice, &mut bytes, other);
    }
    bytes.truncate(longest);
    bytes
}

fn range(dice: &mut Dice, length: usize, longest: usize) -> std::ops::Range<usize> {
    let from = dice.below(length);
    from..(from + 1 + dice.below(longest)).min(length)
}

fn change(dice: &mut Dice, bytes: &mut Vec<u8>, other: &[u8]) {
    if bytes.is_empty() {
        bytes.extend_from_slice(other);
        return;
    }
    let at = dice.below(bytes.len());
    match dice.below(11) {
        0 => bytes[at] ^= 1 << dice.below(8),
        1 => bytes[at] = dice.below(256) as u8,
        2 => bytes.insert(at, dice.below(256) as u8),
        3 => drop(bytes.drain(range(dice, bytes.len(), 64))),
        4 => {
            let twice = bytes[range(dice, bytes.len(), 256)].to_vec();
            let times = 1 + dice.below(4) * dice.below(8);
            let many = twice.repeat(times);
            bytes.splice(at..at, many);
        }
        5 | 6 => {
            let word = WORDS[dice.below(WORDS.len())].bytes();
            match numbers(bytes) {
                found if dice.below(4) > 0 && !found.is_empty() => {
                    let number = found[dice.below(found.len())].clone();
                    bytes.splice(number, word);
                }
                _ => drop(bytes.splice(at..at, word)),
            }
        }
        7 => {
            let piece = if other.is_empty() { &[] } else { &other[range(dice, other.len(), 512)] };
            bytes.splice(at..at, piece.iter().copied());
        }
        8 => bytes.truncate(at),
        _ => lines(dice, bytes, other),
    }
}

/// Where numbers stand in a text.
fn numbers(bytes: &[u8]) -> Vec<std::ops::Range<usize>> {
    let is_digit = |at: usize| bytes[at].is_ascii_digit() || bytes[at] == b'.';
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let from = at;
        while at < bytes.len() && is_digit(at) {
            at += 1;
        }
        if at > from {
            found.push(from..at);
        }
        at += 1;
    }
    found
}

/// Takes a line away, says it twice, puts it elsewhere, or takes one of another seed: what stays readable goes deeper.
fn lines(dice: &mut Dice, bytes: &mut Vec<u8>, other: &[u8]) {
    let mut all: Vec<Vec<u8>> = bytes.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    let (from, to) = (dice.below(all.len()), dice.below(all.len()));
    match dice.below(4) {
        0 => drop(all.remove(from)),
        1 => all.insert(to, all[from].clone()),
        2 => all.swap(from, to),
        _ => {
            let theirs: Vec<&[u8]> = other.split(|byte| *byte == b'\n').collect();
            all.insert(to, theirs[dice.below(theirs.len())].to_vec());
        }
    }
    *bytes = all.join(&b'\n');
}
