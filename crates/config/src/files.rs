//! What the checker asks of the disk, so that it can be checked without one.

use std::{
    io,
    path::{Path, PathBuf},
};

/// The disk, as far as the checker looks at it.
pub(crate) trait Files {
    /// A readable file is there.
    fn is_file(&self, path: &Path) -> bool;
    /// The text of a file.
    fn read(&self, path: &Path) -> io::Result<String>;
    /// The `*.toml` files of a directory, sorted by name; hidden ones are left out.
    fn toml_files(&self, directory: &Path) -> io::Result<Vec<PathBuf>>;
}

/// The real one.
pub(crate) struct Disk;

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
