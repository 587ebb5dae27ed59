//! `make layout`: which code a quiet daemon runs, for the linker to lay it side by side.
//!
//! The kernel maps the 64 KiB about each page of a program that is touched. Of anmin's code a daemon with quiet sensors runs a
//! sixth, and that sixth lay in nearly every 64 KiB of it. So a daemon is watched instruction by instruction, from its start
//! over the first readings to its end, and the sections of what ran are named for the linker.

use std::collections::{BTreeSet, HashMap};
use std::process::{Command, ExitCode};

use anmin_tests::bench::load::{Load, flood};
use anmin_tests::bench::subject::{Shape, Subject, site};
use anmin_tests::daemon::{Daemon, binary};

/// So much of a program is mapped at once.
const MAPPED: u64 = 64 << 10;

/// Where the linker puts what is named, ahead of `.text`.
const OWN_SECTION: &str = ".text.quiet";

/// A function's own part of the program, as the linker laid it.
#[derive(Debug, PartialEq, Eq)]
struct Section<'a> {
    at: u64,
    size: u64,
    name: &'a str,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [map, script] = &arguments[..] else {
        eprintln!("usage: layout <the linker's map of the program> <the linker script to write>");
        return ExitCode::from(2);
    };
    let laid = match std::fs::read_to_string(map) {
        Ok(text) => text,
        Err(error) => {
            eprintln!("{map}: {error}");
            return ExitCode::FAILURE;
        }
    };
    let sections = sections(&laid);
    if sections.is_empty() {
        eprintln!(
            "{map}: there are no functions in it; it has to be a map of LLVM's linker, which rustup's toolchain brings"
        );
        return ExitCode::FAILURE;
    }
    if laid.lines().any(|line| line.split_whitespace().last() == Some(OWN_SECTION)) {
        eprintln!(
            "{map}: the program was laid by a list already, of which valgrind sees nothing; link it with ANMIN_LAYOUT=off"
        );
        return ExitCode::FAILURE;
    }
    let names = quiet(&sections, &executed(&watched_run(), "/anmin"));
    if names.is_empty() {
        eprintln!(
            "{script} stays as it is: valgrind saw nothing run of what is in {map}, which may be of another program"
        );
        return ExitCode::FAILURE;
    }
    if let Err(error) = std::fs::write(script, linker_script(&names)) {
        eprintln!("{script}: {error}");
        return ExitCode::FAILURE;
    }
    println!("{script}: {} names of {} sections", names.len(), sections.len());
    ExitCode::SUCCESS
}

/// A daemon's life with a hundred devices that speak, as callgrind wrote it down.
fn watched_run() -> String {
    let shape = Shape { rules: 1, devices: 100, broker: None, qos: 1 };
    let site = site(shape);
    let out = site.path("callgrind.out");
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--dump-instr=yes", "--compress-pos=no", "--compress-strings=no"]);
    valgrind.arg(format!("--callgrind-out-file={}", out.display())).arg(binary());
    let mut daemon = Daemon::launch_by(&mut valgrind, site.folder());
    daemon.ready();
    let port = daemon.broker.expect("it has a broker").port();
    let count = 1_000;
    let mut subject = Subject::Anmin { daemon, _site: site };
    flood(Load { port, qos: 1, devices: shape.devices, connections: 2 }, count);
    subject.settle(count);
    let Subject::Anmin { daemon, _site } = subject else { unreachable!("it was made one") };
    daemon.terminate();
    std::fs::read_to_string(&out).expect("callgrind writes down what ran")
}

/// The functions in a map of LLVM's linker, by address: four columns of numbers, then `file:(section)`.
fn sections(map: &str) -> Vec<Section<'_>> {
    let mut sections: Vec<Section<'_>> = map
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let [at, _, size] = [words.next()?, words.next()?, words.next()?].map(|hex| u64::from_str_radix(hex, 16));
            let (_, name) = line.strip_suffix(')')?.rsplit_once(":(")?;
            let section = Section { at: at.ok()?, size: size.ok()?, name };
            (name.starts_with(".text.") && section.size > 0).then_some(section)
        })
        .collect();
    sections.sort_by_key(|section| section.at);
    sections
}

/// Where the program with this ending of its path ran, from what callgrind wrote down with instructions.
fn executed(trace: &str, program: &str) -> BTreeSet<u64> {
    let mut is_ours = false;
    let mut executed = BTreeSet::new();
    for line in trace.lines() {
        if let Some(object) = line.strip_prefix("ob=") {
            is_ours = object.ends_with(program);
        } else if is_ours && let Some(address) = line.strip_prefix("0x").and_then(|line| line.split(' ').next()) {
            executed.extend(u64::from_str_radix(address, 16));
        }
    }
    executed
}

/// What to call the sections that ran. A generic function's name fits every type it was made for; where those that did not
/// run would take more room than is saved by moving those that did, all stay where they are.
fn quiet(sections: &[Section<'_>], executed: &BTreeSet<u64>) -> BTreeSet<String> {
    let mut named: HashMap<String, (u64, u64)> = HashMap::new();
    for Section { at, size, name } in sections {
        let (room, ran) = named.entry(pattern(name)).or_default();
        *room += size;
        *ran += u64::from(executed.range(at..&(at + size)).next().is_some());
    }
    named.retain(|_, (room, ran)| *ran > 0 && *room <= *ran * MAPPED / 2);
    named.into_keys().collect()
}

/// A section's name without what is different in the next build: the hash of a function, of a crate, of the unit it was
/// compiled in.
fn pattern(section: &str) -> String {
    let name = section.split_once(".llvm.").map_or(section, |(name, _)| name);
    if let Some((name, hash)) = name.rsplit_once("17h")
        && hash.strip_suffix('E').is_some_and(|hash| hash.len() == 16 && hash.chars().all(|c| c.is_ascii_hexdigit()))
    {
        return format!("{name}17h*");
    }
    if !name.contains("._R") {
        return name.to_owned();
    }
    let mut pieces = name.split("Cs");
    let mut pattern = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        pattern.push_str("Cs");
        match piece.split_once('_') {
            Some((hash, rest)) if hash.chars().all(|c| c.is_ascii_alphanumeric()) => pattern.extend(["*_", rest]),
            _ => pattern.push_str(piece),
        }
    }
    pattern + "*"
}

fn linker_script(names: &BTreeSet<String>) -> String {
    let names: String = names.iter().map(|name| format!("      {name}\n")).collect();
    format!(
        "/* What a quiet daemon runs, side by side, so that little of the program is mapped.\n   \
         Written by `make layout`; gateway/docs/decisions/0029-what-runs-lies-together.md says why. */\n\
         SECTIONS\n{{\n  {OWN_SECTION} :\n  {{\n    *(\n{names}    )\n  }}\n}}\nINSERT BEFORE .text;\n"
    )
}

#[cfg(test)]
mod tests {
    use anmin_tests::site::Site;

    use super::*;

    const MAP: &str = "\
             VMA              LMA     Size Align Out     In      Symbol
            1000             1000      100    16 .text
            1000             1000       10    16         /o/a b.o:(.text._ZN5anmin3run17h0123456789abcdefE)
            1000             1000       10     1                 anmin::run(x:(y))
            1010             1010    20000    16         /o/b.o:(.text.unlikely._ZN4core3fmt17h00000000000000aaE.llvm.77)
           21010            21010        8    16         /o/b.o:(.text._ZN4core3fmt17h00000000000000bbE)
           21018            21018        0    16         /o/b.o:(.text)
           21020            21020       20    16         /o/c.o:(.text.sqlite3_step)
           21040            21040       20    16         /o/c.o:(.rodata.str)
";

    #[test]
    fn a_map_names_functions_with_their_addresses() {
        let found = sections(MAP);
        let names: Vec<(u64, u64, &str)> = found.iter().map(|one| (one.at, one.size, one.name)).collect();
        assert_eq!(
            names,
            [
                (0x1000, 0x10, ".text._ZN5anmin3run17h0123456789abcdefE"),
                (0x1010, 0x2_0000, ".text.unlikely._ZN4core3fmt17h00000000000000aaE.llvm.77"),
                (0x2_1010, 8, ".text._ZN4core3fmt17h00000000000000bbE"),
                (0x2_1020, 0x20, ".text.sqlite3_step"),
            ]
        );
    }

    #[test]
    fn what_ran_is_taken_from_the_program_alone() {
        let trace = "ob=/lib/libc.so\nfn=read\n0x1004 1 2\nob=/b/anmin\nfn=run\n0x1008 3 4\ncalls=1 0x9 0\n0x100c 5 6\n+2 7 8\n";
        assert_eq!(executed(trace, "/anmin"), BTreeSet::from([0x1008, 0x100c]));
    }

    #[test]
    fn a_name_moves_when_that_saves_more_room_than_it_takes() {
        let quiet = |ran: &[u64]| quiet(&sections(MAP), &ran.iter().copied().collect()).into_iter().collect::<Vec<_>>();
        assert_eq!(quiet(&[0x100f, 0x2_1020]), [".text._ZN5anmin3run17h*", ".text.sqlite3_step"]);
        assert_eq!(quiet(&[0x2_1010]), [".text._ZN4core3fmt17h*"]);
        assert!(quiet(&[0x1010]).is_empty(), "it alone is larger than what is mapped at once");
        assert!(quiet(&[0x1_0000_0000, 0x2_1041]).is_empty());
    }

    #[test]
    fn a_pattern_fits_the_next_build() {
        for (section, wanted) in [
            (".text._ZN5anmin3run17h0123456789abcdefE", ".text._ZN5anmin3run17h*"),
            (".text._ZN5anmin3run17h0123456789abcdefE.llvm.123", ".text._ZN5anmin3run17h*"),
            (".text._ZN4ring717hours17h0123456789abcdefE", ".text._ZN4ring717hours17h*"),
            (".text._RNvNtCsjrHSEGnQ3l9_3std4sync", ".text._RNvNtCs*_3std4sync*"),
            (".text._RNvNtCsjrHS_3std4CstrNtCs9_4core.llvm.5", ".text._RNvNtCs*_3std4CstrNtCs*_4core*"),
            (".text.yy_reduce.constprop.0", ".text.yy_reduce.constprop.0"),
        ] {
            assert_eq!(pattern(section), wanted);
        }
    }

    #[test]
    fn a_script_leaves_the_rest_of_the_program_where_it_was() {
        let script = linker_script(&BTreeSet::from([".text.a".to_owned(), ".text.b".to_owned()]));
        let (_, rules) = script.split_once("*/\n").expect("it says what it is");
        assert_eq!(
            rules,
            "SECTIONS\n{\n  .text.quiet :\n  {\n    *(\n      .text.a\n      .text.b\n    )\n  }\n}\nINSERT BEFORE .text;\n"
        );
    }

    #[test]
    fn the_list_that_stands_is_one_that_the_linker_takes() {
        let list = concat!(env!("CARGO_MANIFEST_DIR"), "/../gateway/layout.ld");
        let names = std::fs::read_to_string(list).expect("the list is there");
        let mut names = names.lines().filter_map(|line| line.trim().strip_prefix(".text."));
        // A function in C, and one in Rust, which has another hash in every build.
        let plain = names.clone().find(|name| name.starts_with("sqlite3_") && !name.contains('*'));
        let hashed = names.find_map(|name| name.strip_prefix("_ZN5anmin")?.strip_suffix("17h*"));
        let [plain, hashed] = [plain, hashed].map(|name| name.expect("the daemon runs one"));
        let hashed = format!("_ZN5anmin{hashed}17h0123456789abcdefE");
        let site = Site::new("layout", "");
        site.write(
            "main.c",
            &format!(
                "int {plain}(void) {{ return 3; }}\nint rust(void) __asm__(\"{hashed}\");\nint rust(void) {{ return 4; }}\n\
                 int other(void) {{ return 5; }}\nint main(void) {{ return {plain}() + rust() + other() - 12; }}\n"
            ),
        );
        let run = |program: &str, arguments: &[&str]| {
            let ran = Command::new(program).args(arguments).current_dir(site.folder()).output();
            let ran = ran.unwrap_or_else(|error| panic!("{program}: {error}"));
            assert!(ran.status.success(), "{program}: {}", String::from_utf8_lossy(&ran.stderr));
            String::from_utf8(ran.stdout).expect("what it says is text")
        };
        let link = format!("-T{list}");
        run("cc", &["-O0", "-ffunction-sections", "-Wl,--gc-sections", &link, "main.c", "-o", "main"]);
        run("./main", &[]);
        let symbols = run("objdump", &["-t", "main"]);
        let section = |name: &str| {
            let line = symbols.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
            line.filter(|words| words.last() == Some(&name))
                .find_map(|words| words.get(3).map(|name| (*name).to_owned()))
        };
        let laid = [plain, &hashed, "other"].map(section);
        assert_eq!(laid, [OWN_SECTION, OWN_SECTION, ".text"].map(|name| Some(name.to_owned())));
    }
}
