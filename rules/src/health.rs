//! Which points and devices cannot be believed or heard: system alarms from the quality of samples.
//!
//! One byte a point remembers what was last thought of it; a sample that changes nothing costs one comparison. A silent
//! device raises one alarm, however many points it has. Also the rules that anmin brings for itself, `system/...`.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use anmin_sensors::document;
use anmin_sensors::point::{DeviceIx, Name, PointIx, Points};
use anmin_sensors::reading::{Doubt, Fault, Quality, Sample};
use anmin_sensors::time::{Mono, Now};

use crate::alarm::Subject;
use crate::book::{AlarmBook, SystemReport};
use crate::rule::{Evidence, Judged, Level, OnBad, RuleId, RuleSpec, Text, Verdict, Why};
use crate::set::{BrokenRule, RuleSet};

/// The conditions that anmin watches in its own code.
#[derive(Clone, Debug)]
pub(crate) struct SystemRules {
    /// Unusable values from one point, or a device that cannot be read.
    pub sensor: Arc<RuleSpec>,
    /// A device that does not speak.
    pub silent: Arc<RuleSpec>,
    /// A value that has not moved for as long as it never stands still.
    pub flat: Arc<RuleSpec>,
    /// A value that jumps again and again.
    pub jumping: Arc<RuleSpec>,
    /// A device whose clock is wrong.
    pub clock: Arc<RuleSpec>,
    /// A rule that cannot judge.
    pub rule: Arc<RuleSpec>,
    /// No station answers.
    pub station: Arc<RuleSpec>,
    /// Steps of an incident's checklist are late.
    pub plan: Arc<RuleSpec>,
    /// A station cannot respond.
    pub readiness: Arc<RuleSpec>,
    /// Nobody has let a warning leave the community.
    pub broadcast: Arc<RuleSpec>,
    /// An alarm that comes and goes.
    pub chatter: Arc<RuleSpec>,
    /// A part of anmin or of its surroundings.
    pub part: Arc<RuleSpec>,
    /// What an office above warns of.
    pub warning: Arc<RuleSpec>,
    /// A monitoring centre asks whether somebody is on duty.
    pub duty_check: Arc<RuleSpec>,
    /// A resident asks for help.
    pub help: Arc<RuleSpec>,
}

impl SystemRules {
    pub fn new(bad_grace: Duration, escalate_after: Option<Duration>) -> Self {
        let spec = |name: &str, zh: &str, en: &str, on_delay, off_delay, advice: (&str, &str)| {
            Arc::new(RuleSpec {
                id: RuleId::new(format!("system/{name}")),
                title: Text { zh: zh.to_owned(), en: en.to_owned() },
                hazard: None,
                opens: None,
                inputs: Vec::new(),
                windows: Vec::new(),
                limits: BTreeMap::new(),
                on_delay,
                off_delay,
                deadband: 0.0,
                latch: false,
                on_bad: OnBad::Fault,
                escalate_after,
                realarm_after: None,
                message: Text::default(),
                advice: Text { zh: advice.0.to_owned(), en: advice.1.to_owned() },
            })
        };
        let (now, settled) = (Duration::ZERO, Duration::from_secs(10));
        Self {
            sensor: spec(
                "sensor",
                "测点数据不可用",
                "unusable values",
                bad_grace,
                settled,
                (
                    "检查传感器及其接线；修复前请人工巡查该处。",
                    "Check the sensor and its wiring; patrol the place until it is repaired.",
                ),
            ),
            silent: spec(
                "silent",
                "设备失联",
                "silent device",
                now,
                now,
                (
                    "检查设备的电源、电池和网络；恢复前请人工巡查该处。",
                    "Check the device's power, battery and network; patrol the place until it is back.",
                ),
            ),
            flat: spec(
                "flat",
                "数值长时间不变",
                "a value that does not move",
                now,
                settled,
                (
                    "检查传感器是否卡死、被遮盖或断线；按测试键看数值是否变化。",
                    "See whether the sensor hangs, is covered or has come off; press its test button and watch the value.",
                ),
            ),
            jumping: spec(
                "jumping",
                "数值反复跳变",
                "a value that jumps",
                now,
                Duration::from_secs(3600),
                (
                    "检查接线、屏蔽和供电；跳变的读数可能触发报警，但不会解除报警。",
                    "Check wiring, shield and supply; such a reading may raise an alarm and clears none.",
                ),
            ),
            clock: spec(
                "clock",
                "设备时钟错误",
                "device clock wrong",
                now,
                Duration::from_secs(600),
                (
                    "校准设备时钟或检查其对时服务；在此之前按接收时间记录。",
                    "Set the device's clock or its time server; until then the time of receipt is taken.",
                ),
            ),
            rule: spec(
                "rule",
                "规则无法判断",
                "a rule cannot judge",
                now,
                now,
                (
                    "请联系维护人员修正规则；修正前请人工关注相关测点。",
                    "Have the rule corrected; watch its points by eye until then.",
                ),
            ),
            plan: spec(
                "plan",
                "处置步骤超时",
                "steps of a plan are late",
                now,
                now,
                (
                    "联系责任人完成该步骤，完成后勾选；不适用的，注明原因后跳过。",
                    "Reach whoever is to do it and tick it when it is done; skip with a reason what does not apply.",
                ),
            ),
            readiness: spec(
                "readiness",
                "微型消防站不能出动",
                "station cannot respond",
                now,
                now,
                (
                    "安排人员接班、检查器材，或通知联防站加强准备。",
                    "See that somebody takes over and the equipment is checked, or warn the neighbouring stations.",
                ),
            ),
            broadcast: spec(
                "broadcast",
                "对外播报未获批准",
                "broadcast not approved",
                now,
                now,
                (
                    "请值班负责人核实险情：需要播报的，由两人分别用本人账号批准；不需要的，注明原因后否决。",
                    "Verify the danger: if it is to be broadcast, two people say yes, each with an account of their own; if \
                     not, refuse it and say why.",
                ),
            ),
            station: spec(
                "station",
                "微型消防站无人应答",
                "no station answers",
                now,
                now,
                ("请立即电话联系消防站值班人员，必要时拨打119。", "Phone the stations at once; call 119 if in doubt."),
            ),
            chatter: spec(
                "chatter",
                "报警频繁抖动",
                "an alarm that chatters",
                now,
                now,
                (
                    "检查传感器、接线和安装位置，或调整该规则的限值、回差和延时；报警在此期间保持，不会被漏掉。",
                    "Check the sensor, its wiring and its place, or the rule's limit, deadband and delays; the alarm is held \
                     meanwhile and nothing is missed.",
                ),
            ),
            part: spec(
                "part",
                "系统部件故障",
                "part of the system in trouble",
                now,
                now,
                ("请联系维护人员。", "Call maintenance."),
            ),
            duty_check: spec(
                "duty_check",
                "监控中心查岗",
                "duty check",
                now,
                now,
                (
                    "在岗的值班人员请本人按“确认”：确认即应答，并记下是谁；到时无人确认，监控中心即知无人应答。",
                    "Whoever is on duty acknowledges it in person: that is the answer, and it is kept whose it was. Where nobody \
                     does in time the centre has no answer.",
                ),
            ),
            help: spec(
                "help",
                "居民求助",
                "a resident asks for help",
                now,
                now,
                (
                    "在“报表”的登记表“居民求助与报平安”中查看位置和电话，核实后派人，并把状态改为“处理中”；危及生命的，立即拨打119或120。",
                    "Where and whom to phone stands in the register of residents who ask for help, under reports: verify it, \
                     send somebody, and set it to `taken`; where a life is in danger call 119 or 120 at once.",
                ),
            ),
            warning: spec(
                "warning",
                "上级预警",
                "warning from above",
                now,
                now,
                (
                    "按预警提示和本社区预案做好准备，确认后上级即获知；是否对外广播由值班人员决定。",
                    "Prepare as the warning and the plans of this community say; the office hears that you have acknowledged \
                     it. Whether anything is broadcast is for people to decide.",
                ),
            ),
        }
    }

    pub fn find(&self, id: &RuleId) -> Option<&Arc<RuleSpec>> {
        [
            &self.sensor,
            &self.silent,
            &self.flat,
            &self.jumping,
            &self.clock,
            &self.rule,
            &self.station,
            &self.plan,
            &self.readiness,
            &self.broadcast,
            &self.chatter,
            &self.part,
            &self.warning,
            &self.duty_check,
            &self.help,
        ]
        .into_iter()
        .find(|spec| spec.id == *id)
    }
}

/// What was last thought of a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    Fine,
    Bad(Fault),
    /// It can be used, with a doubt that lasts.
    Flat,
    Jumping,
    ClockWrong,
    /// An alarm of the time before the restart says that its values were bad; nothing good has come since.
    Restored,
    /// An alarm of the time before the restart says that its device was silent; nothing has been heard since.
    Unheard,
}

impl Mark {
    fn next(self, quality: Quality) -> Self {
        match (self, quality) {
            (_, Quality::Good) => Self::Fine,
            (old, Quality::Uncertain(Doubt::Unconfirmed)) => old,
            // It talks, but what it says is no proof that its values are good again.
            (Self::Bad(fault), Quality::Uncertain(_)) if spoils_value(fault) => self,
            (Self::Restored, Quality::Uncertain(_)) => self,
            (_, Quality::Uncertain(Doubt::Stuck)) => Self::Flat,
            (_, Quality::Uncertain(Doubt::ClockSkew)) => Self::ClockWrong,
            // One jump says nothing about what lasts.
            (Self::Flat | Self::Jumping | Self::ClockWrong, Quality::Uncertain(Doubt::Jump)) => self,
            (_, Quality::Uncertain(_)) => Self::Fine,
            // To be unreadable is no sign of life.
            (Self::Bad(Fault::Silent | Fault::Offline), Quality::Bad(Fault::Comms)) => self,
            (_, Quality::Bad(fault)) => Self::Bad(fault),
        }
    }

    fn is_silent(self) -> bool {
        matches!(self, Self::Bad(Fault::Silent | Fault::Offline))
    }
}

fn spoils_value(fault: Fault) -> bool {
    matches!(fault, Fault::OutOfRange | Fault::Sentinel | Fault::NotAValue)
}

/// Subjects of alarms about rules: one that cannot judge, and the files of one that cannot be loaded.
const RULE: &str = "rule:";
const RULE_FILE: &str = "rule-file:";
/// Subject of the notice that alarms of a rule stand which nobody judges any more.
const RULE_GONE: &str = "rule-gone:";

/// A value that jumps so often within so long is no longer a spike or two.
const JUMPS: usize = 5;
const JUMPS_WITHIN: Duration = Duration::from_secs(3600);

/// What is known of the health of points, devices and rules.
pub(crate) struct Health {
    pub rules: SystemRules,
    /// By point index.
    marks: Vec<Mark>,
    /// Points and devices of restored alarms that are not among the points yet.
    restored: Vec<Subject>,
    points_seen: usize,
    /// Rules that cannot judge some of their subjects; none at all for one whose alarm was restored.
    failing: BTreeMap<RuleId, BTreeMap<PointIx, Level>>,
    /// Rules whose alarms nobody judges any more, and how many alarms.
    abandoned: BTreeMap<RuleId, usize>,
    /// Rules that could not be loaded, and those of restored alarms that could not be before.
    unloaded: BTreeSet<RuleId>,
    /// When points jumped lately, of those that have.
    jumps: HashMap<PointIx, VecDeque<Mono>>,
    changed: Vec<usize>,
    devices: Vec<DeviceIx>,
}

impl Health {
    pub fn new(rules: SystemRules) -> Self {
        Self {
            rules,
            marks: Vec::new(),
            restored: Vec::new(),
            points_seen: 0,
            failing: BTreeMap::new(),
            abandoned: BTreeMap::new(),
            unloaded: BTreeSet::new(),
            jumps: HashMap::new(),
            changed: Vec::new(),
            devices: Vec::new(),
        }
    }

    /// An open system alarm of the time before the restart.
    pub fn restore(&mut self, rule: &RuleId, subject: &Subject) {
        if *rule == self.rules.rule.id {
            let name = subject.as_str();
            if let Some(rule) = name.strip_prefix(RULE_FILE) {
                self.unloaded.insert(RuleId::new(rule));
            } else if let Some(rule) = name.strip_prefix(RULE_GONE) {
                self.abandoned.insert(RuleId::new(rule), 0);
            } else {
                self.failing.insert(RuleId::new(name.strip_prefix(RULE).unwrap_or(name)), BTreeMap::new());
            }
        } else if [&self.rules.silent, &self.rules.sensor, &self.rules.flat, &self.rules.jumping, &self.rules.clock]
            .into_iter()
            .any(|known| known.id == *rule)
        {
            self.restored.push(subject.clone());
        }
    }

    pub fn handle_samples(&mut self, now: Now, points: &Points, samples: &[Sample], book: &mut AlarmBook) {
        if self.points_seen != points.len() {
            self.meet(points);
        }
        for (n, sample) in samples.iter().enumerate() {
            let Some(mark) = self.marks.get_mut(sample.point.0 as usize).filter(|_| sample.news) else { continue };
            let mut next = mark.next(sample.quality);
            if sample.quality == Quality::Uncertain(Doubt::Jump) {
                let times = self.jumps.entry(sample.point).or_default();
                times.push_back(now.mono);
                times.retain(|time| now.mono.since(*time) < JUMPS_WITHIN);
                if times.len() > JUMPS {
                    times.pop_front();
                }
                if times.len() == JUMPS && next == Mark::Fine {
                    next = Mark::Jumping;
                }
            }
            if next != *mark {
                self.changed.push(n);
                *mark = next;
            }
        }
        if self.changed.is_empty() {
            return;
        }
        for n in std::mem::take(&mut self.changed) {
            let sample = &samples[n];
            self.report_point(now, points, sample, book);
            self.report_doubt(now, points, sample.point, book);
            self.devices.push(points.point(sample.point).device);
        }
        self.devices.sort_unstable();
        self.devices.dedup();
        for device in std::mem::take(&mut self.devices) {
            self.report_device(now, points, device, book);
        }
    }

    /// Notes whether a rule can judge, from each of its verdicts.
    pub fn handle_judged(&mut self, now: Now, points: &Points, spec: &RuleSpec, judged: &Judged, book: &mut AlarmBook) {
        let (level, why) = match &judged.verdict {
            Verdict::Undetermined(Why::ScriptFailed(why)) => (Level::Yellow, why),
            Verdict::Undetermined(Why::Unclear(why)) => (Level::Blue, why),
            // Says nothing about the script.
            Verdict::Undetermined(_) => return,
            Verdict::Normal | Verdict::Abnormal(_) => {
                let Some(subjects) = self.failing.get_mut(&spec.id) else { return };
                subjects.remove(&judged.subject);
                if subjects.is_empty() {
                    self.failing.remove(&spec.id);
                    self.report_rule(now, RULE, &spec.id, None, book);
                }
                return;
            }
        };
        let subjects = self.failing.entry(spec.id.clone()).or_default();
        if subjects.insert(judged.subject, level) == Some(level) {
            return;
        }
        let worst = subjects.values().copied().max().unwrap_or(level);
        let (device, count, id) = (points.device_of(judged.subject), subjects.len(), &spec.id);
        let text = Text {
            zh: format!(
                "规则 {id}（{}）无法判断 {count} 个测点，如{}{}：{why}。已有报警保持不变，未按正常处理；其他规则不受影响。",
                spec.title.zh,
                device.place.zh(),
                device.label().zh,
            ),
            en: format!(
                "rule {id} ({}) cannot judge {count} of its points, such as {} at {}: {why}. Its alarms stay as they are \
                 and nothing counts as normal; all other rules stay in force.",
                spec.title.en,
                device.label().en,
                device.place.en(),
            ),
        };
        self.report_rule(now, RULE, &spec.id, Some((worst, text)), book);
    }

    /// `broken` are all rules that could not be loaded; `rules` are in force. A shipped rule may be in force under the
    /// name of one of the site's own that is broken, so the alarm is about the file, not about the rule.
    pub fn handle_broken_rules(&mut self, now: Now, broken: &[BrokenRule], rules: &RuleSet, book: &mut AlarmBook) {
        let before = std::mem::take(&mut self.unloaded);
        for BrokenRule { name, faults } in broken {
            let id = RuleId::new(name.as_str());
            let first = faults.first().map(|fault| document::Fault { hint: None, ..fault.clone() }.to_string());
            let why = first.unwrap_or_default();
            let others = rules.rules().len();
            let (zh, en) = match rules.find(&id) {
                Some(_) => ("自带的同名规则仍在判断", "The shipped rule of that name judges in its place"),
                None => ("它所监视的情况目前无人判断", "Nobody judges what it was to watch"),
            };
            let text = Text {
                zh: format!("规则 {id} 无法加载：{why}。{zh}；{others} 条规则照常有效。"),
                en: format!("rule {id} cannot be loaded: {why}. {en}; {others} rules are in force."),
            };
            self.report_rule(now, RULE_FILE, &id, Some((Level::Yellow, text)), book);
            self.unloaded.insert(id);
        }
        for rule in before.difference(&self.unloaded) {
            self.report_rule(now, RULE_FILE, rule, None, book);
        }
    }

    pub fn broken_rules(&self) -> impl Iterator<Item = &RuleId> {
        // A rule may be both: its file is broken, and the shipped one in its place fails.
        self.unloaded.iter().chain(self.failing.keys().filter(|rule| !self.unloaded.contains(*rule)))
    }

    /// New rules are in force: what `goes_on` fails as before, what is another is judged anew. Gives those that are gone and
    /// fail no more.
    pub fn rebind(&mut self, goes_on: impl Fn(&RuleId, PointIx) -> bool, has: impl Fn(&RuleId) -> bool) -> Vec<RuleId> {
        let (mut stay, gone): (BTreeMap<_, BTreeMap<_, _>>, BTreeMap<_, _>) =
            std::mem::take(&mut self.failing).into_iter().partition(|(rule, _)| has(rule));
        stay.iter_mut().for_each(|(rule, subjects)| subjects.retain(|subject, _| goes_on(rule, *subject)));
        self.failing = stay;
        gone.into_keys().collect()
    }

    /// Rules that fail no more because they are gone.
    pub fn handle_ended(&self, now: Now, rules: Vec<RuleId>, book: &mut AlarmBook) {
        rules.iter().for_each(|rule| self.report_rule(now, RULE, rule, None, book));
    }

    pub fn is_abandoned(&self, rule: &RuleId) -> bool {
        self.abandoned.contains_key(rule)
    }

    /// Says which alarms nobody judges any more, until people have dealt with them.
    pub fn handle_abandoned(&mut self, now: Now, book: &mut AlarmBook) {
        let mut abandoned: BTreeMap<RuleId, usize> = BTreeMap::new();
        book.abandoned().for_each(|alarm| *abandoned.entry(alarm.rule.clone()).or_default() += 1);
        let before = std::mem::replace(&mut self.abandoned, abandoned.clone());
        for (rule, count) in &abandoned {
            if before.get(rule) == Some(count) {
                continue;
            }
            let text = Text {
                zh: format!(
                    "规则 {rule} 已不在配置中或已停用，其 {count} 个未结束的报警无人再判断，不会自行解除：请到现场查看，确认后复位。"
                ),
                en: format!(
                    "rule {rule} is no longer there, or is switched off: nobody judges its open alarms ({count}) any more, and \
                     they do not end by themselves. Go and see, then acknowledge and reset them."
                ),
            };
            self.report_rule(now, RULE_GONE, rule, Some((Level::Blue, text)), book);
        }
        for rule in before.keys().filter(|rule| !abandoned.contains_key(*rule)) {
            self.report_rule(now, RULE_GONE, rule, None, book);
        }
    }

    fn report_rule(&self, now: Now, what: &str, rule: &RuleId, trouble: Option<(Level, Text)>, book: &mut AlarmBook) {
        let subject = Subject::Part(format!("{what}{rule}").into());
        let evidence = Evidence { received: now.wall, ..Evidence::default() };
        let spec = Arc::clone(&self.rules.rule);
        book.handle_system(now, SystemReport { spec, subject, place: Arc::default(), trouble, evidence });
    }

    /// Makes room for new points and finds those that restored alarms speak of.
    fn meet(&mut self, points: &Points) {
        self.points_seen = points.len();
        self.marks.resize(points.len(), Mark::Fine);
        let marks = &mut self.marks;
        self.restored.retain(|subject| match subject {
            Subject::Point(id) => match points.find(id.as_str()) {
                Some(point) => {
                    marks[point.0 as usize] = Mark::Restored;
                    false
                }
                None => true,
            },
            Subject::Device(id) => match points.find_device(id.as_str()) {
                Some(device) => {
                    for point in points.device(device).points() {
                        let mark = &mut marks[point.0 as usize];
                        if *mark == Mark::Fine {
                            *mark = Mark::Unheard;
                        }
                    }
                    false
                }
                None => true,
            },
            Subject::Part(_) => false,
        });
    }

    fn report_point(&self, now: Now, points: &Points, sample: &Sample, book: &mut AlarmBook) {
        let point = points.point(sample.point);
        let device = points.device_of(sample.point);
        let kind = point.spec.kind.info();
        let trouble = match self.marks[sample.point.0 as usize] {
            Mark::Bad(fault) if spoils_value(fault) => {
                let (zh, en) = match fault {
                    Fault::OutOfRange => ("数值超出合理范围", "values outside its plausible range"),
                    Fault::Sentinel => ("设备报告“无数据”", "the device's own code for \"no value\""),
                    _ => ("数据不是有效数值", "something that is not a value"),
                };
                let level = if point.spec.alarm_point { Level::Yellow } else { Level::Blue };
                Some((
                    level,
                    Text {
                        zh: format!(
                            "{}{}（{}）的{}：{zh}。该测点按“未知”处理，已有报警保持不变。",
                            device.place.zh(),
                            device.label().zh,
                            point.id,
                            kind.zh,
                        ),
                        en: format!(
                            "{} at {} ({}, {}) gives {en}. The point counts as unknown, alarms stay as they are.",
                            device.label().en,
                            device.place.en(),
                            point.id,
                            kind.en,
                        ),
                    },
                ))
            }
            _ => None,
        };
        let evidence = Evidence {
            point: Some(point.id.clone()),
            value: sample.value.clone(),
            unit: kind.unit.to_owned(),
            source_time: sample.source_time,
            sequence: sample.sequence,
            received: sample.received.wall,
            ..Evidence::default()
        };
        book.handle_system(
            now,
            SystemReport {
                spec: Arc::clone(&self.rules.sensor),
                subject: Subject::Point(point.id.clone()),
                place: Arc::clone(&device.place),
                trouble,
                evidence,
            },
        );
    }

    /// What can be used and is still not right, for points that may have had such a doubt.
    fn report_doubt(&self, now: Now, points: &Points, ix: PointIx, book: &mut AlarmBook) {
        let (point, device) = (points.point(ix), points.device_of(ix));
        let (zh, en) = (point.spec.kind.info().zh, point.spec.kind.info().en);
        let mark = self.marks[ix.0 as usize];
        let rows = [
            (&self.rules.flat, Mark::Flat, "长时间没有变化", "has not moved for long"),
            (&self.rules.jumping, Mark::Jumping, "反复跳变", "jumps again and again"),
        ];
        for (spec, this, said_zh, said_en) in rows {
            let trouble = (mark == this).then(|| {
                let text = Text {
                    zh: format!("{}{}（{}）的{zh}{said_zh}。", device.place.zh(), device.label().zh, point.id),
                    en: format!("{en} of {} at {} ({}) {said_en}.", device.label().en, device.place.en(), point.id),
                };
                (Level::Blue, text)
            });
            book.handle_system(
                now,
                SystemReport {
                    spec: Arc::clone(spec),
                    subject: Subject::Point(point.id.clone()),
                    place: Arc::clone(&device.place),
                    trouble,
                    evidence: Evidence { point: Some(point.id.clone()), received: now.wall, ..Evidence::default() },
                },
            );
        }
    }

    fn report_device(&mut self, now: Now, points: &Points, ix: DeviceIx, book: &mut AlarmBook) {
        let device = points.device(ix);
        let total = device.points().count();
        // Something was heard of the device: from now on its points speak for themselves.
        for point in device.points() {
            let mark = &mut self.marks[point.0 as usize];
            if *mark == Mark::Unheard {
                *mark = Mark::Fine;
            }
        }
        let mark = |point: &PointIx| self.marks[point.0 as usize];
        let level = match device.points().any(|point| points.point(point).spec.alarm_point) {
            true => Level::Yellow,
            false => Level::Blue,
        };
        let (place, Name { zh: label, en: label_en }, id) = (&device.place, device.label(), &device.id);
        let which = |these: &[PointIx]| match these {
            [one] if total > 1 => {
                let name = &points.point(*one).spec.name;
                (format!("测点 {name} "), format!("point {name} of "))
            }
            _ if these.len() < total => {
                (format!("{total} 个测点中的 {} 个", these.len()), format!("{} of {total} points of ", these.len()))
            }
            _ => (String::new(), String::new()),
        };

        let silent: Vec<PointIx> = device.points().filter(|point| mark(point).is_silent()).collect();
        let trouble = (!silent.is_empty()).then(|| {
            let offline = silent.iter().any(|point| mark(point) == Mark::Bad(Fault::Offline));
            let (zh, en) =
                if offline { ("已离线", "is offline") } else { ("失联：超时未上报数据", "is silent") };
            let (what_zh, what_en) = which(&silent);
            let text = Text {
                zh: format!(
                    "{}{label}（{id}）{what_zh}{zh}。该处按“未知”处理，已有报警保持不变，未按正常处理。",
                    place.zh()
                ),
                en: format!(
                    "{what_en}{label_en} ({id}) at {} {en}. It counts as unknown, not as normal; alarms stay as they are.",
                    place.en(),
                ),
            };
            (level, text)
        });
        let report = |spec: &Arc<RuleSpec>, trouble| SystemReport {
            spec: Arc::clone(spec),
            subject: Subject::Device(id.clone()),
            place: Arc::clone(place),
            trouble,
            evidence: Evidence { received: now.wall, ..Evidence::default() },
        };
        book.handle_system(now, report(&self.rules.silent, trouble));

        let wrong = device.points().any(|point| mark(&point) == Mark::ClockWrong);
        let trouble = wrong.then(|| {
            let text = Text {
                zh: format!("{}{label}（{id}）的时钟与本机相差过大，其读数按接收时间记录。", place.zh()),
                en: format!("the clock of {label_en} ({id}) at {} is wrong; the time of receipt is taken.", place.en()),
            };
            (Level::Blue, text)
        });
        book.handle_system(now, report(&self.rules.clock, trouble));

        let unread: Vec<PointIx> = device.points().filter(|point| mark(point) == Mark::Bad(Fault::Comms)).collect();
        let trouble = (!unread.is_empty()).then(|| {
            let (what_zh, what_en) = which(&unread);
            let text = Text {
                zh: format!(
                    "{}{label}（{id}）{what_zh}无法读取（通信故障）。按“未知”处理，已有报警保持不变。",
                    place.zh()
                ),
                en: format!(
                    "{what_en}{label_en} ({id}) at {} cannot be read. It counts as unknown; alarms stay as they are.",
                    place.en(),
                ),
            };
            (level, text)
        });
        book.handle_system(now, report(&self.rules.sensor, trouble));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_costs_one_byte() {
        assert_eq!(size_of::<Mark>(), 1);
    }
}
