//! Kubernetes resource quantities: `100m`, `1.5Gi`, `2e3`.
//!
//! Platform settings and container resources carry quantities as text. The API server stores and returns them in
//! canonical form, so a controller that compares what it wants with what is there needs the same canonical form.
//! [`canonical`] reproduces `resource.Quantity` of apimachinery v0.36.3, including its oddities (a text that already
//! counts as canonical is kept as typed, so `+5` stays `+5`; decimal values beyond `E` lose their suffix). The table
//! in `tests/oracle/quantity.tsv` was recorded from that implementation.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde_json::Value;
use thiserror::Error;

/// Why a text is not a quantity.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum QuantityError {
    /// The text is empty or is not a number followed by a suffix.
    #[error("invalid quantity {text:?}: must be a number with an optional suffix, for example 100m, 1.5 or 2Gi")]
    Malformed {
        /// The text as given.
        text: String,
    },
    /// The number part cannot be read.
    #[error("invalid quantity {text:?}: the numeric part cannot be read")]
    Number {
        /// The text as given.
        text: String,
    },
    /// The suffix is none of the known ones.
    #[error(
        "invalid quantity {text:?}: unknown suffix {suffix:?}; use n, u, m, k, M, G, T, P, E, Ki, Mi, Gi, Ti, Pi, Ei or an exponent such as e3"
    )]
    Suffix {
        /// The text as given.
        text: String,
        /// The part that was taken for a suffix.
        suffix: String,
    },
    /// A JSON value that is neither a string nor a number stands where a quantity belongs.
    #[error("invalid quantity: expected a string or a number, found {found}")]
    NotText {
        /// The JSON type found.
        found: &'static str,
    },
}

/// How a quantity was written, which decides how it is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    /// `12e6`
    DecimalExponent,
    /// `12Mi`
    BinarySi,
    /// `12M`
    DecimalSi,
}

/// The largest magnitude of a quantity with a binary suffix: the maximum of a signed 64-bit integer.
const BINARY_CAP: &[u8] = b"9223372036854775807";

/// Quantities finer than a billionth are rounded up to it, so that a request never rounds to nothing.
const NANO: i64 = -9;

/// A parsed quantity: an exact decimal number and the way it was written.
///
/// Comparison, equality and ordering go by the value alone: `1000m` equals `1`.
#[derive(Debug, Clone)]
pub struct Quantity {
    negative: bool,
    magnitude: Decimal,
    format: Format,
    /// The text, when it counts as canonical already and is printed as typed.
    typed: Option<String>,
}

/// A non-negative decimal: `digits` times ten to the `exponent`.
///
/// `digits` holds ASCII digits without leading or trailing zeros and is empty for zero, which makes the
/// representation of a value unique.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Decimal {
    digits: Vec<u8>,
    exponent: i64,
}

impl Decimal {
    fn new(digits: &[u8], exponent: i64) -> Self {
        let start = digits.iter().position(|d| *d != b'0');
        let Some(start) = start else {
            return Self {
                digits: Vec::new(),
                exponent: 0,
            };
        };
        let end = digits.iter().rposition(|d| *d != b'0').map_or(start, |last| last + 1);
        let dropped = i64::try_from(digits.len() - end).unwrap_or(i64::MAX);
        Self {
            digits: digits[start..end].to_vec(),
            exponent: exponent.saturating_add(dropped),
        }
    }

    fn is_zero(&self) -> bool {
        self.digits.is_empty()
    }

    /// The power of ten just above the value: 3 for 123, 0 for 0.5.
    fn scale(&self) -> i64 {
        self.exponent
            .saturating_add(i64::try_from(self.digits.len()).unwrap_or(i64::MAX))
    }

    /// The value times 1024, `times` times.
    fn times_1024(&self, times: u32) -> Self {
        let mut digits = self.digits.clone();
        for _ in 0..times {
            let mut carry = 0_u32;
            for digit in digits.iter_mut().rev() {
                let product = u32::from(*digit - b'0') * 1024 + carry;
                *digit = ascii_digit(product % 10);
                carry = product / 10;
            }
            let mut front = Vec::new();
            while carry > 0 {
                front.push(ascii_digit(carry % 10));
                carry /= 10;
            }
            front.reverse();
            front.extend_from_slice(&digits);
            digits = front;
        }
        Self::new(&digits, self.exponent)
    }

    /// The value rounded away from zero to a multiple of ten to the `exponent`.
    fn rounded_up(&self, exponent: i64) -> Self {
        if self.is_zero() || self.exponent >= exponent {
            return self.clone();
        }
        let keep = self.scale().saturating_sub(exponent);
        let keep = usize::try_from(keep.max(0)).unwrap_or(usize::MAX);
        // The representation has no trailing zeros, so whatever is cut off is more than nothing.
        let mut digits = self.digits[..keep.min(self.digits.len())].to_vec();
        for digit in digits.iter_mut().rev() {
            if *digit < b'9' {
                *digit += 1;
                return Self::new(&digits, exponent);
            }
            *digit = b'0';
        }
        digits.insert(0, b'1');
        Self::new(&digits, exponent)
    }

    /// The digits of `value / 10^exponent`, which must be a whole number.
    fn digits_at(&self, exponent: i64) -> String {
        let mut text = String::from_utf8_lossy(&self.digits).into_owned();
        let zeros = usize::try_from(self.exponent.saturating_sub(exponent)).unwrap_or(0);
        text.extend(std::iter::repeat_n('0', zeros));
        text
    }

    /// The whole number, if it is one and fits.
    fn as_u128(&self) -> Option<u128> {
        if self.is_zero() {
            return Some(0);
        }
        // 2^128 has 39 digits; more zeros than that need not be written out to know that they do not fit.
        if self.exponent < 0 || self.scale() > 39 {
            return None;
        }
        self.digits_at(0).parse().ok()
    }
}

fn ascii_digit(value: u32) -> u8 {
    b'0' + u8::try_from(value).expect("a decimal digit is below ten")
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self.is_zero(), other.is_zero()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
            // Without trailing zeros a digit string that is a prefix of the other is the smaller one.
            (false, false) => self
                .scale()
                .cmp(&other.scale())
                .then_with(|| self.digits.cmp(&other.digits)),
        }
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The parts of a quantity's text, as apimachinery's scanner cuts them.
struct Scanned<'a> {
    negative: bool,
    /// Digits before the point without leading zeros.
    whole: &'a str,
    /// Whether a zero was cut off the front.
    leading_zero: bool,
    /// Digits after the point.
    fraction: &'a str,
    suffix: &'a str,
}

fn scan(text: &str) -> Option<Scanned<'_>> {
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
    fn is_blank(&self) -> bool {
        self.whole.is_empty() && self.fraction.is_empty() && !self.leading_zero
    }

    /// All digits, a zero in place of an empty whole part.
    fn digits(&self) -> String {
        let whole = if self.whole.is_empty() { "0" } else { self.whole };
        format!("{whole}{}", self.fraction)
    }
}

fn split_digits(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(end)
}

/// What a suffix means: powers of ten, or powers of 1024.
enum Unit {
    Ten { exponent: i64, format: Format },
    Binary { steps: u32 },
}

impl Unit {
    /// Whether apimachinery reads the number with a parser that insists on a digit, which it does where 64-bit
    /// integers would not do.
    fn needs_digits(&self) -> bool {
        match self {
            Self::Ten { exponent, .. } => *exponent < NANO,
            Self::Binary { steps } => *steps > 4,
        }
    }
}

fn unit(suffix: &str) -> Option<Unit> {
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
fn keeps_typed_text(scanned: &Scanned<'_>, unit: &Unit) -> bool {
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

impl Quantity {
    /// Reads a quantity.
    ///
    /// # Errors
    ///
    /// A [`QuantityError`] that names the text, if it is not a quantity.
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        let malformed = || QuantityError::Malformed { text: text.to_owned() };
        if text.is_empty() {
            return Err(malformed());
        }
        let scanned = scan(text).ok_or_else(malformed)?;
        let unit = unit(scanned.suffix).ok_or_else(|| QuantityError::Suffix {
            text: text.to_owned(),
            suffix: scanned.suffix.to_owned(),
        })?;
        if scanned.is_blank() && unit.needs_digits() {
            return Err(QuantityError::Number { text: text.to_owned() });
        }
        let typed = keeps_typed_text(&scanned, &unit).then(|| text.to_owned());
        let places =
            i64::try_from(scanned.fraction.len()).map_err(|_| QuantityError::Number { text: text.to_owned() })?;
        let number = Decimal::new(scanned.digits().as_bytes(), -places);
        let (magnitude, format) = match unit {
            Unit::Ten { exponent, format } => {
                let scaled = Decimal::new(&number.digits, number.exponent + exponent);
                (scaled.rounded_up(NANO), format)
            }
            Unit::Binary { steps } => {
                let exact = number.times_1024(steps).rounded_up(NANO);
                let capped = exact.min(Decimal::new(BINARY_CAP, 0));
                (capped, Format::BinarySi)
            }
        };
        Ok(Self {
            negative: scanned.negative && !magnitude.is_zero(),
            magnitude,
            format,
            typed,
        })
    }

    /// Whether the value is zero.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.magnitude.is_zero()
    }

    /// The value as the nearest floating-point number; infinite beyond its range.
    #[must_use]
    pub fn as_f64(&self) -> f64 {
        if self.is_zero() {
            return 0.0;
        }
        let digits = String::from_utf8_lossy(&self.magnitude.digits);
        let text = format!("{digits}e{}", self.magnitude.exponent);
        // Digits with an exponent are a floating-point literal; what does not fit parses as infinite.
        let magnitude: f64 = text.parse().unwrap_or(f64::INFINITY);
        if self.negative { -magnitude } else { magnitude }
    }

    /// The value rounded away from zero to a whole number, or nothing beyond 128 bits.
    #[must_use]
    pub fn value(&self) -> Option<i128> {
        self.rounded_to(0)
    }

    /// The value in thousandths, rounded away from zero, or nothing beyond 128 bits.
    #[must_use]
    pub fn milli_value(&self) -> Option<i128> {
        self.rounded_to(-3)
    }

    fn rounded_to(&self, exponent: i64) -> Option<i128> {
        let rounded = self.magnitude.rounded_up(exponent);
        let shifted = Decimal::new(&rounded.digits, rounded.exponent.saturating_sub(exponent));
        let magnitude = i128::try_from(shifted.as_u128()?).ok()?;
        Some(if self.negative { -magnitude } else { magnitude })
    }

    /// The magnitude with a binary suffix, if it is printed with one: at least 1024 and whole.
    fn binary_text(&self) -> Option<String> {
        let mut value = self.magnitude.as_u128().filter(|value| *value >= 1024)?;
        let mut steps = 0;
        while value % 1024 == 0 {
            value /= 1024;
            steps += 1;
        }
        let suffix = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
        // The cap of binary quantities is below 1024^7.
        Some(format!("{value}{}", suffix.get(steps).copied().unwrap_or_default()))
    }

    fn decimal_text(&self) -> String {
        let exponent = self.magnitude.exponent.div_euclid(3) * 3;
        let digits = self.magnitude.digits_at(exponent);
        let suffix = match (self.format, exponent) {
            (_, 0) => String::new(),
            (Format::DecimalExponent, exponent) => format!("e{exponent}"),
            (_, -9) => "n".to_owned(),
            (_, -6) => "u".to_owned(),
            (_, -3) => "m".to_owned(),
            (_, 3) => "k".to_owned(),
            (_, 6) => "M".to_owned(),
            (_, 9) => "G".to_owned(),
            (_, 12) => "T".to_owned(),
            (_, 15) => "P".to_owned(),
            (_, 18) => "E".to_owned(),
            // There is no larger suffix, and apimachinery prints none.
            _ => String::new(),
        };
        digits + &suffix
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(typed) = &self.typed {
            return f.write_str(typed);
        }
        if self.is_zero() {
            return f.write_str("0");
        }
        let binary = if self.format == Format::BinarySi {
            self.binary_text()
        } else {
            None
        };
        let text = binary.unwrap_or_else(|| self.decimal_text());
        write!(f, "{}{text}", if self.negative { "-" } else { "" })
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self.negative, other.negative) {
            (false, false) => self.magnitude.cmp(&other.magnitude),
            (true, true) => other.magnitude.cmp(&self.magnitude),
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
        }
    }
}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Quantity {}

/// The canonical text of a quantity, as the API server stores it.
///
/// ```
/// use isvc_core::quantity::canonical;
///
/// assert_eq!(canonical("1000m").as_deref(), Ok("1"));
/// assert_eq!(canonical("0.5").as_deref(), Ok("500m"));
/// assert_eq!(canonical("1.5Gi").as_deref(), Ok("1536Mi"));
/// ```
///
/// # Errors
///
/// A [`QuantityError`] that names the text, if it is not a quantity.
pub fn canonical(text: &str) -> Result<String, QuantityError> {
    Quantity::parse(text).map(|quantity| quantity.to_string())
}

/// Replaces a JSON string or number by the canonical text of the quantity it holds.
///
/// Surrounding white space is dropped, as apimachinery does when it reads JSON. The value is left alone on error.
///
/// # Errors
///
/// A [`QuantityError`], if the value is neither a string nor a number or does not hold a quantity.
pub fn canonicalize_value(value: &mut Value) -> Result<(), QuantityError> {
    let text = match &*value {
        Value::String(text) => canonical(text.trim())?,
        Value::Number(number) => canonical(&number.to_string())?,
        Value::Null => return Err(QuantityError::NotText { found: "null" }),
        Value::Bool(_) => return Err(QuantityError::NotText { found: "a boolean" }),
        Value::Array(_) => return Err(QuantityError::NotText { found: "a list" }),
        Value::Object(_) => return Err(QuantityError::NotText { found: "an object" }),
    };
    *value = Value::String(text);
    Ok(())
}
