//! How anmin speaks to its operator: the log, and the figures at `/metrics`.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::time::Duration;

use anmin_sensors::time::Mono;

/// Starts the log on standard error. `RUST_LOG` or `filter` chooses what is said; colours only on a terminal.
pub fn start_log(filter: &str) {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(filter));
    let started = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .try_init();
    if started.is_err() {
        // A second start in one process (tests) keeps the first log.
        tracing::debug!("the log runs already");
    }
}

/// Text from outside, made fit for one line of the log: escaped, at most 256 characters.
pub fn quoted(text: &str) -> String {
    let short: String = text.chars().take(256).collect();
    if short.len() < text.len() { format!("{short:?}…") } else { format!("{short:?}") }
}

/// Keeps a repeated fault from filling the log: says it at once, then at most once a minute with the number in between.
#[derive(Debug, Default)]
pub struct Repeats {
    seen: HashMap<String, (Mono, u64)>,
}

impl Repeats {
    const EVERY: Duration = Duration::from_secs(60);
    /// Bound of remembered faults; when reached the memory starts again, at worst some lines are said twice.
    const MOST: usize = 1_000;

    /// `Some(n)`: say it now, `n` more were kept back since it was last said. `None`: keep it back.
    pub fn say(&mut self, key: &str, now: Mono) -> Option<u64> {
        if let Some((last, held)) = self.seen.get_mut(key) {
            if now.since(*last) < Self::EVERY {
                *held += 1;
                return None;
            }
            *last = now;
            return Some(std::mem::take(held));
        }
        if self.seen.len() >= Self::MOST {
            self.seen.clear();
        }
        self.seen.insert(key.to_owned(), (now, 0));
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_fault_is_said_once_a_minute_with_its_count() {
        let mut repeats = Repeats::default();
        let at = |seconds: u64| Mono::default().plus(Duration::from_secs(seconds));
        let said: Vec<Option<u64>> = [0, 1, 2, 59, 60, 61, 200].map(|s| repeats.say("broker", at(s))).to_vec();
        assert_eq!(said, [Some(0), None, None, None, Some(3), None, Some(1)]);
        assert_eq!(repeats.say("other", at(61)), Some(0));
    }

    #[test]
    fn text_from_outside_stays_on_its_line() {
        assert_eq!(quoted("a\nb\u{1b}[31m"), "\"a\\nb\\u{1b}[31m\"");
        assert!(quoted(&"长".repeat(1_000)).chars().count() < 300);
    }
}
