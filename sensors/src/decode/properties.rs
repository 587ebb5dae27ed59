//! Property and event reports of the Chinese device platforms: Alibaba Cloud (Alink), OneNET, Tencent Cloud and Huawei Cloud.
//!
//! One device model reads the same through all four. Properties: `params` holds them, each bare or as `{value, time}`, or
//! `services` holds them by service with one `event_time` each. Events, by which many detectors tell an alarm at once: one of
//! Alink is named by its topic or `method`, those of OneNET by the keys of `params`, those of Tencent Cloud by `eventId`, those of
//! Huawei Cloud by the `event_type` of a service.
//!
//! Promises that each value keeps the time that was written for it, that what an event carries is never taken for a property, and
//! that of one message that both raises a point and ends it again the point stays raised. It does not answer: a device that
//! waits for a reply has to be told by its own platform.

use std::borrow::Cow;

use crate::decode::json::{JsonError, Paths, Scalar};
use crate::decode::stamp::TimeFormat;
use crate::time::Wall;

/// Where one point stands in a device model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Property {
    /// The property; `None` for a point that only events tell.
    pub name: Option<String>,
    /// Huawei Cloud only: the service that has it; `None` takes it from any.
    pub service: Option<String>,
    /// Events that tell the value: that of `output`, else that they happened.
    pub events: Vec<String>,
    /// Events after which it is over.
    pub over: Vec<String>,
    /// What of an event is the value.
    pub output: Option<String>,
}

/// What a report says of one point.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Told<'s, 'p> {
    Value(&'s Scalar<'p>),
    /// One of its events came: true, or false where it is over.
    Happened(bool),
}

/// What a report says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub time: Option<Wall>,
    /// It is between the device and its platform, such as the question what time it is.
    pub is_housekeeping: bool,
}

/// Where the properties of a model stand in all forms of the report.
#[derive(Clone, Debug, Default)]
pub struct Properties {
    /// At the places of the profile's points.
    properties: Vec<Option<Property>>,
    paths: Paths,
    targets: Vec<Target>,
}

#[derive(Clone, Copy, Debug)]
enum Target {
    Bare(usize),
    Value(usize),
    Time(usize),
    MessageTime,
    Method,
    /// The event of the whole message, with its time and what it carries.
    EventId,
    EventTime,
    Output(usize),
    /// OneNET: by the key that names it; true where it raises the point.
    Named(usize, bool),
    NamedOutput(usize),
    NamedTime(usize),
    /// A service of Huawei Cloud or an event of a list begins.
    Part,
    ServiceId,
    PartEvent,
    PartTime,
    InPart(usize),
    PartOutput(usize),
    Signature,
}

/// What kind of report it is, as far as that is known.
#[derive(Clone, Debug, PartialEq)]
enum Is<'p> {
    Unknown,
    Properties,
    /// One event of this name, or such as `eventId` says.
    Event(Option<Cow<'p, str>>),
    /// OneNET: each key of `params` is an event.
    NamedEvents,
}

impl Properties {
    /// `properties` stand at the places of the profile's points; `signature` is one that only this model has.
    pub fn new(properties: &[Option<Property>], signature: Option<&str>) -> Self {
        let mut pointers: Vec<String> = Vec::new();
        let mut targets = Vec::new();
        let mut seek = |pointer: String, target: Target| {
            pointers.push(pointer);
            targets.push(target);
        };
        // A name may hold what a pointer gives a meaning to.
        let token = |name: &str| name.replace('~', "~0").replace('/', "~1");
        for (pointer, target) in [
            ("/timestamp", Target::MessageTime),
            ("/method", Target::Method),
            ("/eventId", Target::EventId),
            ("/params/time", Target::EventTime),
            ("/services/*", Target::Part),
            ("/services/*/service_id", Target::ServiceId),
            ("/services/*/event_time", Target::PartTime),
            ("/services/*/event_type", Target::PartEvent),
            ("/events/*", Target::Part),
            ("/events/*/timestamp", Target::PartTime),
            ("/events/*/eventId", Target::PartEvent),
        ] {
            seek(pointer.to_owned(), target);
        }
        for (n, property) in properties.iter().enumerate() {
            let Some(property) = property else { continue };
            if let Some(name) = property.name.as_deref().map(token) {
                seek(format!("/params/{name}"), Target::Bare(n));
                seek(format!("/params/{name}/value"), Target::Value(n));
                seek(format!("/params/{name}/time"), Target::Time(n));
                seek(format!("/services/*/properties/{name}"), Target::InPart(n));
            }
            let output = property.output.as_deref().map(token);
            for (events, raises) in [(&property.events, true), (&property.over, false)] {
                for name in events.iter().map(|name| token(name)) {
                    seek(format!("/params/{name}"), Target::Named(n, raises));
                    seek(format!("/params/{name}/time"), Target::NamedTime(n));
                    if let (Some(output), true) = (&output, raises) {
                        seek(format!("/params/{name}/value/{output}"), Target::NamedOutput(n));
                    }
                }
            }
            if let Some(output) = &output {
                seek(format!("/params/value/{output}"), Target::Output(n));
                seek(format!("/params/{output}"), Target::Output(n));
                seek(format!("/events/*/params/{output}"), Target::PartOutput(n));
                seek(format!("/services/*/paras/{output}"), Target::PartOutput(n));
            }
        }
        for name in signature.iter().map(|name| token(name)) {
            seek(format!("/params/{name}"), Target::Signature);
            seek(format!("/services/*/properties/{name}"), Target::Signature);
        }
        // Invariant: the pointers are sound, they were made here; without them nothing would be found.
        let paths = Paths::new(pointers.iter().map(String::as_str)).unwrap_or_default();
        Self { properties: properties.to_vec(), paths, targets }
    }

    /// Whether a report has the signature's property, or is of an event that the model names.
    pub fn is_signed(&self, key: &str, text: &str) -> bool {
        let mut signed = false;
        let mut look = |slot: usize, _: Scalar<'_>| signed |= matches!(self.targets.get(slot), Some(Target::Signature));
        let mut happened = false;
        let only_events = |n: usize| matches!(self.properties.get(n), Some(Some(property)) if property.name.is_none());
        let of_event = |n: usize, told: Told<'_, '_>| happened |= matches!(told, Told::Happened(_)) || only_events(n);
        self.paths.read(text, &mut look).is_ok()
            && (signed || self.read(key, text, of_event, |_, _| ()).is_ok() && happened)
    }

    fn has_event(&self, name: &str) -> bool {
        let mut events = self.properties.iter().flatten().flat_map(|of| of.events.iter().chain(&of.over));
        events.any(|event| event == name)
    }

    /// Hands what the report says of each point to `told`, then the time of each that has one of its own. `key` is the level of
    /// the topic that may say what it is: `property`, `event` for those of OneNET, or the name of an event. On an error what was
    /// told before it must not be used.
    pub fn read<'p>(
        &self,
        key: &'p str,
        text: &'p str,
        mut told: impl FnMut(usize, Told<'_, 'p>),
        mut timed: impl FnMut(usize, Wall),
    ) -> Result<Report, JsonError> {
        let format = TimeFormat::Auto;
        let mut so_far = SoFar { of: self, told: &mut told, times: Vec::new(), raised: Vec::new() };
        let mut is = match key {
            "property" => Is::Properties,
            "event" => Is::NamedEvents,
            name if self.has_event(name) => Is::Event(Some(name.into())),
            // What levels other topics have says nothing.
            _ => Is::Unknown,
        };
        let mut report = Report::default();
        let (mut part, mut parts, mut housekeeping) = (Part::default(), 0, 0);
        let mut whole = Part::default();
        self.paths.read(text, &mut |slot, scalar| match self.targets.get(slot) {
            // The value stands inside, if there is one.
            Some(Target::Bare(_)) if scalar == Scalar::Compound => {}
            Some(Target::Bare(n) | Target::Value(n)) => match is {
                Is::Properties => (so_far.told)(*n, Told::Value(&scalar)),
                Is::Unknown => whole.values.push((*n, scalar)),
                Is::Event(_) | Is::NamedEvents => {}
            },
            Some(Target::Time(n)) => {
                if matches!(is, Is::Properties | Is::Unknown) {
                    whole.times.extend(format.read(&scalar, None).map(|time| (*n, time)));
                }
            }
            Some(Target::MessageTime) => report.time = format.read(&scalar, None),
            Some(Target::Method) => {
                if matches!(is, Is::Unknown | Is::NamedEvents)
                    && let Scalar::Text(method) = scalar
                {
                    is = of_method(&method);
                }
            }
            Some(Target::EventId) => whole.event = Some(scalar),
            Some(Target::EventTime) => whole.time = format.read(&scalar, None),
            Some(Target::Output(n)) => whole.outputs.push((*n, scalar)),
            Some(Target::Named(n, raises)) => whole.named.push((*n, *raises)),
            Some(Target::NamedOutput(n)) => whole.named_outputs.push((*n, scalar)),
            Some(Target::NamedTime(n)) => {
                whole.named_times.extend(format.read(&scalar, None).map(|time| (*n, time)));
            }
            Some(Target::Part) => {
                parts += 1;
                housekeeping += u32::from(so_far.close(std::mem::take(&mut part)));
            }
            Some(Target::ServiceId) => part.service = Some(scalar),
            Some(Target::PartEvent) => part.event = Some(scalar),
            Some(Target::PartTime) => part.time = format.read(&scalar, None),
            Some(Target::InPart(n)) => part.values.push((*n, scalar)),
            Some(Target::PartOutput(n)) => part.outputs.push((*n, scalar)),
            Some(Target::Signature) | None => {}
        })?;
        housekeeping += u32::from(so_far.close(part));
        match is {
            Is::NamedEvents => so_far.named(&whole),
            Is::Event(name) => {
                if let Some(name) = name {
                    whole.event = Some(Scalar::Text(name));
                }
                so_far.happened(&whole);
            }
            Is::Unknown if whole.event.is_some() => so_far.happened(&whole),
            Is::Properties | Is::Unknown => {
                for (n, scalar) in &whole.values {
                    (so_far.told)(*n, Told::Value(scalar));
                }
                so_far.times.append(&mut whole.times);
            }
        }
        so_far.times.into_iter().for_each(|(n, time)| timed(n, time));
        report.is_housekeeping = parts > 0 && housekeeping == parts;
        Ok(report)
    }
}

/// What the `method` of Alink or Tencent Cloud says; OneNET and Huawei Cloud have none.
fn of_method(method: &str) -> Is<'static> {
    let event = method.strip_prefix("thing.event.").and_then(|rest| rest.strip_suffix(".post"));
    match (method, event) {
        ("event_post" | "events_post", _) => Is::Event(None),
        (_, Some(name)) if name != "property" => Is::Event(Some(name.to_owned().into())),
        _ => Is::Properties,
    }
}

/// A service of a report, an event of a list, or the whole of it; what names it may stand behind what it holds.
#[derive(Default)]
struct Part<'p> {
    service: Option<Scalar<'p>>,
    event: Option<Scalar<'p>>,
    time: Option<Wall>,
    values: Vec<(usize, Scalar<'p>)>,
    outputs: Vec<(usize, Scalar<'p>)>,
    times: Vec<(usize, Wall)>,
    named: Vec<(usize, bool)>,
    named_outputs: Vec<(usize, Scalar<'p>)>,
    named_times: Vec<(usize, Wall)>,
}

/// What was told of a report so far.
struct SoFar<'s, F> {
    of: &'s Properties,
    told: &'s mut F,
    times: Vec<(usize, Wall)>,
    /// Points that an event of this message has raised.
    raised: Vec<usize>,
}

impl<'p, F: FnMut(usize, Told<'_, 'p>)> SoFar<'_, F> {
    /// A part has been read to its end. Whether it is none of ours.
    fn close(&mut self, part: Part<'p>) -> bool {
        // What begins with $ is Huawei Cloud's own: clock, files, upgrades, children of a gateway.
        if matches!(&part.service, Some(Scalar::Text(id)) if id.starts_with('$')) {
            return true;
        }
        if part.event.is_some() {
            self.happened(&part);
            return false;
        }
        for (n, scalar) in &part.values {
            if self.is_of_service(*n, &part) {
                (self.told)(*n, Told::Value(scalar));
                self.times.extend(part.time.map(|time| (*n, time)));
            }
        }
        false
    }

    fn is_of_service(&self, n: usize, part: &Part<'_>) -> bool {
        let wanted = self.of.properties.get(n).and_then(|property| property.as_ref()?.service.as_deref());
        let is = |wanted: &str| matches!(&part.service, Some(Scalar::Text(id)) if id == wanted);
        wanted.is_none_or(is)
    }

    fn happened(&mut self, part: &Part<'p>) {
        let Some(Scalar::Text(event)) = &part.event else { return };
        let of: &[Option<Property>] = &self.of.properties;
        for (n, property) in of.iter().enumerate() {
            let Some(property) = property else { continue };
            if !self.is_of_service(n, part) {
                continue;
            }
            if property.events.iter().any(|name| name == event) {
                let output = part.outputs.iter().rev().find(|(of, _)| *of == n).map(|(_, scalar)| scalar);
                self.raise(n, property, output, part.time);
            } else if property.over.iter().any(|name| name == event) {
                self.end(n, part.time);
            }
        }
    }

    fn named(&mut self, whole: &Part<'p>) {
        let time = |n: usize| whole.named_times.iter().rev().find(|(of, _)| *of == n).map(|(_, time)| *time);
        for (n, raises) in &whole.named {
            match self.of.properties.get(*n) {
                Some(Some(property)) if *raises => {
                    let output = whole.named_outputs.iter().rev().find(|(of, _)| of == n).map(|(_, scalar)| scalar);
                    self.raise(*n, property, output, time(*n));
                }
                _ => self.end(*n, time(*n)),
            }
        }
    }

    fn raise(&mut self, n: usize, property: &Property, output: Option<&Scalar<'p>>, time: Option<Wall>) {
        match (&property.output, output) {
            (Some(_), Some(scalar)) => (self.told)(n, Told::Value(scalar)),
            // An event without what it should carry says nothing of this point.
            (Some(_), None) => return,
            (None, _) => (self.told)(n, Told::Happened(true)),
        }
        self.raised.push(n);
        self.times.extend(time.map(|time| (n, time)));
    }

    /// Where the same message raises it, that counts: whoever looks finds out that it is over.
    fn end(&mut self, n: usize, time: Option<Wall>) {
        if !self.raised.contains(&n) {
            (self.told)(n, Told::Happened(false));
            self.times.extend(time.map(|time| (n, time)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `0=12.6@1772328600000 ts=...`: properties `lel`, `state` of service `Gas`, and `a/b~c`; 4 is raised by `GasAlarm` and `Leak`
    /// and over by `GasClear`, 5 is what `GasAlarm` carries as `peak`.
    fn read_of(key: &str, text: &str) -> Result<String, JsonError> {
        let property = |name: &str, service: Option<&str>| {
            Some(Property { name: Some(name.to_owned()), service: service.map(str::to_owned), ..Property::default() })
        };
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let alarm = Property { events: list(&["GasAlarm", "Leak"]), over: list(&["GasClear"]), ..Property::default() };
        let peak = Property { events: list(&["GasAlarm"]), output: Some("peak".to_owned()), ..Property::default() };
        let properties = Properties::new(
            &[
                property("lel", None),
                property("state", Some("Gas")),
                None,
                property("a/b~c", None),
                Some(alarm),
                Some(peak),
            ],
            None,
        );
        let mut values: Vec<(usize, String)> = Vec::new();
        let mut times = Vec::new();
        let report = properties.read(
            key,
            text,
            |n, told| {
                values.push((
                    n,
                    match told {
                        Told::Value(Scalar::Number(text)) => (*text).to_owned(),
                        Told::Value(other) => format!("{other:?}"),
                        Told::Happened(happened) => happened.to_string(),
                    },
                ));
            },
            |n, time| times.push((n, time)),
        )?;
        let mut words: Vec<String> = values
            .into_iter()
            .map(|(n, value)| {
                let time = times.iter().rev().find(|(of, _)| *of == n);
                format!("{n}={value}{}", time.map(|(_, time)| format!("@{}", time.millis())).unwrap_or_default())
            })
            .collect();
        words.extend(report.time.map(|time| format!("ts={}", time.millis())));
        words.extend(report.is_housekeeping.then(|| "housekeeping".to_owned()));
        Ok(words.join(" "))
    }

    fn read(text: &str) -> Result<String, JsonError> {
        read_of("", text)
    }

    #[test]
    fn the_reports_of_all_platforms_are_understood() {
        for (text, wanted) in [
            // Alink: bare, and with a value's own time.
            (
                r#"{"id":"123","version":"1.0","sys":{"ack":0},"params":{"lel":{"value":12.6,"time":1772328600000},"state":1},"method":"thing.event.property.post"}"#,
                "0=12.6@1772328600000 1=1",
            ),
            // OneNET: the value without a time.
            (r#"{"id":"17","version":"1.0","params":{"lel":{"value":0.31},"a/b~c":{"value":2}}}"#, "0=0.31 3=2"),
            // Tencent Cloud: one time for all.
            (
                r#"{"method":"report","clientToken":"1","timestamp":1772328600000,"params":{"lel":12.6}}"#,
                "0=12.6 ts=1772328600000",
            ),
            // Huawei Cloud: services with times of their own; the id may come last.
            (
                r#"{"services":[{"service_id":"Gas","properties":{"lel":12.6,"state":0},"event_time":"20260301T013000Z"},{"properties":{"state":7,"a/b~c":1},"event_time":"20260301T013001Z","service_id":"Door"}]}"#,
                "0=12.6@1772328600000 1=0@1772328600000 3=1@1772328601000",
            ),
            (r#"{"services":[{"properties":{"state":7}}]}"#, ""),
            (r#"{"services":{"0":{"properties":{"lel":7}}}}"#, ""),
            (r#"{"params":{"lel":{"time":1772328600000}}}"#, ""),
            (r#"{"params":{"lel":{"value":{"x":1}}}}"#, "0=Compound"),
            (r#"{"params":{"lel":null}}"#, "0=Null"),
            (r#"{"params":[{"lel":1}]}"#, ""),
            (r#"{"code":200,"data":{},"id":"123"}"#, ""),
        ] {
            assert_eq!(read(text).as_deref(), Ok(wanted), "{text}");
        }
        assert_eq!(read(r#"{"params":{"lel":1}"#), Err(JsonError::Syntax(19)));
    }

    #[test]
    fn the_events_of_all_platforms_are_understood_and_never_taken_for_properties() {
        for (key, text, wanted) in [
            // Alink: named by topic and method; what it carries stands below `value`, from older devices beside it.
            (
                "GasAlarm",
                r#"{"id":"1","version":"1.0","params":{"value":{"peak":40.5,"lel":99},"time":1772328600000},"method":"thing.event.GasAlarm.post"}"#,
                "4=true@1772328600000 5=40.5@1772328600000",
            ),
            ("", r#"{"params":{"peak":41,"lel":99},"method":"thing.event.GasAlarm.post"}"#, "4=true 5=41"),
            ("GasAlarm", r#"{"params":{}}"#, "4=true"),
            ("GasClear", r#"{"params":{"value":{}},"method":"thing.event.GasClear.post"}"#, "4=false"),
            ("Heartbeat", r#"{"params":{"lel":99},"method":"thing.event.Heartbeat.post"}"#, ""),
            ("property", r#"{"params":{"lel":1},"method":"thing.event.property.post"}"#, "0=1"),
            // A level of somebody's own topic says nothing.
            ("status", r#"{"params":{"lel":1}}"#, "0=1"),
            // OneNET: by the keys.
            (
                "event",
                r#"{"id":"1","version":"1.0","params":{"GasAlarm":{"value":{"peak":42},"time":1772328600000}}}"#,
                "4=true@1772328600000 5=42@1772328600000",
            ),
            ("event", r#"{"params":{"GasClear":{"value":{}}}}"#, "4=false"),
            ("event", r#"{"params":{"lel":{"value":1}}}"#, ""),
            // A property of that name is no event.
            ("property", r#"{"params":{"GasAlarm":{"value":0}}}"#, ""),
            // Tencent Cloud: one, and several at once.
            (
                "",
                r#"{"method":"event_post","clientToken":"1","eventId":"GasAlarm","type":"alert","timestamp":1772328600000,"params":{"peak":43,"lel":99}}"#,
                "4=true 5=43 ts=1772328600000",
            ),
            ("", r#"{"params":{"peak":43},"eventId":"GasAlarm"}"#, "4=true 5=43"),
            (
                "",
                r#"{"method":"events_post","events":[{"params":{"peak":44},"eventId":"GasAlarm","timestamp":1772328600000},{"eventId":"Door"}]}"#,
                "4=true@1772328600000 5=44@1772328600000",
            ),
            // Huawei Cloud: by service, with the platform's own in between.
            (
                "",
                r#"{"object_device_id":"d","services":[{"service_id":"$time_sync","event_type":"GasClear","paras":{}},{"paras":{"peak":45,"lel":99},"service_id":"Gas","event_type":"GasAlarm","event_time":"20260301T013000Z"}]}"#,
                "4=true@1772328600000 5=45@1772328600000",
            ),
            ("", r#"{"services":[{"service_id":"$time_sync","event_type":"time_sync_request"}]}"#, "housekeeping"),
            // What ends what the same message raises is not believed; what raises again is.
            ("", r#"{"events":[{"eventId":"Leak"},{"eventId":"GasClear"}]}"#, "4=true"),
            ("", r#"{"events":[{"eventId":"GasClear"},{"eventId":"Leak"}]}"#, "4=false 4=true"),
            ("event", r#"{"params":{"Leak":{"value":{}},"GasClear":{"value":{}}}}"#, "4=true"),
        ] {
            assert_eq!(read_of(key, text).as_deref(), Ok(wanted), "{key} {text}");
        }
        assert_eq!(read_of("GasAlarm", r#"{"params":"#), Err(JsonError::Syntax(10)));
    }
}
