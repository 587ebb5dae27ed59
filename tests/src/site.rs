//! A site in a folder of its own.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::daemon::binary;

/// Removed with everything in it when dropped, unless the test is failing.
pub struct Site {
    folder: PathBuf,
}

impl Site {
    /// A folder with `anmin.toml`: the head that every site has, then `more`.
    pub fn new(name: &str, more: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let target = binary().parent().expect("the binary lies in a folder").to_owned();
        let folder = target.join("acceptance").join(format!("{name}-{}-{number}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        let site = Self { folder };
        site.write("anmin.toml", &format!("{HEAD}{more}"));
        site
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        let folder = path.parent().expect("a file stands in a folder");
        std::fs::create_dir_all(folder).expect("the target folder can be written");
        std::fs::write(path, text).expect("the target folder can be written");
    }

    /// Makes a certificate for `localhost` that ends `days` after now, signed by itself.
    pub fn certificate(&self, name: &str, days: i32) {
        let run = |program: &str, arguments: &[&str]| {
            let once = || {
                let ran = Command::new(program).args(arguments).current_dir(self.folder()).output();
                ran.unwrap_or_else(|error| panic!("{program}: {error}; tests/setup.sh installs it"))
            };
            // faketime names a semaphore by its process, and one that was ended long ago may have left it behind.
            let left_behind = |ran: &Output| String::from_utf8_lossy(&ran.stderr).contains("sem_open: File exists");
            let ran = (0..8).map(|_| once()).find(|ran| !left_behind(ran)).expect("few have left anything behind");
            assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        };
        // Made 40 days ago.
        let days = (days + 40).to_string();
        let (key, pem) = (format!("{name}.key"), format!("{name}.pem"));
        run(
            "faketime",
            &[
                "-f",
                "-40d",
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
                "-subj",
                "/CN=localhost",
                "-addext",
                "subjectAltName=DNS:localhost",
                "-addext",
                "basicConstraints=critical,CA:FALSE",
                "-days",
                &days,
                "-keyout",
                &key,
                "-out",
                &pem,
            ],
        );
        std::fs::set_permissions(self.path(&key), std::fs::Permissions::from_mode(0o600)).expect("it is ours");
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

const HEAD: &str = r#"
[site]
id = "acceptance"
name = { zh = "验收社区", en = "Acceptance" }
exercise = true

[web]
listen = "127.0.0.1:0"

[[station]]
id = "st-1"
name = { zh = "一号站", en = "Station 1" }
phone = "0000-0000001"

[[station]]
id = "st-2"
name = "二号站"

[[place]]
id = "b1"
grid = "W01"
building = "1"
position = [36.0611, 103.8343]
stations = ["st-1", "st-2"]
"#;

/// Gas detectors on the embedded broker, taken in as they speak: `acceptance/<device>/up`.
pub const GAS_AS_IT_SPEAKS: &str = r#"
[broker]
listen = "127.0.0.1:0"
  [[broker.mapping]]
  topic = "acceptance/{device}/up"
  payload = "json"
  device = "{device}"
  unknown = "provision"
  profile = "anmin-json-gas"
  location = { place = "b1" }
"#;
