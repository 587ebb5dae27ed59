//! anmin as a service of the system: its units, what `anmin install` puts where, and the Debian package made of it.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anmin_tests::daemon::{anmin, binary, earlier};

/// A folder of a test, gone with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("service-{name}"));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).expect("the target folder can be written");
        Self(folder)
    }

    /// A machine's root with anmin on it: `anmin install --root`.
    fn installed(name: &str) -> Self {
        let root = Self::new(name);
        let ran = anmin(&["install", "--root", plain(&root)]);
        assert!(ran.status.success(), "{}", said(&ran));
        root
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl std::ops::Deref for Folder {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

fn plain(path: &Path) -> &str {
    path.to_str().expect("a plain name")
}

fn said(ran: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr))
}

/// Runs a program of the system to its end.
fn run(program: &str, arguments: &[&str]) -> Output {
    let ran = Command::new(program).args(arguments).output();
    ran.unwrap_or_else(|error| panic!("{program}: {error}; tests/setup.sh installs it"))
}

fn drop_ins() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ stands in the root").join("systemd/drop-ins")
}

/// The units of a root, with drop-ins, in a folder of their own: `systemd-analyze` reads what lies there.
fn units(root: &Path, with: &[&str]) -> PathBuf {
    let folder = root.join("units");
    let _ = fs::remove_dir_all(&folder);
    let own = folder.join("anmin.service.d");
    fs::create_dir_all(&own).expect("the folder is ours");
    for unit in ["anmin.service", "anmin-backup.service", "anmin-backup.timer"] {
        let text = fs::read_to_string(root.join("usr/lib/systemd/system").join(unit)).expect("it is installed");
        // So that a command that is not there is a finding.
        fs::write(folder.join(unit), text.replace("/usr/bin/anmin", plain(&binary()))).expect("the folder is ours");
    }
    for drop_in in with {
        fs::copy(drop_ins().join(drop_in), own.join(drop_in)).expect("the drop-in is there");
    }
    folder
}

/// Exposure as `systemd-analyze security` of version 252 counts it, from 0 to 10: the least that still reaches the network,
/// and serial lines with the drop-in for them.
#[test]
fn an_attacker_gets_next_to_nothing() {
    let root = Folder::installed("security");
    for (unit, with, most) in [
        ("anmin.service", [].as_slice(), 1.2),
        ("anmin.service", &["credentials.conf"], 1.2),
        ("anmin.service", &["storage.conf"], 1.2),
        ("anmin.service", &["serial.conf"], 1.4),
        ("anmin.service", &["serial.conf", "peers.conf"], 1.3),
        ("anmin-backup.service", &[], 0.3),
    ] {
        let path = units(&root, with).join(unit);
        let ran = run("systemd-analyze", &["security", "--offline=true", "--no-pager", plain(&path)]);
        let table = said(&ran);
        let line =
            table.lines().find(|line| line.contains("Overall exposure level")).unwrap_or_else(|| panic!("{table}"));
        let figure = line.split_once(": ").and_then(|(_, rest)| rest.split(' ').next()?.parse::<f64>().ok());
        println!("{unit} {with:?}: {figure:?}, at most {most}");
        assert!(figure.is_some_and(|figure| figure <= most), "{table}");
    }
}

#[test]
fn the_units_are_what_systemd_understands() {
    let all: Vec<String> = fs::read_dir(drop_ins())
        .expect("the drop-ins are there")
        .map(|entry| entry.expect("it can be read").file_name().to_string_lossy().into_owned())
        .collect();
    assert!(all.len() >= 3, "{all:?}");
    let root = Folder::installed("verify");
    let folder = units(&root, &all.iter().map(String::as_str).collect::<Vec<_>>());
    for unit in ["anmin.service", "anmin-backup.timer", "anmin-backup.service"] {
        let path = folder.join(unit);
        let ran = run("systemd-analyze", &["verify", "--man=no", plain(&path)]);
        assert!(ran.status.success() && said(&ran).is_empty(), "{unit}: {}", said(&ran));
        let ran = run("systemd-analyze", &["verify", "--man=no", "/nowhere/anmin.service"]);
        assert!(!ran.status.success(), "a unit that is not there is a finding");
    }
    for name in &all {
        assert!(root.join("usr/share/anmin/drop-ins").join(name).is_file(), "{name} is not installed");
    }
    let text = fs::read_to_string(folder.join("anmin.service")).expect("it is there");
    for promise in
        ["Type=notify", "WatchdogSec=60", "Restart=always", "StartLimitIntervalSec=0", "StateDirectory=anmin"]
    {
        assert!(text.lines().any(|line| line == promise), "{promise}");
    }
}

/// The site may be read by anmin and by nobody else, written by people alone; the databases are anmin's own.
#[test]
fn the_user_and_the_folders_are_made_as_the_site_needs_them() {
    let from = Folder::installed("user-from");
    let root = Folder::new("user");
    let root_flag = format!("--root={}", root.display());
    fs::create_dir(root.join("etc")).expect("the folder is ours");
    for (kind, name) in [("sysusers.d", "anmin.conf"), ("tmpfiles.d", "anmin.conf")] {
        let to = root.join("usr/lib").join(kind);
        fs::create_dir_all(&to).expect("the folder is ours");
        fs::copy(from.join("usr/lib").join(kind).join(name), to.join(name)).expect("it is installed");
    }
    let ran = run("systemd-sysusers", &[&root_flag]);
    assert!(ran.status.success(), "{}", said(&ran));
    let ran = run("systemd-tmpfiles", &["--create", &root_flag]);
    assert!(ran.status.success(), "{}", said(&ran));
    let users = fs::read_to_string(root.join("etc/passwd")).expect("sysusers writes it");
    assert!(users.lines().any(|line| line.starts_with("anmin:") && line.ends_with("/nologin")), "{users}");
    for (folder, mode) in
        [("etc/anmin", 0o2750), ("etc/anmin/secrets", 0o2750), ("var/lib/anmin", 0o700), ("var/backups/anmin", 0o700)]
    {
        let found = fs::metadata(root.join(folder)).expect("tmpfiles makes it").permissions().mode() & 0o7777;
        assert_eq!(format!("{found:o}"), format!("{mode:o}"), "{folder}");
    }
}

/// Every command by its words, as the helps tell them: `anmin`, `anmin alarm`, `anmin alarm ack`.
fn commands() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open = vec![Vec::<String>::new()];
    while let Some(words) = open.pop() {
        let line: Vec<&str> = words.iter().map(String::as_str).chain(["--help"]).collect();
        let help = said(&anmin(&line));
        let below = help.split_once("Commands:\n").map_or("", |(_, rest)| rest.split("\n\n").next().unwrap_or(""));
        for word in below.lines().filter_map(|line| line.split_whitespace().next()).filter(|word| *word != "help") {
            open.push(words.iter().map(String::as_str).chain([word]).map(str::to_owned).collect());
        }
        found.insert([&["anmin".to_owned()], words.as_slice()].concat().join(" "));
    }
    found
}

#[test]
fn every_command_has_its_page_of_the_manual_and_is_completed() {
    let root = Folder::installed("manual");
    let commands = commands();
    assert!(commands.len() > 30 && commands.contains("anmin alarm ack"), "{commands:?}");
    let pages: BTreeSet<String> = fs::read_dir(root.join("usr/share/man/man1"))
        .expect("the manual is installed")
        .map(|entry| entry.expect("it can be read").file_name().to_string_lossy().replace(".1.gz", ""))
        .collect();
    assert_eq!(pages, commands.iter().map(|command| command.replace(' ', "-")).collect());
    let page = run("zcat", &[plain(&root.join("usr/share/man/man1/anmin-backup.1.gz"))]);
    for words in [".TH anmin-backup 1", "Save both databases", "--keep".replace('-', "\\-").as_str()] {
        assert!(said(&page).contains(words), "no {words:?} in\n{}", said(&page));
    }

    let completion = |path: &str| fs::read_to_string(root.join(path)).expect("it is installed");
    for (path, first) in [
        ("usr/share/zsh/vendor-completions/_anmin", "#compdef anmin"),
        ("usr/share/fish/vendor_completions.d/anmin.fish", "complete -c anmin"),
    ] {
        let script = completion(path);
        assert!(script.contains(first), "{path}");
        for word in commands.iter().filter_map(|command| command.rsplit(' ').next()) {
            assert!(script.contains(word), "{path}: nothing completes {word}");
        }
    }
    // In a shell of its own, as a person who presses the tabulator.
    let script = root.join("usr/share/bash-completion/completions/anmin");
    let press = r#". "$0"; COMP_WORDS=(anmin alarm sh); COMP_CWORD=2; _anmin anmin sh alarm; echo "${COMPREPLY[@]}""#;
    let ran = run("bash", &["-c", press, plain(&script)]);
    assert_eq!(said(&ran).split_whitespace().collect::<BTreeSet<_>>(), ["shelve", "show"].into(), "{}", said(&ran));
}

/// Makes the package of this build as `version`.
fn package(to: &Path, binary: &Path, version: &str) -> PathBuf {
    let build = drop_ins().parent().expect("it stands in systemd/").join("deb/build.sh");
    let [build, binary, to] = [build, binary.to_owned(), to.to_owned()].map(|path| path.to_string_lossy().into_owned());
    let ran = run("sh", &[&build, &binary, &to, version, "none"]);
    assert!(ran.status.success(), "{}", said(&ran));
    PathBuf::from(String::from_utf8_lossy(&ran.stdout).trim())
}

#[test]
fn the_package_holds_what_is_installed_by_hand_and_owns_no_site() {
    let root = Folder::installed("by-hand");
    let packages = Folder::new("package");
    let package = package(&packages, &binary(), "1.2.3");
    let listed = said(&run("dpkg-deb", &["--contents", plain(&package)]));
    let mut held = BTreeSet::new();
    for line in listed.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [mode, owner, .., path] = words[..] else { panic!("{line}") };
        assert_eq!(owner, "root/root", "{line}");
        let wanted = match (path.ends_with('/'), path.ends_with("bin/anmin")) {
            (true, _) => "drwxr-xr-x",
            (_, true) => "-rwxr-xr-x",
            _ => "-rw-r--r--",
        };
        assert_eq!(mode, wanted, "{line}");
        if !path.ends_with('/') {
            held.insert(path.trim_start_matches("./").to_owned());
        }
    }
    let mut by_hand = BTreeSet::from(["changelog.gz", "copyright"].map(|name| format!("usr/share/doc/anmin/{name}")));
    let mut open = vec![root.to_path_buf()];
    while let Some(at) = open.pop() {
        for entry in fs::read_dir(&at).expect("it is ours") {
            let path = entry.expect("it is ours").path();
            match path.is_dir() {
                true => open.push(path),
                false => drop(by_hand.insert(path.strip_prefix(&*root).expect("below it").display().to_string())),
            }
        }
    }
    assert_eq!(held, by_hand);
    assert!(!held.iter().any(|path| path.starts_with("etc/") || path.starts_with("var/")), "{held:?}");
    let control = said(&run("dpkg-deb", &["--field", plain(&package)]));
    for line in ["Package: anmin", "Version: 1.2.3", "Section: net"] {
        assert!(control.lines().any(|found| found == line), "{control}");
    }
    assert!(!control.contains('@'), "{control}");
}

fn init(site: &Path, flags: &[&str]) -> Output {
    anmin(&[["init", plain(site)].as_slice(), flags].concat())
}

#[test]
fn a_new_site_is_sound_and_no_site_is_written_over() {
    let folder = Folder::new("init");
    let least = ["--id", "chunhui"].as_slice();
    let most = [
        "--id=chunhui",
        "--name=春晖社区",
        "--name-en=Chunhui \"C\"",
        "--area-code=620102001001",
        "--buildings=1,2,院内,A3",
        "--station=春晖站",
        "--phone=0000-0000119",
        "--zigbee=mqtt://192.168.1.5",
        "--modbus=192.168.1.20",
        "--serial=/dev/ttyUSB0",
        "--listen=0.0.0.0:8420",
        "--storage=/srv/anmin",
    ];
    for (name, flags, parts) in [
        ("least", least, ["sound. 0 devices", "0 buses, 1 stations"]),
        ("most", &most, ["sound. 0 devices", "2 buses, 1 stations"]),
    ] {
        let site = folder.join(name);
        let ran = init(&site, flags);
        assert!(ran.status.success(), "{}", said(&ran));
        for part in ["下一步", "next: ", "演习", "exercise = false"] {
            assert!(said(&ran).contains(part), "{}", said(&ran));
        }
        let checked = anmin(&["check", plain(&site)]);
        parts.iter().for_each(|part| assert!(said(&checked).contains(part), "{}", said(&checked)));
        let secret = fs::metadata(site.join("secrets/web")).map(|meta| meta.permissions().mode() & 0o777);
        assert_eq!(secret.ok(), (name == "most").then_some(0o640), "a page for others asks for a token");

        // The examples in it are as good as the rest, once they are taken in.
        let ways_out = site.join("anmin.d/60-ways-out.toml");
        let text = fs::read_to_string(&ways_out).expect("it was written");
        let taken_in: Vec<&str> = text
            .lines()
            .map(|line| {
                line.strip_prefix("# ").filter(|rest| rest.starts_with("[[") || rest.contains(" = ")).unwrap_or(line)
            })
            .collect();
        fs::write(&ways_out, taken_in.join("\n")).expect("it is ours");
        fs::create_dir_all(site.join("secrets")).expect("it is ours");
        fs::write(site.join("secrets/town"), "0123456789abcdef\n").expect("it is ours");
        fs::write(site.join("secrets/duty-group"), "https://robot.example.cn/send?key=1\n").expect("it is ours");
        let checked = anmin(&["check", plain(&site)]);
        assert!(checked.status.success(), "{}", said(&checked));

        let again = init(&site, flags);
        assert!(!again.status.success() && said(&again).contains("is there already"), "{}", said(&again));
        assert_eq!(fs::read_to_string(&ways_out).expect("it is there"), taken_in.join("\n"));
    }
}

/// A small Debian has no zone files: Shanghai is known all the same.
#[test]
fn a_machine_without_time_zones_starts_a_site() {
    let site = Folder::new("zoneless");
    let _ = fs::remove_dir_all(&*site);
    let made = init(&site, &["--id", "zoneless", "--name", "无时区"]);
    assert!(made.status.success(), "{}", said(&made));
    let hidden = "mount -t tmpfs tmpfs /usr/share/zoneinfo && exec \"$0\" check \"$1\"";
    let binary = anmin_tests::daemon::binary();
    let checked = run("unshare", &["-rm", "sh", "-c", hidden, plain(&binary), plain(&site)]);
    if said(&checked).contains("unshare failed") {
        return println!("left out: the kernel gives us no mount namespace: {}", said(&checked));
    }
    assert!(checked.status.success(), "{}", said(&checked));
}

#[test]
fn what_makes_no_site_leaves_nothing_behind() {
    let folder = Folder::new("init-faulty");
    for (flag, part) in [
        ("--id=春晖", "expected letters, digits"),
        ("--listen=everywhere", "expected an address and a port"),
        ("--area-code=12", "expected 12 digits"),
        ("--zigbee=http://x", "url"),
    ] {
        let site = folder.join("site");
        let ran = init(&site, &["--id=chunhui", flag][usize::from(flag.starts_with("--id"))..]);
        assert!(!ran.status.success() && said(&ran).contains(part), "{flag}: {}", said(&ran));
        assert!(said(&ran).contains("没有留下任何文件"), "{flag}: {}", said(&ran));
        assert!(!site.exists(), "{flag}");
        // What a package has made keeps its owner, its mode and the group that the daemon reads by.
        let packaged = folder.join("packaged");
        fs::create_dir_all(packaged.join("secrets")).expect("the folder is ours");
        let mode = |path: &Path| fs::metadata(path).map(|meta| meta.permissions().mode() & 0o7777).ok();
        for made in [packaged.join("secrets"), packaged.clone()] {
            fs::set_permissions(&made, fs::Permissions::from_mode(0o2750)).expect("the folder is ours");
        }
        let ran = init(&packaged, &["--id=chunhui", flag][usize::from(flag.starts_with("--id"))..]);
        assert!(!ran.status.success(), "{flag}");
        assert_eq!([mode(&packaged), mode(&packaged.join("secrets"))], [Some(0o2750); 2], "{flag}");
        assert_eq!(fs::read_dir(&packaged).expect("it is there").count(), 1, "{flag}");
    }
}

/// A person at a terminal, and one who goes away in the middle.
#[test]
fn what_no_flag_says_is_asked_for_in_both_languages() {
    let folder = Folder::new("init-asked");
    let answer = |site: &str, lines: &str| {
        let mut child = Command::new(binary())
            .args(["init", plain(&folder.join(site)), "--phone", "119"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary can be started");
        child.stdin.take().expect("it is piped").write_all(lines.as_bytes()).expect("it reads");
        child.wait_with_output().expect("it ends")
    };
    let ran = answer("whole", "chunhui\n春晖社区\n\n1，2\n\n\n192.168.1.20\n\n");
    assert!(ran.status.success(), "{}", said(&ran));
    for part in ["社区标识", "id of the community", "[春晖社区]", "serial line of this machine"] {
        assert!(said(&ran).contains(part), "no {part:?} in {}", said(&ran));
    }
    let of = |name: &str| fs::read_to_string(folder.join("whole").join(name)).expect("it was written");
    assert!(of("anmin.toml").contains("en = \"春晖社区\""), "{}", of("anmin.toml"));
    assert!(of("anmin.d/20-places.toml").contains("id = \"b2\""), "{}", of("anmin.d/20-places.toml"));
    assert!(of("anmin.d/10-stations.toml").contains("phone = \"119\""));
    assert!(anmin(&["check", plain(&folder.join("whole"))]).status.success());

    let ran = answer("half", "chunhui\n");
    assert!(!ran.status.success() && said(&ran).contains("there was no answer"), "{}", said(&ran));
    assert!(!folder.join("half").exists());
}

/// What a person does with the package, in a root of its own: one line of what is said for each step that is as it should be.
const LIFE: &str = r#"
set -eu
mount -t tmpfs tmpfs "$AT"
mkdir "$AT/upper" "$AT/work" "$AT/root"
mount -t overlay overlay -o "lowerdir=$BASE,upperdir=$AT/upper,workdir=$AT/work" "$AT/root"
mkdir -p "$AT/root/proc" "$AT/root/dev" "$AT/root/packages"
mount -t proc proc "$AT/root/proc"
mount --rbind /dev "$AT/root/dev"
cp "$OLD" "$AT/root/packages/old.deb"
cp "$NEW" "$AT/root/packages/new.deb"
ip link set lo up
cat >"$AT/root/packages/life" <<'END'
set -eu
export DEBIAN_FRONTEND=noninteractive PATH=/usr/sbin:/usr/bin:/sbin:/bin
rm -rf /etc/anmin /var/lib/anmin /var/backups/anmin
daemon=
trap '[ -z "$daemon" ] || kill -KILL $daemon 2>/dev/null || true' EXIT
soon() {
    # 40 s, as every deadline of these tests.
    for _ in $(seq 400); do
        if "$@"; then return; fi
        sleep 0.1
    done
    cat /packages/log /packages/status
    exit 1
}
answers() {
    kill -0 $daemon && anmin status --json >/packages/status 2>&1
}
started() {
    [ "$(anmin audit list --json | grep -o '"system.start"' | wc -l)" = "$1" ]
}
up() {
    # As the unit has it.
    (umask 077 && exec setpriv --reuid=anmin --regid=anmin --init-groups anmin run /etc/anmin) 2>/packages/log &
    daemon=$!
    soon answers
}
down() {
    kill -TERM $daemon
    wait $daemon
    daemon=
}
dpkg --install /packages/old.deb >/packages/said
grep -q 'next: anmin init' /packages/said
id anmin >/dev/null
echo installed
anmin init --id life --name 包 >/dev/null
[ "$(stat -c %U:%G:%a /etc/anmin/anmin.toml)" = root:anmin:640 ]
[ "$(stat -c %U:%G:%a /var/lib/anmin)" = anmin:anmin:700 ]
sha256sum /etc/anmin/anmin.toml /etc/anmin/anmin.d/* >/packages/before
up
down
[ "$(stat -c %U:%a /var/lib/anmin/state.db)" = anmin:600 ]
echo watched
dpkg --install /packages/new.deb >/packages/said
! grep -q 'anmin init' /packages/said
sha256sum --quiet --check /packages/before
grep -q 'saved in /var/backups/anmin/before-9.9.9 ' /packages/said
saved=/var/backups/anmin/before-9.9.9/anmin-backup.json
[ "$(stat -c %U:%G:%a /var/backups/anmin/before-9.9.9)" = anmin:anmin:700 ]
grep -q '"path": "state.db"' $saved
echo saved
# Where no backup can be made nothing is upgraded, and what was there is there and goes on.
mv /var/backups/anmin /var/backups/away
touch /var/backups/anmin
up
! dpkg --install /packages/old.deb >/packages/said 2>&1
grep -q 'no backup could be made, so nothing was upgraded' /packages/said
dpkg --status anmin | grep -q '^Status: install ok installed$'
dpkg --status anmin | grep -q '^Version: 9.9.9$'
answers
down
ANMIN_UPGRADE_WITHOUT_BACKUP=yes dpkg --install /packages/old.deb >/packages/said 2>&1
grep -q 'upgraded all the same' /packages/said
rm /var/backups/anmin
mv /var/backups/away /var/backups/anmin
# The databases are of the new version by now: the old one can neither run on them nor save them, and is no reason to stay with it.
dpkg --install /packages/new.deb >/packages/said
dpkg --install /packages/new.deb >/packages/said
# Both are there, since one of this name was.
[ "$(ls -d /var/backups/anmin/before-9.9.9* | wc -l)" = 2 ]
echo refused
up
soon started 3
setpriv --reuid=anmin --regid=anmin --init-groups anmin backup --keep 1 /var/backups/anmin >/dev/null
[ "$(stat -c %U /var/lib/anmin/last-backup.json)" = anmin ]
setpriv --reuid=anmin --regid=anmin --init-groups anmin fsck >/dev/null
down
echo upgraded
dpkg --remove anmin >/dev/null
[ ! -e /usr/bin/anmin ]
[ ! -e /usr/lib/systemd/system/anmin.service ]
sha256sum --quiet --check /packages/before
[ -e /var/lib/anmin/state.db ]
echo removed
dpkg --purge anmin >/dev/null
[ ! -e /etc/anmin ]
[ ! -e /var/lib/anmin ]
[ -n "$(ls /var/backups/anmin)" ]
# What is left: the backup, and the user that it belongs to.
find /etc /usr /var /opt -xdev -path '*anmin*' ! -path '/var/backups/anmin*' -newer /packages/old.deb
echo purged
END
chroot "$AT/root" sh /packages/life
"#;

/// Goal: the package is installed, upgraded over the same state, which is saved before, removed and purged, and nobody's site
/// is touched on the way; where nothing can be saved the version in place stays. Method: the layer over this machine's root, or over that of another Debian at `ANMIN_DEBIAN_ROOT`, is thrown away
/// afterwards; dpkg and the package's scripts are the real ones. It needs root: where it is not, it says so.
#[test]
fn a_package_is_installed_upgraded_removed_and_purged_and_the_site_is_the_people_s() {
    let tried = run("unshare", &["-mn", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]);
    if !tried.status.success() {
        println!("left out: it takes root to install a package: {}", said(&tried));
        return;
    }
    let packages = Folder::new("life");
    // In a clone without its history the package before is this one by another number.
    let before = earlier().unwrap_or_else(binary);
    let (old, new) = (package(&packages, &before, "0.0.1"), package(&packages, &binary(), "9.9.9"));
    let at = packages.join("at");
    fs::create_dir(&at).expect("it is ours");
    let base = std::env::var("ANMIN_DEBIAN_ROOT").unwrap_or_else(|_| "/".to_owned());
    let ran = Command::new("unshare")
        .args(["-mn", "sh", "-c", LIFE])
        .envs([("AT", plain(&at)), ("OLD", plain(&old)), ("NEW", plain(&new)), ("BASE", &base)])
        .stdin(Stdio::null())
        .output()
        .expect("tests/setup.sh installs unshare");
    let told = String::from_utf8_lossy(&ran.stdout);
    assert_eq!(told.trim(), "installed\nwatched\nsaved\nrefused\nupgraded\nremoved\npurged", "{}", said(&ran));
    assert!(ran.status.success(), "{}", said(&ran));
}
