//! The project's folder: where it is, and which files belong to it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The workspace root: the parent of the folder that holds this package.
pub(crate) fn root() -> PathBuf {
    let package = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    package.parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

/// Every file of the project below `root`, relative, sorted: what git tracks or would add.
///
/// Without git (a source archive) the folders are walked, leaving out build output.
pub(crate) fn files(root: &Path) -> Vec<String> {
    let listed = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .ok()
        .filter(|output| output.status.success());
    let mut files: Vec<String> = match listed {
        Some(output) => String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect(),
        None => walk(root, root),
    };
    files.retain(|file| root.join(file).is_file());
    files.sort();
    files.dedup();
    files
}

fn walk(root: &Path, folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(folder) else { return found };
    for path in entries.flatten().map(|entry| entry.path()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            if !matches!(name.as_str(), "target" | ".git" | "tombolo-data" | "__pycache__") {
                found.extend(walk(root, &path));
            }
        } else if let Ok(relative) = path.strip_prefix(root) {
            found.push(relative.to_string_lossy().into_owned());
        }
    }
    found
}

/// The text of a file, or nothing for what is no UTF-8 (corpora, pictures).
pub(crate) fn text(path: &Path) -> Option<String> {
    fs::read(path).ok().and_then(|bytes| String::from_utf8(bytes).ok())
}
