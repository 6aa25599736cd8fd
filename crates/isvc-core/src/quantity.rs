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

mod decimal;
mod text;

use decimal::Decimal;
use text::{Unit, keeps_typed_text, scan, unit};

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
