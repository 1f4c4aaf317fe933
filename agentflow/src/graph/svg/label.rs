//! [`Label`]: text in a picture, broken into lines and measured.

use std::fmt::Write;

use super::{
    super::picture::visible,
    layout::{Point, Size},
    markup::{escape, number},
};

/// The size of the text, in pixels.
pub(super) const FONT_SIZE: f64 = 14.0;
const LINE_HEIGHT: f64 = 18.0;
/// A longer line is broken.
const MAX_WIDTH: f64 = 320.0;
/// The space around the text.
const PADDING: f64 = 4.0;

pub(super) struct Label {
    lines: Vec<String>,
    /// The size with some space around the text.
    pub(super) size: Size,
}

impl Label {
    pub(super) fn new(text: &str) -> Self {
        let text: String = visible(text).collect();
        let lines: Vec<_> = text.split('\n').flat_map(broken).map(str::to_owned).collect();
        let width = lines.iter().map(|line| line.chars().map(advance).sum()).fold(0.0, f64::max);
        #[allow(clippy::cast_precision_loss, reason = "no text has 2^52 lines")]
        let height = lines.len() as f64 * LINE_HEIGHT;
        Self { lines, size: Size { width: width + 2.0 * PADDING, height: height + 2.0 * PADDING } }
    }

    /// Writes the text around the point.
    pub(super) fn write(&self, svg: &mut String, color: &str, Point { x, y }: Point) {
        let mut baseline = y - self.size.height / 2.0 + PADDING + LINE_HEIGHT / 2.0 + 0.35 * FONT_SIZE;
        for line in &self.lines {
            // Writing to a `String` cannot fail.
            let _ = writeln!(
                svg,
                "<text x=\"{}\" y=\"{}\" fill=\"{color}\" xml:space=\"preserve\">{}</text>",
                number(x),
                number(baseline),
                escape(line)
            );
            baseline += LINE_HEIGHT;
        }
    }
}

/// Breaks a line where it becomes too wide: after a space, or inside a long word.
fn broken(mut line: &str) -> Vec<&str> {
    let mut lines = Vec::new();
    loop {
        let mut width = 0.0;
        let too_wide = line.char_indices().find(|(_, character)| {
            width += advance(*character);
            width > MAX_WIDTH
        });
        let Some((end, _)) = too_wide else { break };
        let end = line[..end].rfind(' ').map_or(end, |space| space + 1);
        let (first, rest) = line.split_at(end);
        lines.push(first);
        line = rest;
    }
    lines.push(line);
    lines
}

/// Returns the width of a character in pixels, rounded up: the fonts of viewers differ, and wide ones must fit as well.
fn advance(character: char) -> f64 {
    let em = match character {
        'i' | 'j' | 'l' | 'I' | '.' | ',' | ':' | ';' | '\'' | '|' | '!' | ' ' | '(' | ')' | '[' | ']' | 'f' | 't' => {
            0.4
        }
        'm' | 'w' | 'M' | 'W' | '@' | '%' => 1.0,
        'A'..='Z' | '<' | '>' | '=' | '+' | '#' | '&' | '~' => 0.8,
        ..='\u{7e}' => 0.65,
        ..='\u{10ff}' => 0.8,
        _ => 1.1,
    };
    em * FONT_SIZE
}
