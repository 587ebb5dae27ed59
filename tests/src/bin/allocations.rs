//! Counts what decoding allocates, for `make bench BENCH=decode`: a line for each format, with allocations a message and those of the
//! yardstick. A program of its own, since counting slows what is counted.

use anmin_tests::bench::decode::formats;

const MESSAGES: u32 = 10_000;

fn counted(mut once: impl FnMut()) -> f64 {
    let counts = allocation_counter::measure(|| (0..MESSAGES).for_each(|_| once()));
    counts.count_total as f64 / f64::from(MESSAGES)
}

fn main() {
    for mut format in formats() {
        // Whatever grows once has grown.
        format.decode();
        let name = format.name;
        let ours = counted(|| {
            format.decode();
        });
        println!("{name}\t{ours}\t{}", counted(|| format.parse()));
    }
}
