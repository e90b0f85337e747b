//! Random walks: whatever happens in whatever order, in the end everybody sees what is, and nobody more than granted.
//!
//! The world around the shard is modelled apart: what each watcher was told, and what is true. Every state carries a
//! mark of its own, so that an old state cannot be taken for the new one. A walk that fails says its seed and its
//! steps; `TOMBOLO_SEEDS` sets how many walks of each kind there are.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
};

use super::stage::{JULIET, NURSE};

mod front_end;
mod phones;

/// The choices of one walk (xorshift64).
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number from zero on, below `most`.
    fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).expect("31 bits") % most
    }
}

const CONTACTS: [&str; 3] = [JULIET, NURSE, "paris@xmpp.example"];

/// A local user and a contact, by their places among the walk's users and in [`CONTACTS`].
type Couple = (usize, usize);

/// What the contacts' servers hold of the local users.
#[derive(Default)]
struct Contacts {
    /// What a contact is told of a user: resource and mark.
    told: BTreeMap<Couple, BTreeMap<String, String>>,
    /// The user granted the contact, who was told so.
    authorized: BTreeSet<Couple>,
}

impl Contacts {
    /// Takes a presence stanza of one of `users`. Gives whom it is for and its type, or what is wrong with it.
    fn hear<'a>(&mut self, stanza: &'a str, users: &[&str]) -> Result<(Couple, Option<&'a str>), String> {
        let (from, to) = (attribute(stanza, "from").unwrap_or(""), attribute(stanza, "to").unwrap_or(""));
        let (bare, resource) = from.split_once('/').unwrap_or((from, ""));
        let user = users.iter().position(|user| *user == bare).ok_or("it is from none of the users")?;
        let contact = CONTACTS.iter().position(|contact| *contact == to).ok_or("it is to no contact")?;
        let (couple, kind) = ((user, contact), attribute(stanza, "type"));
        match kind {
            None if !self.authorized.contains(&couple) => return Err("told without a grant".to_owned()),
            None => {
                let mark = between(stanza, "<status>", "</status>").unwrap_or_default();
                self.told.entry(couple).or_default().insert(resource.to_owned(), mark.to_owned());
            }
            Some("unavailable") if resource.is_empty() => drop(self.told.remove(&couple)),
            Some("unavailable") => drop(self.told.entry(couple).or_default().remove(resource)),
            Some("subscribed") => drop(self.authorized.insert(couple)),
            Some("unsubscribed") => self.forget(couple),
            Some("subscribe" | "unsubscribe" | "probe" | "error") => {}
            Some(other) => return Err(format!("a presence of type {other}")),
        }
        Ok((couple, kind))
    }

    /// The contact sees the user no more.
    fn forget(&mut self, couple: Couple) {
        self.authorized.remove(&couple);
        self.told.remove(&couple);
    }

    /// The marks that the contact sees of the user.
    fn seen(&self, couple: Couple) -> BTreeSet<String> {
        self.told.get(&couple).into_iter().flat_map(BTreeMap::values).cloned().collect()
    }
}

/// The seeds of the walks to be done.
fn walks() -> RangeInclusive<u64> {
    1..=std::env::var("TOMBOLO_SEEDS").map_or(200, |text| text.parse().expect("a number of seeds"))
}

/// An attribute of a stanza's start tag.
fn attribute<'a>(stanza: &'a str, name: &str) -> Option<&'a str> {
    let head = &stanza[..stanza.find('>')?];
    between(head, &format!(" {name}='"), "'")
}

fn between<'a>(text: &'a str, open: &str, close: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(open)?;
    rest.split_once(close).map(|(inner, _)| inner)
}
