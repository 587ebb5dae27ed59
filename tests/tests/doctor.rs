//! `anmin doctor`: what is ill is found before anybody asks, and each finding says what to do next.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::{Command, Output};

use anmin_tests::daemon::{Daemon, binary};
use anmin_tests::site::Site;
use serde_json::Value;

/// The system's word on its clock is made up, since machines for tests have nobody who sets it; `said` is `yes` or `no`.
fn doctor(site: &Site, said: &str, flags: &[&str]) -> Output {
    let tools = site.path("tools");
    fs::create_dir_all(&tools).expect("the folder is ours");
    let tool = tools.join("timedatectl");
    fs::write(&tool, format!("#!/bin/sh\necho {said}\n")).expect("the folder is ours");
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).expect("it is ours");
    let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap_or_default());
    let ran = Command::new(binary()).arg("doctor").arg(site.folder()).args(flags).env("PATH", path).output();
    ran.expect("the binary can be started")
}

fn findings(ran: &Output) -> Vec<Value> {
    let json: Value = serde_json::from_slice(&ran.stdout).unwrap_or_else(|error| {
        panic!("{error}: {}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr))
    });
    json["findings"].as_array().cloned().unwrap_or_default()
}

/// The one finding about something.
fn about<'f>(findings: &'f [Value], about: &str) -> &'f Value {
    let mut of = findings.iter().filter(|finding| finding["about"] == about);
    let found = of.next().unwrap_or_else(|| panic!("nothing about {about}: {findings:#?}"));
    assert!(of.next().is_none(), "twice: {about}: {findings:#?}");
    found
}

#[test]
fn a_box_that_is_well_is_said_to_be_well() {
    let site = Site::new("doctor-well", "[broker]\nlisten = \"127.0.0.1:0\"\n");
    let daemon = Daemon::start(site.folder());
    // So that the site says where the daemon is.
    let web = site.path("anmin.toml");
    let text = fs::read_to_string(&web).expect("it is there");
    fs::write(&web, text.replace("listen = \"127.0.0.1:0\"", &format!("listen = \"{}\"", daemon.web)))
        .expect("it is ours");
    let ran = doctor(&site, "yes", &["--json"]);
    let found = findings(&ran);
    for of in ["clock", "daemon", "site", "disk", "state.db", "readings.db"] {
        assert_eq!(about(&found, of)["grade"], "well", "{found:#?}");
    }
    assert!(found.iter().all(|finding| finding["grade"] != "ill"), "{found:#?}");
    assert_eq!(ran.status.code(), Some(0));

    let ran = doctor(&site, "no", &[]);
    let said = String::from_utf8_lossy(&ran.stdout).into_owned();
    for part in [
        "正常 well",
        "故障 ill",
        "时间未同步",
        "it is not synchronised",
        "→ timedatectl set-ntp true",
        "it runs, version",
    ] {
        assert!(said.contains(part), "no {part:?} in\n{said}");
    }
    assert_eq!(ran.status.code(), Some(1), "{said}");
    assert!(
        !site
            .path("data")
            .read_dir()
            .expect("it is there")
            .flatten()
            .any(|entry| { entry.file_name().to_string_lossy().starts_with(".doctor") })
    );
}

/// Everything that may be ill at once, each with its own next step.
#[test]
fn what_is_ill_is_named_with_the_next_step() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let closed = TcpListener::bind("127.0.0.1:0")
        .map(|listener| listener.local_addr().expect("it is bound"))
        .expect("a free port");
    let listening = taken.local_addr().expect("it is bound");
    let peers = Site::new("doctor-peers", "");
    for (name, days) in [("sound", 300), ("ends", 5), ("ended", -5)] {
        peers.certificate(name, days);
    }
    let served = |name: &str| {
        let more = format!(
            "[broker]\nlisten = \"127.0.0.1:0\"\ntls_cert = \"{0}.pem\"\ntls_key = \"{0}.key\"\n",
            peers.path(name).display()
        );
        let site = Site::new(&format!("doctor-{name}"), &more);
        (Daemon::start(site.folder()), site)
    };
    let (sound, ends, ended) = (served("sound"), served("ends"), served("ended"));
    let port = |(daemon, _): &(Daemon, Site)| daemon.broker.expect("it has a broker").port();
    let folder = peers.folder().display();
    let mqtt = |id: &str, served: &(Daemon, Site), ca: &str| {
        format!(
            "[[mqtt]]\nid = \"{id}\"\nurl = \"mqtts://localhost:{}\"\ntls_ca = \"{folder}/{ca}.pem\"\n",
            port(served)
        )
    };
    let more = format!(
        r#"
[broker]
listen = "{listening}"
[[bus]]
id = "gone"
transport = "tcp"
host = "{host}"
port = {port}
[[bus]]
id = "line"
transport = "rtu"
device = "/dev/ttyNOWHERE"
baud_rate = 9600
[[bus]]
id = "file"
transport = "rtu"
device = "/etc/passwd"
baud_rate = 9600
[[bus]]
id = "usable"
transport = "rtu"
device = "/dev/null"
baud_rate = 9600
[[webhook]]
id = "office"
url = "http://{closed}/x"
secret_file = "open"
[[influx]]
id = "tsdb"
url = "http://{listening}/"
bucket = "b"
[[cap]]
id = "eb"
folder = "cap"
sender = "anmin.test.example"
{sound}{ends}{ended}{stranger}"#,
        host = closed.ip(),
        port = closed.port(),
        sound = mqtt("sound", &sound, "sound"),
        ends = mqtt("ends", &ends, "ends"),
        ended = mqtt("ended", &ended, "ended"),
        stranger = mqtt("stranger", &sound, "ends"),
    );
    let site = Site::new("doctor-ill", &more);
    let head = fs::read_to_string(site.path("anmin.toml")).expect("it was just written");
    let tls = format!(
        "[web]\ntls_cert = \"{folder}/sound.pem\"\ntls_key = \"{folder}/sound.key\"\ntls_listen = \"{listening}\"\n"
    );
    site.write("anmin.toml", &head.replacen("[web]\n", &tls, 1));
    fs::write(site.path("open"), "0123456789abcdef\n").expect("it is ours");
    fs::set_permissions(site.path("open"), fs::Permissions::from_mode(0o644)).expect("it is ours");
    fs::create_dir_all(site.path("data")).expect("it is ours");
    // Restored by root, where the daemon is somebody else.
    site.write("data/state.db", "");
    site.write("data/readings.db", "what a card makes of a database in the end, and no page of one");
    let is_root = fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    if is_root {
        std::os::unix::fs::chown(site.path("data"), Some(65_534), Some(65_534)).expect("root may");
        fs::set_permissions(site.path("data/state.db"), fs::Permissions::from_mode(0o600)).expect("it is ours");
    }
    let ran = doctor(&site, "yes", &["--json"]);
    let found = findings(&ran);
    let of_root = [
        ("databases", "ill", "the daemon may not write", "chown --reference="),
        ("[[cap]] eb", "ill", "the daemon may not write into", "chown anmin "),
    ];
    let of_root = of_root.into_iter().filter(|_| is_root);
    for (of, grade, says, next) in [
        ("[web] tls_listen", "ill", "Address already in use", "ss -ltnp"),
        ("daemon", "doubtful", "it does not run", "systemctl enable --now anmin"),
        ("site", "well", "it is sound", ""),
        ("[broker]", "ill", "Address already in use", "ss -ltnp"),
        ("[[bus]] gone", "ill", "Connection refused", "firewall"),
        ("[[bus]] line", "ill", "/dev/ttyNOWHERE", "/dev/serial/by-id"),
        ("[[bus]] file", "ill", "is no serial line", ""),
        ("[[bus]] usable", "well", "/dev/null is there", ""),
        ("readings.db", "ill", "is damaged", "anmin fsck"),
        ("backup", "doubtful", "there is none", "anmin backup TO "),
        ("[[webhook]] office", "ill", "Connection refused", "firewall"),
        ("[[influx]] tsdb", "ill", "does not answer", "database's own log"),
        ("webhook.secret_file", "ill", "everybody may read", "chmod o= "),
        ("[[mqtt]] sound", "well", "its certificate holds", ""),
        ("[[mqtt]] ends", "doubtful", "its certificate ends soon", "renew it"),
        ("[[mqtt]] ended", "ill", "certificate expired", "clock of this machine"),
        ("[[mqtt]] stranger", "ill", "invalid peer certificate", "tls_ca"),
    ]
    .into_iter()
    .chain(of_root)
    {
        let finding = about(&found, of);
        assert_eq!(finding["grade"], grade, "{finding:#}");
        assert!(finding["finding"]["en"].as_str().is_some_and(|said| said.contains(says)), "{finding:#}");
        assert!(finding["finding"]["zh"].as_str().is_some_and(|said| !said.is_empty()), "{finding:#}");
        match next {
            "" => assert!(finding["next"].is_null(), "{finding:#}"),
            next => assert!(finding["next"]["en"].as_str().is_some_and(|said| said.contains(next)), "{finding:#}"),
        }
    }
    assert_eq!(ran.status.code(), Some(1));
    // The files of certificates, too: one of each authority named.
    let files: Vec<&Value> = found.iter().filter(|finding| finding["about"] == "mqtt.tls_ca").collect();
    let grades: Vec<&str> = files.iter().filter_map(|finding| finding["grade"].as_str()).collect();
    assert_eq!(grades, ["well", "doubtful", "ill", "doubtful"], "{files:#?}");
}

/// A clock that nobody has set, a configuration that is none: both are said, and the rest is looked at all the same.
#[test]
fn a_site_that_cannot_be_read_keeps_nothing_else_from_being_looked_at() {
    let site = Site::new("doctor-faulty", "[desk]\nstorm_alarms = 0\n");
    let ran = doctor(&site, "yes", &["--json"]);
    let found = findings(&ran);
    let of = about(&found, "site");
    assert!(
        of["grade"] == "ill" && of["finding"]["en"].as_str().is_some_and(|said| said.contains("storm_alarms")),
        "{of:#}"
    );
    assert!(of["next"]["zh"].as_str().is_some_and(|next| next.starts_with("anmin check ")), "{of:#}");
    assert!(found.iter().any(|finding| finding["about"] == "disk"), "{found:#?}");

    let ran = Command::new("faketime")
        .args(["1970-01-02 00:00:00"])
        .arg(binary())
        .arg("doctor")
        .arg(site.folder())
        .arg("--json")
        .output();
    let found = findings(&ran.expect("tests/setup.sh installs faketime"));
    assert!(about(&found, "clock")["finding"]["en"].as_str().is_some_and(|said| said.contains("1970")), "{found:#?}");
    assert!(Path::new(site.folder()).is_dir());
}

/// Goal: nothing that is a secret leaves in a bundle, wherever it got to. Method: secrets in every kind of place, among
/// them the log and a configuration that is not sound; then the bundle is unpacked by tar and searched.
#[test]
fn a_support_bundle_holds_what_helps_and_no_secret() {
    let web = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    let mut secrets =
        ["web-4f0c9d1e7ab2", "box-77aa51c0", "robot-c0ffee0000", "sign-5eed5eed"].map(str::to_owned).to_vec();
    let more = "token_file = \"secrets/web\"\n[broker]\nlisten = \"127.0.0.1:0\"\npassword_file = \"secrets/accounts\"\n\
         [[mqtt]]\nid = \"zigbee\"\nurl = \"mqtt://127.0.0.1:1\"\nusername = \"box\"\npassword_file = \"secrets/zigbee\"\n\
         [[notice]]\nid = \"group\"\nrobot = \"dingtalk\"\naddress_file = \"secrets/robot\"\nsecret_file = \"secrets/sign\"\n\
         [[device]]\nid = \"flat-101\"\nname = \"box-77aa51c0\"\nprofile = \"anmin-json-gas\"\n";
    let site = Site::new("bundle", "");
    let head = fs::read_to_string(site.path("anmin.toml")).expect("it is there");
    let listen = format!("[web]\nlisten = \"{web}\"\n");
    site.write("anmin.toml", &[&head.replace("[web]\nlisten = \"127.0.0.1:0\"\n", ""), listen.as_str(), more].concat());
    site.write("secrets/web", &format!("{}\n", secrets[0]));
    site.write("secrets/zigbee", &format!("{}\n", secrets[1]));
    site.write("secrets/robot", &format!("https://robot.example.cn/send?access_token={}\n", secrets[2]));
    site.write("secrets/sign", &format!("{}\n", secrets[3]));
    let accounts = site.path("secrets/accounts");
    let made =
        Command::new("mosquitto_passwd").arg("-b").arg("-c").arg(&accounts).args(["box", "open-sesame"]).status();
    assert!(made.expect("tests/setup.sh installs mosquitto").success());
    let hash = fs::read_to_string(&accounts).expect("it is there");
    secrets.extend(hash.trim().split([':', '$']).filter(|piece| piece.len() > 5).map(str::to_owned));
    assert_eq!(secrets.len(), 6, "salt and hash are two: {hash}");
    let daemon = Daemon::start(site.folder());
    // What somebody is about to break.
    site.write(
        "anmin.d/90-own.toml",
        "password = \"hunter2hunter2\"\n# https://li:wang5678@example.cn/x?sig=tail99tail\n",
    );

    let tools = site.path("tools");
    fs::create_dir_all(&tools).expect("the folder is ours");
    // Before the first account the log of the start shows the code that makes an administrator.
    let code = "k7mq-9wxe-2rvt-hd4p";
    site.write("data/setup-code", &format!("{code}\n"));
    secrets.push(code.to_owned());
    let log = format!("#!/bin/sh\necho 'a line of the log, and {} in it; the set-up code {code}'\n", secrets[0]);
    fs::write(tools.join("journalctl"), log).expect("the folder is ours");
    fs::set_permissions(tools.join("journalctl"), fs::Permissions::from_mode(0o755)).expect("it is ours");
    let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap_or_default());
    let to = site.path("support.tar.gz");
    let make = || Command::new(binary()).arg("support-bundle").args([&to, site.folder()]).env("PATH", &path).output();
    let ran = make().expect("the binary can be started");
    let said = format!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success() && said.contains("no secrets"), "{said}");
    assert_eq!(fs::metadata(&to).expect("it is there").permissions().mode() & 0o777, 0o600);
    assert!(!make().expect("the binary can be started").status.success(), "nothing is written over");
    drop(daemon);

    let unpacked = site.path("unpacked");
    fs::create_dir_all(&unpacked).expect("the folder is ours");
    let tar = Command::new("tar").arg("-xzf").arg(&to).arg("-C").arg(&unpacked).output().expect("tar is there");
    assert!(tar.status.success() && tar.stderr.is_empty(), "{}", String::from_utf8_lossy(&tar.stderr));
    let read = |name: &str| {
        fs::read_to_string(unpacked.join("anmin-support").join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    };
    let mut all = said;
    for (name, part) in [
        ("about.json", "\"anmin\": \"0."),
        ("site/anmin.toml", "id = \"zigbee\""),
        ("site/anmin.d/90-own.toml", "(removed)"),
        ("files.txt", "secrets/zigbee"),
        ("doctor.json", "\"worst\": \"ill\""),
        ("status.json", "\"self_test\""),
        ("metrics.txt", "anmin_readings_received_total 0"),
        ("log.txt", "a line of the log, and (removed) in it; the set-up code (removed)"),
    ] {
        let text = read(name);
        assert!(text.contains(part), "{name}: no {part:?} in\n{text}");
        all.push_str(&text);
    }
    for secret in secrets.iter().map(String::as_str).chain(["hunter2hunter2", "wang5678", "tail99tail", "0000-0000001"])
    {
        assert!(!all.contains(secret), "{secret} got out:\n{all}");
    }
}
