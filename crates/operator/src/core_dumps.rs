//! No core dumps: the memory of this process has Secrets in it, and a dump would leave them on the node's disk.

use std::io;

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// Turns them off, for good and for child processes as far as the limit goes.
///
/// The limit alone is not enough: the kernel disregards it where dumps are piped to a program (`core(5)`). A process that
/// is not dumpable never gets that far, and others of the same user can neither trace it nor read its memory. Files in
/// `/proc/self` belong to root from then on, and those that this process needs stay readable (`proc(5)`).
///
/// # Errors
///
/// The kernel refuses, as under a seccomp profile without these calls. Whichever is allowed is in force all the same.
pub(crate) fn turn_off() -> io::Result<()> {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    let limited = setrlimit(Resource::Core, none);
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    limited?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use rustix::process::{dumpable_behavior, getrlimit};

    use super::*;

    #[test]
    fn off_and_the_process_can_still_look_at_itself() {
        turn_off().expect("the kernel allows to have less");
        let limit = getrlimit(Resource::Core);
        assert_eq!((limit.current, limit.maximum), (Some(0), Some(0)));
        assert_eq!(dumpable_behavior().ok(), Some(DumpableBehavior::NotDumpable));
        turn_off().expect("twice is as good");
        for file in ["cgroup", "limits", "mountinfo", "stat", "status"] {
            let text = fs::read_to_string(Path::new("/proc/self").join(file));
            assert!(text.is_ok_and(|text| !text.is_empty()), "{file}");
        }
        assert!(fs::read_dir("/proc/self/fd").is_ok());
    }
}
