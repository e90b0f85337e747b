//! A parsed file becomes settings: one function per part of the file, every error noted.

mod domain;
mod listeners;
mod partner;
mod rest;
mod streams;

#[cfg(test)]
mod tests;

use std::{
    cell::{Cell, RefCell},
    path::{Path, PathBuf},
};

use tombolo_net::{FileFault, FileProblem, FileRole};
use toml::de::DeTable;

use crate::{
    error::{ConfigError, Reason, Severity, Source},
    files::Files,
    section::Section,
    settings::{CertificateFiles, Role, Settings, Trust},
};

/// What all parts share.
pub(crate) struct Context<'a> {
    pub(crate) errors: RefCell<Vec<ConfigError>>,
    /// `None` until it is read, and where it is wrong: then nothing is refused for the role.
    pub(crate) role: Cell<Option<Role>>,
    files: &'a dyn Files,
    /// Where relative paths begin.
    base: PathBuf,
}

impl<'a> Context<'a> {
    /// Without a role every key has its place.
    pub(crate) fn new(file_name: &str, files: &'a dyn Files) -> Self {
        let base = Path::new(file_name).parent().unwrap_or(Path::new("")).to_owned();
        Self { errors: RefCell::default(), role: Cell::new(None), files, base }
    }

    /// A path as a setting names it, complete.
    fn path(&self, text: &str) -> PathBuf {
        self.base.join(text)
    }

    /// The path of a file that must be there.
    fn file(&self, section: &Section<'_>, key: &'static str) -> Option<PathBuf> {
        let found = section.text(key)?;
        let path = self.path(found.value);
        if !self.files.is_file(&path) {
            let reason = Reason::MissingFile {
                key: section.path(key),
                path: path.display().to_string(),
                problem: "is no readable file",
            };
            section.error(found.span, reason, crate::described::accepted(section.name(), key));
        }
        Some(path)
    }

    /// `certificate` and `key` of a section: both or, where they are not `needed`, neither. They should prove `domain`.
    fn certificate(
        &self,
        section: &Section<'_>,
        needed: bool,
        domain: Option<&str>,
    ) -> Option<CertificateFiles> {
        let (has_certificate, has_key) = (section.has("certificate"), section.has("key"));
        let before = self.errors.borrow().len();
        let (certificate, key) = (self.file(section, "certificate"), self.file(section, "key"));
        let are_there = self.errors.borrow().len() == before;
        for (is_there, name) in [(has_certificate, "certificate"), (has_key, "key")] {
            if !is_there && (needed || has_certificate || has_key) {
                section.missing(name);
            }
        }
        let files = CertificateFiles { certificate: certificate?, key: key? };
        if are_there {
            self.note_file_faults(section, &self.files.pair_faults(&files.certificate, &files.key, domain));
        }
        Some(files)
    }

    /// `trust`: the word `system`, or a file.
    fn trust(&self, section: &Section<'_>) -> Option<Trust> {
        if section.text("trust")?.value == "system" {
            return Some(Trust::System);
        }
        self.trust_file(section).map(Trust::File)
    }

    /// `trust`, which is a file.
    fn trust_file(&self, section: &Section<'_>) -> Option<PathBuf> {
        let before = self.errors.borrow().len();
        let path = self.file(section, "trust")?;
        if self.errors.borrow().len() == before {
            self.note_file_faults(section, &self.files.trust_faults(&path));
        }
        Some(path)
    }

    fn note_file_faults(&self, section: &Section<'_>, faults: &[FileFault]) {
        for fault in faults {
            let key = match fault.file {
                FileRole::Certificate => "certificate",
                FileRole::Key => "key",
                FileRole::Trust => "trust",
            };
            let severity = match &fault.problem {
                _ if fault.prevents_use() => Severity::Error,
                FileProblem::NoAuthority { .. } => Severity::Advice,
                _ => Severity::Problem,
            };
            let reason = Reason::File {
                key: section.path(key),
                path: fault.path.display().to_string(),
                problem: fault.text(),
            };
            let span = section.value_span(key).unwrap_or_else(|| section.span.clone());
            section.note(severity, span, reason, crate::described::accepted(section.name(), key));
        }
    }
}

/// Parses a text into its table, or notes why it is no TOML.
///
/// A text with a syntax error is not looked into: what the parser guessed would be blamed on the writer.
pub(crate) fn table<'a>(source: &'a Source, context: &Context<'_>) -> Option<DeTable<'a>> {
    let (table, faults) = DeTable::parse_recoverable(&source.text);
    if faults.is_empty() {
        return Some(table.into_inner());
    }
    // What the parser finds behind the first fault is mostly a consequence of it.
    if let Some(fault) = faults.first() {
        let span = fault.span().unwrap_or(0..0);
        let error = match single_brackets(&source.text, span.start) {
            Some((name, at)) => {
                let line = source.place(at).0;
                source.error(
                    at..at + name.len() + 2,
                    Reason::SingleBrackets { name, line },
                    format!("[[{name}]]").into(),
                )
            }
            None => {
                source.error(span, Reason::Syntax { cause: fault.message().to_owned() }, "TOML 1.0".into())
            }
        };
        context.errors.borrow_mut().push(error);
    }
    None
}

/// The header `[name]` of an entry that is written `[[name]]`, where the line of `at` or one before it has one.
///
/// TOML takes the second `[domain]` for a repetition of the first; what is wrong is the first.
fn single_brackets(text: &str, at: usize) -> Option<(&'static str, usize)> {
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        if start > at {
            break;
        }
        let header = line.split('#').next().unwrap_or_default().trim();
        let name = header.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).map(str::trim);
        if let Some(name) = ENTRIES.into_iter().find(|entry| Some(*entry) == name) {
            return Some((name, start + line.find('[').unwrap_or(0)));
        }
        start += line.len();
    }
    None
}

/// Tables of which a file may have several.
const ENTRIES: [&str; 3] = ["domain", "partner", "account"];

/// Settings that a process can start with, and what was found that does not keep it from starting.
#[derive(Debug, Clone)]
pub struct Checked {
    /// The settings.
    pub settings: Settings,
    /// Problems and advice, in the order of the places.
    pub findings: Vec<ConfigError>,
}

/// Checks a whole file, with the partner files that it names. `role` goes before the file's own.
///
/// The error holds everything that was found, when something among it prevents the start.
pub(crate) fn check(
    text: &str,
    file_name: &str,
    role: Option<Role>,
    files: &dyn Files,
) -> Result<Checked, Vec<ConfigError>> {
    let source = Source::new(file_name, text);
    let context = Context::new(file_name, files);
    let settings = table(&source, &context)
        .and_then(|table| read(&Section::new("", &table, 0..0, &source, &context), role, &context));
    let mut errors = context.errors.into_inner();
    // The main file first, then the others in the order in which they were read.
    let order: Vec<_> = errors.iter().map(|error| error.file.clone()).collect();
    let place = |error: &ConfigError| {
        let file = order.iter().position(|file| *file == error.file);
        (error.file != source.name, file, error.line, error.column)
    };
    errors.sort_by_key(place);
    match settings {
        Some(settings) if errors.iter().all(|error| error.severity < Severity::Error) => {
            Ok(Checked { settings, findings: errors })
        }
        _ => Err(errors),
    }
}

/// Reads every part; `None` when a part without which nothing can be built is wrong, which is then noted.
fn read(top: &Section<'_>, role: Option<Role>, context: &Context<'_>) -> Option<Settings> {
    let written = top.word("role", Role::WORDS);
    let role = match (role, written) {
        (Some(role), _) => Some(role),
        (None, Some(found)) => Some(found.value),
        (None, None) if top.has("role") => None,
        (None, None) => Some(Role::AllInOne),
    };
    context.role.set(role);
    let data_dir = context.path(top.text("data_dir").map_or("tombolo-data", |found| found.value));

    let mut claims = domain::Claims::default();
    let (xmpp, ping_after) = streams::xmpp(top, context);
    let sip = streams::sip(top, xmpp.trust.clone(), context);
    let speaks_tls = sip.listen.iter().any(|listen| listen.transport == tombolo_policy::SipTransport::Tls);
    let domains = domain::domains(top, speaks_tls, &mut claims, context);
    let partners = partner::partners(top, &mut claims, context);
    let link = rest::link(top, context);
    let store = rest::store(top, &data_dir, context);
    let accounts = rest::accounts(top, &data_dir, context);
    let (dns, admin, log) = (rest::dns(top), rest::admin(top), rest::log(top));
    let memory = crate::memory::memory(top);
    listeners::each_once(top);
    top.finish();

    let role = role?;
    Some(Settings {
        role,
        data_dir,
        domains,
        xmpp: (role != Role::Gateway).then_some(xmpp),
        ping_after,
        sip: (role != Role::Edge).then_some(sip),
        partners,
        dns,
        link,
        store: (role != Role::Edge).then_some(store),
        accounts: (role != Role::Edge).then_some(accounts),
        memory,
        admin,
        log,
    })
}
