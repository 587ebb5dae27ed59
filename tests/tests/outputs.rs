//! Outputs: switched by a person in two steps, against pymodbus and looked at by mbpoll, and refused in every way they should be.

use std::process::Command;

use anmin_tests::daemon::{Daemon, anmin};
use anmin_tests::http;
use anmin_tests::peers::Peer;
use anmin_tests::site::Site;
use serde_json::{Value, json};

const PROFILE: &str = r#"
id = "plant-relay"
title = { zh = "试验继电器", en = "test relay" }
[[point]]
name = "lel"
kind = "gas.lel"
register = "holding"
address = 0
scale = 0.1
[[point]]
name = "smoke"
kind = "fire.smoke"
register = "coil"
address = 3
"#;

/// The relay of `peers/modbus_sim.py`: lel is 12.6, smoke true, coils 5 to 7 off. Unit 3 is refused by pymodbus.
const SITE: &str = r#"
[broker]
listen = "127.0.0.1:0"
[[bus]]
id = "plant"
transport = "tcp"
host = "127.0.0.1"
port = PORT
[[device]]
id = "relay"
profile = "plant-relay"
place = "b1"
bus = "plant"
unit_id = 1
interval = "100ms"
[[device]]
id = "gone"
profile = "plant-relay"
place = "b1"
bus = "plant"
unit_id = 3

[[output]]
id = "fan"
name = { zh = "排风机", en = "exhaust fan" }
device = "relay"
address = 5
settle = "50ms"
  [[output.interlock]]
  point = "relay/lel"
  below = 25
[[output]]
id = "valve"
device = "relay"
address = 6
may = ["off"]
  [[output.interlock]]
  point = "relay/lel"
  below = 5
[[output]]
id = "breaker"
device = "relay"
address = 8
  [[output.interlock]]
  point = "gone/lel"
  below = 25
[[output]]
id = "stuck"
device = "relay"
address = 7
settle = "50ms"
shows_register = "discrete"
shows_address = 2
[[output]]
id = "gone"
device = "gone"
address = 5
[[output]]
id = "word"
device = "relay"
register = "holding"
address = 100
on = 0xAA
off = 0x55
[[output]]
id = "crew"
device = "relay"
address = 9
roles = ["crew"]
"#;

struct Plant {
    daemon: Daemon,
    port: String,
    site: Site,
    _relay: Peer,
}

impl Plant {
    fn start(name: &str) -> Self {
        let (relay, port) = Peer::ready("modbus_sim.py", &["tcp"]);
        let site = Site::new(name, &SITE.replace("PORT", &port));
        site.write("profiles/plant-relay.toml", PROFILE);
        let daemon = Daemon::start(site.folder());
        daemon.wait("/api/v1/points/relay/lel", "a reading", |point| point["sample"]["value"] == 12.6);
        Self { daemon, port, site, _relay: relay }
    }

    /// By the command line: whether it was done, and what was said.
    fn anmin(&self, line: &str) -> (bool, String) {
        let url = format!("http://{}", self.daemon.web);
        let words = ["output"].into_iter().chain(line.split(' ')).chain(["--url", &url]);
        let ran = anmin(&words.collect::<Vec<_>>());
        (ran.status.success(), String::from_utf8_lossy(&[ran.stdout, ran.stderr].concat()).into_owned())
    }

    /// Arms it as `who`; gives the code.
    fn arm(&self, output: &str, action: &str, who: &str) -> String {
        let (done, said) = self.anmin(&format!("arm {output} {action} --why 燃气积聚 --who {who}"));
        assert!(done && said.contains("nothing is switched"), "{said}");
        said.split("--code ").nth(1).expect("the code is said").trim().to_owned()
    }

    fn carry_out(&self, output: &str, action: &str, who: &str, code: &str) -> (bool, String) {
        self.anmin(&format!("do {output} {action} --who {who} --code {code}"))
    }

    /// What another master sees at a coil, or at a holding register.
    fn sees(&self, kind: &str, address: u16) -> String {
        let reference = (address + 1).to_string();
        let words = ["-m", "tcp", "-p", &self.port, "-1", "-a", "1", "-t", kind, "-r", &reference, "127.0.0.1"];
        let ran = Command::new("mbpoll").args(words).output().expect("mbpoll is installed; see tests/setup.sh");
        let text = String::from_utf8_lossy(&ran.stdout).into_owned();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("[{reference}]:")));
        line.unwrap_or_else(|| panic!("mbpoll read nothing: {text}")).trim().to_owned()
    }

    /// The audit's rows about outputs once there are so many, the oldest first: `who what about outcome`.
    fn deeds(&self, count: usize) -> Vec<String> {
        let word = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
        let of_outputs = |found: &Value| -> Vec<Value> {
            let rows = found["rows"].as_array().into_iter().flatten().rev();
            rows.filter(|row| word(row, "what").starts_with("output.")).cloned().collect()
        };
        let what = format!("{count} rows about outputs");
        let found = self.daemon.wait("/api/v1/audit?limit=1000", &what, |found| of_outputs(found).len() >= count);
        let rows = of_outputs(&found);
        let rows = rows.iter();
        let outcome = |row: &Value| if row["done"] == true { "done" } else { "refused" };
        rows.map(|row| format!("{} {} {} {}", word(row, "who"), word(row, "what"), word(row, "about"), outcome(row)))
            .collect()
    }
}

#[test]
fn an_output_is_switched_in_two_steps_shows_it_and_is_written_down() {
    let plant = Plant::start("outputs");
    let (_, list) = plant.anmin("list");
    assert!(list.contains("排风机 · exhaust fan") && list.contains("relay/lel < 25"), "{list}");
    let code = plant.arm("fan", "on", "li");
    assert_eq!(plant.sees("0", 5), "0", "the first step switches nothing");
    let (_, list) = plant.anmin("list");
    assert!(list.contains("on li") && list.contains("燃气积聚") && !list.contains(&format!("code {code}")), "{list}");
    let (done, said) = plant.carry_out("fan", "on", "li", &code);
    assert!(done && said.contains("is on, and shows it"), "{said}");
    assert_eq!(plant.sees("0", 5), "1");
    // What was done is not armed any more.
    let (done, said) = plant.carry_out("fan", "on", "li", &code);
    assert!(!done && said.contains("is not armed"), "{said}");
    let code = plant.arm("fan", "off", "li");
    assert!(plant.carry_out("fan", "off", "li", &code).0);
    assert_eq!(plant.sees("0", 5), "0");
    let code = plant.arm("word", "on", "li");
    assert!(plant.carry_out("word", "on", "li", &code).0);
    assert_eq!(plant.sees("4", 100), "170");
    let wanted = [
        "li output.arm fan done",
        "li output.do fan done",
        "li output.do fan refused",
        "li output.arm fan done",
        "li output.do fan done",
        "li output.arm word done",
        "li output.do word done",
    ];
    assert_eq!(plant.deeds(wanted.len()), wanted);
}

/// An output that lost its bus would be found out when it is needed.
#[test]
fn an_output_is_still_switched_when_its_bus_was_exchanged() {
    let plant = Plant::start("outputs-exchanged");
    let file = std::fs::read_to_string(plant.site.path("anmin.toml")).expect("it was just written");
    let change = |from: &str, to: &str| {
        assert!(file.contains(from));
        plant.site.write("anmin.toml", &file.replace(from, to));
        let url = format!("http://{}", plant.daemon.web);
        let ran = anmin(&["rules", "reload", "--who", "li", "--url", &url]);
        String::from_utf8_lossy(&ran.stdout).into_owned()
    };
    let said = change("transport = \"tcp\"", "transport = \"tcp\"\nretries = 4");
    assert!(said.contains("at once: [[bus]] plant (retries)"), "{said}");
    let code = plant.arm("fan", "on", "li");
    let (done, said) = plant.carry_out("fan", "on", "li", &code);
    assert!(done && said.contains("is on, and shows it"), "{said}");
    assert_eq!(plant.sees("0", 5), "1");
    // What hangs on an output that waits waits with it.
    let said = change("address = 9\n", "address = 10\n");
    assert!(said.contains("[[output]] crew (address)") && !said.contains("at once"), "{said}");
    assert!(said.contains("restart") && said.contains("[[bus]] plant (retries)"), "{said}");
}

#[test]
fn nothing_is_switched_that_was_not_armed_is_not_allowed_or_not_safe() {
    let plant = Plant::start("outputs-refused");
    let refused =
        |(done, said): (bool, String), wanted: &str| assert!(!done && said.contains(wanted), "{wanted}: {said}");
    refused(plant.carry_out("fan", "on", "li", "0000"), "not armed");
    refused(plant.anmin("arm valve on --why x --who li"), "may not be switched on");
    refused(plant.anmin("arm nothing on --why x --who li"), "there is no output");
    refused(plant.anmin("arm crew on --why x --who li"), "your role may not");
    refused(plant.anmin("disarm fan --who li"), "not armed");
    // Not by another, not with another code, not another deed; each costs the arming but the first.
    let code = plant.arm("fan", "on", "li");
    refused(plant.carry_out("fan", "on", "wang", &code), "armed by li");
    refused(plant.anmin("arm fan off --why x --who wang"), "armed by li");
    let other = if code == "1234" { "4321" } else { "1234" };
    refused(plant.carry_out("fan", "on", "li", other), "no longer armed");
    refused(plant.carry_out("fan", "on", "li", &code), "not armed");
    let code = plant.arm("fan", "on", "li");
    refused(plant.carry_out("fan", "off", "li", &code), "no longer armed");
    let code = plant.arm("fan", "on", "li");
    assert!(plant.anmin("disarm fan --who wang").0);
    refused(plant.carry_out("fan", "on", "li", &code), "not armed");
    // The interlock: does not hold, and cannot be known.
    let code = plant.arm("valve", "off", "li");
    refused(plant.carry_out("valve", "off", "li", &code), "does not hold: it is 12.6");
    let code = plant.arm("breaker", "on", "li");
    refused(plant.carry_out("breaker", "on", "li", &code), "cannot be confirmed");
    for coil in [5, 6] {
        assert_eq!(plant.sees("0", coil), "0", "coil {coil}");
    }
    // Done, but does not show it; and refused by the unit.
    let code = plant.arm("stuck", "on", "li");
    refused(plant.carry_out("stuck", "on", "li", &code), "have somebody look on site");
    let code = plant.arm("gone", "on", "li");
    refused(plant.carry_out("gone", "on", "li", &code), "nothing has changed");
    let deeds = plant.deeds(23);
    let undone = |deed: &&String| deed.contains("output.do") && deed.ends_with("done");
    assert_eq!(deeds.iter().find(undone), None);
    assert_eq!(deeds.len(), 23, "{deeds:#?}");
    // Only JSON that says all of it.
    for body in [json!({ "who": "li", "action": "on" }), json!({ "who": "li", "action": "toggle", "why": "x" })] {
        assert_eq!(http::post(plant.daemon.web, "/api/v1/outputs/fan/arm", &body).status, 400, "{body}");
    }
}

#[test]
fn an_output_that_could_reach_anything_else_is_a_fault_of_the_site() {
    let site = Site::new("outputs-faults", &SITE.replace("PORT", "502"));
    site.write("profiles/plant-relay.toml", PROFILE);
    let check = || {
        let ran = anmin(&["check", &site.folder().display().to_string()]);
        String::from_utf8_lossy(&[ran.stdout, ran.stderr].concat()).into_owned()
    };
    assert!(!check().contains("error"), "{}", check());
    for (keys, wanted) in [
        ("id = \"o\"\ndevice = \"relay\"", "address` is missing"),
        ("id = \"o\"\ndevice = \"relax\"\naddress = 1", "there is no device \"relax\" on a bus"),
        ("id = \"o\"\ndevice = \"all\"\naddress = 1", "only 1 to 247 is written to"),
        ("id = \"fan\"\ndevice = \"relay\"\naddress = 1", "output \"fan\" is there already"),
        ("id = \"o\"\ndevice = \"relay\"\naddress = 5", "it switches what output fan switches"),
        ("id = \"o\"\ndevice = \"relay\"\naddress = 1\nregister = \"input\"", "expected one of coil, holding"),
        ("id = \"o\"\ndevice = \"relay\"\naddress = 1\non = 5", "a coil is 0 or 1"),
        ("id = \"o\"\ndevice = \"relay\"\naddress = 1\non = 0", "`on` and `off` are the same"),
        ("id = \"o\"\ndevice = \"relay\"\naddress = 1\nmay = []", "nobody could use the output"),
        ("id = \"o\"\ndevice = \"relay\"\naddress = 1\nroles = [\"auditor\"]", "expected officer, crew, administrator"),
        ("id = \"o\"\ndevice = \"relay\"\naddress = 1\narmed_for = \"1h\"", "expected 5s to 600s"),
        (
            "id = \"o\"\ndevice = \"relay\"\naddress = 1\n[[output.interlock]]\npoint = \"relay/co\"\nbelow = 1",
            "there is no point \"relay/co\"",
        ),
        (
            "id = \"o\"\ndevice = \"relay\"\naddress = 1\n[[output.interlock]]\npoint = \"relay/smoke\"\nbelow = 1",
            "relay/smoke is never < 1",
        ),
        (
            "id = \"o\"\ndevice = \"relay\"\naddress = 1\n[[output.interlock]]\npoint = \"relay/lel\"",
            "one of `above`, `below` and `is`",
        ),
    ] {
        let all = "[[device]]\nid = \"all\"\nprofile = \"plant-relay\"\nbus = \"plant\"\nunit_id = 0\n";
        site.write("anmin.d/more.toml", &format!("{all}[[output]]\n{keys}\n"));
        let said = check();
        assert!(said.contains(wanted), "{keys}: {said}");
    }
}
