//! `docs/api.md` against the server: every route, every field, every error is in it, and what is in it is there.

mod peers;
mod served;

use std::collections::BTreeSet;
use std::path::Path;

use anmin::web::client::{Client, ClientError};
use peers::soon;
use serde_json::{Value, json};
use served::desk::id;
use served::site;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect("the file is there")
}

/// The routes for programs as the router has them, `GET /api/v1/status`; the pages of crews and residents are for people, and a
/// provider sends browsers back.
fn routes() -> BTreeSet<String> {
    let rows = anmin::web::routes()
        .into_iter()
        .filter(|row| !["/crew", "/oidc", "/residents"].iter().any(|page| row.path.starts_with(page)));
    rows.map(|row| format!("{} {}", row.method, row.path)).collect()
}

#[test]
fn every_route_has_a_heading_and_every_heading_a_route() {
    let reference = read("docs/api.md");
    let headings: BTreeSet<String> = reference
        .lines()
        .filter_map(|line| line.strip_prefix("### "))
        .filter(|heading| heading.contains(" /"))
        .map(str::to_owned)
        .collect();
    assert_eq!(routes().difference(&headings).collect::<Vec<_>>(), Vec::<&String>::new(), "not in docs/api.md");
    assert_eq!(headings.difference(&routes()).collect::<Vec<_>>(), Vec::<&String>::new(), "only in docs/api.md");
}

#[test]
fn every_action_step_and_code_is_there() {
    let reference = read("docs/api.md");
    let source = read("src/web/api.rs");
    for arm in source.lines().filter_map(|line| line.trim().strip_prefix('"')?.split_once("\" => ")) {
        assert!(reference.contains(&format!("| `{}` | `{{\"who\"", arm.0)), "docs/api.md lacks {}", arm.0);
    }
    let files = [
        "problem",
        "guard",
        "events",
        "subscriptions",
        "warnings",
        "people",
        "authority",
        "secret",
        "oidc",
        "once",
        "tuning",
        "devices",
    ]
    .map(|name| read(&format!("src/web/{name}.rs")));
    let codes = [source, files.concat()].concat();
    for (at, _) in codes.match_indices("StatusCode::") {
        let rest =
            codes[at..].trim_start_matches("StatusCode::").trim_start_matches(|c: char| c.is_uppercase() || c == '_');
        let Some(code) = rest.trim_start_matches([',', ' ', '\n']).strip_prefix('"') else { continue };
        let code = code.split('"').next().unwrap_or_default();
        assert!(reference.contains(&format!("| `{code}` |")), "docs/api.md lacks the code {code}");
    }
}

/// Every object of a document, with those inside.
fn objects<'v>(value: &'v Value, found: &mut Vec<&'v serde_json::Map<String, Value>>) {
    match value {
        Value::Object(object) => {
            found.push(object);
            object.values().for_each(|inner| objects(inner, found));
        }
        Value::Array(array) => array.iter().for_each(|inner| objects(inner, found)),
        _ => {}
    }
}

#[test]
fn the_openapi_document_has_every_route_with_what_it_takes_and_answers() {
    let document = anmin::web::openapi();
    let paths = document["paths"].as_object().expect("it has paths");
    let mut listed = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for (path, methods) in paths {
        for (method, operation) in methods.as_object().expect("methods") {
            let named = format!("{} {path}", method.to_uppercase());
            assert!(operation["responses"]["200"]["content"].is_object(), "{named} does not say what it answers");
            assert_eq!(operation["requestBody"].is_object(), method == "post", "{named}: what it takes");
            assert!(ids.insert(operation["operationId"].as_str().expect("a name").to_owned()), "{named}: twice");
            listed.insert(named);
        }
    }
    for route in routes() {
        // Commands that share a route stand there one by one.
        match route.split_once("{action}").or_else(|| route.split_once("{step}")) {
            Some((before, "")) => assert!(listed.iter().any(|named| named.starts_with(before)), "{route}"),
            _ => assert!(listed.contains(&route), "{route} is not in the document"),
        }
    }
    let source = read("src/web/api.rs");
    for (arm, _) in source.lines().filter_map(|line| line.trim().strip_prefix('"')?.split_once("\" => ")) {
        assert!(paths.keys().any(|path| path.ends_with(&format!("/{arm}"))), "the document lacks {arm}");
    }
    let mut all = Vec::new();
    objects(&document, &mut all);
    for reference in all.iter().filter_map(|object| object.get("$ref")?.as_str()) {
        let pointer = reference.strip_prefix('#').expect("within the document");
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
    assert!(all.len() > 1_000, "{} objects", all.len());
}

/// `/alarms/{id}/{action}` for each of the commands that share it, as the reference names routes.
fn pattern(path: &str) -> String {
    let route = routes().into_iter().filter_map(|route| Some(route.strip_prefix("POST ")?.to_owned()));
    let shared = route.filter(|route| route.ends_with("{action}") || route.ends_with("{step}"));
    let parent = |path: &str| path.rsplit_once('/').map(|(parent, _)| parent.to_owned());
    let found = shared.into_iter().find(|route| parent(route) == parent(path));
    let exact = routes().contains(&format!("POST {path}"));
    found.filter(|_| !exact).unwrap_or_else(|| path.to_owned()).trim_start_matches("/api/v1").to_owned()
}

#[test]
fn every_command_says_how_it_is_guarded_against_undoing_what_somebody_else_did() {
    let (reference, document) = (read("docs/api.md"), anmin::web::openapi());
    let row_of = |guard: &str| {
        reference.lines().find(|line| line.starts_with(&format!("| `{guard}` | "))).expect("each guard has a row")
    };
    for (path, methods) in document["paths"].as_object().expect("it has paths") {
        let Some(post) = methods.get("post") else { continue };
        let guard = post["x-guard"].as_str().unwrap_or_else(|| panic!("{path} has no guard"));
        assert!(row_of(guard).contains(&format!("`{}`", pattern(path))), "{path} is guarded by {guard}");
        let headers = post["parameters"].as_array().expect("parameters").iter().filter(|one| one["in"] == "header");
        let matches = headers.into_iter().any(|one| one["name"] == "If-Match");
        assert_eq!(matches, guard == "if_match", "{path}");
        let names = |field: &str| post["requestBody"].to_string().contains(&format!("\"{field}\":"));
        let known = ["version", "changed_at", "created_at", "code", "old"].iter().any(|field| names(field));
        assert!(guard != "seen" || known || path.ends_with("/arm") || path.ends_with("/disarm"), "{path}");
    }
}

/// The schema behind a reference.
fn resolved<'d>(document: &'d Value, schema: &'d Value) -> &'d Value {
    match schema["$ref"].as_str().and_then(|reference| document.pointer(reference.trim_start_matches('#'))) {
        Some(found) => found,
        None => schema,
    }
}

#[test]
fn every_list_has_pages_or_says_what_bounds_it() {
    let (reference, document) = (read("docs/api.md"), anmin::web::openapi());
    let mut lists = 0;
    for (path, methods) in document["paths"].as_object().expect("it has paths") {
        let Some(get) = methods.get("get") else { continue };
        let schema = resolved(&document, &get["responses"]["200"]["content"]["application/json"]["schema"]);
        let is_list = |schema: &Value| schema["type"] == "array" && schema["items"]["$ref"].is_string();
        let fields = schema["properties"].as_object();
        let has_list = is_list(schema) || fields.is_some_and(|fields| fields.values().any(is_list));
        let Some(form) = get["x-list"].as_str() else {
            assert!(!has_list, "{path} has a list, and says nothing of its length");
            continue;
        };
        lists += 1;
        let names: BTreeSet<&str> =
            get["parameters"].as_array().into_iter().flatten().filter_map(|one| one["name"].as_str()).collect();
        let short = path.trim_start_matches("/api/v1");
        if form == "pages" {
            let given = get["responses"]["200"]["content"]["application/json"]["schema"].is_object();
            assert!(!given || names.is_superset(&["limit", "after"].into()), "{path}: {names:?}");
            assert!(reference.contains(&format!("`{short}`")), "docs/api.md lacks {short} among the lists");
        } else {
            assert!(reference.contains(&format!("| `{short}` | {form} |")), "docs/api.md lacks {short} | {form}");
        }
    }
    assert!(lists > 35, "{lists}");
}

/// The names of all fields of a document.
fn fields(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            for (name, inner) in object {
                found.insert(name.clone());
                fields(inner, found);
            }
        }
        Value::Array(array) => array.iter().for_each(|inner| fields(inner, found)),
        _ => {}
    }
}

#[tokio::test]
async fn every_field_of_every_answer_is_there() {
    let reference = read("docs/api.md");
    let site = site(None).await;
    let client = Client::new(&site.url(), None).expect("a good address");
    let mut found = BTreeSet::new();
    let one = id(1);
    for route in routes().iter().filter_map(|route| route.strip_prefix("GET /api/v1")) {
        let path = route
            .replace("/devices/{id}", "/devices/b3-5-gas")
            .replace("/guess", "/guess?device=0x00158d0009c1a2f3")
            .replace("{id}", &one.to_string())
            .replace("{device}", "b3-5-gas")
            .replace("{name}", "lel")
            .replace("{station}", "south")
            .replace("{kind}", "stock")
            .replace("{month}", "2026-02");
        // Streams, what is read of a journal, which this site has not (the schema names those fields), what people print, and
        // what proves itself.
        let other = ["/report", "/archive", "/table", "/sheet", "/image", ".csv"].iter().any(|end| path.ends_with(end));
        if ["/events", "/openapi.json"].contains(&&*path) || path.starts_with("/subscriptions/") || other {
            continue;
        }
        let answer = client.get(&path).await.unwrap_or_else(|error| panic!("{path}: {error}"));
        fields(&answer, &mut found);
    }
    let refused = client.post(&format!("/alarms/{one}/reset"), &json!({"who": "li"})).await;
    let Err(ClientError::Refused { problem, .. }) = refused else { panic!("{refused:?}") };
    fields(&serde_json::to_value(problem).expect("it is JSON"), &mut found);

    // The stream: what it says when somebody acts.
    let stream = TcpStream::connect(site.address).await.expect("the server listens");
    let (reader, mut writer) = stream.into_split();
    let head = format!("GET /api/v1/events?readings=yes HTTP/1.1\r\nhost: {}\r\n\r\n", site.address);
    writer.write_all(head.as_bytes()).await.expect("the server reads");
    let mut lines = BufReader::new(reader).lines();
    let mut events: BTreeSet<&str> = ["hello", "transition", "call", "incident", "drill", "readings", "status"].into();
    let mut acted = false;
    let mut event = String::new();
    while !events.is_empty() {
        let line = soon("an event", lines.next_line()).await.expect("text").expect("the stream goes on");
        if let Some(name) = line.strip_prefix("event: ") {
            name.clone_into(&mut event);
        } else if let Some(data) = line.strip_prefix("data: ") {
            events.remove(event.as_str());
            fields(&serde_json::from_str(data).expect("JSON"), &mut found);
            assert!(reference.contains(&format!("| `{event}` |")), "docs/api.md lacks the event {event}");
            if !std::mem::replace(&mut acted, true) {
                for path in [format!("/alarms/{one}/acknowledge"), format!("/alarms/{one}/calls/south/accept")] {
                    client.post(&path, &json!({"who": "li"})).await.expect("it is allowed");
                }
                let drill = client.post("/drills", &json!({"who": "li"})).await;
                fields(&drill.expect("it is allowed"), &mut found);
                let note = client.post(&format!("/incidents/{one}/note"), &json!({"who": "li", "text": "x"})).await;
                fields(&note.expect("it is allowed"), &mut found);
            }
        }
    }
    let missing: Vec<&String> = found
        .iter()
        .filter(|name| !reference.contains(&format!("`{name}`")) && !reference.contains(&format!("\"{name}\"")))
        .collect();
    assert!(found.len() > 80 && missing.is_empty(), "docs/api.md lacks the fields {missing:?} of {}", found.len());
}
