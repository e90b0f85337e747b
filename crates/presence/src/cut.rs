//! States and texts that fit a number of octets: what people can do without goes first.

use std::{borrow::Cow, cmp::Reverse};

use tombolo_budget::Octets;

use crate::{Device, Note, PresenceState};

/// `text`, or as much of its beginning as fits `limit` octets with the `…` that then stands behind it.
///
/// ```
/// assert_eq!(tombolo_presence::cut_text("at the dentist", 9), "at the…");
/// ```
pub fn cut_text(text: &str, limit: usize) -> Cow<'_, str> {
    if text.len() <= limit {
        return Cow::Borrowed(text);
    }
    let Some(room) = limit.checked_sub(ELLIPSIS.len()) else { return Cow::Borrowed("") };
    let begin = &text[..text.floor_char_boundary(room)];
    Cow::Owned(format!("{}{ELLIPSIS}", begin.trim_end()))
}

const ELLIPSIS: &str = "…";

impl Octets for Note {
    fn octets(&self) -> usize {
        size_of::<Self>() + self.lang.as_deref().map_or(0, str::len) + self.text.len()
    }
}

impl Octets for Device {
    fn octets(&self) -> usize {
        size_of::<Self>() + self.id.len() + self.notes.iter().map(Octets::octets).sum::<usize>()
    }
}

impl Octets for PresenceState {
    fn octets(&self) -> usize {
        size_of::<Self>()
            + self.devices.iter().map(Octets::octets).sum::<usize>()
            + self.notes.iter().map(Octets::octets).sum::<usize>()
    }
}

impl PresenceState {
    /// Makes the state take at most `limit` octets, as far as one device without a note allows. True when something was
    /// left out: first the ends of notes, then notes in further languages, then all notes, then devices from the least
    /// available on.
    pub fn fit(&mut self, limit: usize) -> bool {
        if self.octets() <= limit {
            return false;
        }
        for (notes, note_len) in [(usize::MAX, 256), (1, 256), (1, 64), (0, 0)] {
            let own = self.devices.iter_mut().map(|device| &mut device.notes);
            for list in own.chain([&mut self.notes]) {
                cut_notes(list, notes, note_len);
            }
            if self.octets() <= limit {
                return true;
            }
        }
        let mut order: Vec<usize> = (0..self.devices.len()).collect();
        order.sort_by_key(|at| Reverse(self.devices[*at].availability));
        let mut octets = self.octets();
        let mut gone = vec![false; self.devices.len()];
        for at in order.into_iter().take(self.devices.len().saturating_sub(1)) {
            if octets <= limit {
                break;
            }
            octets -= self.devices[at].octets();
            gone[at] = true;
        }
        let mut gone = gone.into_iter();
        self.devices.retain(|_| !gone.next().unwrap_or(false));
        true
    }
}

fn cut_notes(notes: &mut Vec<Note>, most: usize, note_len: usize) {
    notes.truncate(most);
    for note in notes {
        if let Cow::Owned(shorter) = cut_text(&note.text, note_len) {
            note.text = shorter.into();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Availability;

    fn device(id: &str, availability: Availability, note: &str) -> Device {
        let note = |lang: &str| Note { lang: Some(lang.into()), text: note.into() };
        let notes = vec![note("en"), note("cs")];
        Device { id: id.into(), availability, priority: None, notes, idle_since: None }
    }

    fn state() -> PresenceState {
        let mut state = PresenceState::default();
        for n in 0..32 {
            let availability = if n == 7 { Availability::Chat } else { Availability::Away };
            state.set(device(&format!("device-{n}"), availability, &"ž".repeat(1000)));
        }
        state.notes.push(Note { lang: None, text: "at lunch".into() });
        state
    }

    #[test]
    fn a_text_is_cut_between_characters_and_says_so() {
        assert_eq!(cut_text("oběd", 5), "oběd");
        for (limit, cut) in [(4, "o…"), (5, "ob…"), (6, "ob…"), (7, "obě…"), (3, "…"), (2, ""), (0, "")]
        {
            assert_eq!(cut_text("oběd doma", limit), cut, "{limit}");
            assert!(cut.len() <= limit);
        }
    }

    #[test]
    fn a_state_loses_ends_of_notes_then_languages_then_notes_then_devices() {
        let whole = state();
        let cut = |limit| {
            let mut state = whole.clone();
            assert!(state.fit(limit) && state.octets() <= limit, "{limit}: {}", state.octets());
            state
        };
        let mut same = whole.clone();
        assert!(!same.fit(whole.octets()) && same == whole);
        let shorter = cut(40_000);
        assert!(shorter.devices.iter().all(|device| device.notes.len() == 2));
        assert!(shorter.devices[0].notes[0].text.ends_with("ž…"));
        assert_eq!(cut(14_000).devices[0].notes.len(), 1);
        let bare = cut(4000);
        assert!(bare.devices.len() == 32 && bare.devices.iter().all(|device| device.notes.is_empty()));
        let few = cut(300);
        assert!((1..4).contains(&few.devices.len()));
        assert!(few.device("device-7").is_some(), "the most available device stays");
        let mut least = whole.clone();
        assert!(least.fit(0) && least.devices.len() == 1);
    }
}
