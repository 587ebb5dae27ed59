//! Serial lines: whether they are there, and whether the daemon may use them: by its unit, its user and its groups.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use super::unit::Unit;
use super::{Finding, Grade, READ, WRITE};

/// What lets the service reach a line.
pub const DROP_IN: &str = "install -D -t /etc/systemd/system/anmin.service.d /usr/share/anmin/drop-ins/serial.conf && systemctl daemon-reload && systemctl restart anmin";

/// One line. `owner` is the user that the daemon runs as, and its group; one that nobody knows of may do everything.
pub fn line(of: &str, device: &Path, unit: Option<&Unit>, owner: Option<(u32, u32)>) -> Finding {
    let shown = device.display();
    let meta = match fs::metadata(device) {
        Ok(meta) => meta,
        Err(error) => {
            return Finding::new(of, Grade::Ill, format!("串口 {shown}：{error}"), format!("{shown}: {error}"))
                .next("ls -l /dev/serial/by-id 列出已插入的串口", "ls -l /dev/serial/by-id lists what is plugged in");
        }
    };
    if !meta.file_type().is_char_device() {
        return Finding::new(of, Grade::Ill, format!("{shown} 不是串口"), format!("{shown} is no serial line"));
    }
    let (users, groups) = (read("/etc/passwd"), read("/etc/group"));
    if owner.is_none_or(|owner| may_use(&meta, owner, &groups_of(owner, unit, &users, &groups))) {
        return Finding::new(of, Grade::Well, format!("串口 {shown} 存在"), format!("{shown} is there"));
    }
    let group = groups.lines().find(|line| number(line) == Some(meta.gid())).and_then(|line| line.split(':').next());
    let group = group.map_or_else(|| meta.gid().to_string(), str::to_owned);
    let user = users.lines().find(|line| number(line) == owner.map(|(uid, _)| uid));
    let user = user.and_then(|line| line.split(':').next()).unwrap_or("anmin");
    let next = match unit {
        Some(_) if group == "dialout" => DROP_IN.to_owned(),
        _ => format!("usermod -aG {group} {user} && systemctl restart anmin"),
    };
    let mode = meta.mode() & 0o777;
    Finding::new(
        of,
        Grade::Ill,
        format!("守护进程不能读写 {shown}：它属于组 {group}，权限 {mode:o}"),
        format!("the daemon may not read and write {shown}: it is of the group {group}, with mode {mode:o}"),
    )
    .next(next.clone(), next)
}

/// Whether the unit keeps the daemon from a line that is there.
pub fn is_barred(device: &Path, unit: &Unit) -> bool {
    device.exists() && !unit.allows(device, &read("/proc/devices"))
}

/// All groups of the daemon: its own, those that its user is put into, and those of its unit.
fn groups_of((uid, gid): (u32, u32), unit: Option<&Unit>, users: &str, groups: &str) -> Vec<u32> {
    let user = users.lines().find(|line| number(line) == Some(uid)).and_then(|line| line.split(':').next());
    let named = unit.map(Unit::groups).unwrap_or_default();
    let is_in = |line: &&str| {
        let mut parts = line.split(':');
        let (name, members) = (parts.next().unwrap_or_default(), parts.nth(2).unwrap_or_default());
        let is_member = user.is_some_and(|user| members.split(',').any(|member| member == user));
        is_member || named.iter().any(|group| *group == name || group.parse().ok() == number(line))
    };
    let mut all: Vec<u32> = groups.lines().filter(is_in).filter_map(number).collect();
    all.push(gid);
    all
}

/// The number of a line of `/etc/passwd` or `/etc/group`.
fn number(line: &str) -> Option<u32> {
    line.split(':').nth(2)?.parse().ok()
}

fn may_use(meta: &fs::Metadata, (uid, _): (u32, u32), groups: &[u32]) -> bool {
    let whose = if meta.uid() == uid {
        6
    } else if groups.contains(&meta.gid()) {
        3
    } else {
        0
    };
    let wanted = (READ | WRITE) << whose;
    uid == 0 || meta.mode() & wanted == wanted
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const USERS: &str = "root:x:0:0::/root:/bin/sh\nanmin:x:998:997::/var/lib/anmin:/usr/sbin/nologin\n";
    const GROUPS: &str = "root:x:0:\ndialout:x:20:li,anmin\nmodems:x:31:\nanmin:x:997:\n";

    #[test]
    fn the_groups_of_the_daemon_are_its_own_its_user_s_and_its_unit_s() {
        for (drop_in, owner, wanted) in [
            ("", (998, 997), &[20, 997][..]),
            ("SupplementaryGroups=modems", (998, 997), &[20, 31, 997]),
            ("SupplementaryGroups=31", (998, 997), &[20, 31, 997]),
            ("#SupplementaryGroups=modems", (998, 997), &[20, 997]),
            ("", (5, 5), &[5]),
        ] {
            let unit = Unit::of_text(&format!("[Service]\n{drop_in}\n"));
            assert_eq!(groups_of(owner, Some(&unit), USERS, GROUPS), wanted, "{drop_in}");
        }
    }
}
