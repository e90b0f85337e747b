//! What may be seen of a presentity: an immutable document of its devices.

/// How reachable one device says it is. The order is from most to least available.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Availability {
    /// Wants to talk (`<show>chat</show>`).
    Chat,
    /// Reachable (no `<show/>`, basic `open`).
    Available,
    /// Away for a while.
    Away,
    /// Away for long.
    ExtendedAway,
    /// Do not disturb, busy.
    DoNotDisturb,
    /// Not reachable (type `unavailable`, basic `closed`).
    Unavailable,
}

impl Availability {
    /// True for everything but [`Availability::Unavailable`].
    pub fn is_open(self) -> bool {
        self != Self::Unavailable
    }
}

/// A text for people, in one language.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Note {
    /// Language tag (BCP 47), if said.
    pub lang: Option<Box<str>>,
    /// The text; holds only characters that XML 1.0 allows.
    pub text: Box<str>,
}

/// One device (XMPP resource, PIDF tuple) of a presentity.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Device {
    /// XMPP resource, or tuple id without its `ID-`; empty when the sender named none (bare address).
    pub id: Box<str>,
    /// How reachable it says it is.
    pub availability: Availability,
    /// XMPP priority, -128 to 127; `None` when the sender gave none.
    pub priority: Option<i8>,
    /// Status texts, one per language.
    pub notes: Vec<Note>,
    /// Since when the person did not touch the device, in seconds since the Unix epoch.
    pub idle_since: Option<u64>,
}

/// All devices of a presentity as one receiver may see them, in order of their ids.
///
/// The empty document means that nothing is known.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct PresenceState {
    /// Sorted by id, each id once. A device that is unavailable may stand here for its last note.
    pub devices: Vec<Device>,
    /// Notes about the person rather than a device.
    pub notes: Vec<Note>,
}

impl PresenceState {
    /// True when some device is reachable.
    pub fn is_open(&self) -> bool {
        self.devices.iter().any(|device| device.availability.is_open())
    }

    /// True when nothing at all is known.
    pub fn is_empty(&self) -> bool {
        self.devices.is_empty() && self.notes.is_empty()
    }

    /// Puts `device` in its place, instead of the one with the same id.
    pub fn set(&mut self, device: Device) {
        match self.devices.binary_search_by(|known| known.id.cmp(&device.id)) {
            Ok(at) => self.devices[at] = device,
            Err(at) => self.devices.insert(at, device),
        }
    }

    /// The device with this id.
    pub fn device(&self, id: &str) -> Option<&Device> {
        self.devices.binary_search_by(|known| (*known.id).cmp(id)).ok().map(|at| &self.devices[at])
    }

    /// Takes the device with this id out; `None` when there was none.
    pub fn remove(&mut self, id: &str) -> Option<Device> {
        let at = self.devices.binary_search_by(|known| (*known.id).cmp(id)).ok()?;
        Some(self.devices.remove(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(id: &str, availability: Availability) -> Device {
        Device { id: id.into(), availability, priority: None, notes: Vec::new(), idle_since: None }
    }

    #[test]
    fn devices_keep_their_order_and_each_id_stands_once() {
        let mut state = PresenceState::default();
        for id in ["b", "a", "c", "a"] {
            state.set(device(id, Availability::Away));
        }
        let ids: Vec<&str> = state.devices.iter().map(|device| &*device.id).collect();
        assert_eq!(ids, ["a", "b", "c"]);
        assert!(state.remove("b").is_some() && state.remove("b").is_none());
    }

    #[test]
    fn a_document_is_open_when_one_device_is() {
        let mut state = PresenceState::default();
        assert!(!state.is_open() && state.is_empty());
        state.set(device("a", Availability::Unavailable));
        assert!(!state.is_open() && !state.is_empty());
        state.set(device("b", Availability::DoNotDisturb));
        assert!(state.is_open());
    }
}
