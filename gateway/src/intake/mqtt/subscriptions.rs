//! Which topics are subscribed to, filter by filter.
//!
//! One SUBSCRIBE at a time, and the next when its SUBACK has come: rumqttc numbers packets within a small window, so that
//! two at once could be confused. What the broker refuses is asked for again now and then, since somebody may have mended
//! its access list.

use std::time::Duration;

use anmin_sensors::time::Mono;
use rumqttc::QoS;

/// What a broker said to one filter.
pub type Answer = Result<QoS, Refused>;

/// A reason code of SUBACK, and its name in the standard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    pub code: u8,
    pub words: &'static str,
}

/// The number of answers is not that of the filters.
#[derive(Debug, PartialEq, Eq)]
pub struct Mismatch;

#[derive(Debug)]
pub struct Subscriptions {
    filters: Vec<Filter>,
    /// Those of the SUBSCRIBE under way.
    asked: Vec<usize>,
    retry_at: Option<Mono>,
}

#[derive(Debug)]
struct Filter {
    path: String,
    qos: QoS,
    standing: Standing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Not known, or no longer.
    Open,
    Granted,
    Refused(Refused),
}

impl Subscriptions {
    /// Filters in one SUBSCRIBE, and their bytes unless one alone is longer.
    const MOST: usize = 64;
    const MOST_BYTES: usize = 16 * 1_024;
    /// What was refused is asked for again after so long.
    const RETRY: Duration = Duration::from_secs(60);

    /// QoS 2 counts as 1: readings are recognised when they come twice, and rumqttc does not remember over a reconnect
    /// which QoS 2 messages it has taken.
    pub fn new(filters: impl IntoIterator<Item = (String, QoS)>) -> Self {
        let filters = filters.into_iter().map(|(path, qos)| Filter {
            path,
            qos: if qos == QoS::AtMostOnce { qos } else { QoS::AtLeastOnce },
            standing: Standing::Open,
        });
        Self { filters: filters.collect(), asked: Vec::new(), retry_at: None }
    }

    /// A connection stands. Without a session the broker knows of no subscription; with one it knows those that were
    /// granted since we started. What an earlier start granted may have been something else.
    pub fn handle_connected(&mut self, session_present: bool) {
        self.asked.clear();
        self.retry_at = None;
        for filter in &mut self.filters {
            if !session_present || filter.standing != Standing::Granted {
                filter.standing = Standing::Open;
            }
        }
    }

    /// What to subscribe to now: empty while an answer is awaited, and when nothing is open.
    pub fn poll_request(&mut self, now: Mono) -> Vec<(String, QoS)> {
        if !self.asked.is_empty() {
            return Vec::new();
        }
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            for filter in &mut self.filters {
                if matches!(filter.standing, Standing::Refused(_)) {
                    filter.standing = Standing::Open;
                }
            }
        }
        let mut bytes = 0;
        let open = self.filters.iter().enumerate().filter(|(_, filter)| filter.standing == Standing::Open);
        let some = open.take(Self::MOST).take_while(|(_, filter)| {
            let is_first = bytes == 0;
            bytes += filter.path.len() + 3;
            is_first || bytes <= Self::MOST_BYTES
        });
        self.asked = some.map(|(n, _)| n).collect();
        self.asked.iter().map(|n| (self.filters[*n].path.clone(), self.filters[*n].qos)).collect()
    }

    /// The answers to the last request, in its order. Gives the filters whose QoS was lowered.
    pub fn handle_answers(&mut self, now: Mono, answers: &[Answer]) -> Result<Vec<&str>, Mismatch> {
        if answers.len() != self.asked.len() {
            return Err(Mismatch);
        }
        let asked = std::mem::take(&mut self.asked);
        for (n, answer) in asked.iter().zip(answers) {
            self.filters[*n].standing = match answer {
                Ok(_) => Standing::Granted,
                Err(refused) => {
                    self.retry_at = Some(now.plus(Self::RETRY));
                    Standing::Refused(*refused)
                }
            };
        }
        let lowered = asked
            .iter()
            .zip(answers)
            .filter(|(n, answer)| answer.as_ref().is_ok_and(|granted| (*granted as u8) < self.filters[**n].qos as u8));
        Ok(lowered.map(|(n, _)| self.filters[*n].path.as_str()).collect())
    }

    /// When [`Subscriptions::poll_request`] has something to ask again.
    pub fn poll_timeout(&self) -> Option<Mono> {
        self.retry_at
    }

    /// How many filters are granted, once the broker has answered to all.
    pub fn granted(&self) -> Option<usize> {
        let all_answered = self.filters.iter().all(|filter| filter.standing != Standing::Open);
        all_answered.then(|| self.filters.iter().filter(|filter| filter.standing == Standing::Granted).count())
    }

    /// The first filter that is refused, why, and how many others are.
    pub fn refused(&self) -> Option<(&str, Refused, usize)> {
        let mut refused = self.filters.iter().filter_map(|filter| match filter.standing {
            Standing::Refused(why) => Some((filter.path.as_str(), why)),
            _ => None,
        });
        let (path, why) = refused.next()?;
        Some((path, why, refused.count()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Mono {
        Mono::default().plus(Duration::from_secs(seconds))
    }

    fn site(filters: &[&str]) -> Subscriptions {
        Subscriptions::new(filters.iter().map(|path| ((*path).to_owned(), QoS::ExactlyOnce)))
    }

    fn asks(subscriptions: &mut Subscriptions, second: u64) -> Vec<String> {
        subscriptions
            .poll_request(at(second))
            .into_iter()
            .map(|(path, qos)| {
                assert_eq!(qos, QoS::AtLeastOnce);
                path
            })
            .collect()
    }

    const GRANTED: Answer = Ok(QoS::AtLeastOnce);
    const DENIED: Answer = Err(Refused { code: 0x87, words: "not authorized" });

    #[test]
    fn one_request_at_a_time_and_only_what_the_broker_does_not_know() {
        let mut site = site(&["a/#", "b/#", "c/#"]);
        site.handle_connected(true);
        assert_eq!(asks(&mut site, 0), ["a/#", "b/#", "c/#"], "an old session may have other filters");
        assert_eq!(asks(&mut site, 0), Vec::<String>::new());
        assert_eq!(site.handle_answers(at(1), &[GRANTED, DENIED]), Err(Mismatch));
        assert_eq!(site.handle_answers(at(1), &[GRANTED, DENIED, Ok(QoS::AtMostOnce)]), Ok(vec!["c/#"]));
        assert_eq!(site.refused(), Some(("b/#", Refused { code: 0x87, words: "not authorized" }, 0)));
        assert_eq!((asks(&mut site, 60), site.poll_timeout()), (vec![], Some(at(61))));
        assert_eq!(asks(&mut site, 61), ["b/#"]);
        // The connection breaks before the answer.
        site.handle_connected(true);
        assert_eq!(asks(&mut site, 62), ["b/#"]);
        assert_eq!(site.handle_answers(at(63), &[GRANTED]), Ok(vec![]));
        assert_eq!((site.refused(), site.poll_timeout(), site.granted()), (None, None, Some(3)));
        assert_eq!(asks(&mut site, 999), Vec::<String>::new());
        site.handle_connected(true);
        assert_eq!(asks(&mut site, 1_000), Vec::<String>::new());
        site.handle_connected(false);
        assert_eq!(site.granted(), None);
        assert_eq!(asks(&mut site, 1_001), ["a/#", "b/#", "c/#"]);
    }

    #[test]
    fn many_filters_go_in_several_requests() {
        let long = "x".repeat(9 * 1_024);
        let mut filters = vec![long.as_str(); 3];
        filters.extend(["a"; 100]);
        let mut site = site(&filters);
        site.handle_connected(false);
        let mut sizes = Vec::new();
        loop {
            let asked = asks(&mut site, 0);
            if asked.is_empty() {
                break;
            }
            sizes.push(asked.len());
            site.handle_answers(at(0), &vec![GRANTED; asked.len()]).expect("as many answers as filters");
        }
        assert_eq!(sizes, [1, 1, 64, 37]);
    }
}
