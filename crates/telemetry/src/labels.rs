//! Closed sets of label values, and counters by them.
//!
//! In: one value of a set. Out: one more in its series. A label never comes from the network: whatever a peer invents
//! is counted as `other`. A series appears when it is first counted.

use std::sync::OnceLock;

use prometheus_client::{
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

/// A closed set of label values.
pub trait Label: Copy + 'static {
    /// The label's name.
    const NAME: &'static str;
    /// All values as they are shown, in the order of [`Label::index`].
    const VALUES: &'static [&'static str];

    /// The place of this value in [`Label::VALUES`].
    fn index(self) -> usize;
}

macro_rules! labels {
    ($(#[$doc:meta])* $set:ident as $name:literal { $($(#[$value_doc:meta])* $value:ident = $text:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $set {
            $($(#[$value_doc])* $value),*
        }

        impl Label for $set {
            const NAME: &'static str = $name;
            const VALUES: &'static [&'static str] = &[$($text),*];

            fn index(self) -> usize {
                self as usize
            }
        }
    };
}

labels! {
    /// What a stanza is.
    StanzaKind as "kind" {
        /// A message of any type.
        Message = "message",
        /// A state, a subscription, a probe.
        Presence = "presence",
        /// A request or an answer to one.
        Iq = "iq",
        /// None of these, or without proper addresses.
        Other = "other",
    }
}

labels! {
    /// A SIP method that we know.
    SipMethod as "method" {
        /// RFC 3261.
        Ack = "ACK",
        /// RFC 3261.
        Bye = "BYE",
        /// RFC 3261.
        Cancel = "CANCEL",
        /// RFC 6086.
        Info = "INFO",
        /// RFC 3261.
        Invite = "INVITE",
        /// RFC 3428.
        Message = "MESSAGE",
        /// RFC 6665.
        Notify = "NOTIFY",
        /// RFC 3261.
        Options = "OPTIONS",
        /// RFC 3262.
        Prack = "PRACK",
        /// RFC 3903.
        Publish = "PUBLISH",
        /// RFC 3515.
        Refer = "REFER",
        /// RFC 3261.
        Register = "REGISTER",
        /// RFC 6665.
        Subscribe = "SUBSCRIBE",
        /// RFC 3311.
        Update = "UPDATE",
        /// Any other.
        Other = "other",
    }
}

impl SipMethod {
    /// Its name, or `other`.
    pub fn as_str(self) -> &'static str {
        Self::VALUES[self.index()]
    }

    /// The method of this name; methods are case-sensitive (RFC 3261 §7.1).
    pub fn of(name: &str) -> Self {
        const ALL: [SipMethod; 14] = [
            SipMethod::Ack,
            SipMethod::Bye,
            SipMethod::Cancel,
            SipMethod::Info,
            SipMethod::Invite,
            SipMethod::Message,
            SipMethod::Notify,
            SipMethod::Options,
            SipMethod::Prack,
            SipMethod::Publish,
            SipMethod::Refer,
            SipMethod::Register,
            SipMethod::Subscribe,
            SipMethod::Update,
        ];
        ALL.into_iter().find(|method| Self::VALUES[method.index()] == name).unwrap_or(Self::Other)
    }
}

labels! {
    /// The class of a SIP response.
    StatusClass as "class" {
        /// 100 to 199.
        Provisional = "1xx",
        /// 200 to 299.
        Success = "2xx",
        /// 300 to 399.
        Redirection = "3xx",
        /// 400 to 499.
        RequestFailure = "4xx",
        /// 500 to 599.
        ServerFailure = "5xx",
        /// 600 to 699.
        GlobalFailure = "6xx",
        /// No status of SIP.
        Other = "other",
    }
}

impl StatusClass {
    /// The class of a status code.
    pub fn of(status: u16) -> Self {
        match status / 100 {
            1 => Self::Provisional,
            2 => Self::Success,
            3 => Self::Redirection,
            4 => Self::RequestFailure,
            5 => Self::ServerFailure,
            6 => Self::GlobalFailure,
            _ => Self::Other,
        }
    }
}

/// Counters by the values of one set.
#[derive(Debug)]
pub(crate) struct Counts<L> {
    family: Family<[(&'static str, &'static str); 1], Counter>,
    handles: Vec<OnceLock<Counter>>,
    set: std::marker::PhantomData<L>,
}

impl<L: Label> Counts<L> {
    pub(crate) fn register(registry: &mut Registry, name: &str, help: &str) -> Self {
        let family = Family::default();
        registry.register(name, help, family.clone());
        let handles = L::VALUES.iter().map(|_| OnceLock::new()).collect();
        Self { family, handles, set: std::marker::PhantomData }
    }

    pub(crate) fn add(&self, label: L, count: u64) {
        let index = label.index();
        let series = || self.family.get_or_create(&[(L::NAME, L::VALUES[index])]).clone();
        self.handles[index].get_or_init(series).inc_by(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_is_known_by_its_exact_name_and_all_others_are_one() {
        for name in SipMethod::VALUES.iter().filter(|name| **name != "other") {
            assert_eq!(SipMethod::VALUES[SipMethod::of(name).index()], *name);
        }
        for name in ["subscribe", "other", "EVIL\"} 1", ""] {
            assert_eq!(SipMethod::of(name), SipMethod::Other, "{name}");
        }
    }

    #[test]
    fn a_status_outside_of_100_to_699_has_no_class() {
        for (status, class) in
            [(100, "1xx"), (299, "2xx"), (404, "4xx"), (699, "6xx"), (99, "other"), (700, "other")]
        {
            assert_eq!(StatusClass::VALUES[StatusClass::of(status).index()], class, "{status}");
        }
    }
}
