//! The kernel's tables of mounts, as `/proc/PID/mountinfo` has them. They are bytes: folders and sources need not be
//! UTF-8.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// The mounts that this process sees.
pub const OWN_TABLE: &str = "/proc/self/mountinfo";

/// One line of a mount table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountLine {
    /// The kernel's number of the mount.
    pub id: u64,
    /// The device as "major:minor".
    pub device: String,
    /// The mountpoint.
    pub path: PathBuf,
    /// The type of the file system: `ext4`, `nfs4`, `fuse.sshfs`.
    pub fs_type: OsString,
    /// The source: of a disk its device, of others any text.
    pub source: OsString,
    /// The options of the file system, with commas between them.
    pub options: Vec<u8>,
}

/// The mounts of a table such as [`OWN_TABLE`], those of one folder from the lowest on.
///
/// # Errors
/// The table cannot be read.
pub fn read(table: &Path) -> io::Result<Vec<MountLine>> {
    Ok(fs::read(table)?.split(|byte| *byte == b'\n').filter_map(parse).collect())
}

/// The mount that a folder lies in, whose path is absolute and without links.
///
/// # Errors
/// The table cannot be read.
pub fn of_folder(table: &Path, folder: &Path) -> io::Result<Option<MountLine>> {
    let over = read(table)?.into_iter().filter(|line| folder.starts_with(&line.path));
    Ok(over.max_by_key(|line| line.path.as_os_str().len())) // of several at one folder the last, which hides the others
}

/// Parses a line `36 35 98:0 /root /mnt options [tags] - type source superoptions`.
fn parse(line: &[u8]) -> Option<MountLine> {
    let mut fields = line.split(|byte| *byte == b' ');
    let id = str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let device = str::from_utf8(fields.nth(1)?).ok()?.to_owned();
    let path = OsString::from_vec(unescape(fields.nth(1)?)).into();
    let mut fields = fields.skip_while(|field| *field != b"-").skip(1);
    let fs_type = OsString::from_vec(unescape(fields.next()?));
    let source = OsString::from_vec(unescape(fields.next()?));
    let options = fields.next().map(unescape).unwrap_or_default();
    Some(MountLine { id, device, path, fs_type, source, options })
}

/// The kernel writes some bytes, such as spaces and newlines, as a backslash and three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        let escaped = tail.first_chunk::<3>().filter(|_| *first == b'\\');
        let escaped = escaped.and_then(|digits| u8::from_str_radix(str::from_utf8(digits).ok()?, 8).ok());
        plain.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &tail[3..] } else { tail };
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_mount_table() {
        let line = br"141 28 0:48 / /mnt/a\040b ro,nosuid shared:7 - fuse.ctwds-fs ctwds-fs:4711 ro,user_id=0";
        let found = parse(line).unwrap();
        assert_eq!((found.id, &*found.device, found.path.to_str()), (141, "0:48", Some("/mnt/a b")));
        assert_eq!(found.fs_type.to_str(), Some("fuse.ctwds-fs"));
        assert_eq!((found.source.to_str(), &found.options[..]), (Some("ctwds-fs:4711"), &b"ro,user_id=0"[..]));
    }

    #[test]
    fn the_table_is_bytes() {
        let bytes = |path: &Path| path.as_os_str().as_encoded_bytes().to_vec();
        let fields: [(&[u8], &[u8]); 6] = [
            (b"/mnt/\xff\xfe", b"/mnt/\xff\xfe"),
            (b"/mnt/\\011\\012\\134\\043", b"/mnt/\t\n\\#"),
            (b"/mnt/\\134040", b"/mnt/\\040"),
            (b"/mnt/\\377", b"/mnt/\xff"),
            (b"/mnt/-", b"/mnt/-"),
            (b"/mnt/\\04", b"/mnt/\\04"),
        ];
        for (written, meant) in fields {
            let line = [b"7 1 0:48 / ", written, b" ro - tmpfs \xff ro"].concat();
            let found = parse(&line).unwrap();
            assert_eq!((bytes(&found.path), found.source.into_vec()), (meant.to_vec(), b"\xff".to_vec()));
        }
        for cut in [&b""[..], b"7", b"7 1 0:48 / /mnt ro", b"7 1 0:48 / /mnt ro -", b"\xff 1 0:48 / /mnt ro - a b c"] {
            assert_eq!(parse(cut), None);
        }
    }
}
