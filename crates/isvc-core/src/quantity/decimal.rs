//! Exact decimal numbers, as far as quantities need them.

use std::cmp::Ordering;

/// A non-negative decimal: `digits` times ten to the `exponent`.
///
/// `digits` holds ASCII digits without leading or trailing zeros and is empty for zero, which makes the
/// representation of a value unique.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Decimal {
    pub(super) digits: Vec<u8>,
    pub(super) exponent: i64,
}

impl Decimal {
    pub(super) fn new(digits: &[u8], exponent: i64) -> Self {
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

    pub(super) fn is_zero(&self) -> bool {
        self.digits.is_empty()
    }

    /// The power of ten just above the value: 3 for 123, 0 for 0.5.
    fn scale(&self) -> i64 {
        self.exponent
            .saturating_add(i64::try_from(self.digits.len()).unwrap_or(i64::MAX))
    }

    /// The value times 1024, `times` times.
    pub(super) fn times_1024(&self, times: u32) -> Self {
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
    pub(super) fn rounded_up(&self, exponent: i64) -> Self {
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
    pub(super) fn digits_at(&self, exponent: i64) -> String {
        let mut text = String::from_utf8_lossy(&self.digits).into_owned();
        let zeros = usize::try_from(self.exponent.saturating_sub(exponent)).unwrap_or(0);
        text.extend(std::iter::repeat_n('0', zeros));
        text
    }

    /// The whole number, if it is one and fits.
    pub(super) fn as_u128(&self) -> Option<u128> {
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
