//! Dialogs in which we notify: one compact row each, found by the number in our tag.

use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use tombolo_fanout::{LaneId, WatchId};
use tombolo_sip::event::Reason;
use tombolo_wheel::TimerId;

use crate::owner::pairs::PairId;

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
    ends: [u16; TEXTS],
    /// Route header values, shared by all dialogs with the same.
    pub routes: Option<Arc<[Box<str>]>>,
    /// The last CSeq that we used.
    pub local_cseq: u32,
    /// The last CSeq that we saw.
    pub remote_cseq: u32,
    /// The CSeq of the NOTIFY that was not answered yet; zero when all were.
    pub in_flight: u32,
    /// When it ends, in seconds since the Unix epoch. Once it is ending: after how many seconds the watcher may ask
    /// again, zero when nothing is said about that.
    pub expires_at: u32,
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
    /// The watcher's URI.
    pub remote_uri: &'a str,
    /// The presentity's URI, as the watcher named it.
    pub local_uri: &'a str,
    /// Where requests go.
    pub remote_target: &'a str,
    /// The `id` of the Event header; empty when it had none.
    pub event_id: &'a str,
}

const TEXTS: usize = 6;

impl DialogTexts<'_> {
    fn pack(&self) -> Option<(Box<str>, [u16; TEXTS])> {
        let parts = [
            self.call_id,
            self.remote_tag,
            self.remote_uri,
            self.local_uri,
            self.remote_target,
            self.event_id,
        ];
        let text = parts.concat();
        let mut ends = [0; TEXTS];
        let mut end = 0;
        for (part, slot) in parts.iter().zip(&mut ends) {
            end += part.len();
            *slot = u16::try_from(end).ok()?;
        }
        Some((text.into(), ends))
    }
}

impl Dialog {
    /// A dialog with its texts; `None` when they are over 64 KiB.
    pub fn new(
        row: u64,
        pair: PairId,
        watch: WatchId,
        lane: LaneId,
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
            in_flight: 0,
            expires_at: 0,
            notified_at: 0,
            expiry: None,
            activity: None,
        })
    }

    /// The texts.
    pub fn texts(&self) -> DialogTexts<'_> {
        let part = |n: usize| {
            let begin = if n == 0 { 0 } else { self.ends[n - 1] };
            &self.text[usize::from(begin)..usize::from(self.ends[n])]
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

    /// The watcher renewed where it is reached (a target refresh request, RFC 3261 §12.2).
    pub fn refresh_target(&mut self, target: &str) {
        let texts = self.texts();
        if texts.remote_target == target {
            return;
        }
        if let Some((text, ends)) = (DialogTexts { remote_target: target, ..texts }).pack() {
            self.text = text;
            self.ends = ends;
        }
    }

    /// No more state will follow.
    pub fn is_ending(&self) -> bool {
        matches!(self.phase, Phase::Ending(_))
    }
}

/// All dialogs in which we notify.
#[derive(Debug, Default)]
pub struct Dialogs {
    slots: Vec<Option<Dialog>>,
    free: Vec<u32>,
    rows: HashMap<u64, u32, RandomState>,
}

impl Dialogs {
    /// Adds a dialog; its place.
    pub fn insert(&mut self, dialog: Dialog) -> u32 {
        let row = dialog.row;
        let at = match self.free.pop() {
            Some(at) => {
                self.slots[at as usize] = Some(dialog);
                at
            }
            None => {
                self.slots.push(Some(dialog));
                u32::try_from(self.slots.len() - 1).expect("fewer than 2^31 dialogs")
            }
        };
        self.rows.insert(row, at);
        at
    }

    /// Takes a dialog out.
    pub fn remove(&mut self, at: u32) -> Option<Dialog> {
        let dialog = self.slots.get_mut(at as usize)?.take()?;
        self.rows.remove(&dialog.row);
        self.free.push(at);
        Some(dialog)
    }

    /// The place of the dialog with this number.
    pub fn find(&self, row: u64) -> Option<u32> {
        self.rows.get(&row).copied()
    }

    /// The dialog at a place.
    pub fn dialog(&self, at: u32) -> Option<&Dialog> {
        self.slots.get(at as usize)?.as_ref()
    }

    /// The dialog at a place, to be changed.
    pub fn dialog_mut(&mut self, at: u32) -> Option<&mut Dialog> {
        self.slots.get_mut(at as usize)?.as_mut()
    }

    /// All dialogs with their places.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Dialog)> {
        self.slots.iter().enumerate().filter_map(|(at, dialog)| Some((at as u32, dialog.as_ref()?)))
    }

    /// Number of dialogs.
    pub fn len(&self) -> usize {
        self.rows.len()
    }
}
