//! What the kernel says of this process, by the names that every client library of Prometheus uses.
//!
//! Source of the fields: the manual pages `proc_pid_stat(5)`, `proc_stat(5)`, `proc_pid_fd(5)` and `proc_pid_limits(5)`.

use std::{fs, sync::atomic::Ordering};

use prometheus_client::metrics::gauge::Gauge;

use super::catalog::{Catalog, FloatCounter, FloatGauge};

/// Metrics of the process.
pub(crate) struct ProcessMetrics {
    cpu_seconds: FloatCounter,
    resident_bytes: Gauge,
    virtual_bytes: Gauge,
    threads: Gauge,
    start_seconds: FloatGauge,
    open_files: Gauge,
    most_files: Gauge,
}

impl ProcessMetrics {
    pub(super) fn new(catalog: &mut Catalog) -> Self {
        Self {
            cpu_seconds: catalog.float_counter(
                "process_cpu_seconds_total",
                "User and system CPU time spent, in seconds",
            ),
            resident_bytes: catalog.gauge("process_resident_memory_bytes", "Resident memory"),
            virtual_bytes: catalog.gauge("process_virtual_memory_bytes", "Virtual memory"),
            threads: catalog.gauge("process_threads", "Threads"),
            start_seconds: catalog.float_gauge(
                "process_start_time_seconds",
                "When the process began, in seconds since 1970",
            ),
            open_files: catalog.gauge("process_open_fds", "Open file descriptors"),
            most_files: catalog.gauge("process_max_fds", "File descriptors that may be open"),
        }
    }

    /// Reads `/proc`. Where there is none, metrics keep what they have.
    pub(super) fn read(&self) {
        if let Some(reading) = read() {
            self.cpu_seconds
                .inner()
                .store(reading.cpu_seconds.to_bits(), Ordering::Relaxed);
            self.resident_bytes.set(clamped(reading.resident_bytes));
            self.virtual_bytes.set(clamped(reading.virtual_bytes));
            self.threads.set(clamped(reading.threads));
            self.start_seconds.set(reading.start_seconds);
        }
        if let Ok(files) = fs::read_dir("/proc/self/fd") {
            // Reading the directory takes one, which is closed again.
            self.open_files.set(super::saturating(files.count().saturating_sub(1)));
        }
        if let Some(most) = fs::read_to_string("/proc/self/limits")
            .ok()
            .as_deref()
            .and_then(most_files)
        {
            self.most_files.set(clamped(most));
        }
    }
}

fn clamped(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// One reading.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Reading {
    resident_bytes: u64,
    virtual_bytes: u64,
    threads: u64,
    cpu_seconds: f64,
    start_seconds: f64,
}

fn read() -> Option<Reading> {
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
    let whole = |number: usize| field(number)?.parse::<u64>().ok();
    let seconds = |number: usize| field(number)?.parse::<f64>().ok().map(|ticks| ticks / ticks_per_second);
    let boot_time = boot
        .lines()
        .find_map(|line| line.strip_prefix("btime "))?
        .trim()
        .parse::<f64>()
        .ok()?;
    Some(Reading {
        resident_bytes: whole(24)? * page_size,
        virtual_bytes: whole(23)?,
        threads: whole(20)?,
        cpu_seconds: seconds(14)? + seconds(15)?,
        start_seconds: boot_time + seconds(22)?,
    })
}

/// The soft limit on open files; none where there is no number, as in `unlimited`.
fn most_files(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
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
        assert_eq!((reading.virtual_bytes, reading.threads), (1_000_000, 3));
        assert!((reading.cpu_seconds - 3.0).abs() < 1e-9);
        assert!((reading.start_seconds - 1_700_000_012.0).abs() < 1e-6);
        assert_eq!(parse("nonsense", boot, 100.0, 4096), None);
        assert_eq!(parse(stat, "", 100.0, 4096), None);
    }

    #[test]
    fn the_limit_on_files_is_the_soft_one() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units\n\
                      Max open files            1024                 524288               files\n";
        assert_eq!(most_files(limits), Some(1024));
        assert_eq!(
            most_files("Max open files            unlimited   unlimited   files\n"),
            None
        );
    }

    #[test]
    fn this_process_has_a_size_and_files() {
        let metrics = ProcessMetrics::new(&mut Catalog::default());
        metrics.read();
        assert!(metrics.resident_bytes.get() > 100_000);
        assert!(metrics.virtual_bytes.get() >= metrics.resident_bytes.get());
        assert!(metrics.threads.get() >= 1);
        assert!(metrics.open_files.get() >= 1 && metrics.most_files.get() >= metrics.open_files.get());
        assert!(metrics.start_seconds.get() > 1e9 && metrics.cpu_seconds.get() >= 0.0);
    }
}
