//! `/proc/self/mountinfo`. Source: `proc_pid_mountinfo(5)`.

/// A mounted file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    /// What of the file system is mounted.
    pub(super) root: String,
    /// Where.
    pub(super) point: String,
    pub(super) filesystem: String,
    /// Options of the file system, which for control groups of version 1 are its controllers.
    pub(super) options: String,
}

/// Reads all lines that are as documented.
pub(super) fn parse(text: &str) -> Vec<Mount> {
    text.lines().filter_map(line).collect()
}

fn line(line: &str) -> Option<Mount> {
    // In between are optional fields, of any number.
    let (before, after) = line.split_once(" - ")?;
    let mut before = before.split(' ').skip(3);
    let mut after = after.split(' ');
    Some(Mount {
        root: unescaped(before.next()?),
        point: unescaped(before.next()?),
        filesystem: after.next()?.to_owned(),
        options: after.nth(1)?.to_owned(),
    })
}

/// Blanks in paths are written as a backslash and three octal digits.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        let escaped = (byte == b'\\').then(|| octal(after)).flatten();
        if escaped.is_some() {
            rest = &after[3..];
        }
        bytes.push(escaped.unwrap_or(byte));
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn octal(text: &[u8]) -> Option<u8> {
    let digits = std::str::from_utf8(text.get(..3)?).ok()?;
    u8::from_str_radix(digits, 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_with_any_number_of_optional_fields() {
        let text = "\
36 25 0:31 / /sys/fs/cgroup/memory rw,nosuid shared:16 master:3 - cgroup cgroup rw,memory
25 23 0:22 /a\\040b /mnt/c\\134d rw - cgroup2 cgroup2 rw,nsdelegate
nonsense
1 2 3 - short
";
        let mounts = parse(text);
        assert_eq!(mounts.len(), 2);
        assert_eq!(mounts[0].options, "rw,memory");
        assert_eq!((&*mounts[1].root, &*mounts[1].point), ("/a b", "/mnt/c\\d"));
        assert_eq!(mounts[1].filesystem, "cgroup2");
    }

    #[test]
    fn a_backslash_that_begins_no_number_stays() {
        for text in ["\\", "\\04", "\\9zz", "a\\"] {
            assert_eq!(unescaped(text), text);
        }
        assert_eq!(
            unescaped("\\134040"),
            "\\040",
            "what was unescaped is not looked at again"
        );
    }
}
