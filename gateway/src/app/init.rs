//! `anmin init`: the files of a new site, by subject, that pass `anmin check`. What is there is never written over.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anmin_rules::rule::Text;
use clap::Args;
use ring::rand::{SecureRandom as _, SystemRandom};

use super::keep::{Problem, end, say};
use crate::config::{self, Config};

/// `anmin init`.
#[derive(Debug, Args)]
#[command(after_help = "Without --id it asks for what no flag says, and Enter takes what stands in [ ].")]
pub struct Options {
    /// The folder of the new site.
    #[arg(default_value = "/etc/anmin")]
    site: PathBuf,
    /// Letters, digits, - and _: part of topics and CAP identifiers. Do not change it later.
    #[arg(long)]
    id: Option<String>,
    /// What people call the community.
    #[arg(long)]
    name: Option<String>,
    /// The same in English.
    #[arg(long)]
    name_en: Option<String>,
    /// Its 12-digit administrative division code, for CAP.
    #[arg(long)]
    area_code: Option<String>,
    /// Its buildings, such as 1,2,3.
    #[arg(long, value_delimiter = ',')]
    buildings: Vec<String>,
    /// The micro fire station that answers for them.
    #[arg(long)]
    station: Option<String>,
    /// Its telephone number.
    #[arg(long)]
    phone: Option<String>,
    /// The broker that Zigbee2MQTT publishes to, such as mqtt://192.168.1.5; without it anmin is the broker.
    #[arg(long, value_name = "URL")]
    zigbee: Option<String>,
    /// A serial server with Modbus devices, such as 192.168.1.20.
    #[arg(long, value_name = "HOST")]
    modbus: Option<String>,
    /// A serial line with Modbus devices, such as /dev/ttyUSB0.
    #[arg(long, value_name = "DEVICE")]
    serial: Option<String>,
    /// Where the page listens; for others than this machine a token is made.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8420")]
    listen: String,
    /// Folder of the databases: /var/lib/anmin for /etc/anmin, else `data` within the site.
    #[arg(long, value_name = "FOLDER")]
    storage: Option<String>,
}

pub fn run(options: Options) -> ExitCode {
    end(|| {
        let site = options.site.clone();
        let there = taken(&site);
        if let Some(path) = there.first() {
            let shown = path.display();
            return Err(Problem {
                text: Text { zh: format!("{shown} 已存在"), en: format!("{shown} is there already") },
                hint: Some(Text {
                    zh: "站点已有内容，不会覆盖；请直接修改，再用 anmin check 检查".to_owned(),
                    en: "a site that is there is never written over: change it, then `anmin check`".to_owned(),
                }),
            });
        }
        let options = if options.id.is_none() { asked(options)? } else { options };
        let files = compose(&options).map_err(|error| failed(&site, &error))?;
        let folders = ["anmin.d", "secrets", ""].map(|folder| site.join(folder));
        let made_here: Vec<_> = folders.iter().filter(|folder| !folder.exists()).collect();
        let mut written = Vec::new();
        let made = files.iter().try_for_each(|(name, text)| {
            let path = site.join(name);
            // What editors need to know each key of it.
            let schema = if *name == "anmin.toml" {
                "#:schema site.schema.json\n"
            } else if name.starts_with("anmin.d/") {
                "#:schema ../site.schema.json\n"
            } else {
                ""
            };
            write(&path, &format!("{schema}{text}")).map_err(|error| failed(&path, &error))?;
            written.push(path);
            Ok(())
        });
        let sound = made.and_then(|()| match Config::load(&site) {
            Ok(_) => Ok(()),
            Err(faults) => Err(Problem {
                text: Text {
                    zh: "填写有误，没有留下任何文件".to_owned(),
                    en: format!(
                        "what was said does not make a site; nothing of it is left\n{}",
                        config::report(&site, &faults)
                    ),
                },
                hint: None,
            }),
        });
        if let Err(problem) = sound {
            for path in &written {
                let _ = fs::remove_file(path);
            }
            // What a package made stays as it made it, with its owner.
            for folder in made_here {
                let _ = fs::remove_dir(folder);
            }
            return Err(problem);
        }
        for path in written {
            println!("已写入 {path} · written: {path}", path = path.display());
        }
        let shown = site.display();
        say(
            format!("下一步：在 {shown}/devices.csv 中填写设备，anmin check {shown}，anmin doctor {shown}"),
            format!("next: list devices in {shown}/devices.csv, anmin check {shown}, anmin doctor {shown}"),
        );
        if let Some(Text { zh, en }) = options.storage.as_deref().and_then(|folder| needs_drop_in(&site, folder)) {
            say(zh, en);
        }
        say(
            "对外发送的内容均标为演习；正式启用前把 [site] exercise 改为 false".to_owned(),
            "everything that leaves is marked as an exercise: before it counts, set exercise = false in [site]"
                .to_owned(),
        );
        Ok(())
    })
}

/// Files of a site that are there.
fn taken(site: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        ["anmin.toml", "devices.csv", "site.schema.json", "secrets/web"].map(|name| site.join(name)).into();
    let own = fs::read_dir(site.join("anmin.d")).into_iter().flatten().flatten().map(|entry| entry.path());
    found.extend(own.filter(|path| path.extension().is_some_and(|ending| ending == "toml")));
    found.retain(|path| path.exists());
    found
}

/// Asks for what no flag says.
fn asked(mut options: Options) -> Result<Options, Problem> {
    let ask = |zh: &str, en: &str, usual: &str| -> Result<String, Problem> {
        print!("{zh} · {en} [{usual}]: ");
        let mut line = String::new();
        let read = io::stdout().flush().and_then(|()| io::stdin().lock().read_line(&mut line));
        match read {
            Ok(1..) => Ok(match line.trim() {
                "" => usual.to_owned(),
                said => said.to_owned(),
            }),
            _ => Err(Problem {
                text: Text { zh: "没有回答".to_owned(), en: "there was no answer".to_owned() },
                hint: Some(Text {
                    zh: "也可以全部用选项说明：anmin init --id chunhui …".to_owned(),
                    en: "flags say it all, too: anmin init --id chunhui …".to_owned(),
                }),
            }),
        }
    };
    let some = |said: String| (!said.is_empty()).then_some(said);
    let id = ask("社区标识（字母、数字）", "id of the community (letters, digits)", "shequ-001")?;
    if options.name.is_none() {
        options.name = Some(ask("社区名称", "its name", &id)?);
    }
    if options.name_en.is_none() {
        options.name_en = Some(ask("英文名称", "its name in English", options.name.as_deref().unwrap_or(&id))?);
    }
    if options.buildings.is_empty() {
        let said = ask("楼栋，用逗号分隔", "buildings, with commas between", "1")?;
        options.buildings = said.split([',', '，', '、']).map(|part| part.trim().to_owned()).collect();
    }
    if options.station.is_none() {
        options.station = Some(ask("微型消防站名称", "name of the micro fire station", "微型消防站")?);
    }
    if options.phone.is_none() {
        options.phone = some(ask("消防站电话", "its telephone", "")?);
    }
    if options.zigbee.is_none() {
        options.zigbee =
            some(ask("Zigbee2MQTT 的代理地址，没有则留空", "broker of Zigbee2MQTT, empty where there is none", "")?);
    }
    if options.modbus.is_none() {
        options.modbus =
            some(ask("Modbus 串口服务器地址，没有则留空", "serial server with Modbus devices, or empty", "")?);
    }
    if options.serial.is_none() {
        options.serial = some(ask("本机 Modbus 串口，没有则留空", "serial line of this machine, or empty", "")?);
    }
    options.id = Some(id);
    Ok(options)
}

/// The files of the site by their names within it.
fn compose(options: &Options) -> io::Result<Vec<(&'static str, String)>> {
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let id = options.id.as_deref().unwrap_or_default();
    let name = options.name.as_deref().unwrap_or(id);
    let name_en = options.name_en.as_deref().unwrap_or(name);
    let storage = match &options.storage {
        Some(storage) => storage,
        None if options.site == Path::new("/etc/anmin") => "/var/lib/anmin",
        None => "data",
    };
    let local = options.listen.parse::<std::net::SocketAddr>().is_ok_and(|listen| listen.ip().is_loopback());
    let mut files = Vec::new();

    let mut site = format!(
        "# 站点；其余内容按主题放在 anmin.d/。 The site; more of it stands in anmin.d/, by subject. `anmin check` reads it all.\n\
         [site]\nid = {}\nname = {{ zh = {}, en = {} }}\n",
        quoted(id),
        quoted(name),
        quoted(name_en)
    );
    if let Some(code) = &options.area_code {
        site.push_str(&format!("area_code = {}\n", quoted(code)));
    }
    site.push_str(
        "# 对外发送的内容均标为演习；正式启用前改为 false。 All that leaves says so; false before it counts.\nexercise = true\n",
    );
    site.push_str(&format!("\n[storage]\ndir = {}\n\n[web]\nlisten = {}\n", quoted(storage), quoted(&options.listen)));
    if !local {
        site.push_str("token_file = \"secrets/web\"\n");
        files.push(("secrets/web", format!("{}\n", token()?)));
    }
    files.push(("anmin.toml", site));

    let phone = options.phone.as_deref().map(|phone| format!("phone = {}\n", quoted(phone))).unwrap_or_default();
    let station = options.station.as_deref().unwrap_or("微型消防站");
    files.push((
        "anmin.d/10-stations.toml",
        format!(
            "# 呼叫谁。 Who is called.\n[[station]]\nid = \"st-1\"\nname = {}\n{phone}respond_within = \"60s\"\narrive_within = \"3m\"\n",
            quoted(station)
        ),
    ));

    let mut places = "# 哪里。 Where.\n".to_owned();
    let one = ["1".to_owned()];
    let buildings = if options.buildings.is_empty() { &one } else { options.buildings.as_slice() };
    for (n, building) in buildings.iter().enumerate() {
        let plain = building.chars().all(|c| c.is_ascii_alphanumeric());
        let place = if plain { building.to_lowercase() } else { format!("-{}", n + 1) };
        places.push_str(&format!(
            "[[place]]\nid = {}\nbuilding = {}\nstations = [\"st-1\"]\n\n",
            quoted(&format!("b{place}")),
            quoted(building)
        ));
    }
    files.push(("anmin.d/20-places.toml", places));

    let mqtt = match &options.zigbee {
        Some(url) => format!(
            "# Zigbee2MQTT：气体、烟感、水浸探测器自动纳入。 Its gas, smoke and leak detectors become devices by themselves.\n\
             [[mqtt]]\nid = \"zigbee\"\nurl = {}\n\n  [[mqtt.mapping]]\n  preset = \"zigbee2mqtt\"\n  unknown = \"provision\"\n",
            quoted(url)
        ),
        None => format!(
            "# 安民自带的代理；对网络开放时需要 password_file。 anmin's own broker; open to the network it needs a password_file.\n\
             [broker]\nlisten = \"127.0.0.1:1883\"\n\n  [[broker.mapping]]\n  topic = {}\n",
            quoted(&format!("{id}/{{device}}/up"))
        ),
    };
    files.push(("anmin.d/30-mqtt.toml", mqtt));

    let mut buses = "# Modbus 总线；设备写在 devices.csv。 Modbus; the devices stand in devices.csv.\n".to_owned();
    if let Some(host) = &options.modbus {
        buses.push_str(&format!("[[bus]]\nid = \"tcp\"\ntransport = \"tcp\"\nhost = {}\n\n", quoted(host)));
    }
    if let Some(device) = &options.serial {
        buses.push_str(&format!(
            "[[bus]]\nid = \"rtu\"\ntransport = \"rtu\"\ndevice = {}\nbaud_rate = 9600\n\n",
            quoted(device)
        ));
    }
    if options.modbus.is_none() && options.serial.is_none() {
        buses.push_str("# [[bus]]\n# id = \"plant\"\n# transport = \"tcp\"\n# host = \"192.168.1.20\"\n");
    }
    files.push(("anmin.d/40-modbus.toml", buses));

    files.push((
        "anmin.d/50-devices.toml",
        "# 设备清单，可用表格软件编辑。 The list of devices, for a spreadsheet.\n[[device_list]]\nfile = \"devices.csv\"\n"
            .to_owned(),
    ));
    files.push(("site.schema.json", config::SCHEMA.to_owned()));
    files.push(("devices.csv", "id,name,profile,place,unit,floor,room,bus,unit_id,interval\n".to_owned()));
    files.push((
        "anmin.d/60-ways-out.toml",
        "# 报警发往何处；去掉 # 即可启用。 Where alarms go: take the # away.\n\
         # [[notice]]                       # 值班群机器人。 The robot of the duty group.\n\
         # id = \"duty-group\"\n# robot = \"wecom\"\n# address_file = \"secrets/duty-group\"\n#\n\
         # [[cap]]                          # 应急广播。 The emergency broadcast.\n\
         # id = \"town\"\n# url = \"https://eb.example.cn/cap\"\n# token_file = \"secrets/town\"\n\
         # sender = \"anmin.example.cn\"\n# status = \"exercise\"\n"
            .to_owned(),
    ));
    Ok(files)
}

/// 32 bytes of chance in hexadecimal digits.
fn token() -> io::Result<String> {
    let mut bytes = [0; 32];
    SystemRandom::new().fill(&mut bytes).map_err(|_| io::Error::other("the system gives no randomness"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// For its owner and group, which in `/etc/anmin` is anmin's.
fn write(path: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o750).create(folder)?;
    }
    let mut file: File = OpenOptions::new().write(true).create_new(true).mode(0o640).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn failed(path: &Path, error: &io::Error) -> Problem {
    let shown = path.display();
    Problem {
        text: Text { zh: format!("无法写入 {shown}：{error}"), en: format!("{shown} cannot be written: {error}") },
        hint: (error.kind() == io::ErrorKind::PermissionDenied)
            .then(|| Text { zh: "请以 root 身份执行".to_owned(), en: "run it as root".to_owned() }),
    }
}

/// The unit of a site in /etc/anmin lets anmin write below one folder.
fn needs_drop_in(site: &Path, folder: &str) -> Option<Text> {
    let elsewhere = site.starts_with("/etc/anmin") && !Path::new(folder).starts_with("/var/lib/anmin");
    elsewhere.then(|| Text {
        zh: format!("数据库放在 {folder}：服务需要附加配置 /usr/share/anmin/drop-ins/storage.conf 才能写入"),
        en: format!(
            "databases in {folder}: the service needs the drop-in /usr/share/anmin/drop-ins/storage.conf to write there"
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn databases_where_the_service_cannot_write_are_told_of() {
        for (site, folder, told) in [
            ("/etc/anmin", "/srv/anmin", true),
            ("/etc/anmin/", "/mnt/ssd", true),
            ("/etc/anmin", "/var/lib/anmin", false),
            ("/etc/anmin", "/var/lib/anmin/site", false),
            ("/etc/anmin", "/var/lib/anmin-2", true),
            // A site that no unit of ours starts.
            ("/home/li/site", "/srv/anmin", false),
        ] {
            let said = needs_drop_in(Path::new(site), folder);
            assert_eq!(said.is_some(), told, "{site} {folder}");
            assert!(said.is_none_or(|said| said.zh.contains(folder) && said.en.contains("storage.conf")), "{folder}");
        }
    }
}
