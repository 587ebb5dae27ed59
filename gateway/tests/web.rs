//! The routes, the live stream and what the guard turns away, over real sockets. The main loop behind them is made up;
//! what it decides is not under test here.

mod served;

use std::time::Duration;

use anmin::crew_link::{Link, LinkKey};
use anmin::web::Settings;
use anmin_sensors::document::{Document, Faults};
use anmin_sensors::time::Wall;
use base64::Engine as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use served::desk::id;
use served::{Served, serve_site};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

/// Speaks HTTP with the site.
struct Running(Served);

async fn site(token: Option<&str>, answers: bool) -> Running {
    Running(serve_site(token, answers).await)
}

impl Running {
    async fn send(&self, request: Request<Full<Bytes>>) -> Response<Incoming> {
        let stream = TcpStream::connect(self.0.address).await.expect("the server listens");
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP/1.1");
        tokio::spawn(connection);
        sender.send_request(request).await.expect("an answer")
    }

    fn request(&self, method: Method, path: &str, body: &str) -> Request<Full<Bytes>> {
        let mut request = Request::builder().method(&method).uri(path).header(HOST, self.0.address.to_string());
        if method == Method::POST {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        request.body(Full::from(body.to_owned())).expect("a good request")
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        read(self.send(self.request(Method::GET, path, "")).await).await
    }

    async fn post(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        read(self.send(self.request(Method::POST, path, &body.to_string())).await).await
    }

    /// Opens the live stream and returns what comes, event by event.
    async fn events(&self, path: &str, last: Option<&str>) -> Events {
        let mut request = self.request(Method::GET, path, "");
        if let Some(last) = last {
            request.headers_mut().insert("last-event-id", last.parse().expect("plain text"));
        }
        let response = self.send(request).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()[CONTENT_TYPE], "text/event-stream");
        Events { body: response.into_body(), text: String::new() }
    }
}

async fn read(response: Response<Incoming>) -> (StatusCode, Value) {
    let status = response.status();
    let bytes = response.into_body().collect().await.expect("a whole body").to_bytes();
    let body = serde_json::from_slice(&bytes).unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into()));
    (status, body)
}

struct Events {
    body: Incoming,
    text: String,
}

#[derive(Debug, PartialEq)]
struct Event {
    id: Option<String>,
    name: String,
    data: Value,
}

impl Events {
    /// The next event of these names; `None` when the stream has ended.
    async fn next_of(&mut self, names: &[&str]) -> Option<Event> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
                let event = field("event").map(|event| Event {
                    id: field("id").map(str::to_owned),
                    name: event.to_owned(),
                    data: serde_json::from_str(field("data").expect("an event has data")).expect("JSON"),
                });
                self.text = rest.to_owned();
                match event {
                    Some(event) if names.contains(&event.name.as_str()) => return Some(event),
                    _ => continue,
                }
            }
            let frame = self.body.frame().await?.ok()?;
            let data = frame.into_data().unwrap_or_default();
            self.text.push_str(std::str::from_utf8(&data).expect("each event is whole UTF-8"));
        }
    }
}

const NEWS: &[&str] = &["hello", "transition", "call", "resync"];

#[tokio::test]
async fn every_list_can_be_read() {
    let site = site(None, true).await;
    let (status, body) = site.get("/api/v1/status").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        (&body["site"], &body["exercise"], &body["by_level"]["red"]),
        (&json!("chunhui"), &json!(true), &json!(1))
    );
    let (_, body) = site.get("/api/v1/alarms").await;
    assert_eq!(body["alarms"].as_array().map(Vec::len), Some(6));
    assert_eq!((&body["alarms"][0]["level"], &body["calls"][0]["state"]), (&json!("red"), &json!("called")));
    let (_, page) = site.get("/api/v1/alarms?limit=4").await;
    assert_eq!((page["alarms"].as_array().map(Vec::len), &page["of"]), (Some(4), &json!(6)));
    let next = page["next"].as_str().expect("there are more");
    let (_, page) = site.get(&format!("/api/v1/alarms?limit=4&after={next}")).await;
    assert_eq!((&page["alarms"][0], page["alarms"].as_array().map(Vec::len)), (&body["alarms"][4], Some(2)));
    assert_eq!((&page["next"], &page["of"]), (&Value::Null, &json!(6)));
    let (_, body) = site.get("/api/v1/alarms?min_level=orange&building=1").await;
    assert_eq!(body["alarms"].as_array().map(Vec::len), Some(2));
    let (_, body) = site.get("/api/v1/alarms?class=system").await;
    assert_eq!((&body["alarms"][0]["subject_type"], &body["calls"]), (&json!("part"), &json!([])));
    let (_, body) = site.get(&format!("/api/v1/alarms/{}", id(1))).await;
    assert_eq!((&body["alarm"]["seq"], body["calls"].as_array().map(Vec::len)), (&json!(1), Some(2)));
    let (_, body) = site.get(&format!("/api/v1/alarms/{}/transitions", id(1))).await;
    assert_eq!(body[0]["transition"]["cause"], json!("raised"));
    let (_, body) = site.get("/api/v1/journal?limit=2").await;
    assert_eq!(body.as_array().map(Vec::len), Some(2));
    let (_, older) = site.get(&format!("/api/v1/journal?limit=2&before={}", body[1]["n"])).await;
    assert!(older[0]["n"].as_i64() < body[1]["n"].as_i64());
    let (_, body) = site.get("/api/v1/points?limit=3&quality=not_good").await;
    assert_eq!((&body["points"][0]["sample"]["reason"], &body["next"]), (&json!("silent"), &json!(30)));
    let (_, body) = site.get("/api/v1/points?kind=gas.lel&building=3&from=0").await;
    assert_eq!(body["points"].as_array().map(Vec::len), Some(3));
    let (_, body) = site.get("/api/v1/points/choices").await;
    assert_eq!(body["buildings"], json!(["1", "2", "3"]));
    let kind = json!({"kind": "gas.lel", "title": {"zh": "可燃气体浓度", "en": "combustible gas"}});
    assert_eq!((&body["kinds"][0], body["kinds"].as_array().map(Vec::len)), (&kind, Some(8)));
    let (_, body) = site.get("/api/v1/points/b3-5-gas/lel").await;
    assert_eq!((&body["unit"], &body["place"]["zh"]), (&json!("%LEL"), &json!("3号楼2单元5层501")));
    let (_, body) = site
        .get("/api/v1/points/b3-5-gas/lel/history?from=2026-01-31T08:00:00%2B08:00&to=1769900000000&buckets=8")
        .await;
    assert_eq!((body.as_array().map(Vec::len), &body[0]["at"]), (Some(7), &json!("2026-01-31T00:00:00.000+00:00")));
    let (_, body) = site.get("/api/v1/devices?from=30&limit=10").await;
    assert_eq!(
        (body["devices"].as_array().map(Vec::len), &body["next"], &body["of"]),
        (Some(6), &Value::Null, &json!(36))
    );
    let (_, body) = site.get("/api/v1/quarantine").await;
    assert_eq!(body[0]["messages"], json!(12));
    let (_, body) = site.get("/api/v1/quarantine/messages?limit=5").await;
    assert_eq!((&body[0]["excerpt"], &body[0]["messages"]), (&json!("gas=12,5\u{FFFD}"), &json!(14)));
    for (path, expected) in [("/healthz", "ok\n"), ("/readyz", "ready\n"), ("/metrics", "anmin_up 1\n# EOF\n")] {
        assert_eq!(site.get(path).await, (StatusCode::OK, json!(expected)), "{path}");
    }
}

#[tokio::test]
async fn commands_change_the_alarm_and_say_how_it_stands() {
    let site = site(None, true).await;
    let who = json!({"who": "李值班"});
    let at = |n: u128, action: &str| format!("/api/v1/alarms/{}/{action}", id(n));
    let (status, body) = site.post(&at(1, "acknowledge"), &who).await;
    assert_eq!(
        (status, &body["alarm"]["state"], &body["alarm"]["acknowledged"]["by"]),
        (StatusCode::OK, &json!("acknowledged"), &json!("李值班"))
    );
    let (status, body) = site.post(&at(1, "reset"), &who).await;
    assert_eq!((status, &body["code"]), (StatusCode::CONFLICT, &json!("still_active")));
    assert!(body["error"]["zh"].as_str().is_some_and(|zh| zh.contains("不能复位")), "{body}");
    let shelf = json!({"who": "王工", "minutes": 30, "why": "检修"});
    let (status, body) = site.post(&at(1, "shelve"), &shelf).await;
    assert_eq!((status, &body["code"]), (StatusCode::CONFLICT, &json!("not_allowed")));
    let (status, body) = site.post(&at(2, "shelve"), &shelf).await;
    assert_eq!((status, &body["alarm"]["shelved"]["why"]), (StatusCode::OK, &json!("检修")));
    let (_, body) = site.post(&at(2, "unshelve"), &who).await;
    assert_eq!(body["alarm"]["shelved"], Value::Null);
    let (_, body) = site.post(&at(2, "out-of-service"), &json!({"who": "王工", "why": "更换"})).await;
    assert_eq!(body["alarm"]["state"], json!("out_of_service"));
    let (_, body) = site.post(&at(2, "return-to-service"), &who).await;
    assert_eq!(body["alarm"]["state"], json!("acknowledged"));
    let (status, body) = site.post(&at(5, "reset"), &who).await;
    assert_eq!((status, &body["alarm"]), (StatusCode::OK, &Value::Null), "the latch was the last thing that held it");
    let (status, body) = site.post(&at(5, "reset"), &who).await;
    assert_eq!((status, &body["code"]), (StatusCode::NOT_FOUND, &json!("no_such_alarm")));

    for (step, state) in
        [("accept", "accepted"), ("on-the-way", "on_the_way"), ("on-scene", "on_scene"), ("stand-down", "stood_down")]
    {
        let (status, body) = site.post(&at(1, &format!("calls/south/{step}")), &who).await;
        assert_eq!((status, &body["calls"][0]["state"]), (StatusCode::OK, &json!(state)));
    }
    let (_, body) = site.post(&at(1, "calls/east/decline"), &json!({"who": "赵站长", "why": "车坏了"})).await;
    assert_eq!(body["calls"][1]["steps"][3]["why"], json!("车坏了"));
    let (status, body) = site.post(&at(1, "calls/nobody/accept"), &who).await;
    assert_eq!((status, &body["code"]), (StatusCode::NOT_FOUND, &json!("no_such_call")));
}

/// The page where `make web` has built it, else how to get it. Assets are named by what is in them and kept for ever.
#[tokio::test]
async fn the_page_is_served_whole_or_says_how_to_get_it() {
    let site = site(None, true).await;
    let get = async |path: &str| {
        let response = site.send(site.request(Method::GET, path, "")).await;
        let header = |name: &str| {
            response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
        };
        let (kind, keep) = (header("content-type"), header("cache-control"));
        (kind, keep, read(response).await.1.as_str().unwrap_or_default().to_owned())
    };
    let (kind, keep, index) = get("/").await;
    assert_eq!((kind.as_str(), keep.as_str()), ("text/html; charset=utf-8", "no-cache"));
    let assets: Vec<&str> = index.split('"').filter(|part| part.starts_with("/assets/")).collect();
    if assets.is_empty() {
        assert!(index.matches("make web").count() == 2 && index.contains("/api/v1/status"), "{index}");
    }
    for asset in assets {
        let (kind, keep, text) = get(asset).await;
        let expected = match asset.rsplit('.').next() {
            Some("js") => "text/javascript; charset=utf-8",
            Some("css") => "text/css; charset=utf-8",
            _ => "image/svg+xml",
        };
        assert_eq!((kind.as_str(), keep.as_str()), (expected, "public, max-age=31536000, immutable"), "{asset}");
        assert!(!text.is_empty(), "{asset}");
    }
    assert_eq!(site.get("/assets/../page.rs").await.0, StatusCode::NOT_FOUND);
}

/// Goal: a drawing is given whole, as what it is, once, and nothing that is none. Method: as programs ask, with and without what
/// they hold already, and with names that lead elsewhere.
#[tokio::test]
async fn drawings_are_given_once_and_lead_nowhere_else() {
    let site = site(None, true).await;
    let ask = async |path: &str, known: Option<&str>| {
        let mut request = site.request(Method::GET, path, "");
        if let Some(tag) = known {
            request.headers_mut().insert("if-none-match", tag.parse().expect("plain text"));
        }
        let response = site.send(request).await;
        let (head, body) = response.into_parts();
        (head, body.collect().await.expect("a whole body").to_bytes())
    };
    for (path, kind) in [
        ("/api/v1/drawings", "application/json"),
        ("/api/v1/drawings/site/map", "application/geo+json"),
        ("/api/v1/drawings/b1-f1/image", "image/png"),
    ] {
        let (head, body) = ask(path, None).await;
        assert_eq!((head.status, &head.headers["content-type"]), (StatusCode::OK, &kind.parse().expect("a type")));
        assert_eq!(head.headers["x-content-type-options"], "nosniff");
        assert_eq!(head.headers["cache-control"], "private, no-cache");
        assert!(
            head.headers["content-security-policy"]
                .to_str()
                .is_ok_and(|policy| policy.starts_with("default-src 'self'"))
        );
        let tag = head.headers["etag"].to_str().expect("plain text");
        for known in [tag, &format!("\"other\", W/{tag}"), "*"] {
            let (again, nothing) = ask(path, Some(known)).await;
            assert_eq!((again.status, nothing.len()), (StatusCode::NOT_MODIFIED, 0), "{path} {known}");
            assert_eq!(again.headers["etag"], tag);
        }
        let (other, whole) = ask(path, Some("\"other\"")).await;
        assert_eq!((other.status, whole), (StatusCode::OK, body), "{path}");
    }
    for path in [
        "/api/v1/drawings/nowhere/map",
        "/api/v1/drawings/site/image",
        "/api/v1/drawings/b1-f1/map",
        "/api/v1/drawings/b1-f1/../../../../Cargo.toml",
        "/api/v1/drawings/..%2F..%2F..%2FCargo.toml/image",
        "/api/v1/drawings/%2Fetc%2Fpasswd/image",
        "/api/v1/drawings/b1-f1/image/..%2F..%2FCargo.toml",
        "/api/v1/drawings/b1-f1%00/image",
    ] {
        assert_eq!(ask(path, None).await.0.status, StatusCode::NOT_FOUND, "{path}");
    }
    // What lies there now was never judged.
    let (head, body) = ask("/api/v1/drawings/changed/image", None).await;
    let said: Value = serde_json::from_slice(&body).expect("a problem");
    assert_eq!((head.status, &said["code"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("drawing")));
}

#[tokio::test]
async fn bad_requests_are_told_what_is_wrong() {
    let site = site(None, true).await;
    let id = id(1).to_string();
    let (act, shelve, decline) = (
        format!("/api/v1/alarms/{id}/acknowledge"),
        format!("/api/v1/alarms/{id}/shelve"),
        format!("/api/v1/alarms/{id}/calls/south/decline"),
    );
    let deep = format!("{{\"who\":{}", "[".repeat(100_000));
    let long = format!("{{\"who\":\"{}\"}}", "长".repeat(65));
    let huge = format!("{{\"who\":\"{}\"}}", "x".repeat(1 << 20));
    let table: [(&str, &str, u16, &str); 20] = [
        (&act, "", 400, "EOF"),
        (&act, "{", 400, "EOF"),
        (&act, "[]", 400, "invalid length 0"),
        (&act, "{}", 400, "missing field `who`"),
        (&act, r#"{"who":"li","why":"x"}"#, 400, "unknown field `why`"),
        (&act, r#"{"who":"li","who":"wang"}"#, 400, "duplicate field `who`"),
        (&act, r#"{"who":7}"#, 400, "expected a string"),
        (&act, r#"{"who":"  "}"#, 400, "`who` is empty"),
        (&act, r#"{"who":"a\nb"}"#, 400, "control characters"),
        (&act, &deep, 400, "expected a string"),
        (&act, &long, 400, "longer than 64"),
        (&act, &huge, 413, "larger than 1 MiB"),
        (&shelve, r#"{"who":"li"}"#, 400, "missing field"),
        (&shelve, r#"{"who":"li","minutes":0,"why":"x"}"#, 400, "expected 1 to 1440"),
        (&shelve, r#"{"who":"li","minutes":-5,"why":"x"}"#, 400, "invalid value"),
        (&shelve, r#"{"who":"li","minutes":1.5,"why":"x"}"#, 400, "invalid type"),
        (&shelve, r#"{"who":"li","minutes":5,"why":""}"#, 400, "`why` is empty"),
        (&decline, r#"{"who":"li"}"#, 400, "missing field `why`"),
        ("/api/v1/alarms/nonsense/acknowledge", r#"{"who":"li"}"#, 400, "is not an alarm's id"),
        ("/api/v1/alarms/../../etc/passwd", r#"{"who":"li"}"#, 404, "nothing at this address"),
    ];
    for (path, body, status, words) in table {
        let (found, answer) = read(site.send(site.request(Method::POST, path, body)).await).await;
        let said = answer["error"]["en"].as_str().unwrap_or_default().to_owned();
        let body: String = body.chars().take(60).collect();
        assert!(found.as_u16() == status && said.contains(words), "{path} {body}: {found} {said}");
        assert!(!answer["error"]["zh"].as_str().unwrap_or_default().is_empty(), "{path} {body}");
    }
    for (path, status, words) in [
        ("/api/v1/alarms?min_level=purple", 400, "purple"),
        ("/api/v1/alarms?class=x", 400, "is not one of gas"),
        ("/api/v1/alarms?after=red", 400, "expected `next` of the page before"),
        ("/api/v1/alarms?limit=1001", 400, "expected 1 to 1000"),
        ("/api/v1/dead-letters?limit=0", 400, "expected 1 to 1000"),
        ("/api/v1/alarms?levle=red", 400, "unknown field `levle`"),
        ("/api/v1/points?limit=0", 400, "expected 1 to 1000"),
        ("/api/v1/points?limit=1001", 400, "expected 1 to 1000"),
        ("/api/v1/points?kind=gas.lell", 400, "not a kind"),
        ("/api/v1/points?quality=fine", 400, "not_good"),
        ("/api/v1/points/b3-5-gas/nothing", 404, "no point"),
        ("/api/v1/points/b3-5-gas/lel/history?from=yesterday", 400, "expected a moment"),
        ("/api/v1/points/b3-5-gas/lel/history?from=2000&to=1000", 400, "before"),
        ("/api/v1/events?readings=maybe", 400, "yes or no"),
        ("/api/v1/alarms/01900000-0000-7000-8000-0000000000ff", 404, "no open alarm"),
        ("/api/v1/alarms/01900000-0000-7000-8000-0000000000ff/transitions", 404, "nothing is recorded"),
        ("/api/v1/nothing", 404, "nothing at this address"),
        ("/nothing", 404, "nothing at this address"),
        (&act, 405, "does not take this method"),
    ] {
        let (found, answer) = site.get(path).await;
        let said = answer["error"]["en"].as_str().unwrap_or_default().to_owned();
        assert!(found.as_u16() == status && said.contains(words), "{path}: {found} {said}");
    }
}

#[tokio::test]
async fn only_our_own_page_and_programs_may_ask() {
    let site = site(None, true).await;
    let own = site.0.address.to_string();
    let own_origin = format!("http://{own}");
    let act = format!("/api/v1/alarms/{}/acknowledge", id(1));
    // Method, path, the headers that differ from a good request, the answer.
    type Case<'c> = (&'c str, &'c str, &'c [(&'c str, &'c str)], u16);
    let table: [Case<'_>; 17] = [
        ("POST", &act, &[("origin", &own_origin)], 200),
        ("POST", &act, &[], 200),
        ("POST", &act, &[("host", "anmin.lan"), ("origin", "http://anmin.lan")], 200),
        ("POST", &act, &[("origin", "http://evil.example")], 403),
        ("POST", &act, &[("origin", "null")], 403),
        ("POST", &act, &[("origin", "http://127.0.0.1:1")], 403),
        ("POST", &act, &[("origin", &own_origin), ("sec-fetch-site", "same-site")], 403),
        ("POST", &act, &[("sec-fetch-site", "cross-site")], 403),
        ("POST", &act, &[("content-type", "text/plain")], 415),
        ("POST", &act, &[("content-type", "application/x-www-form-urlencoded")], 415),
        ("POST", &act, &[("content-type", "application/json; charset=utf-8")], 200),
        ("GET", "/api/v1/alarms", &[("host", "evil.example")], 421),
        ("GET", "/api/v1/alarms", &[("host", "evil.example:8420")], 421),
        ("GET", "/", &[("host", "127.0.0.1.evil.example")], 421),
        ("GET", "/", &[("host", "localhost:8420")], 200),
        ("GET", "/", &[("host", "[::1]:8420")], 200),
        ("GET", "/", &[("host", "ANMIN.LAN:8420")], 200),
    ];
    for (method, path, headers, status) in table {
        let mut request = site.request(method.parse().expect("a method"), path, r#"{"who":"li"}"#);
        for (name, value) in headers {
            let name: hyper::header::HeaderName = name.parse().expect("a header");
            request.headers_mut().insert(name, value.parse().expect("plain text"));
        }
        let response = site.send(request).await;
        assert_eq!(response.status().as_u16(), status, "{method} {path} {headers:?}");
        for (name, part) in [
            ("content-security-policy", "default-src 'self'"),
            ("content-security-policy", "frame-ancestors 'none'"),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
        ] {
            let found = response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
            assert!(found.contains(part), "{method} {path} {headers:?}: {name}: {found}");
        }
    }
    let mut two = site.request(Method::GET, "/api/v1/alarms", "");
    two.headers_mut().append(HOST, "evil.example".parse().expect("plain text"));
    assert_eq!(site.send(two).await.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_token_is_asked_of_everything_but_the_bare_page() {
    let token = "correct-horse-battery-staple";
    let site = site(Some(token), true).await;
    let wrong = format!("Bearer {token}x");
    let right = format!("bearer {token}");
    let basic = format!("Basic {token}");
    for (path, offered, status) in [
        ("/", None, 200),
        ("/healthz", None, 200),
        ("/api/v1/alarms", None, 401),
        ("/api/v1/events", None, 401),
        ("/metrics", None, 401),
        ("/api/v1/alarms", Some(wrong.as_str()), 401),
        ("/api/v1/alarms", Some("Bearer "), 401),
        ("/api/v1/alarms", Some(&basic), 401),
        ("/api/v1/alarms", Some(&right), 200),
        ("/metrics", Some(&right), 200),
    ] {
        let mut request = site.request(Method::GET, path, "");
        if let Some(offered) = offered {
            request.headers_mut().insert(AUTHORIZATION, offered.parse().expect("plain text"));
        }
        assert_eq!(site.send(request).await.status().as_u16(), status, "{path} {offered:?}");
    }
}

/// Goal: a link opens its one call, without the token of the API, and nothing runs on its page. Method: the links of one
/// call, sound and unsound, and forms as browsers and other sites send them.
#[tokio::test]
async fn a_crews_page_is_opened_by_its_link_alone_and_runs_no_script() {
    let site = site(Some("correct-horse-battery-staple"), true).await;
    let own = format!("http://{}", site.0.address);
    let key = LinkKey::of(b"crews of the page");
    let at = |hours: i64| Wall::from_millis(jiff::Timestamp::now().as_millisecond() + hours * 3_600_000);
    let link = |alarm, station: &str, expires| {
        let (station, member) = (station.to_owned(), "zhao".to_owned());
        format!("/crew/{}", key.token(&Link { alarm, station, member, expires }))
    };
    let good = link(id(1), "south", at(1));
    let form = ("content-type", "application/x-www-form-urlencoded");
    type Case<'c> = (&'c str, &'c str, &'c str, &'c [(&'c str, &'c str)], u16, &'c str);
    let table: &[Case<'_>] = &[
        ("GET", &good, "", &[], 200, "接警，马上到"),
        ("GET", &link(id(1), "south", at(-1)), "", &[], 410, "has expired"),
        ("GET", &link(id(99), "south", at(1)), "", &[], 410, "This call is over"),
        ("GET", &link(id(1), "nobody", at(1)), "", &[], 410, "This call is over"),
        ("GET", "/crew/x.y", "", &[], 403, "not valid"),
        ("POST", &good, "step=accept", &[form, ("origin", "http://evil.example")], 403, "foreign_origin"),
        ("POST", &good, "step=accept", &[form, ("sec-fetch-site", "cross-site")], 403, "foreign_origin"),
        ("POST", &good, "step=fly", &[form, ("origin", &own)], 400, "no such step"),
        ("POST", &good, "step=decline&reason=", &[form, ("origin", &own)], 400, "why you cannot come"),
        ("POST", &good, "step=accept", &[form, ("origin", &own), ("sec-fetch-site", "same-origin")], 303, ""),
        ("GET", &good, "", &[], 200, "已出动"),
        ("POST", &good, "step=stand-down", &[form], 303, ""),
        ("GET", &good, "", &[], 200, "已撤回"),
    ];
    for (method, path, body, headers, status, words) in table {
        let mut request = site.request(method.parse().expect("a method"), path, body);
        for (name, value) in *headers {
            let name: hyper::header::HeaderName = name.parse().expect("a header");
            request.headers_mut().insert(name, value.parse().expect("plain text"));
        }
        let response = site.send(request).await;
        assert_eq!(response.status().as_u16(), *status, "{method} {path} {body}");
        let header = |name: &str| {
            response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
        };
        if *status == 303 {
            assert_eq!(header("location"), good);
        }
        if *words != "foreign_origin" {
            assert!(header("content-security-policy").starts_with("default-src 'none'; style-src 'self'"), "{path}");
            assert_eq!(header("referrer-policy"), "same-origin", "a form must name its own page");
        }
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        let body = String::from_utf8_lossy(&body);
        assert!(body.contains(words) && !body.contains("<script"), "{method} {path}: {body}");
    }
    let statuses = site.get("/crew.css").await.0;
    assert_eq!(statuses, StatusCode::OK);
    let mut turned_away = 0;
    for _ in 0..50 {
        let response = site.send(site.request(Method::GET, &good, "")).await;
        turned_away += u32::from(response.status() == StatusCode::TOO_MANY_REQUESTS);
    }
    assert!((10..50).contains(&turned_away), "{turned_away} of fifty within a minute");
    let other = site.send(site.request(Method::GET, &link(id(1), "south", at(2)), "")).await;
    assert_eq!(other.status(), StatusCode::OK, "another link is not held up");
}

#[tokio::test]
async fn a_listener_that_comes_back_gets_what_it_missed_once() {
    let site = site(None, true).await;
    let who = json!({"who": "li"});
    let act = |n: u128| format!("/api/v1/alarms/{}/acknowledge", id(n));
    let mut first = site.events("/api/v1/events", None).await;
    let hello = first.next_of(NEWS).await.expect("the stream is open");
    assert_eq!(hello.name, "hello");
    let start = hello.id.expect("hello has an id, so that a resume works before anything has happened");

    site.post(&act(1), &who).await;
    let seen = first.next_of(NEWS).await.expect("the stream is open");
    assert_eq!(
        (seen.name.as_str(), &seen.data["cause"], &seen.data["alarm"]["seq"]),
        ("transition", &json!("acknowledged"), &json!(2))
    );
    drop(first);
    site.post(&act(3), &who).await;
    site.post(&format!("/api/v1/alarms/{}/calls/south/accept", id(1)), &who).await;

    let mut again = site.events("/api/v1/events", seen.id.as_deref()).await;
    for expected in ["hello", "transition", "call"] {
        assert_eq!(again.next_of(NEWS).await.expect("the stream is open").name, expected);
    }
    site.post(&act(6), &who).await;
    let live = again.next_of(NEWS).await.expect("the stream is open");
    assert_eq!(live.data["alarm"]["id"], json!(id(6).to_string()));

    let mut whole = site.events(&format!("/api/v1/events?last_event_id={start}"), None).await;
    let mut names = Vec::new();
    for _ in 0..5 {
        names.push(whole.next_of(NEWS).await.expect("the stream is open").name);
    }
    assert_eq!(names, ["hello", "transition", "transition", "call", "transition"]);
}

#[tokio::test]
async fn a_listener_that_cannot_resume_is_told_to_load_afresh() {
    let site = site(None, true).await;
    for unknown in ["0-1", "nonsense", "ffff-99999999999999999999", "-"] {
        let mut events = site.events("/api/v1/events", Some(unknown)).await;
        let names = [events.next_of(NEWS).await, events.next_of(NEWS).await]
            .map(|event| event.expect("the stream is open").name);
        assert_eq!(names, ["hello", "resync"], "{unknown}");
        assert!(
            events.next_of(NEWS).await.expect("the stream is open").id.is_some(),
            "and from where to resume next time"
        );
    }
}

#[tokio::test]
async fn readings_come_to_those_who_ask_for_them_and_status_to_all() {
    let site = site(None, true).await;
    assert!(!site.0.feed.readings_wanted());
    let mut plain = site.events("/api/v1/events", None).await;
    plain.next_of(NEWS).await.expect("the stream is open");
    assert!(!site.0.feed.readings_wanted());
    let mut wants = site.events("/api/v1/events?readings=yes", None).await;
    assert!(site.0.feed.readings_wanted());
    let changed = wants.next_of(&["readings"]).await.expect("the stream is open");
    let row = &changed.data["points"][0];
    assert!(row["id"].is_string() && row["sample"]["quality"] == json!("good"), "{row}");
    let beat = plain.next_of(&["status", "readings"]).await.expect("the stream is open");
    assert_eq!((beat.name.as_str(), &beat.data["rules"]), ("status", &json!(17)));
}

/// A command with a key of its own; status, whether it is said to be the answer of before, body.
async fn keyed(site: &Running, key: &str, path: &str, body: &Value) -> (StatusCode, bool, Value) {
    let mut request = site.request(Method::POST, path, &body.to_string());
    request.headers_mut().insert("idempotency-key", key.parse().expect("plain text"));
    let response = site.send(request).await;
    let repeated = response.headers().contains_key("idempotent-replayed");
    let (status, body) = read(response).await;
    (status, repeated, body)
}

/// A command about what stood at `seen`.
async fn matched(site: &Running, seen: &str, path: &str, body: &Value) -> (StatusCode, Value) {
    let mut request = site.request(Method::POST, path, &body.to_string());
    request.headers_mut().insert("if-match", seen.parse().expect("plain text"));
    read(site.send(request).await).await
}

#[tokio::test]
async fn what_somebody_else_has_changed_since_is_not_changed_unseen() {
    let site = site(None, true).await;
    let path = format!("/api/v1/alarms/{}/shelve", id(2));
    let seen = site.get(&format!("/api/v1/alarms/{}", id(2))).await.1["alarm"]["seq"].clone();
    let shelf = |who: &str, minutes: u32| json!({"who": who, "minutes": minutes, "why": "works"});
    let (status, first) = matched(&site, &format!("\"{seen}\""), &path, &shelf("li", 10)).await;
    assert_eq!((status, &first["alarm"]["shelved"]["by"]), (StatusCode::OK, &json!("li")), "{first}");
    let (status, second) = matched(&site, &format!("\"{seen}\""), &path, &shelf("wang", 60)).await;
    assert_eq!((status, &second["code"]), (StatusCode::PRECONDITION_FAILED, &json!("changed_meanwhile")), "{second}");
    let (_, stands) = site.get(&format!("/api/v1/alarms/{}", id(2))).await;
    assert_eq!(stands["alarm"]["shelved"]["by"], json!("li"), "the first one's word stands");
    let now = format!("\"{}\"", stands["alarm"]["seq"]);
    assert_eq!(matched(&site, &now, &path, &shelf("wang", 60)).await.0, StatusCode::OK, "who has looked again may");
    assert_eq!(site.post(&path, &shelf("li", 20)).await.0, StatusCode::OK, "programs of before go on");
    // A condition that nobody would look at is not passed over in silence.
    for (seen, path) in [("7", path.as_str()), ("\"1\"", "/api/v1/rules/reload"), ("\"1\"", "/api/v1/drills")] {
        let (status, refused) = matched(&site, seen, path, &json!({"who": "li"})).await;
        assert_eq!((status, &refused["code"]), (StatusCode::BAD_REQUEST, &json!("bad_request")), "{path}: {refused}");
    }
}

#[tokio::test]
async fn a_list_that_grows_while_its_pages_are_turned_has_everything_that_was_there_once() {
    let site = site(None, true).await;
    let numbers = |rows: &Value| -> Vec<i64> {
        rows.as_array().into_iter().flatten().filter_map(|row| row["n"].as_i64()).collect()
    };
    let all = numbers(&site.get("/api/v1/journal?limit=1000").await.1);
    assert!(all.len() > 6, "{all:?}");
    let (mut path, mut found) = ("/api/v1/journal?limit=3".to_owned(), Vec::new());
    loop {
        let response = site.send(site.request(Method::GET, &path, "")).await;
        let link = response.headers().get("link").map(|link| link.to_str().expect("plain text").to_owned());
        let (_, rows) = read(response).await;
        assert!(rows.as_array().is_some_and(|rows| rows.len() <= 3), "{rows}");
        found.extend(numbers(&rows));
        let note = json!({"who": "li", "text": "meanwhile"});
        assert_eq!(site.post(&format!("/api/v1/incidents/{}/note", id(1)), &note).await.0, StatusCode::OK);
        let Some(link) = link else { break };
        let query = link.strip_prefix('<').and_then(|link| link.split_once(">; rel=\"next\"")).expect("a link").0;
        path = format!("/api/v1/journal{query}");
    }
    assert_eq!(found, all, "what came meanwhile is on none of these pages, and nothing is missing or twice");
    // The one way for all of them, with what they were called before.
    for (list, path) in [("points", "points"), ("devices", "devices"), ("alarms", "alarms"), ("incidents", "incidents")]
    {
        let (_, whole) = site.get(&format!("/api/v1/{path}?limit=1000")).await;
        let (mut after, mut found) = (String::new(), Vec::new());
        loop {
            let (_, page) = site.get(&format!("/api/v1/{path}?limit=5{after}")).await;
            found.extend(page[list].as_array().expect("rows").iter().map(|row| row["id"].clone()));
            match &page["next"] {
                Value::Null => break,
                Value::String(next) => after = format!("&after={next}"),
                next => after = format!("&after={next}"),
            }
        }
        let all: Vec<Value> = whole[list].as_array().expect("rows").iter().map(|row| row["id"].clone()).collect();
        assert_eq!(found, all, "{path}");
    }
    for odd in ["points?after=x", "points?after=5&from=5", "journal?after=x", "incidents?after=x", "drills?after=x"] {
        assert_eq!(site.get(&format!("/api/v1/{odd}")).await.0, StatusCode::BAD_REQUEST, "{odd}");
    }
    let (status, letters) = site.get("/api/v1/dead-letters?after=").await;
    assert_eq!((status, letters.as_array().map(Vec::len)), (StatusCode::OK, Some(1)));
    let order = letters[0]["order"].as_str().expect("an order").replace('/', "%2F");
    let (status, letters) = site.get(&format!("/api/v1/dead-letters?after={order}")).await;
    assert_eq!((status, letters), (StatusCode::OK, json!([])));
    assert_eq!(site.get("/api/v1/dead-letters?after=x").await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn what_is_still_as_it_was_is_said_in_a_word() {
    let site = site(None, true).await;
    for path in ["rules", "points/choices", "devices", "drawings"] {
        let path = format!("/api/v1/{path}");
        let first = site.send(site.request(Method::GET, &path, "")).await;
        let tag = first.headers()["etag"].clone();
        let mut request = site.request(Method::GET, &path, "");
        request.headers_mut().insert("if-none-match", tag.clone());
        let again = site.send(request).await;
        assert_eq!((again.status(), &again.headers()["etag"]), (StatusCode::NOT_MODIFIED, &tag), "{path}");
        let mut request = site.request(Method::GET, &path, "");
        request.headers_mut().insert("if-none-match", "\"other\"".parse().expect("plain text"));
        assert_eq!(site.send(request).await.status(), StatusCode::OK, "{path}");
    }
    // The moment of asking alone makes no other answer.
    let path = "/api/v1/points?device=b3-5-gas";
    let tag = site.send(site.request(Method::GET, path, "")).await.headers()["etag"].clone();
    let mut request = site.request(Method::GET, path, "");
    request.headers_mut().insert("if-none-match", tag);
    let again = site.send(request).await.status();
    // The made-up point is read once a second.
    assert!(matches!(again, StatusCode::NOT_MODIFIED | StatusCode::OK), "{again}");
}

#[tokio::test]
async fn a_command_that_comes_twice_under_one_key_is_done_once() {
    let site = site(None, true).await;
    let path = format!("/api/v1/incidents/{}/note", id(1));
    let note = json!({"who": "li", "text": "valve is shut"});
    let notes = |body: &Value| body["incident"]["notes"].as_array().map_or(0, Vec::len);
    let (status, repeated, first) = keyed(&site, "k-1", &path, &note).await;
    assert_eq!((status, repeated, notes(&first)), (StatusCode::OK, false, 1), "{first}");
    let (status, repeated, again) = keyed(&site, "k-1", &path, &note).await;
    assert_eq!((status, repeated, &again), (StatusCode::OK, true, &first), "the answer of before");
    let (status, repeated, other) = keyed(&site, "k-2", &path, &note).await;
    assert_eq!((status, repeated, notes(&other)), (StatusCode::OK, false, 2), "another key is another command");
    let (status, _, reused) = keyed(&site, "k-1", &path, &json!({"who": "li", "text": "no"})).await;
    assert_eq!((status, &reused["code"]), (StatusCode::UNPROCESSABLE_ENTITY, &json!("key_reused")));
    let elsewhere = format!("/api/v1/incidents/{}/acknowledge", id(1));
    let (status, repeated, _) = keyed(&site, "k-1", &elsewhere, &json!({"who": "li"})).await;
    assert_eq!((status, repeated), (StatusCode::OK, false), "a key is of one route");
    for key in ["", "two words", &"k".repeat(65)] {
        let (status, _, body) = keyed(&site, key, &path, &note).await;
        assert_eq!((status, &body["code"]), (StatusCode::BAD_REQUEST, &json!("bad_request")), "{key:?}");
    }
    // A refusal is an answer, too.
    let gone = "/api/v1/alarms/01900000-0000-7000-8000-00000000ffff/acknowledge";
    let (status, ..) = keyed(&site, "k-3", gone, &json!({"who": "li"})).await;
    let (again, repeated, _) = keyed(&site, "k-3", gone, &json!({"who": "li"})).await;
    assert_eq!((status, again, repeated), (StatusCode::NOT_FOUND, StatusCode::NOT_FOUND, true));
}

#[tokio::test]
async fn after_a_failure_of_ours_the_key_stands_for_nothing() {
    let site = site(None, false).await;
    for _ in 0..2 {
        let path = format!("/api/v1/alarms/{}/acknowledge", id(1));
        let (status, repeated, _) = keyed(&site, "k", &path, &json!({"who": "li"})).await;
        assert_eq!((status, repeated), (StatusCode::SERVICE_UNAVAILABLE, false));
    }
}

#[tokio::test]
async fn a_limit_is_set_as_it_was_tried_or_not_at_all() {
    let site = site(None, true).await;
    let change = json!({"rule": "gas/leak", "of": {"device": "b3-*"}, "numbers": {"limit.yellow": 12}});
    let (status, trial) = site.post("/api/v1/rules/try", &json!({"change": change, "days": 3})).await;
    assert_eq!((status, &trial["lost"], &trial["changed"][0]["change"]), (StatusCode::OK, &json!(1), &json!("lost")));
    let set = |version: &Value| json!({"who": "li", "why": "too many", "change": change, "version": version});
    let (status, refused) = site.post("/api/v1/rules/set", &set(&json!("other"))).await;
    assert_eq!((status, &refused["code"]), (StatusCode::CONFLICT, &json!("changed_meanwhile")));
    let (status, done) = site.post("/api/v1/rules/set", &set(&trial["version"])).await;
    assert_eq!((status, &done["numbers"][0]["name"]), (StatusCode::OK, &json!("limit.yellow")));
    let (_, kept) = site.get("/api/v1/rules/tuned").await;
    assert_eq!(kept["overrides"].as_array().map(Vec::len), Some(1), "{kept}");
    // The rules that are read the second time are broken.
    let (status, refused) = site.post("/api/v1/rules/set", &set(&kept["version"])).await;
    assert_eq!((status, &refused["code"]), (StatusCode::CONFLICT, &json!("rules_refused")));
    assert_eq!(site.get("/api/v1/rules/tuned").await.1, kept, "what was there is there again");
    let deeds = site.0.deeds.lock().expect("nobody panics with it").clone();
    let told: Vec<_> = deeds.iter().map(|deed| (&*deed.what, &*deed.about, deed.refused.is_none())).collect();
    let [no, yes] = [("rules.set", "gas/leak", false), ("rules.set", "gas/leak", true)];
    assert_eq!(told, [no, yes, no]);
    assert_eq!(deeds[1].detail["why"], json!("too many"));
    for (body, expected) in [
        (json!({"change": {"rule": "gas/leak", "numbers": {}}}), "`numbers` names 0"),
        (json!({"change": {"rule": "gas/leak", "of": {"room": "3"}, "numbers": {"deadband": 1}}}), "`of` has \"room\""),
        (json!({"change": {"rule": "gas/leak", "numbers": {"deadband": 1}}, "days": 31}), "`days` is 31"),
    ] {
        let (status, refused) = site.post("/api/v1/rules/try", &body).await;
        let said = refused["detail"].as_str().unwrap_or_default();
        assert!(status == StatusCode::BAD_REQUEST && said.contains(expected), "{refused}");
    }
}

#[tokio::test]
async fn a_device_is_taken_in_once_and_a_list_that_is_refused_is_as_it_was() {
    let site = site(None, true).await;
    let device = "0x00158d0009c1a2f3";
    let (_, guesses) = site.get(&format!("/api/v1/quarantine/guess?device={device}")).await;
    assert_eq!(guesses["profiles"][0]["profile"], json!("zigbee2mqtt-smoke"), "{guesses}");
    let adopt = json!({"who": "li", "device": device, "profile": "zigbee2mqtt-smoke", "room": "501"});
    let (status, repeated, first) = keyed(&site, "k-1", "/api/v1/quarantine/adopt", &adopt).await;
    assert_eq!((status, repeated, &first["applied"]), (StatusCode::OK, false, &json!(true)), "{first}");
    let (status, repeated, again) = keyed(&site, "k-1", "/api/v1/quarantine/adopt", &adopt).await;
    assert_eq!((status, repeated, &again), (StatusCode::OK, true, &first), "the answer of before");
    let (status, twice) = site.post("/api/v1/quarantine/adopt", &adopt).await;
    assert_eq!((status, &twice["code"]), (StatusCode::CONFLICT, &json!("devices_refused")), "{twice}");
    let (_, kept) = site.get("/api/v1/device-list").await;
    assert_eq!((kept["rows"].as_array().map(Vec::len), &kept["rows"][0]["room"]), (Some(1), &json!("501")), "{kept}");
    // The site that is read the second time is broken.
    let sheet = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let body = json!({"who": "li", "sheet": sheet("id,profile\ng9,anmin-json-gas\n"), "version": kept["version"]});
    let (status, refused) = site.post("/api/v1/device-list/import", &body).await;
    assert_eq!((status, &refused["code"]), (StatusCode::CONFLICT, &json!("rules_refused")), "{refused}");
    assert_eq!(site.get("/api/v1/device-list").await.1, kept, "what was there is there again");
    let deeds = site.0.deeds.lock().expect("nobody panics with it").clone();
    let told: Vec<_> = deeds.iter().map(|deed| (&*deed.what, &*deed.about, deed.refused.is_none())).collect();
    let adopted = |done| ("devices.adopt", device, done);
    assert_eq!(told, [adopted(true), adopted(false), ("devices.import", "", false)]);
    for (path, body, expected) in [
        ("quarantine/adopt", json!({"who": "li", "device": "a/b", "profile": "x"}), "a device id cannot hold '/'"),
        ("device-list/import", json!({"who": "li", "sheet": "?"}), "`sheet`: "),
        ("device-list/import", json!({"who": "li", "sheet": sheet("id,profile\n"), "replace": true}), "has no rows"),
        ("device-list/remove", json!({"who": "li", "device": "g9", "why": " "}), "`why` is empty"),
        ("device-list/remove", json!({"device": "g9", "why": "x"}), "missing field `who`"),
    ] {
        let (status, refused) = site.post(&format!("/api/v1/{path}"), &body).await;
        let said = refused["detail"].as_str().unwrap_or_default();
        assert!(status == StatusCode::BAD_REQUEST && said.contains(expected), "{refused}");
    }
}

#[tokio::test]
async fn the_audit_goes_into_a_table_and_that_is_in_the_audit() {
    let site = site(None, true).await;
    let response = site.send(site.request(Method::GET, "/api/v1/audit/table", "")).await;
    assert_eq!(response.headers()[CONTENT_TYPE], "text/csv; charset=utf-8");
    let bytes = response.into_body().collect().await.expect("a whole body").to_bytes();
    let text = String::from_utf8(bytes.to_vec()).expect("UTF-8");
    assert!(text.starts_with("\u{feff}n,at,who,") && text.lines().count() > 3, "{text}");
    let deeds = site.0.deeds.lock().expect("nobody panics with it").clone();
    assert_eq!(deeds.iter().map(|deed| &*deed.what).collect::<Vec<_>>(), ["audit.export"]);
    assert_eq!(site.get("/api/v1/audit/chain").await.1["whole"], json!(true));
}

#[tokio::test]
async fn there_is_a_last_place_for_listeners() {
    let site = site(None, true).await;
    let mut open = Vec::new();
    for _ in 0..200 {
        open.push(site.events("/api/v1/events", None).await);
    }
    let (status, body) = site.get("/api/v1/events").await;
    assert_eq!((status, &body["code"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("too_many_listeners")));
}

/// A peer that begins so and then sends a byte a second; how long it was heard, and what it was told.
async fn drip(address: std::net::SocketAddr, beginning: String) -> (Duration, String) {
    let began = Instant::now();
    let mut stream = TcpStream::connect(address).await.expect("the server listens");
    stream.write_all(beginning.as_bytes()).await.expect("the server reads");
    let (mut reader, mut writer) = stream.into_split();
    let dripping = async {
        while writer.write_all(b"x").await.is_ok() {
            sleep(Duration::from_secs(1)).await;
        }
        std::future::pending::<()>().await;
    };
    let mut told = Vec::new();
    tokio::select! {
        _ = reader.read_to_end(&mut told) => {}
        () = dripping => {}
    }
    (began.elapsed(), String::from_utf8_lossy(&told).into_owned())
}

/// Goal: whoever speaks byte by byte is let go, and holds up nobody meanwhile. Method: a hundred heads and a hundred bodies that
/// never end, by the clock of this machine, since the limits are those of real sockets; others ask every second. A machine that is
/// busy may take twice the time.
#[tokio::test]
async fn whoever_speaks_byte_by_byte_is_let_go_in_time_and_holds_up_nobody() {
    let site = site(None, true).await;
    let address = site.0.address;
    let head = format!("GET /api/v1/alarms HTTP/1.1\r\nHost: {address}\r\nX-Slow: ");
    let body = format!(
        "POST /api/v1/alarms/{}/acknowledge HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n\
         Content-Length: 1000\r\n\r\n{{",
        id(1)
    );
    let slow: Vec<_> = (0..100)
        .flat_map(|_| [head.clone(), body.clone()])
        .map(|beginning| tokio::spawn(drip(address, beginning)))
        .collect();
    let began = Instant::now();
    while !slow.iter().all(tokio::task::JoinHandle::is_finished) {
        assert!(began.elapsed().as_secs() < 60, "somebody is still heard");
        assert_eq!(site.get("/api/v1/status").await.0, StatusCode::OK);
        sleep(Duration::from_secs(1)).await;
    }
    for (n, slow) in slow.into_iter().enumerate() {
        let (heard, told) = slow.await.expect("it does not panic");
        let (what, most) = if n % 2 == 0 { ("head", 20) } else { ("body", 60) };
        assert!(heard.as_secs() <= most, "a {what} was heard for {heard:?}: {told}");
        assert!(n % 2 == 0 || told.is_empty() || told.starts_with("HTTP/1.1 408"), "{told}");
    }
}

#[tokio::test]
async fn without_a_main_loop_anmin_lives_but_is_not_ready() {
    let site = site(None, false).await;
    assert_eq!(site.get("/healthz").await.0, StatusCode::OK);
    let (status, body) = site.get("/readyz").await;
    assert_eq!((status, &body["code"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("busy")));
}

#[test]
fn settings_say_what_is_wrong() {
    let dir = std::env::temp_dir().join(format!("anmin-web-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a directory for two small files");
    std::fs::write(dir.join("token"), "0123456789abcdef\n").expect("room for a line");
    std::fs::write(dir.join("short"), "secret\n").expect("room for a line");
    for (text, expected) in [
        ("", ""),
        ("listen = '127.0.0.1:0'\nhosts = ['anmin.lan']", ""),
        ("listen = '0.0.0.0:8420'\ntoken_file = 'token'", ""),
        ("listen = '0.0.0.0:8420'", ""),
        ("lock_after = '5m'\nsession_lasts = '8h'", ""),
        ("lock_after = '5s'", "`web.lock_after` is 5s, expected 60s to 86400s"),
        ("session_lasts = '31d'", "`web.session_lasts`"),
        ("listen = 'localhost'", "expected an address and a port"),
        ("token_file = 'short'", "the token has 6 characters"),
        ("token_file = 'missing'", "No such file"),
        ("hosts = ['http://anmin.lan']", "expected a plain name"),
        ("tokenfile = 'token'", "did you mean `token_file`"),
    ] {
        let faults = Faults::default();
        let doc = Document::parse("site.toml", text, &faults).expect("TOML");
        let settings = Settings::read(&doc.root(&faults), &dir);
        let said: String = faults.take().iter().map(ToString::to_string).collect();
        assert!(said.contains(expected) && said.is_empty() == expected.is_empty(), "{text}: {said}");
        assert_eq!(settings.is_some(), expected.is_empty(), "{text}");
        assert!(!format!("{settings:?}").contains("0123456789abcdef"), "a token must not be shown");
    }
    std::fs::remove_dir_all(&dir).expect("our own directory");
}
