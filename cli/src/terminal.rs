//! Text from elsewhere, on a terminal.

use std::borrow::Cow;

/// The text as it may be printed: on a terminal, control characters but line
/// end and tab become U+FFFD, since with them an answer could move the cursor,
/// set the clipboard or rename the window.
pub fn safe(text: &str, terminal: bool) -> Cow<'_, str> {
    let harmful = |c: char| c.is_control() && c != '\n' && c != '\t';
    if terminal && text.contains(harmful) {
        Cow::Owned(text.replace(harmful, "\u{fffd}"))
    } else {
        Cow::Borrowed(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_do_not_reach_a_terminal() {
        assert_eq!(
            safe("a\u{1b}[2Jb\u{9b}\n\té", true),
            "a\u{fffd}[2Jb\u{fffd}\n\té"
        );
        assert_eq!(safe("a\u{1b}b", false), "a\u{1b}b");
    }
}
