//! Unix sockets whose path is longer than a socket's address may be.

use std::{
    fs::File,
    io,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
};

/// A path by which a socket can be bound or reached; good while it lives.
pub(crate) struct SocketPath {
    path: PathBuf,
    /// What a short path leads through.
    _folder: Option<File>,
}

impl SocketPath {
    /// `path` itself, or a short way to it through its opened folder.
    ///
    /// # Errors
    /// When its folder cannot be opened, or `/proc` is not there; the error names the path.
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        let len = path.as_os_str().len();
        if len <= MAX_PATH {
            return Ok(Self { path: path.to_owned(), _folder: None });
        }
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{}: no socket", path.display()),
            ));
        };
        let folder = File::open(folder)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", folder.display())))?;
        let short = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd()));
        if !short.exists() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "{}: a unix socket's path may have {MAX_PATH} octets, this one has {len}, and without /proc there is \
                     no short way to it; choose a shorter data_dir",
                    path.display()
                ),
            ));
        }
        Ok(Self { path: short.join(name), _folder: Some(folder) })
    }

    pub(crate) fn as_path(&self) -> &Path {
        &self.path
    }
}

/// Octets of a path in a socket's address, without its end (`SUN_LEN`).
const MAX_PATH: usize = 107;

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    #[test]
    fn a_socket_is_bound_and_reached_in_a_folder_with_a_path_of_any_length() {
        let base = tempfile::tempdir().expect("a folder");
        for len in [10, 100, 132, 200] {
            let folder = base.path().join("d".repeat(len));
            std::fs::create_dir(&folder).expect("made");
            let socket = folder.join("admin.sock");
            let listener =
                UnixListener::bind(SocketPath::of(&socket).expect("a way").as_path()).expect("bound");
            assert!(socket.exists(), "it is where it was to be");
            UnixStream::connect(SocketPath::of(&socket).expect("a way").as_path()).expect("reached");
            listener.accept().expect("accepted");
        }
        let missing = base.path().join("m".repeat(200)).join("admin.sock");
        let error = SocketPath::of(&missing).err().expect("no such folder").to_string();
        assert!(error.contains("mmm"), "it names the path: {error}");
    }
}
