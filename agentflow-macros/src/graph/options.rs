//! The options of nodes, groups and `compile`: `{ KEY: VALUE, .. }`.

use proc_macro2::{Group, Ident, Literal, TokenStream, TokenTree};
use quote::{quote, quote_spanned};

use super::{syntax::split_code, tokens::Tokens};
use crate::{errors::Errors, printing::parenthesized, suggest::closest};

/// `KEY: VALUE`, a call of the builder's method `KEY`.
pub(crate) struct Setting {
    pub(crate) key: Ident,
    pub(crate) value: TokenStream,
    /// False for a key that no option has, which is reported.
    pub(crate) is_known: bool,
}

/// The options that something takes.
pub(crate) struct Keys {
    /// The owner of the options, for messages.
    owner: &'static str,
    known: &'static [&'static str],
    /// Options of something else, which have messages of their own.
    others: &'static [&'static str],
}

pub(crate) const OF_NODE: Keys =
    Keys { owner: "a node", known: &["retry", "timeout", "label", "on_error"], others: &[] };
pub(crate) const OF_GROUP: Keys =
    Keys { owner: "a group", known: &["label", "on_error"], others: &["retry", "timeout"] };
pub(crate) const OF_EACH: Keys =
    Keys { owner: "`each`", known: &["max_parallel", "max_items", "label", "on_error"], others: &[] };
pub(crate) const OF_GRAPH: Keys = Keys {
    owner: "`compile`",
    known: &[
        "services",
        "shutdown_timeout",
        "recursion_limit",
        "task_manager",
        "store",
        "task_workers",
        "task_limits",
        "on_commit",
    ],
    others: &[],
};

impl Keys {
    pub(crate) fn has(&self, key: &Ident) -> bool {
        self.known.iter().chain(self.others).any(|known| key == known)
    }

    fn report(&self, key: &Ident, errors: &mut Errors) {
        let guess = closest(&key.to_string(), self.known);
        let guess = guess.map(|guess| format!("; did you mean `{guess}`?")).unwrap_or_default();
        let mut list = String::new();
        for (index, known) in self.known.iter().enumerate() {
            let separator = match index {
                0 => "",
                _ if index + 1 == self.known.len() => " or ",
                _ => ", ",
            };
            list.extend([separator, "`", known, "`"]);
        }
        errors.at(key.span(), format!("unknown option `{key}`{guess} ({} takes {list})", self.owner));
    }
}

/// `{ KEY: VALUE, KEY }`
pub(crate) fn settings(group: &Group, keys: &Keys, errors: &mut Errors) -> Vec<Setting> {
    let mut settings = Vec::new();
    for mut tokens in Tokens::new(group.stream()).split(',') {
        super::syntax::refuse_attributes(&mut tokens, errors);
        let Some(key) = tokens.ident() else {
            if !tokens.is_empty() {
                errors.spanning(tokens.peek(), "expected an option: `KEY: VALUE`");
            }
            continue;
        };
        let is_known = keys.has(&key);
        if settings.iter().any(|setting: &Setting| setting.key == key) {
            errors.at(key.span(), format!("`{key}` is set already"));
        } else if !is_known {
            keys.report(&key, errors);
            tokens.punct(':');
            settings.push(Setting { key, value: tokens.rest(), is_known });
        } else if tokens.is_empty() {
            settings.push(Setting { key, value: TokenStream::new(), is_known });
        } else if let Some(colon) = tokens.punct(':') {
            // `fallback` reports a missing value of `on_error`.
            if tokens.is_empty() && key != "on_error" {
                errors.at(colon.span(), format!("expected a value after `{key}:`"));
            }
            let written = tokens.rest();
            let value = if key == "on_error" { written } else { value(&key, written, errors) };
            settings.push(Setting { key, value, is_known });
        } else {
            errors.spanning(tokens.peek(), format!("expected `:` and a value after `{key}`"));
        }
    }
    settings
}

/// Replaces durations such as `30s` by expressions. A value with a mistake is empty.
fn value(key: &Ident, tokens: TokenStream, errors: &mut Errors) -> TokenStream {
    let before = errors.count();
    let mut tokens = Tokens::new(tokens);
    tokens.open_fragment();
    let is_duration = key == "timeout" || key == "shutdown_timeout";
    if is_duration && let (Some(only), None) = (tokens.peek(), tokens.nth(1)) {
        report_no_duration(key, only, errors);
    }
    let mut value = TokenStream::new();
    while let Some(token) = tokens.next() {
        let TokenTree::Literal(literal) = &token else {
            value.extend([token]);
            continue;
        };
        if let Some(duration) = duration(literal) {
            value.extend(duration);
            continue;
        }
        report_unit(literal, errors);
        if let (true, Some(unit)) = (is_duration && errors.count() == before, tokens.ident_at(0))
            && UNITS.iter().any(|known| unit == known)
        {
            errors.at(unit.span(), format!("a duration is one word: write `{literal}{unit}`"));
        }
        value.extend([token]);
    }
    if errors.count() > before {
        return TokenStream::new();
    }
    match split_code::<syn::Expr>(&value) {
        Some((value, rest)) if !rest.is_empty() => {
            errors.spanning(rest.into_iter().next(), "expected `,`");
            value
        }
        _ => value,
    }
}

/// Reports a single token that cannot be a duration.
fn report_no_duration(key: &Ident, token: &TokenTree, errors: &mut Errors) {
    let text = token.to_string();
    match token {
        TokenTree::Literal(literal) if text.starts_with('"') => {
            let inside = text.trim_matches('"');
            let inside = inside.parse::<Literal>().ok().filter(|literal| duration(literal).is_some());
            let written = inside.map_or_else(|| "30s".to_owned(), |literal| literal.to_string());
            errors.at(literal.span(), format!("a duration has no quotes: write `{written}`"));
        }
        TokenTree::Literal(literal) if text.chars().all(|char| char.is_ascii_digit() || "._".contains(char)) => {
            let number = text.strip_suffix(".0").unwrap_or(&text);
            errors.at(literal.span(), format!("a duration has a unit, `ms`, `s`, `m` or `h`: write `{number}s`"));
        }
        TokenTree::Ident(ident) if ident == "None" => {
            errors.at(ident.span(), format!("to keep the default leave `{key}` out"));
        }
        _ => {}
    }
}

/// The units of a duration.
const UNITS: [&str; 4] = ["ms", "s", "m", "h"];

/// The suffixes of Rust's numbers.
const NUMBER_TYPES: [&str; 16] = [
    "u8", "u16", "u32", "u64", "u128", "usize", "i8", "i16", "i32", "i64", "i128", "isize", "f16", "f32", "f64", "f128",
];

/// Reports a suffix that neither a duration nor a number has.
fn report_unit(literal: &Literal, errors: &mut Errors) {
    let text = literal.to_string();
    let Some((number, unit)) = number_and_unit(&text) else { return };
    let is_exponent = unit.starts_with(['e', 'E']) && unit[1..].starts_with(|char: char| char.is_ascii_digit());
    if NUMBER_TYPES.contains(&unit) || is_exponent {
        return;
    }
    let whole = number.replace('_', "").parse::<u64>().ok();
    let advice = match (unit, whole) {
        (unit, Some(_)) if UNITS.contains(&unit) => {
            errors.at(literal.span(), "this duration is too long: it has at most 2^64 nanoseconds, 584 years");
            return;
        }
        ("d" | "day" | "days", Some(days)) => format!("{}h", days.saturating_mul(24)),
        ("w" | "week" | "weeks", Some(weeks)) => format!("{}h", weeks.saturating_mul(168)),
        ("min" | "mins" | "minute" | "minutes", _) => format!("{number}m"),
        ("sec" | "secs" | "second" | "seconds", _) => format!("{number}s"),
        ("hour" | "hours" | "hr" | "hrs", _) => format!("{number}h"),
        ("us" | "ns", _) => {
            let constructor = if unit == "us" { "from_micros" } else { "from_nanos" };
            format!("Duration::{constructor}({number})")
        }
        _ => "30s".to_owned(),
    };
    errors.at(literal.span(), format!("a duration has one unit, `ms`, `s`, `m` or `h`: write `{advice}`"));
}

/// Splits a number from its suffix.
fn number_and_unit(text: &str) -> Option<(&str, &str)> {
    let is_decimal = text.starts_with(|char: char| char.is_ascii_digit())
        && !["0x", "0b", "0o"].iter().any(|prefix| text.starts_with(prefix));
    let start = text.find(|char: char| char.is_ascii_alphabetic())?;
    is_decimal.then(|| text.split_at(start))
}

/// Converts `30s`, `1.5s`, `200ms`, `5m` or `1h` to an expression. Rust's lexer makes one token of a number and its
/// suffix.
fn duration(literal: &Literal) -> Option<TokenStream> {
    let text = literal.to_string();
    let (number, unit) = number_and_unit(&text)?;
    let nanos_per_unit: u64 = match unit {
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    };
    let number = number.replace('_', "");
    let (whole, fraction) = number.split_once('.').unwrap_or((&number, ""));
    let mut nanos = whole.parse::<u64>().ok()?.checked_mul(nanos_per_unit)?;
    let mut nanos_per_digit = nanos_per_unit;
    for digit in fraction.chars() {
        nanos_per_digit /= 10;
        nanos = nanos.checked_add(u64::from(digit.to_digit(10)?) * nanos_per_digit)?;
    }
    let nanos = Literal::u64_suffixed(nanos);
    // rustc derives the span of an expression from its first and last token, and ignores parentheses there. With a `*`
    // in front, errors about the expression are reported at the literal.
    let expression = parenthesized(literal.span(), quote!(&::core::time::Duration::from_nanos(#nanos)));
    Some(quote_spanned!(literal.span()=> *#expression))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nanos(text: &str) -> Option<String> {
        duration(&text.parse().expect("a literal")).map(|tokens| tokens.to_string())
    }

    #[test]
    fn durations_are_numbers_with_a_unit() {
        let from_nanos = |nanos: &str| Some(format!("* (& :: core :: time :: Duration :: from_nanos ({nanos}u64))"));
        assert_eq!(nanos("30s"), from_nanos("30000000000"));
        assert_eq!(nanos("1.5s"), from_nanos("1500000000"));
        assert_eq!(nanos("200ms"), from_nanos("200000000"));
        assert_eq!(nanos("1_000ms"), from_nanos("1000000000"));
        assert_eq!(nanos("5m"), from_nanos("300000000000"));
        assert_eq!(nanos("1h"), from_nanos("3600000000000"));
        assert_eq!(nanos("0s"), from_nanos("0"));
    }

    #[test]
    fn other_literals_are_left_to_rustc() {
        assert_eq!(nanos("50"), None);
        assert_eq!(nanos("30x"), None);
        assert_eq!(nanos("1u8"), None);
        assert_eq!(nanos("99999999999999h"), None);
    }
}
