//! Digest authentication (RFC 7616 as RFC 8760 and RFC 3261 §22 use it), both sides. Never Basic.
//!
//! Header values as text, the time and random numbers go in; challenges, credentials and verdicts come out. Passwords
//! are seen only by [`ha1`] and [`Login`]; a server holds `H(user:realm:password)` per algorithm.

use std::fmt;

use md5::Md5;
use sha2::{Sha256, Sha512_256};
use subtle::ConstantTimeEq as _;

mod client;
mod fields;
mod server;

pub use self::{
    client::{Answer, Client, ClientRefusal, Login},
    fields::{Challenge, Credentials, DigestFault},
    server::{Server, ServerSettings, Verdict},
};

/// A hash algorithm of the registry of RFC 7616 §6.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// `SHA-512-256`
    Sha512_256,
    /// `SHA-256`
    Sha256,
    /// `MD5`: only for what knows nothing better.
    Md5,
}

impl Algorithm {
    /// Reads the token, without case; `None` for algorithms that we do not have, `-sess` among them.
    pub fn from_token(token: &str) -> Option<Self> {
        let known = [Self::Sha512_256, Self::Sha256, Self::Md5];
        known.into_iter().find(|algorithm| algorithm.token().eq_ignore_ascii_case(token))
    }

    /// The token.
    pub fn token(self) -> &'static str {
        match self {
            Self::Sha512_256 => "SHA-512-256",
            Self::Sha256 => "SHA-256",
            Self::Md5 => "MD5",
        }
    }

    /// The hash of the parts with a colon between each two, in lower-case hexadecimal.
    fn hash(self, parts: &[&[u8]]) -> Hex {
        fn run<D: sha2::Digest>(parts: &[&[u8]]) -> Hex {
            let mut hash = D::new();
            for (number, part) in parts.iter().enumerate() {
                if number > 0 {
                    hash.update(b":");
                }
                hash.update(part);
            }
            Hex::of(&hash.finalize())
        }
        match self {
            Self::Sha512_256 => run::<Sha512_256>(parts),
            Self::Sha256 => run::<Sha256>(parts),
            Self::Md5 => run::<Md5>(parts),
        }
    }

    /// Hexadecimal digits of a hash.
    fn hex_len(self) -> usize {
        match self {
            Self::Sha512_256 | Self::Sha256 => 64,
            Self::Md5 => 32,
        }
    }
}

/// A hash in lower-case hexadecimal digits.
#[derive(Clone, PartialEq, Eq)]
struct Hex {
    digits: [u8; 64],
    len: usize,
}

impl Hex {
    fn of(octets: &[u8]) -> Self {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut hex = Self { digits: [0; 64], len: octets.len() * 2 };
        for (pair, octet) in hex.digits.chunks_exact_mut(2).zip(octets) {
            pair.copy_from_slice(&[DIGITS[usize::from(octet >> 4)], DIGITS[usize::from(octet & 15)]]);
        }
        hex
    }

    fn as_bytes(&self) -> &[u8] {
        &self.digits[..self.len]
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).expect("hexadecimal digits are ASCII")
    }
}

/// `H(user:realm:password)`: worth as much as the password within its realm. Not shown by `Debug`.
#[derive(Clone)]
pub struct Ha1 {
    algorithm: Algorithm,
    hex: Hex,
}

impl Ha1 {
    /// Takes a stored hash: 64 hexadecimal digits, 32 for MD5.
    pub fn from_hex(algorithm: Algorithm, text: &str) -> Option<Self> {
        if text.len() != algorithm.hex_len() || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        let mut hex = Hex { digits: [0; 64], len: text.len() };
        hex.digits[..text.len()].copy_from_slice(text.to_ascii_lowercase().as_bytes());
        Some(Self { algorithm, hex })
    }

    /// The hash to store.
    pub fn hex(&self) -> &str {
        self.hex.as_str()
    }

    /// Its algorithm.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

impl fmt::Debug for Ha1 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ha1").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

/// The hash that a server stores for a user (RFC 7616 §3.4.2).
pub fn ha1(algorithm: Algorithm, user: &str, realm: &str, password: &str) -> Ha1 {
    Ha1 { algorithm, hex: algorithm.hash(&[user.as_bytes(), realm.as_bytes(), password.as_bytes()]) }
}

/// Quality of protection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Qop {
    /// Method and URI are protected.
    Auth,
    /// So is the body.
    AuthInt,
}

impl Qop {
    fn token(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::AuthInt => "auth-int",
        }
    }
}

/// What of a request the digest covers.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Its method.
    pub method: &'a str,
    /// Its Request-URI as written.
    pub uri: &'a str,
    /// Its body; only looked at for `auth-int`.
    pub body: &'a [u8],
}

/// The `response` of RFC 7616 §3.4.1. `nc` is the eight digits as written.
fn response(ha1: &Ha1, nonce: &str, nc: &str, cnonce: &str, qop: Qop, request: &Request<'_>) -> Hex {
    let (algorithm, method, uri) = (ha1.algorithm, request.method.as_bytes(), request.uri.as_bytes());
    let ha2 = match qop {
        Qop::Auth => algorithm.hash(&[method, uri]),
        Qop::AuthInt => algorithm.hash(&[method, uri, algorithm.hash(&[request.body]).as_bytes()]),
    };
    algorithm.hash(&[
        ha1.hex.as_bytes(),
        nonce.as_bytes(),
        nc.as_bytes(),
        cnonce.as_bytes(),
        qop.token().as_bytes(),
        ha2.as_bytes(),
    ])
}

/// The `response` of RFC 2069 §2.1.2, which some phones still send: `H(H(A1):nonce:H(A2))`.
fn response_without_qop(ha1: &Ha1, nonce: &str, request: &Request<'_>) -> Hex {
    let ha2 = ha1.algorithm.hash(&[request.method.as_bytes(), request.uri.as_bytes()]);
    ha1.algorithm.hash(&[ha1.hex.as_bytes(), nonce.as_bytes(), ha2.as_bytes()])
}

/// Compares in a time that does not tell where they differ.
fn is_equal(ours: &Hex, theirs: &str) -> bool {
    ours.as_bytes().ct_eq(theirs.as_bytes()).into()
}

/// Appends `name="value"`, quoted as RFC 3261 §25.1 wants it. What no quoted string may hold is left out.
fn push_quoted(out: &mut String, name: &str, value: &str) {
    out.push_str(name);
    out.push_str("=\"");
    for character in value.chars().filter(|character| !character.is_control()) {
        if matches!(character, '"' | '\\') {
            out.push('\\');
        }
        out.push(character);
    }
    out.push('"');
}

/// What a fuzzer calls: nothing panics.
pub fn fuzz_body(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = Credentials::parse(text);
    let _ = Challenge::parse(text);
}

#[cfg(test)]
mod tests;
