//! The text of pictures: the characters that they show, and indented lines.

/// Returns the characters of a label as a picture shows them: each kind of line break as `\n`, and the
/// other characters that are invalid in SVG as symbols.
pub(super) fn visible(text: &str) -> impl Iterator<Item = char> {
    let mut characters = text.chars().peekable();
    std::iter::from_fn(move || {
        Some(match characters.next()? {
            '\r' => {
                characters.next_if_eq(&'\n');
                '\n'
            }
            '\n' => '\n',
            '\u{7f}' => '\u{2421}',
            '\u{fffe}' | '\u{ffff}' => '\u{fffd}',
            // U+2400 to U+2420 are the symbols of these characters, in the same order.
            control @ ..' ' => char::from_u32(0x2400 + u32::from(control)).unwrap_or(control),
            character => character,
        })
    })
}

/// Writes one indented line. The result is ignored because writing to a `String` cannot fail.
macro_rules! line {
    ($self:ident, $depth:expr, $($text:tt)*) => {{
        for _ in 0..$depth {
            $self.text.push_str("    ");
        }
        let _ = writeln!($self.text, $($text)*);
    }};
}
pub(super) use line;
