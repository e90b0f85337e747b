//! The Bidi Rule (RFC 5893 §2), for strings that hold a right-to-left character.

use icu_properties::{CodePointMapData, props::BidiClass};

/// True when the text holds a character of class R, AL or AN.
pub(crate) fn has_right_to_left(text: &str) -> bool {
    text.chars().any(|c| {
        !c.is_ascii()
            && matches!(class(c), BidiClass::RightToLeft | BidiClass::ArabicLetter | BidiClass::ArabicNumber)
    })
}

/// All six conditions of the rule.
pub(crate) fn follows_bidi_rule(text: &str) -> bool {
    let mut classes = text.chars().map(class);
    let is_right_to_left = match classes.next() {
        Some(BidiClass::LeftToRight) => false,
        Some(BidiClass::RightToLeft | BidiClass::ArabicLetter) => true,
        _ => return false,
    };
    let is_allowed = |class| match class {
        BidiClass::RightToLeft | BidiClass::ArabicLetter | BidiClass::ArabicNumber => is_right_to_left,
        BidiClass::LeftToRight => !is_right_to_left,
        BidiClass::EuropeanNumber
        | BidiClass::EuropeanSeparator
        | BidiClass::CommonSeparator
        | BidiClass::EuropeanTerminator
        | BidiClass::OtherNeutral
        | BidiClass::BoundaryNeutral
        | BidiClass::NonspacingMark => true,
        _ => false,
    };
    if !classes.all(is_allowed) {
        return false;
    }
    let holds = |wanted| text.chars().any(|c| class(c) == wanted);
    if is_right_to_left && holds(BidiClass::EuropeanNumber) && holds(BidiClass::ArabicNumber) {
        return false;
    }
    match text.chars().rev().map(class).find(|class| *class != BidiClass::NonspacingMark) {
        Some(BidiClass::EuropeanNumber) => true,
        Some(BidiClass::LeftToRight) => !is_right_to_left,
        Some(BidiClass::RightToLeft | BidiClass::ArabicLetter | BidiClass::ArabicNumber) => is_right_to_left,
        _ => false,
    }
}

fn class(c: char) -> BidiClass {
    CodePointMapData::<BidiClass>::new().get(c)
}
