use super::{
    xml::{Element, Event, Space, Xml},
    *,
};

const DEFAULT: &[u8] = include_bytes!("../../corpus/pidf/default-namespace.xml");
const PREFIXED: &[u8] = include_bytes!("../../corpus/pidf/prefixed.xml");
const MUST: &[u8] = include_bytes!("../../corpus/pidf/must-understand.xml");
const RICH: &[u8] = include_bytes!("../../corpus/pidf/rich.xml");
const PHONE: &[u8] = include_bytes!("../../corpus/pidf/phone.xml");
const SOFTPHONE: &[u8] = include_bytes!("../../corpus/pidf/softphone.xml");
const SHOW: &[u8] = include_bytes!("../../corpus/pidf/show.xml");
const ODD: &[u8] = include_bytes!("../../corpus/pidf/odd.xml");

fn taken(document: &[u8]) -> Pidf {
    read(document, &Limits::default()).unwrap_or_else(|fault| panic!("{fault}"))
}

fn written(pidf: &Pidf) -> Vec<u8> {
    let mut octets = Vec::new();
    write(pidf, &mut octets);
    octets
}

fn note(lang: Option<&str>, text: &str) -> Note {
    Note { lang: lang.map(str::to_owned), text: text.to_owned() }
}

fn child(namespace: &'static str, name: &'static str, text: &'static str) -> StatusChild {
    StatusChild { namespace: namespace.into(), name: name.into(), text: text.into() }
}

/// A document of one open tuple with `inside` after its `<status>`.
fn tuple_with(inside: &str) -> Result<Tuple, PidfFault> {
    let document = format!(
        "<presence xmlns='{PIDF}' xmlns:dm='{DATA_MODEL}' xmlns:r='{RPID}'><tuple id='t'>\
         <status><basic>open</basic></status>{inside}</tuple></presence>"
    );
    Ok(read(document.as_bytes(), &Limits::default())?.tuples.remove(0))
}

#[test]
fn a_document_with_status_extensions_and_notes_is_read() {
    let pidf = taken(DEFAULT);
    assert_eq!(pidf.entity, "pres:juliet@corp.example");
    assert_eq!(pidf.notes, [note(None, "In Verona next week")]);
    let [desk, mail] = &pidf.tuples[..] else { panic!("two tuples") };
    assert_eq!((desk.id.as_str(), desk.basic), ("desk", Some(Basic::Open)));
    let (im, location) = ("urn:ietf:params:xml:ns:pidf:im", "http://corp.example/presence/");
    assert_eq!(desk.status_children, [child(im, "im", "busy"), child(location, "location", "home")]);
    let contact = Contact { uri: "im:juliet@phone.corp.example".into(), priority_thousandths: Some(800) };
    assert_eq!(desk.contact, Some(contact));
    assert_eq!(
        desk.notes,
        [note(Some("en"), "Please do not disturb"), note(Some("fr"), "Pri\u{e8}re de ne pas d\u{e9}ranger"),]
    );
    assert_eq!(desk.timestamp.as_deref(), Some("2026-10-02T16:49:29Z"));
    assert_eq!(mail.contact.as_ref().and_then(|contact| contact.priority_thousandths), Some(1000));
}

#[test]
fn sip_p_09_any_prefix_will_do_unknown_elements_are_skipped_whole_and_must_understand_voids_one() {
    let pidf = taken(PREFIXED);
    let states: Vec<_> = pidf.tuples.iter().map(|tuple| (tuple.id.as_str(), tuple.basic)).collect();
    // The tuple inside an unknown element does not count.
    assert_eq!(states, [("a1", Some(Basic::Open)), ("a2", Some(Basic::Closed))]);
    let uris: Vec<_> =
        pidf.tuples.iter().flat_map(|tuple| &tuple.contact).map(|contact| &*contact.uri).collect();
    assert_eq!(uris, ["tel:+09012345678", "im:romeo@phone.corp.example"]);

    let pidf = taken(MUST);
    let space = "http://corp.example/presence/";
    assert_eq!(pidf.tuples[0].basic, Some(Basic::Open));
    assert_eq!(pidf.tuples[0].status_children, [child(space, "kept", "outer")]);

    let activities = |inside: &str| {
        let document = format!("<r:activities xmlns:x='u'>{inside}<r:away/></r:activities>");
        tuple_with(&document).map(|tuple| tuple.activities.values)
    };
    let skiing = || Activity::Other("skiing".into());
    assert_eq!(activities("<x:skiing/><r:skiing/>"), Ok(vec![skiing(), skiing(), Activity::Away]));
    assert_eq!(activities("<x:skiing mustUnderstand='1'/>"), Ok(vec![Activity::Unknown]));
    assert_eq!(activities("<r:skiing mustUnderstand='true'/>"), Ok(vec![Activity::Unknown]));
    assert_eq!(activities("<x:skiing mustUnderstand='0'/>"), Ok(vec![skiing(), Activity::Away]));
}

#[test]
fn sip_p_10_odd_documents_are_accepted() {
    let pidf = taken(ODD);
    assert_eq!(pidf.entity, "");
    let states: Vec<_> = pidf.tuples.iter().map(|tuple| (tuple.id.as_str(), tuple.basic)).collect();
    // The last of one id wins; those without an id are all kept.
    let (open, closed) = (Some(Basic::Open), Some(Basic::Closed));
    assert_eq!(states, [("", open), ("", closed), ("x", closed)]);
    assert_eq!(pidf.tuples[0].contact, None);
    assert_eq!(pidf.tuples[1].contact.as_ref().map(|contact| contact.priority_thousandths), Some(None));
    assert_eq!(taken(PHONE).entity, "sip:alice@corp.example");
    assert_eq!(taken(DEFAULT).entity, "pres:juliet@corp.example");
}

#[test]
fn d_10_the_namespace_is_written_without_trailing_colon_and_read_with_and_without() {
    for colon in ["", ":"] {
        let document = format!("<presence xmlns='{PIDF}{colon}' entity='pres:a@b'/>");
        let pidf = taken(document.as_bytes());
        assert_eq!(pidf.entity, "pres:a@b");
        let again = String::from_utf8(written(&pidf)).expect("UTF-8");
        assert!(again.contains("<presence xmlns=\"urn:ietf:params:xml:ns:pidf\" "), "{again}");
    }
}

#[test]
fn documents_of_real_phones_are_read() {
    let pidf = taken(PHONE);
    assert_eq!(pidf.tuples[0].basic, Some(Basic::Open));
    let person = pidf.person.expect("a person");
    assert_eq!((person.id.as_str(), person.activities.is_empty()), ("p4159", true));
    let pidf = taken(SOFTPHONE);
    let online = child("http://www.linphone.org/xsds/pidfonline.xsd", "online", "");
    assert_eq!(pidf.tuples[0].status_children, [online]);
}

#[test]
fn a_foreign_status_child_and_notes_in_two_languages_are_read() {
    let pidf = taken(SHOW);
    let tuple = &pidf.tuples[0];
    assert_eq!(tuple.status_children, [child("jabber:client", "show", "away")]);
    // The language of the document holds where a note has none of its own.
    assert_eq!(
        tuple.notes,
        [note(Some("en"), "stay <here> & wait"), note(Some("cs"), "z\u{16f}sta\u{148} tu")]
    );
    assert_eq!(tuple.contact.as_ref().and_then(|contact| contact.priority_thousandths), Some(7));
}

#[test]
fn person_device_activities_mood_place_and_user_input_are_kept_over_a_round_trip() {
    let pidf = taken(RICH);
    let tuple = &pidf.tuples[0];
    assert_eq!(tuple.activities.values, [Activity::Busy]);
    assert_eq!(tuple.device_ids, ["urn:device:0003ba4811e3"]);
    let input = UserInput {
        is_idle: true,
        last_input: Some("2026-10-02T13:20:00.000-05:00".into()),
        idle_threshold: Some(600),
    };
    assert_eq!(tuple.user_input, Some(input));
    let person = pidf.person.as_ref().expect("a person");
    let (phone, reading) = (Activity::OnThePhone, Activity::Other("reading".into()));
    assert_eq!(person.activities.values, [phone, Activity::Vacation, reading]);
    assert_eq!(person.activities.notes, [note(None, "Far away")]);
    assert_eq!(person.activities.until.as_deref(), Some("2026-10-02T17:00:00+05:00"));
    assert_eq!(person.moods, ["angry"]);
    assert_eq!(person.place_types, [child("urn:ietf:params:xml:ns:location-type", "residence", "")]);
    assert_eq!(person.notes, [note(None, "Scoring 120")]);
    assert_eq!(pidf.devices[0].device_id, "urn:device:0003ba4811e3");
    assert_eq!(pidf.devices[0].user_input.as_ref().map(|input| input.is_idle), Some(false));
    assert_eq!(taken(&written(&pidf)), pidf);
}

#[test]
fn every_activity_is_read_and_written_under_its_name() {
    let names = [
        "appointment",
        "away",
        "breakfast",
        "busy",
        "dinner",
        "holiday",
        "in-transit",
        "looking-for-work",
        "lunch",
        "meal",
        "meeting",
        "on-the-phone",
        "performance",
        "permanent-absence",
        "playing",
        "presentation",
        "shopping",
        "sleeping",
        "spectator",
        "steering",
        "travel",
        "tv",
        "unknown",
        "vacation",
        "working",
        "worship",
    ];
    for name in names {
        let tuple = tuple_with(&format!("<r:activities><r:{name}/></r:activities>")).expect("well-formed");
        let [activity] = &tuple.activities.values[..] else { panic!("{name}") };
        assert_eq!(activity.name(), name);
        let pidf = Pidf { tuples: vec![tuple], ..Pidf::default() };
        assert_eq!(taken(&written(&pidf)).tuples, pidf.tuples, "{name}");
    }
    assert_eq!(Activity::from_name("other"), None);
}

#[test]
fn stox_p_50_a_priority_that_is_missing_or_out_of_range_is_ignored() {
    let priority = |attribute: &str| {
        let tuple = tuple_with(&format!("<contact {attribute}>sip:a@b</contact>")).expect("well-formed");
        tuple.contact.expect("a contact").priority_thousandths
    };
    for (text, thousandths) in
        [("0", 0), ("0.", 0), ("0.021", 21), ("0.5", 500), ("1", 1000), ("1.00", 1000), (" 0.25 ", 250)]
    {
        assert_eq!(priority(&format!("priority='{text}'")), Some(thousandths), "{text:?}");
    }
    for text in ["7", "-1", "1.001", "0.0001", "", ".5", "0,5", "1e0", "0.5x", "0.-1", "\u{661}"] {
        assert_eq!(priority(&format!("priority='{text}'")), None, "{text:?}");
    }
    assert_eq!(priority(""), None);
}

#[test]
fn every_priority_is_written_so_that_it_reads_as_the_same() {
    for thousandths in 0..=1000 {
        let contact = Contact { uri: "sip:a@b".into(), priority_thousandths: Some(thousandths) };
        let tuple =
            Tuple { id: "t".into(), basic: Some(Basic::Open), contact: Some(contact), ..Tuple::default() };
        let pidf = Pidf { tuples: vec![tuple], ..Pidf::default() };
        assert_eq!(taken(&written(&pidf)), pidf, "{thousandths}");
    }
}

#[test]
fn stox_p_60_unknown_children_are_skipped_with_content_and_a_broken_document_is_refused_with_4xx() {
    let tuple = tuple_with(
        "<x xmlns='u'><status xmlns='urn:ietf:params:xml:ns:pidf'><basic>closed</basic></status></x>",
    );
    assert_eq!(tuple.map(|tuple| tuple.basic), Ok(Some(Basic::Open)));
    let laughs = format!(
        "<!DOCTYPE presence [{}]><presence xmlns='{PIDF}'><note>&a9;</note></presence>",
        (1..10)
            .map(|n| format!("<!ENTITY a{n} '{}'>", format!("&a{};", n - 1).repeat(10)))
            .collect::<String>()
    );
    for broken in [
        &laughs,
        "<presence xmlns='urn:ietf:params:xml:ns:pidf'>",
        "<presence xmlns='urn:ietf:params:xml:ns:pidf'>&x;</presence>",
        "<presence/>",
        "<html xmlns='http://www.w3.org/1999/xhtml'/>",
        "<tuple xmlns='urn:ietf:params:xml:ns:pidf'/>",
        "",
    ] {
        let fault = read(broken.as_bytes(), &Limits::default()).expect_err(broken);
        assert_eq!(fault.status(), 400, "{broken}");
    }
    let big = format!("<presence xmlns='{PIDF}'>{}</presence>", " ".repeat(70_000));
    assert_eq!(read(big.as_bytes(), &Limits::default()).map_err(|fault| fault.status()), Err(413));
}

#[test]
fn tuples_notes_and_other_lists_are_bounded() {
    let many = |item: &str, number: usize| {
        let items: String = (0..number).map(|at| item.replace('%', &at.to_string())).collect();
        let document = format!("<presence xmlns='{PIDF}' xmlns:dm='{DATA_MODEL}'>{items}</presence>");
        read(document.as_bytes(), &Limits::default()).map(drop)
    };
    let tuple = "<tuple id='t%'><status/></tuple>";
    assert_eq!(many(tuple, 64), Ok(()));
    assert_eq!(many(tuple, 65), Err(PidfFault::TooMany { what: "tuples", limit: 64 }));
    assert_eq!(many("<note>%</note>", 32), Ok(()));
    assert_eq!(many("<note>%</note>", 33), Err(PidfFault::TooMany { what: "notes", limit: 32 }));
    assert_eq!(many("<dm:device id='d%'/>", 33), Err(PidfFault::TooMany { what: "devices", limit: 32 }));
    // Copies of one tuple are one tuple.
    assert_eq!(many("<tuple id='t'><status/></tuple>", 1000), Ok(()));
}

/// A presence document that uses all that can be written.
fn full() -> Pidf {
    let activities = Activities {
        values: vec![Activity::Away, Activity::Other("a < b".into())],
        notes: vec![note(Some("de"), "weg")],
        from: Some("2026-10-02T12:00:00Z".into()),
        until: None,
    };
    let input = Some(UserInput {
        is_idle: true,
        last_input: Some("2026-10-02T12:00:00.5Z".into()),
        idle_threshold: Some(300),
    });
    Pidf {
        entity: "pres:o'neil&co@corp.example".into(),
        tuples: vec![
            Tuple {
                id: "ID-desk".into(),
                basic: Some(Basic::Open),
                status_children: vec![child("jabber:client", "show", "dnd")],
                device_ids: vec!["urn:uuid:48662e19-5fbf-43fc-a2fd-d23002787599".into()],
                activities: activities.clone(),
                user_input: input.clone(),
                contact: Some(Contact {
                    uri: "sip:o'neil@corp.example;gr=1&2".into(),
                    priority_thousandths: Some(70),
                }),
                notes: vec![note(None, "one"), note(Some("cs"), "dva")],
                timestamp: Some("2026-10-02T12:00:00.001Z".into()),
            },
            Tuple { id: "ID-phone".into(), basic: Some(Basic::Closed), ..Tuple::default() },
        ],
        notes: vec![note(Some("en"), "all")],
        person: Some(Person {
            id: "p".into(),
            activities,
            moods: vec!["happy".into(), "in_awe".into()],
            place_types: vec![child("urn:ietf:params:xml:ns:location-type", "office", "")],
            user_input: input.clone(),
            notes: vec![note(None, "human")],
            timestamp: Some("2026-10-02T12:00:00Z".into()),
        }),
        devices: vec![Device {
            id: "d".into(),
            device_id: "urn:uuid:48662e19-5fbf-43fc-a2fd-d23002787599".into(),
            user_input: input,
            notes: vec![note(None, "machine")],
            timestamp: Some("2026-10-02T12:00:00Z".into()),
        }],
    }
}

#[test]
fn what_is_written_reads_as_the_same() {
    assert_eq!(taken(&written(&full())), full());
}

/// The children of the innermost element, each checked by `check`, against the schema's order: the place of each
/// must not be lower than that of the one before.
fn check_children(
    xml: &mut Xml<'_>,
    order: &[(Space, &str)],
    check: &mut dyn FnMut(&mut Xml<'_>, &Element<'_>),
) {
    let mut last = 0;
    loop {
        match xml.next().expect("well-formed") {
            Some(Event::Start(element)) => {
                let place = order
                    .iter()
                    .position(|(space, name)| element.space == *space && ["*", element.local].contains(name))
                    .unwrap_or_else(|| panic!("{} is not allowed here", element.local));
                assert!(place >= last, "{} stands too late", element.local);
                last = place;
                check(xml, &element);
            }
            Some(Event::Text(text)) => assert_eq!(text.trim(), "", "text between elements"),
            Some(Event::End) | None => return,
        }
    }
}

#[test]
fn sip_p_06_what_is_written_follows_the_schema() {
    let octets = written(&full());
    assert!(octets.starts_with(b"<?xml version=\"1.0\" encoding=\"UTF-8\"?>"));
    let mut ids = Vec::new();
    let limits = Limits::default();
    let text = std::str::from_utf8(&octets).expect("UTF-8");
    let mut xml = Xml::new(text, &limits).expect("legal");
    let Ok(Some(Event::Start(root))) = xml.next() else { panic!("a root") };
    assert_eq!((&*root.namespace, root.local), ("urn:ietf:params:xml:ns:pidf", "presence"));
    assert_eq!(xml.take("entity").as_deref(), Some("pres:o'neil&co@corp.example"));
    let top = [(Space::Pidf, "tuple"), (Space::Pidf, "note"), (Space::DataModel, "*")];
    let tuple = [
        (Space::Pidf, "status"),
        (Space::DataModel, "*"),
        (Space::Rpid, "*"),
        (Space::Pidf, "contact"),
        (Space::Pidf, "note"),
        (Space::Pidf, "timestamp"),
    ];
    let status = [(Space::Pidf, "basic"), (Space::Foreign, "*")];
    check_children(&mut xml, &top, &mut |xml, element| {
        ids.push(xml.take("id").map(|id| id.into_owned()));
        if element.local != "tuple" {
            return xml.skip().expect("well-formed");
        }
        check_children(xml, &tuple, &mut |xml, element| {
            if element.local != "status" {
                return xml.skip().expect("well-formed");
            }
            let mut number = 0;
            check_children(xml, &status, &mut |xml, _| {
                number += 1;
                xml.skip().expect("well-formed");
            });
            assert!(number > 0, "an empty status");
        });
    });
    let mut ids: Vec<_> = ids.into_iter().flatten().collect();
    assert!(ids.iter().all(|id| is_ncname(id)), "{ids:?}");
    ids.sort();
    ids.dedup();
    assert_eq!(ids, ["ID-desk", "ID-phone", "d", "p"]);
}

#[test]
fn sip_p_07_no_status_is_empty_and_ids_are_made_where_missing_and_unlike_all_others() {
    let basic = |id: &str| Tuple { id: id.into(), basic: Some(Basic::Open), ..Tuple::default() };
    let unknown = Tuple { id: "nothing-known".into(), ..Tuple::default() };
    let bad_child = Tuple { status_children: vec![child("u", "a b", "")], ..unknown.clone() };
    let tuples = vec![basic("tuple-1"), basic(""), unknown, bad_child, basic("x"), basic(""), basic("x")];
    let pidf = taken(&written(&Pidf { tuples, ..Pidf::default() }));
    let ids: Vec<_> = pidf.tuples.iter().map(|tuple| tuple.id.as_str()).collect();
    assert_eq!(ids, ["tuple-1", "tuple-1_", "tuple-5", "x"]);
    assert!(pidf.tuples.iter().all(|tuple| tuple.basic.is_some()));
}

#[test]
fn texts_cannot_break_out_of_their_place() {
    let nasty = "</note>\"'><!--]]>&amp;\r\n\t<x xmlns=\"u\">\u{1f600}";
    let mut pidf = full();
    pidf.entity = format!("x{nasty}y");
    pidf.notes = vec![note(None, nasty)];
    pidf.tuples[0].id = format!("x{nasty}y");
    pidf.tuples[0].status_children = vec![child(nasty, "show", nasty)];
    pidf.tuples[0].contact = Some(Contact { uri: format!("sip:{nasty}y"), priority_thousandths: None });
    pidf.tuples[0].notes = vec![note(Some("x' y='z"), nasty)];
    pidf.tuples[0].activities.values = vec![Activity::Other(nasty.into())];
    let read = taken(&written(&pidf));
    // A language that is none is left out; all else is the same.
    pidf.tuples[0].notes[0].lang = None;
    assert_eq!(read, pidf);
}

#[test]
fn characters_that_xml_cannot_hold_become_a_replacement_character() {
    let pidf = Pidf { notes: vec![note(None, "a\0b\u{b}c\u{fffe}d\u{ffff}e\u{7f}")], ..Pidf::default() };
    assert_eq!(taken(&written(&pidf)).notes[0].text, "a\u{fffd}b\u{fffd}c\u{fffd}d\u{fffd}e\u{7f}");
}

#[test]
fn names_and_namespaces_that_are_none_and_times_that_are_none_are_left_out() {
    let mut pidf = full();
    pidf.tuples[0].status_children = vec![
        child("", "show", "away"),
        child("http://www.w3.org/XML/1998/namespace", "show", "away"),
        child("http://www.w3.org/2000/xmlns/", "show", "away"),
        child("u", "show/><x", "away"),
    ];
    pidf.tuples[0].timestamp = Some("yesterday".into());
    pidf.person.as_mut().expect("a person").moods = vec!["happy sad".into()];
    let read = taken(&written(&pidf));
    assert_eq!(read.tuples[0].status_children, []);
    assert_eq!(read.tuples[0].timestamp, None);
    assert_eq!(read.person.expect("a person").moods, [""; 0]);
}

#[test]
fn a_tuple_that_is_left_out_brings_in_no_namespaces() {
    let document = include_bytes!("../../corpus/pidf/tuple-without-status.xml");
    let written = written(&taken(document));
    let text = std::str::from_utf8(&written).expect("UTF-8");
    assert!(!text.contains("<tuple") && !text.contains("xmlns:"), "{text}");
    fuzz_body(document);
}

#[test]
fn the_corpus_survives_the_fuzz_body_and_so_do_its_mutants() {
    let seeds = [DEFAULT, PREFIXED, MUST, RICH, PHONE, SOFTPHONE, SHOW, ODD];
    let mut state = 0x1234_5678_u32;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        usize::try_from(state).expect("32 bits fit") % below.max(1)
    };
    for seed in seeds {
        assert!(read(seed, &Limits::default()).is_ok());
        fuzz_body(seed);
        for _ in 0..1500 {
            let mut mutant = seed.to_vec();
            for _ in 0..=random(3) {
                let from = random(mutant.len());
                let end = mutant.len().min(from + random(60));
                let piece = mutant[from..end].to_vec();
                let to = random(mutant.len());
                match random(3) {
                    0 => mutant[to] = b"<>&;\"'/:= a1\n"[random(13)],
                    1 => drop(mutant.splice(to..to, piece)),
                    _ => drop(mutant.drain(from..end)),
                }
                if mutant.is_empty() {
                    break;
                }
            }
            fuzz_body(&mutant);
        }
    }
}
