//! Lists of response statuses: `5xx,429` in, the same set in canonical form out.

use std::collections::BTreeSet;

use trellis_core::Refusal;

use crate::Reason;

/// The canonical form: ascending, each range once, no blanks, shortest spelling.
pub(crate) fn canonical(path: &str, text: &str) -> Result<String, Refusal> {
    let ranges: BTreeSet<(u16, u16)> = text
        .split(',')
        .map(|item| range(path, item))
        .collect::<Result<_, _>>()?;
    let spelt: Vec<String> = ranges
        .into_iter()
        .map(|range| match range {
            (500, 599) => "5xx".into(),
            (502, 504) => "gateway-error".into(),
            (low, high) if low == high => low.to_string(),
            (low, high) => format!("{low}-{high}"),
        })
        .collect();
    Ok(spelt.join(","))
}

/// The gRPC statuses that Linkerd can retry on, in order.
pub(crate) const GRPC: [&str; 5] = [
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
];

/// The canonical form of a list of gRPC statuses: in order, each once, no blanks.
pub(crate) fn canonical_grpc(path: &str, text: &str) -> Result<String, Refusal> {
    let asked: BTreeSet<&str> = text.split(',').collect();
    match asked.iter().find(|item| !GRPC.contains(item)) {
        None => Ok(asked.into_iter().collect::<Vec<_>>().join(",")),
        Some(item) => Err(Reason::Invalid
            .refuse(format!("{item:?} is not a gRPC status that Linkerd can retry on"))
            .field(path)
            .hint(format!("list some of {}, without blanks", GRPC.join(", ")))),
    }
}

fn range(path: &str, item: &str) -> Result<(u16, u16), Refusal> {
    let found = match item {
        "5xx" => Some((500, 599)),
        "gateway-error" => Some((502, 504)),
        _ => match item.split_once('-') {
            Some((low, high)) => code(low).zip(code(high)),
            None => code(item).map(|code| (code, code)),
        },
    };
    match found {
        Some((low, high)) if low <= high => Ok((low, high)),
        Some(_) => Err(Reason::Invalid
            .refuse(format!("the range {item} runs downwards"))
            .field(path)),
        None => Err(Reason::Invalid
            .refuse(format!("{item:?} is not a status that Linkerd can retry on"))
            .field(path)
            .hint("list 5xx, gateway-error, codes from 100 to 599 and ranges such as 500-504, without blanks")),
    }
}

fn code(text: &str) -> Option<u16> {
    let three_digits = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|code| three_digits && (100..=599).contains(code))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("5xx", "5xx")]
    #[case("500-599", "5xx")]
    #[case("5xx,429", "429,5xx")]
    #[case("429,5xx,429", "429,5xx")]
    #[case("502-504,gateway-error", "gateway-error")]
    #[case("504,503,500-504", "500-504,503,504")]
    #[case("503-503", "503")]
    #[case("100,599", "100,599")]
    fn a_list_has_one_spelling(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(canonical("f", text).unwrap(), expected);
        assert_eq!(canonical("f", expected).unwrap(), expected);
    }

    #[rstest]
    #[case("unavailable,cancelled,unavailable", Some("cancelled,unavailable"))]
    #[case(
        "resource-exhausted,internal,deadline-exceeded",
        Some("deadline-exceeded,internal,resource-exhausted")
    )]
    #[case("Unavailable", None)]
    #[case("unavailable, internal", None)]
    #[case("14", None)]
    #[case("unknown", None)]
    #[case("", None)]
    fn grpc_statuses_have_one_spelling(#[case] text: &str, #[case] expected: Option<&str>) {
        match (canonical_grpc("f", text), expected) {
            (Ok(found), Some(expected)) => assert_eq!(found, expected),
            (Err(refusal), None) => assert_eq!((refusal.reason, refusal.field.as_deref()), ("Invalid", Some("f"))),
            (found, expected) => panic!("{found:?} instead of {expected:?}"),
        }
    }

    #[rstest]
    #[case("")]
    #[case("5xx,")]
    #[case(",,")]
    #[case("5xx, 429")]
    #[case("4xx")]
    #[case("x")]
    #[case("3")]
    #[case("99")]
    #[case("600")]
    #[case("0500")]
    #[case("+50")]
    #[case("5XX")]
    #[case("500-")]
    #[case("504-500")]
    fn what_linkerd_cannot_read_is_refused(#[case] text: &str) {
        let refusal = canonical("f", text).unwrap_err();
        assert_eq!((refusal.reason, refusal.field.as_deref()), ("Invalid", Some("f")));
    }
}
