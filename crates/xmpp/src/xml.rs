//! The XML that XMPP allows (RFC 6120 §11): one strict gate in front, one trusting reader behind it.
//!
//! The gate says of an element, while its bytes arrive, whether it is well-formed, well-formed in its namespaces, and inside
//! the limits; [`check`] does so for one that is whole. [`Reader`] walks over text that passed the gate. Nothing here builds
//! a tree.

mod chars;
mod fault;
mod gate;
mod reader;
mod scope;
mod text;

pub(crate) use chars::is_space;
pub use chars::is_xml_char;
pub use fault::{XmlFault, XmlLimits};
pub use gate::{Checked, check, check_open_tag};
pub(crate) use gate::{Gate, Span, Step, valid_len};
pub use reader::{Attribute, Reader, Tag};
pub use scope::Scope;
pub use text::{unescape_attribute, unescape_text};

/// Whether two prefixes are one.
///
/// Mostly both are empty, and an empty text stands nowhere: the C library compares it by a masked read at that address,
/// which costs some processors a detour of hundreds of cycles.
fn is_same_prefix(left: &str, right: &str) -> bool {
    left.len() == right.len() && (left.is_empty() || left == right)
}

/// Namespace of the prefix `xml`, bound without a declaration.
pub const NS_XML: &str = "http://www.w3.org/XML/1998/namespace";
/// Namespace of the prefix `xmlns`, which nothing may be bound to.
pub const NS_XMLNS: &str = "http://www.w3.org/2000/xmlns/";
