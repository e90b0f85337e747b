//! Dialogs in which we notify: one compact row each, found by the number in our tag.

use std::{hash::BuildHasher, sync::Arc};

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use tombolo_fanout::{LaneId, WatchId};
use tombolo_sip::event::Reason;
use tombolo_slab::Slab;
use tombolo_wheel::TimerId;

use crate::{owner::pairs::PairId, token::TokenMac};

/// Where a subscription stands (RFC 6665 §4.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The watcher waits for the presentity's answer.
    Pending,
    /// The watcher sees.
    Active,
    /// The last NOTIFY is due or in flight; nothing follows it.
    Ending(Reason),
}

/// What became of a dialog's newest NOTIFY.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flight {
    /// None is in flight.
    Answered,
    /// None is in flight: the newest got no answer in time, and is said again.
    Unanswered,
    /// It was not answered yet, and the one before it got no answer in time.
    Again,
    /// It was not answered yet.
    Open,
    /// It was not answered yet, and says that the subscription is over: the dialog ends with its answer, and with
    /// that of no earlier one.
    Last,
}

/// A route set behind one pointer, since most dialogs have none.
pub type Routes = Arc<Vec<Box<str>>>;

/// A dialog in which somebody is notified.
#[derive(Debug)]
pub struct Dialog {
    /// Its number, never used twice.
    pub row: u64,
    /// Whose presence it is about.
    pub pair: PairId,
    /// The contact watches the user; else the user watches the contact.
    pub watches_user: bool,
    /// What the watcher is sent.
    pub watch: WatchId,
    /// The peer's lane.
    pub lane: LaneId,
    /// The next dialog of the pair.
    pub next: u32,
    /// Where the subscription stands.
    pub phase: Phase,
    /// The texts of the dialog, one behind the other; see [`DialogTexts`].
    text: Box<str>,
    /// Where all but the last end.
    ends: [u16; TEXTS - 1],
    /// Route header values.
    pub routes: Option<Routes>,
    /// The last CSeq that we used.
    pub local_cseq: u32,
    /// The last CSeq that we saw.
    pub remote_cseq: u32,
    /// What became of the NOTIFY of [`Dialog::local_cseq`].
    pub flight: Flight,
    /// The MAC of our tag: made once, since each NOTIFY names the tag and each answer brings it back.
    pub mac: TokenMac,
    /// When it ends, in seconds since the Unix epoch. Once it is ending: after how many seconds the watcher may ask
    /// again, zero when nothing is said about that.
    pub expires_at: u32,
    /// While it is pending: when the watcher has waited long enough, in seconds since the Unix epoch.
    pub give_up_at: u32,
    /// When it last left state, in milliseconds since the shard began.
    pub notified_at: u32,
    /// Fires when it expires.
    pub expiry: Option<TimerId>,
    /// Fires when the NOTIFY in flight is given up, or the interval ends.
    pub activity: Option<TimerId>,
}

/// The texts of a dialog. Together at most 64 KiB; the request that brought them is bounded far below.
#[derive(Debug, Clone, Copy)]
pub struct DialogTexts<'a> {
    /// Call-ID.
    pub call_id: &'a str,
    /// The watcher's tag.
    pub remote_tag: &'a str,
    /// The watcher's URI; empty when it is `sip:` and the watcher's address.
    pub remote_uri: &'a str,
    /// The presentity's URI, as the watcher named it; empty when it is `sip:` and the presentity's address.
    pub local_uri: &'a str,
    /// Where requests go.
    pub remote_target: &'a str,
    /// The `id` of the Event header; empty when it had none.
    pub event_id: &'a str,
}

const TEXTS: usize = 6;

impl DialogTexts<'_> {
    fn pack(&self) -> Option<(Box<str>, [u16; TEXTS - 1])> {
        let parts = [
            self.call_id,
            self.remote_tag,
            self.remote_uri,
            self.local_uri,
            self.remote_target,
            self.event_id,
        ];
        let text = parts.concat();
        let mut ends = [0; TEXTS - 1];
        let mut end = 0;
        for (part, slot) in parts.iter().zip(&mut ends) {
            end += part.len();
            *slot = u16::try_from(end).ok()?;
        }
        Some((text.into(), ends))
    }
}

impl Flight {
    /// An answer is awaited.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Open | Self::Again | Self::Last)
    }
}

impl Dialog {
    /// A dialog with its texts; `None` when they are over 64 KiB.
    pub fn new(
        row: u64,
        pair: PairId,
        watch: WatchId,
        lane: LaneId,
        mac: TokenMac,
        texts: &DialogTexts<'_>,
    ) -> Option<Self> {
        let (text, ends) = texts.pack()?;
        Some(Self {
            row,
            pair,
            watches_user: false,
            watch,
            lane,
            next: u32::MAX,
            phase: Phase::Pending,
            text,
            ends,
            routes: None,
            local_cseq: 0,
            remote_cseq: 0,
            flight: Flight::Answered,
            mac,
            expires_at: 0,
            give_up_at: u32::MAX,
            notified_at: 0,
            expiry: None,
            activity: None,
        })
    }

    /// The texts.
    pub fn texts(&self) -> DialogTexts<'_> {
        let part = |n: usize| {
            let end_of = |n: usize| self.ends.get(n).map_or(self.text.len(), |end| usize::from(*end));
            let begin = if n == 0 { 0 } else { end_of(n - 1) };
            &self.text[begin..end_of(n)]
        };
        DialogTexts {
            call_id: part(0),
            remote_tag: part(1),
            remote_uri: part(2),
            local_uri: part(3),
            remote_target: part(4),
            event_id: part(5),
        }
    }

    /// The watcher renewed where it is reached (a target refresh request, RFC 3261 §12.2); true when that is new.
    pub fn refresh_target(&mut self, target: &str) -> bool {
        let texts = self.texts();
        if texts.remote_target == target {
            return false;
        }
        let Some((text, ends)) = (DialogTexts { remote_target: target, ..texts }).pack() else {
            return false;
        };
        self.text = text;
        self.ends = ends;
        true
    }

    /// No more state will follow.
    pub fn is_ending(&self) -> bool {
        matches!(self.phase, Phase::Ending(_))
    }
}

/// All dialogs in which we notify.
#[derive(Debug, Default)]
pub struct Dialogs {
    slots: Slab<Dialog>,
    /// By their numbers.
    index: HashTable<u32>,
    hasher: RandomState,
}

impl Dialogs {
    /// Adds a dialog; its place.
    pub fn insert(&mut self, dialog: Dialog) -> u32 {
        let hash = self.hasher.hash_one(dialog.row);
        let at = self.slots.insert(dialog);
        let (slots, hasher) = (&self.slots, &self.hasher);
        self.index.insert_unique(hash, at, |&at| {
            hasher.hash_one(slots.get(at).expect("an indexed dialog is alive").row)
        });
        at
    }

    /// Takes a dialog out.
    pub fn remove(&mut self, at: u32) -> Option<Dialog> {
        let dialog = self.slots.remove(at)?;
        let hash = self.hasher.hash_one(dialog.row);
        if let Ok(entry) = self.index.find_entry(hash, |&known| known == at) {
            entry.remove();
        }
        Some(dialog)
    }

    /// The place of the dialog with this number.
    pub fn find(&self, row: u64) -> Option<u32> {
        let is_it = |&at: &u32| self.slots.get(at).is_some_and(|dialog| dialog.row == row);
        self.index.find(self.hasher.hash_one(row), is_it).copied()
    }

    /// The dialog at a place.
    pub fn dialog(&self, at: u32) -> Option<&Dialog> {
        self.slots.get(at)
    }

    /// The dialog at a place, to be changed.
    pub fn dialog_mut(&mut self, at: u32) -> Option<&mut Dialog> {
        self.slots.get_mut(at)
    }

    /// All dialogs with their places.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Dialog)> {
        self.slots.iter()
    }

    /// Number of dialogs.
    pub fn len(&self) -> usize {
        self.slots.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dialog_costs_a_few_integers_besides_its_texts() {
        assert!(size_of::<Option<Dialog>>() <= 104, "{} bytes", size_of::<Option<Dialog>>());
    }
}
