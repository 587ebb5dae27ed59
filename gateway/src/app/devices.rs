//! `anmin devices`: the lists of devices and places and tables of points, from and to spreadsheets.
//!
//! A list is taken whole or not at all: it is read by the parser of `run`, together with the rest of the site, before a byte is
//! written, and then only after a yes. What was there is kept beside it, as `<list>.before`, until the next import.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anmin_sensors::document::{Fault, Faults};
use clap::{Args, Subcommand, ValueEnum};

use super::probe;
use crate::config::files::{SiteFiles, Source};
use crate::config::sheet::{About, Row, Sheet};
use crate::config::{self, Config};
use crate::spreadsheet::{self, Encoding};

/// `anmin devices`.
#[derive(Debug, Args)]
pub struct DevicesOptions {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Take the devices, places or points of a CSV file into the site's list, or say what would change.
    Import(Import),
    /// Write the site's list for a spreadsheet.
    Export(Export),
    /// Put the list back that was there before the last import; a second time puts that import back.
    Undo(Undo),
}

#[derive(Debug, Args)]
#[command(
    after_help = "The file is UTF-8 or GBK, as WPS and Excel write CSV. Its first line names the columns, in English or Chinese: \
    id 编号, name 名称, name_en 英文名称, profile 型号, place 位置, unit 单元, floor 楼层, room 房号, bus 总线, unit_id 站号, interval, silent_after; \
    a file without profile is one of places, unless its columns are those of devices: id, grid 网格, building 楼栋, unit, floor, room, \
    latitude 纬度, longitude 经度, stations 微型消防站. A file with kind is the table of points of one Modbus model, with --profile: id 测点, kind \
    类别, register 寄存器, address 地址, type 数据类型, byte_order 字节序, scale 倍率, offset 偏移, unit 单位, lowest 下限, highest 上限, length, bit, \
    silent_after, alarm_point 报警点. Columns and rows that the file does not have stay as they are."
)]
struct Import {
    file: PathBuf,
    /// The site's folder.
    #[arg(default_value = "/etc/anmin")]
    site: PathBuf,
    /// Say what would change, and change nothing.
    #[arg(long)]
    preview: bool,
    /// Do not ask whether to write.
    #[arg(long, conflicts_with = "preview")]
    yes: bool,
    /// The file is the whole list: what it does not have is removed.
    #[arg(long)]
    replace: bool,
    /// For a table of points: the profile that it makes.
    #[arg(long, value_name = "ID", value_parser = probe::id)]
    profile: Option<String>,
}

#[derive(Debug, Args)]
struct Export {
    /// The site's folder.
    #[arg(default_value = "/etc/anmin")]
    site: PathBuf,
    /// The list of places instead of that of devices.
    #[arg(long)]
    places: bool,
    /// The table of points of this profile instead.
    #[arg(long, value_name = "ID", value_parser = probe::id, conflicts_with = "places")]
    profile: Option<String>,
    /// The file to write; standard output where nobody says.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    #[arg(long, value_enum, default_value_t = Written::Utf8)]
    encoding: Written,
}

#[derive(Debug, Args)]
struct Undo {
    /// The site's folder.
    #[arg(default_value = "/etc/anmin")]
    site: PathBuf,
    /// The list of places instead of that of devices.
    #[arg(long)]
    places: bool,
    /// The table of points of this profile instead.
    #[arg(long, value_name = "ID", value_parser = probe::id, conflicts_with = "places")]
    profile: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Written {
    /// With the mark by which Excel knows it.
    Utf8,
    Gbk,
}

pub fn devices(options: DevicesOptions) -> ExitCode {
    let ended = match options.what {
        What::Import(options) => import(&options),
        What::Export(options) => export(&options),
        What::Undo(options) => undo(&options),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}

/// The file in which a site keeps a list.
struct List {
    path: PathBuf,
    /// What must be added to the site's files so that it is read.
    stanza: Option<(PathBuf, String)>,
    sheet: Sheet,
    about: About,
}

impl List {
    /// The only list of its kind, or the one that would be.
    fn of(site: &Path, about: About, profile: Option<&str>) -> Result<Self, String> {
        if !site.is_dir() {
            return Err(format!("error: {} is no folder of a site", site.display()));
        }
        if about == About::Points {
            return Self::of_points(site, profile);
        }
        let faults = Faults::default();
        let files = SiteFiles::configuration(site, &faults);
        let mut named = Vec::new();
        for source in &files.config {
            let Ok(tables) = toml::from_str::<toml::Table>(&source.text) else { continue };
            let lists = tables.get(about.table()).and_then(toml::Value::as_array).into_iter().flatten();
            named.extend(lists.filter_map(|list| list.get("file")?.as_str().map(str::to_owned)));
        }
        let (path, stanza) = match &named[..] {
            [] => {
                let file = about.usual_file();
                let text = format!("[[{}]]\nfile = \"{file}\"\n", about.table());
                let stanza = site.join("anmin.d").join(file.replace(".csv", "-list.toml"));
                if stanza.exists() {
                    return Err(format!("error: {} is there and names no list", stanza.display()));
                }
                (site.join(file), Some((stanza, text)))
            }
            [file] => (site.join(file), None),
            _ => {
                let message = "the site has several lists of this kind; make them one first";
                return Err(format!("error: {message}: {}", named.join(", ")));
            }
        };
        Self::at(path, stanza, about)
    }

    /// The table of points that makes a profile.
    fn of_points(site: &Path, profile: Option<&str>) -> Result<Self, String> {
        let profile =
            profile.ok_or("error: it is a table of points: name the profile that it makes, --profile my-meter")?;
        let path = site.join("profiles").join(format!("{profile}.csv"));
        let written = path.with_extension("toml");
        if written.exists() {
            return Err(format!("error: {} is there already, and is no table", written.display()));
        }
        Self::at(path, None, About::Points)
    }

    fn at(path: PathBuf, stanza: Option<(PathBuf, String)>, about: About) -> Result<Self, String> {
        let sheet = match read(&path)? {
            Some(text) => {
                Sheet::parse_as(Some(about), &path.display().to_string(), &text)
                    .map_err(|faults| report(&path, &faults))?
                    .1
            }
            None => Sheet { columns: about.required().iter().map(|key| (*key).to_owned()).collect(), rows: Vec::new() },
        };
        Ok(Self { path, stanza, sheet, about })
    }

    fn before(&self) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(".before");
        name.into()
    }
}

/// `None` where there is no such file.
fn read(path: &Path) -> Result<Option<String>, String> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("error: {}: {error}", path.display())),
    };
    let (_, text) = spreadsheet::decode(&bytes).map_err(|why| format!("error: {}: {}", path.display(), why.en))?;
    Ok(Some(text))
}

fn report(file: &Path, faults: &[Fault]) -> String {
    let lines: String = faults.iter().map(|fault| format!("error: {fault}\n")).collect();
    format!("{lines}{}：{} 处错误，未作任何改动 · faults, nothing was changed", file.display(), faults.len())
}

fn import(options: &Import) -> Result<(), String> {
    let Import { file, site, preview, yes, replace, profile } = options;
    let text = read(file)?.ok_or_else(|| format!("error: {}: there is no such file", file.display()))?;
    let name = file.display().to_string();
    let (about, new) = Sheet::parse(&name, &text).map_err(|faults| report(file, &faults))?;
    let new = new.unguarded();
    if profile.is_some() && about != About::Points {
        return Err("error: --profile is for a table of points, which has a column `kind`".to_owned());
    }
    let list = List::of(site, about, profile.as_deref())?;
    let joined = list.sheet.joined(&new, *replace);
    let changes = joined.changes(&list.sheet);
    let (text, lines) = joined.text();
    check(site, &list, &text).map_err(|faults| {
        let faults: Vec<Fault> =
            faults.into_iter().map(|fault| in_the_file(fault, &name, &list.path, (&joined, &new), &lines)).collect();
        report(file, &faults)
    })?;
    for line in &changes {
        println!("{line}");
    }
    if changes.is_empty() {
        println!("没有变化 · nothing changes");
        return Ok(());
    }
    let count = |sign: char| changes.iter().filter(|line| line.starts_with(sign)).count();
    println!("新增 new {}，修改 changed {}，删除 removed {}", count('+'), count('~'), count('-'));
    if *preview {
        println!("预览，未作改动 · a preview: nothing was changed");
        return Ok(());
    }
    println!("写入 {}？ · write it?", list.path.display());
    if !yes && !probe::says_yes() {
        println!("未写入 · nothing was written");
        return Ok(());
    }
    let problem = |path: &Path, error: io::Error| format!("error: {}: {error}", path.display());
    let bytes = spreadsheet::encode(&text, Encoding::Utf8)?;
    let (old, _) = list.sheet.text();
    let before = fs::read(&list.path).unwrap_or_else(|_| old.into_bytes());
    write(&list.before(), &before).map_err(|error| problem(&list.before(), error))?;
    // The list first: a stanza that names no file would keep the site from starting.
    write(&list.path, &bytes).map_err(|error| problem(&list.path, error))?;
    if let Some((path, text)) = &list.stanza {
        write(path, text.as_bytes()).map_err(|error| problem(path, error))?;
    }
    println!("已写入 {}；重启安民后生效，`anmin devices undo` 可撤销", list.path.display());
    println!("written; in force after a restart of anmin; `anmin devices undo` takes it back");
    Ok(())
}

/// Reads the site as it would be with this list.
fn check(site: &Path, list: &List, text: &str) -> Result<(), Vec<Fault>> {
    let faults = Faults::default();
    let mut files = SiteFiles::gather(site, &faults);
    match list.about {
        About::Points => {
            let name = list.path.display().to_string();
            files.profiles.retain(|source| source.name != name);
            files.profiles.extend(SiteFiles::table(&Source { name, text: text.to_owned() }, &faults));
        }
        About::Devices | About::Places => drop(files.instead.insert(list.path.clone(), text.to_owned())),
    }
    if let Some((path, text)) = &list.stanza {
        files.config.push(Source { name: path.display().to_string(), text: text.clone() });
    }
    let config = Config::parse(&files, &faults);
    match (config, faults.take()) {
        (Some(_), found) if found.is_empty() => Ok(()),
        (_, found) => Err(found),
    }
}

/// A fault of the joined list, where it stands in the file that was imported.
pub(super) fn in_the_file(
    fault: Fault,
    name: &str,
    list: &Path,
    (joined, new): (&Sheet, &Sheet),
    lines: &[usize],
) -> Fault {
    let row = lines.iter().rposition(|line| *line <= fault.line);
    let of_list = fault.source == list.display().to_string();
    let Some(Row { line, .. }) = row.and_then(|row| joined.rows.get(row)).filter(|row| of_list && row.line > 0) else {
        return fault;
    };
    // A table of points is read as the profile that it makes, whose columns are others.
    let place = if joined.is_of_points() { joined.column_of_fault(&fault.message) } else { fault.column };
    let column = joined.columns.get(place.saturating_sub(1));
    let column = column.and_then(|key| new.columns.iter().position(|of| of == key)).map_or(1, |n| n + 1);
    Fault { source: name.to_owned(), line: *line, column, ..fault }
}

/// All of the file or none of it, whenever the power goes.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.to_owned().into_os_string();
    name.push(".new");
    let new = PathBuf::from(name);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut file = File::create(&new)?;
    file.write_all(bytes)?;
    // The service reads it, whoever imports.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let (like, mode) = match fs::metadata(path) {
        Ok(before) => (Ok(before.clone()), before.permissions()),
        Err(_) => (fs::metadata(folder), fs::Permissions::from_mode(0o640)),
    };
    file.set_permissions(mode)?;
    if let Ok(like) = like {
        // Only root may give a file away, for whom alone it matters.
        let _ = std::os::unix::fs::fchown(&file, Some(like.uid()), Some(like.gid()));
    }
    file.sync_all()?;
    fs::rename(&new, path)?;
    File::open(folder)?.sync_all()
}

fn about(places: bool, profile: Option<&str>) -> About {
    match (places, profile) {
        (_, Some(_)) => About::Points,
        (true, None) => About::Places,
        (false, None) => About::Devices,
    }
}

fn export(options: &Export) -> Result<(), String> {
    let profile = options.profile.as_deref();
    let list = List::of(&options.site, about(options.places, profile), profile)?;
    let encoding = match options.encoding {
        Written::Utf8 => Encoding::Utf8,
        Written::Gbk => Encoding::Gbk,
    };
    let bytes = spreadsheet::encode(&list.sheet.guarded().text().0, encoding).map_err(|why| format!("error: {why}"))?;
    match &options.output {
        Some(path) => write(path, &bytes).map_err(|error| format!("error: {}: {error}", path.display())),
        None => io::stdout().write_all(&bytes).map_err(|error| format!("error: {error}")),
    }
}

fn undo(options: &Undo) -> Result<(), String> {
    let profile = options.profile.as_deref();
    let list = List::of(&options.site, about(options.places, profile), profile)?;
    let problem = |error: io::Error| format!("error: {}: {error}", list.path.display());
    let before =
        fs::read(list.before()).map_err(|_| "没有可撤销的导入 · there is no import to take back".to_owned())?;
    let now = fs::read(&list.path).map_err(problem)?;
    let (_, text) = spreadsheet::decode(&before).map_err(|why| why.en)?;
    check(&options.site, &list, &text).map_err(|faults| config::report(&options.site, &faults))?;
    // Both are on the disk at every moment, whatever stops this.
    let kept = list.before().with_extension("undone");
    write(&kept, &now)
        .and_then(|()| write(&list.path, &before))
        .and_then(|()| fs::rename(&kept, list.before()))
        .map_err(problem)?;
    let sheet = Sheet::parse_as(Some(list.about), &list.path.display().to_string(), &text)
        .map_err(|faults| report(&list.path, &faults))?
        .1;
    sheet.changes(&list.sheet).iter().for_each(|line| println!("{line}"));
    println!("已恢复 · the list is as it was before; in force after a restart of anmin");
    Ok(())
}
