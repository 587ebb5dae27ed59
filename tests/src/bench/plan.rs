//! What the schedule of a full bus makes of 200 units: how many requests, how long a cycle, and what planning costs.
//!
//! No wire: time is counted, not waited for, by what a frame takes on a serial line at 9600 baud (11 bits a character, silence of 3.5
//! characters before and after, 10 ms for the unit) or behind a gateway that answers in 3 ms. The yardstick asks for every point
//! by itself, one after another, as simple pollers do.

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anmin_sensors::decode::modbus::Table;
use anmin_sensors::point::{DeviceId, Place, PointIx, Points};
use anmin_sensors::poll::{Answer, Next, Poller, Request, Timing, UnitPlan};
use anmin_sensors::profile::Profiles;
use anmin_sensors::time::{Mono, Now, Wall};

use super::quantile;

const UNITS: u8 = 200;
/// Cycles that are played.
const CYCLES: u32 = 20;
/// Points beside their unit, registers beside their profile: what sites have most of.
const PROFILES: [&str; 4] =
    ["generic-electrical-fire-8ch", "eastron-sdm630", "yaoan-ya-k300", "generic-dry-contact-8ch"];

#[derive(Clone, Copy, Debug)]
enum Line {
    Serial,
    Gateway,
}

impl Line {
    fn takes(self, request: Request) -> Duration {
        let data =
            if request.table.is_bits() { u32::from(request.count).div_ceil(8) } else { u32::from(request.count) * 2 };
        match self {
            Self::Serial => {
                Duration::from_secs_f64(f64::from((8 + 5 + data + 7) * 11) / 9_600.0) + Duration::from_millis(10)
            }
            Self::Gateway => Duration::from_millis(3),
        }
    }
}

fn plans(profile: &str) -> (Vec<UnitPlan>, Points, Duration) {
    let profiles = Profiles::shipped();
    let profile = profiles.get(profile).unwrap_or_else(|| panic!("{profile} is shipped"));
    let modbus = profile.modbus.as_ref().expect("it speaks Modbus");
    let mut points = Points::default();
    let place = Arc::new(Place::default());
    let devices: Vec<_> = (1..=UNITS)
        .map(|unit| {
            let id = DeviceId::new(format!("u{unit}"));
            (unit, points.add(id, None, &profile.id, &place, profile.specs()).expect("units differ"))
        })
        .collect();
    let began = Instant::now();
    let plans: Vec<UnitPlan> = devices
        .into_iter()
        .map(|(unit, device)| {
            let mut plan = UnitPlan::new(unit, modbus, &points, device);
            // As fast as it goes.
            plan.interval = Duration::from_millis(1);
            plan
        })
        .collect();
    let timing = Timing {
        timeout: Duration::from_secs(1),
        retries: 1,
        late_window: Duration::ZERO,
        repeat_window: Duration::ZERO,
    };
    black_box(Poller::new(timing, plans.clone(), Mono::default()));
    let planned = began.elapsed();
    (plans, points, planned)
}

/// Seconds between two readings of each point, sorted, and nanoseconds that the schedule took a request.
fn play(plans: &[UnitPlan], line: Line, length: Duration) -> (Vec<f64>, f64) {
    let timing = Timing {
        timeout: Duration::from_secs(1),
        retries: 1,
        late_window: Duration::ZERO,
        repeat_window: Duration::ZERO,
    };
    let mut poller = Poller::new(timing, plans.to_vec(), Mono::default());
    let (mut now, mut took, mut requests) = (Mono::default(), Duration::ZERO, 0_u32);
    let (mut last, mut cycles, mut out) = (HashMap::<PointIx, Mono>::new(), Vec::new(), Vec::new());
    let (words, bits) = ([0_u16; 125], [false; 2_000]);
    while now.since(Mono::default()) < length {
        let began = Instant::now();
        let next = poller.poll_request(now);
        took += began.elapsed();
        let ask = match next {
            Next::Ask(ask) => ask,
            Next::Wait(Some(at)) => {
                now = at;
                continue;
            }
            Next::Wait(None) => panic!("there is always something to ask"),
        };
        now = now.plus(line.takes(ask.request));
        let count = usize::from(ask.request.count);
        let answer = match ask.request.table.is_bits() {
            true => Answer::Bits(&bits[..count.next_multiple_of(8)]),
            false => Answer::Words(&words[..count]),
        };
        let began = Instant::now();
        poller.handle_answer(ask.ticket, Ok(answer), Now { mono: now, wall: Wall::default() }, &mut out);
        took += began.elapsed();
        requests += 1;
        for reading in out.drain(..) {
            if let Some(before) = last.insert(reading.point, now) {
                cycles.push(now.since(before).as_secs_f64());
            }
        }
    }
    cycles.sort_by(f64::total_cmp);
    (cycles, took.as_nanos() as f64 / f64::from(requests.max(1)))
}

/// Prints a line for each profile and line.
pub fn run() {
    println!("\nBus plan: {UNITS} units on one bus, in seconds by what frames take; as fast as the bus goes");
    println!(
        "{:<30}{:<9}{:>9}{:>10}{:>9}{:>9}{:>9}{:>10}{:>9}{:>13}{:>12}",
        "profile", "line", "points", "requests", "cycle", "p50", "p99", "one each", "times", "planned in", "ns/request"
    );
    for profile in PROFILES {
        for line in [Line::Serial, Line::Gateway] {
            let (plans, points, planned) = plans(profile);
            let requests: Vec<Request> = plans.iter().flat_map(UnitPlan::requests).collect();
            let cycle: Duration = requests.iter().map(|request| line.takes(*request)).sum();
            // Each point by itself; of none more than two registers, so this errs to the yardstick's side.
            let one = Request { table: Table::Holding, address: 0, count: 1 };
            let one_each = line.takes(one) * points.len() as u32;
            let (cycles, nanos) = play(&plans, line, cycle * CYCLES);
            let [p50, p99] = [0.5, 0.99].map(|share| quantile(&cycles, share));
            println!(
                "{profile:<30}{:<9}{:>9}{:>10}{:>9.2}{p50:>9.2}{p99:>9.2}{:>10.2}{:>9.1}{:>10.2} ms{nanos:>12.0}",
                match line {
                    Line::Serial => "9600 Bd",
                    Line::Gateway => "gateway",
                },
                points.len(),
                requests.len(),
                cycle.as_secs_f64(),
                one_each.as_secs_f64(),
                one_each.as_secs_f64() / cycle.as_secs_f64(),
                planned.as_secs_f64() * 1e3,
            );
        }
    }
}
