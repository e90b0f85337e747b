//! Takes accounts out of the text of an accounts file by exactly the address that stands there.
//!
//! Works on files that [`Accounts::load`] refuses: one address that nobody can have must not need an editor. In: the path
//! and the address as written. Out: how many accounts were taken out, and what the file holds now.

use std::{io, path::Path};

use crate::{
    accounts::{Accounts, parse, replace},
    error::ConfigError,
};

/// What was taken out of an accounts file.
#[derive(Debug)]
pub struct TakenOut {
    /// How many accounts stood under the address; the file is as it was where this is 0.
    pub count: usize,
    /// The accounts that are left, or what else is wrong in the file.
    pub left: Result<Accounts, Vec<ConfigError>>,
}

/// Takes out each account whose `aor` is `written`, octet by octet.
///
/// # Errors
/// When the file is no TOML, or cannot be read or written; then it is as it was.
pub fn take_out_account(path: &Path, written: &str) -> io::Result<TakenOut> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path)
        .map_err(|error| io::Error::new(error.kind(), format!("{name}: {error}")))?;
    let mut table: toml::Table = text.parse().map_err(|_| {
        // The checker says it with its place.
        let errors = parse(&text, &name).err().unwrap_or_default();
        io::Error::other(
            errors.first().map_or_else(|| format!("{name}: this is not TOML"), ToString::to_string),
        )
    })?;
    let mut count = 0;
    if let Some(toml::Value::Array(accounts)) = table.get_mut("account") {
        let before = accounts.len();
        accounts.retain(|account| account.get("aor").and_then(toml::Value::as_str) != Some(written));
        count = before - accounts.len();
    }
    if count == 0 {
        return Ok(TakenOut { count, left: parse(&text, &name) });
    }
    let text = toml::to_string(&table).map_err(io::Error::other)?;
    replace(path, &text).map_err(|error| io::Error::new(error.kind(), format!("{name}: {error}")))?;
    Ok(TakenOut { count, left: parse(&text, &name) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MD5: &str = "00112233445566778899aabbccddeeff";

    fn file(name: &str, addresses: &[&str]) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("tombolo-lines-{}-{name}.toml", std::process::id()));
        let account = |aor: &&str| format!("[[account]]\naor = \"{aor}\"\nha1_md5 = \"{MD5}\"\n");
        std::fs::write(&path, addresses.iter().map(account).collect::<String>()).expect("written");
        path
    }

    #[test]
    fn an_address_that_nobody_can_have_is_taken_out_as_the_error_says_and_the_rest_stays() {
        let path = file("bad", &["alice@sip.localhost", "x/y@sip.localhost", "o'♚@sip.localhost"]);
        let errors = Accounts::load(&path).expect_err("unreadable");
        let told: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let remedy = |quoted: &str| format!("tombolo user remove {quoted} --file {}", path.display());
        assert!(told[0].ends_with(&remedy("'x/y@sip.localhost'")), "{told:?}");
        assert!(told[1].ends_with(&remedy("'o'\\''♚@sip.localhost'")), "quoted for a shell: {told:?}");

        let taken = take_out_account(&path, "X/Y@sip.localhost").expect("readable");
        assert_eq!(taken.count, 0, "by exactly what stands there");
        let taken = take_out_account(&path, "x/y@sip.localhost").expect("written");
        assert_eq!((taken.count, taken.left.expect_err("one is left").len()), (1, 1));
        let taken = take_out_account(&path, "o'♚@sip.localhost").expect("written");
        let left = taken.left.expect("nothing is wrong any more");
        assert_eq!((taken.count, left.len()), (1, 1));
        assert_eq!(Accounts::load(&path).expect("readable"), left);
    }

    #[test]
    fn a_file_that_is_no_toml_is_left_as_it_is_and_the_error_has_its_place() {
        let path = file("broken", &["alice@sip.localhost"]);
        std::fs::write(&path, "[[account]\naor = 1\n").expect("written");
        let error = take_out_account(&path, "alice@sip.localhost").expect_err("refused").to_string();
        assert!(error.contains(&format!("{}:1:", path.display())), "{error}");
        assert_eq!(std::fs::read_to_string(&path).expect("there"), "[[account]\naor = 1\n");
    }
}
