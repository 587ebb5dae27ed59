use std::fs;

use anmin_rules::alarm::{Alarm, Class};
use anmin_rules::drill::DrillId;
use anmin_rules::order::{CapMessage, OrderId, Voice};
use anmin_sensors::document::{Document as Toml, Faults};
use anmin_sensors::point::Hazard;

use super::*;
use crate::delivery::cap::tests::hostile_orders;
use crate::delivery::http::tests::{Answer, Server};
use crate::samples::{self, RAISED, check_golden, site};

const STANZA: &str = "source = '66201020010010314000001'\ndest = '46201020000000314000001'\n";
const PACKAGE: &str = "10662010200100103140000012026030100001980";

fn settings(text: &str) -> Result<Settings, String> {
    let faults = Faults::default();
    let text = format!("id = 'town-eb'\n{text}");
    let doc = Toml::parse("t.toml", &text, &faults).expect("TOML");
    let found = Settings::read(&doc.root(&faults), Path::new("/nowhere"), true);
    let faults = faults.take();
    match found {
        Some(settings) if faults.is_empty() => Ok(settings),
        _ => Err(faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")),
    }
}

/// A folder that goes with the test.
pub(super) struct Folder(pub PathBuf);

impl Folder {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("anmin-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("a folder for the test");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn words(more: &str, site: &Site) -> package::Words {
    settings(&format!("{STANZA}folder = 'ebm'\n{more}")).expect("settings").words(site)
}

fn real() -> Site {
    Site { exercise: false, ..site() }
}

fn order(cap: CapOrder) -> Order {
    let id = OrderId::new(cap.identifier.clone());
    Order { id, channel: "town-eb".into(), body: OrderBody::Cap(Arc::new(cap)) }
}

/// As the carrier does it.
fn composed(words: &package::Words, cap: &CapOrder, numbers: &Numbers) -> Result<String, String> {
    let number = numbers.give(&cap.identifier, RAISED);
    package::compose(words, cap, number, |earlier| numbers.known(earlier)).map(|document| document.xml)
}

fn of<'x>(xml: &'x str, name: &str) -> Vec<&'x str> {
    let (start, end) = (format!("<{name}>"), format!("</{name}>"));
    xml.split(&start).skip(1).map(|rest| rest.split(&end).next().unwrap_or_default()).collect()
}

#[test]
fn packages_stand_as_reviewed() {
    let folder = Folder::new("ebm-golden");
    for (kind, site) in [("actual", real()), ("exercise", site())] {
        let numbers = Numbers::open(&folder.0.join(kind));
        let words = words("status = 'actual'", &site);
        for (name, cap) in samples::cap_orders() {
            let xml = composed(&words, &cap, &numbers).expect(name);
            check_golden(&format!("ebm/{kind}-{name}.xml"), &xml);
        }
    }
}

/// Goal: what the receiver acts upon follows from the alarm and from nothing else. Method: every class, level, message and earnest.
#[test]
fn every_class_level_and_earnest_gives_a_package_that_says_so() {
    let folder = Folder::new("ebm-every");
    let classes = Hazard::ALL.into_iter().map(Class::Hazard).chain([Class::System]);
    for (n, class) in classes.enumerate() {
        for (level, severity) in [(Level::Red, "1"), (Level::Orange, "2"), (Level::Yellow, "3"), (Level::Blue, "4")] {
            for (stanza, drill, site, exercise) in [
                ("status = 'actual'", None, real(), None),
                ("status = 'exercise'", None, real(), Some("3")),
                ("status = 'actual'\ndrill = 'front_end'", None, site(), Some("4")),
                ("status = 'actual'\ndrill = 'terminal'", Some(DrillId(uuid::Uuid::from_u128(7))), real(), Some("5")),
            ] {
                let numbers = Numbers::open(&folder.0.join(format!("{n}")));
                let words = words(stanza, &site);
                for (name, mut cap) in samples::cap_orders() {
                    cap.alarm = Arc::new(Alarm { class, level, drill, ..(*cap.alarm).clone() });
                    cap.references.iter_mut().for_each(|sent| sent.level = level);
                    let what = format!("{class:?} {level:?} {stanza} {name}");
                    let xml = composed(&words, &cap, &numbers).unwrap_or_else(|why| panic!("{what}: {why}"));
                    let wanted = if cap.message == CapMessage::Cancel { "2" } else { exercise.unwrap_or("1") };
                    assert_eq!((of(&xml, "MsgType"), of(&xml, "Severity")), (vec![wanted], vec![severity]), "{what}");
                    for text in [of(&xml, "MsgTitle")[0], of(&xml, "MsgDesc")[0]] {
                        assert_eq!(text.matches("【演练】").count(), usize::from(exercise.is_some()), "{what}: {text}");
                        assert_eq!(text.starts_with("【演练】"), exercise.is_some(), "{what}: {text}");
                    }
                    assert_eq!(of(&xml, "EventType")[0].len(), 5, "{what}");
                    assert_eq!(of(&xml, "RelatedInfo").len(), usize::from(cap.message != CapMessage::Alert), "{what}");
                }
            }
        }
    }
}

#[test]
fn a_message_names_what_it_takes_the_place_of_as_that_was_sent() {
    let folder = Folder::new("ebm-related");
    let numbers = Numbers::open(&folder.0);
    let words = words("status = 'actual'", &real());
    let [(_, alert), (_, update), (_, mut cancel)] = samples::cap_orders();
    // Nothing has left: there is nothing that could be taken back, and an update is the first that is heard.
    let why = composed(&words, &cancel, &numbers).expect_err("nothing has left");
    assert!(why.contains("by telephone"), "{why}");
    assert_eq!(of(&composed(&words, &update, &numbers).expect("sound"), "RelatedInfo"), Vec::<&str>::new());
    let first = composed(&words, &alert, &numbers).expect("sound");
    let id = |xml: &str| of(xml, "EBMID").iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
    let second = composed(&words, &update, &numbers).expect("sound");
    assert_eq!(id(&second)[1..], id(&first)[..], "its own, then the related one");
    assert_eq!(
        second,
        composed(&words, &update, &Numbers::open(&folder.0)).expect("sound"),
        "the same after a restart"
    );
    // The site has another code by now.
    let then = Voice { sender: "51234567890120314000009".into(), status: "Actual".into(), zone: "+08:00".into() };
    cancel.references[1].voice = Some(Arc::new(then));
    let third = composed(&words, &cancel, &numbers).expect("sound");
    assert_eq!(id(&third)[1], id(&second)[0].replace("66201020010010314000001", "51234567890120314000009"));
    assert_eq!(of(&third, "Severity"), ["1"], "as grave as what it takes back");
    // What was decided on as an exercise stays one.
    let voice = Voice { sender: "66201020010010314000001".into(), status: "Exercise".into(), zone: "+08:00".into() };
    let late = CapOrder { voice: Some(Arc::new(voice)), ..alert };
    assert_eq!(of(&composed(&words, &late, &numbers).expect("sound"), "MsgType"), ["3"]);
}

#[test]
fn hostile_text_never_becomes_structure() {
    let folder = Folder::new("ebm-hostile");
    for (kind, site) in [("real", real()), ("exercise", site())] {
        let numbers = Numbers::open(&folder.0.join(kind));
        let words = words("status = 'actual'", &site);
        for (name, cap) in hostile_orders() {
            let xml = composed(&words, &cap, &numbers).unwrap_or_else(|why| panic!("{name}: {why}"));
            assert!(xml.len() < 32 * 1024, "{name}: {} bytes", xml.len());
            let tags = ["EBD", "EBM", "MsgType", "MsgTitle", "MsgDesc", "AreaCode"];
            assert_eq!(tags.map(|tag| of(&xml, tag).len()), [1; 6], "{name}: {xml}");
        }
    }
}

#[test]
fn the_site_may_send_other_codes() {
    let folder = Folder::new("ebm-codes");
    let words = words("event_codes = { gas = '12D02' }\narea_code = '620102001999'", &real());
    let [(_, alert), ..] = samples::cap_orders();
    let xml = composed(&words, &alert, &Numbers::open(&folder.0)).expect("sound");
    assert_eq!((of(&xml, "EventType"), of(&xml, "AreaCode")), (vec!["12D02"], vec!["620102001999"]));
}

#[test]
fn settings_tell_what_is_wrong_with_them() {
    for (text, wanted) in [
        ("", "an [[ebm]] stanza needs one of `url` and `folder`"),
        ("url = 'https://a.example/'\nfolder = 'b'", "an [[ebm]] stanza needs one of `url` and `folder`"),
        ("folder = 'b'\nstatus = 'test'", "`status` is \"test\", expected one of exercise, actual"),
        ("folder = 'b'\nsystem = true", "system` is not a known key"),
        ("folder = 'b'\nheartbeat = true", "`heartbeat` belongs to `url`"),
        ("folder = 'b'\nsouce = 'x'", "did you mean `source`?"),
        ("folder = 'b'\ndrill = 'people'", "expected one of platform, front_end, terminal"),
        (
            "folder = 'b'\nevent_codes = { gas = '12p09' }",
            "`gas` is \"12p09\", expected an event code such as \"12P09\"",
        ),
        ("folder = 'b'\nevent_codes = { gsa = '12P09' }", "did you mean `gas`?"),
        ("folder = 'b'\narea_code = '62'", "`area_code` is \"62\", expected 12 digits"),
        ("folder = 'b'\nexpires = '1s'", "between one minute and seven days"),
        ("folder = 'b'\nsign_command = ['eb-sign']\ncert_sn = '1'", "must begin with the whole path of a program"),
        ("folder = 'b'\nsign_command = []\ncert_sn = '1'", "must begin with the whole path of a program"),
        ("folder = 'b'\nsign_command = ['/bin/eb-sign']", "`sign_command` needs `cert_sn`"),
        ("folder = 'b'\nsign_command = ['/bin/eb-sign']\ncert_sn = 'a b'", "expected 1 to 64 letters and digits"),
        (
            "folder = 'b'\nsign_command = ['/bin/eb-sign']\ncert_sn = '1'\nsign_timeout = '9s'",
            "`sign_timeout` must lie",
        ),
        ("folder = 'b'\ncert_sn = '1'", "`cert_sn` belongs to `sign_command`"),
    ] {
        let found = settings(&format!("{STANZA}{text}")).expect_err(text);
        assert!(found.contains(wanted), "{text}: {found}");
    }
    for code in ["6620102001001031400000", "76201020010010314000001", "6620102001001031400000x"] {
        let found = settings(&format!("folder = 'b'\nsource = '{code}'\ndest = '{code}'")).expect_err(code);
        assert!(found.contains("`source` is") && found.contains("`dest` is") && found.contains("23 digits"), "{found}");
    }
    let faults = Faults::default();
    let text = format!("id = 'x'\nfolder = 'b'\n{STANZA}");
    let doc = Toml::parse("t.toml", &text, &faults).expect("TOML");
    Settings::read(&doc.root(&faults), Path::new("/nowhere"), false);
    let found = faults.take().iter().map(ToString::to_string).collect::<String>();
    assert!(found.contains("an [[ebm]] needs `area_code`"), "{found}");
}

fn answer(of: &str, code: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><EBD><EBDVersion>1</EBDVersion>{of}<EBDResponse><ResultDesc>验签\
         </ResultDesc><ResultCode>{code}</ResultCode></EBDResponse></EBD>"
    )
}

fn tar(name: &str, text: &[u8], size: u64) -> Vec<u8> {
    let mut header = ::tar::Header::new_ustar();
    header.set_path(name).expect("a name");
    header.set_size(size);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(text);
    bytes.resize(bytes.len().next_multiple_of(512) + 1_024, 0);
    bytes
}

/// Goal: nothing that a platform answers is taken for a receipt that is none. Method: one answer a line, and every prefix of a sound one.
#[test]
fn answers_are_read_bare_or_packed_and_nothing_else_is_a_receipt() {
    let related = format!("<RelatedEBD><EBDID>{PACKAGE}</EBDID></RelatedEBD>");
    let plain = answer(&related, "1");
    let prefixed = plain.replace("<EBD>", "<e:EBD xmlns:e=\"urn:x\">").replace("</EBD>", "</e:EBD>");
    for (bytes, wanted) in [
        (
            plain.clone().into_bytes(),
            "Ok HTTP 200, EBDResponse 1 (接收解析及数据校验成功, received, parsed, valid): 验签, names it",
        ),
        (format!("\u{feff}{plain}").into_bytes(), "Ok HTTP 200, EBDResponse 1"),
        (prefixed.into_bytes(), "Ok HTTP 200, EBDResponse 1"),
        (
            plain.replace("><", ">\n  <").replace("<EBD>", "<!-- x --><EBD a='b'>").into_bytes(),
            "Ok HTTP 200, EBDResponse 1",
        ),
        (tar("EBDB_1.xml", plain.as_bytes(), plain.len() as u64), "Ok HTTP 200, EBDResponse 1"),
        (tar("./x/EBDB_1.xml", plain.as_bytes(), plain.len() as u64), "Ok HTTP 200, EBDResponse 1"),
        (answer("", "0").into_bytes(), "Ok HTTP 200, EBDResponse 0 (已接收未处理, received, not processed yet): 验签"),
        (
            answer(&related, " 4 ").into_bytes(),
            "Never HTTP 200, EBDResponse 4 (签名验证失败, the signature does not verify): 验签",
        ),
        (answer(&related, "2").into_bytes(), "Never HTTP 200, EBDResponse 2"),
        (answer(&related, "3").into_bytes(), "Never HTTP 200, EBDResponse 3"),
        (answer(&related, "5").into_bytes(), "Never HTTP 200, EBDResponse 5"),
        (answer(&related, "6").into_bytes(), "Retry HTTP 200, but the EBDResponse has the code \"6\""),
        (answer(&related, "\u{1b}[31m").into_bytes(), "Retry HTTP 200, but the EBDResponse has the code \" [31m\""),
        (
            answer(&related.replace("1980", "1981"), "1").into_bytes(),
            "Retry HTTP 200, but the EBDResponse is about another",
        ),
        (
            plain.replace("ResultCode", "Result").into_bytes(),
            "Retry HTTP 200, but no EBDResponse: its EBDResponse has no Result",
        ),
        (
            plain.replace("EBDResponse", "EBMStateResponse").into_bytes(),
            "Retry HTTP 200, but no EBDResponse: it holds no",
        ),
        (
            plain.replace("<EBD>", "<!DOCTYPE EBD [<!ENTITY a 'b'>]><EBD>").into_bytes(),
            "Retry HTTP 200, but no EBDResponse",
        ),
        (plain.replace("验签", "&xxe;").into_bytes(), "Retry HTTP 200, but no EBDResponse: the entity"),
        (format!("{}{}", "<a>".repeat(60_000), plain).into_bytes(), "Retry HTTP 200, but no EBDResponse: too deep"),
        (b"ok".to_vec(), "Retry HTTP 200, but no EBDResponse: it is neither XML nor a tar"),
        (Vec::new(), "Retry HTTP 200, but no EBDResponse: the answer is empty"),
        (vec![0; 4_096], "Retry HTTP 200, but no EBDResponse: its tar holds no EBDB_….xml"),
        (
            tar("EBDS_EBDB_1.xml", plain.as_bytes(), plain.len() as u64),
            "Retry HTTP 200, but no EBDResponse: its tar holds no",
        ),
        // It says that it holds a gigabyte.
        (tar("EBDB_1.xml", plain.as_bytes(), 1 << 30), "Retry HTTP 200, but no EBDResponse"),
    ] {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(300)]).into_owned();
        let found = match judge("HTTP 200", PACKAGE, package::read_answer(&bytes)) {
            Ok(receipt) => format!("Ok {}", receipt.detail),
            Err(DeliveryError::Retry(why)) => format!("Retry {why}"),
            Err(other) => format!("Never {other}"),
        };
        assert!(found.starts_with(wanted), "{shown}: {found}");
    }
    let packed = tar("EBDB_1.xml", plain.as_bytes(), plain.len() as u64);
    for (whole, ends) in [(plain.as_bytes(), plain.len()), (&packed, 512 + plain.len())] {
        for n in 0..ends {
            assert!(judge("HTTP 200", PACKAGE, package::read_answer(&whole[..n])).is_err(), "{n} bytes of {ends}");
        }
    }
}

/// Goal: the same package goes in the form that platforms take, with the same bytes each time, and its receipt holds what left.
#[tokio::test]
async fn a_platform_gets_one_package_a_message_and_the_same_again() {
    let related = format!("<RelatedEBD><EBDID>{PACKAGE}</EBDID></RelatedEBD>");
    let body = answer(&related, "1");
    let says: &'static str =
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len()).leak();
    let server = Server::start(vec![Answer::Breaks, Answer::Says(says)]).await;
    let folder = Folder::new("ebm-platform");
    let (numbers, clock) = (Arc::new(Numbers::open(&folder.0)), Clock::manual(RAISED));
    let stanza = format!("{STANZA}url = '{}'\nstatus = 'actual'", server.url());
    let ebm = carrier(&settings(&stanza).expect("settings"), &real(), &numbers, &clock).expect("a carrier");
    let [(_, alert), ..] = samples::cap_orders();
    assert!(matches!(ebm.carry(&order(alert.clone())).await, Err(DeliveryError::Retry(_))));
    let receipt = ebm.carry(&order(alert.clone())).await.expect("it is taken");
    assert!(receipt.detail.ends_with(NAMED), "{}", receipt.detail);
    let seen = server.seen.lock().expect("nobody panics with it");
    let parts = |text: &str| text.split_once("\r\n\r\n").map(|(head, body)| (head.to_owned(), body.to_owned()));
    let [(head, first), (_, second)] = [0, 1].map(|n| parts(&seen[n]).expect("a head and a body"));
    assert_eq!(first, second);
    assert!(head.contains(&format!("content-type: multipart/form-data; boundary=anmin-{PACKAGE}")), "{head}");
    assert!(head.contains(&format!("idempotency-key: {PACKAGE}")), "{head}");
    let file = format!(
        "name=\"file\"; filename=\"EBDT_{PACKAGE}.tar\"\r\nContent-Type: application/x-tar\r\n\r\nEBDB_{PACKAGE}.xml"
    );
    assert!(first.contains(&file), "{first}");
    let text = receipt.text.expect("what left");
    assert!(first.contains(&*text) && text.contains(&format!("<EBDID>{PACKAGE}</EBDID>")), "{text}");
    let preview = teller(words("status = 'actual'", &real()), numbers);
    assert_eq!(preview(&order(alert)).as_deref(), Some(&*text));
}

#[tokio::test]
async fn a_folder_gets_whole_packages_signed_or_none() {
    let folder = Folder::new("ebm-folder");
    let (numbers, clock) = (Arc::new(Numbers::open(&folder.0)), Clock::manual(RAISED));
    let to = folder.0.join("out");
    let [(_, alert), ..] = samples::cap_orders();
    for (signer, fails) in [("'/usr/bin/base64', '-w', '0'", false), ("'/bin/false'", true)] {
        let stanza = format!("{STANZA}folder = '{}'\nsign_command = [{signer}]\ncert_sn = '0A1B'", to.display());
        let ebm = carrier(&settings(&stanza).expect("settings"), &site(), &numbers, &clock).expect("a carrier");
        let found = ebm.carry(&order(alert.clone())).await;
        if fails {
            assert!(matches!(&found, Err(DeliveryError::Retry(why)) if why.contains("not signed")), "{found:?}");
            continue;
        }
        let path = found.expect("written").detail;
        assert_eq!(path, to.join(package::file_name(PACKAGE)).display().to_string());
        let bytes = fs::read(&path).expect("it is there");
        let mut archive = ::tar::Archive::new(&*bytes);
        let files: Vec<(String, String)> = archive
            .entries()
            .expect("a tar")
            .map(|entry| {
                let mut entry = entry.expect("whole");
                let name = entry.path().expect("a name").display().to_string();
                let mut text = String::new();
                std::io::Read::read_to_string(&mut entry, &mut text).expect("UTF-8");
                (name, text)
            })
            .collect();
        assert_eq!(
            files.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
            [format!("EBDB_{PACKAGE}.xml"), format!("EBDS_EBDB_{PACKAGE}.xml")]
        );
        use base64::Engine as _;
        let value = base64::engine::general_purpose::STANDARD.encode(&files[0].1);
        let signature = &files[1].1;
        assert_eq!((of(signature, "SignatureValue"), of(signature, "CertSN")), (vec![&*value], vec!["0A1B"]));
        assert_eq!(of(signature, "EBDID"), [PACKAGE]);
    }
    assert_eq!(fs::read_dir(&to).expect("the folder").count(), 1, "nothing unsigned, and no part of a file");
    let event = samples::order("b3-2-gas", 1, Level::Orange);
    let stanza = format!("{STANZA}folder = '{}'", to.display());
    let ebm = carrier(&settings(&stanza).expect("settings"), &site(), &numbers, &clock).expect("a carrier");
    assert!(matches!(ebm.carry(&event).await, Err(DeliveryError::Never(_))));
}

#[tokio::test]
async fn a_heartbeat_says_that_the_connection_is_there() {
    let body = answer("", "1");
    let says: &'static str =
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len()).leak();
    let server =
        Server::start(vec![Answer::Says(says), Answer::Says("HTTP/1.1 503 Down\r\nContent-Length: 0\r\n\r\n")]).await;
    let folder = Folder::new("ebm-heartbeat");
    let (numbers, clock) = (Arc::new(Numbers::open(&folder.0)), Clock::manual(RAISED));
    let stanza = format!("{STANZA}url = '{}'\nheartbeat = true", server.url());
    let ebm = carrier(&settings(&stanza).expect("settings"), &site(), &numbers, &clock).expect("a carrier");
    ebm.tell_alive("x/1", Bytes::new()).await.expect("it is taken");
    ebm.tell_alive("x/2", Bytes::new()).await.expect_err("it is not");
    let seen = server.seen.lock().expect("nobody panics with it");
    let id = format!("01{}{:016}", "66201020010010314000001", 0);
    assert_eq!((of(&seen[0], "EBDID"), of(&seen[0], "RptTime")), (vec![&*id], vec!["2026-03-01 09:30:00"]));
    assert_eq!(of(&seen[0], "EBDType"), ["ConnectionCheck"]);
}
