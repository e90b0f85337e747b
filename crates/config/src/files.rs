//! What the checker asks of the disk, so that it can be checked without one.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use tombolo_net::{FileFault, inspect_pair, inspect_trust};

/// The disk, as far as the checker looks at it.
pub(crate) trait Files {
    /// A readable file is there.
    fn is_file(&self, path: &Path) -> bool;
    /// The text of a file.
    fn read(&self, path: &Path) -> io::Result<String>;
    /// The `*.toml` files of a directory, sorted by name; hidden ones are left out.
    fn toml_files(&self, directory: &Path) -> io::Result<Vec<PathBuf>>;
    /// The names of the other files there, hidden ones left out.
    fn other_files(&self, _directory: &Path) -> Vec<String> {
        Vec::new()
    }
    /// What is wrong with a certificate and its key, which should prove `domain`.
    fn pair_faults(&self, _certificate: &Path, _key: &Path, _domain: Option<&str>) -> Vec<FileFault> {
        Vec::new()
    }
    /// What is wrong with a file of trusted certificates.
    fn trust_faults(&self, _path: &Path) -> Vec<FileFault> {
        Vec::new()
    }
}

/// The real one.
pub(crate) struct Disk {
    /// The wall time at which certificates are judged, since the Unix epoch.
    pub(crate) now: Duration,
}

impl Files for Disk {
    fn is_file(&self, path: &Path) -> bool {
        path.is_file() && std::fs::File::open(path).is_ok()
    }

    fn read(&self, path: &Path) -> io::Result<String> {
        std::fs::read_to_string(path)
    }

    fn toml_files(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(directory)? {
            let path = entry?.path();
            let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
            if path.extension().is_some_and(|extension| extension == "toml") && !is_hidden {
                found.push(path);
            }
        }
        found.sort();
        Ok(found)
    }

    fn other_files(&self, directory: &Path) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
        let names = entries.filter_map(|entry| {
            let path = entry.ok()?.path();
            let name = path.file_name()?.to_string_lossy().into_owned();
            let is_read = path.extension().is_some_and(|extension| extension == "toml");
            (!is_read && !name.starts_with('.') && path.is_file()).then_some(name)
        });
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    fn pair_faults(&self, certificate: &Path, key: &Path, domain: Option<&str>) -> Vec<FileFault> {
        inspect_pair(certificate, key, domain, self.now)
    }

    fn trust_faults(&self, path: &Path) -> Vec<FileFault> {
        inspect_trust(path, self.now)
    }
}

/// One where every file exists and is empty.
pub(crate) struct AllThere;

impl Files for AllThere {
    fn is_file(&self, _: &Path) -> bool {
        true
    }

    fn read(&self, _: &Path) -> io::Result<String> {
        Ok(String::new())
    }

    fn toml_files(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        Ok(vec![directory.join("empty.toml")])
    }
}
