//! How many users of built-in homes have phones, and how many Contacts those registered.
//!
//! Each user's actor says what it has whenever that changes; what it said is taken back when it ends.

use std::sync::Arc;

use parking_lot::Mutex;
use tombolo_telemetry::Metrics;

/// The registrations of all users. Clones share them.
#[derive(Debug, Clone)]
pub struct Registrations {
    metrics: Arc<Metrics>,
    sum: Arc<Mutex<RegistrationCounts>>,
}

/// What is registered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RegistrationCounts {
    /// Users with a binding.
    pub users: usize,
    /// Bindings of all of them.
    pub bindings: usize,
}

/// What one user has of it.
#[derive(Debug)]
pub struct OwnRegistrations {
    all: Registrations,
    bindings: usize,
}

impl Registrations {
    /// None so far.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, sum: Arc::default() }
    }

    /// What is registered at the moment.
    pub fn counts(&self) -> RegistrationCounts {
        *self.sum.lock()
    }

    /// A user without phones.
    pub fn of_user(&self) -> OwnRegistrations {
        OwnRegistrations { all: self.clone(), bindings: 0 }
    }
}

impl OwnRegistrations {
    /// The user has so many bindings now.
    pub fn set(&mut self, bindings: usize) {
        if bindings == self.bindings {
            return;
        }
        let mut sum = self.all.sum.lock();
        sum.users = sum.users + usize::from(bindings > 0) - usize::from(self.bindings > 0);
        sum.bindings = sum.bindings + bindings - self.bindings;
        self.bindings = bindings;
        self.all.metrics.registered_users(sum.users as i64);
        self.all.metrics.registrations(sum.bindings as i64);
    }
}

impl Drop for OwnRegistrations {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_and_bindings_are_counted_until_they_are_gone() {
        let metrics = Arc::new(Metrics::new(1));
        let all = Registrations::new(metrics.clone());
        let (mut alice, mut bob) = (all.of_user(), all.of_user());
        alice.set(2);
        bob.set(1);
        bob.set(3);
        assert_eq!(all.counts(), RegistrationCounts { users: 2, bindings: 5 });
        assert!(metrics.render().contains("tombolo_registrations 5"));
        alice.set(0);
        assert_eq!(all.counts(), RegistrationCounts { users: 1, bindings: 3 });
        drop(bob);
        assert_eq!(all.counts(), RegistrationCounts::default());
        assert!(metrics.render().contains("tombolo_registered_users 0"));
    }
}
