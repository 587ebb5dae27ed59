//! From the publish of a reading that crosses its limit to the alarm message about it, at even rates.

use std::time::Duration;

use super::load::{CROSSINGS, Latencies, Load, paced};
use super::subject::{Broker, Shape, Subject};
use super::yardstick::Work;
use super::{median, quantile};

const DEVICES: u32 = 1_000;
const ROUNDS: usize = 3;
const LENGTH: Duration = Duration::from_secs(8);
const SHARES: [f64; 3] = [0.5, 0.99, 0.999];

fn load(port: u16) -> Load {
    Load { port, qos: 1, devices: DEVICES, connections: 1 }
}

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
        "\nAlarm latency in ms, QoS 1, {DEVICES} devices, {CROSSINGS} a second cross; {ROUNDS} rounds of {LENGTH:?}, medians"
    );
    println!("{:<10}{:<26}{:>10}{:>10}{:>10}{:>22}", "readings/s", "subject", "p50", "p99", "p99.9", "alarms seen");
    for rate in [1_000, 10_000] {
        let [mut smallest, mut safe, mut anmin] = [const { Vec::new() }; 3];
        for _ in 0..ROUNDS {
            for (work, rounds) in [(Work::Alarm, &mut smallest), (Work::SafeAlarm, &mut safe)] {
                let broker = Broker::start();
                let _subject = Subject::yardstick(broker.port, 1, work, u64::MAX);
                rounds.push(paced(load(broker.port), rate, LENGTH, "yardstick/alarm/#"));
            }
            let broker = Broker::start();
            let _subject = Subject::anmin(Shape { rules: 1, devices: DEVICES, broker: Some(broker.port), qos: 1 });
            anmin.push(paced(load(broker.port), rate, LENGTH, "anmin/v1/acceptance/alarm/#"));
        }
        let against = Some(quantiles(&smallest));
        line(rate, "smallest loop, Mosquitto", &smallest, None);
        line(rate, "the same, alarm synced", &safe, against);
        line(rate, "anmin, Mosquitto", &anmin, against);
    }
    for rate in [1_000, 10_000, 50_000] {
        let rounds: Vec<Latencies> = (0..ROUNDS)
            .map(|_| {
                let subject = Subject::anmin(Shape { rules: 1, devices: DEVICES, broker: None, qos: 1 });
                let port = subject.daemon().and_then(|daemon| daemon.broker).expect("it has a broker").port();
                paced(load(port), rate, LENGTH, "anmin/v1/acceptance/alarm/#")
            })
            .collect();
        line(rate, "anmin, embedded broker", &rounds, None);
    }
    println!("a journal that is safe before anybody hears of it costs at least what the second line says");
    println!("wanted: p50 at most 1.30 and p99 at most 1.50 times the loop's through Mosquitto at 1,000 and 10,000/s");
}
