//! How values are written: the form of each kind of value and an example, for errors.
//!
//! In: a described setting. Out: what its errors say is accepted.

use std::borrow::Cow;

use crate::described::Setting;

/// What is accepted for a setting, with its form and an example. Words that may stand there are their own examples, and
/// tables have theirs in `config/`.
pub(crate) fn with_form(setting: &Setting) -> Cow<'static, str> {
    let accepted = setting.accepted;
    if let Some((_, form)) = FORMS.iter().find(|(known, _)| *known == accepted) {
        return Cow::Owned(format!("{accepted}, {form}"));
    }
    if accepted.contains("a span from") {
        // A default of zero switches something off and is no example of a span.
        let is_example = setting.default.starts_with('"') && setting.default != "\"0\"";
        let example = if is_example { setting.default } else { "\"30s\"" };
        let form = "which is a whole number followed by ms, s, m or h, such as";
        return Cow::Owned(format!("{accepted}, {form} {example}"));
    }
    let is_range = accepted.starts_with(|first: char| first.is_ascii_digit()) && accepted.contains(" to ");
    if is_range {
        return Cow::Owned(format!("a whole number from {accepted}{}", example_number(setting)));
    }
    Cow::Borrowed(accepted)
}

/// `, such as 64`, or nothing where the default is no number.
pub(crate) fn example_number(setting: &Setting) -> String {
    match setting.default.parse::<u64>() {
        Ok(default) => format!(", such as {default}"),
        Err(_) => String::new(),
    }
}

/// How values of a kind are written, by the words of [`Setting::accepted`].
const FORMS: &[(&str, &str)] = &[
    ("true, false", "without quotes"),
    ("addresses with a port", "such as \"[::]:5269\" or \"192.0.2.1:5269\""),
    ("an address with a port", "such as \"[::]:5300\" or \"192.0.2.1:5300\""),
    ("a loopback address with a port", "such as \"127.0.0.1:8086\" or \"[::1]:8086\""),
    (
        "tls:ADDRESS:PORT, tcp:ADDRESS:PORT, udp:ADDRESS:PORT",
        "such as \"tls:[::]:5061\" or \"udp:192.0.2.1:5060\"",
    ),
    ("addresses, with a port or without", "such as \"192.0.2.53\" or \"[2001:db8::53]:53\""),
    ("IP addresses", "such as \"192.0.2.1\" or \"2001:db8::1\""),
    ("host names or IP addresses", "such as \"gateway1.corp.example\""),
    ("HOST:PORT", "such as \"host1.example.com:5269\" or \"[2001:db8::1]:5269\""),
    (
        "sip:HOST[:PORT][;transport=tls|tcp|udp], or sips:HOST[:PORT]",
        "such as \"sip:pool.corp.example:5061;transport=tls\"",
    ),
    ("a domain name", "such as \"corp.example\""),
    ("domain names, *.DOMAIN for everything below one", "such as \"example.org\" or \"*.example.org\""),
    ("USER@DOMAIN", "such as \"alice@corp.example\""),
    ("a PEM file", "such as \"certs/corp.example.pem\""),
    ("system, or a PEM file", "such as \"certs/authorities.pem\""),
    ("a path", "such as \"tombolo-data/accounts.toml\""),
    ("a path, or memory", "such as \"tombolo-data/state.redb\""),
    ("a directory", "such as \"partners.d\""),
    ("64 hexadecimal digits", "as tombolo user passwd writes them"),
    ("32 hexadecimal digits", "as tombolo user passwd writes them"),
];

#[cfg(test)]
mod tests {
    use crate::described::{accepted, settings};

    #[test]
    fn every_example_of_a_span_can_be_read_and_is_in_the_range_that_stands_before_it() {
        let spans = settings().iter().filter(|setting| setting.accepted.contains("a span from"));
        for setting in spans {
            let told = accepted(setting.section, setting.key);
            let word = |after: &str| {
                let word = told.split(after).nth(1).and_then(|rest| rest.split([' ', ',']).next());
                crate::section::duration(word.expect("a word").trim_matches('"')).expect("a span")
            };
            let (from, to, example) = (word("a span from "), word(" to "), word("such as "));
            assert!((from..=to).contains(&example), "{setting:?}: {told}");
        }
    }

    #[test]
    fn every_value_that_is_no_word_or_table_is_told_with_its_form_or_an_example() {
        for setting in settings() {
            let told = accepted(setting.section, setting.key);
            let is_word =
                |word: &str| word.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') && !word.is_empty();
            let are_words = setting.accepted.split(", ").all(is_word);
            let is_table = setting.accepted.contains("table");
            let has_form =
                ["such as ", "without quotes", "tombolo user passwd"].iter().any(|form| told.contains(form));
            // Its default depends on the machine, or on another setting.
            let has_no_example = matches!(
                (setting.section, setting.key),
                ("memory", "limit") | ("partner.limits", "stanza_bytes")
            );
            assert!(are_words || is_table || has_form || has_no_example, "{setting:?}: {told}");
        }
    }
}
