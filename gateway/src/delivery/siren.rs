//! Sirens and speakers of the site: a relay that an `[[output]]` switches, or a device that takes a word over MQTT.
//!
//! What a siren is to do follows from all alarms together ([`Wanted`]); an order only says that it is time to look, and its receipt
//! what was made so. So an order that comes late, twice or out of turn never makes it wrong: on is on.
//!
//! - A relay counts as switched when it shows it; a device over MQTT when the broker has acknowledged the word.
//! - One that cannot be switched is tried again every few seconds until it is: what must end is as urgent as what must begin.
//! - While it sounds it is told so again every ten seconds, so that one which lost its power meanwhile sounds again.
//! - It ends by itself when its time is up, whatever the main loop does.
//! - At the start of anmin it is made right: on where an alarm wants it, off where none does. That a relay is off is said once more
//!   a little later, in case an earlier word reached it late; then anmin leaves it alone, so that others may sound it. A device over
//!   MQTT is told for ten minutes, since it may not have heard the first word.
//! - What a person does with the output by hand stands until the next order.
//!
//! ```toml
//! [[siren]]
//! id        = "b1-horn"
//! output    = "b1-horn"            # an [[output]]; or: mqtt_out = "site", topic = "...", payload_on = "ON", payload_off = "OFF"
//! min_level = "red"
//! classes   = ["fire", "gas"]
//! for       = "3m"                 # the longest it sounds for one alarm
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anmin_rules::order::{Channel, ChannelForm, Order, OrderBody};
use anmin_rules::rule::Level;
use anmin_sensors::document::Reader;
use anmin_sensors::point::Hazard;
use anmin_sensors::time::Mono;
use bytes::Bytes;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::warn;

use super::mqtt_out::Lines;
use super::{Carrier, DeliveryError, Receipt, Site, read_id, read_scope, read_spares};
use crate::clock::Clock;
use crate::output::{Action, Later, Refused, Switch};
use crate::telemetry::Repeats;

/// Which sirens are to sound, by their ids, and until when.
pub type Sounding = Arc<BTreeMap<Arc<str>, Mono>>;

/// What is wanted now; `None` until the main loop has taken up its journal.
pub type Wanted = watch::Receiver<Option<Sounding>>;

const FOR_RANGE: std::ops::RangeInclusive<Duration> = Duration::from_secs(5)..=Duration::from_secs(3_600);
const USUALLY_FOR: Duration = Duration::from_secs(180);
/// A siren that has not been switched in so long is late, where the site does not say.
const SWITCHED_WITHIN: Duration = Duration::from_secs(15);
/// What could not be switched is tried again after so long.
const AGAIN_AFTER: Duration = Duration::from_secs(3);
/// One that sounds is told so again.
const TOLD_AGAIN: Duration = Duration::from_secs(10);
/// That it is off is told again for so long: to a relay that shows it, and to one that only hears a word.
const OFF_SHOWN_FOR: Duration = Duration::from_secs(15);
const OFF_TOLD_FOR: Duration = Duration::from_secs(600);
/// For the first look at what is wanted.
const KNOWN_WITHIN: Duration = Duration::from_secs(10);
const LONG: Duration = Duration::from_secs(3_600);

/// `[[siren]]`.
#[derive(Clone, Debug)]
pub struct Settings {
    pub channel: Channel,
    deliver_within: Duration,
    to: To,
}

#[derive(Clone, Debug)]
enum To {
    /// Id of an `[[output]]`.
    Output(String),
    Mqtt(Word),
}

/// What is said over MQTT.
#[derive(Clone, Debug)]
struct Word {
    /// Id of an `[[mqtt_out]]`.
    line: String,
    topic: String,
    on: String,
    off: String,
    retain: bool,
}

impl Settings {
    pub fn read(r: &Reader<'_>) -> Option<Self> {
        let is_drilled = r.or("drills", false);
        let id = read_id(r);
        let min_level = r.choice("min_level", &Level::CHOICES).or((!r.has("min_level")).then_some(Level::Red));
        let (areas, classes) = read_scope(r);
        for hazard in classes.iter().filter(|hazard| matches!(hazard, Hazard::Care | Hazard::Device)) {
            let message = format!("`classes` holds {:?}, for which no siren sounds", hazard.as_str());
            r.fault("classes", message, Some("a siren is for what endangers all who hear it".to_owned()));
        }
        let from_escalation = r.or("from_escalation", 0);
        let outward = r.or("public", false);
        if outward && is_drilled {
            let hint = "the public cannot tell a drill from an alarm: without `drills`, or not `public`".to_owned();
            r.fault("drills", "`drills` is true for a siren that the public hears", Some(hint));
        }
        let sounds_for = r.or("for", USUALLY_FOR);
        if !FOR_RANGE.contains(&sounds_for) {
            r.fault("for", format!("`for` is {sounds_for:?}, expected five seconds to one hour"), None);
        }
        let output: Option<String> = r.optional("output");
        let line: Option<String> = r.optional("mqtt_out");
        let to = match (output, line) {
            (Some(output), None) => {
                for key in ["topic", "payload_on", "payload_off", "retain"].into_iter().filter(|key| r.has(key)) {
                    r.fault(key, format!("`{key}` belongs to a siren with `mqtt_out`"), None);
                }
                Some(To::Output(output))
            }
            (None, Some(line)) => word(r, line).map(To::Mqtt),
            _ => {
                let hint = "output = \"…\" names an [[output]]; mqtt_out = \"…\" with `topic`, `payload_on` and \
                            `payload_off` a device on a broker"
                    .to_owned();
                r.fault("output", "a [[siren]] stanza needs either `output` or `mqtt_out`", Some(hint));
                for key in ["topic", "payload_on", "payload_off"] {
                    r.optional::<String>(key);
                }
                r.optional::<bool>("retain");
                None
            }
        };
        let usual = !r.has("deliver_within");
        let (then, deliver_within) = read_spares(r);
        r.finish();
        let channel = Channel {
            drills: is_drilled,
            outward,
            sounds_for,
            areas,
            classes,
            from_escalation,
            then,
            ..Channel::new(id?, ChannelForm::Siren, min_level?)
        };
        Some(Self { channel, deliver_within: if usual { SWITCHED_WITHIN } else { deliver_within }, to: to? })
    }

    /// The `[[output]]` that it switches, if it does.
    pub fn output(&self) -> Option<&str> {
        match &self.to {
            To::Output(output) => Some(output),
            To::Mqtt(_) => None,
        }
    }

    /// The `[[mqtt_out]]` by which it is told, if it is.
    pub fn line(&self) -> Option<&str> {
        match &self.to {
            To::Output(_) => None,
            To::Mqtt(word) => Some(&word.line),
        }
    }

    /// The way out as the desk sees it, where there is one: a site that is an exercise sounds nothing but what sounds in drills.
    pub fn channel(&self, site: &Site) -> Option<&Channel> {
        (!site.exercise || self.channel.drills).then_some(&self.channel)
    }
}

/// When it sounds and how it is switched, in a line.
impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Channel { id, min_level, classes, areas, outward, sounds_for, .. } = &self.channel;
        let how = match &self.to {
            To::Output(output) => format!("output {output}"),
            To::Mqtt(Word { line, topic, .. }) => format!("{topic} by {line}"),
        };
        let classes: Vec<&str> = classes.iter().map(|hazard| hazard.as_str()).collect();
        let classes = if classes.is_empty() { "every danger".to_owned() } else { classes.join(", ") };
        let areas = if areas.is_empty() { "everywhere".to_owned() } else { format!("at {}", areas.join(", ")) };
        let level = min_level.as_str();
        write!(f, "siren {id}: {how}, {level} and above ({classes}) {areas}, for {sounds_for:?} at most")?;
        f.write_str(if *outward { ", when people have let it" } else { ", at once" })
    }
}

fn word(r: &Reader<'_>, line: String) -> Option<Word> {
    let topic: Option<String> = r.required("topic");
    let (on, off) = (r.required::<String>("payload_on"), r.required::<String>("payload_off"));
    let retain = r.or("retain", false);
    if let Some(topic) = &topic
        && (topic.is_empty() || topic.len() > 1_000 || topic.starts_with('$') || topic.contains(['+', '#', '\0']))
    {
        r.fault("topic", format!("`topic` is {topic:?}, expected one topic without +, # and $ at the beginning"), None);
    }
    if on.is_some() && on == off {
        r.fault("payload_off", "`payload_on` and `payload_off` are the same", None);
    }
    Some(Word { line, topic: topic?, on: on?, off: off?, retain })
}

/// What is known of a siren.
#[derive(Debug, Default)]
struct State {
    /// What was made so, and when; `None` when nobody knows.
    made: Option<(bool, Mono)>,
    /// Since when it was to be so, by the last look.
    wanted: Option<(bool, Mono)>,
    /// When it was last tried in vain.
    failed: Option<Mono>,
    /// A person has switched it since the last order.
    by_hand: bool,
    /// It is tried every few seconds, and said once a minute.
    repeats: Repeats,
}

/// What is to be done with a siren now, or else when to look again.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Switch(bool),
    Wait(Duration),
}

impl State {
    /// `until`: what is wanted now. `deaf`: it only hears a word, and nobody knows whether it did.
    fn look(&mut self, now: Mono, until: Option<Mono>, deaf: bool) -> Next {
        let on = until.is_some_and(|until| until > now);
        if self.wanted.is_none_or(|(before, _)| before != on) {
            // An order: whatever a person did before.
            self.by_hand &= self.wanted.is_none();
            (self.wanted, self.failed) = (Some((on, now)), None);
        }
        let (_, since) = self.wanted.unwrap_or((on, now));
        let ends = until.filter(|_| on).map_or(LONG, |until| until.since(now));
        let due = match (self.made, self.failed) {
            _ if self.by_hand => None,
            (Some((made, at)), _) if made == on => {
                let off_for = if deaf { OFF_TOLD_FOR } else { OFF_SHOWN_FOR };
                let again = on || at.since(since) < off_for.saturating_sub(TOLD_AGAIN);
                again.then(|| at.plus(TOLD_AGAIN))
            }
            (_, Some(failed)) => Some(failed.plus(AGAIN_AFTER)),
            (_, None) => Some(now),
        };
        match due {
            Some(due) if due <= now => Next::Switch(on),
            Some(due) => Next::Wait(due.since(now).min(ends)),
            None => Next::Wait(ends),
        }
    }

    fn handle_made(&mut self, now: Mono, on: bool) {
        (self.made, self.failed) = (Some((on, now)), None);
    }

    fn handle_failed(&mut self, now: Mono) {
        (self.made, self.failed) = (None, Some(now));
    }
}

enum Way {
    Relay(Switch),
    Mqtt { word: Word, lines: Lines },
}

/// One siren, whoever looks at it: its courier, its keeper and the hand of a person.
struct Shared {
    id: Arc<str>,
    way: Way,
    wanted: Wanted,
    clock: Clock,
    state: Mutex<State>,
    /// The last try was in vain.
    is_failing: AtomicBool,
}

/// The carrier of one `[[siren]]`.
pub struct Siren {
    shared: Arc<Shared>,
    deliver_within: Duration,
}

/// `relay` is the way to the output that it names, `None` for one over MQTT.
pub fn carrier(
    settings: &Settings,
    relay: Option<Switch>,
    lines: &Lines,
    wanted: Wanted,
    clock: &Clock,
) -> Result<Siren, String> {
    let way = match (&settings.to, relay) {
        (To::Output(_), Some(switch)) => Way::Relay(switch),
        (To::Output(output), None) => return Err(format!("there is no output {output:?}")),
        (To::Mqtt(word), _) => Way::Mqtt { word: word.clone(), lines: lines.clone() },
    };
    let shared = Shared {
        id: Arc::clone(&settings.channel.id),
        way,
        wanted,
        clock: clock.clone(),
        state: Mutex::default(),
        is_failing: AtomicBool::new(false),
    };
    Ok(Siren { shared: Arc::new(shared), deliver_within: settings.deliver_within })
}

impl Siren {
    /// Keeps it as it is wanted, until it is aborted or the main loop is gone; inside a Tokio runtime.
    pub fn keep(&self) -> JoinHandle<()> {
        tokio::spawn(keep(Arc::clone(&self.shared)))
    }

    /// The way to its output for a person: what they do stands until the next order.
    pub fn by_hand(&self, switch: Switch) -> Switch {
        let shared = Arc::clone(&self.shared);
        Arc::new(move |action: Action, may: Later<Result<(), Refused>>| -> Later<Result<(), Refused>> {
            let (shared, switch) = (Arc::clone(&shared), Arc::clone(&switch));
            Box::pin(async move {
                // Not beside what anmin itself is doing with it.
                let mut state = shared.state.lock().await;
                switch(action, may).await?;
                state.handle_made(shared.clock.now().mono, action == Action::On);
                state.by_hand = true;
                Ok(())
            })
        })
    }
}

/// Makes it as it is wanted whenever that, or time, asks for it.
async fn keep(shared: Arc<Shared>) {
    let mut wanted = shared.wanted.clone();
    loop {
        let wait = shared.tend().await;
        tokio::select! {
            changed = wanted.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(wait) => {}
        }
    }
}

impl Shared {
    fn until(&self) -> Option<Option<Mono>> {
        self.wanted.borrow().as_ref().map(|wanted| wanted.get(&self.id).copied())
    }

    /// Does what is due, and says when to look again.
    async fn tend(&self) -> Duration {
        let Some(until) = self.until() else { return LONG };
        let mut state = self.state.lock().await;
        match state.look(self.clock.now().mono, until, matches!(self.way, Way::Mqtt { .. })) {
            Next::Wait(wait) => wait,
            Next::Switch(on) => {
                if let Err(why) = self.switch(&mut state, on).await {
                    let what = if on { "on" } else { "off" };
                    if let Some(more) = state.repeats.say(what, self.clock.now().mono) {
                        warn!(siren = &*self.id, more, "a siren cannot be switched {what} and is tried again: {why}");
                    }
                }
                Duration::ZERO
            }
        }
    }

    async fn switch(&self, state: &mut State, on: bool) -> Result<(), DeliveryError> {
        // Should it be cut off nobody knows.
        state.made = None;
        let done = match &self.way {
            Way::Relay(switch) => {
                let action = if on { Action::On } else { Action::Off };
                let done = switch(action, Box::pin(async { Ok(()) })).await;
                done.map_err(|refused| DeliveryError::Retry(refused.text().en))
            }
            Way::Mqtt { word, lines } => {
                let payload = Bytes::from(if on { &word.on } else { &word.off }.clone());
                // Said again it is another word: nobody may take it for one that it has heard.
                let id = format!("{}/{}", self.id, self.clock.now().mono.nanos());
                lines.tell(&word.line, &word.topic, payload, word.retain, &id).await
            }
        };
        let now = self.clock.now().mono;
        self.is_failing.store(done.is_err(), Ordering::Relaxed);
        match &done {
            Ok(()) => state.handle_made(now, on),
            Err(_) => state.handle_failed(now),
        }
        done
    }

    /// Makes it as all alarms want it now, and says how it is.
    async fn obey(&self, on: bool) -> Result<Receipt, DeliveryError> {
        let mut wanted = self.wanted.clone();
        let known = async { wanted.wait_for(Option::is_some).await.is_ok() };
        if timeout(KNOWN_WITHIN, known).await != Ok(true) {
            return Err(DeliveryError::Retry("what the alarms want of it is not known yet".to_owned()));
        }
        let mut state = self.state.lock().await;
        state.by_hand = false;
        let (now, until) = (self.clock.now().mono, self.until().flatten());
        let is_on = until.is_some_and(|until| until > now);
        let is_made = state.made.is_some_and(|(made, at)| made == is_on && now.since(at) < TOLD_AGAIN);
        if !is_made {
            self.switch(&mut state, is_on).await?;
        }
        let proof = match self.way {
            Way::Relay(_) => "read back",
            Way::Mqtt { .. } => "acknowledged by the broker",
        };
        Ok(Receipt::of(match (on, is_on) {
            (true, true) => format!("on, {proof}"),
            (false, false) => format!("off, {proof}"),
            (true, false) => format!("over by now: off, {proof}"),
            (false, true) => format!("goes on for another alarm: on, {proof}"),
        }))
    }
}

impl Carrier for Siren {
    fn deliver_within(&self) -> Option<Duration> {
        Some(self.deliver_within)
    }

    async fn carry(&self, order: &Order) -> Result<Receipt, DeliveryError> {
        match &order.body {
            OrderBody::Siren(siren) => self.shared.obey(siren.on).await,
            _ => Err(DeliveryError::Never("a siren can be switched and nothing else".to_owned())),
        }
    }

    fn reachable(&self) -> Option<bool> {
        Some(!self.shared.is_failing.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex as Lock;

    use anmin_rules::alarm::{AlarmState, By, Cause, Class};
    use anmin_rules::order::{OrderId, SirenOrder};
    use anmin_rules::siren::{self, Step};
    use anmin_sensors::document::{Document, Faults};

    use super::*;
    use crate::output::Failed;
    use crate::samples::{self, RAISED};

    fn at(seconds: u64) -> Mono {
        Mono::from_nanos(1_000_000_000).plus(Duration::from_secs(seconds))
    }

    fn settings(text: &str) -> Result<Settings, String> {
        let faults = Faults::default();
        let text = format!("id = 'horn'\n{text}");
        let document = Document::parse("s.toml", &text, &faults).expect("TOML");
        let found = Settings::read(&document.root(&faults));
        let faults: Vec<String> = faults.take().iter().map(ToString::to_string).collect();
        found.filter(|_| faults.is_empty()).ok_or(faults.join("\n"))
    }

    #[test]
    fn it_names_one_way_to_be_switched_and_all_of_it() {
        let word = "mqtt_out = 'site'\ntopic = 'b1/horn'\npayload_on = 'ON'\npayload_off = 'OFF'";
        let siren = settings("output = 'b1-horn'").expect("sound");
        assert_eq!((siren.output(), siren.line(), siren.channel.min_level), (Some("b1-horn"), None, Level::Red));
        assert!(!siren.channel.drills && !siren.channel.outward && siren.channel.sounds_for == USUALLY_FOR);
        let siren = settings(&format!("{word}\npublic = true\nfor = '10m'")).expect("sound");
        assert_eq!((siren.output(), siren.line()), (None, Some("site")));
        assert!(siren.channel.outward && siren.channel.sounds_for == Duration::from_secs(600));
        for (keys, said) in [
            (String::new(), "needs either `output` or `mqtt_out`"),
            (format!("output = 'a'\n{word}"), "needs either `output` or `mqtt_out`"),
            ("output = 'a'\ntopic = 'x'".to_owned(), "`topic` belongs to a siren with `mqtt_out`"),
            (word.replace("payload_off = 'OFF'", ""), "`payload_off` is missing"),
            (word.replace("'OFF'", "'ON'"), "are the same"),
            (word.replace("b1/horn", "b1/#"), "expected one topic"),
            ("output = 'a'\nfor = '2h'".to_owned(), "expected five seconds to one hour"),
            ("output = 'a'\npublic = true\ndrills = true".to_owned(), "a siren that the public hears"),
            ("output = 'a'\nclasses = ['fire', 'care']".to_owned(), "for which no siren sounds"),
            ("output = 'a'\nvolume = 9".to_owned(), "volume"),
        ] {
            let faults = settings(&keys).expect_err(&keys);
            assert!(faults.contains(said) && faults.contains("s.toml:"), "{keys}: {faults}");
        }
    }

    #[test]
    fn an_exercise_sounds_nothing_but_what_sounds_in_drills() {
        let [exercise, earnest] = [true, false].map(|exercise| Site { exercise, ..samples::site() });
        let quiet = settings("output = 'a'").expect("sound");
        assert!(quiet.channel(&exercise).is_none() && quiet.channel(&earnest).is_some());
        assert!(settings("output = 'a'\ndrills = true").expect("sound").channel(&exercise).is_some());
    }

    #[test]
    fn only_a_danger_sounds() {
        let channel = Channel::new("horn", ChannelForm::Siren, Level::Blue);
        let begins = |class: Class| {
            let alarm = anmin_rules::alarm::Alarm { class, ..samples::alarm() };
            siren::step(&channel, &alarm, &Cause::Raised, AlarmState::Normal, None) == Step::Begin
        };
        for hazard in Hazard::ALL {
            let danger = !matches!(hazard, Hazard::Care | Hazard::Device);
            assert_eq!(begins(Class::Hazard(hazard)), danger, "{hazard:?}");
        }
        assert!(!begins(Class::System));
        let seen = Some(By { who: "li".to_owned(), at: RAISED });
        let alarm = anmin_rules::alarm::Alarm { acknowledged: seen, ..samples::alarm() };
        assert_eq!(siren::step(&channel, &alarm, &Cause::Raised, AlarmState::Normal, None), Step::Stay);
    }

    /// A siren as it is looked at, second by second: what was done, by `+` and `-`, and in vain by `!`.
    fn play(deaf: bool, until: impl Fn(u64) -> Option<u64>, works: impl Fn(u64) -> bool, to: u64) -> String {
        let (mut state, mut done) = (State::default(), Vec::new());
        for second in 0..=to {
            while let Next::Switch(on) = state.look(at(second), until(second).map(at), deaf) {
                let sign = if on { '+' } else { '-' };
                if works(second) {
                    state.handle_made(at(second), on);
                    done.push(format!("{second}{sign}"));
                } else {
                    state.handle_failed(at(second));
                    done.push(format!("{second}{sign}!"));
                }
            }
        }
        done.join(" ")
    }

    #[test]
    fn it_is_kept_as_it_is_wanted_until_its_time_is_up() {
        let always = |_: u64| true;
        let wanted = |second: u64| (10..500).contains(&second).then_some(100);
        // Off at the start; told again while it sounds; off by itself at 100, whatever is wanted.
        let wanted_for = "0- 10+ 20+ 30+ 40+ 50+ 60+ 70+ 80+ 90+ 100- 110-";
        assert_eq!(play(false, wanted, always, 400), wanted_for);
        // What cannot be switched is tried until it is.
        assert_eq!(play(false, wanted, |second| second >= 16, 25), "0-! 3-! 6-! 9-! 10+! 13+! 16+");
        assert_eq!(
            play(false, wanted, |second| !(95..108).contains(&second), 400),
            "0- 10+ 20+ 30+ 40+ 50+ 60+ 70+ 80+ 90+ 100-! 103-! 106-! 109-"
        );
        // One that only hears a word hears it for ten minutes.
        let off = play(true, |_| None, always, 3_000);
        assert!(off.starts_with("0- 10- 20-") && off.ends_with(" 580- 590-"), "{off}");
    }

    #[test]
    fn what_a_person_does_stands_until_the_next_order() {
        let mut state = State::default();
        let look = |state: &mut State, second, until: Option<u64>| state.look(at(second), until.map(at), false);
        assert_eq!(look(&mut state, 0, Some(180)), Next::Switch(true));
        state.handle_made(at(0), true);
        // Silenced by hand: not told again, and looked at when its time is up.
        state.handle_made(at(20), false);
        state.by_hand = true;
        assert_eq!(look(&mut state, 60, Some(180)), Next::Wait(Duration::from_secs(120)));
        // Over: an order, by which it is made sure.
        assert_eq!(look(&mut state, 180, Some(180)), Next::Switch(false));
        assert!(!state.by_hand);
        state.handle_made(at(190), false);
        // Sounded by hand where no alarm wants it: until one does and is over.
        state.handle_made(at(200), true);
        state.by_hand = true;
        assert_eq!(look(&mut state, 400, None), Next::Wait(LONG));
        assert_eq!(look(&mut state, 500, Some(600)), Next::Switch(true));
        state.handle_made(at(500), true);
        assert_eq!(look(&mut state, 600, Some(600)), Next::Switch(false));
    }

    /// A relay that says what was done with it, or fails.
    fn relay(done: &Arc<Lock<String>>, works: &Arc<AtomicBool>) -> Switch {
        let (done, works) = (Arc::clone(done), Arc::clone(works));
        Arc::new(move |action: Action, may: Later<Result<(), Refused>>| -> Later<Result<(), Refused>> {
            let (done, works) = (Arc::clone(&done), Arc::clone(&works));
            Box::pin(async move {
                may.await?;
                if !works.load(Ordering::SeqCst) {
                    return Err(Refused::Failed(Failed { in_doubt: true, why: "it shows 0".to_owned() }));
                }
                done.lock().expect("nobody panics with it").push(if action == Action::On { '+' } else { '-' });
                Ok(())
            })
        })
    }

    fn order(on: bool) -> Order {
        let (at, alarm) = (RAISED, Arc::new(samples::alarm()));
        let order = SirenOrder { on, at, until: at.plus(USUALLY_FOR), alarm };
        Order { id: OrderId::new("a/1/horn"), channel: "horn".into(), body: OrderBody::Siren(Arc::new(order)) }
    }

    #[tokio::test]
    async fn an_order_that_comes_late_twice_or_out_of_turn_never_makes_it_wrong() {
        let (done, works) = (Arc::<Lock<String>>::default(), Arc::new(AtomicBool::new(true)));
        let (sender, wanted) = watch::channel(None);
        let clock = Clock::system();
        let settings = settings("output = 'a'").expect("sound");
        let switch = relay(&done, &works);
        let siren = carrier(&settings, Some(Arc::clone(&switch)), &Lines::default(), wanted, &clock).expect("a relay");
        let want = |on: bool| {
            let until = clock.now().mono.plus(Duration::from_secs(60));
            sender.send_replace(Some(Arc::new(on.then(|| (Arc::from("horn"), until)).into_iter().collect())));
        };
        let carry = async |on: bool| siren.carry(&order(on)).await.map(|receipt| receipt.detail);
        let so_far = || done.lock().expect("nobody panics with it").clone();
        want(true);
        for _ in 0..100 {
            assert_eq!(carry(true).await, Ok("on, read back".to_owned()));
        }
        assert_eq!(so_far(), "+", "a storm switches once");
        // One of two alarms is over.
        assert_eq!(carry(false).await, Ok("goes on for another alarm: on, read back".to_owned()));
        want(false);
        assert_eq!(carry(false).await, Ok("off, read back".to_owned()));
        // The first order again, as after a restart.
        assert_eq!(carry(true).await, Ok("over by now: off, read back".to_owned()));
        assert_eq!(so_far(), "+-");
        // What fails is tried again, and known to be in trouble.
        want(true);
        works.store(false, Ordering::SeqCst);
        assert!(matches!(carry(true).await, Err(DeliveryError::Retry(why)) if why.contains("it shows 0")));
        assert_eq!(siren.reachable(), Some(false));
        works.store(true, Ordering::SeqCst);
        assert_eq!(carry(true).await, Ok("on, read back".to_owned()));
        assert_eq!((so_far().as_str(), siren.reachable()), ("+-+", Some(true)));
        // A person silences it; the next order is heard all the same.
        let hand = siren.by_hand(switch);
        hand(Action::Off, Box::pin(async { Ok(()) })).await.expect("it works");
        assert!(siren.shared.tend().await > TOLD_AGAIN, "only the end of its time is waited for");
        assert_eq!(so_far(), "+-+-", "what a person did stands");
        assert_eq!(carry(true).await, Ok("on, read back".to_owned()));
        assert_eq!(so_far(), "+-+-+");
    }
}
