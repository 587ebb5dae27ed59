//! From the publish of a reading that crosses its limit to the alarm message about it, at even rates.

use std::time::Duration;

use super::load::{CROSSINGS, Latencies, Load, paced};
use super::subject::{Broker, Shape, Subject};
use super::yardstick::Work;
use super::{median, quantile};

const ROUNDS: usize = 3;
const LENGTH: Duration = Duration::from_secs(8);
const SHARES: [f64; 3] = [0.5, 0.99, 0.999];

fn quantiles(rounds: &[Latencies]) -> [f64; 3] {
    SHARES.map(|share| median(rounds.iter().map(|round| quantile(&round.ms, share)).collect()))
}

fn line(rate: u64, name: &str, rounds: &[Latencies], against: Option<[f64; 3]>) {
    let figures = quantiles(rounds);
    let (seen, crossed) = rounds.iter().fold((0, 0), |(a, b), round| (a + round.ms.len(), b + round.crossed));
    print!("{rate:<10}{name:<26}");
    figures.iter().for_each(|ms| print!("{ms:>10.2}"));
    print!("{seen:>10} of {crossed:<8}");
    if let Some(against) = against {
        print!("  p50 {:.2}, p99 {:.2} times the loop's", figures[0] / against[0], figures[1] / against[1]);
    }
    println!();
}

/// Through Mosquitto beside the smallest loop, and through the embedded broker.
pub fn run() {
    println!(
        "\nAlarm latency in ms, QoS 1, 1,000 devices, {CROSSINGS} a second cross; {ROUNDS} rounds of {LENGTH:?}, medians"
    );
    println!("{:<10}{:<26}{:>10}{:>10}{:>10}{:>22}", "readings/s", "subject", "p50", "p99", "p99.9", "alarms seen");
    for rate in [1_000, 10_000] {
        let (mut smallest, mut anmin) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let broker = Broker::start();
            let load = Load { port: broker.port, qos: 1, devices: 1_000, connections: 1 };
            let subject = Subject::yardstick(broker.port, 1, Work::Alarm, u64::MAX);
            smallest.push(paced(load, rate, LENGTH, "yardstick/alarm/#"));
            drop((subject, broker));

            let broker = Broker::start();
            let load = Load { port: broker.port, ..load };
            let subject = Subject::anmin(Shape { rules: 1, devices: 1_000, broker: Some(broker.port), qos: 1 });
            anmin.push(paced(load, rate, LENGTH, "anmin/v1/acceptance/alarm/#"));
            drop((subject, broker));
        }
        line(rate, "smallest loop, Mosquitto", &smallest, None);
        line(rate, "anmin, Mosquitto", &anmin, Some(quantiles(&smallest)));
    }
    for rate in [1_000, 10_000, 50_000] {
        let rounds: Vec<Latencies> = (0..ROUNDS)
            .map(|_| {
                let subject = Subject::anmin(Shape { rules: 1, devices: 1_000, broker: None, qos: 1 });
                let port = subject.daemon().and_then(|daemon| daemon.broker).expect("it has a broker").port();
                paced(
                    Load { port, qos: 1, devices: 1_000, connections: 1 },
                    rate,
                    LENGTH,
                    "anmin/v1/acceptance/alarm/#",
                )
            })
            .collect();
        line(rate, "anmin, embedded broker", &rounds, None);
    }
    println!("wanted: p50 at most 1.30 and p99 at most 1.50 times the loop's through Mosquitto at 1,000 and 10,000/s");
}
