//! XMPP resources as PIDF tuple ids and back (RFC 8048 §6.2, note 2; STOX-P-42).
//!
//! A tuple id is an `xs:ID`, which cannot hold every character of a resource. The id is `ID-` and the resource, with
//! each character that an NCName cannot hold written as `_x` hex digits `_`.

use std::fmt::Write;

/// Appends the tuple id for a resource; `ID-` alone for the empty one.
pub fn write_tuple_id(resource: &str, id: &mut String) {
    id.push_str(PREFIX);
    for (at, character) in resource.char_indices() {
        let looks_escaped = character == '_' && resource[at + 1..].starts_with('x');
        if is_name_character(character) && !looks_escaped {
            id.push(character);
        } else {
            write!(id, "_x{:x}_", u32::from(character)).expect("a String takes everything");
        }
    }
}

/// The resource for a tuple id: what [`write_tuple_id`] wrote comes back, any other id stands for itself.
pub fn resource_of(id: &str) -> String {
    let mut rest = id.strip_prefix(PREFIX).unwrap_or(id);
    let mut resource = String::with_capacity(rest.len());
    while let Some(at) = rest.find("_x") {
        resource.push_str(&rest[..at]);
        let after = &rest[at + 2..];
        let decoded = after.split_once('_').and_then(|(digits, tail)| {
            let is_ours = !digits.is_empty()
                && digits.len() <= 6
                && digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
            let character = char::from_u32(u32::from_str_radix(digits, 16).ok()?)?;
            // A control character in an id is no resource of anybody's.
            (is_ours && !character.is_control()).then_some((character, tail))
        });
        match decoded {
            Some((character, tail)) => {
                resource.push(character);
                rest = tail;
            }
            None => {
                resource.push_str("_x");
                rest = after;
            }
        }
    }
    resource.push_str(rest);
    resource
}

const PREFIX: &str = "ID-";

/// `NameChar` of XML 1.0 §2.3, less the colon.
fn is_name_character(character: char) -> bool {
    matches!(character,
        '-' | '.' | '0'..='9' | 'A'..='Z' | '_' | 'a'..='z' | '\u{B7}'
        | '\u{C0}'..='\u{D6}' | '\u{D8}'..='\u{F6}' | '\u{F8}'..='\u{37D}' | '\u{37F}'..='\u{1FFF}'
        | '\u{200C}'..='\u{200D}' | '\u{203F}'..='\u{2040}' | '\u{2070}'..='\u{218F}'
        | '\u{2C00}'..='\u{2FEF}' | '\u{3001}'..='\u{D7FF}' | '\u{F900}'..='\u{FDCF}'
        | '\u{FDF0}'..='\u{FFFD}' | '\u{10000}'..='\u{EFFFF}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuple_id_of(resource: &str) -> String {
        let mut id = String::new();
        write_tuple_id(resource, &mut id);
        id
    }

    #[test]
    fn stox_p_42_resources_become_legal_ids_and_come_back() {
        for resource in
            ["7", "a b", "é/x", "ID-x", "_x20_", "_x", "a_xb", "__x_", "💬", "", "x\u{300}", "a:b", "_"]
        {
            let id = tuple_id_of(resource);
            assert!(id.starts_with("ID-"));
            assert!(id.chars().all(is_name_character), "{id:?} is no NCName");
            assert_eq!(resource_of(&id), resource, "by way of {id:?}");
        }
        assert_eq!(tuple_id_of("dr4hcr0st3lup4c"), "ID-dr4hcr0st3lup4c");
    }

    #[test]
    fn ids_of_others_stand_for_themselves() {
        for (id, resource) in
            [("bs35r9", "bs35r9"), ("ID-balcony", "balcony"), ("_xzz_", "_xzz_"), ("_x0_", "_x0_")]
        {
            assert_eq!(resource_of(id), resource);
        }
    }
}
