//! `anmin status`, `anmin alarm` and `anmin call` against a served site, over real sockets; the main loop behind it is made up.

mod peers;
mod served;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;

use peers::{Folder, free_port, soon};
use serde_json::{Value, json};
use served::desk::id;
use served::{Served, site};
use tokio::process::Command;

impl Served {
    /// Runs `anmin` with the words of `line`; `_` in a word stands for a blank.
    async fn anmin(&self, line: &str) -> Ran {
        anmin(line, &[("ANMIN_URL", &self.url()), ("USER", "li")]).await
    }
}

struct Ran {
    code: i32,
    out: String,
    err: String,
}

async fn anmin(line: &str, environment: &[(&str, &str)]) -> Ran {
    let words = line.split_whitespace().map(|word| word.replace('_', " "));
    let mut command = Command::new(env!("CARGO_BIN_EXE_anmin"));
    command.args(words).stdin(Stdio::null()).kill_on_drop(true);
    for name in ["ANMIN_URL", "ANMIN_TOKEN_FILE", "CREDENTIALS_DIRECTORY", "SUDO_USER", "LOGNAME", "USER"] {
        command.env_remove(name);
    }
    command.envs(environment.iter().copied());
    let output = soon(line, command.output()).await.expect("the binary runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("output is UTF-8");
    Ran { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
}

/// The alarm of this number by its whole id.
fn whole(line: &str) -> String {
    (1..=6).fold(line.to_owned(), |line, n| line.replace(&format!("#{n}"), &id(n).to_string()))
}

#[tokio::test]
async fn each_command_does_what_it_says_and_says_what_it_did() {
    let site = site(None).await;
    // In this order: each finds the alarms as those before it have left them. Parts of the output, and of the errors.
    let table: &[(&str, i32, &[&str])] = &[
        (
            "alarm list",
            0,
            &["编号 ID", "红色 red", "未确认 unacknowledged", "26.4 %LEL，超过", "above the second limit"],
        ),
        ("alarm list --min-level orange --building 1", 0, &["1号楼2单元5层501 烟雾报警"]),
        (
            "status",
            0,
            &[
                "春晖社区 · Chunhui（chunhui）",
                "1 d 2 h，anmin 0.",
                "红色 red 1，橙色 orange 2",
                "18 ms，失败 failed 0",
                "黄色 yellow，mqtt:site",
                "转存 forwarding tsdb",
                "约 8 min 50 s 后赶上 catches up，待转存 waiting 1204830（9.4 MiB），速度 rate 2310.5/s",
                "，3 h 12 min",
                "已丢弃 dropped 4096",
                "及时 keeps up，待转存 waiting 96",
                "4096 条 readings",
            ],
        ),
        ("alarm list --class care", 0, &["没有未结束的报警 · no open alarms"]),
        (
            "alarm show #1",
            0,
            &[
                "gas/leak（可燃气体泄漏 · Combustible gas leak）",
                "26.4 %LEL，限值 limit red 20",
                "south",
                "raised",
                "关闭总阀",
            ],
        ),
        ("alarm ack #1 --who 李值班", 0, &["已确认 acknowledged：3号楼"]),
        ("alarm show #1", 0, &["确认 acknowledged  红色 red · 已确认 acknowledged    李值班"]),
        ("alarm acknowledge 01900000-0000-7000-8000-000000000003", 0, &["2号楼2单元B1层"]),
        ("alarm shelve #2 --for 30m --why 检修", 0, &["已搁置 shelved"]),
        ("alarm show #2", 0, &["，li：检修"]),
        ("alarm unshelve #2", 0, &["已确认 acknowledged"]),
        ("alarm out-of-service #2 --why 更换", 0, &["已停用 out of service"]),
        ("alarm return-to-service #2", 0, &["已确认 acknowledged"]),
        ("alarm reset #5", 0, &["报警已关闭 · the alarm is closed"]),
        ("alarm show #5", 0, &["橙色 orange · 已关闭 closed", "经过 history"]),
        ("call accept #1 south", 0, &["south", "已应答 accepted", "li"]),
        ("call on-the-way #1 south", 0, &["已出动 on the way"]),
        ("call on-scene #1 south", 0, &["已到场 on scene"]),
        ("call under-control #1 south", 0, &["已控制 under control"]),
        ("call link #1 south", 0, &["赵站长", "/crew/", "有效至 good until"]),
        ("call link #1 south --member nobody", 1, &["was not on duty when the station was called"]),
        ("call decline #1 east --why 车坏了", 0, &["无法出动 declined"]),
        ("station list", 0, &["East micro fire station", "能出动 ready", "器材检查已过期（消防水带）"]),
        ("station check south", 0, &["能出动 ready", "完好 fit，下次 due"]),
        ("station check south hose --unfit --note 漏水", 0, &["器材不可用（消防水带）", "不可用 unfit：漏水"]),
        ("station hand-over east wang zhao --note 少一根水带", 0, &["王强", "赵站长", "，li：少一根水带"]),
        ("station off-duty east --why 训练", 0, &["已停勤（训练）", "off duty (训练)"]),
        ("station on-duty east", 0, &["能出动 ready"]),
        ("station show east", 0, &["0000-0000119"]),
        ("incident show #1", 0, &["处置清单 checklist", "超时 late", "gas/verify", "值班员 officer"]),
        ("incident tick #1 gas/verify", 0, &["燃气"]),
        ("incident skip #1 gas/power --why 已断电", 0, &["燃气"]),
        ("incident called-119 #1 已报告", 0, &["已拨打119 119 called", "，li：已报告"]),
        ("incident show #1", 0, &["✓", "跳过 skipped", "：已断电", "完成步骤 ticked"]),
        ("call stand-down #1", 0, &["已撤回 stood down"]),
        ("order list", 0, &["编号 ID", "#1/1/office", "HTTP 400: no such template", "3号楼"]),
        ("order resend #1/1/office", 0, &["已重新发送 · sent again: #1/1/office"]),
        ("order resend --way-out office", 0, &["#1/1/office"]),
        ("broker discard-session plant", 0, &["已要求代理 plant 丢弃会话", "broker plant is told to discard"]),
        // Refused.
        ("station on-duty east", 1, &["该站未停勤", "is not off duty", "HTTP 409"]),
        ("station hand-over east li", 1, &["lists no member", "zhao, wang", "HTTP 409"]),
        ("station check nowhere", 1, &["there is no station", "HTTP 404"]),
        ("station show nowhere", 1, &["configured are: east, south"]),
        ("broker discard-session plan/t", 1, &["没有名为 \"plan/t\" 的外部代理", "configured are: plant", "HTTP 404"]),
        ("order resend #2/1/office", 1, &["没有这样的死信", "there is no such dead letter", "HTTP 404"]),
        ("alarm reset #1", 1, &["错误：报警", "不能复位", "error: alarm", "cannot be reset", "HTTP 409"]),
        ("alarm shelve #1 --for 30m --why 检修", 1, &["错误：", "HTTP 409"]),
        ("alarm ack #5", 1, &["没有处于打开状态的报警", "there is no open alarm", "HTTP 404"]),
        (
            "alarm ack 0190",
            1,
            &["编号以 0190 开头的报警有 5 个", "write more of it", "000000000001", "000000000006", "烟雾报警"],
        ),
        ("alarm ack 0191", 1, &["没有编号以 0191 开头", "begins with 0191", "提示：", "`anmin alarm list` shows"]),
        ("alarm ack gas/leak", 1, &["is not the beginning of an alarm's id"]),
        ("alarm show 01900000-0000-7000-8000-0000000000ff", 1, &["there is no open alarm"]),
        ("alarm list --class x", 1, &["is not one of gas", "HTTP 400"]),
        ("call accept #1 nobody", 1, &["没有就报警", "has not been called", "HTTP 404"]),
        ("call accept #1 ../..", 1, &["has not been called"]),
        ("call accept #2", 1, &["no station is on call"]),
        ("alarm ack #1 --who x\u{7}y", 1, &["control characters", "who 填操作人的姓名"]),
        // Used wrongly.
        ("alarm ack", 2, &["<ALARM>"]),
        ("order resend", 2, &["<ORDER>"]),
        ("alarm list --min-level purple", 2, &["possible values: blue, yellow, orange, red"]),
        ("alarm shelve #2 --for 30 --why x", 2, &["such as 30m or 2h"]),
        ("alarm shelve #2 --for 30m", 2, &["--why"]),
        ("call decline #1 east", 2, &["--why"]),
        ("station check south --unfit", 2, &["--note"]),
        ("incident skip #1 gas/verify", 2, &["--why"]),
        ("alarm list --url 127.0.0.1:8420", 2, &["错误：", "error: ", "http://127.0.0.1:8420"]),
        ("alarm list --token-file /nowhere", 2, &["token file /nowhere", "No such file"]),
        ("alarm list --site /nowhere", 2, &["/nowhere: cannot be read: there is no such file"]),
    ];
    for (line, code, parts) in table {
        let ran = site.anmin(&whole(line)).await;
        let (said, silent) = if *code == 0 { (&ran.out, &ran.err) } else { (&ran.err, &ran.out) };
        assert_eq!(ran.code, *code, "{line}: {}{}", ran.out, ran.err);
        assert_eq!(silent, "", "{line}");
        for part in *parts {
            assert!(said.contains(&whole(part)), "{line}: no {part:?} in\n{said}");
        }
    }
}

#[tokio::test]
async fn several_called_stations_are_named_not_guessed() {
    let site = site(None).await;
    let ran = site.anmin(&whole("call accept #1")).await;
    assert_eq!(ran.code, 1, "{}", ran.err);
    for part in ["就该报警呼叫了多个消防站", "name the station after the alarm", "south", "east"] {
        assert!(ran.err.contains(part), "no {part:?} in\n{}", ran.err);
    }
}

#[tokio::test]
async fn programs_get_the_apis_json() {
    let site = site(None).await;
    let json_of = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let listed = json_of(&site.anmin("alarm list --json").await.out);
    assert_eq!((listed["alarms"].as_array().map(Vec::len), &listed["alarms"][0]["level"]), (Some(6), &json!("red")));
    let status = json_of(&site.anmin("status --json").await.out);
    assert_eq!((&status["databases"][0]["id"], &status["gaps"]["count"]), (&json!("tsdb"), &json!(1)));
    let shown = json_of(&site.anmin(&whole("alarm --json show #1")).await.out);
    assert_eq!((&shown["alarm"]["rule"], &shown["calls"][0]["station"]), (&json!("gas/leak"), &json!("south")));
    assert_eq!(shown["history"][0]["transition"]["cause"], json!("raised"));
    let acted = json_of(&site.anmin(&whole("alarm ack #1 --json")).await.out);
    assert_eq!(acted["alarm"]["acknowledged"]["by"], json!("li"));
    let refused = site.anmin(&whole("alarm reset #1 --json")).await;
    let problem = json_of(&refused.err);
    assert_eq!((refused.code, refused.out.as_str(), &problem["code"]), (1, "", &json!("still_active")));
    assert!(problem["error"]["zh"].as_str().is_some_and(|zh| zh.contains("不能复位")), "{problem}");
}

#[tokio::test]
async fn a_site_says_where_its_daemon_is_and_what_token_it_asks_for() {
    let token = "correct-horse-battery-staple";
    let site = site(Some(token)).await;
    let folder = Folder::new("command-line");
    let token_file = folder.write("token", &format!("{token}\n"));
    // Only [web] is read: that the rest is unsound must keep nobody from acknowledging.
    let config = format!("[web]\nlisten = \"{}\"\ntoken_file = \"token\"\n[cap]\nx = 1\n", site.address);
    folder.write("anmin.toml", &config);
    let at = folder.0.display();
    let (url, who) = (site.url(), ("USER", "li"));
    let told = anmin(&format!("alarm list --site {at}"), &[who]).await;
    assert_eq!(told.code, 0, "{}", told.err);
    let told = anmin("alarm list", &[("ANMIN_URL", &url), ("ANMIN_TOKEN_FILE", &token_file)]).await;
    assert_eq!(told.code, 0, "{}", told.err);
    let refused = anmin("alarm list", &[("ANMIN_URL", &url)]).await;
    assert_eq!(refused.code, 1);
    for part in ["需要访问口令", "the access token is missing or wrong", "HTTP 401"] {
        assert!(refused.err.contains(part), "no {part:?} in\n{}", refused.err);
    }
    let nobody = anmin(&whole("alarm ack #1"), &[("ANMIN_URL", &url), ("ANMIN_TOKEN_FILE", &token_file)]).await;
    assert_eq!(nobody.code, 2);
    assert!(nobody.err.contains("请用 --who 写明姓名"), "{}", nobody.err);
}

/// A port where nobody listens, and one where somebody else does.
#[tokio::test]
async fn a_daemon_that_is_not_there_is_said_with_its_address() {
    let nobody = format!("http://127.0.0.1:{}", free_port());
    let other = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port of this machine");
    let stranger = format!("http://{}", other.local_addr().expect("it is bound"));
    tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        while let Ok((mut stream, _)) = other.accept().await {
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 5\r\n\r\nnginx").await;
        }
    });
    for (url, why) in [(&nobody, "refused"), (&stranger, "not in the words of anmin")] {
        let ran = anmin("alarm list", &[("ANMIN_URL", url)]).await;
        assert_eq!((ran.code, ran.out.as_str()), (3, ""), "{}", ran.err);
        for part in ["无法连接", "cannot reach anmin at", url.as_str(), why, "--site", "systemctl status anmin"] {
            assert!(ran.err.contains(part), "no {part:?} in\n{}", ran.err);
        }
    }
}

/// `docs/command-line.md` shows the help of every command as the binary gives it. To write it anew:
/// `UPDATE_GOLDEN=1 cargo test -p anmin --test command_line`.
#[tokio::test]
async fn the_reference_shows_every_command_as_its_help_does() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/command-line.md");
    let text = std::fs::read_to_string(&path).expect("the reference is there");
    let mut written = String::new();
    let mut shown = BTreeSet::new();
    let mut known = BTreeSet::from(["anmin".to_owned()]);
    for (n, part) in text.split("```console\n$ ").enumerate() {
        if n == 0 {
            written.push_str(part);
            continue;
        }
        let (_, after) = part.split_once("```\n").expect("a block has an end");
        let command = part.lines().next().and_then(|line| line.strip_suffix(" --help")).expect("a block shows a help");
        let help = anmin(&format!("{} --help", command.trim_start_matches("anmin")), &[]).await;
        assert_eq!(help.code, 0, "{command}: {}", help.err);
        let subcommands =
            help.out.split_once("Commands:\n").map_or("", |(_, rest)| rest.split("\n\n").next().unwrap_or(""));
        for word in subcommands.lines().filter_map(|line| line.split_whitespace().next()).filter(|word| *word != "help")
        {
            known.insert(format!("{command} {word}"));
        }
        shown.insert(command.to_owned());
        written.push_str(&format!("```console\n$ {command} --help\n{}\n```\n{after}", help.out.trim_end()));
    }
    assert_eq!(known.difference(&shown).collect::<Vec<_>>(), Vec::<&String>::new(), "not in docs/command-line.md");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &written).expect("the reference can be written");
    } else {
        assert!(text == written, "docs/command-line.md differs from the help; UPDATE_GOLDEN=1 writes it anew");
    }
}

/// A secret that only systemd may read is named and not pathed, and leads nowhere else.
#[tokio::test]
async fn a_credential_is_found_by_its_name_alone() {
    let folder = Folder::new("credential");
    let site = "[site]\nid = \"a\"\n[web]\nlisten = \"127.0.0.1:0\"\ntoken_file = \"credential:web\"\n";
    std::fs::write(folder.0.join("anmin.toml"), site).expect("the folder can be written");
    let handed = folder.0.join("handed");
    std::fs::create_dir(&handed).expect("the folder can be written");
    let check = format!("check {}", folder.0.display());
    let environment = handed.display().to_string();
    let environment = [("CREDENTIALS_DIRECTORY", environment.as_str())];
    let missing = anmin(&check, &environment).await;
    let named = format!("`web.token_file`: {}", handed.join("web").display());
    assert!(missing.code != 0 && [missing.out, missing.err].concat().contains(&named), "{named}");
    std::fs::write(handed.join("web"), "a-long-enough-token-of-the-desk-0123456789\n").expect("it can be written");
    let found = anmin(&check, &environment).await;
    assert_eq!(found.code, 0, "{}{}", found.out, found.err);
    // Somebody who checks by hand is told where the service would look.
    let by_hand = anmin(&check, &[]).await;
    let said = [by_hand.out, by_hand.err].concat();
    assert!(by_hand.code != 0 && said.contains("/run/credentials/anmin.service/web"), "{said}");
}
