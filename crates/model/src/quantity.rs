//! Resource quantities: read, added, compared and written exactly, in the form in which they are stored.
//!
//! A quantity is a whole number of nano-units and the family of suffixes its author used. What is finer than a
//! nano-unit rounds up; what is larger than 2^63-1 units is cut there, as the API does.

use std::cmp::Ordering;
use std::fmt;
use std::ops::{Add, AddAssign, Neg, Sub, SubAssign};
use std::str::FromStr;

/// Nano-units in one unit.
const UNIT: i128 = 1_000_000_000;

/// The largest amount, in nano-units: 2^63-1 units, the most that a 64-bit client can hold.
const AMOUNT_MAX: i128 = i64::MAX as i128 * UNIT;

/// How long the text of a quantity may be, in bytes. The largest amount to the last nano has 30 digits; this
/// leaves room for zeros and keeps hostile input cheap.
const TEXT_LEN_MAX: usize = 128;

/// An amount of something.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quantity {
    nanos: i128,
    family: Family,
}

/// The suffixes that a quantity is written with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Family {
    /// `m`, none, `k`, `M` …
    #[default]
    Decimal,
    /// `Ki`, `Mi` …
    Binary,
    /// `e3`, `e6` …
    Exponent,
}

/// Text that is no quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
pub struct NotAQuantity;

impl Quantity {
    /// Nothing.
    pub const ZERO: Self = Self { nanos: 0, family: Family::Decimal };

    /// So many whole units.
    pub fn units(units: i64) -> Self {
        Self { nanos: i128::from(units) * UNIT, family: Family::Decimal }
    }

    /// So many bytes, written with binary suffixes.
    pub fn bytes(bytes: i64) -> Self {
        Self { nanos: i128::from(bytes) * UNIT, family: Family::Binary }
    }

    /// So many thousandths.
    pub fn millis(millis: i64) -> Self {
        Self { nanos: i128::from(millis) * (UNIT / 1000), family: Family::Decimal }
    }

    /// The amount in whole units, rounded up.
    pub fn value(self) -> i64 {
        narrow(ceil_div(self.nanos, UNIT))
    }

    /// The amount in thousandths, rounded up.
    pub fn milli_value(self) -> i64 {
        narrow(ceil_div(self.nanos, UNIT / 1000))
    }

    /// The amount as a floating-point number, for ratios only.
    pub fn as_f64(self) -> f64 {
        self.nanos as f64 / UNIT as f64
    }

    /// Whether it is nothing.
    pub fn is_zero(self) -> bool {
        self.nanos == 0
    }

    /// Whether it is less than nothing.
    pub fn is_negative(self) -> bool {
        self.nanos < 0
    }

    /// Whether it is a whole number of units.
    pub fn is_whole(self) -> bool {
        self.nanos % UNIT == 0
    }

    /// The suffixes it is written with.
    pub fn family(self) -> Family {
        self.family
    }

    /// Rounded up to thousandths, as amounts of resources are when they are stored.
    #[must_use]
    pub fn rounded_up_to_millis(self) -> Self {
        let milli = UNIT / 1000;
        Self { nanos: ceil_div(self.nanos, milli) * milli, ..self }
    }

    /// The sum, in this one's form unless this one is nothing.
    fn plus(self, nanos: i128, family: Family) -> Self {
        let family = if self.is_zero() { family } else { self.family };
        Self { nanos: (self.nanos + nanos).clamp(-AMOUNT_MAX, AMOUNT_MAX), family }
    }
}

impl FromStr for Quantity {
    type Err = NotAQuantity;

    fn from_str(text: &str) -> Result<Self, NotAQuantity> {
        if text.len() > TEXT_LEN_MAX {
            return Err(NotAQuantity);
        }
        let (negative, rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
            return Err(NotAQuantity);
        }
        let (family, scale) = scale(suffix)?;
        let nanos = amount(whole, fraction, scale);
        Ok(Self { nanos: if negative { -nanos } else { nanos }, family })
    }
}

/// By what a suffix multiplies.
#[derive(Clone, Copy)]
enum Scale {
    /// By this power of ten.
    Ten(i32),
    /// By this power of two.
    Two(u32),
}

fn scale(suffix: &str) -> Result<(Family, Scale), NotAQuantity> {
    let decimal = |exponent| Ok((Family::Decimal, Scale::Ten(exponent)));
    let binary = |exponent| Ok((Family::Binary, Scale::Two(exponent)));
    match suffix {
        "" => decimal(0),
        "n" => decimal(-9),
        "u" => decimal(-6),
        "m" => decimal(-3),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(10),
        "Mi" => binary(20),
        "Gi" => binary(30),
        "Ti" => binary(40),
        "Pi" => binary(50),
        "Ei" => binary(60),
        _ => {
            let digits = suffix.strip_prefix(['e', 'E']).ok_or(NotAQuantity)?;
            // A plus sign is allowed, a second sign is not.
            let exponent: i32 = digits.parse().map_err(|_| NotAQuantity)?;
            Ok((Family::Exponent, Scale::Ten(exponent)))
        }
    }
}

/// The amount in nano-units, rounded up and cut at the largest.
fn amount(whole: &str, fraction: &str, scale: Scale) -> i128 {
    let whole = whole.trim_start_matches('0');
    let fraction = fraction.trim_end_matches('0');
    let (ten, two) = match scale {
        Scale::Ten(ten) => (ten, 0),
        Scale::Two(two) => (0, two),
    };
    // digits × 10^exponent × 2^two nano-units
    let digits = format!("{whole}{fraction}");
    let places = i32::try_from(fraction.len()).unwrap_or(i32::MAX);
    let exponent = ten.saturating_sub(places).saturating_add(9);
    let significant = digits.trim_start_matches('0');
    match exponent {
        _ if significant.is_empty() => 0,
        0.. => scaled_up(significant, exponent.unsigned_abs(), two),
        _ => scaled_down(significant, exponent.unsigned_abs(), two),
    }
}

fn scaled_up(digits: &str, zeros: u32, two: u32) -> i128 {
    let product = digits
        .parse::<i128>()
        .ok()
        .and_then(|value| value.checked_mul(10_i128.checked_pow(zeros)?))
        .and_then(|value| value.checked_mul(1_i128 << two));
    product.unwrap_or(AMOUNT_MAX).min(AMOUNT_MAX)
}

/// `digits × 2^two / 10^places`, rounded up.
fn scaled_down(digits: &str, places: u32, two: u32) -> i128 {
    // Digits beyond the 38 that fit lie far below a nano-unit once divided; one of them not being zero rounds up.
    let places = usize::try_from(places).unwrap_or(usize::MAX);
    if digits.len() <= 20 && places <= 38 {
        let value = digits.parse::<i128>().unwrap_or(0);
        let divisor = 10_i128.pow(u32::try_from(places).unwrap_or(38));
        // Divide first what divides, so that the product fits.
        let (quotient, rest) = (value / divisor, value % divisor);
        let high = quotient.checked_mul(1_i128 << two).unwrap_or(AMOUNT_MAX);
        let low = scaled_rest(rest, divisor, two);
        return high.saturating_add(low).min(AMOUNT_MAX);
    }
    let keep = digits.len().saturating_sub(places.saturating_sub(9)).min(digits.len());
    if keep == 0 {
        return 1;
    }
    let cut = digits.len() - keep;
    let (kept, lost) = digits.split_at(keep);
    let up = i128::from(lost.bytes().any(|digit| digit != b'0'));
    let value = kept.parse::<i128>().map_or(AMOUNT_MAX, |value| value.saturating_add(up));
    if places - cut > 38 {
        return 1;
    }
    let divisor = 10_i128.pow(u32::try_from(places - cut).unwrap_or(38));
    let product = (value / divisor).saturating_mul(1_i128 << two);
    product.saturating_add(scaled_rest(value % divisor, divisor, two)).min(AMOUNT_MAX)
}

/// `rest × 2^two / divisor`, rounded up, by doubling so that nothing overflows (`rest < divisor ≤ 10^38`).
fn scaled_rest(mut rest: i128, divisor: i128, two: u32) -> i128 {
    let mut whole = 0_i128;
    for _ in 0..two {
        whole = whole.saturating_mul(2);
        // rest + rest ≥ divisor, without computing the sum
        if rest >= divisor - rest {
            rest -= divisor - rest;
            whole = whole.saturating_add(1);
        } else {
            rest += rest;
        }
    }
    whole.saturating_add(i128::from(rest > 0))
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let small = self.nanos.abs() < 1024 * UNIT;
        match self.family {
            // Without a factor of 1024 there is no suffix, and the text would read back as a decimal one.
            Family::Binary if !small && self.nanos % (1024 * UNIT) == 0 => write_binary(self.nanos / UNIT, f),
            Family::Exponent => write_decimal(self.nanos, |exponent| format!("e{exponent}"), f),
            _ => write_decimal(self.nanos, decimal_suffix, f),
        }
    }
}

fn write_binary(mut units: i128, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    const SUFFIXES: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    let mut at = 0;
    while units % 1024 == 0 && units != 0 && at + 1 < SUFFIXES.len() {
        units /= 1024;
        at += 1;
    }
    write!(f, "{units}{}", SUFFIXES[at])
}

fn write_decimal(
    mut amount: i128,
    suffix: impl Fn(i32) -> String,
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    if amount == 0 {
        return f.write_str("0");
    }
    let mut exponent = -9;
    while amount % 1000 == 0 && exponent < 18 {
        amount /= 1000;
        exponent += 3;
    }
    match exponent {
        0 => write!(f, "{amount}"),
        _ => write!(f, "{amount}{}", suffix(exponent)),
    }
}

fn decimal_suffix(exponent: i32) -> String {
    match exponent {
        -9 => "n",
        -6 => "u",
        -3 => "m",
        3 => "k",
        6 => "M",
        9 => "G",
        12 => "T",
        15 => "P",
        _ => "E",
    }
    .to_owned()
}

fn ceil_div(value: i128, by: i128) -> i128 {
    value.div_euclid(by) + i128::from(value.rem_euclid(by) != 0)
}

fn narrow(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl Add for Quantity {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        self.plus(other.nanos, other.family)
    }
}

impl AddAssign for Quantity {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sub for Quantity {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self.plus(-other.nanos, other.family)
    }
}

impl SubAssign for Quantity {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}

impl Neg for Quantity {
    type Output = Self;

    fn neg(self) -> Self {
        Self { nanos: -self.nanos, ..self }
    }
}

impl std::iter::Sum for Quantity {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::ZERO, Add::add)
    }
}

/// Reads a view's quantity; text that is none counts as nothing, since the API stores no such text.
impl From<&k8s_openapi::apimachinery::pkg::api::resource::Quantity> for Quantity {
    fn from(view: &k8s_openapi::apimachinery::pkg::api::resource::Quantity) -> Self {
        view.0.parse().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(text: &str, canonical: &str) {
        let read: Quantity = text.parse().unwrap_or_else(|_| panic!("{text} is a quantity"));
        assert_eq!(read.to_string(), canonical, "of {text}");
    }

    #[test]
    fn quantities_are_written_in_canonical_form() {
        for (text, canonical) in [
            ("1000m", "1"),
            ("0.5", "500m"),
            ("0.5Gi", "512Mi"),
            ("1.5Gi", "1536Mi"),
            ("1024", "1024"),
            ("1024Ki", "1Mi"),
            ("100", "100"),
            ("1000", "1k"),
            ("1500", "1500"),
            ("1e3", "1e3"),
            ("1E3", "1e3"),
            ("1E", "1E"),
            ("+5", "5"),
            ("-500m", "-500m"),
            (".5", "500m"),
            ("1.", "1"),
            ("0", "0"),
            ("0Gi", "0"),
            ("0.1Ki", "102400m"),
            ("1Ki", "1Ki"),
            ("1000Ki", "1000Ki"),
            ("0.0000000001", "1n"),
            ("1e-9", "1e-9"),
            ("1e-20", "1e-9"),
            ("9223372036854775807", "9223372036854775807"),
            ("99999999999999999999E", "9223372036854775807"),
            ("16Ei", "9223372036854775807"),
            ("12e1", "120"),
            ("100000000000000000000000000000000000000000m", "9223372036854775807"),
        ] {
            check(text, canonical);
        }
    }

    #[test]
    fn text_that_is_no_quantity_is_refused() {
        for text in
            ["", ".", "-", "1..2", "1 Gi", "1gi", "1mm", "Gi", "1e", "0x10", "1e+-3", "--1", "1KI", "ä"]
        {
            assert_eq!(text.parse::<Quantity>(), Err(NotAQuantity), "{text}");
        }
    }

    #[test]
    fn values_round_up() {
        let of = |text: &str| text.parse::<Quantity>().expect("a quantity");
        assert_eq!(of("1100m").value(), 2);
        assert_eq!(of("-1100m").value(), -1);
        assert_eq!(of("100u").milli_value(), 1);
        assert_eq!(of("0.0001").rounded_up_to_millis().to_string(), "1m");
        assert_eq!((of("1Gi") - of("1Mi")).to_string(), "1023Mi");
    }

    fn any() -> impl Strategy<Value = Quantity> {
        let amount = (-1_000_000_000_000_i64..1_000_000_000_000, 0_u32..4);
        (amount, prop_oneof![Just(Family::Decimal), Just(Family::Binary), Just(Family::Exponent)])
            .prop_map(|((n, power), family)| Quantity { nanos: i128::from(n) * 1000_i128.pow(power), family })
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(quantity in any()) {
            let text = quantity.to_string();
            let read: Quantity = text.parse().expect("its own text");
            prop_assert_eq!(read, quantity);
            prop_assert_eq!(read.to_string(), text);
        }

        #[test]
        fn addition_is_a_group(a in any(), b in any(), c in any()) {
            prop_assert_eq!(a + b, b + a);
            prop_assert_eq!((a + b) + c, a + (b + c));
            prop_assert_eq!(a + b - b, a);
            prop_assert_eq!(a.cmp(&b), (a + c).cmp(&(b + c)));
        }

        #[test]
        fn no_text_makes_it_panic(text in "[-+]?[0-9.]{0,60}[eEinumkKMGTP]{0,2}[-+]?[0-9]{0,12}") {
            if let Ok(read) = text.parse::<Quantity>() {
                prop_assert_eq!(read.to_string().parse::<Quantity>(), Ok(read));
            }
        }
    }
}
