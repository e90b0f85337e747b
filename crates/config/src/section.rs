//! One table of a file, read key by key; whatever is wrong is noted and reading goes on.
//!
//! Which keys a section has stands in `described`. A key that is not there is unknown; a described key that nobody asks
//! for is a mistake of ours, which debug builds catch.

use std::{borrow::Cow, cell::RefCell, fmt::Display, ops::Range, ops::RangeInclusive, time::Duration};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::{
    check::Context,
    described,
    error::{Reason, Severity, Source},
    settings::Role,
};

/// One table of a file.
pub(crate) struct Section<'a> {
    name: &'static str,
    table: &'a DeTable<'a>,
    /// The header, or the whole value of an inline table.
    pub(crate) span: Range<usize>,
    pub(crate) source: &'a Source,
    context: &'a Context<'a>,
    asked: RefCell<Vec<&'static str>>,
}

/// A value and where it stands.
#[derive(Clone)]
pub(crate) struct Found<T> {
    pub(crate) value: T,
    pub(crate) span: Range<usize>,
}

/// The elements of a list that could be read.
pub(crate) struct List<T> {
    pub(crate) items: Vec<Found<T>>,
    /// Nothing was left out, so an empty list stands in the file as an empty list.
    pub(crate) is_whole: bool,
}

impl<T> List<T> {
    /// The values alone.
    pub(crate) fn into_values(self) -> Vec<T> {
        self.items.into_iter().map(|found| found.value).collect()
    }
}

impl<T> Found<T> {
    fn map<U>(self, map: impl FnOnce(T) -> U) -> Found<U> {
        Found { value: map(self.value), span: self.span }
    }
}

impl<'a> Section<'a> {
    /// The table of `name`, which `described` knows.
    pub(crate) fn new(
        name: &'static str,
        table: &'a DeTable<'a>,
        span: Range<usize>,
        source: &'a Source,
        context: &'a Context<'a>,
    ) -> Self {
        Self { name, table, span, source, context, asked: RefCell::default() }
    }

    /// Its name, as `described` knows it.
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// Notes an error at `span`.
    pub(crate) fn error(&self, span: Range<usize>, reason: Reason, accepted: impl Into<Cow<'static, str>>) {
        self.context.errors.borrow_mut().push(self.source.error(span, reason, accepted.into()));
    }

    /// Notes something of another severity.
    pub(crate) fn note(
        &self,
        severity: Severity,
        span: Range<usize>,
        reason: Reason,
        accepted: impl Into<Cow<'static, str>>,
    ) {
        let error = self.source.error(span, reason, accepted.into()).with_severity(severity);
        self.context.errors.borrow_mut().push(error);
    }

    /// `section.key`, as it is shown.
    pub(crate) fn path(&self, key: &str) -> String {
        described::path(self.name, key)
    }

    /// True when the key stands in the table and has its place there, whatever its value.
    pub(crate) fn has(&self, key: &'static str) -> bool {
        self.value(key).is_some()
    }

    /// The span of a key's value.
    pub(crate) fn value_span(&self, key: &'static str) -> Option<Range<usize>> {
        self.value(key).map(|value| value.span())
    }

    fn value(&self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.asked.borrow_mut().push(key);
        self.has_place(key).then(|| self.table.get(key)).flatten()
    }

    /// False for a key of another role.
    fn has_place(&self, key: &str) -> bool {
        self.context.role.get().is_none_or(|role| described::roles(self.name, key).contains(&role))
    }

    fn wrong_type(&self, key: &str, value: &Spanned<DeValue<'_>>, accepted: impl Into<Cow<'static, str>>) {
        let found = value.get_ref().type_str();
        self.error(value.span(), Reason::WrongType { key: self.path(key), found }, accepted);
    }

    /// Notes that `key` is missing, at the section's beginning; not where the role has no such key or is not known.
    pub(crate) fn missing(&self, key: &str) {
        let is_for_some = described::roles(self.name, key).len() < Role::WORDS.len();
        if !self.has_place(key) || (is_for_some && self.context.role.get().is_none()) {
            return;
        }
        let accepted = described::accepted(self.name, key);
        self.error(self.span.clone(), Reason::MissingKey { key: self.path(key) }, accepted);
    }

    /// Notes that the value of `key` is none of the accepted.
    pub(crate) fn bad_value(&self, key: &str, span: Range<usize>, value: &str) {
        let accepted = described::accepted(self.name, key);
        self.error(span, Reason::BadValue { key: self.path(key), value: value.to_owned() }, accepted);
    }

    /// A text.
    pub(crate) fn text(&self, key: &'static str) -> Option<Found<&'a str>> {
        let value = self.value(key)?;
        match value.get_ref() {
            DeValue::String(text) => Some(Found { value: text, span: value.span() }),
            _ => {
                self.wrong_type(key, value, described::accepted(self.name, key));
                None
            }
        }
    }

    /// True or false.
    pub(crate) fn boolean(&self, key: &'static str) -> Option<Found<bool>> {
        let value = self.value(key)?;
        let found = value.get_ref().as_bool().map(|value_is| Found { value: value_is, span: value.span() });
        if found.is_none() {
            self.wrong_type(key, value, described::accepted(self.name, key));
        }
        found
    }

    /// A whole number in a range.
    pub(crate) fn number(&self, key: &'static str, range: RangeInclusive<u64>) -> Option<u64> {
        let value = self.value(key)?;
        let example = described::number_example(self.name, key);
        let accepted = format!("a whole number from {} to {}{example}", range.start(), range.end());
        let DeValue::Integer(integer) = value.get_ref() else {
            self.wrong_type(key, value, accepted);
            return None;
        };
        let number =
            u64::from_str_radix(integer.as_str(), integer.radix()).ok().filter(|n| range.contains(n));
        if number.is_none() {
            let value_is = integer.as_str().to_owned();
            self.error(value.span(), Reason::OutOfRange { key: self.path(key), value: value_is }, accepted);
        }
        number
    }

    /// A span of time, `500ms`, `30s`, `10m` or `8h`, in a range.
    pub(crate) fn span_of_time(
        &self,
        key: &'static str,
        range: RangeInclusive<Duration>,
    ) -> Option<Duration> {
        let found = self.text(key)?;
        let Some(duration) = duration(found.value) else {
            self.bad_value(key, found.span, found.value);
            return None;
        };
        if !range.contains(&duration) {
            let value = found.value.to_owned();
            let accepted = described::accepted(self.name, key);
            self.error(found.span, Reason::OutOfRange { key: self.path(key), value }, accepted);
            return None;
        }
        Some(duration)
    }

    /// A text that `read` understands; its error says nothing more than the list of what is accepted.
    pub(crate) fn parsed<T, E: Display>(
        &self,
        key: &'static str,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<Found<T>> {
        let found = self.text(key)?;
        match read(found.value) {
            Ok(value) => Some(found.map(|_| value)),
            Err(_) => {
                self.bad_value(key, found.span, found.value);
                None
            }
        }
    }

    /// One of several words.
    pub(crate) fn word<T: Copy>(&self, key: &'static str, words: &[(&str, T)]) -> Option<Found<T>> {
        self.parsed(key, |text| one_of(text, words).ok_or("no such word"))
    }

    /// A list of texts that `read` understands. `None` when the key is absent or no list; elements that are wrong are
    /// noted and left out, and so is the repetition of one.
    pub(crate) fn list<T: PartialEq, E: Display>(
        &self,
        key: &'static str,
        read: impl Fn(&str) -> Result<T, E>,
    ) -> Option<List<T>> {
        let value = self.value(key)?;
        let DeValue::Array(elements) = value.get_ref() else {
            self.wrong_type(key, value, format!("a list of: {}", described::accepted(self.name, key)));
            return None;
        };
        let mut items: Vec<Found<T>> = Vec::new();
        for element in elements.iter() {
            let DeValue::String(text) = element.get_ref() else {
                self.wrong_type(key, element, described::accepted(self.name, key));
                continue;
            };
            match read(text) {
                Ok(value) if items.iter().any(|known| known.value == value) => {
                    let reason = Reason::Repeated { key: self.path(key), value: text.to_string() };
                    self.error(element.span(), reason, "each value once");
                }
                Ok(value) => items.push(Found { value, span: element.span() }),
                Err(_) => self.bad_value(key, element.span(), text),
            }
        }
        let is_whole = items.len() == elements.len();
        Some(List { items, is_whole })
    }

    /// A list of words.
    pub(crate) fn words<T: Copy + PartialEq>(
        &self,
        key: &'static str,
        words: &[(&str, T)],
    ) -> Option<List<T>> {
        self.list(key, |text| one_of(text, words).ok_or("no such word"))
    }

    /// The table of `key`, whose section is `name`.
    pub(crate) fn section(&self, key: &'static str, name: &'static str) -> Option<Section<'a>> {
        let value = self.value(key)?;
        let DeValue::Table(table) = value.get_ref() else {
            self.wrong_type(key, value, format!("a table with the keys {}", described::keys(name)));
            return None;
        };
        Some(Section::new(name, table, value.span(), self.source, self.context))
    }

    /// The tables of `key`, written `[[key]]`; empty when there is none.
    pub(crate) fn sections(&self, key: &'static str, name: &'static str) -> Vec<Section<'a>> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let DeValue::Array(elements) = value.get_ref() else {
            match value.get_ref() {
                DeValue::Table(_) if self.source.text[value.span()].starts_with('[') => {
                    let line = self.source.place(value.span().start).0;
                    let reason = Reason::SingleBrackets { name: key, line };
                    self.error(value.span(), reason, format!("[[{key}]]"));
                }
                _ => self.wrong_type(key, value, format!("[[{key}]] tables")),
            }
            return Vec::new();
        };
        let mut sections = Vec::new();
        for element in elements.iter() {
            match element.get_ref() {
                DeValue::Table(table) => {
                    sections.push(Section::new(name, table, element.span(), self.source, self.context));
                }
                _ => self.wrong_type(key, element, format!("[[{key}]] tables")),
            }
        }
        sections
    }

    /// The table of `key` for a second look: nothing is noted, and the key still waits for whoever reads it.
    pub(crate) fn peek_section(&self, key: &'static str, name: &'static str) -> Option<Section<'a>> {
        let value = self.peek(key)?;
        let table = value.get_ref().as_table()?;
        Some(Section::new(name, table, value.span(), self.source, self.context))
    }

    /// The elements of a list that can be read, each once, for a second look.
    pub(crate) fn peek_list<T: PartialEq, E>(
        &self,
        key: &'static str,
        read: impl Fn(&str) -> Result<T, E>,
    ) -> Vec<Found<T>> {
        let elements = self.peek(key).and_then(|value| value.get_ref().as_array());
        let mut all: Vec<Found<T>> = Vec::new();
        for element in elements.into_iter().flat_map(|elements| elements.iter()) {
            if let Some(Ok(value)) = element.get_ref().as_str().map(&read)
                && all.iter().all(|known| known.value != value)
            {
                all.push(Found { value, span: element.span() });
            }
        }
        all
    }

    /// A text, for a second look.
    pub(crate) fn peek_text(&self, key: &'static str) -> Option<Found<&'a str>> {
        let value = self.peek(key)?;
        Some(Found { value: value.get_ref().as_str()?, span: value.span() })
    }

    fn peek(&self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.has_place(key).then(|| self.table.get(key)).flatten()
    }

    /// Notes every key that this section does not have, or not in this role.
    pub(crate) fn finish(&self) {
        for key in self.table.keys() {
            let path = self.path(key.get_ref());
            if !described::has(self.name, key.get_ref()) {
                self.error(key.span(), Reason::UnknownKey { key: path }, described::keys(self.name));
            } else if let Some(role) = self.context.role.get()
                && !self.has_place(key.get_ref())
            {
                let accepted =
                    format!("role = {}", described::role_list(described::roles(self.name, key.get_ref())));
                self.error(key.span(), Reason::NotInRole { key: path, role: role.as_str() }, accepted);
            }
        }
        let asked = self.asked.borrow();
        debug_assert!(
            described::keys_of(self.name).all(|key| asked.contains(&key)),
            "nobody reads some setting of [{}]",
            self.name
        );
    }
}

fn one_of<T: Copy>(text: &str, words: &[(&str, T)]) -> Option<T> {
    words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value)
}

/// Reads a whole number with `ms`, `s`, `m` or `h` behind it; `0` needs none.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let digits_end = text.find(|character: char| !character.is_ascii_digit())?;
    let number: u64 = text[..digits_end].parse().ok()?;
    let milliseconds = match &text[digits_end..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number.checked_mul(milliseconds).map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_of_time_have_a_unit() {
        for (text, milliseconds) in
            [("0", 0), ("500ms", 500), ("30s", 30_000), ("10m", 600_000), ("8h", 28_800_000)]
        {
            assert_eq!(duration(text), Some(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in
            ["", "5", "s", "-1s", "1.5s", "1 s", "1d", "99999999999999999999s", "18446744073709551615h"]
        {
            assert_eq!(duration(text), None, "{text}");
        }
    }
}
