//! Phones of the built-in homes that register: what a registration says of a user's presence, and what ends with it.

use tombolo_presence::{Availability, Device};

use super::{Owner, keys::PhoneKey, publish::Publications};

/// A phone that is registered.
#[derive(Debug)]
pub struct RegisteredPhone {
    /// See [`PhoneKey::instance`].
    instance: Box<str>,
    /// By what watchers know it while it publishes nothing.
    device_id: Box<str>,
    /// It published since it registered: from then on its publications alone say whether it is available.
    publishes: bool,
}

impl Publications {
    /// The devices of phones that are registered and never published. None while a publication of an earlier version
    /// stands, which may be of any of them.
    pub(super) fn registered_devices(&self) -> impl Iterator<Item = Device> + '_ {
        let is_unclear = self.compositor.iter().any(|(_, document)| document.source.is_none());
        self.registered.iter().filter(move |phone| !is_unclear && !phone.publishes).map(|phone| Device {
            id: phone.device_id.clone(),
            availability: Availability::Available,
            priority: None,
            notes: Vec::new(),
            idle_since: None,
        })
    }

    /// A phone published.
    pub(super) fn note_publisher(&mut self, instance: &str) {
        for phone in self.registered.iter_mut().filter(|phone| *phone.instance == *instance) {
            phone.publishes = true;
        }
    }
}

impl Owner {
    /// A phone registered (RFC 3856 §7.2): it counts as available until it says more itself.
    pub(super) fn handle_phone_registered(&mut self, phone: &PhoneKey) {
        if !self.settings.registration_is_presence || !self.accounts.approve.contains_key(&phone.aor) {
            return;
        }
        let id = self.publisher(&phone.aor);
        let Some(publications) = self.users.get_mut(&id).and_then(|user| user.publications.as_mut()) else {
            return;
        };
        if publications.registered.iter().any(|known| known.instance == phone.instance) {
            return;
        }
        let publishes = publications.of_source(&phone.instance).next().is_some();
        let (instance, device_id) = (phone.instance.clone(), phone.device_id());
        publications.registered.push(RegisteredPhone { instance, device_id, publishes });
        self.compose(id);
    }

    /// A phone is gone: so is what it published (XP-26).
    pub(super) fn handle_phone_gone(&mut self, phone: &PhoneKey) {
        let Some(id) = self.addresses.find(phone.aor.as_str()) else { return };
        let Some(publications) = self.users.get_mut(&id).and_then(|user| user.publications.as_mut()) else {
            return;
        };
        publications.registered.retain(|known| known.instance != phone.instance);
        let over: Vec<_> = publications.of_source(&phone.instance).collect();
        self.drop_some_publications(id, &over);
        self.compose(id);
        self.arm_publications(id);
        self.drop_user_if_idle(id);
    }
}
