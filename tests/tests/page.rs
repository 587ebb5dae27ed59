//! The duty desk's page in Debian's Chromium, with the real binary behind it. The stories are told in
//! `gateway/web/e2e/`; here is what happens behind the scenes, when a story asks for it.

use std::io::{BufRead as _, BufReader, ErrorKind, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anmin_tests::bench::load::{topic, wall_ms};
use anmin_tests::bench::subject::{self, Shape};
use anmin_tests::daemon::{DEADLINE, Daemon, binary, pause};
use anmin_tests::http;
use anmin_tests::mqtt::Mqtt;
use anmin_tests::peers::{Hook, Peer, Provider, VictoriaMetrics, free_port};
use anmin_tests::people::Person;
use anmin_tests::site::{GAS_AS_IT_SPEAKS, Site};
use serde_json::json;

/// Beside the gas detectors a topic on which nobody is known.
const MORE: &str = r#"
  [[broker.mapping]]
  topic = "unknown/{device}/up"
  payload = "json"
  device = "{device}"
  unknown = "quarantine"

[[override]]
rule = "gas/leak"
on_delay = "0s"
off_delay = "0s"

# One alarm a detector: the stories count them.
[[override]]
rule = "gas/several_rooms"
enabled = false

[[override]]
rule = "gas/rising"
enabled = false
"#;

/// Kitchens and bathrooms with a gas detector, whoever speaks first.
fn gas() -> String {
    format!("{GAS_AS_IT_SPEAKS}{MORE}")
}

const LISTEN: &str = "listen = \"127.0.0.1:0\"";

struct Stage {
    site: Site,
    daemon: Option<Daemon>,
    /// That readings go to; away until a story asks for it.
    database: Option<VictoriaMetrics>,
    /// That orders go to, where the site has one.
    receiver: Option<Hook>,
    /// Who starts a drill behind the scenes, where one must sign in for it.
    officer: Option<Person>,
    /// `anmin sim`, until real gas is wanted.
    simulator: Option<Peer>,
    web: SocketAddr,
}

impl Stage {
    fn new(name: &str) -> Self {
        Self::on(Site::new(name, &gas()))
    }

    fn on(site: Site) -> Self {
        let daemon = Daemon::start(site.folder());
        let web = daemon.web;
        Self { site, daemon: Some(daemon), database: None, receiver: None, officer: None, simulator: None, web }
    }

    fn devices(&self) -> Mqtt {
        let broker = self.daemon.as_ref().and_then(|daemon| daemon.broker).expect("the daemon runs its broker");
        Mqtt::connect(broker.port(), "devices")
    }

    /// `gas ROOM VALUE`, `sim SCENARIO`, `stranger NAME VALUE`, `storm ALARMS`, `warn KIND`, `freeze`, `thaw`, `stop`, `start`, `database`, `refuse`, `take`, `taken`,
    /// `hostile`, `drill`, `actual MESSAGES`, `exercise MESSAGES`.
    fn act(&mut self, line: &str) {
        match line.split(' ').collect::<Vec<_>>().as_slice() {
            ["gas", room, value] => {
                self.simulator = None;
                let value: f64 = value.parse().expect("a number");
                let mut devices = self.devices();
                for _ in 0..2 {
                    devices.publish(&format!("acceptance/{room}/up"), json!({ "v": value }).to_string());
                }
                devices.publish("unknown/stranger/up", json!({ "v": value }).to_string());
            }
            ["sim", scenario] => {
                let broker = self.daemon.as_ref().and_then(|daemon| daemon.broker).expect("the daemon runs its broker");
                let (folder, broker) = (self.site.folder().display().to_string(), broker.to_string());
                let line = ["sim", scenario, "--site", &folder, "--broker", &broker, "--interval-ms", "500"];
                self.simulator = Some(Peer::start(&binary().display().to_string(), &line));
            }
            ["stranger", name, value] => {
                let value: f64 = value.parse().expect("a number");
                self.devices().publish(&format!("unknown/{name}/up"), json!({ "v": value }).to_string());
            }
            ["storm", alarms] => {
                let alarms: usize = alarms.parse().expect("a number");
                self.devices().publish_all((0..alarms).map(|n| {
                    let value = [12.0, 30.0, 60.0][n % 3];
                    (format!("acceptance/flat-{n}/up"), json!({ "v": value }).to_string().into_bytes())
                }));
            }
            ["database"] => self.database.as_mut().expect("the site has a database").run(),
            ["refuse"] => self.receiver().refuse(true),
            ["take"] => self.receiver().refuse(false),
            ["taken"] => drop(self.receiver().next("what was sent again", |_| true)),
            ["warn", kind] => self.warn(kind),
            ["hostile"] => self.say_what_is_hostile(),
            ["drill"] => {
                let drill = json!({ "who": "li", "building": "2", "scenario": "kitchen-gas", "minutes": 30, "announced": true });
                self.officer.as_ref().expect("the site has people").post("/api/v1/drills", &drill);
            }
            ["actual", wanted] => self.left("Actual", wanted),
            ["exercise", wanted] => self.left("Exercise", wanted),
            ["freeze"] => self.signal("STOP"),
            ["thaw"] => self.signal("CONT"),
            ["stop"] => drop(self.daemon.take()),
            ["start"] => {
                // Where it was before: screens come back to the address that they know.
                let path = self.site.path("anmin.toml");
                let text = std::fs::read_to_string(path).expect("the site has a configuration");
                self.site.write("anmin.toml", &text.replacen(LISTEN, &format!("listen = \"{}\"", self.web), 1));
                self.daemon = Some(Daemon::start(self.site.folder()));
            }
            _ => panic!("nobody knows what {line:?} means"),
        }
    }

    /// Devices and an office whose topics, values and words are hostile.
    fn say_what_is_hostile(&self) {
        let words = json!(HOSTILE).to_string();
        let mut devices = self.devices();
        devices.publish(&format!("unknown/{HOSTILE}/up"), json!({ "v": 1 }).to_string());
        devices.publish("unknown/stranger/up", json!({ "v": 1, HOSTILE: HOSTILE }).to_string());
        devices.publish("acceptance/flat-1/up", format!("{HOSTILE}{words}"));
        self.post_warning(&format!(
            "<alert xmlns=\"urn:oasis:names:tc:emergency:cap:1.2\"><identifier>W1</identifier><sender>qx@warn.example.cn</sender>\
             <sent>{}</sent><status>Actual</status><msgType>Alert</msgType><scope>Public</scope><info><language>zh-CN</language>\
             <category>Met</category><event>{HOSTILE_XML}</event><urgency>Expected</urgency><severity>Severe</severity>\
             <certainty>Likely</certainty><expires>{}</expires><headline>{HOSTILE_XML}</headline>\
             <instruction>{HOSTILE_XML}</instruction><area><areaDesc>{HOSTILE_XML}</areaDesc></area></info></alert>",
            stamp("-1 hour"),
            stamp("6 hours"),
        ));
    }

    /// The county's office warns of rain, or takes it back.
    fn warn(&self, kind: &str) {
        let (id, references) = match kind {
            "Cancel" => ("W2", format!("<references>qx@warn.example.cn,W1,{}</references>", stamp("-1 hour"))),
            _ => ("W1", String::new()),
        };
        let info = |language: &str, event: &str, headline: &str, instruction: &str| {
            format!(
                "<info><language>{language}</language><category>Met</category><event>{event}</event>\
                 <urgency>Expected</urgency><severity>Severe</severity><certainty>Likely</certainty><expires>{}</expires>\
                 <headline>{headline}</headline><instruction>{instruction}</instruction>\
                 <area><areaDesc>示例县 Example County</areaDesc></area></info>",
                stamp("6 hours")
            )
        };
        let message = format!(
            "<alert xmlns=\"urn:oasis:names:tc:emergency:cap:1.2\"><identifier>{id}</identifier>\
             <sender>qx@warn.example.cn</sender><sent>{}</sent><status>Actual</status><msgType>{kind}</msgType>\
             <scope>Public</scope>{references}{}{}</alert>",
            stamp("-1 hour"),
            info("zh-CN", "暴雨橙色预警", "示例县气象台发布暴雨橙色预警", "检查地下车库挡水板，转移低洼处人员。"),
            info(
                "en-US",
                "Rainstorm",
                "Orange rainstorm warning for Example County",
                "Check the flood boards of the garage."
            ),
        );
        self.post_warning(&message);
    }

    fn post_warning(&self, message: &str) {
        let path = "/api/v1/warnings/county HTTP/1.0\r\nAuthorization: Bearer posts-of-the-county\r\nX-Rest: ";
        let answer = http::request(self.web, "POST", path, message).expect("the desk answers");
        assert_eq!((answer.status, &answer.json()["taken"]), (200, &json!("new")), "{}", answer.body);
    }

    /// Waits until so many messages of this status have left; there are never more.
    fn left(&self, status: &str, wanted: &str) {
        let wanted: usize = wanted.parse().expect("a number");
        let until = Instant::now() + DEADLINE;
        loop {
            let files = std::fs::read_dir(self.site.path("cap")).into_iter().flatten().flatten();
            let texts = files
                .filter(|file| file.path().extension().is_some_and(|end| end == "xml"))
                .map(|file| std::fs::read_to_string(file.path()).expect("it is text"));
            let found = texts.filter(|text| text.contains(&format!("<status>{status}</status>"))).count();
            assert!(found <= wanted && Instant::now() < until, "{found} of {wanted} messages are {status}");
            if found == wanted {
                return;
            }
            pause();
        }
    }

    fn receiver(&self) -> &Hook {
        self.receiver.as_ref().expect("the site has a receiver")
    }

    fn signal(&self, name: &str) {
        let pid = self.daemon.as_ref().expect("the daemon runs").pid().to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &pid]).status();
        assert!(sent.is_ok_and(|status| status.success()), "kill -{name} {pid}");
    }

    /// Has the story told, and does what it asks for until it ends.
    fn tell(&mut self, story: &str, token: &str) {
        let requests = TcpListener::bind("127.0.0.1:0").expect("a free port");
        requests.set_nonblocking(true).expect("a listener can be told not to block");
        let stage = requests.local_addr().expect("it is bound");
        let web = Path::new(env!("CARGO_MANIFEST_DIR")).join("../gateway/web");
        let vitest = web.join("node_modules/vitest/vitest.mjs");
        assert!(vitest.exists(), "the page's tools are not there: run `make web`");
        let page = http::get(self.web, "/").body;
        assert!(page.contains("/assets/"), "the binary carries no page: run `make web`, then build it again");
        let child = Command::new("node")
            .arg(vitest)
            .args(["run", "--config", "e2e/vitest.config.ts", story])
            .current_dir(&web)
            .env("ANMIN_URL", format!("http://{}", self.web))
            .env("ANMIN_STAGE", stage.to_string())
            .env("ANMIN_TOKEN", token)
            .stdin(Stdio::null())
            .spawn()
            .expect("node can be started");
        let mut child = Killed(child);
        loop {
            if let Some(status) = child.0.try_wait().expect("the child is ours") {
                assert!(status.success(), "the story {story:?} did not end well");
                return;
            }
            match requests.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false).expect("a stream can be told to block");
                    let mut line = String::new();
                    BufReader::new(&stream).read_line(&mut line).expect("a story asks in lines");
                    self.act(line.trim());
                    (&stream).write_all(b"done\n").expect("the story waits for it");
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => pause(),
                Err(error) => panic!("the stage's door: {error}"),
            }
        }
    }
}

/// A moment of the county, to the hour.
fn stamp(when: &str) -> String {
    let said = Command::new("date").env("TZ", "Asia/Shanghai").args(["-d", when, "+%Y-%m-%dT%H:00:00%:z"]).output();
    String::from_utf8(said.expect("every machine has a date").stdout).expect("plain text").trim().to_owned()
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn an_officer_gets_through_a_gas_leak() {
    Stage::new("officer").tell("officer", "");
}

/// A third station, with a crew of two and equipment that nobody has looked at; it is called first.
#[test]
fn at_the_change_of_shift_a_station_is_checked_handed_over_and_taken_off_duty() {
    Stage::on(with_a_west_station("stations", "\"st-3\", \"st-1\"")).tell("stations", "");
}

/// The third station cannot respond, and none is called but the first before its time is over.
#[test]
fn an_officer_calls_another_station_and_escalates_by_hand() {
    Stage::on(with_a_west_station("hand", "\"st-1\", \"st-3\"")).tell("hand", "");
}

/// `first` are called before the second.
fn with_a_west_station(name: &str, first: &str) -> Site {
    let crewed = r#"
[[station]]
id = "st-3"
name = { zh = "西区站", en = "West station" }
  [[station.crew]]
  id = "wang"
  name = "王强"
  role = "head"
  [[station.crew]]
  id = "li"
  name = "李勇"
  [[station.equipment]]
  id = "hose"
  name = { zh = "水带", en = "hose" }
"#;
    let site = Site::new(name, &format!("{}{crewed}", gas()));
    let text = std::fs::read_to_string(site.path("anmin.toml")).expect("the site has a configuration");
    site.write("anmin.toml", &text.replacen("stations = [\"st-1\"", &format!("stations = [{first}"), 1));
    site
}

/// Flats, each with a detector and in a building of its own.
fn flats(wanted: usize) -> String {
    (1..=wanted)
        .map(|n| {
            let place = if n == 1 { String::new() } else { format!("[[place]]\nid = \"b{n}\"\nbuilding = \"{n}\"\n") };
            format!(
                "{place}[[device]]\nid = \"flat-{n}\"\nprofile = \"anmin-json-gas\"\nplace = \"b{n}\"\nroom = \"101\"\n"
            )
        })
        .collect()
}

/// The head's site is an exercise as a whole: this one is real.
fn real(name: &str, more: &str) -> Site {
    let site = Site::new(name, &format!("{}{more}", gas()));
    let text = std::fs::read_to_string(site.path("anmin.toml")).expect("the site has a configuration");
    site.write("anmin.toml", &text.replacen("exercise = true\n", "", 1));
    site
}

#[test]
fn an_alarm_arrives_on_three_screens_in_one_order() {
    Stage::on(Site::new("screens", &format!("{}{}", gas(), flats(6)))).tell("screens", "");
}

#[test]
fn a_drill_is_started_seen_as_one_and_ended_on_the_page() {
    Stage::on(real("drill", &flats(2))).tell("drill", "");
}

/// One flat, and a device that nobody but `anmin sim` speaks for.
#[test]
fn what_the_simulator_plays_is_seen_answered_and_closed() {
    let flat =
        "[[device]]\nid = \"flat-501\"\nprofile = \"anmin-json-gas\"\nplace = \"b1\"\nfloor = \"5\"\nroom = \"501\"\n";
    Stage::on(Site::new("simulator", &format!("{}{flat}", gas()))).tell("simulator", "");
}

/// Three people, and a target that takes what is real.
#[test]
fn a_broadcast_leaves_by_two_people_at_two_screens_and_a_drill_is_seen_to_be_none() {
    let target = "[[cap]]\nid = \"town\"\nfolder = \"cap\"\nsender = \"anmin.test.example\"\nstatus = \"actual\"\n\
        [broadcast]\napprove_within = \"10m\"\n";
    let mut stage = Stage::on(real("broadcast", &format!("{}{target}", flats(2))));
    let chen = Person::set_up(stage.web, &stage.site, "chen", "陈主管");
    for (account, shown) in [("li", "李值班"), ("wang", "王值班")] {
        chen.add(account, shown, "officer", &[]);
    }
    stage.officer = Some(chen);
    stage.tell("broadcast", Person::PASSWORD);
}

/// Flats of one floor, each with its detector.
#[test]
fn alarms_of_one_floor_are_one_incident_from_the_first_smell_to_its_end() {
    let flats: String = ["501", "502"]
        .map(|room| {
            format!(
                "[[device]]\nid = \"flat-{room}\"\nprofile = \"anmin-json-gas\"\nplace = \"b1\"\nfloor = \"5\"\nroom = \"{room}\"\n"
            )
        })
        .concat();
    let site = Site::new("incident", &format!("{}{flats}", gas()));
    Stage::on(site).tell("incident", "");
}

#[test]
fn a_case_is_opened_by_hand_moved_on_closed_and_found_again() {
    Stage::new("cases").tell("cases", "");
}

#[test]
fn a_quiet_night_and_a_dead_daemon_do_not_look_alike() {
    Stage::new("quiet").tell("quiet", "");
}

#[test]
fn a_storm_of_ten_thousand_alarms_freezes_nothing() {
    // However long the story takes on a busy machine, no device is silent in it.
    let site = gas().replacen("unknown = \"provision\"", "unknown = \"provision\"\n  expire_after = \"1h\"", 1);
    Stage::on(Site::new("storm", &site)).tell("storm", "");
}

#[test]
fn a_token_is_asked_for_and_kept_until_the_page_is_closed() {
    let token = "correct-horse-battery-staple";
    let site = Site::new("token", &gas());
    let text = std::fs::read_to_string(site.path("anmin.toml")).expect("the site has a configuration");
    site.write("anmin.toml", &text.replacen(LISTEN, &format!("{LISTEN}\ntoken_file = \"token\""), 1));
    site.write("token", token);
    Stage::on(site).tell("token", token);
}

/// A flat in each of two buildings.
#[test]
fn who_signs_in_sees_and_may_do_what_their_role_gives() {
    let flats = r#"
[[place]]
id = "b2"
building = "2"
stations = ["st-2"]

[[device]]
id = "flat-501"
profile = "anmin-json-gas"
place = "b1"
floor = "5"
room = "501"

[[device]]
id = "flat-201"
profile = "anmin-json-gas"
place = "b2"
floor = "2"
room = "201"
"#;
    let site = Site::new("accounts", &format!("{}{flats}", gas()));
    let mut stage = Stage::on(site);
    let code = Command::new(binary()).args(["account", "setup-code"]).arg(stage.site.folder()).output();
    let code = String::from_utf8(code.expect("the binary runs").stdout).expect("it is text").trim().to_owned();
    stage.tell("accounts", &code);
}

#[test]
fn an_officer_comes_in_and_opens_a_locked_screen_by_the_provider_of_the_office() {
    let (web, port) = (free_port(), free_port());
    let mut provider = Provider::run(port, &format!("http://127.0.0.1:{web}"));
    provider.roles("wang", "duty");
    let place = "[[place]]\nid = \"east\"\nbuilding = \"3\"\n";
    let site = Site::new("oidc", &format!("{}{place}{}", gas(), provider.table("127.0.0.1")));
    provider.write(&site);
    let daemon = Daemon::start(site.folder());
    let web = daemon.web;
    Person::set_up(web, &site, "li", "李主管");
    let beside = format!("http://127.0.0.1:{port}");
    Stage { site, daemon: Some(daemon), database: None, receiver: None, officer: None, simulator: None, web }
        .tell("oidc", &beside);
}

#[test]
fn what_waits_for_a_database_that_is_away_is_said() {
    let site = Site::new("backlog", &gas());
    let mut database = VictoriaMetrics::start(&site);
    database.stop();
    let text = std::fs::read_to_string(site.path("anmin.toml")).expect("the site has a configuration");
    let port = database.port;
    site.write(
        "anmin.toml",
        &format!("{text}[[influx]]\nid = \"tsdb\"\nurl = \"http://127.0.0.1:{port}\"\nbucket = \"anmin\"\n"),
    );
    Stage { database: Some(database), ..Stage::on(site) }.tell("backlog", "");
}

#[test]
fn what_a_receiver_refused_is_listed_and_sent_again_by_two_taps() {
    let receiver = Hook::start();
    let site = Site::new("undelivered", &gas());
    let text = std::fs::read_to_string(site.path("anmin.toml")).expect("the site has a configuration");
    site.write("anmin.toml", &format!("{text}[[webhook]]\nid = \"office\"\nurl = \"{}\"\n", receiver.url));
    Stage { receiver: Some(receiver), ..Stage::on(site) }.tell("undelivered", "");
}

#[test]
fn a_warning_from_above_stands_on_the_first_screen_while_it_holds() {
    let site = Site::new("warned", &gas());
    let text = std::fs::read_to_string(site.path("anmin.toml")).expect("the site has a configuration");
    site.write("posts", "posts-of-the-county\n");
    site.write("anmin.toml", &format!("{text}[[warning_source]]\nid = \"county\"\npost_token_file = \"posts\"\n"));
    Stage::on(site).tell("warnings", "");
}

#[test]
fn a_limit_is_tried_on_the_past_before_it_is_set_and_the_audit_has_it() {
    Stage::new("rules").tell("rules", "");
}

#[test]
fn a_strange_device_is_taken_in_by_three_buttons_and_a_spreadsheet_after_a_look_at_it() {
    Stage::new("devices").tell("devices", "");
}

#[test]
fn what_is_looked_up_kept_in_lists_and_tested_on_a_walk_has_its_page() {
    let place = "[[place]]\nid = \"b5\"\nbuilding = \"5\"\n[[device]]\nid = \"flat-501\"\nprofile = \"anmin-json-gas\"\nplace = \"b5\"\n";
    let site = Site::new("reports", &format!("{}{place}", gas()));
    Stage::on(site).tell("reports", "");
}

/// A map with two buildings, and a floor on which one kitchen is marked and the other is not.
#[test]
fn what_burns_is_seen_on_the_map_and_on_the_floor_and_opened_by_a_key() {
    let more = r#"
[[place]]
id = "b2"
building = "2"
position = [36.0616, 103.8354]
[[device]]
id = "flat-501"
profile = "anmin-json-gas"
place = "b1"
floor = "5"
room = "厨房"
[[device]]
id = "flat-502"
profile = "anmin-json-gas"
place = "b1"
floor = "5"
room = "502"
[[device]]
id = "flat-201"
profile = "anmin-json-gas"
place = "b2"
floor = "2"
[[drawing]]
id = "site"
name = "小区图"
geojson = "plans/site.geojson"
[[drawing]]
id = "b1-f5"
name = "1号楼5层图"
building = "1"
floor = "5"
image = "plans/b1-f5.png"
mark = [{ room = "厨房", x = 0.2, y = 0.4 }]
"#;
    let site = Site::new("drawings", &format!("{}{more}", gas()));
    std::fs::create_dir_all(site.path("plans")).expect("a folder for drawings");
    let outline =
        json!([[103.834, 36.061], [103.8346, 36.061], [103.8346, 36.0613], [103.834, 36.0613], [103.834, 36.061]]);
    let map = json!({
        "type": "Feature",
        "properties": { "name": "1号楼", "place": "b1" },
        "geometry": { "type": "Polygon", "coordinates": [outline] },
    });
    site.write("plans/site.geojson", &map.to_string());
    let floor = Path::new(env!("CARGO_MANIFEST_DIR")).join("../gateway/demo/plans/b3-f1.png");
    std::fs::copy(floor, site.path("plans/b1-f5.png")).expect("the demo has a floor");
    Stage::on(site).tell("drawings", "");
}

/// A list of five thousand devices: five hundred speak each second, spread over the list.
#[test]
fn of_five_thousand_points_whose_values_stream_in_few_rows_are_drawn() {
    let shape = Shape { rules: 1, devices: 5_000, broker: None, qos: 0 };
    let mut stage = Stage::on(subject::site(shape));
    let mut devices = stage.devices();
    let over = Arc::new(AtomicBool::new(false));
    let ended = Arc::clone(&over);
    let values = std::thread::spawn(move || {
        for turn in (0_u64..).take_while(|_| !ended.load(Ordering::Relaxed)) {
            devices.throw((0..10).map(|n| {
                let seq = turn * 10 + n;
                let value = json!({ "v": (seq % 97) as f64 / 10.0, "ts": wall_ms(), "seq": seq });
                (topic((seq * 101 % 5_000) as u32), value.to_string().into_bytes())
            }));
            pause();
        }
    });
    stage.tell("points", "");
    over.store(true, Ordering::Relaxed);
    values.join().expect("nobody panics in it");
}

/// What tries to be more than text: a tag that would run, quotes, both kinds of braces, and marks that turn the writing.
const HOSTILE: &str = "<img src=x onerror=alert(1)>\"'{{7*7}}@:tabs.now\u{202e}";

/// The same as XML has it.
const HOSTILE_XML: &str = "&lt;img src=x onerror=alert(1)&gt;\"'{{7*7}}@:tabs.now\u{202e}";

/// Whatever has a name has a hostile one: the site's own, and what devices, peers, offices, officers and residents say.
#[test]
fn names_and_words_that_try_to_run_are_text_on_every_page() {
    let evil = |text: &str| text.replace("EVIL", &json!(HOSTILE).to_string().replace('\u{202e}', "\\u202e"));
    let more = evil(
        r#"
[[webhook]]
id = "office"
url = "HOOK"

[[warning_source]]
id = "county"
post_token_file = "posts"

[residents]
enabled = true
title = EVIL

[[station]]
id = "st-9"
name = EVIL
  [[station.crew]]
  id = "wang"
  name = EVIL
  [[station.shift]]
  name = EVIL
  from = "00:00"
  to = "00:00"
  crew = ["wang"]
  [[station.equipment]]
  id = "hose"
  name = EVIL

[[place]]
id = "b2"
building = EVIL
unit = EVIL
floor = EVIL
position = [36.0616, 103.8354]
stations = ["st-9"]

[[device]]
id = "flat-1"
name = EVIL
profile = "anmin-json-gas"
place = "b2"
room = EVIL

[[drawing]]
id = "site"
name = EVIL
geojson = "site.geojson"

[[plan]]
id = "gas-b2"
title = EVIL
hazard = "gas"
places = ["b2"]
version = "1"
approved_by = EVIL
approved_on = "2026-03-01"
source = EVIL
  [[plan.step]]
  id = "valve"
  do = EVIL

[[drill]]
id = "d"
building = EVIL
every = "90d"
"#,
    );
    let receiver = Hook::start();
    receiver.refuse(true);
    let site = Site::new("hostile", &format!("{}{}", gas(), more.replace("HOOK", &receiver.url)));
    let text = std::fs::read_to_string(site.path("anmin.toml")).expect("the site has a configuration");
    site.write(
        "anmin.toml",
        &text.replacen("name = { zh = \"验收社区\", en = \"Acceptance\" }", &evil("name = EVIL"), 1),
    );
    site.write("posts", "posts-of-the-county\n");
    let corners = json!([[103.835, 36.061], [103.836, 36.061], [103.836, 36.062], [103.835, 36.061]]);
    let outline = json!({
        "type": "Feature",
        "properties": { "name": HOSTILE, "place": "b2" },
        "geometry": { "type": "Polygon", "coordinates": [corners] },
    });
    site.write("site.geojson", &outline.to_string());
    let rule = r#"
title = { zh = EVIL, en = EVIL }
on_delay = "0s"
[[input]]
role = "gas"
kind = "gas.lel"
[limit.yellow]
value = 5.0
unit = "%LEL"
source = EVIL
[message]
zh = TAME
en = TAME
[advice]
zh = TAME
en = TAME
[[case]]
name = EVIL
steps = [{ at = "0s", gas = 1.0, expect = "normal" }]
"#;
    // In a rule's words braces are filled.
    let tame = evil("EVIL").replace("{{7*7}}", "");
    site.write("rules/site/hostile.toml", &evil(&rule.replace("TAME", &tame)));
    site.write(
        "rules/site/hostile.rhai",
        "fn judge(gas) { if above(gas, \"yellow\") { yellow() } else { normal() } }\n",
    );
    Stage { receiver: Some(receiver), ..Stage::on(site) }.tell("hostile", HOSTILE);
}

#[test]
fn a_resident_sees_what_is_public_and_asks_for_help_without_signing_in() {
    let site = Site::new("residents-page", &gas());
    let text = std::fs::read_to_string(site.path("anmin.toml")).expect("the site has a configuration");
    site.write("posts", "posts-of-the-county\n");
    let more = "[[warning_source]]\nid = \"county\"\npost_token_file = \"posts\"\n\
        [residents]\nenabled = true\nphone = \"0571-00000000\"\n";
    site.write("anmin.toml", &format!("{text}{more}"));
    let mut stage = Stage::on(site);
    let hall = json!({ "id": "a", "name": "一号楼大厅", "capacity": "200", "state": "open", "building": "1" });
    let school = json!({ "id": "b", "name": "实验小学操场", "capacity": "1500", "state": "full", "people": "1500", "address": "学府路 1 号" });
    let said =
        http::post(stage.web, "/api/v1/registers/shelters/rows", &json!({ "who": "li", "rows": [hall, school] }));
    assert_eq!(said.status, 200, "{}", said.body);
    stage.tell("residents", "");
}
