//! Outputs: what may be switched out there — a siren, a valve, a fan, a breaker — and the two steps in which a person does it.
//!
//! Promises: nothing is switched that the site does not name as an `[[output]]`; only by a person who may, who has armed this very deed
//! shortly before and repeats the code of it; only while every interlock holds by readings that are good and fresh at that moment;
//! and it is done only when the unit shows it. What is not known forbids. No rule, script or plan comes here. Decision 0020.
//!
//! It does not know buses, HTTP or the main loop: `app` gives it a [`Switch`] for each output, whoever asks brings the readings,
//! and writes what came of it into the audit.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anmin_rules::rule::Text;
use anmin_sensors::decode::modbus::Table;
use anmin_sensors::document::Reader;
use anmin_sensors::point::PointId;
use anmin_sensors::reading::{Quality, Sample, Value};
use anmin_sensors::time::Mono;
use ring::rand::{SecureRandom as _, SystemRandom};

use crate::config::site::text;
use crate::store::people::Role;

/// What may be done with an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    On,
    Off,
}

impl Action {
    pub const ALL: [Self; 2] = [Self::On, Self::Off];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Off => "off",
        }
    }

    pub fn named(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.as_str() == word)
    }

    pub const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::On => ("接通", "on"),
            Self::Off => ("断开", "off"),
        }
    }
}

/// What must hold at the moment in which an output is switched.
#[derive(Clone, Debug, PartialEq)]
pub struct Interlock {
    pub point: PointId,
    pub wanted: Wanted,
    /// A reading that is older says nothing.
    pub within: Duration,
    /// `None`: for both.
    pub of: Option<Action>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Wanted {
    Above(f64),
    Below(f64),
    Is(bool),
}

impl Wanted {
    fn holds(self, value: &Value) -> Option<bool> {
        match (self, value) {
            (Self::Above(limit), Value::Number(number)) => Some(*number > limit),
            (Self::Below(limit), Value::Number(number)) => Some(*number < limit),
            (Self::Is(wanted), Value::Flag(flag)) => Some(*flag == wanted),
            _ => None,
        }
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Above(limit) => write!(f, "> {limit}"),
            Self::Below(limit) => write!(f, "< {limit}"),
            Self::Is(flag) => write!(f, "= {flag}"),
        }
    }
}

/// `[[output]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    pub id: Arc<str>,
    pub name: Text,
    /// A `[[device]]` on a bus.
    pub device: String,
    /// Coil or holding.
    pub register: Table,
    pub address: u16,
    /// What is written.
    pub on: u16,
    pub off: u16,
    /// Where it shows what the device has done.
    pub shows: (Table, u16),
    pub may: Vec<Action>,
    pub roles: Vec<Role>,
    /// From arming to doing.
    pub armed_for: Duration,
    /// How long the device takes.
    pub settle: Duration,
    pub interlocks: Vec<Interlock>,
}

impl Settings {
    /// Those who may by default.
    const USUAL_ROLES: [Role; 2] = [Role::Officer, Role::Administrator];
    /// Those who may have the right at all.
    const ROLES: [Role; 3] = [Role::Officer, Role::Crew, Role::Administrator];

    pub fn read(r: &Reader<'_>) -> Option<Self> {
        let id: Option<String> = r.required("id");
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if id.as_deref().is_some_and(|id| id.is_empty() || !id.chars().all(plain)) {
            r.fault("id", format!("`id` is {id:?}, expected small letters, digits and -"), None);
        }
        let name = text(r, "name");
        let device: Option<String> = r.required("device");
        let register =
            r.choice("register", &[("coil", Table::Coil), ("holding", Table::Holding)]).unwrap_or(Table::Coil);
        let address: Option<u16> = r.required("address");
        let (on, off) = (r.or("on", 1), r.or("off", 0));
        if on == off {
            r.fault("on", "`on` and `off` are the same".to_owned(), None);
        } else if register == Table::Coil && on.max(off) > 1 {
            r.fault("on", "a coil is 0 or 1".to_owned(), None);
        }
        let tables = [
            ("coil", Table::Coil),
            ("discrete", Table::Discrete),
            ("holding", Table::Holding),
            ("input", Table::Input),
        ];
        let shows = (
            r.choice("shows_register", &tables).unwrap_or(register),
            r.optional("shows_address").or(address).unwrap_or_default(),
        );
        let may = words(r, "may", &["on", "off"], Action::named);
        let roles = words(r, "roles", &Self::ROLES.map(Role::as_str), |word| {
            Self::ROLES.into_iter().find(|role| role.as_str() == word)
        });
        let (armed_for, settle) =
            (r.or("armed_for", Duration::from_secs(60)), r.or("settle", Duration::from_millis(500)));
        for (key, span, least, most) in [("armed_for", armed_for, 5_000, 600_000), ("settle", settle, 0, 10_000)] {
            let (least, most) = (Duration::from_millis(least), Duration::from_millis(most));
            if !(least..=most).contains(&span) {
                r.fault(key, format!("`{key}` is {span:?}, expected {least:?} to {most:?}"), None);
            }
        }
        let interlocks = r.tables("interlock").iter().filter_map(Interlock::read).collect();
        r.finish();
        let (id, device, address) = (id?, device?, address?);
        let name = name.unwrap_or_else(|| Text::both(id.clone()));
        Some(Self {
            id: id.into(),
            name,
            device,
            register,
            address,
            on,
            off,
            shows,
            may: may.unwrap_or_else(|| Action::ALL.to_vec()),
            roles: roles.unwrap_or_else(|| Self::USUAL_ROLES.to_vec()),
            armed_for,
            settle,
            interlocks,
        })
    }

    pub fn value(&self, action: Action) -> u16 {
        match action {
            Action::On => self.on,
            Action::Off => self.off,
        }
    }
}

/// A list of known words.
fn words<T>(r: &Reader<'_>, key: &'static str, known: &[&str], named: impl Fn(&str) -> Option<T>) -> Option<Vec<T>> {
    let found: Vec<String> = r.optional(key)?;
    if found.is_empty() {
        r.fault(key, format!("`{key}` is empty: nobody could use the output"), None);
    }
    let one = |word: &String| {
        let one = named(word);
        if one.is_none() {
            r.fault(key, format!("`{key}` has {word:?}, expected {}", known.join(", ")), None);
        }
        one
    };
    Some(found.iter().filter_map(one).collect())
}

impl Interlock {
    fn read(r: &Reader<'_>) -> Option<Self> {
        let point: Option<String> = r.required("point");
        let wanted: Vec<Wanted> = [
            r.optional("above").map(Wanted::Above),
            r.optional("below").map(Wanted::Below),
            r.optional("is").map(Wanted::Is),
        ]
        .into_iter()
        .flatten()
        .collect();
        if wanted.len() != 1 {
            r.fault("point", "one of `above`, `below` and `is` says what must hold".to_owned(), None);
        }
        let within = r.or("within", Duration::from_secs(60));
        let of = r.choice("for", &[("on", Action::On), ("off", Action::Off)]);
        r.finish();
        Some(Self { point: PointId::new(point?), wanted: *wanted.first()?, within, of })
    }

    /// Why it does not hold, or cannot be known to.
    fn forbids(&self, sample: Option<&Sample>, now: Mono) -> Option<Text> {
        let Self { point, wanted, within, .. } = self;
        let unknown = |zh: String, en: String| {
            Some(Text {
                zh: format!("联锁条件 {point} {wanted} 无法确认：{zh}"),
                en: format!("the interlock {point} {wanted} cannot be confirmed: {en}"),
            })
        };
        let Some(sample) = sample else { return unknown("没有读数".to_owned(), "there is no reading".to_owned()) };
        if sample.quality != Quality::Good {
            let (quality, reason) = (sample.quality.as_str(), sample.quality.reason());
            return unknown(format!("读数不可信（{reason}）"), format!("its reading is {quality} ({reason})"));
        }
        let age = now.since(sample.received.mono);
        if age > *within {
            return unknown(
                format!("读数已过 {} 秒", age.as_secs()),
                format!("its reading is {} s old", age.as_secs()),
            );
        }
        match sample.value.as_ref().and_then(|value| Some((value, wanted.holds(value)?))) {
            Some((_, true)) => None,
            Some((value, false)) => {
                let shown = match value {
                    Value::Number(number) => number.to_string(),
                    Value::Flag(flag) => flag.to_string(),
                    Value::Text(text) => text.to_string(),
                };
                Some(Text {
                    zh: format!("联锁条件 {point} {wanted} 不满足：当前为 {shown}"),
                    en: format!("the interlock {point} {wanted} does not hold: it is {shown}"),
                })
            }
            None => unknown("读数类型不符".to_owned(), "its reading is of another form".to_owned()),
        }
    }
}

/// What comes of something that is looked at or done later.
pub type Later<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Switches one output, unless what it is given says, at the moment in which it could, that it may not.
pub type Switch = Arc<dyn Fn(Action, Later<Result<(), Refused>>) -> Later<Result<(), Refused>> + Send + Sync>;

/// The latest reading of each point, and when that is; `None` where nobody answers.
pub type Look = Arc<dyn Fn(Vec<PointId>) -> Later<Option<(Vec<Option<Sample>>, Mono)>> + Send + Sync>;

/// Why an output is not known to be switched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// Something was sent, so that it may be done.
    pub in_doubt: bool,
    pub why: String,
}

/// Who wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct By {
    pub who: String,
    /// In whose right; what the journal keeps of a person who did not prove a name.
    pub principal: String,
    pub role: Role,
}

/// A deed that somebody has armed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Armed {
    pub action: Action,
    pub by: By,
    pub why: String,
    /// To be repeated with the second step.
    pub code: String,
    pub until: Mono,
}

/// Why an output was not switched. Nothing was sent, but for [`Refused::Failed`] where that says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    NoSuchOutput(String),
    /// The site does not let the output do this.
    NotThis(Action),
    NotYourRole,
    /// Nobody has armed it, or too long ago.
    NotArmed,
    /// Somebody else has; until then.
    ArmedBy(String, Duration),
    WrongCode,
    Interlock(Text),
    Failed(Failed),
}

impl Refused {
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::NoSuchOutput(_) => "not_found",
            Self::NotThis(_) => "not_this",
            Self::NotYourRole => "not_your_role",
            Self::NotArmed => "not_armed",
            Self::ArmedBy(..) => "armed_by_another",
            Self::WrongCode => "wrong_code",
            Self::Interlock(_) => "interlock",
            Self::Failed(_) => "output_failed",
        }
    }

    pub fn text(&self) -> Text {
        let (zh, en) = match self {
            Self::NoSuchOutput(id) => (format!("没有输出 {id:?}"), format!("there is no output {id:?}")),
            Self::NotThis(action) => {
                let (zh, en) = action.words();
                (format!("该输出不允许{zh}"), format!("this output may not be switched {en}"))
            }
            Self::NotYourRole => {
                ("您的角色无权操作该输出".to_owned(), "your role may not switch this output".to_owned())
            }
            Self::NotArmed => {
                ("该输出未预备或预备已过期".to_owned(), "the output is not armed, or was too long ago".to_owned())
            }
            Self::ArmedBy(who, left) => (
                format!("该输出已由 {who} 预备，{} 秒后失效", left.as_secs() + 1),
                format!("the output is armed by {who}, for another {} s", left.as_secs() + 1),
            ),
            Self::WrongCode => (
                "确认码或操作与预备时不符，预备已取消".to_owned(),
                "code or action are not those that were armed; it is no longer armed".to_owned(),
            ),
            Self::Interlock(why) => return why.clone(),
            Self::Failed(Failed { in_doubt: true, why }) => (
                format!("指令已发出但未能确认，现场状态不明，请派人查看：{why}"),
                format!("it was sent and cannot be confirmed; have somebody look on site: {why}"),
            ),
            Self::Failed(Failed { in_doubt: false, why }) => {
                (format!("未能执行，现场未改变：{why}"), format!("it could not be done, nothing has changed: {why}"))
            }
        };
        Text { zh, en }
    }
}

struct Output {
    settings: Settings,
    switch: Switch,
    armed: Mutex<Option<Armed>>,
}

/// All outputs of a site. Clones share what is armed, which no restart outlives.
#[derive(Clone, Default)]
pub struct Outputs(Arc<HashMap<Arc<str>, Output>>);

impl fmt::Debug for Outputs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Outputs {
    pub fn new(outputs: impl IntoIterator<Item = (Settings, Switch)>) -> Self {
        let output = |(settings, switch): (Settings, Switch)| {
            (Arc::clone(&settings.id), Output { settings, switch, armed: Mutex::default() })
        };
        Self(Arc::new(outputs.into_iter().map(output).collect()))
    }

    /// By their ids, with what is armed.
    pub fn all(&self, now: Mono) -> Vec<(&Settings, Option<Armed>)> {
        let armed = |output: &Output| output.armed().clone().filter(|armed| armed.until > now);
        let mut all: Vec<_> = self.0.values().map(|output| (&output.settings, armed(output))).collect();
        all.sort_by(|(a, _), (b, _)| a.id.cmp(&b.id));
        all
    }

    fn one(&self, id: &str) -> Result<&Output, Refused> {
        self.0.get(id).ok_or_else(|| Refused::NoSuchOutput(id.chars().take(64).collect()))
    }

    /// The first step. What the same person has armed before gives way.
    pub fn arm(&self, id: &str, action: Action, by: By, why: String, now: Mono) -> Result<Armed, Refused> {
        let output = self.one(id)?;
        output.may(action, &by)?;
        let mut armed = output.armed();
        if let Some(other) = armed.as_ref().filter(|other| other.until > now && !other.is_by(&by)) {
            return Err(Refused::ArmedBy(other.by.who.clone(), other.until.since(now)));
        }
        let until = now.plus(output.settings.armed_for);
        Ok(armed.insert(Armed { action, by, why, code: code(), until }).clone())
    }

    /// Takes the first step back; whoever may arm may do so.
    pub fn disarm(&self, id: &str, by: &By) -> Result<(), Refused> {
        let output = self.one(id)?;
        if !output.settings.roles.contains(&by.role) {
            return Err(Refused::NotYourRole);
        }
        output.armed().take().map(drop).ok_or(Refused::NotArmed)
    }

    /// The second step. Whatever comes of it, nothing is armed any more. The interlocks are looked at twice: now, and when the bus
    /// is free for it.
    pub async fn carry_out(
        &self,
        id: &str,
        action: Action,
        by: &By,
        code: &str,
        look: Look,
        now: Mono,
    ) -> Result<Armed, Refused> {
        let output = self.one(id)?;
        output.may(action, by)?;
        let armed = {
            let mut armed = output.armed();
            match armed.take() {
                Some(other) if other.until > now && !other.is_by(by) => {
                    let refused = Refused::ArmedBy(other.by.who.clone(), other.until.since(now));
                    *armed = Some(other);
                    return Err(refused);
                }
                Some(own) if own.until > now => own,
                _ => return Err(Refused::NotArmed),
            }
        };
        if armed.code != code.trim() || armed.action != action {
            return Err(Refused::WrongCode);
        }
        let of_action =
            output.settings.interlocks.iter().filter(|interlock| interlock.of.is_none_or(|of| of == action));
        let interlocks: Arc<[Interlock]> = of_action.cloned().collect();
        hold(Arc::clone(&interlocks), Arc::clone(&look)).await?;
        (output.switch)(action, Box::pin(hold(interlocks, look))).await?;
        Ok(armed)
    }
}

/// Whether all of them hold by what is read now.
async fn hold(interlocks: Arc<[Interlock]>, look: Look) -> Result<(), Refused> {
    if interlocks.is_empty() {
        return Ok(());
    }
    let points = interlocks.iter().map(|interlock| interlock.point.clone()).collect();
    let (samples, now) = look(points).await.ok_or_else(|| {
        Refused::Interlock(Text {
            zh: "联锁条件无法确认：系统繁忙，未能取得读数".to_owned(),
            en: "the interlocks cannot be confirmed: anmin is busy and gives no readings".to_owned(),
        })
    })?;
    for (n, interlock) in interlocks.iter().enumerate() {
        if let Some(why) = interlock.forbids(samples.get(n).and_then(Option::as_ref), now) {
            return Err(Refused::Interlock(why));
        }
    }
    Ok(())
}

impl Armed {
    fn is_by(&self, by: &By) -> bool {
        self.by.who == by.who && self.by.principal == by.principal
    }
}

impl Output {
    fn armed(&self) -> MutexGuard<'_, Option<Armed>> {
        self.armed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn may(&self, action: Action, by: &By) -> Result<(), Refused> {
        if !self.settings.roles.contains(&by.role) {
            return Err(Refused::NotYourRole);
        }
        if self.settings.may.contains(&action) { Ok(()) } else { Err(Refused::NotThis(action)) }
    }
}

/// Four digits: against a slip, not against an attacker, who would have had to sign in.
fn code() -> String {
    let mut bytes = [0; 2];
    // Without chance the code is 0000, and the deed is still that of whoever armed it.
    let _ = SystemRandom::new().fill(&mut bytes);
    format!("{:04}", u16::from_be_bytes(bytes) % 10_000)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use anmin_sensors::point::PointIx;
    use anmin_sensors::time::{Now, Wall};

    use super::*;

    const FAN: &str = "fan";

    fn at(seconds: u64) -> Mono {
        Mono::from_nanos(seconds * 1_000_000_000)
    }

    fn by(who: &str) -> By {
        By { who: who.to_owned(), principal: "desk".to_owned(), role: Role::Officer }
    }

    /// The fan, that is armed for a minute and may be switched on while `g/lel` is below 25.
    fn settings() -> Settings {
        Settings {
            id: FAN.into(),
            name: Text::both(FAN),
            device: "relay".to_owned(),
            register: Table::Coil,
            address: 5,
            on: 1,
            off: 0,
            shows: (Table::Coil, 5),
            may: Action::ALL.to_vec(),
            roles: Settings::USUAL_ROLES.to_vec(),
            armed_for: Duration::from_secs(60),
            settle: Duration::ZERO,
            interlocks: vec![Interlock {
                point: PointId::new("g/lel"),
                wanted: Wanted::Below(25.0),
                within: Duration::from_secs(30),
                of: Some(Action::On),
            }],
        }
    }

    fn reading(value: Value, quality: Quality, received: Mono) -> Sample {
        let wall = Wall::from_millis(0);
        let received = Now { mono: received, wall };
        Sample {
            point: PointIx(0),
            value: (!matches!(quality, Quality::Bad(_))).then_some(value),
            quality,
            time: wall,
            source_time: None,
            received,
            sequence: None,
            news: true,
        }
    }

    /// An output whose writes are counted, each after the bus has asked whether it may still be done.
    struct Plant {
        outputs: Outputs,
        writes: Arc<AtomicUsize>,
    }

    impl Plant {
        fn of(settings: Settings, ends: Result<(), Refused>) -> Self {
            let writes = Arc::<AtomicUsize>::default();
            let count = Arc::clone(&writes);
            let switch: Switch = Arc::new(move |_, may| {
                let (count, ends) = (Arc::clone(&count), ends.clone());
                Box::pin(async move {
                    may.await?;
                    count.fetch_add(1, Ordering::SeqCst);
                    ends
                })
            });
            Self { outputs: Outputs::new([(settings, switch)]), writes }
        }

        fn new() -> Self {
            Self::of(settings(), Ok(()))
        }

        fn arm(&self, action: Action, who: &str, now: u64) -> Armed {
            let why = "gas in 101".to_owned();
            self.outputs.arm(FAN, action, by(who), why, at(now)).unwrap_or_else(|refused| panic!("{refused:?}"))
        }

        async fn carry_out(
            &self,
            action: Action,
            who: &By,
            code: &str,
            look: Look,
            now: u64,
        ) -> Result<Armed, Refused> {
            self.outputs.carry_out(FAN, action, who, code, look, at(now)).await
        }

        fn writes(&self) -> usize {
            self.writes.load(Ordering::SeqCst)
        }
    }

    /// Answers with these readings of `g/lel`, one a look, the last of them from then on.
    fn looks(samples: Vec<Option<Sample>>, now: u64) -> Look {
        let turn = AtomicUsize::new(0);
        Arc::new(move |points| {
            assert_eq!(points.iter().map(PointId::as_str).collect::<Vec<_>>(), ["g/lel"]);
            let n = turn.fetch_add(1, Ordering::SeqCst).min(samples.len() - 1);
            let sample = samples[n].clone();
            Box::pin(async move { Some((vec![sample], at(now))) })
        })
    }

    fn well(now: u64) -> Look {
        looks(vec![Some(reading(Value::Number(12.6), Quality::Good, at(now)))], now)
    }

    #[tokio::test]
    async fn the_first_step_sends_nothing_and_the_second_is_good_once() {
        let plant = Plant::new();
        let armed = plant.arm(Action::On, "li", 100);
        assert_eq!(plant.writes(), 0, "arming sends nothing");
        assert_eq!(plant.outputs.all(at(100))[0].1.as_ref(), Some(&armed));
        let code = format!(" {} ", armed.code);
        let done = plant.carry_out(Action::On, &by("li"), &code, well(159), 159).await;
        assert_eq!(done, Ok(armed), "until the last second, with blanks around the code");
        let again = plant.carry_out(Action::On, &by("li"), &code, well(159), 159).await;
        assert_eq!((again, plant.writes()), (Err(Refused::NotArmed), 1));
        assert_eq!(plant.outputs.all(at(159))[0].1, None);
    }

    /// Another person, role, code or deed, or a second too late: each refused with its word, and nothing is sent.
    #[tokio::test]
    async fn only_who_armed_this_very_deed_just_now_carries_it_out() {
        let crew = By { role: Role::Crew, ..by("li") };
        let unproved = By { principal: "another desk".to_owned(), ..by("li") };
        for (who, action, is_right_code, now, word, is_armed_after) in [
            (by("wang"), Action::On, true, 101, "armed_by_another", true),
            // The same name in another's right is another person.
            (unproved, Action::On, true, 101, "armed_by_another", true),
            (crew, Action::On, true, 101, "not_your_role", true),
            (by("li"), Action::On, false, 101, "wrong_code", false),
            (by("li"), Action::Off, true, 101, "wrong_code", false),
            (by("li"), Action::On, true, 160, "not_armed", false),
        ] {
            let plant = Plant::new();
            let code = plant.arm(Action::On, "li", 100).code;
            let other = if code == "1234" { "4321" } else { "1234" };
            let said = if is_right_code { code.as_str() } else { other };
            let refused = plant.carry_out(action, &who, said, well(now), now).await.expect_err(word);
            assert_eq!((refused.as_str(), plant.writes()), (word, 0));
            assert_eq!(plant.outputs.all(at(now))[0].1.is_some(), is_armed_after, "{word}");
            // It is no way round to try the right code after a wrong one.
            if !is_armed_after {
                let again = plant.carry_out(Action::On, &by("li"), &code, well(now), now).await;
                assert_eq!((again, plant.writes()), (Err(Refused::NotArmed), 0), "{word}");
            }
        }
        let plant = Plant::of(Settings { may: vec![Action::Off], ..settings() }, Ok(()));
        assert_eq!(
            plant.outputs.arm(FAN, Action::On, by("li"), String::new(), at(0)),
            Err(Refused::NotThis(Action::On))
        );
        assert_eq!(
            plant.outputs.arm("fun", Action::On, by("li"), String::new(), at(0)),
            Err(Refused::NoSuchOutput("fun".to_owned()))
        );
    }

    #[test]
    fn nobody_else_arms_meanwhile_and_whoever_may_arm_may_disarm() {
        let plant = Plant::new();
        let first = plant.arm(Action::On, "li", 100);
        let other = plant.outputs.arm(FAN, Action::Off, by("wang"), "x".to_owned(), at(130));
        assert_eq!(other, Err(Refused::ArmedBy("li".to_owned(), Duration::from_secs(30))));
        // The same person may think again.
        let second = plant.arm(Action::Off, "li", 140);
        assert_eq!((second.action, second.until), (Action::Off, at(200)));
        assert_ne!(first.until, second.until);
        let crew = By { role: Role::Crew, ..by("zhao") };
        assert_eq!(plant.outputs.disarm(FAN, &crew), Err(Refused::NotYourRole));
        assert_eq!(plant.outputs.disarm(FAN, &by("wang")), Ok(()));
        assert_eq!(plant.outputs.disarm(FAN, &by("wang")), Err(Refused::NotArmed));
        plant.arm(Action::On, "wang", 150);
        assert_eq!(plant.arm(Action::On, "li", 210).by, by("li"), "what is too old holds up nobody");
    }

    /// Missing, doubtful, bad, old, of another form, or not as it should be: each forbids, and nothing is sent.
    #[tokio::test]
    async fn an_interlock_holds_only_by_a_reading_that_is_good_fresh_and_as_wanted() {
        let number = |number: f64, quality, received: u64| Some(reading(Value::Number(number), quality, at(received)));
        let doubtful = Quality::ALL.into_iter().filter(|quality| *quality != Quality::Good);
        let mut cases: Vec<(Option<Sample>, bool)> = vec![
            (number(24.9, Quality::Good, 171), true),
            (number(24.9, Quality::Good, 170), true),
            (number(24.9, Quality::Good, 169), false),
            (number(25.0, Quality::Good, 200), false),
            (Some(reading(Value::Flag(false), Quality::Good, at(200))), false),
            (Some(reading(Value::Text("0".into()), Quality::Good, at(200))), false),
            (None, false),
        ];
        cases.extend(doubtful.map(|quality| (number(1.0, quality, 200), false)));
        assert_eq!(cases.len(), 18, "every quality but good is among them");
        for (sample, holds) in cases {
            let plant = Plant::new();
            let code = plant.arm(Action::On, "li", 199).code;
            let look = looks(vec![sample.clone()], 200);
            let done = plant.carry_out(Action::On, &by("li"), &code, look, 200).await;
            let word = done.as_ref().err().map(Refused::as_str);
            assert_eq!(
                (word, plant.writes()),
                (if holds { None } else { Some("interlock") }, usize::from(holds)),
                "{sample:?}"
            );
        }
        // It is for one of the two deeds: the other asks nobody.
        let plant = Plant::new();
        let code = plant.arm(Action::Off, "li", 199).code;
        let nobody: Look = Arc::new(|_| panic!("nobody is asked"));
        assert!(plant.carry_out(Action::Off, &by("li"), &code, nobody, 200).await.is_ok());
        // Where nobody answers, nothing is known.
        let plant = Plant::new();
        let code = plant.arm(Action::On, "li", 199).code;
        let busy: Look = Arc::new(|_| Box::pin(async { None }));
        let refused = plant.carry_out(Action::On, &by("li"), &code, busy, 200).await;
        assert_eq!((refused.map_err(|refused| refused.as_str()), plant.writes()), (Err("interlock"), 0));
    }

    /// The bus may be busy for seconds: what held when the person pressed need not hold when the write could go.
    #[tokio::test]
    async fn an_interlock_that_fails_while_the_bus_is_busy_stops_the_write() {
        let plant = Plant::new();
        let code = plant.arm(Action::On, "li", 199).code;
        let of = |lel: f64| Some(reading(Value::Number(lel), Quality::Good, at(200)));
        let refused = plant.carry_out(Action::On, &by("li"), &code, looks(vec![of(12.0), of(40.0)], 200), 200).await;
        let refused = refused.expect_err("gas came in between");
        assert!(refused.text().en.ends_with("does not hold: it is 40"), "{}", refused.text().en);
        assert_eq!(plant.writes(), 0);
    }

    #[tokio::test]
    async fn whatever_comes_of_the_second_step_nothing_is_armed_any_more() {
        for in_doubt in [true, false] {
            let failed = Refused::Failed(Failed { in_doubt, why: "the unit shows 0".to_owned() });
            let plant = Plant::of(settings(), Err(failed.clone()));
            let code = plant.arm(Action::On, "li", 100).code;
            assert_eq!(plant.carry_out(Action::On, &by("li"), &code, well(101), 101).await, Err(failed.clone()));
            // A person that is told that the state on site is unknown must not believe that nothing happened.
            assert_eq!(failed.text().en.contains("have somebody look on site"), in_doubt);
            assert_eq!(failed.text().en.contains("nothing has changed"), !in_doubt);
            assert_eq!(plant.carry_out(Action::On, &by("li"), &code, well(101), 101).await, Err(Refused::NotArmed));
        }
    }
}
