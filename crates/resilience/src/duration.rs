//! Durations, in Linkerd's grammar and in the narrower one of our fields. All values are milliseconds.

use trellis_api::MAX_DURATION_MS;
use trellis_core::Refusal;

use crate::Reason;

/// What Linkerd reads: blanks around are dropped, then a whole number and one unit, or a bare zero
/// (linkerd2, `policy-controller/k8s/index/src/outbound/index.rs`). None: Linkerd rejects it.
pub(crate) fn linkerd(text: &str) -> Option<u64> {
    let text = text.trim();
    let unit_at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let number: u64 = number.parse().ok()?;
    let factor = match unit {
        "" if number == 0 => 0,
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(factor)
}

/// What a field of ours admits: as Linkerd, but positive, bounded, and without anything around or before the number.
pub(crate) fn field(path: &str, text: &str) -> Result<u64, Refusal> {
    let plain = text.starts_with(|c: char| ('1'..='9').contains(&c)) && !text.ends_with(char::is_whitespace);
    match linkerd(text).filter(|_| plain) {
        Some(value) if value <= MAX_DURATION_MS => Ok(value),
        Some(_) => Err(Reason::Invalid.refuse(format!("{text} is longer than 24h")).field(path)),
        None => Err(Reason::Invalid
            .refuse(format!("{text:?} is not a positive duration that Linkerd understands"))
            .field(path)
            .hint("write a whole number with one unit of ms, s, m, h or d, such as 300ms")),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("0", Some(0))]
    #[case("00", Some(0))]
    #[case("0s", Some(0))]
    #[case("1ms", Some(1))]
    #[case(" 10s ", Some(10_000))]
    #[case("2m", Some(120_000))]
    #[case("3h", Some(10_800_000))]
    #[case("1d", Some(86_400_000))]
    #[case("18446744073709551615ms", Some(u64::MAX))]
    #[case("18446744073709551616ms", None)]
    #[case("18446744073709551615s", None)]
    #[case("", None)]
    #[case("10", None)]
    #[case("s", None)]
    #[case("1.5s", None)]
    #[case("1m30s", None)]
    #[case("-1s", None)]
    #[case("+1s", None)]
    #[case("1S", None)]
    #[case("1 s", None)]
    #[case("1us", None)]
    fn linkerd_reads(#[case] text: &str, #[case] milliseconds: Option<u64>) {
        assert_eq!(linkerd(text), milliseconds);
    }

    #[rstest]
    #[case("1ms", Ok(1))]
    #[case("24h", Ok(86_400_000))]
    #[case("1d", Ok(86_400_000))]
    #[case("86400001ms", Err("24h"))]
    #[case("2d", Err("24h"))]
    #[case("0s", Err("positive"))]
    #[case("0", Err("positive"))]
    #[case("01s", Err("positive"))]
    #[case(" 1s", Err("positive"))]
    #[case("1s ", Err("positive"))]
    #[case("1m30s", Err("positive"))]
    fn a_field_admits(#[case] text: &str, #[case] expected: Result<u64, &str>) {
        match (field("spec.a", text), expected) {
            (Ok(value), Ok(expected)) => assert_eq!(value, expected),
            (Err(refusal), Err(word)) => {
                assert_eq!((refusal.reason, refusal.field.as_deref()), ("Invalid", Some("spec.a")));
                assert!(refusal.message.contains(word), "{refusal}");
            }
            (found, expected) => panic!("{found:?} instead of {expected:?}"),
        }
    }
}
