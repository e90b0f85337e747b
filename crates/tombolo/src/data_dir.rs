//! What a process keeps in its data directory: secrets, and certificates for the embedded defaults.

use std::{
    fs, io,
    io::Write,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

use rand::RngExt;
use tombolo_config::Settings;
use tombolo_net::Authority;

/// 32 random octets that outlive the process, in a file that only its owner may read; made at the first start.
pub fn secret(data_dir: &Path, name: &str) -> io::Result<[u8; 32]> {
    let path = data_dir.join(name);
    if let Ok(kept) = fs::read(&path) {
        let mode = fs::metadata(&path)?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(named(&path, "others may read it: chmod 600 it, or delete it to make a new one"));
        }
        return kept.try_into().map_err(|_| named(&path, "is not 32 octets: delete it to make a new one"));
    }
    let fresh: [u8; 32] = rand::rng().random();
    // Whole or not at all, whenever the process ends.
    let unfinished = data_dir.join(format!("{name}.new"));
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
    file.write_all(&fresh)?;
    file.sync_all()?;
    fs::rename(&unfinished, &path)?;
    Ok(fresh)
}

/// Makes the data directory; only its owner may look inside.
pub fn prepare(data_dir: &Path) -> io::Result<()> {
    if !data_dir.exists() {
        fs::create_dir_all(data_dir)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", data_dir.display())))?;
        fs::set_permissions(data_dir, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// The certificates that the embedded defaults name, and one for the partner that `tombolo demo` plays.
pub fn make_certificates(settings: &Settings) -> io::Result<()> {
    let authority = Authority::open_or_create(&settings.data_dir.join("certs")).map_err(io::Error::other)?;
    for domain in settings.domains.iter().map(|domain| domain.name.as_str()) {
        authority.issue(domain, &[domain]).map_err(io::Error::other)?;
    }
    for partner in settings.partners.iter().map(|partner| partner.domain.as_str()) {
        authority.issue(partner, &[partner]).map_err(io::Error::other)?;
    }
    Ok(())
}

fn named(path: &Path, reason: &str) -> io::Error {
    io::Error::other(format!("{}: {reason}", path.display()))
}
