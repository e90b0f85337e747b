//! An address that a person typed: in a file of settings, on the command line, or to the administration.
//!
//! Text goes in, a prepared bare [`Address`] comes out, or a sentence that says what is wrong with it. Everything that
//! people type goes through [`typed_address`], so that what one command accepts no other refuses.

use tombolo_presence::Address;
use tombolo_sip::uri::UriRef;
use tombolo_xmpp::jid::{Jid, JidError};

use crate::address::{AddressFault, address_of_uri};

/// Why a typed text is no bare address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TypedAddressError {
    /// It names no user or no domain.
    #[error("{text:?} is no address; write user@domain")]
    NotBare {
        /// What was typed.
        text: Box<str>,
    },
    /// It names a device.
    #[error("{text:?} names the device {device:?}; write {bare}")]
    HasDevice {
        /// What was typed.
        text: Box<str>,
        /// What stands behind the `/`, or in the parameter `gr`.
        device: Box<str>,
        /// The address without it.
        bare: Address,
    },
    /// A part is not allowed in an XMPP address (RFC 7622).
    #[error(
        "{text:?} cannot be an XMPP address: {fault}; characters such as ' & and space are written \\27 \\26 \\20 (XEP-0106)"
    )]
    NotAllowed {
        /// What was typed.
        text: Box<str>,
        /// Which part, and why.
        fault: JidError,
    },
    /// A SIP URI that means nobody.
    #[error("{text:?} is no address: {fault}")]
    Uri {
        /// What was typed.
        text: Box<str>,
        /// What is wrong with it.
        fault: AddressFault,
    },
}

/// The bare address that somebody typed as `user@domain`, or as a SIP URI with its scheme.
pub fn typed_address(text: &str) -> Result<Address, TypedAddressError> {
    let is_uri = text.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("sip:"))
        || text.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("sips:"));
    if is_uri {
        let fault = |fault| TypedAddressError::Uri { text: text.into(), fault };
        let uri = UriRef::parse(text).map_err(|_| fault(AddressFault::NoUser))?;
        let meant = address_of_uri(&uri).map_err(fault)?;
        return match meant.device {
            None => Ok(meant.address),
            Some(device) => {
                Err(TypedAddressError::HasDevice { text: text.into(), device, bare: meant.address })
            }
        };
    }
    let not_bare = || TypedAddressError::NotBare { text: text.into() };
    let jid = Jid::parse(text).map_err(|fault| match fault {
        JidError::EmptyPart => not_bare(),
        fault => TypedAddressError::NotAllowed { text: text.into(), fault },
    })?;
    if jid.local().is_none() {
        return Err(not_bare());
    }
    let bare = Address::from_prepared(jid.bare()).map_err(|_| not_bare())?;
    match jid.resource() {
        None => Ok(bare),
        Some(device) => Err(TypedAddressError::HasDevice { text: text.into(), device: device.into(), bare }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typed_address_is_prepared() {
        for (typed, address) in [
            ("alice@sip.localhost", "alice@sip.localhost"),
            ("Alice@SIP.localhost.", "alice@sip.localhost"),
            ("sip:Alice@SIP.localhost", "alice@sip.localhost"),
            ("SIPS:alice@sip.localhost;transport=tls", "alice@sip.localhost"),
            ("sip:d'artagnan@sip.localhost", "d\\27artagnan@sip.localhost"),
            ("bücher@bücher.example", "bücher@bücher.example"),
            ("bücher@xn--bcher-kva.example", "bücher@bücher.example"),
        ] {
            assert_eq!(
                typed_address(typed).map(|address| address.to_string()),
                Ok(address.into()),
                "{typed}"
            );
        }
    }

    #[test]
    fn what_is_no_bare_address_is_refused_with_what_to_write() {
        for (typed, part) in [
            ("", "write user@domain"),
            ("alice", "write user@domain"),
            ("@sip.localhost", "write user@domain"),
            ("alice@", "write user@domain"),
            ("alice@sip.localhost/phone", "write alice@sip.localhost"),
            ("sip:alice@sip.localhost;gr=phone", "write alice@sip.localhost"),
            ("x/y@sip.localhost", "write user@domain"),
            ("d'artagnan@sip.localhost", "\\27"),
            ("a b@sip.localhost", "\\20"),
            ("alice@bob@sip.localhost", "the domain is not allowed"),
            ("sip:sip.localhost", "names no user"),
            ("sip:", "names no user"),
        ] {
            let told = typed_address(typed).expect_err(typed).to_string();
            assert!(told.contains(part), "{typed:?}: {told}");
        }
    }

    /// Whatever is accepted is accepted again as it is shown, and is then the same: files are written with it.
    #[test]
    fn a_shown_address_is_typed_back_to_itself() {
        for typed in [
            "sip:d'artagnan@sip.localhost",
            "sip:a%20b@sip.localhost",
            "sip:50%25@sip.localhost",
            "STRASSE@x.y",
        ] {
            let address = typed_address(typed).expect(typed);
            assert_eq!(typed_address(address.as_str()), Ok(address.clone()), "{typed}");
        }
    }
}
