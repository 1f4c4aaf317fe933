//! The markup of SVG: numbers and text as XML has them.

use std::fmt::Write;

/// Appends formatted text.
pub(super) fn put(content: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a `String` cannot fail.
    let _ = content.write_fmt(text);
}

/// Returns the number with at most one decimal place.
pub(super) fn number(value: f64) -> String {
    // Adding zero turns a negative zero into zero.
    format!("{}", (value * 10.0).round() / 10.0 + 0.0)
}

/// Returns the text for an element or an attribute. Characters that XML cannot represent are replaced.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            // Parsers turn these into spaces in attributes, unless they are entities.
            '\t' | '\n' | '\r' => put(&mut escaped, format_args!("&#{};", u32::from(character))),
            ..' ' | '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            _ => escaped.push(character),
        }
    }
    escaped
}
