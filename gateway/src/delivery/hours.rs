//! When the people behind a way out are to be told, and what is told them at any hour.
//!
//! ```toml
//! [[notice]]
//! id          = "property-office"
//! always_from = "red"                 # at any hour; or "never"
//!   [[notice.hours]]
//!   from = "08:00"
//!   to   = "18:00"
//!   days = ["mon", "tue", "wed", "thu", "fri"]
//! ```
//!
//! What comes outside of the hours is kept and goes together when they begin, like whatever waits for the pace of a way out.

use std::time::Duration;

use anmin_rules::duty::{Shift, Zone, begins_in};
use anmin_rules::rule::Level;
use anmin_sensors::document::Reader;
use anmin_sensors::time::Wall;

use crate::config::stations;

/// The hours of one way out; none written means all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hours {
    shifts: Vec<Shift>,
    /// From this level on no hour matters; `None`: every hour does.
    always_from: Option<Level>,
}

/// Outside of the hours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quiet {
    /// How long it lasts.
    pub wait: Duration,
    /// What goes all the same.
    pub but_from: Option<Level>,
}

impl Hours {
    pub fn read(r: &Reader<'_>) -> Self {
        let always = [
            ("red", Some(Level::Red)),
            ("orange", Some(Level::Orange)),
            ("yellow", Some(Level::Yellow)),
            ("never", None),
        ];
        let shifts: Vec<Shift> = r.tables("hours").iter().filter_map(stations::hours).collect();
        if r.has("always_from") && shifts.is_empty() {
            r.fault("always_from", "`always_from` is given, but no `hours`: everything goes at any hour", None);
        }
        Self { shifts, always_from: r.choice("always_from", &always).unwrap_or(Some(Level::Red)) }
    }

    /// Whether people are not to be disturbed now, and how long.
    pub fn quiet_at(&self, zone: &Zone, at: Wall) -> Option<Quiet> {
        if self.shifts.is_empty() {
            return None;
        }
        // Hours that never begin hold nothing back for ever: it is looked at again every day.
        let wait = begins_in(&self.shifts, zone, at).unwrap_or(Duration::from_secs(86_400));
        (!wait.is_zero()).then_some(Quiet { wait, but_from: self.always_from })
    }
}

#[cfg(test)]
mod tests {
    use anmin_sensors::document::{Document, Faults};

    use super::*;

    fn read(text: &str) -> Result<Hours, Vec<String>> {
        let faults = Faults::default();
        let document = Document::parse("t.toml", text, &faults).expect("TOML");
        let root = document.root(&faults);
        let hours = Hours::read(&root);
        root.finish();
        let found = faults.take();
        if found.is_empty() { Ok(hours) } else { Err(found.iter().map(ToString::to_string).collect()) }
    }

    #[test]
    fn outside_of_the_hours_only_what_is_grave_is_told() {
        let day = "[[hours]]\nfrom = '08:00'\nto = '18:00'\ndays = ['mon', 'tue', 'wed', 'thu', 'fri']\n";
        let night = "[[hours]]\nfrom = '22:00'\nto = '06:00'\n";
        // Monday, 2 March 2026, in a zone two hours ahead.
        let zone = Zone::new(|_| 7_200);
        let at = |days: u64, hour: u64, minute: u64| {
            let midnight = Wall::from_micros(1_772_409_600_000_000 - 7_200_000_000);
            midnight.plus(Duration::from_secs(days * 86_400 + hour * 3_600 + minute * 60))
        };
        let hours = |n: u64| Duration::from_secs(n * 3_600);
        for (text, when, wait) in [
            (String::new(), at(0, 3, 0), None),
            (day.to_owned(), at(0, 7, 30), Some(hours(1) / 2)),
            (day.to_owned(), at(0, 8, 0), None),
            (day.to_owned(), at(0, 17, 59), None),
            (day.to_owned(), at(0, 18, 0), Some(hours(14))),
            // From Friday evening to Monday morning.
            (day.to_owned(), at(4, 18, 0), Some(hours(6 + 48 + 8))),
            (night.to_owned(), at(0, 23, 0), None),
            (night.to_owned(), at(0, 5, 59), None),
            (night.to_owned(), at(0, 6, 0), Some(hours(16))),
            (format!("{day}{night}"), at(0, 19, 0), Some(hours(3))),
        ] {
            let quiet = read(&text).expect("sound").quiet_at(&zone, when);
            assert_eq!(quiet, wait.map(|wait| Quiet { wait, but_from: Some(Level::Red) }), "{text} at {when:?}");
        }
        let strict = read(&format!("always_from = 'never'\n{day}")).expect("sound").quiet_at(&zone, at(0, 7, 0));
        assert_eq!(strict, Some(Quiet { wait: hours(1), but_from: None }));
    }

    #[test]
    fn hours_that_say_nothing_are_told() {
        for (text, wanted) in [
            ("always_from = 'red'", "but no `hours`"),
            ("[[hours]]\nfrom = '8'\nto = '18:00'", "expected a time of day"),
            ("[[hours]]\nfrom = '08:00'", "`hours[0].to` is missing"),
            ("[[hours]]\nfrom = '08:00'\nto = '18:00'\ndays = ['monday']", "expected one of mon, tue"),
        ] {
            let found = read(text).expect_err(text).join("\n");
            assert!(found.contains(wanted), "{text}: {found}");
        }
    }
}
