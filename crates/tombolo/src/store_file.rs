//! Opens the store of a data directory, and refuses to begin an empty one where there must be another.
//!
//! A store that is missing while the keys beside it are there would forget every subscription without a word: partners'
//! servers would be told so, for good. Only a first start, or an order (`--new-store`), begins an empty store.
//!
//! What looks like a first start may be one whose data directory is gone, such as a volume that is not mounted, or one in place
//! of another gateway, whose users' contacts have their grants from there. So a new store is not taken to hold every grant
//! until an administrator says that it does (`tombolo store complete`).

use std::{
    fs,
    io::{self, IsTerminal},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rand::RngExt;
use tombolo_config::StoreSettings;
use tombolo_interwork::rows::{pair_of_key, table};
use tombolo_net::moment;
use tombolo_presence::PARTITIONS;
use tombolo_store::{Declared, Inspection, MemoryStore, RedbOptions, RedbStore, StateStore, StoreError};

use crate::book::file_fault;

/// The file that every start of a gateway leaves beside its store.
pub const KEY_FILE: &str = "token.key";
/// Holds the id of the store that belongs to the data directory, in 16 hexadecimal digits.
const ID_FILE: &str = "store.id";

/// Opens the store that the settings name; `sizes` says how much memory it may take. Only a store of a demonstration, which
/// runs without a settings file, is complete from its beginning: nobody can have a grant that it lacks. The error says what
/// is wrong, where, and what to do.
pub fn open(
    settings: Option<&StoreSettings>,
    data_dir: &Path,
    begins_anew: bool,
    is_demonstration: bool,
    sizes: RedbOptions,
) -> Result<Arc<dyn StateStore>, String> {
    let was_used = data_dir.join(KEY_FILE).exists();
    let path = match settings {
        Some(StoreSettings::File(path)) => path,
        Some(StoreSettings::Memory) | None if begins_anew => {
            return Err("--new-store: this process keeps its state in memory and has no store file".into());
        }
        // What an earlier life of the process granted is not known any more.
        Some(StoreSettings::Memory) | None if was_used || !is_demonstration => {
            return Ok(Arc::new(MemoryStore::incomplete()));
        }
        Some(StoreSettings::Memory) | None => return Ok(Arc::new(MemoryStore::new())),
    };
    let is_missing = fs::metadata(path).map_or(true, |file| file.len() == 0);
    if begins_anew && !is_missing {
        return Err(format!("--new-store: {} is there; move it away first", path.display()));
    }
    if is_missing && was_used && !begins_anew {
        return Err(format!(
            "store: {} is missing or empty, but {} shows that it was used before. An empty store would forget every \
             subscription. Put the file back; or, to begin anew without them: tombolo run --new-store",
            path.display(),
            data_dir.join(KEY_FILE).display()
        ));
    }
    let id_file = data_dir.join(ID_FILE);
    if begins_anew {
        remove(&id_file)?;
    }
    let options = RedbOptions {
        new_id: rand::rng().random::<u64>().max(1),
        expected_id: read_id(&id_file)?,
        begins_incomplete: is_missing && (was_used || !is_demonstration),
        ..sizes
    };
    let store = RedbStore::open(path, options).map_err(|error| match error {
        StoreError::Foreign { .. } => format!(
            "store: {error}. Put the right file back; or, to use this one with what it holds, delete {}",
            id_file.display()
        ),
        StoreError::Damaged { cause } => damaged(path, &cause),
        StoreError::Io { cause } => format!(
            "store: {cause}. The store is a file that the user of tombolo may read and write, in a directory where that \
             user may make files"
        ),
        error => format!("store: {error}"),
    })?;
    if options.expected_id.is_none() {
        write_id(&id_file, store.meta().id)?;
    }
    Ok(Arc::new(store))
}

/// A missing or empty file of accounts would end everything that its users agreed on: refused while the store knows such
/// users.
pub fn check_accounts(store: &dyn StateStore, file: &Path, homes: &[String]) -> Result<(), String> {
    let Some(fault) = file_fault(file) else { return Ok(()) };
    let mut known = None;
    let mut visit = |_: u16, key: &[u8], _: &[u8]| {
        let user = pair_of_key(key).map(|(user, _)| user);
        known = known.take().or(user.filter(|user| homes.iter().any(|home| home == user.domain())));
    };
    store.load(0..=PARTITIONS - 1, table::PAIR, &mut visit).map_err(|error| format!("store: {error}"))?;
    match known {
        None => Ok(()),
        Some(user) => Err(format!(
            "accounts: {} is {fault}, but the store holds subscriptions of users of {}. They would all be ended. Put \
             the file back; or, if those users are really gone, make one that holds a comment: # no users",
            file.display(),
            user.domain()
        )),
    }
}

/// What is wrong with a damaged file, and what to do about it.
fn damaged(path: &Path, cause: &str) -> String {
    let path = path.display();
    format!(
        "store: {path} is damaged: {cause}. Put a backup in its place; or look at it with: tombolo store check {path}, \
         and take out what can be read with: tombolo store salvage {path}"
    )
}

/// Prints what is in a store file, and what is damaged. An error when a process could not be started with it.
pub fn check(path: &Path) -> Result<(), String> {
    let found = tombolo_store::check(path).map_err(|error| format!("store: {error}"))?;
    print(path, &found);
    match found.is_sound() {
        true => Ok(()),
        false => Err(damaged(path, &found.faults.join("; "))),
    }
}

/// Puts what can be read of a damaged file in its place.
pub fn salvage(path: &Path) -> Result<(), String> {
    let is_sound = |found: &Inspection| found.is_sound() && found.damaged.is_empty();
    if tombolo_store::check(path).is_ok_and(|found| is_sound(&found)) {
        return Err(format!("{}: is sound; nothing is salvaged", path.display()));
    }
    let (found, old) = tombolo_store::salvage(path).map_err(|error| match error {
        StoreError::Damaged { cause } => format!(
            "store: nothing can be read of {}: {cause}. Put a backup in its place; or begin anew without it: move it \
             away, then tombolo run --new-store",
            path.display()
        ),
        error => format!("store: {error}"),
    })?;
    print(path, &found);
    say!("{} holds what could be read; the damaged file is {}", path.display(), old.display());
    say!(
        "Grants that were lost are not taken back: probes for them stay unanswered, until: tombolo store complete. \
         Next: tombolo run"
    );
    Ok(())
}

/// Declares a store complete if `confirm`, asked when everything that follows was printed, says so.
pub fn complete(path: &Path, confirm: impl FnOnce() -> Result<bool, String>) -> Result<(), String> {
    let failed = |error: StoreError| match error {
        StoreError::Damaged { cause } => damaged(path, &cause),
        StoreError::AlreadyOpen { path } => {
            format!("store: {path} is in use: end its process first: tombolo shutdown")
        }
        error => format!("store: {error}"),
    };
    let found = tombolo_store::check(path).map_err(failed)?;
    if found.is_sound() && found.damaged.is_empty() && !found.has_missing {
        say!("{}: is complete already; nothing was changed", path.display());
        return Ok(());
    }
    print(path, &found);
    say!(
        "Declared complete, the store counts as holding every grant. A contact who has none in it is told so again:\n\
         probes are answered `unsubscribed`, and its server takes our user off its roster for good. Do this only when\n\
         nothing more is to be put back into the store; contacts whose grants were lost must ask again."
    );
    if !confirm()? {
        return Err("nothing was changed".to_owned());
    }
    match tombolo_store::declare_complete(path).map_err(failed)? {
        Declared::Complete => {
            say!("{} is complete from the next start on. Next: tombolo run", path.display())
        }
        Declared::WasComplete => say!("{}: is complete already; nothing was changed", path.display()),
    }
    Ok(())
}

/// Asks at a terminal. Elsewhere nobody can be asked.
pub fn ask_for_yes() -> Result<bool, String> {
    if !io::stdin().is_terminal() {
        return Err("nothing was changed: confirm with --yes".to_owned());
    }
    say!("Type yes to declare it complete:");
    let mut line = String::new();
    io::stdin().read_line(&mut line).map_err(|error| error.to_string())?;
    Ok(line.trim() == "yes")
}

fn print(path: &Path, found: &Inspection) {
    let number =
        |number: Option<u64>| number.map_or_else(|| "unknown".to_owned(), |number| number.to_string());
    let used = found.last_used.map(|at| format!(", in use until {}", moment(Duration::from_secs(at))));
    say!(
        "{}: format {}, {} starts{}",
        path.display(),
        number(found.format),
        number(found.start),
        used.unwrap_or_default()
    );
    for (table, count) in &found.rows {
        say!("  {count:>8} {}", name_of(*table));
    }
    for row in &found.damaged {
        say!("  damaged: {} {}", name_of(row.table), key_text(&row.key));
    }
    if found.set_aside > 0 {
        say!("  {:>8} damaged rows were set aside before", found.set_aside);
    }
    if found.has_missing {
        say!(
            "  rows are known to be missing: the store was begun anew, salvaged or damaged; see: tombolo store complete"
        );
    }
    found.faults.iter().for_each(|fault| say!("  fault: {fault}"));
}

fn name_of(table: u8) -> String {
    match table {
        table::PAIR => "pairs".to_owned(),
        table::NOTIFIER => "dialogs as notifier".to_owned(),
        table::SUBSCRIBER => "dialogs as subscriber".to_owned(),
        table::PUBLICATION => "publications".to_owned(),
        table::VOLATILE => "numbers of dialogs".to_owned(),
        table::BINDING => "registrations".to_owned(),
        other => format!("rows of table {other}"),
    }
}

/// A key as it is best read: addresses as text, numbers as hexadecimal digits.
fn key_text(key: &[u8]) -> String {
    match std::str::from_utf8(key) {
        Ok(text) if key.len() != 8 => text.replace('\0', " "),
        _ => key.iter().map(|octet| format!("{octet:02x}")).collect(),
    }
}

fn read_id(file: &Path) -> Result<Option<u64>, String> {
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("{}: {error}", file.display())),
    };
    u64::from_str_radix(text.trim(), 16).map(Some).map_err(|_| {
        format!("{}: holds no id of a store; delete it to use the store that is there", file.display())
    })
}

/// Whole or not at all, and durable: half an id would keep the next start from its store.
fn write_id(file: &Path, id: u64) -> Result<(), String> {
    let scratch: PathBuf = file.with_extension("id.new");
    let write = || {
        fs::write(&scratch, format!("{id:016x}\n"))?;
        fs::File::open(&scratch)?.sync_all()?;
        fs::rename(&scratch, file)?;
        fs::File::open(file.parent().unwrap_or(Path::new(".")))?.sync_all()
    };
    write().map_err(|error| format!("{}: {error}", file.display()))
}

fn remove(file: &Path) -> Result<(), String> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(format!("{}: {error}", file.display())),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use tombolo_interwork::rows::pair_key;
    use tombolo_presence::Address;
    use tombolo_store::Row;

    use super::*;

    fn open_in(folder: &Path, begins_anew: bool) -> Result<Arc<dyn StateStore>, String> {
        open(
            Some(&StoreSettings::File(folder.join("state.redb"))),
            folder,
            begins_anew,
            true,
            RedbOptions::default(),
        )
    }

    fn refusal(folder: &Path, begins_anew: bool) -> String {
        open_in(folder, begins_anew).err().expect("refused")
    }

    #[test]
    fn a_missing_or_emptied_store_beside_its_keys_is_refused_unless_a_new_one_is_ordered() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path();
        let file = folder.join("state.redb");
        let store = open_in(folder, false).expect("a first start begins a store");
        assert!(store.meta().is_complete);
        store.shutdown().expect("closed");
        fs::write(folder.join(KEY_FILE), [7; 32]).expect("written");
        open_in(folder, false).expect("it is there").shutdown().expect("closed");
        fs::remove_file(&file).expect("removed");
        let error = refusal(folder, false);
        assert!(error.contains("state.redb is missing or empty") && error.contains("--new-store"), "{error}");
        fs::write(&file, "").expect("written");
        refusal(folder, false);
        let store = open_in(folder, true).expect("ordered");
        assert!(!store.meta().is_complete, "it knows that it does not know every grant");
        store.shutdown().expect("closed");
        let error = refusal(folder, true);
        assert!(error.contains("move it away first"), "{error}");
        let store = open_in(folder, false).expect("it is the store from now on");
        assert!(!store.meta().is_complete);
    }

    #[test]
    fn an_empty_store_in_place_of_the_right_one_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path();
        open_in(folder, false).expect("begun").shutdown().expect("closed");
        fs::write(folder.join(KEY_FILE), [7; 32]).expect("written");
        let file = folder.join("state.redb");
        fs::remove_file(&file).expect("removed");
        drop(RedbStore::open(&file, RedbOptions::default()).expect("somebody else begins one"));
        let error = refusal(folder, false);
        assert!(error.contains("another store") && error.contains("store.id"), "{error}");
        fs::remove_file(folder.join(ID_FILE)).expect("removed");
        open_in(folder, false).expect("adopted by order");
    }

    #[test]
    fn a_process_that_remembers_nothing_of_an_earlier_life_does_not_know_every_grant() {
        let folder = tempfile::tempdir().expect("a folder");
        let memory = StoreSettings::Memory;
        let is_complete = || {
            open(Some(&memory), folder.path(), false, true, RedbOptions::default())
                .expect("in memory")
                .meta()
                .is_complete
        };
        assert!(is_complete());
        fs::write(folder.path().join(KEY_FILE), [7; 32]).expect("written");
        assert!(!is_complete());
    }

    #[test]
    fn a_store_that_is_new_is_complete_where_nobody_can_have_a_grant_or_an_administrator_says_so() {
        for is_demonstration in [true, false] {
            let folder = tempfile::tempdir().expect("a folder");
            let file = folder.path().join("state.redb");
            let settings = StoreSettings::File(file.clone());
            let open = || {
                open(Some(&settings), folder.path(), false, is_demonstration, RedbOptions::default())
                    .expect("opens")
            };
            let store = open();
            assert_eq!(store.meta().is_complete, is_demonstration);
            store.shutdown().expect("closed");
            drop(store);
            let store = open();
            assert_eq!(store.meta().is_complete, is_demonstration, "no start makes it so");
            store.shutdown().expect("closed");
            drop(store);
            complete(&file, || Ok(true)).expect("declared");
            assert!(open().meta().is_complete);
        }
    }

    #[test]
    fn a_missing_file_of_accounts_is_refused_while_the_store_knows_users_of_the_home() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("accounts.toml");
        let store = MemoryStore::new();
        let homes = ["sip.example".to_owned()];
        check_accounts(&store, &file, &homes).expect("nobody is known");
        let address = |text| Address::from_prepared(text).expect("legal");
        let key = pair_key(&address("a@sip.example"), &address("b@xmpp.example"));
        store.commit(vec![Row::put(1, table::PAIR, key, vec![1])], 1, Box::new(|_, _| {}));
        let error = check_accounts(&store, &file, &homes).expect_err("refused");
        assert!(error.contains("accounts.toml is missing"), "{error}");
        check_accounts(&store, &file, &["other.example".to_owned()]).expect("a front end's users");
        fs::write(&file, "").expect("written");
        let error = check_accounts(&store, &file, &homes).expect_err("a full disk leaves such a file");
        assert!(error.contains("accounts.toml is empty (0 octets)"), "{error}");
        fs::write(&file, "# no users\n").expect("written");
        check_accounts(&store, &file, &homes).expect("a file with a comment is an order");
    }

    #[test]
    fn a_directory_in_the_place_of_the_store_is_refused_with_its_path_and_the_remedy() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("state.redb");
        fs::create_dir(&path).expect("made");
        fs::write(path.join("file"), "x").expect("written");
        let settings = StoreSettings::File(path.clone());
        let error = open(Some(&settings), folder.path(), false, false, RedbOptions::default()).map(|_| ());
        let error = error.expect_err("refused");
        assert!(
            error.contains(&path.display().to_string()) && error.contains("may read and write"),
            "{error}"
        );
    }

    #[test]
    fn a_damaged_store_is_refused_with_its_path_and_the_remedy_which_helps() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path();
        let file = folder.join("state.redb");
        let store = open_in(folder, false).expect("begun");
        let rows = (0..500_u32).map(|n| Row::put(1, table::PAIR, n.to_be_bytes(), vec![7; 200])).collect();
        store.commit(rows, 1, Box::new(|_, fate| assert!(fate.is_ok())));
        store.shutdown().expect("closed");
        drop(store);
        let mut octets = fs::read(&file).expect("read");
        let row = octets.windows(100).position(|some| some == [7; 100]).expect("a row");
        octets[row + 50] ^= 1;
        fs::write(&file, octets).expect("written");
        let error = refusal(folder, false);
        for part in ["state.redb is damaged", "tombolo store check", "tombolo store salvage"] {
            assert!(error.contains(part), "{error}");
        }
        assert!(check(&file).is_err());
        let error = complete(&file, || Ok(true)).expect_err("what is lost is not known");
        assert!(error.contains("tombolo store salvage"), "{error}");
        salvage(&file).expect("salvaged");
        check(&file).expect("sound");
        let store = open_in(folder, false).expect("it is the store of the data directory still");
        assert!(!store.meta().is_complete);
        let mut count = 0;
        store.load(0..=10, table::PAIR, &mut |_, _, _| count += 1).expect("loads");
        assert!((1..500).contains(&count), "{count}");
        assert!(salvage(&file).is_err(), "in use");
        let error = complete(&file, || Ok(true)).expect_err("in use");
        assert!(error.contains("tombolo shutdown"), "{error}");
        store.shutdown().expect("closed");
        drop(store);
        complete(&file, || Ok(false)).expect_err("it was not confirmed");
        assert!(!open_in(folder, false).expect("opens").meta().is_complete);
        complete(&file, || Ok(true)).expect("confirmed");
        assert!(open_in(folder, false).expect("opens").meta().is_complete);
        complete(&file, || panic!("there is nothing to confirm")).expect("complete already");
    }
}
