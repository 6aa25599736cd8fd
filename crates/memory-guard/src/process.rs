//! The process's own memory, from `/proc/self/status`. Source: `proc_pid_status(5)`.

/// Resident bytes that no file backs, or all resident bytes where the kernel does not tell them apart.
pub(crate) fn resident(status: &str) -> Option<u64> {
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        let kib = line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?;
        kib.checked_mul(1024)
    };
    match (field("RssAnon:"), field("RssShmem:")) {
        (Some(anonymous), Some(shared)) => anonymous.checked_add(shared),
        _ => field("VmRSS:"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_files_do_not_count() {
        let whole = "Name:\ta\nVmRSS:\t  3000 kB\nRssAnon:\t  1000 kB\nRssFile:\t  1990 kB\nRssShmem:\t    10 kB\n";
        assert_eq!(resident(whole), Some(1010 * 1024));
        assert_eq!(resident("VmRSS:\t  3000 kB\n"), Some(3000 * 1024), "an old kernel");
        for unusable in ["", "VmRSS:\n", "VmRSS: many kB\n", "VmRSS: 99999999999999999999 kB\n"] {
            assert_eq!(resident(unusable), None, "{unusable:?}");
        }
    }
}
