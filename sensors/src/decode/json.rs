//! JSON: the values at a few known paths, in one pass, without a tree.
//!
//! The paths are RFC 6901 pointers, compiled once; beyond the RFC, `*` stands for every place of an array. The scanner accepts RFC 8259 and, beyond it, the tokens `NaN`,
//! `Infinity` and their kin, which devices do send: they become "no number" at their own path, where a strict parser
//! would throw away the smoke flag that stands beside them. A number that no `f64` can hold does the same. Depth is
//! bounded; the length of the text is the caller's to bound. It does not know what a value means.

use std::borrow::Cow;

/// Arrays and objects inside one another, at most.
pub const MAX_DEPTH: usize = 16;

/// What stands at a path.
#[derive(Clone, Debug, PartialEq)]
pub enum Scalar<'p> {
    Null,
    Flag(bool),
    /// As it was written, by the grammar of RFC 8259; not checked to fit an `f64`.
    Number(&'p str),
    /// `NaN`, `Infinity` and their kin.
    NoNumber,
    Text(Cow<'p, str>),
    /// An array or an object.
    Compound,
}

/// Why a text is not JSON that anmin reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// The grammar is broken at this byte.
    #[error("not JSON at byte {0}")]
    Syntax(usize),
    /// More than [`MAX_DEPTH`] arrays and objects inside one another.
    #[error("more than {MAX_DEPTH} arrays and objects inside one another")]
    TooDeep,
}

/// A set of paths to look for; each has the number under which its value is reported.
#[derive(Clone, Debug, Default)]
pub struct Paths {
    /// The first is the whole document.
    nodes: Vec<Node>,
}

#[derive(Clone, Debug, Default)]
struct Node {
    children: Vec<Child>,
    slots: Vec<usize>,
}

#[derive(Clone, Debug)]
struct Child {
    key: Box<str>,
    /// The key as an array index, where it is one.
    index: Option<usize>,
    node: usize,
}

impl Paths {
    /// Compiles the pointers; the n-th is reported as n. The error says what is wrong with one.
    pub fn new<'a>(pointers: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let mut paths = Self { nodes: vec![Node::default()] };
        for (slot, pointer) in pointers.into_iter().enumerate() {
            let mut at = 0;
            for key in tokens(pointer)? {
                at = paths.child(at, key);
            }
            paths.nodes[at].slots.push(slot);
        }
        Ok(paths)
    }

    fn child(&mut self, of: usize, key: String) -> usize {
        if let Some(child) = self.nodes[of].children.iter().find(|child| *child.key == *key) {
            return child.node;
        }
        let node = self.nodes.len();
        self.nodes.push(Node::default());
        let index = if key == "0" || !key.starts_with('0') { key.parse().ok() } else { None };
        self.nodes[of].children.push(Child { key: key.into(), index, node });
        node
    }

    /// Reports what stands at each path, in the order of the text; a key that stands twice is reported twice. A path
    /// that the text does not have is not reported. On an error what was reported before it must not be used.
    pub fn read<'p>(&self, text: &'p str, found: &mut impl FnMut(usize, Scalar<'p>)) -> Result<(), JsonError> {
        let mut scanner = Scanner { paths: self, text, bytes: text.as_bytes(), at: 0, found };
        scanner.value(Some(0), 0)?;
        scanner.space();
        if scanner.at == scanner.bytes.len() { Ok(()) } else { Err(JsonError::Syntax(scanner.at)) }
    }
}

/// The unescaped reference tokens of an RFC 6901 pointer.
pub fn tokens(pointer: &str) -> Result<Vec<String>, String> {
    if pointer.is_empty() {
        return Ok(Vec::new());
    }
    let Some(rest) = pointer.strip_prefix('/') else {
        return Err(format!("a path such as \"/data/lel\" begins with a slash, {pointer:?} does not"));
    };
    let keys: Vec<String> = rest.split('/').map(|token| token.replace("~1", "/").replace("~0", "~")).collect();
    if keys.len() > MAX_DEPTH {
        return Err(format!("{pointer:?} goes deeper than {MAX_DEPTH} levels"));
    }
    Ok(keys)
}

/// Text as a JSON string, with its quotes; a TOML string as well, which may not hold DEL as it is.
pub fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c < ' ' || c == '\u{7f}' => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

struct Scanner<'p, 's, F> {
    paths: &'s Paths,
    text: &'p str,
    bytes: &'p [u8],
    at: usize,
    found: &'s mut F,
}

impl<'p, F: FnMut(usize, Scalar<'p>)> Scanner<'p, '_, F> {
    /// `node` is `None` below a place that nobody asked for. The recursion ends at [`MAX_DEPTH`].
    fn value(&mut self, node: Option<usize>, depth: usize) -> Result<(), JsonError> {
        self.space();
        match self.bytes.get(self.at) {
            Some(b'{') => {
                self.report(node, |_| Scalar::Compound);
                self.object(node, self.deeper(depth)?)
            }
            Some(b'[') => {
                self.report(node, |_| Scalar::Compound);
                self.array(node, self.deeper(depth)?)
            }
            Some(b'"') => {
                let string = self.string()?;
                self.report(node, |text| Scalar::Text(string.text(text)));
                Ok(())
            }
            Some(b't') => self.word("true", node, Scalar::Flag(true)),
            Some(b'f') => self.word("false", node, Scalar::Flag(false)),
            Some(b'n') if self.bytes[self.at..].starts_with(b"null") => self.word("null", node, Scalar::Null),
            Some(b'-' | b'0'..=b'9' | b'N' | b'n' | b'I' | b'i') => self.number(node),
            _ => Err(JsonError::Syntax(self.at)),
        }
    }

    fn deeper(&self, depth: usize) -> Result<usize, JsonError> {
        if depth == MAX_DEPTH { Err(JsonError::TooDeep) } else { Ok(depth + 1) }
    }

    fn object(&mut self, node: Option<usize>, depth: usize) -> Result<(), JsonError> {
        self.at += 1;
        self.space();
        if self.take(b'}') {
            return Ok(());
        }
        loop {
            self.space();
            if self.bytes.get(self.at) != Some(&b'"') {
                return Err(JsonError::Syntax(self.at));
            }
            let key = self.string()?;
            let child = node.and_then(|node| {
                let children = &self.paths.nodes[node].children;
                if children.is_empty() {
                    return None;
                }
                let key = key.text(self.text);
                children.iter().find(|child| *child.key == *key).map(|child| child.node)
            });
            self.space();
            self.expect(b':')?;
            self.value(child, depth)?;
            self.space();
            if !self.take(b',') {
                return self.expect(b'}');
            }
        }
    }

    fn array(&mut self, node: Option<usize>, depth: usize) -> Result<(), JsonError> {
        self.at += 1;
        self.space();
        if self.take(b']') {
            return Ok(());
        }
        for n in 0.. {
            let child = node.and_then(|node| {
                let children = &self.paths.nodes[node].children;
                children.iter().find(|child| child.index == Some(n) || *child.key == *"*").map(|child| child.node)
            });
            self.value(child, depth)?;
            self.space();
            if !self.take(b',') {
                break;
            }
        }
        self.expect(b']')
    }

    /// A whole string; afterwards `at` is behind its closing quote.
    fn string(&mut self) -> Result<Quoted, JsonError> {
        self.at += 1;
        let start = self.at;
        let mut escaped = false;
        loop {
            match self.bytes.get(self.at) {
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    self.at += 1;
                    match self.bytes.get(self.at) {
                        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
                        Some(b'u')
                            if self
                                .bytes
                                .get(self.at + 1..self.at + 5)
                                .is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit)) =>
                        {
                            self.at += 5;
                        }
                        _ => return Err(JsonError::Syntax(self.at)),
                    }
                }
                Some(0x20..) => self.at += 1,
                _ => return Err(JsonError::Syntax(self.at)),
            }
        }
        self.at += 1;
        Ok(Quoted { start, end: self.at - 1, escaped })
    }

    fn word(&mut self, word: &str, node: Option<usize>, scalar: Scalar<'p>) -> Result<(), JsonError> {
        if !self.bytes[self.at..].starts_with(word.as_bytes()) {
            return Err(JsonError::Syntax(self.at));
        }
        self.at += word.len();
        self.report(node, |_| scalar.clone());
        Ok(())
    }

    fn number(&mut self, node: Option<usize>) -> Result<(), JsonError> {
        let start = self.at;
        self.take(b'-');
        let rest = &self.bytes[self.at..];
        let strange = ["NaN", "nan", "NAN", "Infinity", "infinity", "Inf", "inf", "INF"];
        if let Some(word) = strange.iter().find(|word| rest.starts_with(word.as_bytes())) {
            self.at += word.len();
            self.report(node, |_| Scalar::NoNumber);
            return Ok(());
        }
        if !self.take(b'0') {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            let _ = self.take(b'+') || self.take(b'-');
            self.digits()?;
        }
        let end = self.at;
        self.report(node, |text| Scalar::Number(&text[start..end]));
        Ok(())
    }

    /// One digit or more.
    fn digits(&mut self) -> Result<(), JsonError> {
        let start = self.at;
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        if self.at > start { Ok(()) } else { Err(JsonError::Syntax(self.at)) }
    }

    fn report(&mut self, node: Option<usize>, scalar: impl Fn(&'p str) -> Scalar<'p>) {
        if let Some(node) = node {
            for slot in &self.paths.nodes[node].slots {
                (self.found)(*slot, scalar(self.text));
            }
        }
    }

    fn space(&mut self) {
        while matches!(self.bytes.get(self.at), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    fn take(&mut self, byte: u8) -> bool {
        let there = self.bytes.get(self.at) == Some(&byte);
        self.at += usize::from(there);
        there
    }

    fn expect(&mut self, byte: u8) -> Result<(), JsonError> {
        if self.take(byte) { Ok(()) } else { Err(JsonError::Syntax(self.at)) }
    }
}

/// A string's place in the text, between its quotes.
#[derive(Clone, Copy)]
struct Quoted {
    start: usize,
    end: usize,
    escaped: bool,
}

impl Quoted {
    fn text(self, text: &str) -> Cow<'_, str> {
        let raw = &text[self.start..self.end];
        if self.escaped { Cow::Owned(unescape(raw)) } else { Cow::Borrowed(raw) }
    }
}

/// The scanner has checked the escapes; half of a surrogate pair becomes U+FFFD.
fn unescape(raw: &str) -> String {
    let mut plain = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = rest.find('\\') {
        plain.push_str(&rest[..at]);
        let escape = rest.as_bytes().get(at + 1).copied().unwrap_or(b'\\');
        rest = rest.get(at + 2..).unwrap_or_default();
        match escape {
            b'b' => plain.push('\u{8}'),
            b'f' => plain.push('\u{c}'),
            b'n' => plain.push('\n'),
            b'r' => plain.push('\r'),
            b't' => plain.push('\t'),
            b'u' => {
                let unit = |text: &str| text.get(..4).and_then(|hex| u16::from_str_radix(hex, 16).ok());
                let first = unit(rest).unwrap_or(0xFFFD);
                rest = rest.get(4..).unwrap_or_default();
                let second = rest.strip_prefix("\\u").and_then(unit).filter(|low| (0xDC00..0xE000).contains(low));
                match second {
                    Some(second) if (0xD800..0xDC00).contains(&first) => {
                        rest = &rest[6..];
                        plain.extend(char::decode_utf16([first, second]).map(|c| c.unwrap_or('\u{FFFD}')));
                    }
                    _ => plain.push(char::from_u32(u32::from(first)).unwrap_or('\u{FFFD}')),
                }
            }
            other => plain.push(char::from(other)),
        }
    }
    plain.push_str(rest);
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pointers: &[&str], text: &str) -> Result<Vec<(usize, String)>, JsonError> {
        let paths = Paths::new(pointers.iter().copied()).expect("the test's paths are sound");
        let mut found = Vec::new();
        paths.read(text, &mut |slot, scalar| found.push((slot, format!("{scalar:?}"))))?;
        Ok(found)
    }

    #[test]
    fn values_are_found_at_their_paths() {
        type Case<'a> = (&'a [&'a str], &'a str, &'a [(usize, &'a str)]);
        let cases: &[Case<'_>] = &[
            (&["/v"], r#"{"v":12.5}"#, &[(0, "Number(\"12.5\")")]),
            (&["/v"], r#" { "v" : -0 } "#, &[(0, "Number(\"-0\")")]),
            (&["/v"], r#"{"w":1}"#, &[]),
            (&["/a/b", "/a/c"], r#"{"a":{"c":true,"b":null},"b":9}"#, &[(1, "Flag(true)"), (0, "Null")]),
            (&["/0/v", "/1"], r#"[{"v":1},"x"]"#, &[(0, "Number(\"1\")"), (1, "Text(\"x\")")]),
            (&["/01"], r#"[0,1]"#, &[]),
            (&["/*/v", "/*"], r#"[{"v":1},2]"#, &[(1, "Compound"), (0, "Number(\"1\")"), (1, "Number(\"2\")")]),
            (&["/*"], r#"{"*":1,"x":2}"#, &[(0, "Number(\"1\")")]),
            (&[""], "7e2", &[(0, "Number(\"7e2\")")]),
            (&["/a~1b/m~0n"], r#"{"a/b":{"m~n":1}}"#, &[(0, "Number(\"1\")")]),
            (&["/气体"], r#"{"\u6c14体":3}"#, &[(0, "Number(\"3\")")]),
            (&["/t"], r#"{"t":"a\"\\\/\n\u00e9\ud83d\udd25\ud83d."}"#, &[(0, "Text(\"a\\\"\\\\/\\né🔥\u{fffd}.\")")]),
            (&["/v"], r#"{"v":{"v":1}}"#, &[(0, "Compound")]),
            (&["/v"], r#"{"v":[1]}"#, &[(0, "Compound")]),
            (&["/v"], r#"{"v":1,"v":2}"#, &[(0, "Number(\"1\")"), (0, "Number(\"2\")")]),
            (&["/v", "/v"], r#"{"v":1}"#, &[(0, "Number(\"1\")"), (1, "Number(\"1\")")]),
            (&["/v", "/s"], r#"{"v":NaN,"s":true}"#, &[(0, "NoNumber"), (1, "Flag(true)")]),
            (&["/v"], r#"{"v":-Infinity}"#, &[(0, "NoNumber")]),
            (&["/v"], r#"{"v":nan}"#, &[(0, "NoNumber")]),
            (&["/v"], r#"{"v":1e400}"#, &[(0, "Number(\"1e400\")")]),
        ];
        for (pointers, text, wanted) in cases {
            let wanted = wanted.iter().map(|(slot, scalar)| (*slot, (*scalar).to_owned())).collect();
            assert_eq!(read(pointers, text), Ok(wanted), "{text}");
        }
    }

    #[test]
    fn what_is_not_json_is_refused_with_its_place() {
        for (text, at) in [
            ("", 0),
            ("{", 1),
            ("{\"v\":}", 5),
            ("{\"v\":1,}", 7),
            ("{\"v\":01}", 6),
            ("{\"v\":12,5}", 8),
            ("{\"v\":+1}", 5),
            ("{\"v\":.5}", 5),
            ("{\"v\":5.}", 7),
            ("{\"v\":1e}", 7),
            ("{\"v\":0x1F}", 6),
            ("{'v':1}", 1),
            ("{\"v\":\"\\x\"}", 7),
            ("{\"v\":\"a\nb\"}", 7),
            ("{\"v\":\"open}", 11),
            ("{\"v\":tru}", 5),
            ("{\"v\":1} x", 8),
            ("[1 2]", 3),
            ("nul", 0),
        ] {
            assert_eq!(read(&["/v"], text), Err(JsonError::Syntax(at)), "{text}");
        }
    }

    #[test]
    fn depth_is_bounded_also_where_nobody_looks() {
        let nested = |n: usize| format!("{}1{}", "[".repeat(n), "]".repeat(n));
        assert_eq!(read(&["/v"], &nested(MAX_DEPTH)), Ok(Vec::new()));
        assert_eq!(read(&["/v"], &nested(MAX_DEPTH + 1)), Err(JsonError::TooDeep));
        assert_eq!(read(&["/v"], &"[".repeat(200_000)), Err(JsonError::TooDeep));
        assert_eq!(read(&["/v"], &"{\"a\":".repeat(200_000)), Err(JsonError::TooDeep));
    }

    /// Goal: the scanner accepts what serde_json accepts. Method: sound documents with random bytes changed; where the
    /// two differ it must be for what the scanner admits on purpose (numbers that are none) or for depth.
    #[test]
    fn it_accepts_what_serde_json_accepts() {
        let seeds = [
            r#"{"v":12.5,"ts":1772328600000,"seq":17,"name":"厨房 gas","ok":true,"n":null,"a":[1,-2.5e-3,"x\n"]}"#,
            r#"[{"a":{"b":[[],{}]}},"\u0041",0,-0.0,1E+9,false]"#,
        ];
        let mut state = 0x5EED_u64;
        let mut next = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        };
        let palette = b"{}[]\",:\\0123456789.eE+-truefalsn Na\t\n/u";
        for round in 0..40_000 {
            let mut bytes = seeds[round % seeds.len()].as_bytes().to_vec();
            for _ in 0..next(4) {
                let at = next(bytes.len());
                match next(3) {
                    0 => bytes[at] = palette[next(palette.len())],
                    1 => drop(bytes.remove(at)),
                    _ => bytes.insert(at, palette[next(palette.len())]),
                }
            }
            let Ok(text) = std::str::from_utf8(&bytes) else { continue };
            let ours = read(&["/v", "/a/1"], text);
            let theirs = serde_json::from_str::<serde_json::Value>(text);
            match (&ours, &theirs) {
                (Ok(_), Ok(_)) | (Err(_), Err(_)) => {}
                (Ok(_), Err(error)) => {
                    let lower = text.to_lowercase();
                    let on_purpose = error.to_string().contains("out of range")
                        || error.to_string().contains("surrogate")
                        || error.to_string().contains("hex escape")
                        || lower.contains("nan")
                        || lower.contains("inf");
                    assert!(on_purpose, "round {round}: only serde_json refuses {text}: {error}");
                }
                (Err(error), Ok(_)) => panic!("round {round}: only the scanner refuses {text}: {error}"),
            }
        }
    }
}
