//! Which code points a string class allows (RFC 8264 §8), and which a label of a domain does (RFC 5892 §3).
//!
//! A code point goes in, its class comes out. Both algorithms use the same categories; the order of the questions is
//! theirs and must stay so.

use icu_properties::{
    CodePointMapData, CodePointSetData,
    props::{
        BinaryProperty, DefaultIgnorableCodePoint, GeneralCategory, HangulSyllableType,
        NoncharacterCodePoint, WhiteSpace,
    },
};
use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfkc_quick};

/// The derived property of a code point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// PVALID: allowed everywhere.
    Valid,
    /// FREE_PVAL: allowed in the FreeformClass, not in the IdentifierClass.
    FreeformOnly,
    /// CONTEXTJ or CONTEXTO: allowed where its rule says so.
    InContext,
    /// DISALLOWED or UNASSIGNED.
    Disallowed,
}

/// The PRECIS derived property (RFC 8264 §8).
pub(crate) fn class(c: char) -> Class {
    if let '!'..='~' = c {
        return Class::Valid;
    }
    if let Some(class) = exception(c) {
        return class;
    }
    let category = category(c);
    if category == GeneralCategory::Unassigned {
        // Noncharacters are of this category too, and disallowed by another rule.
        return Class::Disallowed;
    }
    if is_join_control(c) {
        return Class::InContext;
    }
    if is_old_hangul_jamo(c) || has::<DefaultIgnorableCodePoint>(c) || c.is_control() {
        return Class::Disallowed;
    }
    if has_compatibility_mapping(c) {
        return Class::FreeformOnly;
    }
    use GeneralCategory as Category;
    match category {
        Category::LowercaseLetter
        | Category::UppercaseLetter
        | Category::OtherLetter
        | Category::DecimalNumber
        | Category::ModifierLetter
        | Category::NonspacingMark
        | Category::SpacingMark => Class::Valid,
        Category::TitlecaseLetter
        | Category::LetterNumber
        | Category::OtherNumber
        | Category::EnclosingMark => Class::FreeformOnly,
        Category::SpaceSeparator
        | Category::MathSymbol
        | Category::CurrencySymbol
        | Category::ModifierSymbol
        | Category::OtherSymbol
        | Category::ConnectorPunctuation
        | Category::DashPunctuation
        | Category::OpenPunctuation
        | Category::ClosePunctuation
        | Category::InitialPunctuation
        | Category::FinalPunctuation
        | Category::OtherPunctuation => Class::FreeformOnly,
        Category::Unassigned
        | Category::Control
        | Category::Format
        | Category::LineSeparator
        | Category::ParagraphSeparator
        | Category::PrivateUse
        | Category::Surrogate => Class::Disallowed,
    }
}

/// The IDNA derived property (RFC 5892 §3) of a code point of a label that is in lower case and NFC. Never
/// [`Class::FreeformOnly`].
pub(crate) fn class_in_label(c: char) -> Class {
    if matches!(c, '-' | '0'..='9' | 'a'..='z') {
        return Class::Valid;
    }
    if let Some(class) = exception(c) {
        return class;
    }
    if is_join_control(c) {
        return Class::InContext;
    }
    if is_unstable(c)
        || has::<DefaultIgnorableCodePoint>(c)
        || has::<WhiteSpace>(c)
        || has::<NoncharacterCodePoint>(c)
        || is_in_ignorable_block(c)
        || is_old_hangul_jamo(c)
    {
        return Class::Disallowed;
    }
    use GeneralCategory as Category;
    match category(c) {
        Category::LowercaseLetter
        | Category::UppercaseLetter
        | Category::OtherLetter
        | Category::DecimalNumber
        | Category::ModifierLetter
        | Category::NonspacingMark
        | Category::SpacingMark => Class::Valid,
        _ => Class::Disallowed,
    }
}

/// The exceptions of RFC 5892 §2.6, which PRECIS shares.
fn exception(c: char) -> Option<Class> {
    match c {
        'ß' | 'ς' | '\u{6FD}' | '\u{6FE}' | '\u{F0B}' | '〇' => Some(Class::Valid),
        '·'
        | '\u{375}'
        | '\u{5F3}'
        | '\u{5F4}'
        | '\u{30FB}'
        | '\u{660}'..='\u{669}'
        | '\u{6F0}'..='\u{6F9}' => Some(Class::InContext),
        '\u{640}' | '\u{7FA}' | '\u{302E}' | '\u{302F}' | '\u{3031}'..='\u{3035}' | '\u{303B}' => {
            Some(Class::Disallowed)
        }
        _ => None,
    }
}

/// A space (general category Zs).
pub(crate) fn is_space(c: char) -> bool {
    c == ' ' || (!c.is_ascii() && category(c) == GeneralCategory::SpaceSeparator)
}

fn is_join_control(c: char) -> bool {
    matches!(c, '\u{200C}' | '\u{200D}')
}

fn is_old_hangul_jamo(c: char) -> bool {
    matches!(
        CodePointMapData::<HangulSyllableType>::new().get(c),
        HangulSyllableType::LeadingJamo | HangulSyllableType::VowelJamo | HangulSyllableType::TrailingJamo
    )
}

/// `toNFKC(cp) != cp` (RFC 8264 §9.17).
fn has_compatibility_mapping(c: char) -> bool {
    let alone = std::iter::once(c);
    is_nfkc_quick(alone.clone()) != IsNormalized::Yes && !alone.clone().nfkc().eq(alone)
}

/// `toNFKC(toCaseFold(toNFKC(cp))) != cp` (RFC 5892 §2.2).
///
/// Lowering stands for folding here. The few code points that only folding changes, such as `ᾀ`, are left to UTS 46, which
/// maps them.
fn is_unstable(c: char) -> bool {
    if is_folded_upward(c) {
        return false;
    }
    let lower = std::iter::once(c).nfkc().flat_map(char::to_lowercase).nfkc();
    !lower.eq(std::iter::once(c))
}

/// Capitals of Cherokee: the one script whose small letters fold to capitals.
pub(crate) fn is_folded_upward(c: char) -> bool {
    matches!(c, '\u{13A0}'..='\u{13F5}')
}

/// Combining Diacritical Marks for Symbols, Musical Symbols, Ancient Greek Musical Notation (RFC 5892 §2.4).
fn is_in_ignorable_block(c: char) -> bool {
    matches!(c, '\u{20D0}'..='\u{20FF}' | '\u{1D100}'..='\u{1D1FF}' | '\u{1D200}'..='\u{1D24F}')
}

fn category(c: char) -> GeneralCategory {
    CodePointMapData::<GeneralCategory>::new().get(c)
}

fn has<P: BinaryProperty>(c: char) -> bool {
    CodePointSetData::new::<P>().contains(c)
}
