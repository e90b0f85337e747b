//! TOML text to checked settings of every component.
//!
//! A file goes in; [`Settings`] that hold only valid values come out, or every error in it with file, line, column, the
//! reason and what is accepted. Nothing behind this crate reads a setting as text.

mod account_lines;
mod accounts;
mod check;
mod defaults;
mod described;
mod differences;
mod error;
mod files;
mod forms;
mod memory;
mod section;
mod settings;

use std::{path::Path, time::Duration};

pub use account_lines::{TakenOut, take_out_account};
pub use accounts::{Account, AccountError, Accounts, Hashes};
pub use check::Checked;
pub use defaults::embedded_defaults;
pub use described::{Setting, markdown, settings};
pub use differences::Difference;
pub use error::{ConfigError, Reason, Severity, report};
pub use memory::MemorySettings;
pub use settings::{
    AccountSettings, AdminSettings, CertificateFiles, DigestAlgorithm, DnsSettings, DomainSettings, LinkEnd,
    LinkSettings, LogFormat, LogLevel, LogSettings, Role, Settings, SipLimits, SipListen, SipSettings,
    StoreSettings, Trust, XmppLimits, XmppSettings,
};

/// Reads and checks a settings file, the partner files that it names, and the certificates and keys.
///
/// `role` goes before the file's own (`tombolo run --role`); `now` is the wall time since the Unix epoch. Relative paths
/// are relative to the file's directory. The error holds everything that was found, in the order of the files and of the
/// places in them, when something among it prevents the start.
pub fn load(path: &Path, role: Option<Role>, now: Duration) -> Result<Checked, Vec<ConfigError>> {
    let file_name = path.display().to_string();
    match std::fs::read_to_string(path) {
        Ok(text) => check::check(&text, &file_name, role, &files::Disk { now }),
        Err(error) => Err(vec![ConfigError::unreadable(&file_name, &error)]),
    }
}

/// What a fuzzer calls: any bytes as a settings file and as an accounts file, on a disk where every file exists and is
/// empty. Panics only when the checker is wrong.
pub fn fuzz_body(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = accounts::parse(text, "fuzz.toml");
    match check::check(text, "fuzz.toml", None, &files::AllThere) {
        Ok(checked) => {
            checked.settings.policy_table(1);
        }
        Err(errors) => {
            assert!(!errors.is_empty(), "refused without an error");
            for error in &errors {
                assert!(error.line >= 1 && error.column >= 1);
            }
            // Each picture reads the text again: a few are enough.
            report(&errors[..errors.len().min(4)]);
        }
    }
}
