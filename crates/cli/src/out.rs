//! What people read: data on stdout, talk on stderr; colour only where it is wanted (`NO_COLOR`, terminals).

use std::io::Write as _;

use trellis_core::Refusal;

/// Prints an error as `error: …`, its causes, and a hint if it has one.
pub(crate) fn error(error: &anyhow::Error) {
    let mut stderr = anstream::stderr().lock();
    // A terminal that is gone cannot be told so.
    let refusal = error.downcast_ref::<Refusal>();
    // A refusal's text ends with its hint, which has a line of its own here.
    let first = refusal.map_or_else(
        || error.to_string(),
        |refusal| {
            Refusal {
                hint: None,
                ..refusal.clone()
            }
            .to_string()
        },
    );
    let _ = writeln!(stderr, "\u{1b}[1;31merror\u{1b}[0m: {first}");
    let mut last = error.to_string();
    for cause in error.chain().skip(1) {
        let text = cause.to_string();
        if !last.ends_with(&text) {
            let _ = writeln!(stderr, "  caused by: {text}");
        }
        last = text;
    }
    if let Some(hint) = refusal.and_then(|refusal| refusal.hint.as_ref()) {
        let _ = writeln!(stderr, "\u{1b}[1;36mhint\u{1b}[0m: {hint}");
    }
}

/// One line of talk.
pub(crate) fn say(line: impl std::fmt::Display) {
    let _ = writeln!(anstream::stderr().lock(), "{line}");
}

/// One line of data in which texts of others stand: control characters are shown, not sent to the terminal.
pub(crate) fn line(line: impl std::fmt::Display) {
    data(shown(&line.to_string()));
}

/// One line of talk in which texts of others stand.
pub(crate) fn note(line: impl std::fmt::Display) {
    say(shown(&line.to_string()));
}

fn shown(text: &str) -> String {
    let mut shown = String::new();
    for c in text.chars() {
        if c.is_control() {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// One line of data.
pub(crate) fn data(line: impl std::fmt::Display) {
    let _ = writeln!(anstream::stdout().lock(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_shown() {
        assert_eq!(shown("a\u{1b}[2Jb\nü"), "a\\u{1b}[2Jb\\nü");
    }
}
