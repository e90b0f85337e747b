//! What is wrong in a file of settings, where, and what would be right.

use std::{borrow::Cow, fmt, ops::Range, sync::Arc};

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode};

/// One error in a file of settings. Shown as `file:line:column: reason; accepted: ...`.
#[derive(Clone)]
pub struct ConfigError {
    /// The file, as it was named to us.
    pub file: Arc<str>,
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub reason: Reason,
    /// What would be right.
    pub accepted: Cow<'static, str>,
    /// Whether it keeps the process from starting.
    pub severity: Severity,
    span: Range<usize>,
    source: NamedSource<Arc<str>>,
}

/// What follows from something that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth a look; nothing fails because of it.
    Advice,
    /// The process starts, but something will not work. `check` fails, `run` warns.
    Problem,
    /// The process cannot start.
    Error,
}

/// What is wrong. Variants carry the words of the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// The text is no TOML.
    #[error("this is not TOML: {cause}")]
    Syntax {
        /// What the parser says.
        cause: String,
    },
    /// The file cannot be read.
    #[error("the file cannot be read: {cause}")]
    Unreadable {
        /// What the system says.
        cause: String,
    },
    /// There is no such setting.
    #[error("unknown key `{key}`")]
    UnknownKey {
        /// The key with its section.
        key: String,
    },
    /// A setting that has no default is missing.
    #[error("missing key `{key}`")]
    MissingKey {
        /// The key with its section.
        key: String,
    },
    /// A value of another type.
    #[error("`{key}` is of type {found}")]
    WrongType {
        /// The key with its section.
        key: String,
        /// The type that stands there.
        found: &'static str,
    },
    /// A value that is not one of the accepted.
    #[error("`{key}` cannot be {value:?}")]
    BadValue {
        /// The key with its section.
        key: String,
        /// What stands there.
        value: String,
    },
    /// A number or span out of its range.
    #[error("`{key}` = {value} is out of range")]
    OutOfRange {
        /// The key with its section.
        key: String,
        /// What stands there.
        value: String,
    },
    /// The same value twice in one list.
    #[error("`{key}` lists {value:?} twice")]
    Repeated {
        /// The key with its section.
        key: String,
        /// The value.
        value: String,
    },
    /// A file or directory that is named and not there.
    #[error("`{key}` names {path}, which {problem}")]
    MissingFile {
        /// The key with its section.
        key: String,
        /// The whole path.
        path: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A file of certificates or keys that is there and is not right.
    #[error("`{key}` names {path}: {problem}")]
    File {
        /// The key with its section.
        key: String,
        /// The whole path.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Files of a directory of partners that are not read.
    #[error("not read, since their names do not end in .toml: {files}")]
    IgnoredFiles {
        /// Their names.
        files: String,
    },
    /// Two listeners of one address and port.
    #[error("{listener} is already taken by the listener at {first}")]
    ListenerTwice {
        /// The second one.
        listener: String,
        /// Where the first one stands, as file:line:column.
        first: String,
    },
    /// `[name]` where each entry is written `[[name]]`.
    #[error("[{name}] at line {line} needs two brackets: [[{name}]]")]
    SingleBrackets {
        /// The table.
        name: &'static str,
        /// Where it stands.
        line: usize,
    },
    /// Two entries claim one domain.
    #[error("{domain} is already claimed by the {owner} at {first}")]
    DomainTaken {
        /// The domain, or `*.` and the domain.
        domain: String,
        /// `domain` or `partner`.
        owner: &'static str,
        /// Where the first claim stands, as file:line:column.
        first: String,
    },
    /// A partner that can prove itself by nothing.
    #[error("partner {partner} has no usable authentication method")]
    NoMethod {
        /// The partner's domain.
        partner: String,
    },
    /// Dialback in clear without the explicit flag.
    #[error("partner {partner} allows plain-dialback, which anybody on the path can forge")]
    PlainDialback {
        /// The partner's domain.
        partner: String,
    },
    /// Phones that may prove themselves by nothing.
    #[error("phones have nothing to prove their password by")]
    NoDigest,
    /// A UDP listener without a TCP one at its address and port.
    #[error("{listener} takes datagrams, and what is too large for one has no way in")]
    UdpAlone {
        /// The listener.
        listener: String,
    },
    /// A front end without TLS and without the explicit flag.
    #[error("the next hop of {domain} is reached without TLS")]
    ClearNextHop {
        /// The local domain.
        domain: String,
    },
    /// A front end without TLS that names no trusted address.
    #[error("the front end of {domain} may speak without TLS and nothing says from where")]
    NoTrustedAddress {
        /// The local domain.
        domain: String,
    },
    /// A setting of another role.
    #[error("`{key}` has no place in role {role}")]
    NotInRole {
        /// The key with its section.
        key: String,
        /// The role of this file.
        role: &'static str,
    },
    /// A key that means nothing beside another.
    #[error("`{key}` means nothing beside {other}")]
    NotBeside {
        /// The key with its section.
        key: String,
        /// The other setting.
        other: &'static str,
    },
    /// A name or hash that is there twice.
    #[error("there is already an account {aor}, at {first}")]
    AccountTwice {
        /// The address.
        aor: String,
        /// Where the first one stands, as file:line:column.
        first: String,
    },
    /// An account without anything to prove it by.
    #[error("account {aor} has no hash of a password")]
    NoHash {
        /// The address.
        aor: String,
    },
    /// An administration listener that others can reach.
    #[error(
        "`{key}` = {value:?} can be reached from other machines, and whoever reaches it is an administrator"
    )]
    ExposedAdmin {
        /// The key with its section.
        key: String,
        /// What stands there.
        value: String,
    },
}

impl ConfigError {
    /// The whole file cannot be read.
    pub(crate) fn unreadable(file: &str, error: &std::io::Error) -> Self {
        let source = Source::new(file, "");
        source.error(
            0..0,
            Reason::Unreadable { cause: error.to_string() },
            "a readable file of UTF-8 text".into(),
        )
    }

    /// The same as something that does not keep the process from starting.
    pub(crate) fn with_severity(self, severity: Severity) -> Self {
        Self { severity, ..self }
    }

    /// The error with the lines of the file around it, for people, without colours.
    pub fn snippet(&self) -> String {
        let mut text = String::new();
        let handler = GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor()).with_width(110);
        // Writing to a string fails only where the diagnostic is inconsistent; the plain line says the same.
        if handler.render_report(&mut text, self).is_err() {
            text = self.to_string();
        }
        text
    }
}

/// All errors for people: one line each in the form that editors jump to, then the places in the text.
pub fn report(errors: &[ConfigError]) -> String {
    let mut text = String::new();
    for error in errors {
        text.push_str(&error.to_string());
        text.push('\n');
    }
    for error in errors {
        text.push('\n');
        text.push_str(&error.snippet());
    }
    text
}

impl fmt::Display for ConfigError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, column, reason, accepted, .. } = self;
        write!(out, "{file}:{line}:{column}: {reason}; accepted: {accepted}")
    }
}

impl fmt::Debug for ConfigError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

impl std::error::Error for ConfigError {}

impl Diagnostic for ConfigError {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(format!("accepted: {}", self.accepted)))
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(&self.source)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let label = LabeledSpan::new(Some("here".into()), self.span.start, self.span.len());
        Some(Box::new(std::iter::once(label)))
    }
}

/// One file: its name and text, and how an offset is told to people.
pub(crate) struct Source {
    pub(crate) name: Arc<str>,
    pub(crate) text: Arc<str>,
    /// Where each line begins.
    lines: Vec<usize>,
}

impl Source {
    pub(crate) fn new(name: &str, text: &str) -> Self {
        let ends = text.match_indices('\n').map(|(at, _)| at + 1);
        Self { name: name.into(), text: text.into(), lines: std::iter::once(0).chain(ends).collect() }
    }

    /// Line and column of an octet offset, both from 1; the column counts characters.
    pub(crate) fn place(&self, offset: usize) -> (usize, usize) {
        let mut offset = offset.min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        let line = self.lines.partition_point(|begin| *begin <= offset);
        let begin = line.checked_sub(1).map_or(0, |at| self.lines[at]);
        (line, self.text[begin..offset].chars().count() + 1)
    }

    /// `file:line:column` of an octet offset.
    pub(crate) fn place_text(&self, offset: usize) -> String {
        let (line, column) = self.place(offset);
        format!("{}:{line}:{column}", self.name)
    }

    pub(crate) fn error(
        &self,
        span: Range<usize>,
        reason: Reason,
        accepted: Cow<'static, str>,
    ) -> ConfigError {
        let (line, column) = self.place(span.start);
        let start = span.start.min(self.text.len());
        let span = start..span.end.clamp(start, self.text.len());
        let source = NamedSource::new(&*self.name, self.text.clone());
        let severity = Severity::Error;
        ConfigError { file: self.name.clone(), line, column, reason, accepted, severity, span, source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters_and_lines_begin_at_one() {
        let source = Source::new("f.toml", "a = 1\nüü = 2\n");
        for (offset, place) in
            [(0, (1, 1)), (4, (1, 5)), (6, (2, 1)), (10, (2, 3)), (11, (2, 4)), (999, (3, 1))]
        {
            assert_eq!(source.place(offset), place, "offset {offset}");
        }
        assert_eq!(source.place(7), (2, 1), "inside a character is its beginning");
    }

    #[test]
    fn an_error_is_one_line_and_a_picture() {
        let source = Source::new("f.toml", "role = \"edge\"\nroll = 1\n");
        let reason = Reason::UnknownKey { key: "roll".into() };
        let error = source.error(14..18, reason, "role, data_dir".into());
        assert_eq!(error.to_string(), "f.toml:2:1: unknown key `roll`; accepted: role, data_dir");
        let picture = error.snippet();
        for part in ["[f.toml:2:1]", "roll = 1", "accepted: role, data_dir"] {
            assert!(picture.contains(part), "{part} in {picture}");
        }
        assert!(!picture.contains('\u{1b}'), "no colours");
    }
}
