//! What the model is kept on.

use std::path::{Path, PathBuf};

use chaski_boards::read_text;

use super::machine::shown;
use super::report::Check;
use crate::bench::human;

const NAME: &str = "storage";
/// Logs and the file of answers want some.
const LITTLE_SPACE: u64 = 64 << 20;
const NETWORK: [&str; 8] = [
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "9p",
    "ceph",
    "fuse.sshfs",
    "glusterfs",
];

/// Looks at the file system of the model; nothing where that cannot be told.
pub(super) fn check(folder: &Path, root: &Path) -> Option<Check> {
    let folder = folder.canonicalize().ok()?;
    let mounts = read_text(&root.join("proc/self/mountinfo"))?;
    let mount = mount_of(&mounts, &folder)?;
    let device = device(&mount.source, root);
    let free = rustix::fs::statvfs(&folder).ok();
    let free = free.map(|stat| stat.f_bavail.saturating_mul(stat.f_frsize));
    Some(judge(&mount, &device, free))
}

fn judge(mount: &Mount, device: &str, free: Option<u64>) -> Check {
    let space = free
        .map(|free| format!(", {} free", human(free)))
        .unwrap_or_default();
    let read_only = if mount.read_only { ", read-only" } else { "" };
    let kind = shown(&mount.kind);
    let place = shown(&mount.point.display().to_string());
    let finding = format!("{kind} at {place}{read_only}{device}{space}");
    match kind.as_str() {
        "tmpfs" | "ramfs" => Check::warning(
            NAME,
            format!("{finding}: it takes memory, and is gone with the next start"),
            "keep the model on a disk; what is used of it is in memory anyway",
        ),
        "overlay" => Check::warning(
            NAME,
            format!("{finding}: what is written there may be gone with the next start"),
            "mount a disk for the model (a volume, for a container)",
        ),
        kind if NETWORK.contains(&kind) => Check::warning(
            NAME,
            format!("{finding}: without the network the node stops"),
            "copy the model to a disk of this machine",
        ),
        _ if free.is_some_and(|free| free < LITTLE_SPACE) && !mount.read_only => {
            let remedy = "make room: logs and the file of answers are kept as well";
            Check::warning(NAME, format!("{finding}: almost full"), remedy)
        }
        _ => Check::ok(NAME, finding),
    }
}

/// A line of `/proc/self/mountinfo`.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    point: PathBuf,
    kind: String,
    source: String,
    read_only: bool,
}

/// The mount that a folder is on: the longest that it is below, and of those the last.
fn mount_of(mountinfo: &str, folder: &Path) -> Option<Mount> {
    let mounts = mountinfo.lines().filter_map(mount);
    let above = mounts.filter(|mount| folder.starts_with(&mount.point));
    above.max_by_key(|mount| mount.point.components().count())
}

/// See proc_pid_mountinfo(5): some fields, any number of tags, a dash, three fields.
fn mount(line: &str) -> Option<Mount> {
    let (before, after) = line.split_once(" - ")?;
    let mut before = before.split(' ').skip(4);
    let (point, options) = (before.next()?, before.next()?);
    let mut after = after.split(' ');
    let (kind, source) = (after.next()?, after.next()?);
    let of_all = after.next().unwrap_or_default();
    let has_ro = |options: &str| options.split(',').any(|option| option == "ro");
    Some(Mount {
        point: PathBuf::from(unescape(point)),
        kind: kind.to_owned(),
        source: unescape(source),
        read_only: has_ro(options) || has_ro(of_all),
    })
}

/// White space in names is written as three octal digits.
fn unescape(name: &str) -> String {
    [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ]
    .iter()
    .fold(name.to_owned(), |name, (code, c)| name.replace(code, c))
}

/// What kind of disk it is, if that can be told.
fn device(source: &str, root: &Path) -> String {
    let Some(name) = source.strip_prefix("/dev/") else {
        return String::new();
    };
    let kind = if name.starts_with("nvme") {
        "NVMe"
    } else if let Some(rest) = name.strip_prefix("mmcblk") {
        let disk = rest.split('p').next().unwrap_or_default();
        let file = format!("sys/block/mmcblk{disk}/device/type");
        match read_text(&root.join(file)).as_deref() {
            Some("MMC") => "eMMC",
            Some("SD") => "SD card",
            _ => "SD card or eMMC",
        }
    } else if name.starts_with("sd") {
        let disk = name.trim_end_matches(|c: char| c.is_ascii_digit());
        match read_text(&root.join(format!("sys/block/{disk}/queue/rotational"))).as_deref() {
            Some("1") => "hard disk",
            _ => "SSD or USB stick",
        }
    } else {
        return String::new();
    };
    format!(", {kind}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::report::Verdict;

    const MOUNTS: &str = "22 1 179:2 / / rw,noatime shared:1 - ext4 /dev/mmcblk0p2 rw\n\
        30 22 0:5 / /mnt/my\\040models ro,relatime - nfs4 nas:/models rw,vers=4.2\n\
        31 22 8:1 / /mnt rw master:1 shared:2 - ext4 /dev/sda1 rw\n\
        nonsense\n";

    #[test]
    fn the_longest_mount_point_counts() {
        let of = |path: &str| mount_of(MOUNTS, Path::new(path)).map(|mount| mount.source);
        assert_eq!(of("/var/lib/chaski").as_deref(), Some("/dev/mmcblk0p2"));
        assert_eq!(of("/mnt/other").as_deref(), Some("/dev/sda1"));
        assert_eq!(of("/mnt/my models/m").as_deref(), Some("nas:/models"));
        assert_eq!(of("/mntx").as_deref(), Some("/dev/mmcblk0p2"));
        let nfs = mount_of(MOUNTS, Path::new("/mnt/my models")).unwrap();
        assert!(nfs.read_only && nfs.kind == "nfs4");
        assert_eq!(mount_of("\u{1}garbage - \n - - -", Path::new("/")), None);
    }

    #[test]
    fn kinds_of_file_systems() {
        let of = |kind: &str, free| {
            let mount = Mount {
                point: "/".into(),
                kind: kind.into(),
                source: "/dev/sda1".into(),
                read_only: false,
            };
            judge(&mount, "", free).verdict
        };
        assert_eq!(of("ext4", Some(1 << 40)), Verdict::Ok);
        assert_eq!(of("ext4", Some(1 << 20)), Verdict::Warning);
        assert_eq!(of("squashfs", None), Verdict::Ok);
        for kind in ["tmpfs", "overlay", "nfs", "cifs"] {
            assert_eq!(of(kind, Some(1 << 40)), Verdict::Warning, "{kind}");
        }
    }

    #[test]
    fn disks_by_their_names() {
        let root = tempfile::tempdir().unwrap();
        let sd = root.path().join("sys/block/mmcblk0/device");
        std::fs::create_dir_all(&sd).unwrap();
        std::fs::write(sd.join("type"), "SD\n").unwrap();
        let of = |source: &str| device(source, root.path());
        assert_eq!(of("/dev/mmcblk0p2"), ", SD card");
        assert_eq!(of("/dev/mmcblk1p2"), ", SD card or eMMC");
        assert_eq!(of("/dev/nvme0n1p1"), ", NVMe");
        assert_eq!(of("/dev/sda1"), ", SSD or USB stick");
        assert_eq!(of("nas:/models"), "");
    }
}
