//! `make bench`: figures beside yardsticks. With names as arguments only those parts.

use anmin_tests::bench::yardstick::{self, Work};
use anmin_tests::bench::{
    call, decode, desk, durable, latency, modbus, office, page, panels, plan, rules, size, throughput,
};

/// A name and what it prints.
type Part = (&'static str, fn());

const PARTS: [Part; 16] = [
    ("mosquitto", throughput::through_mosquitto),
    ("embedded", throughput::embedded),
    ("watched", throughput::watched),
    ("latency", latency::run),
    ("call", call::run),
    ("durable", durable::run),
    ("search", durable::search),
    ("rules", rules::run),
    ("decode", decode::run),
    ("plan", plan::run),
    ("modbus", modbus::run),
    ("office", office::run),
    ("panels", panels::run),
    ("desk", desk::run),
    ("page", page::run),
    ("size", size::run),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [word, port, qos, work, count] = &arguments[..]
        && word == "yardstick"
    {
        let number = |text: &str| text.parse::<u64>().expect("a number");
        return yardstick::run(number(port) as u16, number(qos) as u8, Work::named(work), number(count));
    }
    if let [word, port, count] = &arguments[..]
        && let (Ok(port), Ok(count)) = (port.parse(), count.parse())
    {
        match word.as_str() {
            panels::LOAD => return panels::load(port, count),
            panels::YARDSTICK => return panels::yardstick(port),
            desk::SCREENS_LOOK => return desk::look(port, count),
            _ => {}
        }
    }
    for name in &arguments {
        if PARTS.iter().all(|(part, _)| part != name) {
            let known: Vec<&str> = PARTS.iter().map(|(part, _)| *part).collect();
            eprintln!("there is no part {name:?}; there are {}", known.join(", "));
            std::process::exit(2);
        }
    }
    for (name, run) in PARTS {
        if arguments.is_empty() || arguments.iter().any(|wanted| wanted == name) {
            run();
        }
    }
}
