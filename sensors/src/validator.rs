//! Readings to samples: range, jump, stuck, silent, clock skew, duplicates.
