//! Between libFuzzer and the list of targets in `anmin_tests::fuzz`.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use anmin_tests::fuzz::{Read, Target, dictionary};
use libfuzzer_sys::Corpus;

/// A folder to write seeds and dictionary into; then nothing else is done.
const PREPARE: &str = "ANMIN_FUZZ_PREPARE";

thread_local! {
    /// libFuzzer feeds from one thread.
    static READ: RefCell<Option<Read>> = const { RefCell::new(None) };
    static SLOWEST: Cell<Duration> = const { Cell::new(Duration::from_millis(1)) };
    /// What the last panic said, and where.
    static SAID: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Called once, before libFuzzer looks at its arguments.
///
/// # Panics
/// Where the folder cannot be written.
pub fn prepare(target: &Target) {
    // The hook of libfuzzer-sys ends the process at any panic, also at those of scripts, which the sandbox catches.
    std::panic::set_hook(Box::new(|panic| {
        let trace = std::backtrace::Backtrace::capture();
        SAID.with_borrow_mut(|said| *said = format!("{panic}\n{trace}"));
    }));
    if let Some(folder) = std::env::var_os(PREPARE) {
        let folder = Path::new(&folder);
        let write = |file: &Path, bytes: &[u8]| {
            std::fs::write(file, bytes).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        };
        for (n, seed) in (target.seeds)().iter().enumerate() {
            write(&folder.join(format!("seed-{n:03}")), seed);
        }
        write(&folder.with_extension("dict"), dictionary(target).as_bytes());
        println!("{}", target.longest);
        std::process::exit(0);
    }
    READ.set(Some((target.reader)()));
}

/// Called with each input. What panics ends the process, and libFuzzer keeps the input.
///
/// # Panics
/// Where it is called before [`prepare`].
pub fn feed(target: &Target, bytes: &[u8]) -> Corpus {
    if bytes.len() > target.longest {
        return Corpus::Reject;
    }
    let began = Instant::now();
    let fed = READ.with_borrow_mut(|read| {
        let read = read.as_mut().expect("libFuzzer begins with `prepare`");
        catch_unwind(AssertUnwindSafe(|| read(bytes)))
    });
    if fed.is_err() {
        eprintln!("{} panics: {}", target.name, SAID.take());
        std::process::abort();
    }
    let took = began.elapsed();
    // Told in steps, so that it is told seldom.
    if took > SLOWEST.get() * 5 / 4 {
        SLOWEST.set(took);
        eprintln!("slowest: {} us for {} bytes", took.as_micros(), bytes.len());
    }
    Corpus::Keep
}
