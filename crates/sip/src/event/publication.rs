//! The event state compositor of one presentity (RFC 3903 §6): who published what, until when.
//!
//! PUBLISH requests as plain values and the time go in; the answer, what changed, and one deadline come out. A body
//! is an opaque value that the caller reads only when the checks before it have passed. Whether the target exists
//! (404) and whether the publisher may (403) is the caller's; hard state and composition are too.

use std::time::{Duration, Instant};

use super::DEFAULT_EXPIRES;
use crate::{body::BodyFault, headers::HeaderName, lex, message::Message};

/// Bounds that all compositors share.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Seconds where no Expires came.
    pub default_expires: u32,
    /// Seconds under which a request is answered 423.
    pub min_expires: u32,
    /// Most seconds that are granted.
    pub max_expires: u32,
    /// Most publications of one presentity at a time.
    pub most_publications: usize,
}

impl Default for Settings {
    /// Expires 60 s to one hour, 16 publications.
    fn default() -> Self {
        Self { default_expires: DEFAULT_EXPIRES, min_expires: 60, max_expires: 3600, most_publications: 16 }
    }
}

/// What SIP-If-Match holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfMatch {
    /// There is no such header field.
    Absent,
    /// One entity tag. `None` for a text that none of ours has.
    One(Option<u64>),
    /// More than one, or none.
    Invalid,
}

impl IfMatch {
    /// Reads SIP-If-Match; `entity_tag` gives the number of a tag that we could have made.
    pub fn read(message: &Message, entity_tag: impl FnOnce(&str) -> Option<u64>) -> Self {
        // Row by row: an empty one is not the same as none.
        let mut tags = message.rows(HeaderName::SipIfMatch);
        match (tags.next(), tags.next()) {
            (None, _) => Self::Absent,
            (Some(tag), None) if lex::is_token(tag) => Self::One(entity_tag(tag)),
            _ => Self::Invalid,
        }
    }
}

/// A PUBLISH request.
#[derive(Debug, Clone, Copy)]
pub struct Publish {
    /// Event is there and names a package that we compose.
    pub is_event_known: bool,
    /// SIP-If-Match.
    pub if_match: IfMatch,
    /// Expires, seconds.
    pub expires: Option<u32>,
    /// Whether there is a body that counts.
    pub has_body: bool,
    /// The former publication of the same publisher. An initial publication takes its place: a phone that lost its
    /// entity tag publishes anew, and must not stand twice until the former one runs out.
    pub former: Option<PublicationId>,
}

/// Names a publication as long as it lives, through all its entity tags. Never used again for the presentity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicationId(pub u32);

/// What an accepted PUBLISH did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// A new publication stands.
    Added(PublicationId),
    /// It lives longer; its body is the same.
    Refreshed(PublicationId),
    /// Its body was replaced, by its entity tag or by an initial publication of the same publisher.
    Modified(PublicationId),
    /// It is gone.
    Removed(PublicationId),
    /// An initial publication for no time at all: nothing was stored.
    Nothing,
}

/// The answer to a PUBLISH that was accepted: 200.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    /// For SIP-ETag; the tag in SIP-If-Match is dead.
    pub entity_tag: u64,
    /// For Expires, seconds.
    pub expires: u32,
    /// What changed.
    pub change: Change,
}

/// Why a PUBLISH was refused; nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// 489.
    #[error("a PUBLISH for no event package that we compose")]
    BadEvent,
    /// 400: SIP-If-Match does not hold one entity tag, or there is neither a tag nor a body.
    #[error("a PUBLISH that makes no sense: {0}")]
    BadRequest(&'static str),
    /// 412: no publication has this entity tag.
    #[error("a PUBLISH for an entity tag that no publication has")]
    ConditionalRequestFailed,
    /// 423.
    #[error("a PUBLISH for less than {min_expires} s")]
    TooBrief {
        /// For Min-Expires, seconds.
        min_expires: u32,
    },
    /// 400, 413 or 415: the body cannot be read.
    #[error("a PUBLISH with a body that is refused: {0}")]
    Body(BodyFault),
    /// 500, with Retry-After: the presentity has as many publications as are allowed. (503 would speak for the whole
    /// server.)
    #[error("a presentity with {limit} publications")]
    TooMany {
        /// How many are allowed.
        limit: usize,
    },
    /// 500: the caller's new entity tag was not higher than those before.
    #[error("an entity tag that is not new")]
    UsedTag,
}

impl Refusal {
    /// Why, in constant words for the log.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::BadEvent => "the event package is not one that we compose",
            Self::BadRequest(reason) => reason,
            Self::ConditionalRequestFailed => "no publication has this entity tag",
            Self::TooBrief { .. } => "the publication's time is too short",
            Self::Body(_) => "the body cannot be read",
            Self::TooMany { .. } => "the user has as many publications as are allowed",
            Self::UsedTag => "the entity tag is not new",
        }
    }

    /// The status code of the answer.
    pub fn status(&self) -> u16 {
        match self {
            Self::BadRequest(_) => 400,
            Self::ConditionalRequestFailed => 412,
            Self::Body(fault) => fault.status(),
            Self::TooBrief { .. } => 423,
            Self::BadEvent => 489,
            Self::TooMany { .. } | Self::UsedTag => 500,
        }
    }
}

#[derive(Debug, Clone)]
struct Publication<T> {
    id: PublicationId,
    entity_tag: u64,
    ends_at: Instant,
    body: T,
}

/// All publications of one presentity and one event package, oldest first.
#[derive(Debug, Clone)]
pub struct Compositor<T> {
    publications: Vec<Publication<T>>,
    next_id: u32,
    highest_tag: u64,
}

impl<T> Default for Compositor<T> {
    fn default() -> Self {
        Self { publications: Vec::new(), next_id: 0, highest_tag: 0 }
    }
}

impl<T> Compositor<T> {
    /// A compositor without publications.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes back a publication that lived before a restart.
    pub fn restore(&mut self, id: PublicationId, entity_tag: u64, ends_at: Instant, body: T) {
        self.publications.push(Publication { id, entity_tag, ends_at, body });
        self.next_id = self.next_id.max(id.0.saturating_add(1));
        self.highest_tag = self.highest_tag.max(entity_tag);
    }

    /// The living publications, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (PublicationId, &T)> {
        self.publications.iter().map(|publication| (publication.id, &publication.body))
    }

    /// Removes one publication, whatever its entity tag; its body.
    pub fn remove(&mut self, id: PublicationId) -> Option<T> {
        let at = self.publications.iter().position(|publication| publication.id == id)?;
        Some(self.publications.remove(at).body)
    }

    fn new_id(&mut self) -> PublicationId {
        let id = PublicationId(self.next_id);
        self.next_id += 1;
        id
    }

    /// The body of one publication.
    pub fn body(&self, id: PublicationId) -> Option<&T> {
        self.publications.iter().find(|publication| publication.id == id).map(|publication| &publication.body)
    }

    /// What [`Compositor::restore`] needs of one publication: its entity tag and end.
    pub fn row(&self, id: PublicationId) -> Option<(u64, Instant)> {
        let found = self.publications.iter().find(|publication| publication.id == id)?;
        Some((found.entity_tag, found.ends_at))
    }

    /// Number of publications.
    pub fn len(&self) -> usize {
        self.publications.len()
    }

    /// Whether nobody publishes.
    pub fn is_empty(&self) -> bool {
        self.publications.is_empty()
    }

    /// When [`Compositor::handle_timeout`] is to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.publications.iter().map(|publication| publication.ends_at).min()
    }

    /// Removes one publication that ran out and gives it; `None` when none did. To be called again until then.
    pub fn handle_timeout(&mut self, now: Instant) -> Option<(PublicationId, T)> {
        let at = self.publications.iter().position(|publication| publication.ends_at <= now)?;
        let publication = self.publications.remove(at);
        Some((publication.id, publication.body))
    }

    /// Handles a PUBLISH in the order of RFC 3903 §6, from step 2 on; a refusal changes nothing.
    ///
    /// `fresh_tag` must be higher than every tag given here before; `read_body` is called at most once, after all
    /// checks that come before the body.
    pub fn handle_publish(
        &mut self,
        publish: &Publish,
        fresh_tag: u64,
        now: Instant,
        settings: &Settings,
        read_body: impl FnOnce() -> Result<T, BodyFault>,
    ) -> Result<Accepted, Refusal> {
        if !publish.is_event_known {
            return Err(Refusal::BadEvent);
        }
        let found = match publish.if_match {
            IfMatch::Absent => None,
            IfMatch::Invalid => return Err(Refusal::BadRequest("SIP-If-Match without a single entity tag")),
            // One that ran out and was not yet swept is gone all the same.
            IfMatch::One(tag) => Some(
                self.publications
                    .iter()
                    .position(|held| Some(held.entity_tag) == tag && held.ends_at > now)
                    .ok_or(Refusal::ConditionalRequestFailed)?,
            ),
        };
        let asked = publish.expires.unwrap_or(settings.default_expires);
        if asked > 0 && asked < settings.min_expires {
            return Err(Refusal::TooBrief { min_expires: settings.min_expires });
        }
        let expires = asked.min(settings.max_expires);
        if found.is_none() && !publish.has_body {
            return Err(Refusal::BadRequest("neither an entity tag nor a body"));
        }
        let body = publish.has_body.then(read_body).transpose().map_err(Refusal::Body)?;
        let former = publish.former.filter(|_| found.is_none() && expires > 0);
        let others = self.publications.iter().filter(|held| held.ends_at > now && Some(held.id) != former);
        let is_full = others.count() >= settings.most_publications;
        if found.is_none() && expires > 0 && is_full {
            return Err(Refusal::TooMany { limit: settings.most_publications });
        }
        if fresh_tag <= self.highest_tag {
            return Err(Refusal::UsedTag);
        }
        self.highest_tag = fresh_tag;
        let ends_at = now + Duration::from_secs(expires.into());
        let change = match (found, body) {
            (Some(at), _) if expires == 0 => Change::Removed(self.publications.remove(at).id),
            (Some(at), body) => {
                let held = &mut self.publications[at];
                (held.entity_tag, held.ends_at) = (fresh_tag, ends_at);
                match body {
                    Some(body) => {
                        held.body = body;
                        Change::Modified(held.id)
                    }
                    None => Change::Refreshed(held.id),
                }
            }
            (None, Some(body)) if expires > 0 => {
                let replaced = former.and_then(|former| self.remove(former)).is_some();
                let id = former.filter(|_| replaced).unwrap_or_else(|| self.new_id());
                // The newest stands last, whatever number it has.
                self.publications.push(Publication { id, entity_tag: fresh_tag, ends_at, body });
                if replaced { Change::Modified(id) } else { Change::Added(id) }
            }
            (None, _) => Change::Nothing,
        };
        Ok(Accepted { entity_tag: fresh_tag, expires, change })
    }
}

#[cfg(test)]
mod tests;
