//! A state with its notes cut, for ways that take little.

use tombolo_presence::{Note, PresenceState};

/// The state with each note cut to so many characters, the last of which is `…`; without notes for 0.
pub fn with_short_notes(state: &PresenceState, max_chars: usize) -> PresenceState {
    let mut short = state.clone();
    cut(&mut short.notes, max_chars);
    for device in &mut short.devices {
        cut(&mut device.notes, max_chars);
    }
    short
}

fn cut(notes: &mut Vec<Note>, max_chars: usize) {
    if max_chars == 0 {
        return notes.clear();
    }
    for note in notes {
        if note.text.chars().nth(max_chars).is_some() {
            let kept: String = note.text.chars().take(max_chars - 1).collect();
            note.text = format!("{kept}…").into();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_note_keeps_its_begin_and_a_short_one_everything() {
        let mut state = PresenceState::default();
        for text in ["höchstens", "kurz", "fünf5"] {
            state.notes.push(Note { lang: None, text: text.into() });
        }
        let texts = |max| -> Vec<String> {
            with_short_notes(&state, max).notes.iter().map(|note| note.text.to_string()).collect()
        };
        assert_eq!(texts(5), ["höch…", "kurz", "fünf5"]);
        assert_eq!(texts(1), ["…", "…", "…"]);
        assert!(texts(0).is_empty());
    }
}
