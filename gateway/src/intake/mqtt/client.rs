//! rumqttc's two clients, 3.1.1 and 5, in one shape, for one connection each.
//!
//! What was found in rumqttc 0.25.1, and is dealt with here:
//!
//! - Its event loop connects again by itself and keeps events, requests and PUBRECs of the broken connection for the
//!   next. Here a loop serves one connection; after an error it only gives up what it had read ([`Client::rest`]).
//! - It takes one acknowledgement from its queue per turn, and writes it by itself, while a turn reads up to nine
//!   packets. Its 3.1.1 loop shows its network, so there all that are ready go in one write. The other does not: its
//!   queue must have room for every identifier there is, and the kernel joins the writes, since Nagle's algorithm is left on.
//! - A keep-alive of 0 from an MQTT 5 broker makes it ping without pause: it is set back to ours.
//! - An MQTT 5 DISCONNECT without a reason is an error to its parser, and is taken for what it is.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use anmin_rules::rule::Text;
use bytes::Bytes;
use rumqttc::v5::mqttbytes::v5 as five;
use rumqttc::{NetworkOptions, QoS, StateError, TlsConfiguration, Transport, v5};

use super::Plan;
use super::acks::Owed;
use super::settings::Protocol;
use super::subscriptions::{Answer, Refused};
use crate::credentials::Secret;
use crate::telemetry::quoted;

/// SUBSCRIBE is the largest that is sent.
const LARGEST_OUT: usize = 128 * 1024;
/// rumqttc's numbers for SUBSCRIBE run to this; a table of that size stands for publishes that we never send.
const OUTGOING: u16 = 16;
/// Requests that may wait: a PUBACK for every identifier, and a SUBSCRIBE.
const REQUESTS: usize = u16::MAX as usize + 2;
/// How long the broker keeps the session of an MQTT 5 client that is away: 30 days.
const SESSION_EXPIRY: u32 = 30 * 86_400;

/// What a connection brings.
pub enum Event {
    Connected {
        session_present: bool,
    },
    Publish(Publish),
    /// SUBSCRIBE has been written, under this identifier.
    Subscribing(u16),
    Subscribed(u16, Vec<Answer>),
    /// Something else from the broker: it lives.
    Heard,
    /// Something of ours was written.
    Sent,
}

pub struct Publish {
    pub topic: Arc<str>,
    pub payload: Bytes,
    pub retained: bool,
    /// `None` for QoS 0.
    pub owed: Option<Owed>,
    /// The broker may have delivered it before.
    pub again: bool,
}

/// Why there is no connection, or no longer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// A file of ours cannot be read, or holds nothing of use.
    Local(String),
    /// It is not among those whom anmin may dial.
    NotAllowed(String),
    /// The network says why.
    Network(String),
    /// Nothing came in time.
    NoAnswer,
    /// Most often a certificate that is not trusted.
    Tls(String),
    /// The broker's CONNACK says no.
    Refused(String),
    /// The broker's DISCONNECT, which only MQTT 5 knows, says why.
    Dismissed(String),
    /// The connection is closed, and nobody says why; the words are the operating system's, if it has any.
    Closed(Option<String>),
    /// Another client came with our id.
    TakenOver,
    /// A packet of so many bytes is above the limit.
    TooLarge(usize),
    /// What came is not MQTT, or not in its order.
    Unreadable(String),
    /// The main loop had no room for too long.
    Overrun,
    /// A message could not be made safe.
    Unsafe,
    /// The client itself failed.
    Panicked,
}

impl Failure {
    /// In words that follow a colon.
    pub fn words(&self) -> Text {
        let text = |zh: &str, en: String| Text { zh: zh.to_owned(), en };
        match self {
            Self::Local(why) => text("本机的密码或证书文件有问题", why.clone()),
            Self::NotAllowed(why) => text("不在 [outgoing] 允许连接的地址之内", why.clone()),
            Self::Network(why) => text("网络不通或端口未开放", why.clone()),
            Self::NoAnswer => text("对方没有应答", "it does not answer".to_owned()),
            Self::Tls(why) => text("TLS 握手失败，对方证书不可信或不匹配", format!("TLS fails: {why}")),
            Self::Refused(why) => text(&format!("对方拒绝登录（{why}）"), format!("it refuses the login: {why}")),
            Self::Closed(None) => text("对方关闭了连接", "it closed the connection".to_owned()),
            Self::Closed(Some(why)) | Self::Dismissed(why) => {
                text(&format!("对方关闭了连接（{why}）"), format!("it closed the connection: {why}"))
            }
            Self::TakenOver => {
                text("另一个客户端顶替了本机的连接", "another client with the same id took over".to_owned())
            }
            Self::TooLarge(size) => {
                text(&format!("对方发来 {size} 字节的超大报文"), format!("it sends a packet of {size} bytes"))
            }
            Self::Unreadable(why) => text("对方发来无法识别的报文", format!("it sends what cannot be read: {why}")),
            Self::Overrun => text("本机处理不过来", "anmin cannot keep up".to_owned()),
            Self::Unsafe => text("收到的消息存不了盘", "a message could not be made safe".to_owned()),
            Self::Panicked => text("本机接收程序出错", "the client failed inside anmin".to_owned()),
        }
    }
}

/// What proves who we are and whom we trust, read anew for each connection, so that it can be changed at any time.
pub struct Credentials {
    password: Option<Secret>,
    tls: Option<Arc<rustls::ClientConfig>>,
}

impl Credentials {
    /// Reads files.
    pub fn read(plan: &Plan) -> Result<Self, String> {
        let settings = &plan.settings;
        let password = settings.password_file.as_deref().map(Secret::read).transpose()?;
        let tls = settings.tls.as_ref().map(|tls| tls.config(true)).transpose()?.map(Arc::new);
        Ok(Self { password, tls })
    }
}

/// The client of one connection.
pub enum Client {
    Three { requests: rumqttc::AsyncClient, events: Box<rumqttc::EventLoop> },
    Five { requests: v5::AsyncClient, events: Box<v5::EventLoop>, keep_alive: Duration },
}

impl Client {
    /// A client that connects to `host` when [`Client::next`] is first called.
    pub fn new(plan: &Plan, host: &str, credentials: Credentials, max_packet_size: usize) -> Self {
        let settings = &plan.settings;
        let transport = match credentials.tls {
            Some(tls) => Transport::tls_with_config(TlsConfiguration::Rustls(tls)),
            None => Transport::tcp(),
        };
        let password = credentials.password.as_ref().map_or("", Secret::reveal);
        let connect_within = plan.connect_within().as_secs();
        let mut network = NetworkOptions::new();
        network.set_connection_timeout(connect_within);
        match settings.protocol {
            Protocol::V311 => {
                let mut options = rumqttc::MqttOptions::new(&plan.client_id, host, settings.port);
                options.set_transport(transport);
                options.set_keep_alive(settings.keep_alive);
                options.set_clean_session(!plan.keeps_session());
                options.set_manual_acks(true);
                options.set_max_packet_size(max_packet_size, LARGEST_OUT);
                options.set_inflight(OUTGOING);
                if let Some(username) = &settings.username {
                    options.set_credentials(username, password);
                }
                network.set_tcp_nodelay(true);
                let (requests, mut events) = rumqttc::AsyncClient::new(options, 2);
                events.set_network_options(network);
                Self::Three { requests, events: Box::new(events) }
            }
            Protocol::V5 => {
                let mut options = v5::MqttOptions::new(&plan.client_id, host, settings.port);
                options.set_transport(transport);
                options.set_keep_alive(settings.keep_alive);
                options.set_clean_start(!plan.keeps_session());
                options.set_manual_acks(true);
                options.set_connection_timeout(connect_within);
                options.set_network_options(network);
                options.set_outgoing_inflight_upper_limit(OUTGOING);
                options.set_connect_properties(five::ConnectProperties {
                    session_expiry_interval: plan.keeps_session().then_some(SESSION_EXPIRY),
                    receive_maximum: Some(settings.receive_maximum),
                    max_packet_size: u32::try_from(max_packet_size).ok(),
                    // rumqttc hands a publish on before it has looked up its alias.
                    topic_alias_max: None,
                    ..five::ConnectProperties::new()
                });
                if let Some(username) = &settings.username {
                    options.set_credentials(username, password);
                }
                let (requests, events) = v5::AsyncClient::new(options, REQUESTS);
                Self::Five { requests, events: Box::new(events), keep_alive: settings.keep_alive }
            }
        }
    }

    /// The next event; connects first. Losing a future of it half-way costs nothing: what was read stays in the client.
    pub async fn next(&mut self) -> Result<Event, Failure> {
        match self {
            Self::Three { events, .. } => events.poll().await.map(from_three).map_err(failure_of_three),
            Self::Five { events, keep_alive, .. } => {
                let event = events.poll().await.map_err(failure_of_five)?;
                if let v5::Event::Incoming(v5::Incoming::ConnAck(_)) = &event
                    && events.options.keep_alive().is_zero()
                {
                    events.options.set_keep_alive(*keep_alive);
                }
                Ok(from_five(event))
            }
        }
    }

    /// After a failure: what had been read before it.
    pub fn rest(&mut self) -> Vec<Event> {
        match self {
            Self::Three { events, .. } => events.state.events.drain(..).map(from_three).collect(),
            Self::Five { events, .. } => events.state.events.drain(..).map(from_five).collect(),
        }
    }

    /// Subscribes; [`Event::Subscribing`] and [`Event::Subscribed`] follow. The error says what is wrong with the filters.
    pub fn subscribe(&mut self, filters: Vec<(String, QoS)>) -> Result<(), String> {
        let result = match self {
            Self::Three { requests, .. } => {
                let filters = filters.into_iter().map(|(path, qos)| rumqttc::SubscribeFilter { path, qos });
                requests.try_subscribe_many(filters).map_err(|error| error.to_string())
            }
            Self::Five { requests, .. } => {
                let filters = filters.into_iter().map(|(path, qos)| five::Filter {
                    path,
                    qos: match qos {
                        QoS::AtMostOnce => v5::mqttbytes::QoS::AtMostOnce,
                        _ => v5::mqttbytes::QoS::AtLeastOnce,
                    },
                    ..five::Filter::default()
                });
                requests.try_subscribe_many(filters).map_err(|error| error.to_string())
            }
        };
        result.map_err(|why| format!("a subscription is no topic filter: {why}"))
    }

    /// Publishes with QoS 0, not retained, in this order.
    pub async fn publish(&mut self, said: impl IntoIterator<Item = (String, Vec<u8>)>) -> Result<(), Failure> {
        match self {
            Self::Three { events, .. } => {
                let Some(network) = &mut events.network else { return Ok(()) };
                for (topic, payload) in said {
                    let publish = rumqttc::Publish::new(topic, QoS::AtMostOnce, payload);
                    network.write(rumqttc::Packet::Publish(publish)).await.map_err(failure_of_state)?;
                }
                network.flush().await.map_err(failure_of_state)
            }
            Self::Five { requests, .. } => {
                for (topic, payload) in said {
                    // There is room, and a queue without a reader is a connection that is over.
                    let _ = requests.try_publish(topic, v5::mqttbytes::QoS::AtMostOnce, false, payload);
                }
                Ok(())
            }
        }
    }

    /// Sends acknowledgements, in this order.
    pub async fn acknowledge(&mut self, owed: &mut Vec<Owed>) -> Result<(), Failure> {
        match self {
            Self::Three { events, .. } => {
                let Some(network) = &mut events.network else { return Ok(()) };
                for owed in owed.drain(..) {
                    let packet = match owed {
                        Owed::PubAck(id) => rumqttc::Packet::PubAck(rumqttc::PubAck::new(id)),
                        Owed::PubRec(id) => rumqttc::Packet::PubRec(rumqttc::PubRec::new(id)),
                    };
                    network.write(packet).await.map_err(failure_of_state)?;
                }
                network.flush().await.map_err(failure_of_state)
            }
            Self::Five { requests, .. } => {
                for owed in owed.drain(..) {
                    let (pkid, qos) = match owed {
                        Owed::PubAck(id) => (id, v5::mqttbytes::QoS::AtLeastOnce),
                        Owed::PubRec(id) => (id, v5::mqttbytes::QoS::ExactlyOnce),
                    };
                    // All that it looks at. There is room, and a queue without a reader is a connection that is over.
                    let _ = requests.try_ack(&five::Publish { pkid, qos, ..five::Publish::default() });
                }
                Ok(())
            }
        }
    }
}

fn from_three(event: rumqttc::Event) -> Event {
    use rumqttc::{Event as Of, Outgoing, Packet, SubscribeReasonCode};
    match event {
        Of::Incoming(Packet::Publish(publish)) => Event::Publish(Publish {
            topic: publish.topic.into(),
            payload: publish.payload,
            retained: publish.retain,
            again: publish.dup,
            owed: match publish.qos {
                QoS::AtMostOnce => None,
                QoS::AtLeastOnce => Some(Owed::PubAck(publish.pkid)),
                QoS::ExactlyOnce => Some(Owed::PubRec(publish.pkid)),
            },
        }),
        Of::Incoming(Packet::ConnAck(ack)) => Event::Connected { session_present: ack.session_present },
        Of::Incoming(Packet::SubAck(ack)) => {
            let answers = ack.return_codes.iter().map(|code| match code {
                SubscribeReasonCode::Success(qos) => Ok(*qos),
                SubscribeReasonCode::Failure => Err(Refused { code: 0x80, words: "failure" }),
            });
            Event::Subscribed(ack.pkid, answers.collect())
        }
        Of::Outgoing(Outgoing::Subscribe(id)) => Event::Subscribing(id),
        Of::Outgoing(_) => Event::Sent,
        Of::Incoming(_) => Event::Heard,
    }
}

fn from_five(event: v5::Event) -> Event {
    use rumqttc::Outgoing;
    use rumqttc::v5::mqttbytes::QoS as Of;
    match event {
        v5::Event::Incoming(v5::Incoming::Publish(publish)) => Event::Publish(Publish {
            topic: match std::str::from_utf8(&publish.topic) {
                Ok(topic) => topic.into(),
                // No device has such a topic; it is counted there, and acknowledged.
                Err(_) => String::from_utf8_lossy(&publish.topic).into(),
            },
            payload: publish.payload,
            retained: publish.retain,
            again: publish.dup,
            owed: match publish.qos {
                Of::AtMostOnce => None,
                Of::AtLeastOnce => Some(Owed::PubAck(publish.pkid)),
                Of::ExactlyOnce => Some(Owed::PubRec(publish.pkid)),
            },
        }),
        v5::Event::Incoming(v5::Incoming::ConnAck(ack)) => Event::Connected { session_present: ack.session_present },
        v5::Event::Incoming(v5::Incoming::SubAck(ack)) => {
            Event::Subscribed(ack.pkid, ack.return_codes.iter().copied().map(answer).collect())
        }
        v5::Event::Outgoing(Outgoing::Subscribe(id)) => Event::Subscribing(id),
        v5::Event::Outgoing(_) => Event::Sent,
        v5::Event::Incoming(_) => Event::Heard,
    }
}

/// MQTT 5.0 section 3.9.3.
fn answer(code: five::SubscribeReasonCode) -> Answer {
    use rumqttc::v5::mqttbytes::QoS as Of;
    use rumqttc::v5::mqttbytes::v5::SubscribeReasonCode as Code;
    let (code, words) = match code {
        Code::Success(Of::AtMostOnce) => return Ok(QoS::AtMostOnce),
        Code::Success(Of::AtLeastOnce) => return Ok(QoS::AtLeastOnce),
        Code::Success(Of::ExactlyOnce) => return Ok(QoS::ExactlyOnce),
        Code::Failure | Code::Unspecified => (0x80, "unspecified error"),
        Code::ImplementationSpecific => (0x83, "implementation specific error"),
        Code::NotAuthorized => (0x87, "not authorized"),
        Code::TopicFilterInvalid => (0x8F, "topic filter invalid"),
        Code::PkidInUse => (0x91, "packet identifier in use"),
        Code::QuotaExceeded => (0x97, "quota exceeded"),
        Code::SharedSubscriptionsNotSupported => (0x9E, "shared subscriptions not supported"),
        Code::SubscriptionIdNotSupported => (0xA1, "subscription identifiers not supported"),
        Code::WildcardSubscriptionsNotSupported => (0xA2, "wildcard subscriptions not supported"),
    };
    Err(Refused { code, words })
}

fn failure_of_three(error: rumqttc::ConnectionError) -> Failure {
    use rumqttc::ConnectionError as Error;
    match error {
        Error::MqttState(error) => failure_of_state(error),
        Error::NetworkTimeout | Error::FlushTimeout => Failure::NoAnswer,
        Error::Tls(error) => Failure::Tls(error.to_string()),
        Error::Io(error) => Failure::Network(error.to_string()),
        Error::ConnectionRefused(code) => Failure::Refused(format!("{code:?}")),
        Error::NotConnAck(_) => Failure::Unreadable("no CONNACK".to_owned()),
        Error::RequestsDone => Failure::Closed(None),
    }
}

fn failure_of_state(error: StateError) -> Failure {
    use rumqttc::mqttbytes::Error;
    match error {
        StateError::Io(error) | StateError::Deserialization(Error::Io(error)) => broken(&error),
        StateError::ConnectionAborted => Failure::Closed(None),
        StateError::AwaitPingResp => Failure::NoAnswer,
        StateError::Deserialization(Error::PayloadSizeLimitExceeded(size)) => Failure::TooLarge(size),
        other => Failure::Unreadable(other.to_string()),
    }
}

fn failure_of_five(error: v5::ConnectionError) -> Failure {
    use rumqttc::v5::ConnectionError as Error;
    use rumqttc::v5::StateError as State;
    use rumqttc::v5::mqttbytes::Error as Bytes;
    use rumqttc::v5::mqttbytes::v5::DisconnectReasonCode as Code;
    match error {
        Error::Timeout(_) => Failure::NoAnswer,
        Error::Tls(error) => Failure::Tls(error.to_string()),
        Error::Io(error) => Failure::Network(error.to_string()),
        Error::ConnectionRefused(code) => Failure::Refused(format!("{code:?}")),
        Error::NotConnAck(_) => Failure::Unreadable("no CONNACK".to_owned()),
        Error::RequestsDone => Failure::Closed(None),
        Error::MqttState(error) => match error {
            State::Io(error) | State::Deserialization(Bytes::Io(error)) => broken(&error),
            State::ConnectionAborted | State::Deserialization(Bytes::PayloadRequired) => Failure::Closed(None),
            State::AwaitPingResp => Failure::NoAnswer,
            State::Deserialization(Bytes::PayloadSizeLimitExceeded { pkt_size, .. }) => Failure::TooLarge(pkt_size),
            State::IncomingPacketTooLarge { pkt_size, .. } => Failure::TooLarge(pkt_size),
            State::ServerDisconnect { reason_code: Code::SessionTakenOver, .. } => Failure::TakenOver,
            State::ServerDisconnect { reason_code, reason_string } => Failure::Dismissed(match reason_string {
                Some(words) => format!("{reason_code:?} {}", quoted(&words)),
                None => format!("{reason_code:?}"),
            }),
            other => Failure::Unreadable(other.to_string()),
        },
    }
}

/// A connection that broke: by the peer, as far as it can be told, or on the way.
fn broken(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            Failure::Network(error.to_string())
        }
        _ => Failure::Closed(Some(error.to_string())),
    }
}
