//! MQTT 3.1, 3.1.1 and 5 as a server reads and writes it: bytes to packets and back, nothing else.
//!
//! A publish is read without copying: topic and properties are borrowed, the payload is a range of the frame. What the
//! standard calls malformed is a [`Fault`] and ends the connection; nothing here panics or allocates by a length that
//! the peer merely claims.

use std::ops::Range;

use bytes::{BufMut, BytesMut};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// 3.1 and 3.1.1: the same packets but for the name in CONNECT.
    V3,
    V5,
}

/// Why a connection cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The bytes are not what the standard allows.
    Malformed(&'static str),
    /// Well-formed, but not allowed here.
    Protocol(&'static str),
    /// CONNECT with a protocol level that we do not speak.
    UnknownVersion(u8),
}

impl Fault {
    pub fn words(self) -> &'static str {
        match self {
            Self::Malformed(why) | Self::Protocol(why) => why,
            Self::UnknownVersion(_) => "a protocol version that is not 3.1, 3.1.1 or 5",
        }
    }

    /// MQTT 5 section 2.4.
    pub fn reason(self) -> u8 {
        match self {
            Self::Malformed(_) => reason::MALFORMED,
            Self::Protocol(_) => reason::PROTOCOL,
            Self::UnknownVersion(_) => reason::VERSION,
        }
    }
}

/// MQTT 5 reason codes, section 2.4.
pub mod reason {
    pub const SUCCESS: u8 = 0x00;
    pub const NO_SUBSCRIPTION: u8 = 0x11;
    pub const WITH_WILL: u8 = 0x04;
    pub const UNSPECIFIED: u8 = 0x80;
    pub const MALFORMED: u8 = 0x81;
    pub const PROTOCOL: u8 = 0x82;
    pub const VERSION: u8 = 0x84;
    pub const CLIENT_ID: u8 = 0x85;
    pub const CREDENTIALS: u8 = 0x86;
    pub const NOT_AUTHORIZED: u8 = 0x87;
    pub const SHUTTING_DOWN: u8 = 0x8B;
    pub const AUTH_METHOD: u8 = 0x8C;
    pub const KEEP_ALIVE: u8 = 0x8D;
    pub const TAKEN_OVER: u8 = 0x8E;
    pub const FILTER: u8 = 0x8F;
    pub const PACKET_ID_UNKNOWN: u8 = 0x92;
    pub const RECEIVE_MAXIMUM: u8 = 0x93;
    pub const TOPIC_ALIAS: u8 = 0x94;
    pub const TOO_LARGE: u8 = 0x95;
    pub const QUOTA: u8 = 0x97;
    pub const SHARED_SUBSCRIPTIONS: u8 = 0x9E;
}

/// The first bytes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub first: u8,
    /// Bytes of the fixed header.
    pub length: usize,
    /// Bytes after it.
    pub remaining: usize,
}

impl Header {
    pub fn total(self) -> usize {
        self.length + self.remaining
    }

    pub fn is_publish(self) -> bool {
        self.first >> 4 == 3
    }
}

/// The fixed header at the start of `bytes`; `None` while it is not all there.
pub fn header(bytes: &[u8]) -> Result<Option<Header>, Fault> {
    let Some((&first, rest)) = bytes.split_first() else { return Ok(None) };
    let mut remaining = 0_usize;
    for (n, &byte) in rest.iter().take(4).enumerate() {
        remaining |= usize::from(byte & 0x7F) << (7 * n);
        if byte & 0x80 == 0 {
            return Ok(Some(Header { first, length: n + 2, remaining }));
        }
    }
    if rest.len() >= 4 { Err(Fault::Malformed("a length of more than four bytes")) } else { Ok(None) }
}

/// What a client sent.
#[derive(Debug, PartialEq)]
pub enum Packet<'f> {
    Connect(Box<Connect>),
    Publish(Publish<'f>),
    PubAck(u16),
    PubRec(u16),
    PubRel(u16),
    PubComp(u16),
    Subscribe(Subscribe),
    Unsubscribe(u16, Vec<String>),
    PingReq,
    Disconnect { reason: u8, session_expiry: Option<u32> },
    Auth,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Connect {
    /// `None` for 5.
    pub version: Option<Version>,
    pub client_id: String,
    pub clean: bool,
    pub keep_alive: u16,
    pub will: Option<Will>,
    pub username: Option<String>,
    pub password: Option<Vec<u8>>,
    /// Seconds; `u32::MAX` for ever.
    pub session_expiry: Option<u32>,
    pub receive_maximum: Option<u16>,
    pub max_packet_size: Option<u32>,
    pub auth_method: bool,
}

impl Connect {
    pub fn speaks(&self) -> Version {
        self.version.unwrap_or(Version::V5)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Will {
    pub topic: String,
    pub payload: Vec<u8>,
    pub qos: u8,
    pub retain: bool,
    /// Seconds.
    pub delay: u32,
    pub expiry: Option<u32>,
    /// Properties that travel with the message, as they stand on the wire.
    pub properties: Vec<u8>,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Publish<'f> {
    pub dup: bool,
    pub qos: u8,
    pub retain: bool,
    /// Empty where an alias stands for it.
    pub topic: &'f str,
    /// 0 for QoS 0.
    pub id: u16,
    pub alias: Option<u16>,
    /// Seconds.
    pub expiry: Option<u32>,
    /// Properties that travel with the message, as they stand on the wire.
    pub properties: Vec<u8>,
    /// Where the payload stands in the frame.
    pub payload: Range<usize>,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Subscribe {
    pub id: u16,
    /// Filter and options byte, section 3.8.3.1 of MQTT 5; for 3.1.1 only the QoS bits.
    pub filters: Vec<(String, u8)>,
    pub has_identifier: bool,
}

/// Reads one whole packet; `frame` is exactly as long as its header says.
pub fn read(header: Header, frame: &[u8], version: Version) -> Result<Packet<'_>, Fault> {
    let mut body = Body { bytes: frame, at: header.length };
    let kind = header.first >> 4;
    let flags = header.first & 0x0F;
    // Section 2.1.3: reserved bits that are set make a packet malformed.
    let fixed = match kind {
        3 => flags,
        6 | 8 | 10 => 0b0010,
        _ => 0,
    };
    if flags != fixed {
        return Err(Fault::Malformed("reserved bits in the fixed header"));
    }
    let packet = match kind {
        1 => Packet::Connect(Box::new(connect(&mut body)?)),
        3 => return publish(flags, body, version).map(Packet::Publish),
        4 => Packet::PubAck(acknowledgement(&mut body, version)?),
        5 => Packet::PubRec(acknowledgement(&mut body, version)?),
        6 => Packet::PubRel(acknowledgement(&mut body, version)?),
        7 => Packet::PubComp(acknowledgement(&mut body, version)?),
        8 => Packet::Subscribe(subscribe(&mut body, version)?),
        10 => {
            let id = body.packet_id()?;
            body.skip_properties(version)?;
            let mut filters = Vec::new();
            while !body.is_done() {
                filters.push(body.string()?.to_owned());
            }
            if filters.is_empty() {
                return Err(Fault::Protocol("an UNSUBSCRIBE without a filter"));
            }
            Packet::Unsubscribe(id, filters)
        }
        12 => Packet::PingReq,
        14 => disconnect(&mut body, version)?,
        15 if version == Version::V5 => return Ok(Packet::Auth),
        _ => return Err(Fault::Malformed("a packet type that no client sends")),
    };
    if body.is_done() { Ok(packet) } else { Err(Fault::Malformed("bytes behind the end of the packet")) }
}

fn connect(body: &mut Body<'_>) -> Result<Connect, Fault> {
    let name = body.string()?;
    let level = body.u8()?;
    let version = match (name, level) {
        ("MQIsdp", 3) | ("MQTT", 4) => Version::V3,
        ("MQTT", 5) => Version::V5,
        ("MQTT" | "MQIsdp", level) => return Err(Fault::UnknownVersion(level)),
        _ => return Err(Fault::Malformed("a protocol name that is not MQTT")),
    };
    let flags = body.u8()?;
    if flags & 0x01 != 0 {
        return Err(Fault::Malformed("the reserved bit in the flags of CONNECT"));
    }
    let mut connect = Connect {
        version: (version == Version::V3).then_some(Version::V3),
        clean: flags & 0x02 != 0,
        keep_alive: body.u16()?,
        ..Connect::default()
    };
    body.properties(version, |id, value| {
        match (id, value) {
            (0x11, Value::U32(seconds)) => connect.session_expiry = Some(seconds),
            (0x21, Value::U16(0)) => return Err(Fault::Protocol("a receive maximum of 0")),
            (0x21, Value::U16(most)) => connect.receive_maximum = Some(most),
            (0x27, Value::U32(0)) => return Err(Fault::Protocol("a maximum packet size of 0")),
            (0x27, Value::U32(most)) => connect.max_packet_size = Some(most),
            (0x15, _) => connect.auth_method = true,
            (0x16 | 0x17 | 0x19 | 0x22 | 0x26, _) => {}
            _ => return Err(Fault::Protocol("a property that CONNECT does not have")),
        }
        Ok(())
    })?;
    connect.client_id = body.string()?.to_owned();
    if flags & 0x04 != 0 {
        let qos = (flags >> 3) & 0x03;
        if qos == 3 {
            return Err(Fault::Malformed("a will with QoS 3"));
        }
        let mut will = Will {
            topic: String::new(),
            payload: Vec::new(),
            qos,
            retain: flags & 0x20 != 0,
            delay: 0,
            expiry: None,
            properties: Vec::new(),
        };
        let start = body.at;
        let mut kept = Vec::new();
        body.properties_with_place(version, |id, value, place| {
            match (id, value) {
                (0x18, Value::U32(seconds)) => will.delay = seconds,
                (0x02, Value::U32(seconds)) => will.expiry = Some(seconds),
                (0x01 | 0x03 | 0x08 | 0x09 | 0x26, _) => kept.push(place),
                _ => return Err(Fault::Protocol("a property that a will does not have")),
            }
            Ok(())
        })?;
        debug_assert!(start <= body.at);
        for place in kept {
            will.properties.extend_from_slice(&body.bytes[place]);
        }
        let topic = body.string()?;
        if !is_topic(topic) {
            return Err(Fault::Malformed("a will topic that is empty or holds a wildcard"));
        }
        will.topic = topic.to_owned();
        will.payload = body.binary()?.to_vec();
        connect.will = Some(will);
    } else if flags & 0x38 != 0 {
        return Err(Fault::Malformed("QoS or retain of a will that is not there"));
    }
    if flags & 0x80 != 0 {
        connect.username = Some(body.string()?.to_owned());
    }
    if flags & 0x40 != 0 {
        if version == Version::V3 && flags & 0x80 == 0 {
            return Err(Fault::Malformed("a password without a user name"));
        }
        connect.password = Some(body.binary()?.to_vec());
    }
    Ok(connect)
}

fn publish(flags: u8, mut body: Body<'_>, version: Version) -> Result<Publish<'_>, Fault> {
    let qos = (flags >> 1) & 0x03;
    let dup = flags & 0x08 != 0;
    if qos == 3 {
        return Err(Fault::Malformed("a publish with QoS 3"));
    }
    if qos == 0 && dup {
        return Err(Fault::Malformed("a QoS 0 publish that is marked as repeated"));
    }
    let topic = body.string()?;
    let id = if qos == 0 { 0 } else { body.packet_id()? };
    let mut publish = Publish {
        dup,
        qos,
        retain: flags & 0x01 != 0,
        topic,
        id,
        alias: None,
        expiry: None,
        properties: Vec::new(),
        payload: 0..0,
    };
    let mut kept = Vec::new();
    body.properties_with_place(version, |id, value, place| {
        match (id, value) {
            (0x23, Value::U16(alias)) => publish.alias = Some(alias),
            (0x02, Value::U32(seconds)) => publish.expiry = Some(seconds),
            (0x01 | 0x03 | 0x08 | 0x09 | 0x26, _) => kept.push(place),
            _ => return Err(Fault::Protocol("a property that a client's PUBLISH does not have")),
        }
        Ok(())
    })?;
    for place in kept {
        publish.properties.extend_from_slice(&body.bytes[place]);
    }
    if !(is_topic(topic) || topic.is_empty() && publish.alias.is_some()) {
        return Err(Fault::Malformed("a topic that is empty or holds a wildcard"));
    }
    publish.payload = body.at..body.bytes.len();
    Ok(publish)
}

/// What stands before the properties of a publish.
pub struct PublishStart<'f> {
    pub qos: u8,
    /// 0 for QoS 0.
    pub id: u16,
    /// As it came; nobody has looked whether it is text.
    pub topic: &'f [u8],
    /// What has come of what stands behind: properties, in version 5, and the payload's start.
    pub rest: &'f [u8],
}

impl<'f> PublishStart<'f> {
    /// Where it is one.
    pub fn topic(&self) -> Option<&'f str> {
        std::str::from_utf8(self.topic).ok().filter(|topic| is_topic(topic))
    }
}

/// The topic of a publish as it stands there, whatever it holds; of another packet nothing.
pub fn topic(header: Header, frame: &[u8]) -> &[u8] {
    match frame.get(header.length..) {
        Some([high, low, rest @ ..]) if header.first >> 4 == 3 => {
            rest.get(..usize::from(u16::from_be_bytes([*high, *low]))).unwrap_or_default()
        }
        _ => &[],
    }
}

/// The start of a publish of which only the first bytes have come; `None` while they are too few.
pub fn publish_start(header: Header, start: &[u8]) -> Result<Option<PublishStart<'_>>, Fault> {
    let mut body = Body { bytes: start, at: header.length };
    let qos = (header.first >> 1) & 0x03;
    if start.len() < header.length + 2 {
        return Ok(None);
    }
    let topic = usize::from(u16::from_be_bytes([start[header.length], start[header.length + 1]]));
    if topic + 4 > header.remaining || qos == 3 {
        return Err(Fault::Malformed("a topic that is longer than its packet"));
    }
    if start.len() < header.length + 4 + topic {
        return Ok(None);
    }
    let topic = body.binary()?;
    let id = if qos == 0 { 0 } else { body.packet_id()? };
    let end = start.len().min(header.total());
    Ok(Some(PublishStart { qos, id, topic, rest: &start[body.at..end] }))
}

fn acknowledgement(body: &mut Body<'_>, version: Version) -> Result<u16, Fault> {
    let id = body.packet_id()?;
    if version == Version::V5 && !body.is_done() {
        body.u8()?;
        if !body.is_done() {
            body.skip_properties(version)?;
        }
    }
    Ok(id)
}

fn subscribe(body: &mut Body<'_>, version: Version) -> Result<Subscribe, Fault> {
    let mut subscribe = Subscribe { id: body.packet_id()?, filters: Vec::new(), has_identifier: false };
    body.properties(version, |id, _| {
        match id {
            0x0B => subscribe.has_identifier = true,
            0x26 => {}
            _ => return Err(Fault::Protocol("a property that SUBSCRIBE does not have")),
        }
        Ok(())
    })?;
    while !body.is_done() {
        let filter = body.string()?.to_owned();
        let options = body.u8()?;
        let reserved = if version == Version::V5 { 0xC0 } else { 0xFC };
        if options & 0x03 == 3 || options & 0x30 == 0x30 || options & reserved != 0 {
            return Err(Fault::Malformed("reserved bits in the options of a subscription"));
        }
        subscribe.filters.push((filter, options));
    }
    if subscribe.filters.is_empty() {
        return Err(Fault::Protocol("a SUBSCRIBE without a filter"));
    }
    Ok(subscribe)
}

fn disconnect(body: &mut Body<'_>, version: Version) -> Result<Packet<'static>, Fault> {
    let mut session_expiry = None;
    let mut reason = reason::SUCCESS;
    if version == Version::V5 && !body.is_done() {
        reason = body.u8()?;
        if !body.is_done() {
            body.properties(version, |id, value| {
                match (id, value) {
                    (0x11, Value::U32(seconds)) => session_expiry = Some(seconds),
                    (0x1F | 0x26, _) => {}
                    _ => return Err(Fault::Protocol("a property that DISCONNECT does not have")),
                }
                Ok(())
            })?;
        }
    }
    Ok(Packet::Disconnect { reason, session_expiry })
}

/// Whether a message may be published on it.
pub fn is_topic(topic: &str) -> bool {
    !topic.is_empty() && !topic.bytes().any(|byte| matches!(byte, b'+' | b'#'))
}

/// MQTT 4.7.1: `#` only as the whole last level, `+` only as a whole level.
pub fn is_filter(filter: &str) -> bool {
    let mut levels = filter.split('/').peekable();
    if filter.is_empty() {
        return false;
    }
    while let Some(level) = levels.next() {
        match level {
            "#" if levels.peek().is_some() => return false,
            "#" | "+" => {}
            _ if level.contains(['+', '#']) => return false,
            _ => {}
        }
    }
    true
}

struct Body<'f> {
    bytes: &'f [u8],
    at: usize,
}

/// A property's value, as far as anyone here asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value {
    U16(u16),
    U32(u32),
    Other,
}

const SHORT: Fault = Fault::Malformed("a packet that ends too early");

impl<'f> Body<'f> {
    fn is_done(&self) -> bool {
        self.at >= self.bytes.len()
    }

    fn take(&mut self, length: usize) -> Result<&'f [u8], Fault> {
        let taken = self.bytes.get(self.at..self.at + length).ok_or(SHORT)?;
        self.at += length;
        Ok(taken)
    }

    fn u8(&mut self) -> Result<u8, Fault> {
        Ok(self.take(1)?[0])
    }

    fn u16(&mut self) -> Result<u16, Fault> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn u32(&mut self) -> Result<u32, Fault> {
        let bytes = self.take(4)?;
        Ok(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    fn packet_id(&mut self) -> Result<u16, Fault> {
        match self.u16()? {
            0 => Err(Fault::Malformed("packet identifier 0")),
            id => Ok(id),
        }
    }

    fn varint(&mut self) -> Result<usize, Fault> {
        let mut value = 0_usize;
        for n in 0..4 {
            let byte = self.u8()?;
            value |= usize::from(byte & 0x7F) << (7 * n);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Fault::Malformed("a length of more than four bytes"))
    }

    fn binary(&mut self) -> Result<&'f [u8], Fault> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }

    /// Section 1.5.4: well-formed UTF-8 without U+0000.
    fn string(&mut self) -> Result<&'f str, Fault> {
        let bytes = self.binary()?;
        let text = std::str::from_utf8(bytes).map_err(|_| Fault::Malformed("text that is not UTF-8"))?;
        if bytes.contains(&0) { Err(Fault::Malformed("text with U+0000")) } else { Ok(text) }
    }

    fn skip_properties(&mut self, version: Version) -> Result<(), Fault> {
        self.properties(version, |_, _| Ok(()))
    }

    fn properties(
        &mut self,
        version: Version,
        mut each: impl FnMut(u8, Value) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        self.properties_with_place(version, |id, value, _| each(id, value))
    }

    /// Walks the properties; each comes with the place where it stands, identifier included.
    fn properties_with_place(
        &mut self,
        version: Version,
        mut each: impl FnMut(u8, Value, Range<usize>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        if version == Version::V3 {
            return Ok(());
        }
        let length = self.varint()?;
        let end = self.at + length;
        if end > self.bytes.len() {
            return Err(SHORT);
        }
        let mut seen = 0_u64;
        while self.at < end {
            let start = self.at;
            let id = self.u8()?;
            // Only user properties may stand more than once.
            if id != 0x26 {
                if id > 0x2A || seen & (1 << id) != 0 {
                    return Err(Fault::Protocol("a property that stands twice or does not exist"));
                }
                seen |= 1 << id;
            }
            let value = match id {
                0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28 | 0x29 | 0x2A => {
                    self.u8()?;
                    Value::Other
                }
                0x13 | 0x21 | 0x22 | 0x23 => Value::U16(self.u16()?),
                0x02 | 0x11 | 0x18 | 0x27 => Value::U32(self.u32()?),
                0x0B => {
                    self.varint()?;
                    Value::Other
                }
                0x03 | 0x08 | 0x12 | 0x15 | 0x1A | 0x1C | 0x1F => {
                    self.string()?;
                    Value::Other
                }
                0x09 | 0x16 => {
                    self.binary()?;
                    Value::Other
                }
                0x26 => {
                    self.string()?;
                    self.string()?;
                    Value::Other
                }
                _ => return Err(Fault::Malformed("a property that does not exist")),
            };
            if self.at > end {
                return Err(Fault::Malformed("a property that ends behind the properties"));
            }
            each(id, value, start..self.at)?;
        }
        Ok(())
    }
}

/// What CONNACK tells an MQTT 5 client about us.
pub struct Limits<'a> {
    pub session_expiry: Option<u32>,
    pub receive_maximum: u16,
    pub max_packet_size: u32,
    pub topic_alias_maximum: u16,
    pub assigned_client_id: Option<&'a str>,
}

/// CONNACK. `code` is an MQTT 5 reason; 3.1.1 gets the nearest of its own.
pub fn write_connack(out: &mut BytesMut, version: Version, present: bool, code: u8, limits: Option<Limits<'_>>) {
    if version == Version::V3 {
        let code = match code {
            reason::SUCCESS => 0,
            reason::VERSION => 1,
            reason::CLIENT_ID => 2,
            reason::CREDENTIALS => 4,
            reason::NOT_AUTHORIZED => 5,
            _ => 3,
        };
        out.put_slice(&[0x20, 2, u8::from(present), code]);
        return;
    }
    let mut properties = BytesMut::new();
    if let Some(limits) = limits {
        if let Some(seconds) = limits.session_expiry {
            properties.put_u8(0x11);
            properties.put_u32(seconds);
        }
        properties.put_u8(0x21);
        properties.put_u16(limits.receive_maximum);
        properties.put_u8(0x27);
        properties.put_u32(limits.max_packet_size);
        properties.put_u8(0x22);
        properties.put_u16(limits.topic_alias_maximum);
        // Neither subscription identifiers nor shared subscriptions.
        properties.put_slice(&[0x29, 0, 0x2A, 0]);
        if let Some(id) = limits.assigned_client_id {
            properties.put_u8(0x12);
            put_string(&mut properties, id.as_bytes());
        }
    }
    out.put_u8(0x20);
    put_varint(out, 2 + varint_length(properties.len()) + properties.len());
    out.put_slice(&[u8::from(present), code]);
    put_varint(out, properties.len());
    out.put_slice(&properties);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::enum_variant_names, reason = "the names of the standard")]
pub enum Reply {
    PubAck = 0x40,
    PubRec = 0x50,
    PubRel = 0x62,
    PubComp = 0x70,
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP.
pub fn write_acknowledgement(out: &mut BytesMut, version: Version, kind: Reply, id: u16, reason: u8) {
    let [high, low] = id.to_be_bytes();
    if version == Version::V3 || reason == reason::SUCCESS {
        out.put_slice(&[kind as u8, 2, high, low]);
    } else {
        out.put_slice(&[kind as u8, 3, high, low, reason]);
    }
}

/// SUBACK; 3.1.1 knows only one way to refuse.
pub fn write_suback(out: &mut BytesMut, version: Version, id: u16, codes: &[u8]) {
    out.put_u8(0x90);
    match version {
        Version::V3 => {
            put_varint(out, 2 + codes.len());
            out.put_u16(id);
            out.extend(codes.iter().map(|&code| if code >= 0x80 { 0x80 } else { code }));
        }
        Version::V5 => {
            put_varint(out, 3 + codes.len());
            out.put_u16(id);
            out.put_u8(0);
            out.put_slice(codes);
        }
    }
}

pub fn write_unsuback(out: &mut BytesMut, version: Version, id: u16, codes: &[u8]) {
    out.put_u8(0xB0);
    match version {
        Version::V3 => {
            put_varint(out, 2);
            out.put_u16(id);
        }
        Version::V5 => {
            put_varint(out, 3 + codes.len());
            out.put_u16(id);
            out.put_u8(0);
            out.put_slice(codes);
        }
    }
}

pub fn write_pingresp(out: &mut BytesMut) {
    out.put_slice(&[0xD0, 0]);
}

/// Only MQTT 5 lets a server say goodbye.
pub fn write_disconnect(out: &mut BytesMut, version: Version, reason: u8) {
    if version == Version::V5 {
        out.put_slice(&[0xE0, 1, reason]);
    }
}

/// A message to a subscriber.
pub struct Outgoing<'a> {
    pub dup: bool,
    pub qos: u8,
    pub retain: bool,
    pub id: u16,
    pub topic: &'a str,
    pub payload: &'a [u8],
    pub properties: &'a [u8],
    /// Seconds left.
    pub expiry: Option<u32>,
}

impl Outgoing<'_> {
    fn properties_length(&self) -> usize {
        self.properties.len() + if self.expiry.is_some() { 5 } else { 0 }
    }

    fn remaining(&self, version: Version) -> usize {
        let properties = match version {
            Version::V3 => 0,
            Version::V5 => varint_length(self.properties_length()) + self.properties_length(),
        };
        2 + self.topic.len() + if self.qos > 0 { 2 } else { 0 } + properties + self.payload.len()
    }

    /// Bytes on the wire.
    pub fn size(&self, version: Version) -> usize {
        let remaining = self.remaining(version);
        1 + varint_length(remaining) + remaining
    }

    pub fn write(&self, out: &mut BytesMut, version: Version) {
        out.reserve(self.size(version));
        out.put_u8(0x30 | u8::from(self.dup) << 3 | self.qos << 1 | u8::from(self.retain));
        put_varint(out, self.remaining(version));
        put_string(out, self.topic.as_bytes());
        if self.qos > 0 {
            out.put_u16(self.id);
        }
        if version == Version::V5 {
            put_varint(out, self.properties_length());
            if let Some(seconds) = self.expiry {
                out.put_u8(0x02);
                out.put_u32(seconds);
            }
            out.put_slice(self.properties);
        }
        out.put_slice(self.payload);
    }
}

fn put_string(out: &mut BytesMut, bytes: &[u8]) {
    // Every text that we write was read with a length of two bytes or is our own and checked to be as short.
    out.put_u16(bytes.len().min(usize::from(u16::MAX)) as u16);
    out.put_slice(&bytes[..bytes.len().min(usize::from(u16::MAX))]);
}

fn put_varint(out: &mut BytesMut, mut value: usize) {
    loop {
        let byte = (value & 0x7F) as u8;
        value >>= 7;
        if value == 0 {
            out.put_u8(byte);
            return;
        }
        out.put_u8(byte | 0x80);
    }
}

fn varint_length(value: usize) -> usize {
    match value {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        _ => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(bytes: &[u8], version: Version) -> Result<Packet<'_>, Fault> {
        let header = header(bytes)?.expect("the frame has a whole header");
        assert_eq!(header.total(), bytes.len(), "the case states a whole frame");
        read(header, bytes, version)
    }

    #[test]
    fn a_header_is_awaited_until_its_length_is_known() {
        for (bytes, wanted) in [
            (&[][..], Ok(None)),
            (&[0x30][..], Ok(None)),
            (&[0x30, 0x80][..], Ok(None)),
            (&[0x30, 0x80, 0x01][..], Ok(Some(Header { first: 0x30, length: 3, remaining: 128 }))),
            (&[0xC0, 0x00][..], Ok(Some(Header { first: 0xC0, length: 2, remaining: 0 }))),
            (&[0x30, 0xFF, 0xFF, 0xFF, 0x7F][..], Ok(Some(Header { first: 0x30, length: 5, remaining: 268_435_455 }))),
            (&[0x30, 0xFF, 0xFF, 0xFF, 0xFF][..], Err(Fault::Malformed("a length of more than four bytes"))),
        ] {
            assert_eq!(header(bytes), wanted, "{bytes:02x?}");
        }
    }

    #[test]
    fn what_the_standard_forbids_is_a_fault() {
        for (what, bytes, version) in [
            ("QoS 3", &[0x36, 5, 0, 1, b'a', 0, 1][..], Version::V3),
            ("QoS 0 repeated", &[0x38, 3, 0, 1, b'a'], Version::V3),
            ("packet identifier 0", &[0x32, 5, 0, 1, b'a', 0, 0], Version::V3),
            ("wildcard in a topic", &[0x30, 3, 0, 1, b'#'], Version::V3),
            ("empty topic", &[0x30, 2, 0, 0], Version::V3),
            ("topic not UTF-8", &[0x30, 4, 0, 2, 0xC3, 0x28], Version::V3),
            ("topic with U+0000", &[0x30, 4, 0, 2, b'a', 0], Version::V3),
            ("topic longer than the packet", &[0x30, 3, 0, 9, b'a'], Version::V3),
            ("no payload at all", &[0x30, 0], Version::V3),
            ("PUBREL without its flag", &[0x60, 2, 0, 1], Version::V3),
            ("SUBSCRIBE without filters", &[0x82, 2, 0, 1], Version::V3),
            ("SUBSCRIBE with QoS 3", &[0x82, 6, 0, 1, 0, 1, b'a', 3], Version::V3),
            ("options of 5 in a 3.1.1 SUBSCRIBE", &[0x82, 6, 0, 1, 0, 1, b'a', 4], Version::V3),
            ("PINGREQ with a body", &[0xC0, 1, 0], Version::V3),
            ("CONNACK from a client", &[0x20, 2, 0, 0], Version::V3),
            ("AUTH in 3.1.1", &[0xF0, 0], Version::V3),
            ("property that does not exist", &[0x30, 6, 0, 1, b'a', 2, 0x7F, 0], Version::V5),
            ("property twice", &[0x30, 8, 0, 1, b'a', 4, 1, 0, 1, 0], Version::V5),
            ("properties longer than the packet", &[0x30, 4, 0, 1, b'a', 9], Version::V5),
            ("property that runs over", &[0x30, 7, 0, 1, b'a', 1, 0x23, 0, 1], Version::V5),
        ] {
            assert!(parse(bytes, version).is_err(), "{what}");
        }
    }

    #[test]
    fn no_prefix_and_no_single_flipped_byte_of_a_packet_panics() {
        let frames: [&[u8]; 4] = [
            b"\x10\x2d\x00\x04MQTT\x05\xee\x00\x0a\x05\x11\x00\x00\x00\x10\x00\x01c\x05\x18\x00\x00\x00\x01\x00\x01w\x00\x02no\x00\x01u\x00\x01p",
            b"\x32\x17\x00\x03a/b\x00\x0a\x0b\x01\x01\x02\x00\x00\x00\x09\x23\x00\x01x{}",
            b"\x82\x0d\x00\x01\x02\x0b\x01\x00\x01a\x01\x00\x01#",
            b"\xe0\x07\x04\x05\x11\x00\x00\x00\x00",
        ];
        for frame in frames {
            for end in 0..=frame.len() {
                for at in 0..end {
                    for flip in [0x01, 0x80, 0xFF] {
                        let mut bytes = frame[..end].to_vec();
                        bytes[at] ^= flip;
                        if let Ok(Some(header)) = header(&bytes)
                            && header.length <= bytes.len()
                        {
                            let _ = read(header, &bytes, Version::V5);
                            let _ = read(header, &bytes, Version::V3);
                            let _ = publish_start(header, &bytes);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn what_we_write_can_be_read_again() {
        for version in [Version::V3, Version::V5] {
            let mut out = BytesMut::new();
            let message = Outgoing {
                dup: true,
                qos: 1,
                retain: true,
                id: 513,
                topic: "楼/3",
                payload: b"{}",
                properties: &[],
                expiry: (version == Version::V5).then_some(60),
            };
            message.write(&mut out, version);
            assert_eq!(out.len(), message.size(version));
            let Ok(Packet::Publish(read)) = parse(&out, version) else { panic!("{version:?} publish") };
            assert_eq!((read.topic, read.id, read.dup, read.retain, read.qos), ("楼/3", 513, true, true, 1));
            assert_eq!(&out[read.payload.clone()], b"{}");
            assert_eq!(read.expiry, message.expiry);
        }
    }

    #[test]
    fn filters_have_their_wildcards_as_whole_levels() {
        for (filter, wanted) in [
            ("a/b", true),
            ("#", true),
            ("+", true),
            ("a/+/b/#", true),
            ("/", true),
            ("a//b", true),
            ("", false),
            ("a/#/b", false),
            ("a#", false),
            ("a/b+", false),
            ("+a/b", false),
        ] {
            assert_eq!(is_filter(filter), wanted, "{filter}");
        }
    }
}
