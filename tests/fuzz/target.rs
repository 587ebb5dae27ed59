//! Every target of `Cargo.toml`: a program reads what its name says.
#![no_main]

use anmin_tests::fuzz::{Target, named};
use libfuzzer_sys::{Corpus, fuzz_target};

const TARGET: Target = named(env!("CARGO_BIN_NAME"));

fuzz_target!(init: anmin_fuzz::prepare(&TARGET), |bytes: &[u8]| -> Corpus { anmin_fuzz::feed(&TARGET, bytes) });
