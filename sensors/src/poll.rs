//! The sans-IO Modbus schedule: plan requests, space them, back off, park and probe a dead unit.
//!
//! [`UnitPlan`] says what one device wants read; [`Poller`] owns all units of one bus and answers one question: what to
//! ask next. Registers that stand near each other are read together. It does not read the clock, open ports or know how
//! a frame looks: the caller asks [`Poller::poll_request`], carries the request, and hands the result to
//! [`Poller::handle_answer`].
//!
//! Nothing on a serial line tells a foreign or a late answer for certain, and devices spike. Where an alarm point leaps,
//! its registers are read once more at once, before anybody hears of it: the leap counts unless the second look takes it
//! back, also when there is no second answer. A missed alarm is worse than one too many.
//!
//! What one dead unit may cost the others, and why it costs them next to nothing:
//!
//! - The first unanswered request waits the whole `timeout`. From then on the unit is in doubt: it comes after all
//!   others that are due, and its requests wait only as long as the live units of this bus have lately needed.
//! - After `fail_after` failed cycles it is parked. A parked unit is probed every `probe_every` with one small request,
//!   and only in a gap in which nothing else is due; there the probe may wait the whole `timeout`, if the gap has it.
//!   So is a unit that answers every request with an exception: to be heard is not to be read.
//! - A unit that answers now and then costs time, too. On a loaded bus its next turn comes later by [`WASTE`] times what
//!   its last one wasted, so that it wastes at most one part in five of the bus.
//! - On a bus that never rests a probe is forced once its turn is overdue, one on the whole bus in `probe_every`, and it
//!   waits no longer than a live unit would need. Every eighth one is patient, in case the unit has become slow.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::decode::modbus::{Register, Table, Unit as Profile, Wake};
use crate::point::{DeviceIx, Form, PointIx, PointSpec, Points};
use crate::reading::{Fault, Reading, Value};
use crate::time::{Mono, Now};

/// A point whose registers a unit refuses (exceptions 02 and 03) is left alone for so long, then tried again.
pub const QUARANTINE: Duration = Duration::from_secs(600);
/// A unit that says that it is busy is asked again after so long.
const BUSY_WAIT: Duration = Duration::from_millis(100);
/// An alarm point that moves by more than this part of its range is looked at twice. What is wrong is seldom nearer.
const LEAP: f64 = 0.01;
/// How much later a turn comes on a loaded bus, in times of what failed tries of the turn before it took.
const WASTE: u32 = 4;
/// A learned time limit is never shorter: the operating system may be late by so much on its own.
const SHORTEST_LIMIT: Duration = Duration::from_millis(25);
/// Answers that a bus must have seen before its answer times count as learned.
const LEARNED_AFTER: u32 = 16;

/// What one device on a bus wants read, and how often.
#[derive(Clone, Debug)]
pub struct UnitPlan {
    /// The address on the bus.
    pub unit: u8,
    /// The device's id, for messages.
    pub device: Arc<str>,
    pub interval: Duration,
    /// Failed cycles before the unit is parked.
    pub fail_after: u32,
    /// How often a parked unit is probed.
    pub probe_every: Duration,
    profile: Arc<Profile>,
    wants: Vec<Want>,
}

/// One point that a register carries.
#[derive(Clone, Debug)]
struct Want {
    point: PointIx,
    /// The point's name within its device, for messages.
    name: Arc<str>,
    /// Place in the profile.
    register: usize,
    alarm: bool,
    /// A number that moves by more is looked at twice; so is a flag that has this at all. Counters never leap.
    leap: Option<f64>,
}

impl Want {
    fn leaps(&self, last: Option<&Value>, value: &Result<Value, Fault>) -> bool {
        match (self.leap, last, value) {
            (Some(most), Some(Value::Number(last)), Ok(Value::Number(number))) => (number - last).abs() > most,
            (Some(_), Some(last @ Value::Flag(_)), Ok(flag)) => last != flag,
            _ => false,
        }
    }
}

/// What counts as a leap of an alarm point.
fn leap(spec: &PointSpec) -> Option<f64> {
    let part = spec.range.map(|(low, high)| (high - low) * LEAP);
    match spec.kind.info().form {
        _ if !spec.alarm_point => None,
        Form::Flag => Some(0.0),
        Form::Number => part.or(spec.max_jump),
        Form::Text => None,
    }
}

impl UnitPlan {
    /// The plan of a device whose points follow `profile`, one for one. `interval`, `fail_after` and `probe_every` are
    /// the profile's and the usual ones; the caller may set others.
    pub fn new(unit: u8, profile: &Arc<Profile>, points: &Points, device: DeviceIx) -> Self {
        let wants = points
            .device(device)
            .points()
            .enumerate()
            .filter(|(n, _)| profile.registers.get(*n).is_some_and(Option::is_some))
            .map(|(register, point)| {
                let spec = &points.point(point).spec;
                let name = Arc::from(spec.name.as_str());
                let counts = profile.registers[register].as_ref().is_some_and(Register::is_counter);
                let leap = if counts { None } else { leap(spec) };
                Want { point, name, register, alarm: spec.alarm_point, leap }
            })
            .collect();
        Self {
            unit,
            device: Arc::from(points.device(device).id.as_str()),
            interval: profile.interval,
            fail_after: 3,
            probe_every: Duration::from_secs(30),
            profile: Arc::clone(profile),
            wants,
        }
    }

    /// The same plan where its points have other indices; `None` where one of them is not there.
    pub fn renumbered(&self, number: impl Fn(PointIx) -> Option<PointIx>) -> Option<Self> {
        let wants = self.wants.iter().map(|want| Some(Want { point: number(want.point)?, ..want.clone() }));
        Some(Self { wants: wants.collect::<Option<_>>()?, ..self.clone() })
    }

    /// The requests of one undisturbed cycle, alarm points first.
    pub fn requests(&self) -> Vec<Request> {
        let groups = self.groups();
        let mut runs = join(&self.profile, &groups, &[], &[]);
        runs.sort_by_key(|run| !run.iter().any(|group| groups[*group].alarm));
        runs.iter().map(|run| request_of(&groups, run)).collect()
    }

    pub fn points(&self) -> impl Iterator<Item = PointIx> {
        self.wants.iter().map(|want| want.point)
    }

    fn register(&self, want: &Want) -> &Register {
        // Invariant: `new` keeps only points that have a register.
        self.profile.registers[want.register].as_ref().expect("a want has a register")
    }

    /// Points whose registers overlap, such as bits of one register, are read together or not at all.
    fn groups(&self) -> Vec<Group> {
        let mut order: Vec<usize> = (0..self.wants.len()).collect();
        order.sort_by_key(|want| {
            let register = self.register(&self.wants[*want]);
            (register.table, register.address, register.count)
        });
        let mut groups: Vec<Group> = Vec::new();
        for n in order {
            let want = &self.wants[n];
            let register = self.register(want);
            let end = u32::from(register.address) + u32::from(register.count);
            match groups.last_mut() {
                Some(last)
                    if last.table == register.table
                        && u32::from(register.address) < last.end
                        && end.max(last.end) - u32::from(last.first) <= most(&self.profile, register.table) =>
                {
                    last.end = end.max(last.end);
                    last.alarm |= want.alarm;
                    last.wants.push(n);
                }
                _ => groups.push(Group {
                    table: register.table,
                    first: register.address,
                    end,
                    alarm: want.alarm,
                    wants: vec![n],
                }),
            }
        }
        groups
    }
}

/// What to ask a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    pub table: Table,
    pub address: u16,
    pub count: u16,
}

impl Request {
    /// Whether a serial answer to the one passes for an answer to the other: it tells unit, function and length alone.
    fn looks_like(self, other: Self) -> bool {
        let bytes = |request: Self| if request.table.is_bits() { request.count.div_ceil(8) } else { request.count * 2 };
        self.table == other.table && bytes(self) == bytes(other) && self.address != other.address
    }
}

/// Points that are always read together.
#[derive(Clone, Debug)]
struct Group {
    table: Table,
    first: u16,
    end: u32,
    alarm: bool,
    wants: Vec<usize>,
}

fn most(profile: &Profile, table: Table) -> u32 {
    u32::from(if table.is_bits() {
        profile.max_bit_registers_per_request
    } else {
        profile.max_word_registers_per_request
    })
}

/// Joins neighbours into runs of groups. Never joins over more than `max_register_fill` unused registers (sixteen times
/// as many bits: the same bytes on the wire), over a forbidden register, over a cut, or over a group that is `out`.
fn join(profile: &Profile, groups: &[Group], cuts: &[Cut], out: &[usize]) -> Vec<Vec<usize>> {
    let mut runs: Vec<Vec<usize>> = Vec::new();
    for (n, group) in groups.iter().enumerate() {
        if out.contains(&n) {
            continue;
        }
        let joined = runs.last_mut().filter(|run| {
            // Invariant: runs are never empty.
            let (start, last) = (&groups[run[0]], &groups[*run.last().expect("runs are not empty")]);
            let end = run.iter().map(|at| groups[*at].end).max().unwrap_or(last.end);
            let gap = u32::from(group.first).saturating_sub(end);
            let fill = u32::from(profile.max_register_fill) * if group.table.is_bits() { 16 } else { 1 };
            last.table == group.table
                && !profile.one_point_per_request
                && group.end.max(end) - u32::from(start.first) <= most(profile, group.table)
                && gap <= fill
                && (gap == 0 || !profile.is_forbidden(group.table, end as u16, gap as u16))
                && !cuts.iter().any(|cut| cut.table == group.table && cut.at == group.first)
                && !out.iter().any(|bad| {
                    let bad = &groups[*bad];
                    bad.table == group.table && u32::from(bad.first) < group.end && bad.end > u32::from(start.first)
                })
        });
        match joined {
            Some(run) => run.push(n),
            None => runs.push(vec![n]),
        }
    }
    runs
}

fn request_of(groups: &[Group], run: &[usize]) -> Request {
    let first = &groups[run[0]];
    let end = run.iter().map(|n| groups[*n].end).max().unwrap_or(first.end);
    // Invariant: `join` keeps a run within the protocol's limits, far below 65,536.
    Request { table: first.table, address: first.first, count: (end - u32::from(first.first)) as u16 }
}

/// Two neighbours that a unit does not give in one request: the registers between them do not exist.
#[derive(Clone, Copy, Debug)]
struct Cut {
    table: Table,
    /// First register of the right neighbour.
    at: u16,
    made: Mono,
}

/// What holds for the whole bus.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Longest wait for an answer.
    pub timeout: Duration,
    /// The same request again after a time-out, a damaged answer or "busy", before the cycle counts as failed.
    pub retries: u32,
    /// How long after an unanswered request its answer may still come on this line; so long the unit is not asked again,
    /// since nothing in a serial frame tells an old answer from a new one. Zero where closing the connection tells.
    pub late_window: Duration,
    /// How long after an answer a repeat of it may still come on this line; so long the unit is not asked for other
    /// registers whose answer would look the same. Zero where answers are numbered.
    pub repeat_window: Duration,
}

/// Names one request that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(u64);

/// What the caller should do now.
#[derive(Clone, Debug)]
pub enum Next {
    Ask(Ask),
    /// Nothing before this moment; `None`: nothing until an answer comes.
    Wait(Option<Mono>),
}

/// One request to carry.
#[derive(Clone, Debug)]
pub struct Ask {
    pub ticket: Ticket,
    pub unit: u8,
    pub request: Request,
    /// How long to wait for the answer.
    pub limit: Duration,
    pub wake: Option<Arc<Wake>>,
}

impl Ask {
    /// A request beside any schedule, for whoever looks at a bus that nobody polls.
    pub fn alone(unit: u8, request: Request, limit: Duration) -> Self {
        Self { ticket: Ticket(0), unit, request, limit, wake: None }
    }
}

/// What a unit said.
#[derive(Clone, Copy, Debug)]
pub enum Answer<'a> {
    Words(&'a [u16]),
    /// At least as many as were asked for: the protocol fills up the last byte.
    Bits(&'a [bool]),
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Nothing came within the limit.
    #[error("no answer in time")]
    Silent,
    /// Something came that is not an answer to this request: CRC, length, unit or function.
    #[error("a damaged or foreign answer")]
    Garbled,
    /// The connection broke.
    #[error("the connection broke")]
    Lost,
    /// The unit, or the gateway before it, refused.
    #[error("exception {0:02X}, {name}", name = exception_name(*.0))]
    Exception(u8),
}

impl Failure {
    /// Whether the unit itself has said no, rather than nothing.
    pub fn is_refusal(self) -> bool {
        matches!(self, Self::Exception(code) if !matches!(code, 0x0A | 0x0B))
    }
}

/// As the Modbus Application Protocol v1.1b3 calls them, section 7.
fn exception_name(code: u8) -> &'static str {
    match code {
        0x01 => "illegal function",
        0x02 => "illegal data address",
        0x03 => "illegal data value",
        0x04 => "server device failure",
        0x05 => "acknowledge",
        0x06 => "server device busy",
        0x08 => "memory parity error",
        0x0A => "gateway path unavailable",
        0x0B => "gateway target device failed to respond",
        _ => "not in the specification",
    }
}

/// What an operator should hear of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A unit does not answer any more, or answers every request with an exception; said again when that changes.
    Parked { unit: u8, device: Arc<str>, why: Failure },
    /// A parked unit can be read again.
    Back { unit: u8, device: Arc<str> },
    /// A unit refuses these points; said once, until they have been read again.
    Quarantined { unit: u8, device: Arc<str>, points: Vec<PointIx>, why: Failure },
    /// Points that had been refused or withheld were read.
    Released { unit: u8, device: Arc<str>, points: Vec<PointIx> },
    /// A unit gives other points, but not these.
    Withheld { unit: u8, device: Arc<str>, points: Vec<PointIx>, why: Failure },
}

impl Event {
    pub fn unit(&self) -> u8 {
        match self {
            Self::Parked { unit, .. }
            | Self::Back { unit, .. }
            | Self::Quarantined { unit, .. }
            | Self::Released { unit, .. }
            | Self::Withheld { unit, .. } => *unit,
        }
    }

    pub fn device(&self) -> &Arc<str> {
        match self {
            Self::Parked { device, .. }
            | Self::Back { device, .. }
            | Self::Quarantined { device, .. }
            | Self::Released { device, .. }
            | Self::Withheld { device, .. } => device,
        }
    }
}

/// What is the matter with a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It gives nothing at all.
    Parked(Failure),
    /// It gives its other points, but not the named ones.
    Lacks { names: Vec<Arc<str>>, why: Failure },
}

/// What a bus has done since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub requests: u64,
    pub answers: u64,
    pub silent: u64,
    pub garbled: u64,
    pub lost: u64,
    pub exceptions: u64,
    /// Leaps that the second look took back.
    pub spikes: u64,
    /// Cycles that began late because the bus was busy: nothing queues up, the rate falls.
    pub late_cycles: u64,
}

/// The longest time that answers have lately taken.
#[derive(Clone, Copy, Debug, Default)]
struct Learned {
    worst: Duration,
    seen: u32,
}

impl Learned {
    /// A slow answer counts at once; it is forgotten over a few hundred fast ones.
    fn learn(&mut self, took: Duration) {
        self.worst = if took >= self.worst { took } else { self.worst - (self.worst - took) / 256 };
        self.seen = self.seen.saturating_add(1);
    }
}

#[derive(Debug)]
struct Block {
    groups: Vec<usize>,
    request: Request,
    alarm: bool,
    due: Mono,
    answered: Option<Mono>,
    /// Tries of the current turn that failed.
    attempts: u32,
    /// What those tries took, and what they took in the turn before.
    wasted: [Duration; 2],
    /// Turns in a row that failed.
    fails: u32,
    /// Of the last failed turn.
    why: Failure,
    /// Refused by exception 02 or 03: one group, tried every [`QUARANTINE`].
    quarantined: bool,
    /// An operator has heard that it gives nothing.
    told: bool,
    /// What the first look at a leap gave.
    held: Option<Vec<Reading>>,
}

#[derive(Debug)]
struct Parked {
    why: Failure,
    probe_at: Mono,
    /// Probes since it was parked.
    probes: u32,
    /// Those of them that had to be forced between the others.
    forced: u32,
}

#[derive(Debug)]
struct Unit {
    plan: UnitPlan,
    groups: Vec<Group>,
    blocks: Vec<Block>,
    cuts: Vec<Cut>,
    /// Cycles in a row without any answer.
    fails: u32,
    /// The last request was not answered.
    doubt: bool,
    own: Learned,
    parked: Option<Parked>,
    /// By want: the last good value of those that can leap.
    last: Vec<Option<Value>>,
    /// By want: where those that count stood.
    counts: Vec<Option<u64>>,
}

impl Unit {
    fn new(plan: UnitPlan, now: Mono) -> Self {
        let (groups, last, counts) = (plan.groups(), vec![None; plan.wants.len()], vec![None; plan.wants.len()]);
        let mut unit = Self {
            plan,
            last,
            counts,
            groups,
            blocks: Vec::new(),
            cuts: Vec::new(),
            fails: 0,
            doubt: false,
            own: Learned::default(),
            parked: None,
        };
        unit.rebuild(now);
        unit
    }

    /// Plans the blocks anew; a block is due when the first of its groups was. Quarantined blocks stay as they are.
    fn rebuild(&mut self, now: Mono) {
        let old = std::mem::take(&mut self.blocks);
        let out: Vec<usize> = old.iter().filter(|block| block.quarantined).flat_map(|b| b.groups.clone()).collect();
        let mut blocks: Vec<Block> = join(&self.plan.profile, &self.groups, &self.cuts, &out)
            .into_iter()
            .map(|run| {
                let shared = || {
                    old.iter()
                        .filter(|block| !block.quarantined && block.groups.iter().any(|group| run.contains(group)))
                };
                let due = shared().map(|block| block.due).min().unwrap_or(now);
                let told = shared().any(|block| block.told);
                Block { told, ..self.block(due, run) }
            })
            .collect();
        blocks.extend(old.into_iter().filter(|block| block.quarantined));
        self.blocks = blocks;
    }

    fn block(&self, due: Mono, groups: Vec<usize>) -> Block {
        Block {
            request: request_of(&self.groups, &groups),
            alarm: groups.iter().any(|group| self.groups[*group].alarm),
            groups,
            due,
            answered: None,
            attempts: 0,
            wasted: [Duration::ZERO; 2],
            fails: 0,
            why: Failure::Silent,
            quarantined: false,
            told: false,
            held: None,
        }
    }

    /// Splits a refused block: at its widest gap, whose registers may not exist, else in the middle.
    fn split(&mut self, at: usize, now: Mono) {
        let block = self.blocks.remove(at);
        let gap = |n: usize| {
            let end = block.groups[..n].iter().map(|group| self.groups[*group].end).max().unwrap_or(0);
            u32::from(self.groups[block.groups[n]].first).saturating_sub(end)
        };
        let widest = (1..block.groups.len()).max_by_key(|n| (gap(*n), std::cmp::Reverse(*n)));
        let cut = match widest {
            Some(n) if gap(n) > 0 => {
                let right = &self.groups[block.groups[n]];
                self.cuts.push(Cut { table: right.table, at: right.first, made: now });
                n
            }
            _ => block.groups.len() / 2,
        };
        let (left, right) = block.groups.split_at(cut);
        for (n, groups) in [left, right].into_iter().enumerate() {
            let half = Block { told: block.told, ..self.block(now, groups.to_vec()) };
            self.blocks.insert(at + n, half);
        }
    }

    fn points_of(&self, groups: &[usize]) -> Vec<PointIx> {
        groups.iter().flat_map(|group| &self.groups[*group].wants).map(|want| self.plan.wants[*want].point).collect()
    }

    fn fail_points(&self, groups: &[usize], now: Now, out: &mut Vec<Reading>) {
        for point in self.points_of(groups) {
            out.push(reading(point, Err(Fault::Comms), now));
        }
    }

    fn fail_all(&self, now: Now, out: &mut Vec<Reading>) {
        out.extend(self.plan.wants.iter().map(|want| reading(want.point, Err(Fault::Comms), now)));
    }

    fn decode(&mut self, groups: &[usize], request: Request, answer: Answer<'_>, now: Now, out: &mut Vec<Reading>) {
        for n in groups.iter().flat_map(|group| &self.groups[*group].wants).copied() {
            let want = &self.plan.wants[n];
            let register = self.plan.register(want);
            let at = usize::from(register.address - request.address);
            let value = match answer {
                // The caller of this function has checked the count; `get` keeps a defect from becoming a panic.
                Answer::Words(words) => match words.get(at..at + usize::from(register.count)) {
                    None => Err(Fault::Comms),
                    // The first look at a counter shows no rise: how long it has counted nobody knows.
                    Some(own) if register.is_counter() => register.count(own).and_then(|now| {
                        let before = self.counts[n].replace(now).unwrap_or(now);
                        register.rise(before, now)
                    }),
                    Some(own) => register.decode(own),
                },
                Answer::Bits(bits) => bits.get(at).map_or(Err(Fault::Comms), |bit| register.decode_bit(*bit)),
            };
            out.push(reading(want.point, value, now));
        }
    }

    /// A normal block may wait one interval longer than an alarm block, so a loaded bus serves alarm points first and
    /// starves nobody. What was not answered last time comes after what was: a time-out later, which is the end of the
    /// cycle on a bus that rests and still a turn on one that never does. The second look at a leap comes before all.
    fn urgency(&self, block: &Block, timing: Timing) -> (Mono, bool) {
        if block.held.is_some() {
            return (Mono::default(), false);
        }
        let mut deadline = if block.alarm { block.due } else { block.due.plus(self.plan.interval) };
        if self.doubt || block.fails > 0 {
            deadline = deadline.plus(timing.timeout + self.plan.interval);
        }
        (deadline.plus(block.wasted[1] * WASTE), block.fails > 0)
    }

    /// Until when a repeat of another answer could pass for this block's.
    fn not_before(&self, block: &Block, timing: Timing) -> Mono {
        if timing.repeat_window.is_zero() {
            return Mono::default();
        }
        let alike = self.blocks.iter().filter(|other| other.request.looks_like(block.request));
        alike.filter_map(|other| other.answered).max().map_or(Mono::default(), |at| at.plus(timing.repeat_window))
    }

    /// Whether another block is more urgent that could not be asked for a while if this one were.
    fn must_wait(&self, block: &Block, now: Mono, timing: Timing) -> bool {
        !timing.repeat_window.is_zero()
            && self.blocks.iter().any(|other| {
                other.due <= now
                    && other.request.looks_like(block.request)
                    && self.urgency(other, timing) < self.urgency(block, timing)
            })
    }

    /// The wants of `groups`, in the order in which they are decoded.
    fn wants_of(&self, groups: &[usize]) -> impl Iterator<Item = usize> {
        groups.iter().flat_map(|group| &self.groups[*group].wants).copied()
    }

    fn leaps(&self, want: usize, reading: &Reading) -> bool {
        self.plan.wants[want].leaps(self.last[want].as_ref(), &reading.value)
    }

    /// Hands out the first look at a leap, but for what the second one takes back; gives the number of those.
    fn sift(&self, groups: &[usize], first: Vec<Reading>, second: &[Reading], out: &mut Vec<Reading>) -> u64 {
        let before = out.len() + first.len();
        let looks = self.wants_of(groups).zip(first).zip(second);
        out.extend(looks.filter_map(|((want, first), second)| {
            let back = self.leaps(want, &first) && second.value.is_ok() && !self.leaps(want, second);
            (!back).then_some(first)
        }));
        (before - out.len()) as u64
    }

    fn hand_out(&mut self, groups: &[usize], readings: Vec<Reading>, out: &mut Vec<Reading>) {
        for (want, reading) in groups.iter().flat_map(|group| &self.groups[*group].wants).zip(&readings) {
            if let (Some(_), Ok(value)) = (self.plan.wants[*want].leap, &reading.value) {
                self.last[*want] = Some(value.clone());
            }
        }
        out.extend(readings);
    }

    /// The group to probe a parked unit with: of each block the smallest, in turn, and first those that the unit has
    /// not refused before.
    fn probe(&self, turn: u32) -> Option<usize> {
        let size = |group: &usize| self.groups[*group].end - u32::from(self.groups[*group].first);
        let smallest = |block: &Block| block.groups.iter().copied().min_by_key(size);
        let mut groups: Vec<usize> = self.blocks.iter().filter(|block| !block.told).filter_map(smallest).collect();
        if groups.is_empty() {
            groups = self.blocks.iter().filter_map(smallest).collect();
        }
        groups.sort_by_key(size);
        groups.get(turn as usize % groups.len().max(1)).copied()
    }

    /// The unit lives, so what it does not give is no part of a longer silence: each such block is told once.
    fn tell_withheld(&mut self, events: &mut VecDeque<Event>) {
        for n in 0..self.blocks.len() {
            let block = &self.blocks[n];
            if block.fails >= self.plan.fail_after && !block.told {
                let (unit, device, points) =
                    (self.plan.unit, Arc::clone(&self.plan.device), self.points_of(&block.groups));
                events.push_back(Event::Withheld { unit, device, points, why: block.why });
                self.blocks[n].told = true;
            }
        }
    }

    /// Gives the unit up until a probe finds it again.
    fn park(&mut self, why: Failure, now: Now, out: &mut Vec<Reading>, events: &mut VecDeque<Event>) {
        self.parked = Some(Parked { why, probe_at: now.mono.plus(self.plan.probe_every), probes: 0, forced: 0 });
        self.fail_all(now, out);
        events.push_back(Event::Parked { unit: self.plan.unit, device: Arc::clone(&self.plan.device), why });
    }

    fn trouble(&self) -> Option<Trouble> {
        if let Some(parked) = &self.parked {
            return Some(Trouble::Parked(parked.why));
        }
        let told = || self.blocks.iter().filter(|block| block.told);
        let why = told().next()?.why;
        let wants = told().flat_map(|block| &block.groups).flat_map(|group| &self.groups[*group].wants);
        Some(Trouble::Lacks { names: wants.map(|want| Arc::clone(&self.plan.wants[*want].name)).collect(), why })
    }
}

fn reading(point: PointIx, value: Result<Value, Fault>, now: Now) -> Reading {
    Reading {
        point,
        value,
        source_time: None,
        received: now,
        sequence: None,
        retained: false,
        redelivered: false,
        historical: false,
        warming_up: false,
    }
}

#[derive(Clone, Copy, Debug)]
enum What {
    Block(usize),
    /// One group of a parked unit.
    Probe,
}

#[derive(Debug)]
struct Flight {
    ticket: Ticket,
    unit: usize,
    what: What,
    request: Request,
    sent: Mono,
}

/// All units of one bus. Never has more than one request under way to one unit.
#[derive(Debug)]
pub struct Poller {
    timing: Timing,
    units: Vec<Unit>,
    /// By address on the bus: not to be asked before.
    not_before: [Mono; 256],
    /// By address on the bus: until then the unit rests, as its profile wants it.
    rests_until: [Mono; 256],
    flights: Vec<Flight>,
    tickets: u64,
    bus: Learned,
    last_forced: Option<Mono>,
    events: VecDeque<Event>,
    counters: Counters,
}

impl Poller {
    pub fn new(timing: Timing, plans: Vec<UnitPlan>, now: Mono) -> Self {
        Self {
            timing,
            units: plans.into_iter().map(|plan| Unit::new(plan, now)).collect(),
            not_before: [Mono::default(); 256],
            rests_until: [Mono::default(); 256],
            flights: Vec::new(),
            tickets: 0,
            bus: Learned::default(),
            last_forced: None,
            events: VecDeque::new(),
            counters: Counters::default(),
        }
    }

    pub fn counters(&self) -> Counters {
        self.counters
    }

    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// What is the matter with a unit now; `None` when all is well.
    pub fn trouble(&self, unit: u8) -> Option<Trouble> {
        self.units.iter().find(|other| other.plan.unit == unit)?.trouble()
    }

    /// What to do now. Call again after every answer, and at the moment it names.
    pub fn poll_request(&mut self, now: Mono) -> Next {
        let mut wake: Option<Mono> = None;
        let mut best: Option<((Mono, bool), usize, usize)> = None;
        let mut next_live: Option<Mono> = None;
        let sooner = |wake: &mut Option<Mono>, at: Mono| *wake = Some(wake.map_or(at, |before| before.min(at)));
        for (u, unit) in self.units.iter().enumerate() {
            if unit.parked.is_some() || self.is_under_way(unit.plan.unit) {
                continue;
            }
            let gate = self.gate(unit.plan.unit);
            for (b, block) in unit.blocks.iter().enumerate() {
                let due = block.due.max(gate).max(unit.not_before(block, self.timing));
                if due > now {
                    sooner(&mut next_live, due);
                    continue;
                }
                let key = unit.urgency(block, self.timing);
                if best.is_none_or(|(other, ..)| key < other) && !unit.must_wait(block, now, self.timing) {
                    best = Some((key, u, b));
                }
            }
        }
        if let Some(at) = next_live {
            sooner(&mut wake, at);
        }
        let gap = match (best, next_live) {
            (Some(_), _) => Some(Duration::ZERO),
            (None, Some(at)) => Some(at.since(now)),
            (None, None) => None,
        };
        if let Some((u, turn, limit)) = self.probe_for(gap, now, &mut wake)
            && let Some(group) = self.units[u].probe(turn)
        {
            let request = request_of(&self.units[u].groups, &[group]);
            return self.ask(u, What::Probe, request, limit, now);
        }
        let Some((_, u, b)) = best else { return Next::Wait(wake) };
        let (unit, block) = (&self.units[u], &self.units[u].blocks[b]);
        let limit = if unit.doubt || block.fails > 0 || block.held.is_some() {
            self.short_limit(unit)
        } else {
            self.timing.timeout
        };
        let request = block.request;
        self.ask(u, What::Block(b), request, limit, now)
    }

    /// The parked unit whose probe may go now, which probe it is, and how long it may wait. `gap`: how long the bus has
    /// nothing else to do.
    fn probe_for(
        &mut self,
        gap: Option<Duration>,
        now: Mono,
        wake: &mut Option<Mono>,
    ) -> Option<(usize, u32, Duration)> {
        let mut forced = None;
        for (u, unit) in self.units.iter().enumerate() {
            let Some(parked) = &unit.parked else { continue };
            if self.is_under_way(unit.plan.unit) {
                continue;
            }
            let due = parked.probe_at.max(self.gate(unit.plan.unit));
            if due > now {
                *wake = Some(wake.map_or(due, |before| before.min(due)));
                continue;
            }
            let short = self.short_limit(unit);
            match gap {
                None => return Some((u, parked.probes, self.timing.timeout)),
                Some(gap) if self.timing.timeout <= gap => return Some((u, parked.probes, self.timing.timeout)),
                Some(gap) if short <= gap => return Some((u, parked.probes, short)),
                Some(_) => {}
            }
            let every = unit.plan.probe_every;
            let overdue = due.plus(every * (1 << parked.forced.min(3)));
            let free = self.last_forced.map_or(now, |last| last.plus(every));
            let at = overdue.max(free);
            if at > now {
                *wake = Some(wake.map_or(at, |before| before.min(at)));
            } else if forced.is_none() {
                let patient = parked.forced % 8 == 7;
                forced = Some((u, parked.probes, if patient { self.timing.timeout } else { short }));
            }
        }
        let (u, turn, limit) = forced?;
        self.last_forced = Some(now);
        if let Some(parked) = &mut self.units[u].parked {
            parked.forced = parked.forced.saturating_add(1);
        }
        Some((u, turn, limit))
    }

    /// Before which nothing at this address may be asked: an answer that comes till then is not to what is asked now.
    pub fn gate(&self, unit: u8) -> Mono {
        self.not_before[usize::from(unit)].max(self.rests_until[usize::from(unit)])
    }

    fn is_under_way(&self, unit: u8) -> bool {
        self.flights.iter().any(|flight| self.units[flight.unit].plan.unit == unit)
    }

    /// Four times what live units have lately needed, once that is known.
    fn short_limit(&self, unit: &Unit) -> Duration {
        if self.bus.seen < LEARNED_AFTER {
            return self.timing.timeout;
        }
        (self.bus.worst.max(unit.own.worst) * 4).max(SHORTEST_LIMIT).min(self.timing.timeout)
    }

    fn ask(&mut self, unit: usize, what: What, request: Request, limit: Duration, now: Mono) -> Next {
        self.tickets += 1;
        self.counters.requests += 1;
        let ticket = Ticket(self.tickets);
        self.flights.push(Flight { ticket, unit, what, request, sent: now });
        let plan = &self.units[unit].plan;
        Next::Ask(Ask { ticket, unit: plan.unit, request, limit, wake: plan.profile.wake.clone() })
    }

    /// Takes what became of a request and adds the readings that follow from it. Answers to requests that are no longer
    /// under way are ignored.
    pub fn handle_answer(
        &mut self,
        ticket: Ticket,
        answer: Result<Answer<'_>, Failure>,
        now: Now,
        out: &mut Vec<Reading>,
    ) {
        let Some(at) = self.flights.iter().position(|flight| flight.ticket == ticket) else { return };
        let flight = self.flights.swap_remove(at);
        let plan = &self.units[flight.unit].plan;
        self.rests_until[usize::from(plan.unit)] = now.mono.plus(plan.profile.pause_between_requests);
        let count = usize::from(flight.request.count);
        // A wrong count is a damaged answer whichever way the library let it through.
        let answer = answer.and_then(|answer| match answer {
            Answer::Words(words) if words.len() == count && !flight.request.table.is_bits() => Ok(answer),
            Answer::Bits(bits)
                if (count..count.next_multiple_of(8) + 1).contains(&bits.len()) && flight.request.table.is_bits() =>
            {
                Ok(answer)
            }
            _ => Err(Failure::Garbled),
        });
        match answer {
            Ok(_) => self.counters.answers += 1,
            Err(Failure::Silent) => self.counters.silent += 1,
            Err(Failure::Garbled) => self.counters.garbled += 1,
            Err(Failure::Lost) => self.counters.lost += 1,
            Err(Failure::Exception(_)) => self.counters.exceptions += 1,
        }
        if let (Ok(_), What::Block(block)) = (&answer, flight.what) {
            self.units[flight.unit].blocks[block].answered = Some(now.mono);
        }
        if answer.is_ok() {
            let took = now.mono.since(flight.sent);
            self.bus.learn(took);
            self.units[flight.unit].own.learn(took);
        }
        if answer.is_err_and(|failure| failure == Failure::Silent) {
            let unit = usize::from(self.units[flight.unit].plan.unit);
            self.not_before[unit] = flight.sent.plus(self.timing.late_window);
        }
        match flight.what {
            What::Block(block) => {
                if answer.is_err() {
                    self.units[flight.unit].blocks[block].wasted[0] += now.mono.since(flight.sent);
                }
                self.block_done(flight.unit, block, answer, now, out);
            }
            What::Probe => self.probe_done(flight.unit, answer.err(), now, out),
        }
    }

    /// A unit was asked past the schedule and has not answered: what comes till then is the answer to that.
    pub fn handle_owed(&mut self, unit: u8, now: Mono) {
        self.not_before[usize::from(unit)] = now.plus(self.timing.late_window);
    }

    /// The late answer of a unit has been heard and thrown away: it may be asked again.
    pub fn handle_late_answer(&mut self, unit: u8) {
        self.not_before[usize::from(unit)] = Mono::default();
    }

    /// The bus cannot be reached: all its points fail, and all are due as soon as it is back.
    pub fn handle_bus_lost(&mut self, now: Now, out: &mut Vec<Reading>) {
        self.flights.clear();
        self.not_before = [Mono::default(); 256];
        for unit in &mut self.units {
            out.extend(unit.blocks.iter_mut().filter_map(|block| block.held.take()).flatten());
            unit.fail_all(now, out);
            for block in unit.blocks.iter_mut().filter(|block| !block.quarantined) {
                block.due = now.mono;
                block.attempts = 0;
            }
        }
    }

    fn block_done(
        &mut self,
        u: usize,
        b: usize,
        answer: Result<Answer<'_>, Failure>,
        now: Now,
        out: &mut Vec<Reading>,
    ) {
        let retries = self.timing.retries;
        let unit = &mut self.units[u];
        let block = &mut unit.blocks[b];
        let (id, device) = (unit.plan.unit, Arc::clone(&unit.plan.device));
        match answer {
            Ok(answer) => {
                unit.fails = 0;
                unit.doubt = false;
                let (groups, request, first) = (block.groups.clone(), block.request, block.held.take());
                let mut readings = Vec::new();
                unit.decode(&groups, request, answer, now, &mut readings);
                if let Some(first) = first {
                    self.counters.spikes += unit.sift(&groups, first, &readings, out);
                } else if unit.wants_of(&groups).zip(&readings).any(|(want, reading)| unit.leaps(want, reading)) {
                    unit.blocks[b].held = Some(readings);
                    return;
                }
                unit.hand_out(&groups, readings, out);
                let block = &mut unit.blocks[b];
                let released = std::mem::take(&mut block.quarantined);
                let told = std::mem::take(&mut block.told);
                block.fails = 0;
                block.attempts = 0;
                block.wasted = [Duration::ZERO, block.wasted[0]];
                self.counters.late_cycles += u64::from(now.mono.since(block.due) > unit.plan.interval);
                block.due = block.due.plus(unit.plan.interval).max(now.mono);
                if told {
                    self.events.push_back(Event::Released { unit: id, device, points: unit.points_of(&groups) });
                }
                unit.tell_withheld(&mut self.events);
                if released {
                    unit.rebuild(now.mono);
                }
            }
            // No second look at a leap: the first one counts, and the next turn will show what is the matter.
            Err(why) if let Some(first) = block.held.take() => {
                let groups = block.groups.clone();
                block.wasted = [Duration::ZERO, block.wasted[0]];
                block.due = block.due.plus(unit.plan.interval).max(now.mono);
                unit.doubt = !matches!(why, Failure::Exception(_));
                unit.hand_out(&groups, first, out);
            }
            Err(why @ Failure::Exception(2 | 3)) => {
                unit.fails = 0;
                unit.doubt = false;
                if block.groups.len() > 1 {
                    unit.split(b, now.mono);
                    return;
                }
                let news = !std::mem::replace(&mut block.quarantined, true);
                block.told = true;
                block.why = why;
                block.due = now.mono.plus(QUARANTINE);
                block.attempts = 0;
                block.fails = 0;
                let groups = block.groups.clone();
                unit.fail_points(&groups, now, out);
                if news {
                    let points = unit.points_of(&groups);
                    self.events.push_back(Event::Quarantined { unit: id, device, points, why });
                    // The cuts of this search looked for the culprit that has now been found.
                    let search = unit.plan.interval.max(Duration::from_secs(10));
                    unit.cuts.retain(|cut| now.mono.since(cut.made) > search);
                    unit.rebuild(now.mono);
                }
            }
            Err(Failure::Exception(6)) if block.attempts < retries => {
                block.attempts += 1;
                block.due = now.mono.plus(BUSY_WAIT);
                unit.doubt = false;
            }
            Err(why) if why.is_refusal() => {
                unit.fails = 0;
                unit.doubt = false;
                self.turn_failed(u, b, why, now, out);
            }
            Err(why) => {
                let is_link = !matches!(why, Failure::Exception(_));
                let first = unit.fails == 0 && block.fails == 0;
                unit.doubt = true;
                if is_link && first && block.attempts < retries {
                    block.attempts += 1;
                    return;
                }
                unit.fails += 1;
                if unit.fails >= unit.plan.fail_after {
                    unit.park(why, now, out, &mut self.events);
                    return;
                }
                // The rest of this cycle would most likely be silence too: on with the others.
                let interval = unit.plan.interval;
                for (_, other) in
                    unit.blocks.iter_mut().enumerate().filter(|(n, other)| *n != b && other.due <= now.mono)
                {
                    other.due = other.due.plus(interval).max(now.mono);
                }
                self.turn_failed(u, b, why, now, out);
            }
        }
    }

    /// One turn of one block failed; after the last one that gave anything the unit is parked.
    fn turn_failed(&mut self, u: usize, b: usize, why: Failure, now: Now, out: &mut Vec<Reading>) {
        let unit = &mut self.units[u];
        let block = &mut unit.blocks[b];
        block.attempts = 0;
        block.wasted = [Duration::ZERO, block.wasted[0]];
        block.fails = block.fails.saturating_add(1);
        block.why = why;
        block.due = if block.fails >= unit.plan.fail_after {
            now.mono.plus(unit.plan.probe_every)
        } else {
            block.due.plus(unit.plan.interval).max(now.mono)
        };
        let gives_nothing = |block: &Block| block.quarantined || block.fails >= unit.plan.fail_after;
        if unit.blocks.iter().all(gives_nothing) {
            unit.park(why, now, out, &mut self.events);
        } else {
            let groups = unit.blocks[b].groups.clone();
            unit.fail_points(&groups, now, out);
        }
    }

    fn probe_done(&mut self, u: usize, failure: Option<Failure>, now: Now, out: &mut Vec<Reading>) {
        let unit = &mut self.units[u];
        let (id, device) = (unit.plan.unit, Arc::clone(&unit.plan.device));
        match failure {
            // A unit that knows which addresses it has can be read.
            None | Some(Failure::Exception(2 | 3)) => {}
            Some(why) => {
                unit.fail_all(now, out);
                let Some(parked) = &mut unit.parked else { return };
                parked.probe_at = now.mono.plus(unit.plan.probe_every);
                parked.probes = parked.probes.wrapping_add(1);
                if why.is_refusal() != parked.why.is_refusal() {
                    parked.why = why;
                    self.events.push_back(Event::Parked { unit: id, device, why });
                }
                return;
            }
        }
        unit.parked = None;
        unit.fails = 0;
        unit.doubt = false;
        // What the probe read is read again at once, in its block.
        for block in unit.blocks.iter_mut().filter(|block| !block.quarantined) {
            block.due = now.mono;
            block.fails = 0;
            block.attempts = 0;
        }
        self.events.push_back(Event::Back { unit: id, device });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::{Document, Faults};
    use crate::point::{DeviceId, Kind, Place};
    use crate::time::Wall;

    const MS: Duration = Duration::from_millis(1);

    /// Coils and discrete inputs are flags, registers are numbers.
    fn kind_of(word: &str) -> Kind {
        let is_bit = word.trim_start_matches('!').starts_with(['c', 'd']);
        Kind::named(if is_bit { "fire.smoke" } else { "power.voltage" }).expect("a shipped kind")
    }

    fn profile(table: &str, short: &str) -> Arc<Profile> {
        let text = format!("[modbus]\n{table}\n{}", keys(short));
        let faults = Faults::default();
        let doc = Document::parse("p.toml", &text, &faults).expect("the test writes TOML");
        let root = doc.root(&faults);
        let forms = short.split_whitespace().map(|word| kind_of(word).info().form);
        let readers: Vec<_> = root.tables("point").into_iter().zip(forms).collect();
        let profile = Profile::read(&root, &readers).expect("there is a [modbus] table");
        assert!(faults.is_empty(), "{:?}", faults.take());
        Arc::new(profile)
    }

    /// `h0 i3:float32 h5:counter c9`: holding 0, input 3 as a float, holding 5 that counts up, coil 9; `!` in front makes it
    /// an alarm point.
    fn keys(short: &str) -> String {
        let point = |word: &str| {
            let word = word.trim_start_matches('!');
            let (place, kind) = word.split_once(':').unwrap_or((word, ""));
            let table = match &place[..1] {
                "h" => "holding",
                "i" => "input",
                "c" => "coil",
                _ => "discrete",
            };
            let kind = match kind {
                "" => String::new(),
                "counter" => "counter = true\n".to_owned(),
                _ => format!("type = '{kind}'\n"),
            };
            format!("[[point]]\nregister = '{table}'\naddress = {}\n{kind}", &place[1..])
        };
        short.split_whitespace().map(point).collect()
    }

    fn plans(table: &str, short: &str, units: u8) -> Vec<UnitPlan> {
        let profile = profile(table, short);
        let mut points = Points::default();
        let specs: Vec<Arc<PointSpec>> = short
            .split_whitespace()
            .enumerate()
            .map(|(n, word)| {
                let (alarm_point, range) = (word.starts_with('!'), Some((0.0, 1_000.0)));
                Arc::new(PointSpec { alarm_point, range, ..PointSpec::plain(&format!("p{n}"), kind_of(word)) })
            })
            .collect();
        (1..=units)
            .map(|unit| {
                let id = DeviceId::new(format!("d{unit}"));
                let place = Arc::new(Place::default());
                let device = points.add(id, None, &Arc::from("p"), &place, &specs).expect("ids differ");
                UnitPlan::new(unit, &profile, &points, device)
            })
            .collect()
    }

    fn show(request: &Request) -> String {
        format!("{}{}+{}", &request.table.as_str()[..1], request.address, request.count)
    }

    #[test]
    fn neighbours_are_read_together_up_to_every_limit() {
        for (table, points, wanted) in [
            ("", "h0 h1 h2", "h0+3"),
            ("", "h2 h0 h1", "h0+3"),
            ("", "h0 i1 c2 d3", "c2+1 d3+1 i1+1 h0+1"),
            ("", "h0 h17", "h0+18"),
            ("", "h0 h18", "h0+1 h18+1"),
            ("max_register_fill = 0", "h0 h1 h3", "h0+2 h3+1"),
            ("", "h0:float32 h2:float64", "h0+6"),
            ("max_word_registers_per_request = 4", "h0:float32 h2 h3 h4", "h0+4 h4+1"),
            ("max_word_registers_per_request = 4", "h0 h3:float32", "h0+1 h3+2"),
            ("max_register_fill = 200", "h0 h124 h125", "h0+125 h125+1"),
            ("max_register_fill = 200", "c0 c1999 c2000", "c0+2000 c2000+1"),
            ("max_register_fill = 1", "c0 c17 c34", "c0+35"),
            ("max_register_fill = 1", "c0 c18", "c0+1 c18+1"),
            ("forbidden_registers = ['2-3']", "h0 h1 h4", "h0+2 h4+1"),
            ("forbidden_registers = ['input:2-3']", "h0 h1 h4", "h0+5"),
            ("", "h65535 h65534", "h65534+2"),
            ("", "h0:uint32 h1 h1", "h0+2"),
            ("", "h40 !h0", "h0+1 h40+1"),
            ("", "h0 !h40", "h40+1 h0+1"),
            ("one_point_per_request = true", "h0 h1:float32 h1 h3", "h0+1 h1+2 h3+1"),
        ] {
            let requests: Vec<String> = plans(table, points, 1)[0].requests().iter().map(show).collect();
            assert_eq!(requests.join(" "), wanted, "{table} {points}");
        }
    }

    /// A bus of units that answer after a while, or never, or refuse registers.
    struct Bus {
        poller: Poller,
        now: Mono,
        takes: fn(u8) -> Option<Duration>,
        refuses: fn(u8, Request) -> Option<u8>,
        /// A unit that hears only every other request.
        deaf_every_other: Option<u8>,
        /// What each request reads in turn, `None` is silence; when they are used up, 7.
        reads: VecDeque<Option<u16>>,
        asked: Vec<(u64, u8, String)>,
        /// Moment of every good reading, and every fault.
        good: Vec<(Mono, PointIx)>,
        bad: Vec<(Mono, PointIx)>,
        /// All good values in their order, flags as 0 and 1.
        numbers: Vec<f64>,
    }

    fn timing() -> Timing {
        Timing { timeout: 1_000 * MS, retries: 1, late_window: Duration::ZERO, repeat_window: Duration::ZERO }
    }

    fn bus(timing: Timing, plans: Vec<UnitPlan>) -> Bus {
        Bus {
            poller: Poller::new(timing, plans, Mono::default()),
            now: Mono::default(),
            takes: |_| Some(10 * MS),
            refuses: |_, _| None,
            deaf_every_other: None,
            reads: VecDeque::new(),
            asked: Vec::new(),
            good: Vec::new(),
            bad: Vec::new(),
            numbers: Vec::new(),
        }
    }

    impl Bus {
        fn ms(&self) -> u64 {
            self.now.nanos() / 1_000_000
        }

        /// Runs until `ms`; time jumps from event to event.
        fn run(&mut self, ms: u64) -> &mut Self {
            let end = Mono::default().plus(Duration::from_millis(ms));
            while self.now < end {
                match self.poller.poll_request(self.now) {
                    Next::Wait(at) => self.now = at.unwrap_or(end).min(end),
                    Next::Ask(ask) => self.carry(&ask),
                }
            }
            self
        }

        fn carry(&mut self, ask: &Ask) {
            self.asked.push((self.ms(), ask.unit, show(&ask.request)));
            let deaf = self.deaf_every_other == Some(ask.unit) && self.asked(ask.unit).len() % 2 == 1;
            let read = self.reads.pop_front().unwrap_or(Some(7));
            let took = (self.takes)(ask.unit).filter(|took| *took <= ask.limit && !deaf && read.is_some());
            self.now = self.now.plus(took.unwrap_or(ask.limit));
            let (words, bits) = ([read.unwrap_or(0); 125], [read != Some(0); 2_000]);
            let count = usize::from(ask.request.count);
            let answer = match took {
                None => Err(Failure::Silent),
                Some(_) => match (self.refuses)(ask.unit, ask.request) {
                    Some(code) => Err(Failure::Exception(code)),
                    None if ask.request.table.is_bits() => Ok(Answer::Bits(&bits[..count.next_multiple_of(8)])),
                    None => Ok(Answer::Words(&words[..count])),
                },
            };
            let mut out = Vec::new();
            let now = Now { mono: self.now, wall: Wall::default() };
            self.poller.handle_answer(ask.ticket, answer, now, &mut out);
            for reading in out {
                match reading.value {
                    Ok(Value::Number(number)) => self.numbers.push(number),
                    Ok(Value::Flag(on)) => self.numbers.push(f64::from(u8::from(on))),
                    _ => {}
                }
                let list = if reading.value.is_ok() { &mut self.good } else { &mut self.bad };
                list.push((self.now, reading.point));
            }
        }

        fn asked(&self, unit: u8) -> Vec<u64> {
            self.asked.iter().filter(|(_, asked, _)| *asked == unit).map(|(at, ..)| *at).collect()
        }

        fn events(&mut self) -> Vec<Event> {
            std::iter::from_fn(|| self.poller.poll_event()).collect()
        }
    }

    #[test]
    fn a_quiet_bus_is_asked_once_an_interval_and_alarm_points_first() {
        let mut mixed = plans("interval = '1s'", "h0", 2);
        mixed.extend(plans("interval = '1s'", "!h0", 4).split_off(2));
        let mut bus = bus(timing(), mixed);
        bus.run(2_500);
        let order: Vec<(u64, u8)> = bus.asked.iter().map(|(at, unit, _)| (*at, *unit)).collect();
        let cycle = |start: u64| [(start, 3), (start + 10, 4), (start + 20, 1), (start + 30, 2)];
        assert_eq!(order, [cycle(0), cycle(1_000), cycle(2_000)].concat());
    }

    /// The unit of two requests a cycle rests 100 ms after each; the others are asked meanwhile.
    #[test]
    fn a_unit_that_needs_a_pause_gets_it_and_holds_up_nobody() {
        let mut mixed = plans("interval = '1s'\npause_between_requests = '100ms'", "h0 h40", 1);
        mixed.extend(plans("interval = '1s'", "h0", 2).split_off(1));
        let mut bus = bus(timing(), mixed);
        bus.run(1_050);
        assert_eq!((bus.asked(1), bus.asked(2)), (vec![0, 110, 1_000], vec![10, 1_010]));
        bus.takes = |_| None;
        bus.run(9_000);
        let silent = bus.asked(1).split_off(3);
        let paused = silent.windows(2).all(|pair| pair[1] - pair[0] >= 1_100);
        assert!(silent.len() >= 3 && paused, "a pause follows a wait for nothing, too: {silent:?}");
    }

    #[test]
    fn a_counter_reads_as_what_it_rose_by() {
        let mut bus = bus(timing(), plans("interval = '1s'", "!h0:counter", 1));
        bus.reads = [65_500, 65_500, 65_530, 4, 4, 1].map(Some).into();
        bus.run(5_900);
        // Nothing is known of before; it stands; it rises; it runs over; it stands; it begins again and has risen by 1.
        assert_eq!(bus.numbers, [0.0, 0.0, 30.0, 10.0, 0.0, 1.0]);
        assert_eq!(bus.poller.counters().requests, 6, "a rise is no leap that needs a second look");
    }

    #[test]
    fn a_loaded_bus_serves_alarm_points_more_often_and_starves_nobody() {
        let mut mixed = plans("interval = '50ms'", "h0", 20);
        mixed.extend(plans("interval = '50ms'", "!h0", 24).split_off(20));
        let mut bus = bus(timing(), mixed);
        bus.run(60_000);
        let (normal, alarm) = (bus.asked(1).len(), bus.asked(21).len());
        assert!(normal >= 200, "a normal unit was read {normal} times in a minute");
        assert!(alarm >= normal, "{alarm} against {normal}");
        assert!(bus.poller.counters().late_cycles > 0);
    }

    #[test]
    fn a_dead_unit_is_parked_probed_in_gaps_and_comes_back() {
        let mut bus = bus(timing(), plans("interval = '2s'", "h0 h1", 3));
        bus.takes = |unit| (unit != 2).then_some(10 * MS);
        bus.run(10_000);
        // The first silence costs the whole time-out, a retry follows, then one try a cycle until the third failed one.
        assert_eq!(bus.asked(2), [10, 1_020, 2_040, 4_020]);
        assert_eq!(bus.bad.len(), 2 + 2 + 2);
        let parked = Event::Parked { unit: 2, device: Arc::from("d2"), why: Failure::Silent };
        assert_eq!(bus.events(), [parked]);
        bus.run(100_000);
        let probes = bus.asked(2).split_off(4);
        assert_eq!(probes.len(), 3, "{probes:?}");
        bus.takes = |_| Some(10 * MS);
        bus.run(140_000);
        assert_eq!(bus.events(), [Event::Back { unit: 2, device: Arc::from("d2") }]);
        assert!(bus.good.iter().any(|(_, point)| *point == PointIx(3)));
    }

    /// The 99th of a hundred waits between two good readings of a point, from the moment `from` on.
    fn p99(bus: &Bus, from: u64, but: PointIx) -> Duration {
        let start = Mono::default().plus(Duration::from_millis(from));
        let mut last: std::collections::HashMap<u32, Mono> = std::collections::HashMap::new();
        let mut waits = Vec::new();
        for (at, point) in bus.good.iter().filter(|(at, point)| *at >= start && *point != but) {
            if let Some(before) = last.insert(point.0, *at) {
                waits.push(at.since(before));
            }
        }
        waits.sort();
        waits[waits.len() * 99 / 100]
    }

    #[test]
    fn one_dead_unit_lengthens_the_cycle_of_the_others_by_less_than_a_twentieth() {
        // On a bus that rests, on one that is loaded, fast as a network and slow as a serial line; after the minute in
        // which the unit is found dead.
        for (units, interval, fast, minutes) in [
            (32, "1s", true, 6),
            (200, "1s", true, 4),
            (32, "100ms", true, 3),
            (32, "1ms", true, 3),
            (200, "1ms", true, 4),
            (32, "1s", false, 20),
            (200, "1s", false, 60),
        ] {
            let table = format!("interval = '{interval}'");
            let timing = if fast { timing() } else { Timing { timeout: 500 * MS, ..timing() } };
            let mut healthy = bus(timing, plans(&table, "h0", units));
            healthy.takes = if fast { |_| Some(2 * MS) } else { |_| Some(60 * MS) };
            healthy.run(minutes * 60_000);
            let mut one_dead = bus(timing, plans(&table, "h0", units));
            one_dead.takes =
                if fast { |unit| (unit != 7).then_some(2 * MS) } else { |unit| (unit != 7).then_some(60 * MS) };
            one_dead.run(minutes * 60_000);
            let probes = one_dead.asked(7).len();
            assert!(probes >= 5, "{units} {interval}: asked {probes} times");
            let (before, after) = (p99(&healthy, 60_000, PointIx(6)), p99(&one_dead, 60_000, PointIx(6)));
            assert!(after < before.mul_f64(1.05), "{units} {interval}: {before:?} became {after:?}");
        }
    }

    #[test]
    fn a_refused_register_is_found_left_alone_and_tried_again() {
        let mut bus = bus(timing(), plans("interval = '1s'", "h0 h1 h2 h3 h4 h5 h6 h7", 1));
        bus.refuses = |_, request| (request.address <= 5 && 5 < request.address + request.count).then_some(2);
        bus.run(900);
        let asked: Vec<&str> = bus.asked.iter().map(|(.., request)| request.as_str()).collect();
        assert_eq!(asked, ["h0+8", "h0+4", "h4+4", "h4+2", "h6+2", "h4+1", "h5+1"]);
        let point = PointIx(5);
        let why = Failure::Exception(2);
        let quarantined = Event::Quarantined { unit: 1, device: Arc::from("d1"), points: vec![point], why };
        assert_eq!(bus.events(), [quarantined]);
        assert_eq!(bus.bad, [(bus.bad[0].0, point)]);
        assert_eq!(bus.good.len(), 7, "every other point was read in the same cycle");
        bus.asked.clear();
        bus.run(599_000);
        assert!(bus.asked.iter().all(|(.., request)| request == "h0+5" || request == "h6+2"));
        bus.run(1_100_000);
        assert_eq!(bus.events(), [], "said once");
        bus.refuses = |_, _| None;
        bus.run(1_300_000);
        assert_eq!(bus.events(), [Event::Released { unit: 1, device: Arc::from("d1"), points: vec![point] }]);
        assert_eq!(bus.asked.last().map(|(.., request)| request.as_str()), Some("h0+8"), "joined again");
    }

    #[test]
    fn a_gap_that_does_not_exist_is_cut_out_for_good() {
        let mut bus = bus(timing(), plans("interval = '1s'", "h0 h1 h8 h9", 1));
        bus.refuses = |_, request| (request.address <= 4 && 4 < request.address + request.count).then_some(2);
        bus.run(2_500);
        let asked: Vec<&str> = bus.asked.iter().map(|(.., request)| request.as_str()).collect();
        assert_eq!(asked, ["h0+10", "h0+2", "h8+2", "h0+2", "h8+2", "h0+2", "h8+2"]);
        assert_eq!((bus.events(), bus.bad.len()), (vec![], 0));
    }

    #[test]
    fn exceptions_are_repeated_only_when_the_unit_is_busy() {
        for (code, asked) in [(1, 1), (4, 1), (5, 1), (6, 3), (7, 1), (8, 1), (10, 1), (11, 1)] {
            let mut bus = bus(Timing { retries: 2, ..timing() }, plans("interval = '1s'", "h0", 1));
            bus.refuses = match code {
                1 => |_, _| Some(1),
                4 => |_, _| Some(4),
                5 => |_, _| Some(5),
                6 => |_, _| Some(6),
                7 => |_, _| Some(7),
                8 => |_, _| Some(8),
                10 => |_, _| Some(10),
                _ => |_, _| Some(11),
            };
            bus.run(900);
            assert_eq!((bus.asked.len(), bus.bad.len()), (asked, 1), "exception {code}");
        }
    }

    #[test]
    fn a_block_that_is_never_answered_does_not_take_the_others_with_it() {
        let mut bus = bus(timing(), plans("interval = '1s'\nmax_register_fill = 0", "!h0 h50", 1));
        bus.refuses = |_, request| (request.address == 0).then_some(4);
        bus.run(10_000);
        assert!(bus.good.len() >= 9, "the other block was read {} times", bus.good.len());
        let points = vec![PointIx(0)];
        let why = Failure::Exception(4);
        assert_eq!(bus.events(), [Event::Withheld { unit: 1, device: Arc::from("d1"), points, why }]);
    }

    #[test]
    fn a_unit_that_answers_everything_with_an_exception_is_parked_said_and_found_again() {
        for (code, most) in [(1, 6), (4, 6), (6, 12), (10, 3), (11, 3)] {
            let mut bus = bus(timing(), plans("interval = '1s'\nmax_register_fill = 0", "h0 h50", 2));
            bus.refuses = match code {
                1 => |unit, _| (unit == 1).then_some(1),
                4 => |unit, _| (unit == 1).then_some(4),
                6 => |unit, _| (unit == 1).then_some(6),
                10 => |unit, _| (unit == 1).then_some(10),
                _ => |unit, _| (unit == 1).then_some(11),
            };
            bus.run(10_000);
            let why = Failure::Exception(code);
            assert_eq!(bus.events(), [Event::Parked { unit: 1, device: Arc::from("d1"), why }]);
            assert_eq!(bus.poller.trouble(1), Some(Trouble::Parked(why)));
            assert_eq!(bus.asked(1).len(), most, "exception {code}: asked no more before the first probe");
            assert!(bus.bad.iter().any(|(_, point)| *point == PointIx(0)), "exception {code}");
            bus.run(100_000);
            assert!(bus.asked(1).len() <= most + 3, "exception {code}: {:?}", bus.asked(1));
            assert_eq!(bus.asked(2).len(), 200, "exception {code}: the other unit is read as before");
            assert_eq!(bus.events(), [], "exception {code}: said once");
            bus.refuses = |_, _| None;
            bus.run(140_000);
            assert_eq!(bus.events(), [Event::Back { unit: 1, device: Arc::from("d1") }]);
            assert_eq!(bus.poller.trouble(1), None);
            assert!(bus.good.iter().any(|(_, point)| *point == PointIx(1)), "exception {code}");
        }
    }

    #[test]
    fn a_probe_that_the_unit_never_answers_does_not_keep_it_parked() {
        // The first block is never given; only the second tells that the unit is there again.
        let mut bus = bus(timing(), plans("interval = '1s'\nmax_register_fill = 0", "h0 h50:float32", 1));
        bus.refuses = |_, request| (request.address == 0).then_some(4);
        bus.takes = |_| None;
        bus.run(20_000);
        assert_eq!(bus.poller.trouble(1), Some(Trouble::Parked(Failure::Silent)));
        bus.takes = |_| Some(10 * MS);
        bus.run(90_000);
        let why = Failure::Exception(4);
        let device = || Arc::from("d1");
        let points = vec![PointIx(0)];
        let wanted = [
            Event::Parked { unit: 1, device: device(), why: Failure::Silent },
            Event::Parked { unit: 1, device: device(), why },
            Event::Back { unit: 1, device: device() },
            Event::Withheld { unit: 1, device: device(), points: points.clone(), why },
        ];
        assert_eq!(bus.events(), wanted);
        assert_eq!(bus.poller.trouble(1), Some(Trouble::Lacks { names: vec![Arc::from("p0")], why }));
        bus.refuses = |_, _| None;
        bus.run(130_000);
        assert_eq!(bus.events(), [Event::Released { unit: 1, device: device(), points }]);
        assert_eq!(bus.poller.trouble(1), None);
    }

    #[test]
    fn a_unit_that_answers_now_and_then_takes_no_more_than_a_fifth_of_a_loaded_bus() {
        let mut bus = bus(timing(), plans("interval = '10ms'", "h0", 8));
        bus.deaf_every_other = Some(8);
        bus.run(60_000);
        // 1 s is wasted on each turn of the flaky unit, which goes on being read.
        let flaky = bus.good.iter().filter(|(_, point)| *point == PointIx(7)).count();
        assert!((8..=13).contains(&flaky), "{flaky}");
        assert!(bus.asked(1).len() > 600, "{}", bus.asked(1).len());
    }

    #[test]
    fn a_leap_of_an_alarm_point_is_looked_at_twice_before_anybody_hears_of_it() {
        let spikes = |bus: &Bus| bus.poller.counters().spikes;
        for (points, reads, numbers, asked, taken_back) in [
            // Taken back, borne out, and on its way up.
            (
                "!h0",
                [Some(7), Some(900), Some(8), Some(8)].as_slice(),
                [7, 8, 8].as_slice(),
                [0, 1_000, 1_010, 2_000],
                1,
            ),
            ("!h0", &[Some(7), Some(900), Some(890), Some(890)], &[7, 900, 890, 890], [0, 1_000, 1_010, 2_000], 0),
            ("!h0", &[Some(7), Some(100), Some(200), Some(205)], &[7, 100, 200, 205], [0, 1_000, 1_010, 2_000], 0),
            // No second answer: the first one counts.
            ("!h0", &[Some(7), Some(900), None, Some(900)], &[7, 900, 900], [0, 1_000, 1_010, 2_010], 0),
            // A hundredth of the range is no leap; neither is anything of a point that raises no alarm.
            ("!h0", &[Some(7), Some(17), Some(7), Some(8)], &[7, 17, 7, 8], [0, 1_000, 2_000, 3_000], 0),
            ("h0", &[Some(7), Some(900), Some(8), Some(8)], &[7, 900, 8, 8], [0, 1_000, 2_000, 3_000], 0),
            ("!c0", &[Some(0), Some(1), Some(0), Some(0)], &[0, 0, 0], [0, 1_000, 1_010, 2_000], 1),
        ] {
            let mut bus = bus(timing(), plans("interval = '1s'", points, 1));
            bus.reads = reads.iter().copied().collect();
            while !bus.reads.is_empty() {
                let next = bus.ms() + 1;
                bus.run(next);
            }
            let at: Vec<u64> = bus.asked.iter().map(|(at, ..)| *at).collect();
            assert_eq!(at, asked, "{points} {reads:?}");
            assert_eq!(bus.numbers, numbers.iter().map(|n| f64::from(*n)).collect::<Vec<_>>(), "{points} {reads:?}");
            assert_eq!((spikes(&bus), bus.bad.len()), (taken_back, 0), "{points} {reads:?}");
        }
    }

    #[test]
    fn a_serial_unit_that_was_silent_is_not_asked_until_its_late_answer_cannot_come_any_more() {
        let timing = Timing { timeout: 200 * MS, late_window: 3_000 * MS, ..timing() };
        let mut bus = bus(timing, plans("interval = '500ms'", "h0", 2));
        bus.takes = |unit| (unit != 1).then_some(10 * MS);
        bus.run(900);
        assert_eq!(bus.asked(1), [0]);
        bus.run(4_000);
        assert_eq!(bus.asked(1).len(), 2);
        assert!(bus.asked(1)[1] >= 3_000);
        bus.poller.handle_late_answer(1);
        bus.run(4_600);
        assert_eq!(bus.asked(1).len(), 3, "its late answer was heard, so it may be asked again");
        assert!(bus.asked(2).len() >= 9, "the other unit never waited");
    }

    #[test]
    fn a_serial_unit_is_not_asked_for_what_a_repeat_of_its_last_answer_would_pass_for() {
        for (points, asked) in
            [("h0 h50", [0, 60]), ("h0 h50:float32", [0, 10]), ("h0 i50", [0, 10]), ("c0 c500", [0, 60])]
        {
            let mut bus = bus(Timing { repeat_window: 50 * MS, ..timing() }, plans("interval = '1s'", points, 1));
            bus.run(900);
            let at: Vec<u64> = bus.asked.iter().map(|(at, ..)| *at).collect();
            assert_eq!(at, asked, "{points}");
        }
        let mut bus = bus(Timing { repeat_window: 50 * MS, ..timing() }, plans("interval = '50ms'", "h0 h50", 1));
        bus.run(10_000);
        let first = bus.asked.iter().filter(|(.., request)| request == "h0+1").count();
        assert!((80..=90).contains(&first) && bus.asked.len() >= 2 * first - 1, "neither starves: {first}");
    }

    #[test]
    fn a_wrong_count_of_values_is_a_fault_whatever_the_library_says() {
        for (short, words, bits, sound) in [
            ("h0 h1", Some(2), None, true),
            ("h0 h1", Some(1), None, false),
            ("h0 h1", Some(3), None, false),
            ("h0 h1", Some(0), None, false),
            ("h0 h1", None, Some(8), false),
            ("c0 c1", None, Some(8), true),
            ("c0 c1", None, Some(1), false),
            ("c0 c1", None, Some(16), false),
            ("c0 c1", Some(2), None, false),
        ] {
            let mut poller = Poller::new(Timing { retries: 0, ..timing() }, plans("", short, 1), Mono::default());
            let Next::Ask(ask) = poller.poll_request(Mono::default()) else { panic!("a unit is due at once") };
            let (all_words, all_bits) = ([0; 8], [false; 16]);
            let answer = match (words, bits) {
                (Some(n), _) => Answer::Words(&all_words[..n]),
                (_, n) => Answer::Bits(&all_bits[..n.unwrap_or(0)]),
            };
            let mut out = Vec::new();
            poller.handle_answer(ask.ticket, Ok(answer), Now::default(), &mut out);
            assert_eq!(out.len(), 2);
            assert!(out.iter().all(|reading| reading.value.is_ok() == sound), "{short} {words:?} {bits:?}");
            poller.handle_answer(ask.ticket, Ok(answer), Now::default(), &mut out);
            assert_eq!(out.len(), 2, "a ticket counts once");
        }
    }

    #[test]
    fn a_lost_bus_fails_every_point_and_is_read_at_once_when_it_is_back() {
        let mut bus = bus(timing(), plans("interval = '1s'", "h0 h1", 2));
        bus.run(500);
        let mut out = Vec::new();
        bus.poller.handle_bus_lost(Now { mono: bus.now, wall: Wall::default() }, &mut out);
        assert!(out.len() == 4 && out.iter().all(|reading| reading.value == Err(Fault::Comms)));
        bus.run(550);
        assert_eq!(bus.asked(1), [0, 500]);
    }
}
