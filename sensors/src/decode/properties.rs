//! Property reports of the Chinese device platforms: Alibaba Cloud (Alink), OneNET, Tencent Cloud and Huawei Cloud.
//!
//! One device model reads the same through all four: `params` holds its properties, each bare or as `{value, time}`, or
//! `services` holds them by service with one `event_time` each. Promises that each value keeps the time that was written
//! for it. It does not answer: a device that waits for a reply has to be told by its own platform.

use crate::decode::json::{JsonError, Paths, Scalar};
use crate::decode::stamp::TimeFormat;
use crate::time::Wall;

/// One property of a device model.
#[derive(Clone, Debug, PartialEq)]
pub struct Property {
    pub name: String,
    /// Huawei Cloud only: the service that has it; `None` takes it from any.
    pub service: Option<String>,
}

/// Where the properties of a model stand in all forms of the report.
#[derive(Clone, Debug, Default)]
pub struct Properties {
    services: Vec<Option<String>>,
    paths: Paths,
    targets: Vec<Target>,
}

#[derive(Clone, Copy, Debug)]
enum Target {
    Bare(usize),
    Value(usize),
    Time(usize),
    MessageTime,
    Service,
    ServiceId,
    ServiceTime,
    InService(usize),
    Signature,
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
        seek("/timestamp".to_owned(), Target::MessageTime);
        seek("/services/*".to_owned(), Target::Service);
        seek("/services/*/service_id".to_owned(), Target::ServiceId);
        seek("/services/*/event_time".to_owned(), Target::ServiceTime);
        for (n, property) in properties.iter().enumerate() {
            let Some(property) = property else { continue };
            let name = token(&property.name);
            seek(format!("/params/{name}"), Target::Bare(n));
            seek(format!("/params/{name}/value"), Target::Value(n));
            seek(format!("/params/{name}/time"), Target::Time(n));
            seek(format!("/services/*/properties/{name}"), Target::InService(n));
        }
        for name in signature.iter().map(|name| token(name)) {
            seek(format!("/params/{name}"), Target::Signature);
            seek(format!("/services/*/properties/{name}"), Target::Signature);
        }
        let services = properties.iter().map(|property| property.as_ref()?.service.clone()).collect();
        // Invariant: the pointers are sound, they were made here; without them nothing would be found.
        let paths = Paths::new(pointers.iter().map(String::as_str)).unwrap_or_default();
        Self { services, paths, targets }
    }

    /// Whether a report has the signature's property.
    pub fn is_signed(&self, text: &str) -> bool {
        let mut signed = false;
        let mut look = |slot: usize, _: Scalar<'_>| signed |= matches!(self.targets.get(slot), Some(Target::Signature));
        self.paths.read(text, &mut look).is_ok() && signed
    }

    /// Hands each property that the report has to `found`, then the time of each that has one of its own. Gives the time
    /// of the whole report. On an error what was found before it must not be used.
    pub fn read<'p>(
        &self,
        text: &'p str,
        mut found: impl FnMut(usize, &Scalar<'p>),
        mut timed: impl FnMut(usize, Wall),
    ) -> Result<Option<Wall>, JsonError> {
        let format = TimeFormat::Auto;
        let mut whole = None;
        let mut times: Vec<(usize, Wall)> = Vec::new();
        let mut service = Service::default();
        self.paths.read(text, &mut |slot, scalar| match self.targets.get(slot) {
            // The value stands inside, if there is one.
            Some(Target::Bare(_)) if scalar == Scalar::Compound => {}
            Some(Target::Bare(n) | Target::Value(n)) => found(*n, &scalar),
            Some(Target::Time(n)) => times.extend(format.read(&scalar, None).map(|time| (*n, time))),
            Some(Target::MessageTime) => whole = format.read(&scalar, None),
            Some(Target::Service) => self.close(std::mem::take(&mut service), &mut found, &mut times),
            Some(Target::ServiceId) => service.id = Some(scalar),
            Some(Target::ServiceTime) => service.time = format.read(&scalar, None),
            Some(Target::InService(n)) => service.values.push((*n, scalar)),
            Some(Target::Signature) | None => {}
        })?;
        self.close(service, &mut found, &mut times);
        times.into_iter().for_each(|(n, time)| timed(n, time));
        Ok(whole)
    }

    /// A service has been read to its end.
    fn close<'p>(
        &self,
        service: Service<'p>,
        found: &mut impl FnMut(usize, &Scalar<'p>),
        times: &mut Vec<(usize, Wall)>,
    ) {
        for (n, scalar) in &service.values {
            let wanted = self.services.get(*n).and_then(Option::as_deref);
            let is = |wanted: &str| matches!(&service.id, Some(Scalar::Text(id)) if id == wanted);
            if wanted.is_none_or(is) {
                found(*n, scalar);
                times.extend(service.time.map(|time| (*n, time)));
            }
        }
    }
}

/// A service of a report; its id and time may stand behind its properties.
#[derive(Default)]
struct Service<'p> {
    id: Option<Scalar<'p>>,
    time: Option<Wall>,
    values: Vec<(usize, Scalar<'p>)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `0=12.6@1772328600000 ts=...`: properties `lel`, `state` of service `Gas`, and `a/b~c`.
    fn read(text: &str) -> Result<String, JsonError> {
        let property = |name: &str, service: Option<&str>| {
            Some(Property { name: name.to_owned(), service: service.map(str::to_owned) })
        };
        let properties = Properties::new(
            &[property("lel", None), property("state", Some("Gas")), None, property("a/b~c", None)],
            None,
        );
        let mut values: Vec<(usize, String)> = Vec::new();
        let mut times = Vec::new();
        let whole = properties.read(
            text,
            |n, scalar| {
                values.push((
                    n,
                    match scalar {
                        Scalar::Number(text) => (*text).to_owned(),
                        other => format!("{other:?}"),
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
        words.extend(whole.map(|time| format!("ts={}", time.millis())));
        Ok(words.join(" "))
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
}
