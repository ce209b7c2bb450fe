//! Durations as Go writes them, in which profiles give timeouts: `1m30s`, `1.5s`, `300ms`.

/// Milliseconds, if it is a whole number of them.
pub(crate) fn milliseconds(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut microseconds: u64 = 0;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(number_end);
        let unit_end = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let factor: u64 = match unit {
            "us" | "µs" => 1,
            "ms" => 1000,
            "s" => 1_000_000,
            "m" => 60_000_000,
            "h" => 3_600_000_000,
            _ => return None,
        };
        let (whole, part) = number.split_once('.').unwrap_or((number, ""));
        let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        let mut sum = whole.checked_mul(factor)?;
        if !part.is_empty() {
            let scale = 10_u64.checked_pow(u32::try_from(part.len()).ok()?)?;
            let scaled = part.parse::<u64>().ok()?.checked_mul(factor)?;
            sum = sum.checked_add(scaled / scale)?;
        } else if whole == 0 && number.is_empty() {
            return None;
        }
        microseconds = microseconds.checked_add(sum)?;
        rest = tail;
    }
    (!text.is_empty() && microseconds.is_multiple_of(1000)).then_some(microseconds / 1000)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("300ms", Some(300))]
    #[case("1.5s", Some(1500))]
    #[case("1m30s", Some(90_000))]
    #[case("2h", Some(7_200_000))]
    #[case(".25s", Some(250))]
    #[case("1500us", None)]
    #[case("", None)]
    #[case("10", None)]
    #[case("s", None)]
    #[case("1d", None)]
    #[case("-1s", None)]
    fn go_reads(#[case] text: &str, #[case] expected: Option<u64>) {
        assert_eq!(milliseconds(text), expected);
    }
}
