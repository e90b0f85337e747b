//! The server's side: challenges that need no memory, and the proof of credentials (RFC 7616 §3.3, §3.4.6).
//!
//! A nonce is its time, a random number and a MAC over both, so that a challenge costs no state. What was used is
//! remembered only after the password was right, in a table of bounded size.

use std::{collections::BTreeMap, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

use super::{
    Algorithm, Credentials, Ha1, Qop, Request, ha1, is_equal, push_quoted, response, response_without_qop,
};
use crate::uri;

/// What a server offers.
#[derive(Debug, Clone)]
pub struct ServerSettings {
    /// The realm, as the stored hashes have it.
    pub realm: String,
    /// The algorithms to offer, the preferred first, each once.
    pub algorithms: Vec<Algorithm>,
    /// How long a nonce may be used.
    pub nonce_life: Duration,
    /// Nonces in use that are remembered; more make the oldest stale before their time.
    pub most_nonces: usize,
}

impl ServerSettings {
    /// SHA-256, then MD5; nonces for 5 minutes; 65,536 of them.
    pub fn new(realm: &str) -> Self {
        Self {
            realm: realm.to_owned(),
            algorithms: vec![Algorithm::Sha256, Algorithm::Md5],
            nonce_life: Duration::from_secs(300),
            most_nonces: 65_536,
        }
    }
}

/// What becomes of credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// They are good.
    Accepted,
    /// They are good, but their `uri` is not the Request-URI: the caller must see that it is one of its own users
    /// (RFC 8760 §2.6-6), else refuse.
    AcceptedForOtherUri,
    /// The password was right and the nonce is too old, was not ours, or was used so before: challenge again, with
    /// `stale=true`.
    Stale,
    /// They are of the form of RFC 2069, without `qop`, which counts for MD5 only, where that is offered: challenge
    /// again. Whether they are right was not looked at.
    WithoutQop,
    /// They are for another realm: as if there were none.
    OtherRealm,
    /// They are wrong: challenge again, without `stale`.
    Refused,
}

/// When a nonce was made (seconds since the Unix epoch) and its random number.
type NonceKey = (u64, u64);

/// Which counts of a nonce were used: the highest, and a bit for each of the 64 up to it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    pub(super) highest: u32,
    pub(super) used: u64,
}

impl Window {
    /// Marks `nc` as used; false when it was, or is too far below the highest to tell.
    pub(super) fn take(&mut self, nc: u32) -> bool {
        if nc > self.highest {
            let ahead = nc - self.highest;
            self.used = if ahead < 64 { self.used << ahead } else { 0 } | 1;
            self.highest = nc;
            return true;
        }
        let behind = self.highest - nc;
        let bit = if behind < 64 { 1 << behind } else { return false };
        let is_fresh = self.used & bit == 0;
        self.used |= bit;
        is_fresh
    }
}

/// The server's side for one realm. The secret can be shared by several, but each has its own memory of used counts.
pub struct Server {
    settings: ServerSettings,
    secret: [u8; 32],
    windows: BTreeMap<NonceKey, Window>,
    /// Nonces up to this one that are not remembered may have been forgotten.
    forgotten: Option<NonceKey>,
    /// Stands in for users that do not exist, so that they take as long as others.
    nobody: Vec<Ha1>,
}

impl Server {
    /// A server with 32 random octets as secret.
    pub fn new(settings: ServerSettings, secret: [u8; 32]) -> Self {
        let nobody =
            settings.algorithms.iter().map(|algorithm| ha1(*algorithm, "", &settings.realm, "")).collect();
        Self { settings, secret, windows: BTreeMap::new(), forgotten: None, nobody }
    }

    /// The values of the WWW-Authenticate (or Proxy-Authenticate) header fields of one challenge, in order, all with
    /// one nonce. `wall` is the time since the Unix epoch; `random` a number that was not used in that second.
    ///
    /// An ACK or CANCEL is never challenged (RFC 3261 §22.1).
    pub fn challenges(&self, is_stale: bool, wall: Duration, random: u64) -> Vec<String> {
        let nonce = self.nonce((wall.as_secs(), random));
        let value = |algorithm: &Algorithm| {
            let mut value = String::with_capacity(160);
            push_quoted(&mut value, "Digest realm", &self.settings.realm);
            push_quoted(&mut value, ", nonce", &nonce);
            value.push_str(", algorithm=");
            value.push_str(algorithm.token());
            push_quoted(&mut value, ", qop", "auth");
            if is_stale {
                value.push_str(", stale=true");
            }
            value
        };
        self.settings.algorithms.iter().map(value).collect()
    }

    /// Proves credentials. `ha1` is that of `credentials.username` for `credentials.algorithm`, `None` when there is
    /// no such user; `wall` is the time since the Unix epoch.
    ///
    /// Only a request that no transaction absorbs comes here: a copy of one that was accepted is
    /// [`Verdict::Stale`].
    pub fn verify(
        &mut self,
        credentials: &Credentials<'_>,
        request: &Request<'_>,
        ha1: Option<&Ha1>,
        wall: Duration,
    ) -> Verdict {
        if credentials.realm != self.settings.realm {
            return Verdict::OtherRealm;
        }
        let offers_md5 = self.settings.algorithms.contains(&Algorithm::Md5);
        if credentials.qop.is_none() && (credentials.algorithm != Algorithm::Md5 || !offers_md5) {
            return Verdict::WithoutQop;
        }
        let Some(nobody) = self.nobody.iter().find(|nobody| nobody.algorithm == credentials.algorithm) else {
            return Verdict::Refused;
        };
        let known = ha1.filter(|known| known.algorithm == credentials.algorithm);
        let covered = Request { uri: &credentials.uri, ..*request };
        let (hash, nonce) = (known.unwrap_or(nobody), &*credentials.nonce);
        let expected = match credentials.qop {
            Some(qop) => response(hash, nonce, &credentials.nc_text, &credentials.cnonce, qop, &covered),
            None => response_without_qop(hash, nonce, &covered),
        };
        let is_right = is_equal(&expected, &credentials.response);
        // Only `auth` is offered; `auth-int` would need a body that was not touched on its way.
        if !is_right || known.is_none() || credentials.qop == Some(Qop::AuthInt) {
            return Verdict::Refused;
        }
        let Some(key) = self.read_nonce(&credentials.nonce) else { return Verdict::Stale };
        let made = Duration::from_secs(key.0);
        let is_in_time = made <= wall + CLOCK_SLACK && wall <= made + self.settings.nonce_life;
        let mut is_unused = || match credentials.qop {
            Some(_) => self.take_count(key, credentials.nc, wall),
            None => self.take_nonce(key, wall),
        };
        if !is_in_time || !is_unused() {
            return Verdict::Stale;
        }
        if uri::are_equivalent(&credentials.uri, request.uri) {
            Verdict::Accepted
        } else {
            Verdict::AcceptedForOtherUri
        }
    }

    /// Number of nonces that are remembered.
    pub fn nonces(&self) -> usize {
        self.windows.len()
    }

    fn take_count(&mut self, key: NonceKey, nc: u32, wall: Duration) -> bool {
        match self.windows.get_mut(&key) {
            Some(window) => window.take(nc),
            None => self.begin_window(key, Window { highest: nc, used: 1 }, wall),
        }
    }

    /// Without a count nothing tells a replay but the nonce itself, which is good once and then for nothing else.
    fn take_nonce(&mut self, key: NonceKey, wall: Duration) -> bool {
        let used_up = Window { highest: u32::MAX, used: u64::MAX };
        !self.windows.contains_key(&key) && self.begin_window(key, used_up, wall)
    }

    fn begin_window(&mut self, key: NonceKey, window: Window, wall: Duration) -> bool {
        if self.forgotten.is_some_and(|forgotten| key <= forgotten) {
            return false;
        }
        self.windows.insert(key, window);
        // What cannot be used any more needs no place; what can, but has none, is forgotten.
        let oldest = wall.saturating_sub(self.settings.nonce_life).as_secs();
        while let Some((first, _)) = self.windows.first_key_value()
            && (first.0 < oldest || self.windows.len() > self.settings.most_nonces)
        {
            // Also where the clock goes back later, none of these counts as never seen.
            self.forgotten = self.forgotten.max(Some(*first));
            self.windows.pop_first();
        }
        self.windows.contains_key(&key)
    }

    fn mac(&self, head: &[u8]) -> [u8; 16] {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.secret).expect("any length of key will do");
        mac.update(b"digest nonce\0");
        mac.update(head);
        mac.update(self.settings.realm.as_bytes());
        let mut short = [0; 16];
        short.copy_from_slice(&mac.finalize().into_bytes()[..16]);
        short
    }

    fn nonce(&self, (seconds, random): NonceKey) -> String {
        let mut octets = [0; 32];
        octets[..8].copy_from_slice(&seconds.to_be_bytes());
        octets[8..16].copy_from_slice(&random.to_be_bytes());
        let mac = self.mac(&octets[..16]);
        octets[16..].copy_from_slice(&mac);
        URL_SAFE_NO_PAD.encode(octets)
    }

    fn read_nonce(&self, text: &str) -> Option<NonceKey> {
        let mut octets = [0; 32];
        if text.len() != 43 || URL_SAFE_NO_PAD.decode_slice(text, &mut octets).ok()? != 32 {
            return None;
        }
        let (head, mac) = octets.split_at(16);
        if !bool::from(self.mac(head).ct_eq(mac)) {
            return None;
        }
        let (seconds, random) = head.split_at(8);
        Some((u64::from_be_bytes(seconds.try_into().ok()?), u64::from_be_bytes(random.try_into().ok()?)))
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// How far the clock of another server with the same secret may be ahead.
const CLOCK_SLACK: Duration = Duration::from_secs(30);
