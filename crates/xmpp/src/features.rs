//! Stream features (RFC 6120 §4.3): what a receiver offers.

use crate::{ns, write, xml::Reader};

/// An offer of STARTTLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StartTlsOffer {
    /// May be used.
    Optional,
    /// Must be used.
    Required,
}

/// What a receiver offers. Features that are not named here are passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Features {
    /// STARTTLS.
    pub starttls: Option<StartTlsOffer>,
    /// The SASL mechanism EXTERNAL.
    pub external: bool,
    /// Dialback is advertised.
    pub dialback: bool,
    /// Dialback errors are understood (XEP-0220 §2.4.2).
    pub dialback_errors: bool,
    /// The largest stanza in octets that the receiver takes (XEP-0478); `None` when it does not say.
    pub max_bytes: Option<u32>,
}

impl Features {
    /// Reads the `<stream:features/>` that `reader` has just opened.
    pub fn read(reader: &mut Reader<'_>) -> Self {
        let mut features = Self::default();
        while let Some(child) = reader.child() {
            match (&*child.ns, child.name) {
                (ns::TLS, "starttls") => {
                    features.starttls = Some(StartTlsOffer::Optional);
                    while let Some(child) = reader.child() {
                        if child.is(ns::TLS, "required") {
                            features.starttls = Some(StartTlsOffer::Required);
                        }
                        reader.skip();
                    }
                }
                (ns::SASL, "mechanisms") => {
                    while let Some(child) = reader.child() {
                        if child.is(ns::SASL, "mechanism") {
                            features.external |= reader.text().trim() == "EXTERNAL";
                        } else {
                            reader.skip();
                        }
                    }
                }
                (ns::DIALBACK_FEATURE, "dialback") => {
                    features.dialback = true;
                    while let Some(child) = reader.child() {
                        features.dialback_errors |= child.is(ns::DIALBACK_FEATURE, "errors");
                        reader.skip();
                    }
                }
                (ns::STREAM_LIMITS, "limits") => {
                    while let Some(child) = reader.child() {
                        if child.is(ns::STREAM_LIMITS, "max-bytes") {
                            features.max_bytes = reader.text().trim().parse().ok();
                        } else {
                            reader.skip();
                        }
                    }
                }
                _ => reader.skip(),
            }
        }
        features
    }

    /// Appends the features. The prefix `stream` must be declared by the header before them.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"<stream:features>");
        match self.starttls {
            Some(StartTlsOffer::Required) => {
                out.extend_from_slice(
                    b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls>",
                );
            }
            Some(StartTlsOffer::Optional) => write::empty_element(out, "starttls", ns::TLS),
            None => {}
        }
        if self.external {
            out.extend_from_slice(
                b"<mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>EXTERNAL</mechanism></mechanisms>",
            );
        }
        if self.dialback {
            out.extend_from_slice(b"<dialback xmlns='urn:xmpp:features:dialback'>");
            out.extend_from_slice(if self.dialback_errors {
                b"<errors/></dialback>" as &[u8]
            } else {
                b"</dialback>"
            });
        }
        if let Some(max_bytes) = self.max_bytes {
            out.extend_from_slice(b"<limits xmlns='urn:xmpp:stream-limits:0'>");
            write::text_element(out, "max-bytes", None, &max_bytes.to_string());
            out.extend_from_slice(b"</limits>");
        }
        out.extend_from_slice(b"</stream:features>");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xml::{Scope, XmlLimits, check};

    #[test]
    fn features_are_read_as_they_are_written() {
        let mut scope = Scope::server();
        scope.declare("stream", ns::STREAMS);
        for starttls in [None, Some(StartTlsOffer::Optional), Some(StartTlsOffer::Required)] {
            for bits in 0..4 {
                let (external, dialback) = (bits & 1 != 0, bits & 2 != 0);
                let max_bytes = external.then_some(262_144);
                let features =
                    Features { starttls, external, dialback, dialback_errors: dialback, max_bytes };
                let mut out = Vec::new();
                features.write(&mut out);
                check(&out, &scope, &XmlLimits::UNAUTHENTICATED).expect("well-formed");
                let text = String::from_utf8(out).expect("text");
                let (_, mut reader) = Reader::open(&text, &scope).expect("an element");
                assert_eq!(Features::read(&mut reader), features);
            }
        }
    }

    #[test]
    fn xs_lim_02_a_limit_is_read_beside_others_and_one_that_is_no_number_says_nothing() {
        let limit = |text: &str| {
            let xml = format!(
                "<f><limits xmlns='urn:xmpp:stream-limits:0'>{text}<idle-seconds>1800</idle-seconds></limits></f>"
            );
            let (_, mut reader) = Reader::open_stanza(&xml).expect("an element");
            Features::read(&mut reader).max_bytes
        };
        assert_eq!(limit("<max-bytes> 10000 </max-bytes>"), Some(10_000));
        for nothing in ["", "<max-bytes/>", "<max-bytes>-1</max-bytes>", "<max-bytes>many</max-bytes>"] {
            assert_eq!(limit(nothing), None, "{nothing:?}");
        }
    }

    #[test]
    fn what_ejabberd_offers_beside_is_passed_over() {
        let xml = "<f><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/><mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>\
            <mechanism>PLAIN</mechanism><mechanism> EXTERNAL </mechanism></mechanisms><ver xmlns='urn:xmpp:features:rosterver'/>\
            <c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='n' ver='v'/></f>";
        let (_, mut reader) = Reader::open_stanza(xml).expect("an element");
        let features = Features::read(&mut reader);
        assert_eq!(features.starttls, Some(StartTlsOffer::Optional));
        assert!(features.external && !features.dialback);
    }
}
