//! The namespaces that an element has around it: those of the stream header.

use smallvec::SmallVec;

use super::is_same_prefix;
use crate::ns;

/// Namespaces that hold outside an element, as its stream header declared them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// (prefix, namespace); the empty prefix is the default namespace.
    bindings: SmallVec<[(Box<str>, Box<str>); 3]>,
}

impl Scope {
    /// Nothing is declared: for a stream header itself.
    pub fn empty() -> Self {
        Self { bindings: SmallVec::new() }
    }

    /// Only the default namespace is declared, as `jabber:server`: for a stanza that was cut out of its stream.
    pub fn server() -> Self {
        let mut scope = Self::empty();
        scope.declare("", ns::SERVER);
        scope
    }

    /// Adds what one `xmlns` attribute says; `prefix` is empty for the default namespace.
    pub fn declare(&mut self, prefix: &str, namespace: &str) {
        self.bindings.retain(|(known, _)| &**known != prefix);
        self.bindings.push((prefix.into(), namespace.into()));
    }

    /// The namespace of a prefix, if declared.
    pub fn namespace(&self, prefix: &str) -> Option<&str> {
        self.bindings
            .iter()
            .find(|(known, _)| is_same_prefix(known, prefix))
            .map(|(_, namespace)| &**namespace)
    }

    /// All bindings as (prefix, namespace).
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.bindings.iter().map(|(prefix, namespace)| (&**prefix, &**namespace))
    }
}
