//! Documents as drafts had them, and as devices that never changed still send them.

use super::*;

fn document(namespaces: &str, inside: &str) -> Pidf {
    let text = format!(
        "<?xml version=\"1.0\" encoding=\"ISO-8859-1\"?><presence xmlns=\"urn:ietf:params:xml:ns:pidf\" {namespaces} \
         entity=\"sip:bob@corp.example\">{inside}</presence>"
    );
    read(text.as_bytes(), &Limits::default()).expect("a document")
}

const OPEN: &str = "<tuple id=\"0\"><status><basic>open</basic></status></tuple>";
const EYEBEAM: &str = "xmlns:pp=\"urn:ietf:params:xml:ns:pidf:person\" \
    xmlns:es=\"urn:ietf:params:xml:ns:pidf:rpid:status:rpid-status\" \
    xmlns:ep=\"urn:ietf:params:xml:ns:pidf:rpid:rpid-person\"";

#[test]
fn the_status_of_the_rpid_drafts_is_read_from_every_namespace_that_they_had() {
    for namespace in [
        "urn:ietf:params:xml:ns:pidf:status:rpid-status",
        "urn:ietf:params:xml:ns:pidf:status:rpid",
        "urn:ietf:params:xml:ns:pidf:rpid-status",
        "urn:ietf:params:xml:ns:pidf:rpid-tuple",
        "urn:ietf:params:xml:ns:pidf:rpid:status:rpid-status",
        "urn:ietf:params:xml:ns:pidf:rpid:rpid-tuple",
        "urn:ietf:params:xml:ns:cpim-pidf:rpid",
        RPID,
    ] {
        for busy in [
            "<ep:activities><ep:activity>busy</ep:activity></ep:activities>",
            "<ep:activities><ep:activity> Busy\n</ep:activity></ep:activities>",
            "<ep:activities><ep:busy/></ep:activities>",
            "<ep:activities>ep:busy</ep:activities>",
            "<ep:activities>busy</ep:activities>",
            "<ep:activity>busy</ep:activity>",
        ] {
            let namespaces = format!("xmlns:ep='{namespace}'");
            let status = format!("<tuple id='0'><status><basic>open</basic>{busy}</status></tuple>");
            let tuple = format!("<tuple id='0'><status><basic>open</basic></status>{busy}</tuple>");
            for inside in [status, tuple] {
                let pidf = document(&namespaces, &inside);
                assert_eq!(pidf.tuples[0].activities.values, [Activity::Busy], "{namespace} {inside}");
                assert!(pidf.tuples[0].status_children.is_empty());
            }
        }
    }
    let other = document(
        "xmlns:ep='urn:elsewhere:rpid'",
        "<tuple id='0'><status><basic>open</basic><ep:activity>busy</ep:activity></status></tuple>",
    );
    assert_eq!(other.tuples[0].status_children.len(), 1, "not everything is RPID");
}

#[test]
fn words_for_activities_are_known_in_any_spelling() {
    for (words, activity) in [
        ("on-the-phone", Some(Activity::OnThePhone)),
        ("On the phone", Some(Activity::OnThePhone)),
        ("in_transit", Some(Activity::InTransit)),
        ("ep:away", Some(Activity::Away)),
        (" \t", None),
        ("ep: ", None),
        ("Be right back", Some(Activity::Other("Be right back".into()))),
    ] {
        assert_eq!(Activity::from_words(words), activity, "{words:?}");
    }
}

#[test]
fn a_person_is_found_outside_its_standard_place() {
    let activities = "<ep:activities><ep:away/></ep:activities>";
    for person in [
        format!("<pp:person><status>{activities}</status></pp:person>"),
        format!("<pp:person>{activities}</pp:person>"),
        format!("<person><status>{activities}</status></person>"),
        format!("<ep:person id='p'>{activities}</ep:person>"),
        "<pp:person><status><ep:activities>ep:away</ep:activities></status></pp:person>".to_owned(),
        activities.to_owned(),
    ] {
        for inside in [format!("{person}<note>Ready</note>{OPEN}"), format!("{OPEN}{person}")] {
            let pidf = document(EYEBEAM, &inside);
            let person = pidf.person.as_ref().unwrap_or_else(|| panic!("a person in {inside}"));
            assert_eq!(person.activities.values, [Activity::Away], "{inside}");
        }
    }
    let idle = document(EYEBEAM, &format!("{OPEN}<pp:person><status/></pp:person>"));
    assert!(idle.person.is_some_and(|person| person.activities.is_empty()));
}

#[test]
fn the_drafts_of_pidf_itself_are_read() {
    for namespace in ["urn:ietf:params:xml:ns:cpim-pidf", "urn:ietf:params:xml:ns:cpim-pidf:"] {
        let text = format!("<presence xmlns='{namespace}' entity='pres:bob@corp.example'>{OPEN}</presence>");
        let pidf = read(text.as_bytes(), &Limits::default()).expect("a document");
        assert_eq!(pidf.tuples[0].basic, Some(Basic::Open));
    }
}

#[test]
fn idleness_of_the_drafts_is_read() {
    let since = "2026-10-02T13:20:00Z";
    let pidf = document(
        "xmlns:es='urn:ietf:params:xml:ns:pidf:status:rpid-status'",
        &format!("<tuple id='0'><status><basic>open</basic><es:idle since='{since}'/></status></tuple>"),
    );
    let input = pidf.tuples[0].user_input.as_ref().expect("idle");
    assert_eq!((input.is_idle, input.last_input.as_deref()), (true, Some(since)));
}

#[test]
fn what_is_read_of_a_draft_is_written_as_the_standard_has_it() {
    let pidf = document(
        EYEBEAM,
        &format!("<pp:person><status><ep:activities>ep:on-hold</ep:activities></status></pp:person>{OPEN}"),
    );
    let mut octets = Vec::new();
    write(&pidf, &mut octets);
    let text = String::from_utf8(octets.clone()).expect("UTF-8");
    assert!(text.contains(RPID) && !text.contains("rpid-person"), "{text}");
    let again = read(&octets, &Limits::default()).expect("a document");
    let other = Activity::Other("on-hold".into());
    assert_eq!(again.person.map(|person| person.activities.values), Some(vec![other]));
}
