//! Header fields: their names, their parameters, and the values that have parts.

mod language;
mod name;
mod params;
mod values;

pub use language::is_language_tag;
pub use name::HeaderName;
pub use params::{Params, ParamsIter};
pub use values::{EventHeader, MAGIC_COOKIE, MediaType, NameAddr, ValueFault, Via};
