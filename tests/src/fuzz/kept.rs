//! What anmin has written to disk itself, after whatever has happened to the disk.

use std::fs;
use std::path::{Path, PathBuf};

use anmin::package::{self, Entry};
use anmin::store::column::{
    BatchEncoder, Cell, FLAG, NO_VALUE, decode_batch, decode_shared, encode_chunk, encode_members,
};
use anmin::store::{StateStore, StoreError, Turn, record};
use anmin_rules::order::OrderBody;
use anmin_sensors::reading::{Doubt, Fault, Quality, Value};
use anmin_sensors::time::Wall;
use serde_json::json;

use super::{Read, choice, hashed, hex, root, text};

/// Bytes behind a checksum that fits them: what is damaged otherwise goes no further.
fn checked(bytes: &[u8]) -> Vec<u8> {
    [&crc32fast::hash(bytes).to_le_bytes()[..], bytes].concat()
}

/// Bodies without their checksums: a batch, then members behind a byte for their length and a chunk.
pub fn column_seeds() -> Vec<Vec<u8>> {
    let mut batch = BatchEncoder::default();
    let values = [
        Some(Value::Number(21.5)),
        Some(Value::Number(1e300)),
        Some(Value::Flag(true)),
        Some(Value::Text("燃气".into())),
        None,
    ];
    let qualities = [Quality::Good, Quality::Uncertain(Doubt::Jump), Quality::Bad(Fault::Comms)];
    for n in 0..40_usize {
        let (value, quality) = (&values[n % 5], qualities[n / 9 % 3]);
        batch.push((n * n % 90) as u32, 1_772_328_600_000_000 + n as i64 * 1_000_000, value.as_ref(), quality);
    }
    let batch = batch.finish();
    let cell = |n: u32, value: f64, code: u8| {
        (n / 8, Cell { time: 1_772_328_600_000_000 + i64::from(n) * 2_000_000, value, code })
    };
    let cells: Vec<(u32, Cell)> = (0..24)
        .map(|n| match n % 6 {
            0 => cell(n, 0.0, NO_VALUE | 6),
            1 => cell(n, 1.0, FLAG),
            _ => cell(n, f64::from(n) / 10.0, 0),
        })
        .collect();
    let odd: Vec<(u32, Cell)> = (0..8).map(|n| cell(n, 1.0 / f64::from(n + 3), 0)).collect();
    let shared = |cells: &[(u32, Cell)]| {
        let members = encode_members(cells);
        [&[members.len() as u8 - 4], &members[4..], &encode_chunk(cells)[4..]].concat()
    };
    let point_beyond = hex("00 02 0A FF FF FF FF FF FF FF FF FF 01");
    vec![batch[4..].to_vec(), shared(&cells), shared(&odd), point_beyond]
}

/// Whatever is read is written and read alike.
pub fn column(bytes: &[u8]) -> u64 {
    let batch = decode_batch(&checked(bytes));
    if let Ok(samples) = &batch {
        let mut encoder = BatchEncoder::default();
        let write = |encoder: &mut BatchEncoder, samples: &[anmin::store::StoredSample]| {
            for sample in samples {
                encoder.push(sample.point, sample.time.micros(), sample.value.as_ref(), sample.quality);
            }
            encoder.finish()
        };
        let body = write(&mut encoder, samples);
        // By its bytes: a number may be none, and that is not equal to itself.
        let again = decode_batch(&body).expect("what was just written can be read");
        assert_eq!(write(&mut encoder, &again), body);
        assert_eq!(again.len(), samples.len());
    }
    let (length, rest) = choice(bytes);
    let (members, chunk) = rest.split_at(length.min(rest.len()));
    let mut cells = Vec::new();
    let shared = decode_shared(&checked(chunk), Some(&checked(members)), 0, &mut cells);
    if let Ok(owners) = &shared {
        assert_eq!(owners.iter().map(|(_, count)| count).sum::<usize>(), cells.len());
        let owned: Vec<(u32, Cell)> = owners
            .iter()
            .flat_map(|(owner, count)| std::iter::repeat_n(*owner, *count))
            .zip(cells.iter().copied())
            .collect();
        let (body, members) = (encode_chunk(&owned), encode_members(&owned));
        let mut again = Vec::new();
        decode_shared(&body, Some(&members), 0, &mut again).expect("what was just written can be read");
        let bits = |cells: &[Cell]| -> Vec<(i64, u8)> { cells.iter().map(|cell| (cell.time, cell.code)).collect() };
        assert_eq!(bits(&again), bits(&cells));
    }
    hashed((
        batch.map(|samples| samples.len().min(8)).map_err(|why| why.to_string()),
        shared.map(|owners| owners.len().min(8)).map_err(|why| why.to_string()),
        cells.len().min(8),
    ))
}

pub fn record_seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = Vec::new();
    for file in ["v1.jsonl", "incident-v1.jsonl"] {
        let lines = std::fs::read_to_string(root("gateway/src/store/records").join(file)).expect("it is there");
        for line in lines.lines() {
            seeds.push(line.as_bytes().to_vec());
            // What stands in the journal is the same without the order around it.
            let order: serde_json::Value = serde_json::from_str(line).expect("records are JSON");
            for inner in order["body"].as_object().into_iter().flat_map(|body| body.values()) {
                if let serde_json::Value::Object(record) = inner {
                    let mut record = record.clone();
                    record.insert("v".to_owned(), order["v"].clone());
                    seeds.push(serde_json::Value::Object(record).to_string().into_bytes());
                }
            }
        }
    }
    seeds.sort();
    seeds.dedup();
    seeds
}

/// Rows of the journal; what can be read is written and read alike.
pub fn record(bytes: &[u8]) -> u64 {
    let Ok(json) = std::str::from_utf8(bytes) else { return 0 };
    let plain = |why: record::RecordError| super::plain(&why.to_string());
    let transition = record::read_transition(json);
    if let Ok(transition) = &transition {
        let written = record::write_transition(transition);
        let again = record::read_transition(&written).expect("what was just written can be read");
        assert_eq!(record::write_transition(&again), written);
    }
    let call = record::read_call(json);
    if let Ok(call) = &call {
        let written = record::write_call(call);
        let again = record::read_call(&written).expect("what was just written can be read");
        assert_eq!(record::write_call(&again), written);
    }
    let incident = record::read_incident(json);
    if let Ok(incident) = &incident {
        let written = record::write_incident(incident);
        let again = record::read_incident(&written).expect("what was just written can be read");
        assert_eq!(record::write_incident(&again), written);
    }
    let pending = record::read_pending(json);
    if let Ok(pending) = &pending {
        let written = record::write_pending(pending);
        let again = record::read_pending(&written).expect("what was just written can be read");
        assert_eq!(record::write_pending(&again), written);
    }
    let body = record::read_body(json).map(|body| match body {
        record::Body::Whole(body) => {
            let written = record::write_body(&body);
            assert!(record::read_body(&written).is_ok(), "{written}");
            true
        }
        record::Body::EventAt(_) | record::Body::CallAt(_) => false,
    });
    hashed((
        transition.map(drop).map_err(plain),
        call.map(drop).map_err(plain),
        incident.map(drop).map_err(plain),
        pending.map(drop).map_err(plain),
        body.map_err(plain),
    ))
}

pub fn package_seeds() -> Vec<Vec<u8>> {
    let entry = |name: &str, bytes: &[u8]| Entry { name: name.to_owned(), bytes: bytes.to_vec() };
    let entries =
        [entry("report.html", "<p>报告</p>".as_bytes()), entry("empty.json", b""), entry("a/b.csv", &[b'7'; 512])];
    let (whole, _) = package::write(json!({ "incident": "1" }), &entries);
    let (one, _) = package::write(json!({}), &entries[..1]);
    vec![whole.clone(), one, text(&whole[..1_536]).into_owned().into_bytes()]
}

/// A package of records: what nobody has touched is whole, and nothing else is.
pub fn package(bytes: &[u8]) -> u64 {
    match package::verify(bytes) {
        Ok(verified) => hashed((1, verified.entries)),
        Err(damage) => {
            assert!(damage.byte <= bytes.len() as u64, "{damage:?}");
            hashed((super::plain(&damage.why.en), damage.byte / 512))
        }
    }
}

/// A state directory of the fuzzer's own, in memory where the system has such a place; gone with it.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let base = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let folder = Self(base.join(format!("anmin-fuzz-{}", std::process::id())));
        folder.empty();
        folder
    }

    fn empty(&self) {
        let _ = fs::remove_dir_all(&self.0);
        fs::create_dir_all(&self.0).expect("there is room for a small folder");
    }

    fn file(&self) -> PathBuf {
        self.0.join("state.db")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A journal with every record of [`record_seeds`], as bytes.
fn database_file(folder: &Folder) -> Vec<u8> {
    let (mut store, _) = StateStore::open(&folder.0, Wall::default()).expect("a new file can be made");
    let (mut transitions, mut calls) = (Vec::new(), Vec::new());
    for seed in record_seeds() {
        match record::read_body(&text(&seed)) {
            Ok(record::Body::Whole(OrderBody::Event(transition))) => transitions.push(transition),
            Ok(record::Body::Whole(OrderBody::Call(call))) => calls.push(call),
            _ => {}
        }
    }
    assert!(transitions.len() > 3 && !calls.is_empty());
    store.commit(&Turn { transitions: &transitions, calls: &calls, ..Turn::default() }).expect("there is room");
    drop(store);
    fs::read(folder.file()).expect("it was just written")
}

/// A byte for how much of the file is left, then places (three bytes, the highest first) with what is turned over there.
pub fn database_seeds() -> Vec<Vec<u8>> {
    let page = |n: u32, at: u32, turned: u8| [&(n * 4_096 + at).to_be_bytes()[1..], &[turned]].concat();
    let mut seeds = vec![vec![0], vec![128], vec![255]];
    // The list of tables; the header of each page, its pointers, and a row.
    seeds.push([&[0], &page(0, 100, 0xFF)[..], &page(0, 16, 1)].concat());
    for n in 1..24 {
        seeds.push([&[0], &page(n, 0, 0x0D)[..]].concat());
        seeds.push([&[0], &page(n, 9, 0x80)[..], &page(n, 3_000, 1)].concat());
    }
    seeds
}

/// A damaged journal: the daemon starts all the same, with what can still be read.
pub fn database() -> Read {
    let folder = Folder::new();
    let whole = database_file(&folder);
    Box::new(move |bytes| {
        folder.empty();
        let (left, patches) = choice(bytes);
        let mut file = whole.clone();
        for patch in patches.chunks_exact(4).take(32) {
            let at = u32::from_be_bytes([0, patch[0], patch[1], patch[2]]) as usize % file.len();
            file[at] ^= patch[3];
        }
        if left > 0 {
            file.truncate(file.len() * left / 256);
        }
        fs::write(folder.file(), &file).expect("there is room");
        match StateStore::open(&folder.0, Wall::default()) {
            Ok((mut store, restored)) => {
                let committed = store.commit(&Turn::default());
                let notes = store.take_notes();
                let rows = store.recent(100, None).map(|rows| rows.len());
                hashed((restored.alarms.len(), restored.calls.len(), notes.len().min(4), committed.is_ok(), rows.ok()))
            }
            // The number of its schema was hit: nothing may be changed.
            Err(StoreError::Newer { .. }) => 1,
            Err(why) => panic!("a damaged file keeps the daemon from starting: {why}"),
        }
    })
}
