//! A package of records that proves itself: a tar file (POSIX ustar) that any tool opens and `anmin verify` checks, on any
//! machine, with nothing but the file.
//!
//! Its last two entries are `manifest.json` and `manifest.sha256`. The manifest names every other entry in order, with length,
//! SHA-256, and `chain`: SHA-256 over the chain before, a zero byte, the name, a zero byte, and the entry's SHA-256. The first
//! chain is 32 zero bytes. `manifest.sha256` holds the SHA-256 of the manifest: **the seal**, one line by which the whole package
//! is known. Who changes one thing must change the seal, and that stands in the audit of the box and wherever it was written
//! down.
//!
//! Every byte is checked, padding and headers too: what stands there is written in one way only, and anything else is named.
//! Times, owners and modes are always the same, so that the same records give the same bytes.

use std::fmt;

use anmin_rules::rule::Text;
use ring::digest;
use serde::{Deserialize, Serialize};
use serde_json::Value;

const BLOCK: usize = 512;
const MANIFEST: &str = "manifest.json";
const SEAL: &str = "manifest.sha256";
/// Form of the package; the manifest says it.
const FORMAT: &str = "anmin-package-1";

/// One file of a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// At most 100 letters of ASCII, as a path with `/`.
    pub name: String,
    pub bytes: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    format: String,
    /// What the package is about, in words for programs.
    about: Value,
    entries: Vec<Listed>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Listed {
    name: String,
    bytes: u64,
    sha256: String,
    chain: String,
}

/// What a package that is whole says of itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Verified {
    /// SHA-256 of its manifest.
    pub seal: String,
    pub about: Value,
    pub entries: usize,
}

/// The first thing that is not what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Which entry, as far as it has a name.
    pub entry: String,
    /// Where in the file.
    pub byte: u64,
    pub why: Text,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, byte {}: {}", self.entry, self.byte, self.why.en)
    }
}

fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    parts.iter().for_each(|part| context.update(part));
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Makes the package; gives its bytes and its seal.
pub fn write(about: Value, entries: &[Entry]) -> (Vec<u8>, String) {
    let mut chain = [0; 32];
    let listed = entries.iter().map(|entry| {
        let own = sha256(&[&entry.bytes]);
        chain = sha256(&[&chain, b"\0", entry.name.as_bytes(), b"\0", &own]);
        Listed { name: entry.name.clone(), bytes: entry.bytes.len() as u64, sha256: hex(&own), chain: hex(&chain) }
    });
    let manifest = Manifest { format: FORMAT.to_owned(), about, entries: listed.collect() };
    // Plain structs of text and numbers.
    let mut json = serde_json::to_vec_pretty(&manifest).expect("a manifest is always JSON");
    json.push(b'\n');
    let seal = hex(&sha256(&[&json]));
    let mut out = Vec::new();
    for entry in entries {
        put(&mut out, &entry.name, &entry.bytes);
    }
    put(&mut out, MANIFEST, &json);
    put(&mut out, SEAL, format!("{seal}  {MANIFEST}\n").as_bytes());
    // The end of a tar file: two blocks of nothing.
    out.resize(out.len() + 2 * BLOCK, 0);
    (out, seal)
}

fn put(out: &mut Vec<u8>, name: &str, bytes: &[u8]) {
    out.extend_from_slice(&header(name, bytes.len() as u64));
    out.extend_from_slice(bytes);
    out.resize(out.len().next_multiple_of(BLOCK), 0);
}

/// A regular file, readable by all, of nobody and of the first second of 1970.
fn header(name: &str, length: u64) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let mut set = |at: usize, text: &str| block[at..at + text.len()].copy_from_slice(text.as_bytes());
    let cut: String = name.chars().filter(char::is_ascii).take(100).collect();
    set(0, &cut);
    set(100, "0000644\0");
    set(108, "0000000\0");
    set(116, "0000000\0");
    set(124, &format!("{length:011o}\0"));
    set(136, "00000000000\0");
    set(148, "        ");
    set(156, "0");
    set(257, "ustar\x0000");
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// Checks a package to the last byte.
pub fn verify(file: &[u8]) -> Result<Verified, Damage> {
    let mut read: Vec<(Entry, u64)> = Vec::new();
    let mut at = 0;
    loop {
        let known = |read: &[(Entry, u64)]| match read.last() {
            Some((entry, _)) => format!("after {}", entry.name),
            None => "the beginning".to_owned(),
        };
        let damage = |byte: usize, zh: &str, en: &str| Damage {
            entry: known(&read),
            byte: byte as u64,
            why: Text { zh: zh.to_owned(), en: en.to_owned() },
        };
        let Some(head) = file.get(at..at + BLOCK) else {
            return Err(damage(file.len(), "文件在此中断", "the file breaks off here"));
        };
        if read.last().is_some_and(|(entry, _)| entry.name == SEAL) {
            let rest = &file[at..];
            let stray = rest.iter().position(|byte| *byte != 0);
            if rest.len() != 2 * BLOCK || stray.is_some() {
                let byte = at + stray.unwrap_or(rest.len().min(2 * BLOCK));
                return Err(damage(byte, "结尾处有多余或缺失的内容", "the end is not as it was written"));
            }
            break;
        }
        let name: Vec<u8> = head[..100].iter().copied().take_while(|byte| *byte != 0).collect();
        let length = std::str::from_utf8(&head[124..135]).ok().and_then(|text| u64::from_str_radix(text, 8).ok());
        let (Ok(name), Some(length)) = (String::from_utf8(name), length) else {
            return Err(damage(at, "文件头已被改动", "the header of the next entry was changed"));
        };
        let written = header(&name, length);
        if let Some(n) = (0..BLOCK).find(|n| written[*n] != head[*n]) {
            let why = Text { zh: "文件头已被改动".to_owned(), en: "its header was changed".to_owned() };
            return Err(Damage { entry: name, byte: (at + n) as u64, why });
        }
        let from = at + BLOCK;
        let fits = usize::try_from(length).ok().and_then(|length| from.checked_add(length));
        let Some((end, bytes)) = fits.and_then(|end| Some((end, file.get(from..end)?))) else {
            let why = Text { zh: "文件在此中断".to_owned(), en: "the file breaks off in it".to_owned() };
            return Err(Damage { entry: name, byte: file.len() as u64, why });
        };
        let next = end.next_multiple_of(BLOCK);
        if let Some(n) = (end..next).find(|n| file.get(*n) != Some(&0)) {
            let why = Text { zh: "填充处有内容".to_owned(), en: "there is something behind its end".to_owned() };
            return Err(Damage { entry: name, byte: n as u64, why });
        }
        read.push((Entry { name, bytes: bytes.to_vec() }, from as u64));
        at = next;
    }
    check(&read)
}

/// Entries with the places of their first bytes, the seal last.
fn check(read: &[(Entry, u64)]) -> Result<Verified, Damage> {
    let wrong =
        |entry: &str, byte: u64, zh: String, en: String| Damage { entry: entry.to_owned(), byte, why: Text { zh, en } };
    let [entries @ .., (json, json_at), (seal, seal_at)] = read else {
        let (zh, en) = ("没有清单".to_owned(), "there is no manifest".to_owned());
        return Err(wrong(MANIFEST, 0, zh, en));
    };
    let sum = hex(&sha256(&[&json.bytes]));
    if json.name != MANIFEST || seal.bytes != format!("{sum}  {MANIFEST}\n").as_bytes() {
        let (zh, en) = ("清单与其封印不符".to_owned(), "the manifest and its seal do not agree".to_owned());
        // Which of the two was changed nobody can say; one whose form is broken is the one.
        let sealed =
            std::str::from_utf8(&seal.bytes).ok().and_then(|text| text.strip_suffix(&format!("  {MANIFEST}\n")));
        let is_seal = sealed.is_some_and(|text| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()));
        return Err(if is_seal { wrong(MANIFEST, *json_at, zh, en) } else { wrong(SEAL, *seal_at, zh, en) });
    }
    let manifest: Manifest = serde_json::from_slice(&json.bytes).map_err(|error| {
        wrong(MANIFEST, *json_at, format!("清单无法读取：{error}"), format!("the manifest cannot be read: {error}"))
    })?;
    if manifest.format != FORMAT {
        let format = &manifest.format;
        let zh = format!("格式为 {format:?}，本版本只认识 {FORMAT}");
        return Err(wrong(MANIFEST, *json_at, zh, format!("its format is {format:?}, this anmin knows {FORMAT}")));
    }
    let mut chain = [0; 32];
    for (n, listed) in manifest.entries.iter().enumerate() {
        let Some((entry, at)) = entries.get(n) else {
            let zh = "清单中有此项，文件中没有".to_owned();
            return Err(wrong(&listed.name, 0, zh, "the manifest names it and it is not there".to_owned()));
        };
        let own = sha256(&[&entry.bytes]);
        chain = sha256(&[&chain, b"\0", entry.name.as_bytes(), b"\0", &own]);
        if entry.name != listed.name {
            let zh = format!("此处应为 {}", listed.name);
            return Err(wrong(&entry.name, *at, zh, format!("{} should stand here", listed.name)));
        }
        if listed.sha256 != hex(&own) || listed.bytes != entry.bytes.len() as u64 || listed.chain != hex(&chain) {
            let zh = "内容与清单不符".to_owned();
            return Err(wrong(&entry.name, *at, zh, "its content is not what the manifest says".to_owned()));
        }
    }
    if let Some((entry, at)) = entries.get(manifest.entries.len()) {
        let zh = "清单中没有此项".to_owned();
        return Err(wrong(&entry.name, *at, zh, "the manifest does not name it".to_owned()));
    }
    Ok(Verified { seal: sum, about: manifest.about, entries: entries.len() })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn sample() -> (Vec<u8>, String, Vec<Entry>) {
        let entry = |name: &str, bytes: &[u8]| Entry { name: name.to_owned(), bytes: bytes.to_vec() };
        let entries = vec![
            entry("report.html", "<p>报告</p>".as_bytes()),
            entry("empty.json", b""),
            entry("readings/whole-block.csv", &[b'7'; BLOCK]),
        ];
        let (file, seal) = write(json!({ "incident": "1" }), &entries);
        (file, seal, entries)
    }

    #[test]
    fn what_was_written_is_whole_and_the_same_records_give_the_same_bytes() {
        let (file, seal, entries) = sample();
        let verified = verify(&file).expect("nobody has touched it");
        assert_eq!((verified.seal, verified.entries, verified.about), (seal, 3, json!({ "incident": "1" })));
        assert_eq!(write(json!({ "incident": "1" }), &entries).0, file);
    }

    /// Goal: no byte of a package can change unseen, and the entry that holds it is named. Method: every byte is changed in two
    /// ways, one at a time.
    #[test]
    fn one_changed_byte_anywhere_is_named() {
        let (file, _, entries) = sample();
        // Where each entry lies: from its header to the next.
        let mut lies = Vec::new();
        let mut at = 0;
        for entry in entries.iter().map(|entry| (entry.name.clone(), entry.bytes.len())) {
            let next = at + BLOCK + entry.1.next_multiple_of(BLOCK);
            lies.push((at..next, entry.0));
            at = next;
        }
        for n in 0..file.len() {
            for bit in [0x01, 0x80] {
                let mut changed = file.clone();
                changed[n] ^= bit;
                let damage = verify(&changed).expect_err("one byte is another");
                if let Some((range, name)) = lies.iter().find(|(range, _)| range.contains(&n)) {
                    let named = damage.entry == *name || n < range.start + BLOCK;
                    assert!(named, "byte {n} lies in {name}: {damage}");
                } else {
                    let named = damage.entry.contains("manifest") || damage.why.en.contains("header");
                    assert!(named, "byte {n} lies behind the entries: {damage}");
                }
                assert!(!damage.why.zh.is_ascii(), "{damage}");
            }
        }
    }

    #[test]
    fn what_is_cut_off_put_in_or_taken_out_is_named() {
        let (file, _, entries) = sample();
        for cut in [0, 1, 511, 512, 700, file.len() - 1_024, file.len() - 1] {
            assert!(verify(&file[..cut]).is_err(), "cut at {cut}");
        }
        assert!(verify(&[file.as_slice(), &[0]].concat()).is_err(), "one byte more");
        // Whoever takes an entry out and leaves the manifest.
        let first = BLOCK + entries[0].bytes.len().next_multiple_of(BLOCK);
        let damage = verify(&file[first..]).expect_err("the report is gone");
        assert_eq!((damage.entry.as_str(), damage.why.en.contains("report.html")), ("empty.json", true), "{damage}");
        let mut put_in = Vec::new();
        put(&mut put_in, "more.txt", b"x");
        let damage = verify(&[put_in.as_slice(), &file].concat()).expect_err("one more");
        assert_eq!(damage.entry, "more.txt");
        assert!(verify(b"").is_err() && verify(&[0; 1_024]).is_err() && verify(&vec![0xFF; 4_096]).is_err());
    }
}
