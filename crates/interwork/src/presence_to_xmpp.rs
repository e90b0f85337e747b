//! A presence state as stanzas (RFC 8048 §6.3, RFC 6121 §4): the difference between what was sent and what may be seen.
//!
//! The stanzas of one difference are made once and go to many watchers, so each is kept in two halves around the
//! watcher's address.

use std::io::Write as _;

use tombolo_presence::{Availability, Device, Note, PresenceState, cut_text};
use tombolo_xmpp::write::{escape_attribute, escape_text};

/// One stanza without its receiver: `before`, the escaped address, `after`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Halves {
    /// From `<presence` to the quote that opens the value of `to`.
    pub before: Box<[u8]>,
    /// From the quote that closes it to the end of the stanza.
    pub after: Box<[u8]>,
}

/// The stanzas that bring a watcher who was sent `old` to `new`.
///
/// New and changed devices are told, vanished ones as `unavailable`. `is_whole` tells the unchanged ones too; when
/// none is available it gives the one bare `unavailable` that answers a probe (RFC 6121 §4.3.2). No stanza is larger than
/// `limit` octets, whoever receives it: notes that do not fit are cut or left out. A long note about the person stands with
/// the most available device alone.
pub fn difference(
    user: &str,
    old: &PresenceState,
    new: &PresenceState,
    is_whole: bool,
    limit: usize,
) -> Vec<Halves> {
    let limit = limit.saturating_sub(MAX_ADDRESS_LEN);
    let best = new.devices.iter().min_by_key(|device| device.availability).map(|device| &*device.id);
    let mut stanzas = Vec::new();
    if !new.is_open() {
        // One bare `unavailable` ends every device at once (RFC 6121 §4.5.4).
        if is_whole || old.is_open() || closing_notes(old) != closing_notes(new) {
            stanzas.push(unavailable(user, "", closing_notes(new), limit));
        }
        return stanzas;
    }
    for device in old.devices.iter().filter(|device| device.availability.is_open()) {
        let now = new.device(&device.id);
        if now.is_none_or(|now| !now.availability.is_open()) {
            let notes = now.map_or(&[][..], |now| &now.notes);
            stanzas.push(unavailable(user, &device.id, notes, limit));
        }
    }
    for device in new.devices.iter().filter(|device| device.availability.is_open()) {
        let is_known = old.device(&device.id) == Some(device) && old.notes == new.notes;
        if is_whole || !is_known {
            let notes = notes_of(device, new, best == Some(&*device.id));
            stanzas.push(available(user, device, notes, limit));
        }
    }
    stanzas
}

/// Writes a stanza of the four subscription types, or a probe: bare to bare (RFC 6121 §3.1).
pub fn bare_presence(kind: &str, from: &str, to: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"<presence from='");
    escape_attribute(out, from);
    out.extend_from_slice(b"' to='");
    escape_attribute(out, to);
    out.extend_from_slice(b"' type='");
    out.extend_from_slice(kind.as_bytes());
    out.extend_from_slice(b"'/>");
}

/// A device's own notes, else those of the person (STOX-P-47); long ones of the person with one device only.
fn notes_of<'a>(device: &'a Device, state: &'a PresenceState, is_best: bool) -> &'a [Note] {
    let len: usize = state.notes.iter().map(|note| note.text.len()).sum();
    match device.notes.is_empty() {
        true if is_best || len <= REPEATED_NOTE_LEN => &state.notes,
        true => &[],
        false => &device.notes,
    }
}

/// A person's note that is repeated for each device is at most so long, in octets.
const REPEATED_NOTE_LEN: usize = 256;
/// The longest bare address (RFC 7622 §3.1).
const MAX_ADDRESS_LEN: usize = 2047;

/// The notes that an `unavailable` of the whole person carries.
fn closing_notes(state: &PresenceState) -> &[Note] {
    if !state.notes.is_empty() {
        return &state.notes;
    }
    state.devices.iter().map(|device| &device.notes[..]).find(|notes| !notes.is_empty()).unwrap_or(&[])
}

fn available(user: &str, device: &Device, notes: &[Note], limit: usize) -> Halves {
    let show = match device.availability {
        Availability::Chat => "chat",
        Availability::Away => "away",
        Availability::ExtendedAway => "xa",
        Availability::DoNotDisturb => "dnd",
        Availability::Available | Availability::Unavailable => "",
    };
    fitting(notes, limit, |notes| {
        let mut inner = Vec::new();
        if !show.is_empty() {
            inner.extend_from_slice(b"<show>");
            inner.extend_from_slice(show.as_bytes());
            inner.extend_from_slice(b"</show>");
        }
        push_notes(notes, &mut inner);
        if let Some(priority) = device.priority {
            write!(inner, "<priority>{priority}</priority>").expect("a Vec takes everything");
        }
        if let Some(since) = device.idle_since {
            inner.extend_from_slice(b"<idle xmlns='urn:xmpp:idle:1' since='");
            inner.extend_from_slice(crate::time::utc_text(since).as_bytes());
            inner.extend_from_slice(b"'/>");
        }
        halves(user, &device.id, "", &inner)
    })
}

/// `unavailable` holds no show and no priority (XP-27).
fn unavailable(user: &str, device: &str, notes: &[Note], limit: usize) -> Halves {
    fitting(notes, limit, |notes| {
        let mut inner = Vec::new();
        push_notes(notes, &mut inner);
        halves(user, device, " type='unavailable'", &inner)
    })
}

/// What `write` makes of as much of the notes as fits: all, the beginning of the first, or none.
fn fitting(notes: &[Note], limit: usize, write: impl Fn(&[Note]) -> Halves) -> Halves {
    let len = |halves: &Halves| halves.before.len() + halves.after.len();
    let whole = write(notes);
    if len(&whole) <= limit {
        return whole;
    }
    let Some(first) = notes.first() else { return whole };
    let short = Note { lang: first.lang.clone(), text: cut_text(&first.text, 256).into() };
    let shorter = write(&[short]);
    if len(&shorter) <= limit { shorter } else { write(&[]) }
}

fn push_notes(notes: &[Note], out: &mut Vec<u8>) {
    for note in notes {
        out.extend_from_slice(b"<status");
        if let Some(lang) = &note.lang {
            out.extend_from_slice(b" xml:lang='");
            escape_attribute(out, lang);
            out.push(b'\'');
        }
        out.push(b'>');
        escape_text(out, &note.text);
        out.extend_from_slice(b"</status>");
    }
}

fn halves(user: &str, device: &str, attributes: &str, inner: &[u8]) -> Halves {
    let mut before = b"<presence from='".to_vec();
    escape_attribute(&mut before, user);
    if !device.is_empty() {
        before.push(b'/');
        escape_attribute(&mut before, device);
    }
    before.extend_from_slice(b"' to='");
    let mut after = Vec::with_capacity(attributes.len() + inner.len() + 14);
    after.push(b'\'');
    after.extend_from_slice(attributes.as_bytes());
    if inner.is_empty() {
        after.extend_from_slice(b"/>");
    } else {
        after.push(b'>');
        after.extend_from_slice(inner);
        after.extend_from_slice(b"</presence>");
    }
    Halves { before: before.into(), after: after.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(id: &str, availability: Availability) -> Device {
        Device { id: id.into(), availability, priority: None, notes: Vec::new(), idle_since: None }
    }

    fn state(devices: &[Device]) -> PresenceState {
        let mut state = PresenceState::default();
        devices.iter().for_each(|device| state.set(device.clone()));
        state
    }

    fn texts(old: &PresenceState, new: &PresenceState, is_whole: bool) -> Vec<String> {
        difference("r@s.example", old, new, is_whole, 262_144)
            .iter()
            .map(|halves| [&halves.before[..], b"j@x", &halves.after].concat())
            .map(|stanza| String::from_utf8(stanza).expect("UTF-8"))
            .collect()
    }

    #[test]
    fn stox_p_44_each_device_is_a_stanza_and_a_vanished_one_is_unavailable() {
        let old = state(&[device("a", Availability::Available), device("b", Availability::Away)]);
        let new = state(&[device("a", Availability::Available), device("c", Availability::DoNotDisturb)]);
        assert_eq!(
            texts(&old, &new, false),
            [
                "<presence from='r@s.example/b' to='j@x' type='unavailable'/>",
                "<presence from='r@s.example/c' to='j@x'><show>dnd</show></presence>",
            ]
        );
    }

    #[test]
    fn whole_state_tells_unchanged_devices_too() {
        let same = state(&[device("a", Availability::Chat)]);
        assert!(texts(&same, &same, false).is_empty());
        assert_eq!(
            texts(&same, &same, true),
            ["<presence from='r@s.example/a' to='j@x'><show>chat</show></presence>"]
        );
    }

    #[test]
    fn xp_27_unavailable_holds_no_show_and_no_priority() {
        let mut gone = device("a", Availability::Unavailable);
        gone.priority = Some(5);
        gone.notes.push(Note { lang: Some("de".into()), text: "bis <morgen>".into() });
        let old = state(&[device("a", Availability::Away)]);
        assert_eq!(
            texts(&old, &state(&[gone]), false),
            ["<presence from='r@s.example' to='j@x' type='unavailable'>\
              <status xml:lang='de'>bis &lt;morgen&gt;</status></presence>"]
        );
    }

    #[test]
    fn nothing_known_answers_a_probe_with_one_bare_unavailable() {
        let nothing = PresenceState::default();
        assert_eq!(
            texts(&nothing, &nothing, true),
            ["<presence from='r@s.example' to='j@x' type='unavailable'/>"]
        );
        assert!(texts(&nothing, &nothing, false).is_empty());
    }

    #[test]
    fn the_persons_note_stands_where_a_device_has_none() {
        let mut new = state(&[device("a", Availability::Available)]);
        new.notes.push(Note { lang: None, text: "At lunch".into() });
        assert_eq!(
            texts(&PresenceState::default(), &new, false),
            ["<presence from='r@s.example/a' to='j@x'><status>At lunch</status></presence>"]
        );
    }

    #[test]
    fn no_stanza_is_larger_than_the_partner_takes_and_a_note_that_is_cut_says_so() {
        let mut new = state(&[device("a", Availability::Available), device("b", Availability::Away)]);
        new.notes.push(Note { lang: None, text: "&".repeat(2000).into() });
        let stanzas = |limit| {
            let halves = difference("r@s.example", &PresenceState::default(), &new, false, limit);
            let len = |halves: &Halves| halves.before.len() + halves.after.len() + MAX_ADDRESS_LEN;
            assert!(halves.iter().all(|halves| len(halves) <= limit), "{limit}");
            halves
                .iter()
                .map(|halves| String::from_utf8(halves.after.to_vec()).expect("UTF-8"))
                .collect::<Vec<_>>()
        };
        let [best, other] = &stanzas(262_144)[..] else { panic!("two devices") };
        assert_eq!(best.matches("&amp;").count(), 2000);
        assert!(!other.contains("<status>"), "a long note of the person stands once");
        let [best, _] = &stanzas(10_000)[..] else { panic!("two devices") };
        assert!(best.matches("&amp;").count() == 253 && best.contains("…</status>"), "{best}");
    }
}
