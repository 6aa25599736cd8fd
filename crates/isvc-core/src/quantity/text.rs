//! Cuts a quantity's text into its parts.

use super::{Format, NANO};

/// The parts of a quantity's text, as apimachinery's scanner cuts them.
pub(super) struct Scanned<'a> {
    pub(super) negative: bool,
    /// Digits before the point without leading zeros.
    pub(super) whole: &'a str,
    /// Whether a zero was cut off the front.
    leading_zero: bool,
    /// Digits after the point.
    pub(super) fraction: &'a str,
    pub(super) suffix: &'a str,
}

pub(super) fn scan(text: &str) -> Option<Scanned<'_>> {
    let (negative, unsigned) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let number = unsigned.trim_start_matches('0');
    let (whole, rest) = split_digits(number);
    let (fraction, suffix) = match rest.strip_prefix('.') {
        Some(rest) => split_digits(rest),
        None => ("", rest),
    };
    let letters = suffix.trim_start_matches(|c: char| "eEinumkKMGTP".contains(c));
    let exponent = letters.strip_prefix(['-', '+']).unwrap_or(letters);
    if !exponent.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(Scanned {
        negative,
        whole,
        leading_zero: number.len() < unsigned.len(),
        fraction,
        suffix,
    })
}

impl Scanned<'_> {
    /// Whether there is no digit at all: `Ki` and `-` are read as zero.
    pub(super) fn is_blank(&self) -> bool {
        self.whole.is_empty() && self.fraction.is_empty() && !self.leading_zero
    }

    /// All digits, a zero in place of an empty whole part.
    pub(super) fn digits(&self) -> String {
        let whole = if self.whole.is_empty() { "0" } else { self.whole };
        format!("{whole}{}", self.fraction)
    }
}

fn split_digits(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(end)
}

/// What a suffix means: powers of ten, or powers of 1024.
pub(super) enum Unit {
    Ten { exponent: i64, format: Format },
    Binary { steps: u32 },
}

impl Unit {
    /// Whether apimachinery reads the number with a parser that insists on a digit, which it does where 64-bit
    /// integers would not do.
    pub(super) fn needs_digits(&self) -> bool {
        match self {
            Self::Ten { exponent, .. } => *exponent < NANO,
            Self::Binary { steps } => *steps > 4,
        }
    }
}

pub(super) fn unit(suffix: &str) -> Option<Unit> {
    let si = |exponent| {
        Some(Unit::Ten {
            exponent,
            format: Format::DecimalSi,
        })
    };
    match suffix {
        "n" => si(-9),
        "u" => si(-6),
        "m" => si(-3),
        "" => si(0),
        "k" => si(3),
        "M" => si(6),
        "G" => si(9),
        "T" => si(12),
        "P" => si(15),
        "E" => si(18),
        "Ki" => Some(Unit::Binary { steps: 1 }),
        "Mi" => Some(Unit::Binary { steps: 2 }),
        "Gi" => Some(Unit::Binary { steps: 3 }),
        "Ti" => Some(Unit::Binary { steps: 4 }),
        "Pi" => Some(Unit::Binary { steps: 5 }),
        "Ei" => Some(Unit::Binary { steps: 6 }),
        _ => {
            let exponent: i64 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            #[allow(
                clippy::cast_possible_truncation,
                reason = "apimachinery keeps the exponent in 32 bits and wraps; stored objects were read that way"
            )]
            let exponent = i64::from(exponent as i32);
            Some(Unit::Ten {
                exponent,
                format: Format::DecimalExponent,
            })
        }
    }
}

/// Whether apimachinery reads the text on its fast path (64-bit integers) and finds it canonical as typed.
///
/// The digit limits are those of its scanner: 18 significant decimal digits, fewer with a binary suffix.
pub(super) fn keeps_typed_text(scanned: &Scanned<'_>, unit: &Unit) -> bool {
    let digits = scanned.digits();
    match unit {
        Unit::Ten { exponent, .. } => {
            let scale = exponent - i64::try_from(scanned.fraction.len()).unwrap_or(i64::MAX);
            digits.len() <= 18
                && scale >= NANO
                && scale % 3 == 0
                && !digits.ends_with("000")
                && !digits.starts_with('0')
        }
        Unit::Binary { steps } => {
            let limit = 14_usize.saturating_sub(3 * *steps as usize);
            let odd_enough = digits.parse::<u64>().is_ok_and(|value| value & 0x07 != 0);
            scanned.fraction.is_empty() && digits.len() <= limit && odd_enough
        }
    }
}
