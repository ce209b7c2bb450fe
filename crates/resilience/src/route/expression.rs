//! Whether Linkerd reads a regular expression: its proxies compile it, with the same library and the same limit of size.
//!
//! text ─▶ judged before? ─▶ compiled once ─▶ the verdict stays, the program does not
//!
//! Invariant: what is kept changes no answer, and is bounded by [`KEPT`].

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use regex::Regex;

/// How many verdicts are kept; with as many, all are forgotten. A policy has at most 576 expressions.
const KEPT: usize = 4096;

/// What is wrong with each text; empty: nothing.
type Verdicts = BTreeMap<String, String>;

static VERDICTS: Mutex<Verdicts> = Mutex::new(Verdicts::new());

/// Refuses with what is wrong, in the words of the library's last line.
pub(super) fn check(text: &str) -> Result<(), String> {
    // Not compiled under the lock: two that ask at once compile twice.
    let known = VERDICTS
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .get(text)
        .cloned();
    let wrong = known.unwrap_or_else(|| {
        let wrong = compiled(text);
        keep(
            &mut VERDICTS.lock().unwrap_or_else(PoisonError::into_inner),
            text,
            &wrong,
        );
        wrong
    });
    if wrong.is_empty() { Ok(()) } else { Err(wrong) }
}

fn compiled(text: &str) -> String {
    let last = |error: &regex::Error| error.to_string().lines().last().unwrap_or_default().trim().to_owned();
    Regex::new(text).err().as_ref().map_or_else(String::new, last)
}

fn keep(verdicts: &mut Verdicts, text: &str, wrong: &str) {
    if verdicts.len() >= KEPT {
        verdicts.clear();
    }
    verdicts.insert(text.to_owned(), wrong.to_owned());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_is_the_same_the_second_time() {
        for (text, reads) in [
            ("/carts/[0-9]+", true),
            ("(", false),
            ("(?=a)", false),
            (r"\w{50}{50}{50}", false),
        ] {
            let first = check(text);
            assert_eq!(first.is_ok(), reads, "{text}: {first:?}");
            assert_eq!(check(text), first);
        }
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut verdicts = Verdicts::new();
        for number in 0..=KEPT * 2 {
            keep(&mut verdicts, &number.to_string(), "");
            assert!(verdicts.len() <= KEPT);
        }
        assert!(verdicts.contains_key(&(KEPT * 2).to_string()));
    }
}
