//! Plays one scenario: what each device of a site says at each moment, as MQTT publishes and Modbus registers.

use std::sync::Arc;
use std::time::Duration;

use anmin_sensors::point::{DeviceIx, PointIx, Points};
use anmin_sensors::profile::{Profile, Profiles};
use anmin_sensors::reading::Value;
use anmin_sensors::time::Wall;

use super::scenario::Play;

/// One publish of a simulated device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    pub topic: String,
    pub payload: String,
}

/// A device that speaks MQTT, and the topic on which the site listens for it.
#[derive(Debug)]
struct Talker {
    device: DeviceIx,
    topic: String,
    profile: Arc<Profile>,
    sequence: u64,
    /// When it speaks next.
    due: Duration,
}

/// All devices of a site under one scenario. Knows no clock and no socket: time comes in, publishes go out.
#[derive(Debug)]
pub struct Player {
    points: Points,
    play: Play,
    interval: Duration,
    talkers: Vec<Talker>,
}

impl Player {
    /// `topics` gives for each device that speaks MQTT the topic on which the site hears it.
    pub fn new(
        points: Points,
        profiles: &Profiles,
        play: Play,
        interval: Duration,
        topics: impl Fn(&Points, DeviceIx) -> Option<String>,
    ) -> Self {
        let count = points.devices().len().max(1) as u32;
        let talkers = points
            .devices()
            .filter_map(|(device, info)| {
                let profile = Arc::clone(profiles.get(&info.profile)?);
                profile.mqtt.as_ref()?;
                // Spread over the interval, so that they do not all speak at once.
                let due = interval * device.0 / count;
                Some(Talker { device, topic: topics(&points, device)?, profile, sequence: 0, due })
            })
            .collect();
        Self { points, play, interval, talkers }
    }

    /// Devices that speak MQTT.
    pub fn talkers(&self) -> usize {
        self.talkers.len()
    }

    pub fn points(&self) -> &Points {
        &self.points
    }

    pub fn play(&self) -> &Play {
        &self.play
    }

    /// When the next device speaks.
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.talkers.iter().map(|talker| talker.due).min()
    }

    /// What is said up to `t` after the start.
    pub fn poll_publishes(&mut self, t: Duration, wall: Wall) -> Vec<Publish> {
        let mut said = Vec::new();
        for talker in &mut self.talkers {
            if talker.due > t {
                continue;
            }
            talker.due = t + self.interval;
            if self.play.is_silent(&self.points, talker.device, t) {
                continue;
            }
            talker.sequence += 1;
            let values: Vec<(usize, Value)> = self
                .points
                .device(talker.device)
                .points()
                .enumerate()
                .map(|(n, ix)| (n, self.play.value(&self.points, ix, t)))
                .collect();
            if let Some(payload) = talker.profile.compose_json(&values, wall, talker.sequence) {
                said.push(Publish { topic: talker.topic.clone(), payload });
            }
        }
        said
    }

    /// A point's value for a Modbus slave; `None` while its device is silent.
    pub fn value(&self, ix: PointIx, t: Duration) -> Option<Value> {
        let device = self.points.point(ix).device;
        (!self.play.is_silent(&self.points, device, t)).then(|| self.play.value(&self.points, ix, t))
    }
}
