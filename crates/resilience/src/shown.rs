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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_long_is_cut_between_characters() {
        assert_eq!(cut("äöü", 3), "äöü");
        assert_eq!(cut("äöüß", 3), "äöü… (4 characters)");
        assert_eq!(cut("", 0), "");
    }
}
