//! What strangers and screens ask of the API, as it stands on the wire.

use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::Once;
use std::time::Duration;

use serde_json::{Map, Value as Json, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use super::{Read, hashed, text};

/// The made-up site of the gateway's own tests: six alarms, an incident, stations, a register.
#[path = "../../../gateway/tests/served/mod.rs"]
mod served;

/// Inputs that one site hears; what people do there is remembered, so that another takes its place.
const INPUTS: u32 = 256;
/// A live stream has no end, and is left after so long.
const LISTEN: Duration = Duration::from_millis(100);

/// A request for every operation that the API tells of, with a body of the form that it wants.
pub fn web_seeds() -> Vec<Vec<u8>> {
    let document = anmin::web::openapi();
    let none = Map::new();
    let mut seeds = Vec::new();
    for (path, operations) in document["paths"].as_object().unwrap_or(&none) {
        let path = path.replace("{alarm}", &served::desk::id(1).0.to_string());
        let path: String = path.chars().map(|c| if matches!(c, '{' | '}') { '1' } else { c }).collect();
        for (method, operation) in operations.as_object().unwrap_or(&none) {
            let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
            let body = if schema.is_object() { of_schema(schema).to_string() } else { String::new() };
            let length = body.len();
            let method = method.to_ascii_uppercase();
            seeds.push(
                format!(
                    "{method} /api/v1{path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                     Content-Length: {length}\r\n\r\n{body}"
                )
                .into_bytes(),
            );
        }
    }
    let plain =
        ["/", "/metrics", "/crew/x.y", "/healthz", "/api/v1/alarms?limit=5&state=open", "/api/v1/events?since=1-1"];
    seeds.extend(plain.map(|path| format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes()));
    seeds
}

/// Something of the form.
fn of_schema(schema: &Json) -> Json {
    let kind = &schema["type"];
    let is = |word: &str| *kind == word || kind.as_array().is_some_and(|kinds| kinds[0] == word);
    if let Some(first) = ["oneOf", "anyOf"].iter().find_map(|key| schema[*key].get(0)) {
        return of_schema(first);
    }
    match (&schema["enum"], schema.get("const")) {
        (Json::Array(words), _) => words.first().cloned().unwrap_or_default(),
        (_, Some(word)) => word.clone(),
        _ if is("object") => {
            let properties = schema["properties"].as_object().into_iter().flatten();
            Json::Object(properties.map(|(name, schema)| (name.clone(), of_schema(schema))).collect())
        }
        _ if is("array") => json!([of_schema(&schema["items"])]),
        _ if is("string") => json!("2026-03-01T01:30:00Z"),
        _ if is("integer") || is("number") => json!(5),
        _ if is("boolean") => json!(true),
        _ => Json::Null,
    }
}

thread_local! {
    static PANICS: Cell<u32> = const { Cell::new(0) };
}

/// Counts those of this thread, also where somebody catches them, as a runtime does with those of its tasks.
fn count_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICS.set(PANICS.get() + 1);
            before(panic);
        }));
    });
}

struct Open {
    runtime: Runtime,
    address: SocketAddr,
    _site: served::Served,
    inputs: u32,
}

fn open() -> Open {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime needs nothing");
    let site = runtime.block_on(served::site(None));
    Open { runtime, address: site.address, _site: site, inputs: 0 }
}

/// One connection to the API.
pub fn web() -> Read {
    count_panics();
    let mut now: Option<Open> = None;
    Box::new(move |bytes| {
        if now.as_ref().is_none_or(|open| open.inputs == INPUTS) {
            now = Some(open());
        }
        let open = now.as_mut().expect("it was just opened");
        open.inputs += 1;
        let (panics, address) = (PANICS.get(), open.address);
        let answers = open.runtime.block_on(async {
            let mut stream = TcpStream::connect(address).await.expect("the site listens");
            // It may have hung up already.
            let _ = stream.write_all(bytes).await;
            let _ = stream.shutdown().await;
            let mut answers = Vec::new();
            let _ = timeout(LISTEN, stream.read_to_end(&mut answers)).await;
            answers
        });
        assert_eq!(PANICS.get(), panics, "the request of {:?}", text(bytes));
        let statuses: Vec<&[u8]> = answers.split(|byte| *byte == b'\n').filter(|l| l.starts_with(b"HTTP/1.")).collect();
        assert!(!statuses.iter().any(|status| status.starts_with(b"HTTP/1.1 500")), "{}", text(&answers));
        hashed(statuses)
    })
}
