//! The PRECIS profiles of XMPP addresses (RFC 8264, RFC 8265): text goes in, its enforced form comes out.
//!
//! - [`username_case_mapped`] is for local parts, [`opaque_string`] for resources.
//! - `class.rs` says which code points a string class allows, by the categories of RFC 8264 §9.
//! - `context.rs` has the rules for code points that are allowed in some places only (RFC 5892 appendix A).
//! - `bidi.rs` has the Bidi Rule (RFC 5893 §2).
//!
//! The character data comes from `icu_properties` and `unicode-normalization`, so it is as new as these crates.

mod bidi;
mod class;
mod context;

use std::borrow::Cow;

use unicode_normalization::UnicodeNormalization;

pub(crate) use self::{
    bidi::{follows_bidi_rule, has_right_to_left},
    class::{Class, class_in_label, is_folded_upward},
    context::is_allowed_here,
};

/// Enforces UsernameCaseMapped (RFC 8265 §3.3). `None` when the text is no such string.
///
/// An empty result is refused; the length and the characters that XMPP excludes are for the caller to check.
pub(crate) fn username_case_mapped(text: &str) -> Option<Cow<'_, str>> {
    let mapped = until_stable(text, |text| {
        let lower = text.chars().map(map_width).collect::<String>().to_lowercase();
        lower.nfc().collect()
    })?;
    if has_right_to_left(&mapped) && !follows_bidi_rule(&mapped) {
        return None;
    }
    let is_valid = |(at, c)| match class::class(c) {
        Class::Valid => true,
        Class::InContext => is_allowed_here(&mapped, at, c),
        Class::FreeformOnly | Class::Disallowed => false,
    };
    (!mapped.is_empty() && mapped.char_indices().all(is_valid)).then_some(mapped)
}

/// Enforces OpaqueString (RFC 8265 §4.2). `None` when the text is no such string.
pub(crate) fn opaque_string(text: &str) -> Option<Cow<'_, str>> {
    let mapped = until_stable(text, |text| {
        text.chars().map(|c| if class::is_space(c) { ' ' } else { c }).nfc().collect()
    })?;
    let is_valid = |(at, c)| match class::class(c) {
        Class::Valid | Class::FreeformOnly => true,
        Class::InContext => is_allowed_here(&mapped, at, c),
        Class::Disallowed => false,
    };
    (!mapped.is_empty() && mapped.char_indices().all(is_valid)).then_some(mapped)
}

/// Applies `rules` until they change nothing, at most four times (RFC 8264 §7); `None` when they still do.
fn until_stable(text: &str, rules: impl Fn(&str) -> String) -> Option<Cow<'_, str>> {
    let mut mapped = Cow::Borrowed(text);
    for _ in 0..4 {
        let next = rules(&mapped);
        if next == *mapped {
            return Some(mapped);
        }
        mapped = Cow::Owned(next);
    }
    None
}

/// The width mapping rule (RFC 8265 §3.3.1): a fullwidth or halfwidth code point becomes its ordinary form.
///
/// All of them but U+3000 stand in one block. The few whose ordinary form has a compatibility mapping of its own stay as
/// they are; both forms are disallowed.
pub(crate) fn map_width(c: char) -> char {
    if !matches!(c, '\u{FF01}'..='\u{FFEF}') {
        return c;
    }
    let mut ordinary = std::iter::once(c).nfkc();
    match (ordinary.next(), ordinary.next()) {
        (Some(only), None) => only,
        _ => c,
    }
}
