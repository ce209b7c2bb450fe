//! The grammars that several keys share. An error has no content: Linkerd only logs it.

/// The value is not in the grammar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bad;

/// Milliseconds. Blanks around are dropped; digits, then a unit; a lone zero needs none.
pub(crate) fn duration(text: &str) -> Result<u64, Bad> {
    let text = text.trim();
    let units: [(&str, u64); 5] = [
        ("ms", 1),
        ("s", 1000),
        ("m", 60 * 1000),
        ("h", 3600 * 1000),
        ("d", 86400 * 1000),
    ];
    for (unit, factor) in units {
        let Some(number) = text.strip_suffix(unit) else {
            continue;
        };
        if !digits(number) {
            continue;
        }
        return number
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(factor))
            .ok_or(Bad);
    }
    if digits(text) && text.bytes().all(|byte| byte == b'0') {
        Ok(0)
    } else {
        Err(Bad)
    }
}

fn digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// A number; blanks around it are dropped only where `trim` says so.
pub(crate) fn number<N: std::str::FromStr>(text: &str, trim: bool) -> Result<N, Bad> {
    let text = if trim { text.trim() } else { text };
    text.parse().map_err(|_| Bad)
}

/// The spellings of truth that Go's `strconv.ParseBool` knows.
pub(crate) fn truth(text: &str) -> Result<bool, Bad> {
    match text.trim() {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(Bad),
    }
}

/// Of an absent value, nothing; of a present one, what it reads as.
pub(crate) fn optional<T>(text: Option<&str>, read: impl FnOnce(&str) -> Result<T, Bad>) -> Result<Option<T>, Bad> {
    text.map(read).transpose()
}
