//! What the kernel says of this process: `process_*` metrics.
//!
//! Source: the manual pages `proc_pid_stat(5)` and `proc_stat(5)`.

use std::fs;

/// One reading.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Reading {
    pub(crate) resident_bytes: u64,
    pub(crate) cpu_seconds: f64,
    pub(crate) start_seconds: f64,
}

/// Reads `/proc`; `None` where there is none.
pub(crate) fn read() -> Option<Reading> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let boot = fs::read_to_string("/proc/stat").ok()?;
    let ticks = u32::try_from(rustix::param::clock_ticks_per_second()).ok()?;
    parse(
        &stat,
        &boot,
        f64::from(ticks),
        u64::try_from(rustix::param::page_size()).ok()?,
    )
}

fn parse(stat: &str, boot: &str, ticks_per_second: f64, page_size: u64) -> Option<Reading> {
    // The second field is the program's name in parentheses and may hold anything, spaces among it.
    let after_name = stat.rsplit_once(')')?.1;
    let field = |number: usize| after_name.split_ascii_whitespace().nth(number - 3);
    let seconds = |number: usize| field(number)?.parse::<f64>().ok().map(|ticks| ticks / ticks_per_second);
    let boot_time = boot
        .lines()
        .find_map(|line| line.strip_prefix("btime "))?
        .trim()
        .parse::<f64>()
        .ok()?;
    Some(Reading {
        resident_bytes: field(24)?.parse::<u64>().ok()? * page_size,
        cpu_seconds: seconds(14)? + seconds(15)?,
        start_seconds: boot_time + seconds(22)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_where_the_manual_says() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 3 0 1200 1000000 2048 1 1";
        let boot = "cpu 1 2 3\nbtime 1700000000\nprocesses 5\n";
        let reading = parse(stat, boot, 100.0, 4096).expect("well-formed");
        assert_eq!(reading.resident_bytes, 2048 * 4096);
        assert!((reading.cpu_seconds - 3.0).abs() < 1e-9);
        assert!((reading.start_seconds - 1_700_000_012.0).abs() < 1e-6);
        assert_eq!(parse("nonsense", boot, 100.0, 4096), None);
        assert_eq!(parse(stat, "", 100.0, 4096), None);
    }

    #[test]
    fn this_process_has_a_size() {
        let reading = read().expect("tests run on Linux");
        assert!(reading.resident_bytes > 100_000);
    }
}
