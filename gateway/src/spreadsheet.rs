//! What WPS and Excel write, as text, and text as they read it: encodings, and where a record stands in the file.

use std::borrow::Cow;

use anmin_rules::rule::Text;

/// How the file was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// With the mark in front by which Excel knows it.
    Utf8,
    /// As spreadsheets in China write CSV by default: GB 18030, of which GBK is a part.
    Gbk,
}

impl Encoding {
    pub const ALL: [Self; 2] = [Self::Utf8, Self::Gbk];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Utf8 => "utf-8",
            Self::Gbk => "gbk",
        }
    }

    pub fn named(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|encoding| encoding.as_str() == word)
    }
}

/// Text of a file as a spreadsheet wrote it; the error says what it is not.
pub fn decode(bytes: &[u8]) -> Result<(&'static str, String), Text> {
    let not = |zh: &str, en: &str| Text { zh: zh.to_owned(), en: en.to_owned() };

    if bytes.starts_with(&[0xFF, 0xFE]) || bytes.starts_with(&[0xFE, 0xFF]) {
        return Err(not(
            "文件是 UTF-16（“Unicode 文本”）；请另存为 CSV 或“CSV UTF-8”",
            "it is UTF-16 (\"Unicode text\"); save it as CSV or as \"CSV UTF-8\"",
        ));
    }
    if bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(&[0xD0, 0xCF, 0x11, 0xE0]) {
        return Err(not("文件是工作簿；请将工作表另存为 CSV", "it is a workbook; save the sheet as CSV"));
    }
    let gbk = || encoding_rs::GB18030.decode_without_bom_handling_and_without_replacement(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        // Some characters of GBK, such as 楼, read as Latin letters and signs in UTF-8. In UTF-8 the first Chinese character says
        // what it is; where there is none, a sheet from China is GBK.
        let is_latin = !text.is_ascii() && text.chars().all(|c| c < '\u{800}');
        if let Some(text) = is_latin.then(gbk).flatten() {
            return Ok(("GBK", text.into_owned()));
        }
        return Ok(("UTF-8", text.strip_prefix('\u{feff}').unwrap_or(text).to_owned()));
    }
    gbk()
        .map(|text| ("GBK", text.into_owned()))
        .ok_or_else(|| not("文件既不是 UTF-8 也不是 GBK", "it is neither UTF-8 nor GBK"))
}

/// Bytes for a spreadsheet; the error names what GBK cannot say.
pub fn encode(text: &str, encoding: Encoding) -> Result<Vec<u8>, String> {
    match encoding {
        Encoding::Utf8 => Ok([b"\xEF\xBB\xBF", text.as_bytes()].concat()),
        Encoding::Gbk => match encoding_rs::GBK.encode(text) {
            (bytes, _, false) => Ok(bytes.into_owned()),
            _ => {
                let strange = text.chars().find(|c| encoding_rs::GBK.encode(c.encode_utf8(&mut [0; 4])).2);
                Err(format!("GBK has no {:?}; write it in UTF-8", strange.unwrap_or_default()))
            }
        },
    }
}

/// A cell that no spreadsheet computes (OWASP, CSV injection).
pub fn tame(cell: &str) -> Cow<'_, str> {
    const FORMULA: [char; 10] = ['=', '+', '-', '@', '＝', '＋', '－', '＠', '\t', '\r'];
    if cell.starts_with(FORMULA) { Cow::Owned(format!("'{cell}")) } else { Cow::Borrowed(cell) }
}

/// The line of a file at which each record begins, as a text editor counts them. The `csv` crate's own count is that of where
/// the record before has ended: with CRLF and with empty lines it lags.
pub struct Lines<'t> {
    text: &'t str,
    at: usize,
    line: usize,
}

impl<'t> Lines<'t> {
    pub fn of(text: &'t str) -> Self {
        Self { text, at: 0, line: 1 }
    }

    /// Of the record at `position`, or of that at which reading stopped; they are asked for in the order of the file.
    pub fn of_record(&mut self, position: Option<&csv::Position>) -> usize {
        let rest = position.and_then(|at| self.text.get(usize::try_from(at.byte()).ok()?..)).unwrap_or_default();
        let start = self.text.len() - rest.trim_start_matches(['\r', '\n']).len();
        if let Some(passed) = self.text.get(self.at..start) {
            self.line += passed.matches('\n').count();
            self.at = start;
        }
        self.line
    }
}
