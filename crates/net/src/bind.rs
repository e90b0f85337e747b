//! What a listener's address means: `[::]` is every address of the machine, IPv6 and IPv4, by a socket for each family.
//!
//! In: addresses and how to bind one. Out: bound sockets. Each IPv6 socket takes IPv6 alone, whatever the system's
//! `net.ipv6.bindv6only` says, so `[::]` and `0.0.0.0` can stand side by side. Where the kernel has one family only,
//! `[::]` is that family.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Once,
};

/// Binds `address`, which is one of `all` the addresses of its kind. `bind` binds exactly what it is given; `local` tells
/// what it got.
///
/// # Errors
/// When the address cannot be bound, or one of the two that it stands for is somebody else's.
pub fn bind_all<T>(
    address: SocketAddr,
    all: &[SocketAddr],
    bind: impl Fn(SocketAddr) -> io::Result<T>,
    local: impl Fn(&T) -> io::Result<SocketAddr>,
) -> io::Result<Vec<T>> {
    if address.is_ipv4() || !address.ip().is_unspecified() {
        return Ok(vec![bind(address)?]);
    }
    let mut tries = if address.port() == 0 { MAX_TRIES } else { 1 };
    loop {
        tries -= 1;
        match bind_both(address, all, &bind, &local) {
            // The port that IPv6 was given by chance may be taken on IPv4.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries > 0 => {}
            outcome => return outcome,
        }
    }
}

fn bind_both<T>(
    address: SocketAddr,
    all: &[SocketAddr],
    bind: &impl Fn(SocketAddr) -> io::Result<T>,
    local: &impl Fn(&T) -> io::Result<SocketAddr>,
) -> io::Result<Vec<T>> {
    let v6 = match bind(address) {
        Ok(socket) => Some(socket),
        Err(error) if is_family_absent(&error) => {
            // It holds for every listener, so one line says it.
            NO_IPV6.call_once(|| {
                tracing::warn!(%error, "this machine has no IPv6: [::] is listened on by IPv4 alone");
            });
            None
        }
        Err(error) => return Err(error),
    };
    let port = v6.as_ref().map(local).transpose()?.map_or(address.port(), |bound| bound.port());
    let v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    if all.contains(&v4) {
        // It has a listener of its own.
        return Ok(v6.into_iter().collect());
    }
    let is_listed = all.iter().any(|other| other.is_ipv4() && other.port() == port);
    match bind(v4) {
        Ok(socket) => Ok(v6.into_iter().chain([socket]).collect()),
        Err(error) if is_family_absent(&error) && v6.is_some() => {
            tracing::warn!(address = %v4, %error, "this machine has no IPv4: only IPv6 is listened on");
            Ok(v6.into_iter().collect())
        }
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_listed && v6.is_some() => {
            tracing::warn!(address = %v4, "IPv4 is listened on at the addresses that the settings name, and no other");
            Ok(v6.into_iter().collect())
        }
        Err(error) => Err(error),
    }
}

/// That there is no IPv6 was said.
static NO_IPV6: Once = Once::new();

/// The kernel, or its settings, know nothing of the address's family.
fn is_family_absent(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(EAFNOSUPPORT | EADDRNOTAVAIL | EPROTONOSUPPORT))
}

/// The same error, and what the administrator can do about it.
pub(crate) fn with_repair(address: SocketAddr, error: io::Error) -> io::Error {
    let repair = match error.raw_os_error() {
        Some(EAFNOSUPPORT | EPROTONOSUPPORT) if address.is_ipv6() => {
            "this machine has no IPv6: name an address of IPv4, or [::] for all addresses that it has"
        }
        Some(EADDRNOTAVAIL) => "this machine does not have this address",
        _ => return error,
    };
    io::Error::new(error.kind(), format!("{error}; {repair}"))
}

/// How often a port is sought that is free in both families.
const MAX_TRIES: u32 = 16;
// As on every Linux; `ErrorKind` has no name for the first.
const EAFNOSUPPORT: i32 = 97;
const EADDRNOTAVAIL: i32 = 99;
const EPROTONOSUPPORT: i32 = 93;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    fn error(code: i32) -> io::Error {
        io::Error::from_raw_os_error(code)
    }

    /// What is bound where binding `fails` with these codes.
    fn bound(address: &str, all: &[&str], fails: &[(&str, i32)]) -> Result<Vec<String>, i32> {
        let all: Vec<SocketAddr> = all.iter().map(|address| at(address)).collect();
        let bind = |address: SocketAddr| match fails.iter().find(|(failing, _)| at(failing) == address) {
            Some((_, code)) => Err(error(*code)),
            None => Ok(address),
        };
        let outcome = bind_all(at(address), &all, bind, |address| Ok(*address));
        let texts = |sockets: Vec<SocketAddr>| sockets.iter().map(ToString::to_string).collect();
        outcome.map(texts).map_err(|error| error.raw_os_error().expect("ours"))
    }

    #[test]
    fn all_addresses_are_two_sockets_where_the_machine_has_both_families_and_one_where_it_has_one() {
        const EADDRINUSE: i32 = 98;
        let both = Ok(vec!["[::]:5269".to_owned(), "0.0.0.0:5269".to_owned()]);
        let (v6, v4) = (Ok(vec!["[::]:5269".to_owned()]), Ok(vec!["0.0.0.0:5269".to_owned()]));
        assert_eq!(bound("[::]:5269", &["[::]:5269"], &[]), both);
        for absent in [EAFNOSUPPORT, EADDRNOTAVAIL] {
            assert_eq!(bound("[::]:5269", &[], &[("[::]:5269", absent)]), v4);
            assert_eq!(bound("[::]:5269", &[], &[("0.0.0.0:5269", absent)]), v6);
            let neither = [("[::]:5269", absent), ("0.0.0.0:5269", absent)];
            assert_eq!(bound("[::]:5269", &[], &neither), Err(absent));
        }
        // Each listed address is bound once.
        assert_eq!(bound("[::]:5269", &["[::]:5269", "0.0.0.0:5269"], &[]), v6);
        assert_eq!(bound("0.0.0.0:5269", &["[::]:5269", "0.0.0.0:5269"], &[]), v4);
        // One that is named by itself keeps IPv4 to it.
        let taken = [("0.0.0.0:5269", EADDRINUSE)];
        assert_eq!(bound("[::]:5269", &["127.0.0.1:5269"], &taken), v6);
        // Somebody else has it: half a listener would be worse than none.
        assert_eq!(bound("[::]:5269", &["127.0.0.1:5270"], &taken), Err(EADDRINUSE));
        assert_eq!(bound("[::1]:5269", &[], &[]), Ok(vec!["[::1]:5269".to_owned()]));
        assert_eq!(bound("[::1]:5269", &[], &[("[::1]:5269", EAFNOSUPPORT)]), Err(EAFNOSUPPORT));
    }
}
