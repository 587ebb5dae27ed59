//! What the ends of certificates mean for whoever asks the doctor.

use anmin_sensors::time::Wall;

use super::{Finding, Grade};
use crate::certificate::{Ends, Standing};
use crate::config::outside::Named;

/// The first certificate of a file to end.
pub fn file(named: &Named, now: Wall) -> Finding {
    let shown = named.path.display();
    match Ends::of_file(&named.path) {
        Ok(ends) => judge(&named.key, &shown.to_string(), ends, named.is_authority(), now),
        Err(why) => Finding::new(&named.key, Grade::Ill, format!("{shown}：{why}"), format!("{shown}: {why}")),
    }
}

/// What the end of a certificate means now.
pub fn judge(of: &str, what: &str, ends: Ends, authorities: bool, now: Wall) -> Finding {
    let end = ends.first;
    let (grade, zh, en) = match ends.standing(authorities, now) {
        Standing::HasEnded => (Grade::Ill, "证书已过期", "its certificate has expired"),
        Standing::OneHasEnded => (Grade::Doubtful, "其中一个证书已过期", "one of its certificates has expired"),
        Standing::EndsSoon => (Grade::Doubtful, "证书即将过期", "its certificate ends soon"),
        Standing::Holds => (Grade::Well, "证书有效", "its certificate holds"),
    };
    let finding = Finding::new(of, grade, format!("{what} {zh}：{end}"), format!("{what}: {en}, until {end}"));
    match grade {
        Grade::Well => finding,
        _ => finding.next("更新证书", "renew it"),
    }
}
