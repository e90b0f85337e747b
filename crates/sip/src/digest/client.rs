//! The client's side: answering challenges, with a password that one peer and one realm may see the hash of.

use std::fmt::{self, Write as _};

use super::{Algorithm, Challenge, Ha1, Qop, Request, ha1, push_quoted, response};

/// A password and where it may be used. Not shown by `Debug`.
#[derive(Clone)]
pub struct Login {
    /// Name of the peer that may ask, as the caller knows peers.
    pub peer: String,
    /// The realm that it may ask for.
    pub realm: String,
    /// The user name.
    pub user: String,
    /// The password.
    pub password: String,
    /// Whether a challenge with MD5 is answered.
    pub allows_md5: bool,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("peer", &self.peer).field("realm", &self.realm).finish_non_exhaustive()
    }
}

/// With what a request was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Answer {
    /// Without credentials.
    #[default]
    None,
    /// With credentials for a nonce of an earlier challenge.
    Cached,
    /// With credentials for the challenge that its own refusal brought.
    Fresh,
    /// So too, after one that the peer called stale.
    AfterStale,
}

/// Why a challenge is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClientRefusal {
    /// The peer is not the one that the password is for.
    #[error("a challenge from a peer that the password is not for")]
    OtherPeer,
    /// No challenge is Digest for our realm with what we have.
    #[error("no challenge that can be answered")]
    NothingToAnswer,
    /// The password was refused; it is not tried again (RFC 3261 §22.1).
    #[error("the credentials were refused")]
    Rejected,
}

struct Cached {
    ha1: Ha1,
    qop: Qop,
    nonce: String,
    opaque: Option<String>,
    /// The last count that was used.
    nc: u32,
}

/// The client's side for one login: keeps the last challenge, so that later requests need no refusal first.
pub struct Client {
    login: Login,
    cached: Option<Cached>,
}

impl Client {
    /// A client that saw no challenge yet.
    pub fn new(login: Login) -> Self {
        Self { login, cached: None }
    }

    /// The login.
    pub fn login(&self) -> &Login {
        &self.login
    }

    /// The value of Authorization (after a 401) or Proxy-Authorization (after a 407) for a request; `None` before
    /// the first challenge. `random` is a number that nobody can guess.
    ///
    /// The caller sends it to [`Login::peer`] only.
    pub fn authorize(&mut self, request: &Request<'_>, random: u64) -> Option<String> {
        let login = &self.login;
        let cached = self.cached.as_mut()?;
        cached.nc = cached.nc.checked_add(1)?;
        let (nc, cnonce) = (format!("{:08x}", cached.nc), format!("{random:016x}"));
        let digest = response(&cached.ha1, &cached.nonce, &nc, &cnonce, cached.qop, request);
        let mut value = String::with_capacity(320);
        push_quoted(&mut value, "Digest username", &login.user);
        push_quoted(&mut value, ", realm", &login.realm);
        push_quoted(&mut value, ", nonce", &cached.nonce);
        push_quoted(&mut value, ", uri", request.uri);
        push_quoted(&mut value, ", response", digest.as_str());
        push_quoted(&mut value, ", cnonce", &cnonce);
        let (algorithm, qop) = (cached.ha1.algorithm.token(), cached.qop.token());
        write!(value, ", algorithm={algorithm}, qop={qop}, nc={nc}").expect("a String takes all text");
        if let Some(opaque) = &cached.opaque {
            push_quoted(&mut value, ", opaque", opaque);
        }
        Some(value)
    }

    /// Takes the challenges of a 401 or 407 that `peer` answered a request with, in their order; `sent` tells with
    /// what the request was sent. Gives what the request is sent with next: the same Call-ID and From tag, the next
    /// CSeq, and the value of [`Client::authorize`].
    ///
    /// The top-most challenge that we have what it needs for is taken (RFC 8760 §2.4); Basic never is.
    pub fn handle_challenge<'a>(
        &mut self,
        peer: &str,
        challenges: impl IntoIterator<Item = &'a str>,
        sent: Answer,
    ) -> Result<Answer, ClientRefusal> {
        if peer != self.login.peer {
            return Err(ClientRefusal::OtherPeer);
        }
        let is_usable = |challenge: &Challenge<'_>| {
            challenge.realm == self.login.realm
                && (self.login.allows_md5 || challenge.algorithm != Algorithm::Md5)
        };
        let challenge = challenges
            .into_iter()
            .filter_map(|value| Challenge::parse(value).ok())
            .find(is_usable)
            .ok_or(ClientRefusal::NothingToAnswer)?;
        let is_new_nonce = self.cached.as_ref().is_none_or(|cached| cached.nonce != challenge.nonce);
        let next = match sent {
            Answer::None => Answer::Fresh,
            // The old nonce may have run out without the peer saying so.
            Answer::Cached if challenge.is_stale || is_new_nonce => Answer::Fresh,
            Answer::Fresh if challenge.is_stale => Answer::AfterStale,
            Answer::Cached | Answer::Fresh | Answer::AfterStale => {
                self.cached = None;
                return Err(ClientRefusal::Rejected);
            }
        };
        let login = &self.login;
        let kept = self.cached.take().filter(|_| !is_new_nonce);
        self.cached = Some(Cached {
            ha1: ha1(challenge.algorithm, &login.user, &login.realm, &login.password),
            qop: challenge.qop,
            nonce: challenge.nonce.into_owned(),
            opaque: challenge.opaque.map(|opaque| opaque.into_owned()),
            nc: kept.map_or(0, |cached| cached.nc),
        });
        Ok(next)
    }

    /// What a new request will be sent with, if [`Client::authorize`] is asked.
    pub fn next_answer(&self) -> Answer {
        if self.cached.is_some() { Answer::Cached } else { Answer::None }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("login", &self.login).finish_non_exhaustive()
    }
}
