//! Pressure stall information. Source: the kernel's `accounting/psi`.

use std::time::Duration;

/// How much time tasks of the group have lost waiting for memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stall {
    /// Percent of the last ten seconds in which at least one task waited.
    pub some_percent: f64,
    /// Percent of the last ten seconds in which all tasks that were not idle waited.
    pub full_percent: f64,
    /// All time in which at least one task waited.
    pub some_total: Duration,
    /// All time in which all tasks that were not idle waited.
    pub full_total: Duration,
}

/// Reads `memory.pressure`; `None` if it is not as documented.
pub(crate) fn parse(text: &str) -> Option<Stall> {
    let of = |kind: &str| {
        let mut line = text.lines().map(str::split_ascii_whitespace).find_map(|mut fields| {
            let first = fields.next()?;
            (first == kind).then_some(fields)
        })?;
        let field = |name: &str, fields: &mut std::str::SplitAsciiWhitespace<'_>| {
            fields.find_map(|field| field.strip_prefix(name)?.strip_prefix('=').map(str::to_owned))
        };
        let percent: f64 = field("avg10", &mut line)?.parse().ok()?;
        let micros: u64 = field("total", &mut line)?.parse().ok()?;
        (0.0..=100.0)
            .contains(&percent)
            .then(|| (percent, Duration::from_micros(micros)))
    };
    let (some_percent, some_total) = of("some")?;
    let (full_percent, full_total) = of("full")?;
    Some(Stall {
        some_percent,
        full_percent,
        some_total,
        full_total,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_the_kernel_writes_it() {
        let text =
            "some avg10=12.50 avg60=1.00 avg300=0.10 total=2500000\nfull avg10=3.25 avg60=0.00 avg300=0.00 total=7\n";
        let stall = parse(text).expect("well-formed");
        assert!((stall.some_percent - 12.5).abs() < 1e-9 && (stall.full_percent - 3.25).abs() < 1e-9);
        assert_eq!(stall.some_total, Duration::from_millis(2500));
        assert_eq!(stall.full_total, Duration::from_micros(7));
    }

    #[test]
    fn anything_else_is_no_stall() {
        for text in [
            "",
            "some avg10=1.00 avg60=0.00 avg300=0.00 total=5\n",
            "some avg10=x total=5\nfull avg10=0.00 total=5\n",
            "some avg10=1.00\nfull avg10=1.00\n",
            "some avg10=NaN total=5\nfull avg10=0.00 total=5\n",
            "some avg10=101.00 total=5\nfull avg10=0.00 total=5\n",
        ] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
