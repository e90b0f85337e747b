//! The enums of defined error conditions: each variant is one element name.

macro_rules! named_conditions {
    ($(#[$about:meta])* $enum:ident: $($(#[$doc:meta])* $variant:ident = $name:literal;)*) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $enum {
            $($(#[$doc])* $variant,)*
        }

        impl $enum {
            /// All conditions, in the order of RFC 6120.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The name of its element.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// The condition whose element has this name.
            pub fn from_name(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self::$variant),)*
                    _ => None,
                }
            }
        }
    };
}
