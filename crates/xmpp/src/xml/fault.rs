//! What one element may cost, and what is wrong with XML that a peer sent.

/// Bounds of one element at the top of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct XmlLimits {
    /// Octets from its first `<` to its last `>`.
    pub element_bytes: usize,
    /// Nesting; the element itself is level 1.
    pub depth: usize,
    /// Attributes of one element, namespace declarations included.
    pub attributes: usize,
    /// Namespace declarations of one element.
    pub declarations: usize,
    /// Octets of a name or of its prefix.
    pub name_bytes: usize,
    /// Octets as written of a namespace, and of the value of an attribute of the element itself. Values inside the element
    /// are bounded by its size only: XHTML-IM keeps whole pictures in them.
    pub value_bytes: usize,
}

impl XmlLimits {
    /// What a peer may send before it proved who it is.
    pub const UNAUTHENTICATED: Self = Self {
        element_bytes: MIN_ELEMENT_BYTES,
        depth: 64,
        attributes: 64,
        declarations: 32,
        name_bytes: 1024,
        value_bytes: 8192,
    };

    /// The same bounds with another size for the whole element; sizes under 10,000 count as 10,000 (RFC 6120 §13.12).
    pub fn with_element_bytes(self, element_bytes: usize) -> Self {
        Self { element_bytes: element_bytes.max(MIN_ELEMENT_BYTES), ..self }
    }
}

/// No server may refuse a stanza of this size (RFC 6120 §13.12).
const MIN_ELEMENT_BYTES: usize = 10_000;

/// What is wrong with the XML that a peer sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum XmlFault {
    /// The element is over its size.
    #[error("element is over the limit of {limit} octets")]
    TooBig {
        /// Octets allowed.
        limit: usize,
    },
    /// Elements are nested too deeply.
    #[error("elements are nested deeper than {limit}")]
    TooDeep {
        /// Levels allowed.
        limit: usize,
    },
    /// One element has too many attributes.
    #[error("an element has more than {limit} attributes")]
    TooManyAttributes {
        /// Attributes allowed.
        limit: usize,
    },
    /// One element declares too many namespaces, or too many hold at one place.
    #[error("more than {limit} namespaces are declared")]
    TooManyDeclarations {
        /// Declarations allowed.
        limit: usize,
    },
    /// A name is too long.
    #[error("a name is longer than {limit} octets")]
    NameTooLong {
        /// Octets allowed.
        limit: usize,
    },
    /// A namespace, or a value in the element's own tag, is too long.
    #[error(
        "a namespace, or an attribute's value in the first tag of the element, is longer than {limit} octets"
    )]
    ValueTooLong {
        /// Octets allowed.
        limit: usize,
    },
    /// A feature of XML that XMPP forbids (RFC 6120 §11.1).
    #[error("{what} is not allowed in XMPP")]
    Restricted {
        /// Which feature.
        what: &'static str,
    },
    /// Not UTF-8, or another encoding was declared (RFC 6120 §11.6).
    #[error("the text is not UTF-8")]
    Encoding,
    /// Not well-formed, or not so in its namespaces.
    #[error("not well-formed: {why}")]
    NotWellFormed {
        /// The rule that is broken.
        why: &'static str,
    },
    /// Text between the elements at the top of the stream.
    #[error("text between the elements of the stream")]
    StrayText,
}

impl XmlFault {
    /// The stream error condition the peer is told (RFC 6120 §4.9.3).
    pub fn condition(&self) -> &'static str {
        match self {
            Self::TooBig { .. }
            | Self::TooDeep { .. }
            | Self::TooManyAttributes { .. }
            | Self::TooManyDeclarations { .. }
            | Self::NameTooLong { .. }
            | Self::ValueTooLong { .. } => "policy-violation",
            Self::Restricted { .. } => "restricted-xml",
            Self::Encoding => "unsupported-encoding",
            Self::NotWellFormed { .. } => "not-well-formed",
            Self::StrayText => "bad-format",
        }
    }
}
