//! The Rhai sandbox in one place: what a script may call, and what it may cost.
//!
//! A rule's script is one function of its inputs to a finding, `fn judge(gas, heat)`, the parameters named as the
//! inputs' roles. It has no state, no I/O and no time; the words it may use are [`VOCABULARY`]. While it runs, the host
//! notes each comparison made through `above`, `below` and `on`, so that the rule set knows for which values the answer
//! would be the same and need not ask again ([`Track`]).
//!
//! This file does not know points or alarms: it sees roles, numbers and names.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anmin_sensors::document::did_you_mean;
use anmin_sensors::reading::{Quality, Value};
use rhai::packages::{ArithmeticPackage, BasicMathPackage, BasicStringPackage, LogicPackage, Package};
use rhai::{AST, CallFnOptions, Dynamic, Engine, EvalAltResult, ImmutableString, NativeCallContext, Position, Scope};

use crate::rule::{Level, RuleSpec};

/// What a script may call: the name, how it is written, what it gives.
pub const VOCABULARY: &[(&str, &str, &str)] = &[
    ("above", "above(point, \"limit\")", "whether the value is at or above the limit; from then on, less the deadband"),
    ("below", "below(point, \"limit\")", "whether the value is at or below the limit; from then on, plus the deadband"),
    ("on", "on(point)", "whether a flag is true (a number: at least 0.5)"),
    ("limit", "limit(\"name\")", "the limit's value as it holds for this subject"),
    ("window", "window(\"name\")", "a window of the rule's file, for above, below, .value and .ok"),
    (
        "count_above",
        "count_above(point, \"limit\")",
        "at how many of the input's points the value is at or above the limit",
    ),
    (
        "between",
        "between(\"22:00\", \"06:00\")",
        "whether the site's clock stands from the first to before the second, over midnight too; asked anew when it comes",
    ),
    ("normal", "normal()", "nothing is wrong"),
    ("blue", "blue() or blue(\"note\")", "abnormal, level IV"),
    ("yellow", "yellow() or yellow(\"note\")", "abnormal, level III"),
    ("orange", "orange() or orange(\"note\")", "abnormal, level II"),
    ("red", "red() or red(\"note\")", "abnormal, level I"),
    ("unknown", "unknown(\"why\")", "the rule cannot judge, which is not normal"),
    ("abs", "abs(number)", "the number without its sign"),
    ("min", "min(a, b)", "the smaller"),
    ("max", "max(a, b)", "the greater"),
    ("round", "round(number)", "the nearest whole number"),
    ("floor", "floor(number)", "the next whole number below"),
    ("ceiling", "ceiling(number)", "the next whole number above"),
    ("sqrt", "sqrt(number)", "the square root"),
    ("to_int", "to_int(number)", "a whole number"),
    ("to_float", "to_float(number)", "a number with decimals"),
    ("to_string", "to_string(value)", "the value as text"),
];

/// What a script may read of an input: `gas.value`.
pub const PROPERTIES: &[(&str, &str)] = &[
    ("value", "the number, flag or text; () when there is none; the rule is then asked anew for each reading"),
    ("unit", "the unit of the value"),
    ("quality", "\"good\", \"uncertain\" or \"bad\""),
    ("age_s", "seconds since it was received; the rule is then asked anew for each reading"),
    ("ok", "whether the quality is good"),
    ("on", "as on(point)"),
    ("present", "whether the site has such a point and it has spoken"),
];

/// What a script may read of a window: `window("rain_3h").value`.
pub const WINDOW_PROPERTIES: &[(&str, &str)] = &[
    ("value", "the number; () while too little is known; the rule is then asked anew for each reading"),
    ("ok", "whether enough is known for a value"),
];

/// Operations that one call may take; some ten times more than the longest rule that we can think of.
pub const MAX_OPERATIONS: u64 = 20_000;
/// Computing time that one call may take where the host gives a [`Stopwatch`]; a hundred times more than the longest
/// shipped rule.
pub const MAX_CALL_TIME: Duration = Duration::from_millis(50);
/// How many operations pass between two looks at the stopwatch: no rule of usual length ever pays for one.
const OPERATIONS_A_LOOK: u64 = 512;

/// The computing time of the calling thread so far. Not the time on the wall: a box that stood still for a second while
/// a rule was judged must not take it for the rule's fault, and park it.
pub type Stopwatch = Arc<dyn Fn() -> Duration + Send + Sync>;
const MAX_CALL_DEPTH: usize = 16;
const MAX_TEXT: usize = 4 * 1024;
const MAX_ITEMS: usize = 256;
/// Longest script in bytes.
const MAX_SCRIPT: usize = 64 * 1024;

/// Why a script cannot be used or has failed, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptError {
    /// From 1; 0 when the place is not known.
    pub line: usize,
    pub column: usize,
    /// Lower case, no full stop.
    pub message: String,
    pub hint: Option<String>,
}

/// A compiled script.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    ast: Arc<AST>,
    /// Asks for the time of the day.
    pub calendar: bool,
    /// Where `judge` stands, for errors that have no place of their own.
    at: (usize, usize),
}

/// What a script says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Answer {
    pub verdict: Opinion,
    pub note: Option<Arc<str>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opinion {
    Normal,
    Abnormal(Level),
    Unknown,
}

/// For which values of one input every comparison made so far would come out the same: `low <= value < high`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Track {
    pub low: f64,
    pub high: f64,
    /// The script read the value itself: no other value is known to give the same answer.
    pub read: bool,
    /// The answer rests on this input in some way.
    pub used: bool,
}

impl Default for Track {
    fn default() -> Self {
        Self { low: f64::NEG_INFINITY, high: f64::INFINITY, read: false, used: false }
    }
}

impl Track {
    fn at_least(&mut self, value: f64, limit: f64) -> bool {
        let yes = value >= limit;
        if yes {
            self.low = self.low.max(limit);
        } else {
            self.high = self.high.min(limit);
        }
        yes
    }

    fn at_most(&mut self, value: f64, limit: f64) -> bool {
        !self.at_least(value, limit.next_up())
    }
}

/// One point that an input stands for.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    /// `None` when it is not to be used: bad, or never spoken.
    pub value: Option<Value>,
    pub quality: Quality,
    pub age_s: f64,
    pub track: Track,
}

/// One input: no member when the site has no such point, several when a room has several.
#[derive(Clone, Debug, Default)]
pub(crate) struct Role {
    pub members: Vec<Member>,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    /// `None` while too little is known.
    pub value: Option<f64>,
    pub track: Track,
}

/// How far a broken limit moves back until it counts as kept again.
#[derive(Clone, Copy, Debug)]
enum Band {
    /// By the deadband of the rule, which is in the subject's unit: for the subject alone.
    Subject,
    /// By its own.
    Own(f64),
}

/// The names that a script may use, taken from its rule.
#[derive(Debug, Default)]
pub(crate) struct Names {
    roles: Vec<String>,
    units: Vec<&'static str>,
    limits: Vec<(String, Option<Level>, Band)>,
    /// With the position of the input that is watched.
    windows: Vec<(String, usize)>,
}

impl Names {
    pub(crate) fn of(spec: &RuleSpec) -> Self {
        Self {
            roles: spec.inputs.iter().map(|input| input.role.clone()).collect(),
            units: spec.inputs.iter().map(|input| input.kind.info().unit).collect(),
            limits: spec
                .limits
                .iter()
                .map(|(name, limit)| {
                    let same_unit = spec.inputs.first().is_some_and(|input| input.kind.info().unit == limit.unit);
                    let band = match limit.deadband {
                        Some(own) => Band::Own(own),
                        None if same_unit => Band::Subject,
                        None => Band::Own(0.0),
                    };
                    (name.clone(), limit.level, band)
                })
                .collect(),
            windows: spec
                .windows
                .iter()
                .map(|window| {
                    let role = spec.inputs.iter().position(|input| input.role == window.input);
                    (window.name.clone(), role.unwrap_or(0))
                })
                .collect(),
        }
    }
}

/// All that one call sees, and what the host notes about it.
#[derive(Debug, Default)]
pub(crate) struct Frame {
    pub names: Arc<Names>,
    pub roles: Vec<Role>,
    pub windows: Vec<Seen>,
    pub limits: Vec<f64>,
    pub deadband: f64,
    /// The level at which the alarm stands now or waits for its on-delay.
    pub active: Option<Level>,
    /// The limit whose comparison was the last to say yes.
    pub decisive: Option<u16>,
    /// What the site's clock shows, in seconds since midnight.
    pub second_of_day: u32,
    /// Seconds until the clock shows something else to the script.
    pub until: Option<u32>,
    /// The script asked for an age: its answer holds for this moment only.
    pub timed: bool,
}

impl Frame {
    fn limit(&self, name: &str) -> Result<usize, String> {
        self.names.limits.iter().position(|(known, ..)| known == name).ok_or_else(|| {
            let hint = did_you_mean(name, self.names.limits.iter().map(|(known, ..)| known.as_str()));
            with_hint(format!("there is no limit `{name}`"), hint)
        })
    }

    /// The limit as it stands in this moment: moved by the deadband while the alarm stands at its level or above, or is about to.
    fn moved(&self, limit: usize, up: bool, of_subject: bool) -> f64 {
        let (_, level, band) = &self.names.limits[limit];
        let held = self.active.is_some_and(|active| level.is_none_or(|level| active >= level));
        let by = match band {
            Band::Own(own) => *own,
            Band::Subject if of_subject => self.deadband,
            Band::Subject => 0.0,
        };
        match (held, up) {
            (false, _) => self.limits[limit],
            (true, true) => self.limits[limit] - by,
            (true, false) => self.limits[limit] + by,
        }
    }

    /// At how many of the input's points the comparison says yes.
    fn compare(&mut self, role: usize, name: &str, above: bool) -> Result<i64, String> {
        let limit = self.limit(name)?;
        let at = self.moved(limit, above, role == 0);
        let mut count = 0;
        // Each member is asked, also after a yes: only then is it known for which values of each the answer holds.
        for member in &mut self.roles[role].members {
            member.track.used = true;
            if let Some(value) = &member.value {
                let number =
                    value.as_f64().ok_or_else(|| format!("`{}` is text and has no limit", self.names.roles[role]))?;
                let yes = if above { member.track.at_least(number, at) } else { member.track.at_most(number, at) };
                count += i64::from(yes);
            }
        }
        self.decide(count > 0, limit);
        Ok(count)
    }

    fn compare_window(&mut self, window: usize, name: &str, above: bool) -> Result<bool, String> {
        let limit = self.limit(name)?;
        let of_subject = self.names.windows[window].1 == 0;
        let at = self.moved(limit, above, of_subject);
        let seen = &mut self.windows[window];
        seen.track.used = true;
        let yes = match seen.value {
            None => false,
            Some(value) if above => seen.track.at_least(value, at),
            Some(value) => seen.track.at_most(value, at),
        };
        self.decide(yes, limit);
        Ok(yes)
    }

    fn between(&mut self, from: &str, to: &str) -> Result<bool, String> {
        let second = |text: &str| {
            let (hours, minutes) = text.split_once(':')?;
            let (hours, minutes) = (hours.parse::<u32>().ok()?, minutes.parse::<u32>().ok()?);
            (hours < 24 && minutes < 60).then_some(hours * 3600 + minutes * 60)
        };
        let parse = |text: &str| {
            let hint = Some("write hours and minutes: between(\"22:00\", \"06:00\")".to_owned());
            second(text).ok_or_else(|| with_hint(format!("{text:?} is no time of the day"), hint))
        };
        let (from, to, now) = (parse(from)?, parse(to)?, self.second_of_day);
        for edge in [from, to] {
            let left = if edge > now { edge - now } else { edge + 86_400 - now };
            self.until = Some(self.until.map_or(left, |until| until.min(left)));
        }
        Ok(if from <= to { (from..to).contains(&now) } else { now >= from || now < to })
    }

    fn decide(&mut self, yes: bool, limit: usize) {
        if yes {
            self.decisive = u16::try_from(limit).ok();
        }
    }

    fn is_on(&mut self, role: usize) -> Result<bool, String> {
        let mut any = false;
        for member in &mut self.roles[role].members {
            member.track.used = true;
            if let Some(value) = &member.value {
                let number = value
                    .as_f64()
                    .ok_or_else(|| format!("`{}` is text, neither on nor off", self.names.roles[role]))?;
                any |= member.track.at_least(number, 0.5);
            }
        }
        Ok(any)
    }

    /// The value of the input; of several the greatest.
    fn value(&mut self, role: usize) -> Dynamic {
        let mut found: Option<&Value> = None;
        for member in &mut self.roles[role].members {
            member.track.used = true;
            member.track.read = true;
            if let Some(value) = &member.value
                && found.is_none_or(|best| value.as_f64() > best.as_f64())
            {
                found = Some(value);
            }
        }
        match found {
            None => Dynamic::UNIT,
            Some(Value::Number(number)) => Dynamic::from_float(*number),
            Some(Value::Flag(flag)) => Dynamic::from_bool(*flag),
            Some(Value::Text(text)) => {
                let end = text.char_indices().map(|(at, _)| at).find(|at| *at + 4 > MAX_TEXT).unwrap_or(text.len());
                Dynamic::from(ImmutableString::from(&text[..end]))
            }
        }
    }

    /// The best quality among the input's points; bad when there is none.
    fn quality(&mut self, role: usize) -> &'static str {
        let mut best = "bad";
        for member in &mut self.roles[role].members {
            member.track.used = true;
            match member.quality {
                Quality::Good => best = "good",
                Quality::Uncertain(_) if best == "bad" => best = "uncertain",
                Quality::Uncertain(_) | Quality::Bad(_) => {}
            }
        }
        best
    }

    fn age_s(&mut self, role: usize) -> f64 {
        self.timed = true;
        self.roles[role].members.iter().map(|member| member.age_s).fold(f64::INFINITY, f64::min).min(1e12)
    }
}

/// An input as a script holds it.
#[derive(Clone, Copy, Debug)]
struct Probe(u8);

/// A window as a script holds it.
#[derive(Clone, Copy, Debug)]
struct WindowProbe(u8);

/// What a script must return.
#[derive(Clone, Debug)]
struct Said(Opinion, Option<ImmutableString>);

/// The frame as it travels through Rhai, as the tag of a call.
#[derive(Clone)]
struct Tag(Arc<Mutex<Frame>>);

type ScriptResult<T> = Result<T, Box<EvalAltResult>>;

fn lock(frame: &Mutex<Frame>) -> MutexGuard<'_, Frame> {
    // A panic in the middle of a call leaves a frame that is filled anew before the next.
    frame.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `ask` on the frame of this call; its text becomes an error of the script.
fn ask<T>(context: &NativeCallContext<'_>, ask: impl FnOnce(&mut Frame) -> Result<T, String>) -> ScriptResult<T> {
    let tag = context.tag().and_then(|tag| tag.read_lock::<Tag>()).ok_or("called outside a rule")?;
    ask(&mut lock(&tag.0)).map_err(Into::into)
}

fn with_hint(message: String, hint: Option<String>) -> String {
    match hint {
        // Cut in two again where the error leaves the sandbox.
        Some(hint) => format!("{message}{HINT}{hint}"),
        None => message,
    }
}

const HINT: &str = "\n  hint: ";

/// The one place where an engine for rules is made: nothing but numbers, texts and the vocabulary, within limits.
fn harden() -> Engine {
    let mut engine = Engine::new_raw();
    // No LanguageCorePackage: it holds sleep, exit and tags. No iterators, arrays, maps, bit fields, files, clocks.
    engine
        .register_global_module(ArithmeticPackage::new().as_shared_module())
        .register_global_module(LogicPackage::new().as_shared_module())
        .register_global_module(BasicMathPackage::new().as_shared_module())
        .register_global_module(BasicStringPackage::new().as_shared_module());
    for word in ["eval", "print", "debug", "Fn", "call", "curry", "type_of", "is_def_var", "is_def_fn", "is_shared"] {
        engine.disable_symbol(word);
    }
    engine
        .set_max_operations(MAX_OPERATIONS)
        .set_max_call_levels(MAX_CALL_DEPTH)
        .set_max_expr_depths(32, 16)
        .set_max_string_size(MAX_TEXT)
        .set_max_array_size(MAX_ITEMS)
        .set_max_map_size(MAX_ITEMS)
        .set_max_variables(64)
        .set_max_functions(32)
        .set_strict_variables(true)
        .set_allow_anonymous_fn(false);
    finite_numbers(&mut engine);
    watch(&mut engine, None);
    engine.on_print(|_| {}).on_debug(|_, _, _| {});

    engine
        .register_type_with_name::<Probe>("point")
        .register_type_with_name::<WindowProbe>("window")
        .register_type_with_name::<Said>("finding");
    engine
        .register_fn("above", |context: NativeCallContext, point: Probe, name: ImmutableString| {
            ask(&context, |frame| Ok(frame.compare(usize::from(point.0), &name, true)? > 0))
        })
        .register_fn("below", |context: NativeCallContext, point: Probe, name: ImmutableString| {
            ask(&context, |frame| Ok(frame.compare(usize::from(point.0), &name, false)? > 0))
        })
        .register_fn("above", |context: NativeCallContext, window: WindowProbe, name: ImmutableString| {
            ask(&context, |frame| frame.compare_window(usize::from(window.0), &name, true))
        })
        .register_fn("below", |context: NativeCallContext, window: WindowProbe, name: ImmutableString| {
            ask(&context, |frame| frame.compare_window(usize::from(window.0), &name, false))
        })
        .register_fn("count_above", |context: NativeCallContext, point: Probe, name: ImmutableString| {
            ask(&context, |frame| frame.compare(usize::from(point.0), &name, true))
        })
        .register_fn("on", |context: NativeCallContext, point: Probe| {
            ask(&context, |frame| frame.is_on(usize::from(point.0)))
        })
        .register_fn("limit", |context: NativeCallContext, name: ImmutableString| {
            ask(&context, |frame| frame.limit(&name).map(|limit| frame.limits[limit]))
        })
        .register_fn("between", |context: NativeCallContext, from: ImmutableString, to: ImmutableString| {
            ask(&context, |frame| frame.between(&from, &to))
        })
        .register_fn("window", |context: NativeCallContext, name: ImmutableString| {
            ask(&context, |frame| {
                let known = frame.names.windows.iter().map(|(known, _)| known.as_str());
                match known.clone().position(|known| known == name.as_str()) {
                    Some(at) => Ok(WindowProbe(at as u8)),
                    None => Err(with_hint(format!("there is no window `{name}`"), did_you_mean(&name, known))),
                }
            })
        });
    engine
        .register_get("value", |context: NativeCallContext, point: &mut Probe| {
            ask(&context, |frame| Ok(frame.value(usize::from(point.0))))
        })
        .register_get("unit", |context: NativeCallContext, point: &mut Probe| {
            ask(&context, |frame| Ok(ImmutableString::from(frame.names.units[usize::from(point.0)])))
        })
        .register_get("quality", |context: NativeCallContext, point: &mut Probe| {
            ask(&context, |frame| Ok(ImmutableString::from(frame.quality(usize::from(point.0)))))
        })
        .register_get("ok", |context: NativeCallContext, point: &mut Probe| {
            ask(&context, |frame| Ok(frame.quality(usize::from(point.0)) == "good"))
        })
        .register_get("age_s", |context: NativeCallContext, point: &mut Probe| {
            ask(&context, |frame| Ok(frame.age_s(usize::from(point.0))))
        })
        .register_get("on", |context: NativeCallContext, point: &mut Probe| {
            ask(&context, |frame| frame.is_on(usize::from(point.0)))
        })
        .register_get("present", |context: NativeCallContext, point: &mut Probe| {
            ask(&context, |frame| Ok(!frame.roles[usize::from(point.0)].members.is_empty()))
        })
        .register_get("value", |context: NativeCallContext, window: &mut WindowProbe| {
            ask(&context, |frame| {
                let seen = &mut frame.windows[usize::from(window.0)];
                (seen.track.used, seen.track.read) = (true, true);
                Ok(seen.value.map_or(Dynamic::UNIT, Dynamic::from_float))
            })
        })
        .register_get("ok", |context: NativeCallContext, window: &mut WindowProbe| {
            ask(&context, |frame| {
                let seen = &mut frame.windows[usize::from(window.0)];
                seen.track.used = true;
                Ok(seen.value.is_some())
            })
        });
    engine
        .register_fn("normal", || Said(Opinion::Normal, None))
        .register_fn("normal", |note: ImmutableString| Said(Opinion::Normal, Some(note)))
        .register_fn("unknown", |why: ImmutableString| Said(Opinion::Unknown, Some(why)));
    for level in Level::ALL {
        engine
            .register_fn(level.as_str(), move || Said(Opinion::Abnormal(level), None))
            .register_fn(level.as_str(), move |note: ImmutableString| Said(Opinion::Abnormal(level), Some(note)));
    }
    engine
}

/// Arithmetic that fails where it would give NaN or an infinity: NaN is neither above nor below anything, so a rule that
/// divided by zero would say "normal".
fn finite_numbers(engine: &mut Engine) {
    fn finite(sign: &str, result: f64) -> ScriptResult<f64> {
        if result.is_finite() {
            Ok(result)
        } else {
            Err(format!("the result of `{sign}` is not a finite number").into())
        }
    }
    // Off, because the built-in operators would go before ours.
    engine.set_fast_operators(false);
    type Operation = fn(f64, f64) -> f64;
    let operations: [(&'static str, &'static str, Operation); 6] = [
        ("+", "+=", |a, b| a + b),
        ("-", "-=", |a, b| a - b),
        ("*", "*=", |a, b| a * b),
        ("/", "/=", |a, b| a / b),
        ("%", "%=", |a, b| a % b),
        ("**", "**=", f64::powf),
    ];
    for (sign, assign, operation) in operations {
        engine
            .register_fn(sign, move |a: f64, b: f64| finite(sign, operation(a, b)))
            .register_fn(sign, move |a: f64, b: i64| finite(sign, operation(a, b as f64)))
            .register_fn(sign, move |a: i64, b: f64| finite(sign, operation(a as f64, b)))
            .register_fn(assign, move |a: &mut f64, b: f64| {
                *a = finite(sign, operation(*a, b))?;
                ScriptResult::Ok(())
            })
            .register_fn(assign, move |a: &mut f64, b: i64| {
                *a = finite(sign, operation(*a, b as f64))?;
                ScriptResult::Ok(())
            });
    }
    engine.register_fn("sqrt", |number: f64| finite("sqrt", number.sqrt()));
}

/// Ends a call that takes too long. The operations' limit stops what it counts; this stops the rest as well, should a
/// package forget to count, or one operation be dearer than anybody thought.
fn watch(engine: &mut Engine, stopwatch: Option<Stopwatch>) {
    let began = AtomicU64::new(0);
    engine.on_progress(move |operations| {
        if operations > MAX_OPERATIONS {
            return Some(Dynamic::UNIT);
        }
        let stopwatch = stopwatch.as_ref().filter(|_| operations.is_multiple_of(OPERATIONS_A_LOOK))?;
        let now = u64::try_from(stopwatch().as_nanos()).unwrap_or(u64::MAX);
        if operations == OPERATIONS_A_LOOK {
            began.store(now, Ordering::Relaxed);
        }
        let took = Duration::from_nanos(now.saturating_sub(began.load(Ordering::Relaxed)));
        (took > MAX_CALL_TIME).then(|| Dynamic::from(TOOK_TOO_LONG))
    });
}

/// The token of a call that the stopwatch ended.
const TOOK_TOO_LONG: &str = "time";

/// Compiles and calls the scripts of one rule set.
pub(crate) struct Sandbox {
    engine: Engine,
    frame: Arc<Mutex<Frame>>,
    tag: Dynamic,
    scope: Scope<'static>,
    /// Equal texts are compiled once: a site with thousands of rules has few scripts.
    compiled: HashMap<String, Arc<AST>>,
    /// Whether the last call ended at a limit, or in a panic: the same again would cost as much.
    pub exceeded: bool,
}

impl Default for Sandbox {
    fn default() -> Self {
        let frame = Arc::new(Mutex::new(Frame::default()));
        Self {
            engine: harden(),
            tag: Dynamic::from(Tag(Arc::clone(&frame))),
            frame,
            scope: Scope::new(),
            compiled: HashMap::new(),
            exceeded: false,
        }
    }
}

impl Sandbox {
    /// Has calls end that take longer than [`MAX_CALL_TIME`].
    pub(crate) fn set_stopwatch(&mut self, stopwatch: Stopwatch) {
        watch(&mut self.engine, Some(stopwatch));
    }

    /// Compiles a rule's script; the errors are all that can be seen without running it.
    pub(crate) fn compile(&mut self, text: &str, names: &Names) -> Result<Script, Vec<ScriptError>> {
        if text.len() > MAX_SCRIPT {
            let message = format!("the script has {} bytes, at most {MAX_SCRIPT} are allowed", text.len());
            return Err(vec![ScriptError { line: 0, column: 0, message, hint: None }]);
        }
        let ast = match self.compiled.get(text) {
            Some(ast) => Arc::clone(ast),
            None => {
                let compiled = catch_unwind(AssertUnwindSafe(|| self.engine.compile(text)));
                let ast = match compiled {
                    Ok(Ok(ast)) => Arc::new(ast),
                    Ok(Err(error)) => {
                        let (message, hint) = forbidden(&error.to_string());
                        return Err(vec![place(error.position(), message, hint)]);
                    }
                    Err(_) => {
                        return Err(vec![place(
                            Position::NONE,
                            "the script makes the compiler panic".to_owned(),
                            None,
                        )]);
                    }
                };
                self.compiled.insert(text.to_owned(), Arc::clone(&ast));
                ast
            }
        };
        let mut errors = words::check(text, names);
        let at = words::judge(text);
        let usage = || Some(format!("write `fn judge({})`", names.roles.join(", ")));
        match ast.iter_functions().find(|function| function.name == "judge") {
            None => errors.push(place(Position::NONE, "there is no function `judge`".to_owned(), usage())),
            Some(judge) if judge.params != names.roles => {
                let (took, has) = (judge.params.join(", "), names.roles.join(", "));
                let message = format!("`judge` takes ({took}), but the rule's inputs are ({has})");
                errors.push(ScriptError { line: at.0, column: at.1, message, hint: usage() });
            }
            Some(_) => {}
        }
        if errors.is_empty() { Ok(Script { ast, calendar: words::uses(text, "between"), at }) } else { Err(errors) }
    }

    /// Forgets the texts; scripts stay as they are.
    pub(crate) fn forget_texts(&mut self) {
        self.compiled = HashMap::new();
    }

    /// The frame that the next call sees, to be filled; then what was noted.
    pub(crate) fn frame(&self) -> MutexGuard<'_, Frame> {
        lock(&self.frame)
    }

    /// Calls `judge` on the frame.
    pub(crate) fn call(&mut self, script: &Script) -> Result<Answer, ScriptError> {
        self.try_call(script).map_err(|error| match error.line {
            0 => ScriptError { line: script.at.0, column: script.at.1, ..error },
            _ => error,
        })
    }

    fn try_call(&mut self, script: &Script) -> Result<Answer, ScriptError> {
        let roles = {
            let mut frame = self.frame();
            frame.decisive = None;
            frame.timed = false;
            frame.until = None;
            frame.roles.len()
        };
        let arguments: Vec<Dynamic> = (0..roles).map(|role| Dynamic::from(Probe(role as u8))).collect();
        let options = CallFnOptions::new().eval_ast(false).rewind_scope(true).with_tag(self.tag.clone());
        let (engine, scope) = (&self.engine, &mut self.scope);
        let called = catch_unwind(AssertUnwindSafe(|| {
            engine.call_fn_with_options::<Dynamic>(options, scope, &script.ast, "judge", arguments)
        }));
        self.exceeded = match &called {
            Ok(Ok(_)) => false,
            Ok(Err(error)) => matches!(
                error.unwrap_inner(),
                EvalAltResult::ErrorTooManyOperations(_)
                    | EvalAltResult::ErrorTerminated(..)
                    | EvalAltResult::ErrorStackOverflow(_)
                    | EvalAltResult::ErrorDataTooLarge(..)
            ),
            Err(_) => true,
        };
        match called {
            Ok(Ok(result)) => {
                let kind = result.type_name();
                match result.try_cast::<Said>() {
                    Some(Said(verdict, note)) => {
                        Ok(Answer { verdict, note: note.map(|note| Arc::from(note.as_str())) })
                    }
                    None => {
                        let message = format!("`judge` returned {}, expected a finding", plain_type(kind));
                        let hint =
                            "end with normal(), blue(), yellow(), orange(), red() or unknown(\"why\")".to_owned();
                        Err(place(Position::NONE, message, Some(hint)))
                    }
                }
            }
            Ok(Err(error)) => Err(run_error(&error)),
            Err(_) => {
                self.scope = Scope::new();
                Err(place(Position::NONE, "the script made the engine panic".to_owned(), None))
            }
        }
    }
}

fn place(position: Position, message: String, hint: Option<String>) -> ScriptError {
    ScriptError { line: position.line().unwrap_or(0), column: position.position().unwrap_or(0), message, hint }
}

fn plain_type(name: &str) -> &str {
    if name == "()" { "nothing" } else { name.rsplit("::").next().unwrap_or(name) }
}

/// How a function of the vocabulary is written.
fn usage(name: &str) -> Option<&'static str> {
    VOCABULARY.iter().find(|(known, _, _)| *known == name).map(|(_, usage, _)| *usage)
}

/// "did you mean `above(point, "limit")`?", or what to use instead of a word that is refused on purpose.
fn function_hint(name: &str) -> Option<String> {
    let refused = match name {
        "print" | "debug" => "a rule prints nowhere; give the finding a note: red(\"...\")",
        "sleep" | "timestamp" | "now" => {
            "a rule knows no time but between(\"22:00\", \"06:00\"); declare on_delay or a [[window]] in the rule's file"
        }
        "eval" | "import" | "Fn" | "call" | "curry" => "a rule is one file with its own functions",
        _ => "",
    };
    if !refused.is_empty() {
        return Some(refused.to_owned());
    }
    let near = did_you_mean(name, VOCABULARY.iter().map(|(known, _, _)| *known))?;
    let found = VOCABULARY.iter().find(|(known, _, _)| near.contains(&format!("`{known}`")))?;
    Some(format!("did you mean `{}`?", found.1))
}

/// Words that the compiler refuses get our own hint.
fn forbidden(message: &str) -> (String, Option<String>) {
    let plain = message.split(" (line ").next().unwrap_or(message);
    let word = plain.split('\'').nth(1).unwrap_or_default();
    (lower_first(plain), function_hint(word).filter(|hint| !hint.starts_with("did you mean")))
}

fn lower_first(text: &str) -> String {
    let mut letters = text.chars();
    match (letters.next(), letters.as_str().chars().next()) {
        // An abbreviation or a name keeps its capitals.
        (Some(first), Some(second)) if second.is_lowercase() || second == ' ' => {
            first.to_lowercase().chain(letters).collect()
        }
        _ => text.to_owned(),
    }
}

fn run_error(error: &EvalAltResult) -> ScriptError {
    let inner = error.unwrap_inner();
    let position = if inner.position().is_none() { error.position() } else { inner.position() };
    let (message, hint) = match inner {
        EvalAltResult::ErrorTerminated(token, _) if token.is_string() => (
            format!("the script takes more than {} ms of computing time", MAX_CALL_TIME.as_millis()),
            Some("which of its operations is so dear?".to_owned()),
        ),
        EvalAltResult::ErrorTooManyOperations(_) | EvalAltResult::ErrorTerminated(..) => (
            format!("the script takes more than {MAX_OPERATIONS} operations"),
            Some("does a loop never end?".to_owned()),
        ),
        EvalAltResult::ErrorStackOverflow(_) => (
            format!("functions call each other more than {MAX_CALL_DEPTH} deep"),
            Some("does a function call itself for ever?".to_owned()),
        ),
        EvalAltResult::ErrorFunctionNotFound(signature, _) => {
            let name = signature.split(" (").next().unwrap_or(signature);
            match usage(name) {
                Some(usage) => (format!("`{name}` cannot be called as {signature}"), Some(format!("write {usage}"))),
                None => (format!("there is no function `{name}`"), function_hint(name)),
            }
        }
        EvalAltResult::ErrorRuntime(text, _) => {
            let text = text.to_string();
            match text.split_once(HINT) {
                Some((message, hint)) => (message.to_owned(), Some(hint.to_owned())),
                None => (text, None),
            }
        }
        other => {
            let text = other.to_string();
            (lower_first(text.split(" (line ").next().unwrap_or(&text)), None)
        }
    };
    place(position, message, hint)
}

/// What can be known of a script by its words alone: functions, limits, windows and properties that there are not.
/// Rhai itself looks a function up only when it is called, which in a rule may be years later.
mod words {
    use super::{Names, PROPERTIES, ScriptError, VOCABULARY, did_you_mean, function_hint};

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Token<'t> {
        Word(&'t str),
        Text(&'t str),
        Sign(char),
    }

    #[derive(Clone, Copy, Debug)]
    struct Word<'t> {
        token: Token<'t>,
        line: usize,
        column: usize,
    }

    const KEYWORDS: &[&str] = &[
        "if", "else", "while", "loop", "do", "until", "for", "in", "return", "throw", "switch", "fn", "private", "let",
        "const", "true", "false", "try", "catch", "break", "continue", "this", "global",
    ];

    pub(super) fn check(text: &str, names: &Names) -> Vec<ScriptError> {
        let words = split(text);
        let mut errors = Vec::new();
        let mut note = |at: &Word<'_>, message: String, hint: Option<String>| {
            errors.push(ScriptError { line: at.line, column: at.column, message, hint });
        };
        let token = |at: usize| words.get(at).map(|word| word.token);
        let own: Vec<&str> = (1..words.len())
            .filter(|&at| token(at - 1) == Some(Token::Word("fn")))
            .filter_map(|at| if let Some(Token::Word(name)) = token(at) { Some(name) } else { None })
            .collect();
        let (mut depth, mut header) = (0_usize, false);
        for (at, word) in words.iter().enumerate() {
            match word.token {
                Token::Word("fn" | "private") if depth == 0 => header = true,
                Token::Sign('{') => {
                    depth += 1;
                    header = false;
                }
                Token::Sign('}') => depth = depth.saturating_sub(1),
                _ if depth == 0 && !header => {
                    note(word, "only functions may stand here".to_owned(), Some("put it into `judge`".to_owned()));
                    // One such fault is enough.
                    header = true;
                }
                Token::Word(name) if token(at + 1) == Some(Token::Sign('(')) => {
                    let defined = at > 0 && token(at - 1) == Some(Token::Word("fn"));
                    let known = VOCABULARY.iter().any(|(known, _, _)| *known == name);
                    if defined && known {
                        note(word, format!("`{name}` is a word of the vocabulary and cannot be defined anew"), None);
                    } else if !defined && !known && !KEYWORDS.contains(&name) && !own.contains(&name) {
                        note(word, format!("there is no function `{name}`"), function_hint(name));
                    }
                    argument(&words, at, name, names, &mut note);
                }
                Token::Word(name)
                    if at >= 2
                        && token(at - 1) == Some(Token::Sign('.'))
                        && matches!(token(at - 2), Some(Token::Word(role)) if names.roles.iter().any(|known| known == role))
                        && !PROPERTIES.iter().any(|(known, _)| *known == name) =>
                {
                    let hint = did_you_mean(name, PROPERTIES.iter().map(|(known, _)| *known));
                    note(word, format!("an input has no `{name}`"), hint);
                }
                _ => {}
            }
        }
        errors
    }

    /// Line and column of `judge` where it is defined; zeros when it is not.
    pub(super) fn judge(text: &str) -> (usize, usize) {
        let words = split(text);
        let defined =
            words.windows(2).find(|pair| pair[0].token == Token::Word("fn") && pair[1].token == Token::Word("judge"));
        defined.map_or((0, 0), |pair| (pair[1].line, pair[1].column))
    }

    /// Whether the script calls a function.
    pub(super) fn uses(text: &str, name: &str) -> bool {
        split(text).iter().any(|word| word.token == Token::Word(name))
    }

    /// Checks the name that `above`, `below`, `count_above`, `limit` or `window` ends with, where it stands there as a plain text.
    fn argument(
        words: &[Word<'_>],
        at: usize,
        name: &str,
        names: &Names,
        note: &mut impl FnMut(&Word<'_>, String, Option<String>),
    ) {
        let limits = matches!(name, "above" | "below" | "count_above" | "limit");
        if !limits && name != "window" {
            return;
        }
        let mut open = 0_usize;
        for end in at + 1..words.len() {
            match words[end].token {
                Token::Sign('(') => open += 1,
                Token::Sign(')') => {
                    open -= 1;
                    if open == 0 {
                        if let Token::Text(text) = words[end - 1].token
                            && !text.contains('\\')
                        {
                            let known: Vec<&str> = if limits {
                                names.limits.iter().map(|(name, ..)| name.as_str()).collect()
                            } else {
                                names.windows.iter().map(|(name, _)| name.as_str()).collect()
                            };
                            if !known.contains(&text) {
                                let what = if limits { "limit" } else { "window" };
                                let hint = did_you_mean(text, known.iter().copied()).or_else(|| {
                                    Some(if known.is_empty() {
                                        format!("the rule's file declares no {what}")
                                    } else {
                                        format!("the rule's file declares {}", known.join(", "))
                                    })
                                });
                                note(&words[end - 1], format!("there is no {what} `{text}`"), hint);
                            }
                        }
                        return;
                    }
                }
                _ => {}
            }
        }
    }

    /// Words, texts and signs of a script that Rhai has accepted; numbers and comments are left out.
    fn split(text: &str) -> Vec<Word<'_>> {
        let letters: Vec<(usize, char)> = text.char_indices().collect();
        let byte = |at: usize| letters.get(at).map_or(text.len(), |(byte, _)| *byte);
        let get = |at: usize| letters.get(at).map(|(_, letter)| *letter);
        let (mut line, mut line_start) = (1, 0);
        let mut words = Vec::new();
        let mut at = 0;
        while let Some(letter) = get(at) {
            let (start, start_line, start_column) = (at, line, at - line_start + 1);
            let mut push = |token| words.push(Word { token, line: start_line, column: start_column });
            match letter {
                '/' if get(at + 1) == Some('/') => {
                    while get(at).is_some_and(|letter| letter != '\n') {
                        at += 1;
                    }
                }
                '/' if get(at + 1) == Some('*') => {
                    let mut open = 0_usize;
                    while let Some(letter) = get(at) {
                        match (letter, get(at + 1)) {
                            ('/', Some('*')) => {
                                open += 1;
                                at += 1;
                            }
                            ('*', Some('/')) => {
                                open -= 1;
                                at += 1;
                            }
                            ('\n', _) => {
                                line += 1;
                                line_start = at + 1;
                            }
                            _ => {}
                        }
                        at += 1;
                        if open == 0 {
                            break;
                        }
                    }
                }
                '"' | '`' | '\'' => {
                    at += 1;
                    while let Some(inside) = get(at) {
                        if inside == letter {
                            break;
                        }
                        if inside == '\\' && letter != '`' {
                            at += 1;
                        }
                        if get(at) == Some('\n') {
                            line += 1;
                            line_start = at + 1;
                        }
                        at += 1;
                    }
                    push(Token::Text(text.get(byte(start + 1)..byte(at)).unwrap_or_default()));
                    at += 1;
                }
                letter if letter.is_alphabetic() || letter == '_' => {
                    while get(at).is_some_and(|letter| letter.is_alphanumeric() || letter == '_') {
                        at += 1;
                    }
                    push(Token::Word(&text[byte(start)..byte(at)]));
                }
                letter if letter.is_ascii_digit() => {
                    while get(at).is_some_and(|letter| letter.is_alphanumeric() || letter == '_') {
                        at += 1;
                    }
                }
                '\n' => {
                    at += 1;
                    line += 1;
                    line_start = at;
                }
                letter => {
                    if !letter.is_whitespace() {
                        push(Token::Sign(letter));
                    }
                    at += 1;
                }
            }
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use anmin_sensors::point::Kind;

    use super::*;
    use crate::rule::{Input, Limit, Measure, OnBad, RuleId, Scope, Text, Window};

    fn spec() -> RuleSpec {
        let input = |role: &str, kind| Input {
            role: role.to_owned(),
            kind: Kind::named(kind).expect("a known kind"),
            scope: Scope::Room,
            optional: role != "gas",
            points: Vec::new(),
        };
        let limit =
            |value| Limit { value, unit: "%LEL".to_owned(), source: Text::both("test"), level: None, deadband: None };
        RuleSpec {
            id: RuleId::new("gas/test"),
            title: Text::default(),
            hazard: None,
            opens: None,
            inputs: vec![input("gas", "gas.lel"), input("text", "device.text")],
            windows: vec![Window {
                name: "hour".to_owned(),
                measure: Measure::Sum,
                input: "gas".to_owned(),
                minus: None,
                over: Duration::from_secs(3600),
                limit: None,
                least: Duration::ZERO,
            }],
            limits: BTreeMap::from([("low".to_owned(), limit(10.0)), ("high".to_owned(), limit(20.0))]),
            on_delay: Duration::ZERO,
            off_delay: Duration::ZERO,
            deadband: 0.0,
            latch: false,
            on_bad: OnBad::Fault,
            escalate_after: None,
            realarm_after: None,
            message: Text::default(),
            advice: Text::default(),
        }
    }

    /// Compiles and calls a script with gas at 15 and a text "hello".
    fn run(script: &str) -> Result<Answer, ScriptError> {
        run_in(&mut Sandbox::default(), script)
    }

    fn run_in(sandbox: &mut Sandbox, script: &str) -> Result<Answer, ScriptError> {
        let names = Arc::new(Names::of(&spec()));
        let script = sandbox.compile(script, &names).map_err(|mut errors| errors.remove(0))?;
        {
            let mut frame = sandbox.frame();
            let member =
                |value| Member { value: Some(value), quality: Quality::Good, age_s: 2.5, track: Track::default() };
            *frame = Frame {
                names,
                roles: vec![
                    Role { members: vec![member(Value::Number(15.0))] },
                    Role { members: vec![member(Value::Text("hello".into()))] },
                ],
                windows: vec![Seen { value: Some(42.0), track: Track::default() }],
                // In the order of their names: high, low.
                limits: vec![20.0, 10.0],
                ..Frame::default()
            };
        }
        sandbox.call(&script)
    }

    fn judge(body: &str) -> String {
        format!("fn judge(gas, text) {{\n{body}\n}}\n")
    }

    #[test]
    fn the_vocabulary_says_what_it_says() {
        for (body, expected) in [
            ("if above(gas, \"low\") { red() } else { normal() }", "red"),
            ("if gas.above(\"high\") { red() } else { normal() }", "normal"),
            ("if below(gas, \"high\") { orange(\"cold\") } else { normal() }", "orange cold"),
            ("if on(gas) { yellow() } else { normal() }", "yellow"),
            ("blue(`${gas.value} ${gas.unit} ${gas.quality}`)", "blue 15.0 %LEL good"),
            ("if text.value == \"hello\" && text.present { blue() } else { normal() }", "blue"),
            ("if above(window(\"hour\"), \"high\") { blue() } else { normal() }", "blue"),
            ("if window(\"hour\").value + limit(\"low\") == 52.0 { blue() } else { normal() }", "blue"),
            ("if window(\"hour\").ok && count_above(gas, \"low\") == 1 { blue() } else { normal() }", "blue"),
            ("if gas.age_s > 2.0 && gas.ok { blue() } else { normal() }", "blue"),
            ("if between(\"23:00\", \"00:01\") && !between(\"00:01\", \"23:00\") { blue() } else { normal() }", "blue"),
            ("unknown(\"no idea\")", "unknown no idea"),
            ("normal(\"fine\")", "normal fine"),
            ("if max(abs(-3.0), sqrt(4.0)) == 3.0 { return yellow(); } normal()", "yellow"),
            ("let n = 0; while n < 10 { n += 1; } if n == 10 { red() } else { normal() }", "red"),
        ] {
            let answer = run(&judge(body)).unwrap_or_else(|error| panic!("{body}: {error:?}"));
            let word = match answer.verdict {
                Opinion::Normal => "normal",
                Opinion::Unknown => "unknown",
                Opinion::Abnormal(level) => level.as_str(),
            };
            let said = answer.note.map_or(word.to_owned(), |note| format!("{word} {note}"));
            assert_eq!(said, expected, "{body}");
        }
    }

    /// Each does what no rule may do; it is refused or stopped, with a place and in words.
    #[test]
    fn hostile_scripts_are_refused_or_stopped() {
        let deep = format!("let a = {}1{}; normal()", "(".repeat(500), ")".repeat(500));
        let nested = format!("{} {}", "if true {".repeat(200), "}".repeat(200));
        let long = format!("let a = \"{}\"; normal()", "x".repeat(5000));
        let many = (0..100).map(|n| format!("let a{n} = {n};")).collect::<String>() + "normal()";
        let list = format!("let a = [{}]; normal()", "1,".repeat(300));
        let functions: String = (0..40).map(|n| format!("fn f{n}() {{ {n} }}\n")).collect();
        let bodies: Vec<(&str, &str)> = vec![
            ("loop { }", "more than 20000 operations"),
            ("while true { }", "more than 20000 operations"),
            ("let n = 0; do { n += 1; } while n < 1000000; normal()", "more than 20000 operations"),
            ("let n = 0; for i in 0..1000000 { n += i; } normal()", ""),
            ("judge(gas, text)", "more than 16 deep"),
            ("let s = \"x\"; loop { s += s; }", "too large"),
            ("let s = \"x\"; loop { s = `${s}${s}`; }", "too large"),
            ("let a = [1]; loop { a += a; }", ""),
            ("let a = []; loop { a.push(1); }", "there is no function `push`"),
            ("let m = #{}; let n = 0; loop { m[`k${n}`] = n; n += 1; }", ""),
            ("import \"/etc/passwd\" as p; normal()", ""),
            ("eval(\"red()\")", "eval"),
            ("let f = Fn(\"red\"); f.call()", "Fn"),
            ("let f = || red(); f.call()", ""),
            ("sleep(3); normal()", "there is no function `sleep`"),
            ("sleep(3.5); normal()", "there is no function `sleep`"),
            ("let t = timestamp(); normal()", "there is no function `timestamp`"),
            ("print(\"hello\"); normal()", "print"),
            ("debug(gas); normal()", "debug"),
            ("exit(); normal()", "there is no function `exit`"),
            ("open_file(\"/etc/passwd\"); normal()", "there is no function `open_file`"),
            ("throw \"I quit\"", "I quit"),
            ("gas.value = 3.0; normal()", ""),
            ("let x = 1 / 0; normal()", "ivision by zero"),
            ("let x = 9223372036854775807 + 1; normal()", "overflow"),
            ("if gas.value / 0.0 > 5.0 { red() } else { normal() }", "the result of `/` is not a finite number"),
            ("if gas.value / 0 > 5.0 { red() } else { normal() }", "the result of `/` is not a finite number"),
            ("if 0.0 / 0.0 > 5.0 { red() } else { normal() }", "the result of `/` is not a finite number"),
            (
                "let x = 0.0; x /= 0.0; if x > 1.0 { red() } else { normal() }",
                "the result of `/` is not a finite number",
            ),
            ("let x = 1e308; x *= 10; normal()", "the result of `*` is not a finite number"),
            (
                "if sqrt(0.0 - gas.value) > 1.0 { red() } else { normal() }",
                "the result of `sqrt` is not a finite number",
            ),
            ("if 10.0 ** 400.0 > 1.0 { red() } else { normal() }", "the result of `**` is not a finite number"),
            ("if gas.value % 0.0 > 1.0 { red() } else { normal() }", "the result of `%` is not a finite number"),
            ("let x = -9223372036854775807 - 2; normal()", "overflow"),
            ("nobody; normal()", "nobody"),
            ("global::x; normal()", ""),
            ("gas.valeu > 3.0; normal()", "an input has no `valeu`"),
            ("above(gas, \"hihg\"); normal()", "there is no limit `hihg`"),
            ("let name = \"hi\" + \"hg\"; above(gas, name); normal()", "there is no limit `hihg`"),
            ("if between(\"22:00\", \"24:00\") { red() } else { normal() }", "\"24:00\" is no time of the day"),
            ("limit(\"nothing\"); normal()", "there is no limit `nothing`"),
            ("above(window(\"day\"), \"high\"); normal()", "there is no window `day`"),
            ("above(gas, 25.0); normal()", "`above` cannot be called as above (point"),
            ("above(text, \"low\"); normal()", "`text` is text and has no limit"),
            ("above(3.0, \"low\"); normal()", "`above` cannot be called"),
            ("rde()", "there is no function `rde`"),
            ("true", "`judge` returned bool, expected a finding"),
            ("", "`judge` returned nothing, expected a finding"),
            ("if gas.value > { red() }", ""),
            ("normal(", ""),
            ("@#$", ""),
            ("let s = \"unfinished; normal()", ""),
            ("switch gas { _ => loop { } }", "more than 20000 operations"),
            ("2 ** 99999; normal()", ""),
            (&deep, ""),
            (&nested, ""),
            (&long, ""),
            (&many, ""),
            (&list, ""),
        ];
        let mut scripts: Vec<(String, &str)> = bodies.iter().map(|(body, said)| (judge(body), *said)).collect();
        let whole = [
            ("", "there is no function `judge`"),
            ("fn jugde(gas, text) { normal() }", "there is no function `judge`"),
            ("fn judge(gas) { normal() }", "`judge` takes (gas), but the rule's inputs are (gas, text)"),
            ("fn judge(text, gas) { normal() }", "`judge` takes (text, gas)"),
            ("fn judge(gas, text) { normal() }\nfn judge(gas, text) { red() }", ""),
            ("fn judge(gas, text) { normal() }\nloop { }", "only functions may stand here"),
            ("let x = 3; fn judge(gas, text) { normal() }", "only functions may stand here"),
            ("fn red() { normal() }\nfn judge(gas, text) { red() }", "cannot be defined anew"),
            ("fn a() { b() }\nfn b() { a() }\nfn judge(gas, text) { a() }", "more than 16 deep"),
            ("fn judge(gas, text) { nothing::here() }", ""),
            ("\u{feff}\0fn judge(gas, text) { normal() }", ""),
        ];
        scripts.extend(whole.iter().map(|(script, said)| ((*script).to_owned(), *said)));
        scripts.push((format!("{functions}{}", judge("normal()")), ""));
        scripts.push((format!("{}{}", judge("normal()"), " ".repeat(70_000)), "the script has 70"));
        let mut wrong = Vec::new();
        for (script, said) in &scripts {
            let start: String = script.chars().take(90).collect();
            match run(script) {
                Ok(answer) => wrong.push(format!("{start:?} was let through: {answer:?}")),
                Err(error) => {
                    let whole = said.starts_with("the script has") || said.starts_with("there is no function `judge`");
                    if !error.message.contains(said)
                        || (error.line == 0 && !whole)
                        || error.message.chars().count() > 400
                    {
                        wrong.push(format!("{start:?} gave {error:?}, expected {said:?}"));
                    }
                }
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    /// One dear operation after another: the count of operations alone would let it go on. A machine that stands still
    /// costs no computing time and ends nothing.
    #[test]
    fn a_script_whose_operations_are_dear_is_ended_by_its_computing_time() {
        let body = judge("let n = 0; while n < 2000 { n += 1; } normal()");
        for (a_look, expected) in [
            (Duration::ZERO, None),
            (MAX_CALL_TIME / 40, None),
            (MAX_CALL_TIME * 3 / 4, Some("the script takes more than 50 ms of computing time")),
        ] {
            let mut sandbox = Sandbox::default();
            let looks = AtomicU64::new(7);
            sandbox.set_stopwatch(Arc::new(move || a_look * looks.fetch_add(1, Ordering::Relaxed) as u32));
            // Again: each call has the whole time to itself.
            for _ in 0..2 {
                let said = run_in(&mut sandbox, &body).err().map(|error| error.message);
                assert_eq!(said.as_deref(), expected, "{a_look:?}");
                assert_eq!(sandbox.exceeded, expected.is_some(), "{a_look:?}");
            }
        }
    }

    #[test]
    fn faults_of_words_name_their_place_and_a_way_out() {
        let text = "// abve(gas)\nfn judge(gas, text) {\n    /* limit(\"x\") /* nested */ */\n    let s = \"rde()\"; let 级 = 1;\n    if abve(gas, \"low\") { return orang(); }\n    if above(gas, \"lwo\") && text.vaule == `sleep(${s})` { sleep(1); }\n    normal()\n}\n";
        let errors = words::check(text, &Names::of(&spec()));
        let said: Vec<String> = errors
            .iter()
            .map(|error| {
                format!("{}:{} {} ({})", error.line, error.column, error.message, error.hint.as_deref().unwrap_or(""))
            })
            .collect();
        assert_eq!(
            said,
            [
                "5:8 there is no function `abve` (did you mean `above(point, \"limit\")`?)",
                "5:34 there is no function `orang` (did you mean `orange() or orange(\"note\")`?)",
                "6:19 there is no limit `lwo` (did you mean `low`?)",
                "6:34 an input has no `vaule` (did you mean `value`?)",
                "6:59 there is no function `sleep` (a rule knows no time but between(\"22:00\", \"06:00\"); declare on_delay or a [[window]] in the rule's file)",
            ]
        );
    }

    #[test]
    fn ranges_hold_exactly_where_comparisons_do() {
        let mut track = Track::default();
        assert!(track.at_least(15.0, 10.0));
        assert!(!track.at_least(15.0, 20.0));
        assert!(track.at_most(15.0, 17.0));
        assert!(!track.at_most(15.0, 12.0));
        assert_eq!((track.low, track.high), (12.0_f64.next_up(), 17.0_f64.next_up()));
    }
}
