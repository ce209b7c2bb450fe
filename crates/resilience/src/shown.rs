//! Texts of others, such as values of annotations, in the length in which people read them.

/// Most characters of a value in a sentence or in a line.
pub const VALUE: usize = 120;

/// Most characters of a whole message, and of a value in a field of its own.
pub const FIELD: usize = 4096;

/// The first `most` characters; what is longer ends with `…` and says how long it is.
#[must_use]
pub fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some((end, _)) => {
            let start = text.get(..end).unwrap_or_default();
            format!("{start}… ({} characters)", text.chars().count())
        }
    }
}

/// Most names in a sentence.
const NAMES: usize = 4;

/// The first few of several names, and how many more there are.
#[must_use]
pub fn some_of(names: &[String]) -> String {
    let first: Vec<String> = names.iter().take(NAMES).map(|name| cut(name, VALUE)).collect();
    let first = first.join(", ");
    match names.len().saturating_sub(NAMES) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_long_is_cut_between_characters() {
        assert_eq!(cut("äöü", 3), "äöü");
        assert_eq!(cut("äöüß", 3), "äöü… (4 characters)");
        assert_eq!(cut("", 0), "");
    }

    #[test]
    fn of_many_names_there_are_a_few() {
        let names: Vec<String> = ["a", "b", "c", "d", "e", "f"].map(str::to_owned).into();
        assert_eq!(some_of(names.get(..4).unwrap_or_default()), "a, b, c, d");
        assert_eq!(some_of(&names), "a, b, c, d and 2 more");
    }
}
