//! An MQTT client for tests that do not run on Tokio: connects, publishes and waits for the broker's word.

use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rumqttc::{Client, Event, MqttOptions, Packet, Publish, QoS};

use crate::daemon::DEADLINE;

/// A connected client.
pub struct Mqtt {
    client: Client,
    packets: Receiver<Packet>,
    /// Publishes that came while something else was waited for.
    waiting: Vec<Publish>,
}

impl Mqtt {
    pub fn connect(port: u16, id: &str) -> Self {
        let mut options = MqttOptions::new(id, "127.0.0.1", port);
        options.set_keep_alive(Duration::from_secs(20)).set_max_packet_size(8 << 20, 8 << 20).set_inflight(1_000);
        let (client, mut connection) = Client::new(options, 1_000);
        let (send, packets) = channel();
        std::thread::spawn(move || {
            for event in connection.iter() {
                // When the test has ended, or its broker has, whoever waits sees it.
                let Ok(event) = event else { break };
                if let Event::Incoming(packet) = event
                    && send.send(packet).is_err()
                {
                    break;
                }
            }
        });
        let mut mqtt = Self { client, packets, waiting: Vec::new() };
        mqtt.until("CONNACK", |packet| matches!(packet, Packet::ConnAck(_)));
        mqtt
    }

    /// Publishes with QoS 1 and waits for the acknowledgement.
    pub fn publish(&mut self, topic: &str, payload: impl Into<Vec<u8>>) {
        self.publish_all([(topic.to_owned(), payload.into())]);
    }

    /// Publishes all with QoS 1, then waits for all acknowledgements.
    pub fn publish_all(&mut self, messages: impl IntoIterator<Item = (String, Vec<u8>)>) {
        let mut sent = 0;
        for (topic, payload) in messages {
            self.client.publish(topic, QoS::AtLeastOnce, false, payload).expect("the connection lives");
            sent += 1;
            // The client's queue is bounded: what it has in flight is taken back now and then.
            if sent == 500 {
                self.acknowledged(sent);
                sent = 0;
            }
        }
        self.acknowledged(sent);
    }

    /// Publishes all with QoS 0: nobody says whether they came.
    pub fn throw(&mut self, messages: impl IntoIterator<Item = (String, Vec<u8>)>) {
        for (topic, payload) in messages {
            self.client.publish(topic, QoS::AtMostOnce, false, payload).expect("the connection lives");
        }
    }

    /// Publishes as retained and waits for the acknowledgement.
    pub fn retain(&mut self, topic: &str, payload: &str) {
        self.client.publish(topic, QoS::AtLeastOnce, true, payload).expect("the connection lives");
        self.acknowledged(1);
    }

    fn acknowledged(&mut self, count: usize) {
        for _ in 0..count {
            self.until("PUBACK", |packet| matches!(packet, Packet::PubAck(_)));
        }
    }

    pub fn subscribe(&mut self, filter: &str) {
        self.client.subscribe(filter, QoS::AtLeastOnce).expect("the connection lives");
        self.until("SUBACK", |packet| matches!(packet, Packet::SubAck(_)));
    }

    /// The next publish that is as wanted; others before it are left out for good.
    pub fn next(&mut self, what: &str, wanted: impl Fn(&Publish) -> bool) -> Publish {
        if let Some(at) = self.waiting.iter().position(&wanted) {
            return self.waiting.drain(..=at).next_back().expect("it is there");
        }
        self.waiting.clear();
        match self.until(what, |packet| matches!(packet, Packet::Publish(publish) if wanted(publish))) {
            Packet::Publish(publish) => {
                self.waiting.clear();
                publish
            }
            other => panic!("{other:?} is no publish"),
        }
    }

    /// Everything that has come and nobody has taken, waiting for so long when there is nothing.
    pub fn take(&mut self, wait: Duration) -> Vec<Publish> {
        let mut taken = std::mem::take(&mut self.waiting);
        let first = if taken.is_empty() { self.packets.recv_timeout(wait).ok() } else { None };
        taken.extend(first.into_iter().chain(self.packets.try_iter()).filter_map(|packet| match packet {
            Packet::Publish(publish) => Some(publish),
            _ => None,
        }));
        taken
    }

    fn until(&mut self, what: &str, wanted: impl Fn(&Packet) -> bool) -> Packet {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.packets.recv_timeout(left) {
                Ok(packet) if wanted(&packet) => return packet,
                Ok(Packet::Publish(publish)) => self.waiting.push(publish),
                Ok(_) => {}
                Err(why) => panic!("{what} did not come: {why}"),
            }
        }
    }
}
