//! Figures, each beside a yardstick that ran in the same minutes on the same machine: `make bench`.
//!
//! Machines differ and are shared, so read the ratios. Subject, yardstick and load are processes of their own; each says
//! what it did and how much CPU it used itself. A round runs all subjects in turn, rounds repeat, medians are printed.

pub mod call;
pub mod decode;
pub mod desk;
pub mod durable;
pub mod latency;
pub mod load;
pub mod modbus;
pub mod office;
pub mod page;
pub mod panels;
pub mod plan;
pub mod rules;
pub mod size;
pub mod subject;
pub mod throughput;
pub mod yardstick;

/// The middle of some figures.
pub fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    match figures.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => figures[n / 2],
        n => f64::midpoint(figures[n / 2 - 1], figures[n / 2]),
    }
}

/// The value below which `share` of the sorted figures lie.
pub fn quantile(sorted: &[f64], share: f64) -> f64 {
    if sorted.is_empty() {
        return f64::NAN;
    }
    sorted[((sorted.len() - 1) as f64 * share).round() as usize]
}

/// User and system time of a process so far, in seconds.
pub fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // Behind the name, which may hold anything, the 12th and 13th fields are ticks of 1/100 s.
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks = |n: usize| fields.get(n).and_then(|ticks| ticks.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}
