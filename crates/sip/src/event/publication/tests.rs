use super::*;

/// The tests' clock: a start that nothing reads, and seconds after it.
fn start() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "a test needs one instant to count from")]
    Instant::now()
}

fn secs(number: u64) -> Duration {
    Duration::from_secs(number)
}

fn publish(if_match: IfMatch, expires: Option<u32>, has_body: bool) -> Publish {
    Publish { is_event_known: true, if_match, expires, has_body, former: None }
}

type Bodies = Compositor<&'static str>;

/// Publishes with the next tag that was not used.
fn send(
    compositor: &mut Bodies,
    publish: &Publish,
    body: &'static str,
    now: Instant,
) -> Result<Accepted, Refusal> {
    let tag = compositor.highest_tag + 1;
    compositor.handle_publish(publish, tag, now, &Settings::default(), || Ok(body))
}

/// A compositor with one publication, its tag, and its id.
fn one(now: Instant) -> (Bodies, u64, PublicationId) {
    let mut compositor = Bodies::new();
    let accepted = send(&mut compositor, &publish(IfMatch::Absent, Some(600), true), "open", now);
    let accepted = accepted.expect("an initial publication");
    let Change::Added(id) = accepted.change else { panic!("{accepted:?}") };
    (compositor, accepted.entity_tag, id)
}

#[test]
fn sip_pub_01_the_four_operations_of_table_1() {
    let now = start();
    let (mut compositor, tag, id) = one(now);
    assert_eq!(compositor.body(id), Some(&"open"));

    let refresh = publish(IfMatch::One(Some(tag)), Some(900), false);
    let accepted = send(&mut compositor, &refresh, "unread", now + secs(1)).expect("a refresh");
    assert_eq!((accepted.change, accepted.expires), (Change::Refreshed(id), 900));
    assert_eq!((compositor.body(id), compositor.poll_timeout()), (Some(&"open"), Some(now + secs(901))));

    let modify = publish(IfMatch::One(Some(accepted.entity_tag)), Some(600), true);
    let accepted = send(&mut compositor, &modify, "closed", now).expect("a modification");
    assert_eq!(accepted.change, Change::Modified(id));
    assert_eq!(compositor.body(id), Some(&"closed"));

    let remove = publish(IfMatch::One(Some(accepted.entity_tag)), Some(0), false);
    let accepted = send(&mut compositor, &remove, "unread", now).expect("a removal");
    assert_eq!((accepted.change, accepted.expires), (Change::Removed(id), 0));
    assert!(compositor.is_empty());
}

#[test]
fn sip_pub_02_of_two_faults_the_earlier_check_answers() {
    let now = start();
    // Each fault alone, in the order of the checks; 404 comes before and is the caller's.
    type Spoil = fn(&mut Publish);
    let faults: [(u16, Spoil); 5] = [
        (489, |publish| publish.is_event_known = false),
        (400, |publish| publish.if_match = IfMatch::Invalid),
        (412, |publish| publish.if_match = IfMatch::One(None)),
        (423, |publish| publish.expires = Some(59)),
        (415, |_| {}),
    ];
    let answer = |spoils: &[Spoil], body_is_bad: bool| {
        let (mut compositor, tag, id) = one(now);
        let before = compositor.row(id);
        let mut request = publish(IfMatch::One(Some(tag)), Some(600), true);
        for spoil in spoils {
            spoil(&mut request);
        }
        let mut was_read = false;
        let result = compositor.handle_publish(&request, tag + 1, now, &Settings::default(), || {
            was_read = true;
            if body_is_bad { Err(BodyFault::Unsupported("a type")) } else { Ok("closed") }
        });
        let status = result.err().map_or(200, |refusal| refusal.status());
        assert!(status == 200 || (compositor.row(id), compositor.body(id)) == (before, Some(&"open")));
        assert!(status == 200 || status == 415 || !was_read, "a body was read for a {status}");
        status
    };
    assert_eq!(answer(&[], false), 200);
    for (first, (status, spoil)) in faults.iter().enumerate() {
        assert_eq!(answer(&[*spoil], *status == 415), *status);
        for (later, other) in &faults[first + 1..] {
            // Both If-Match faults are one header field: the later spoil would overwrite the earlier.
            if (*status, *later) != (400, 412) {
                assert_eq!(answer(&[*spoil, *other], *later == 415), *status, "with {later}");
            }
        }
    }
}

#[test]
fn sip_pub_03_every_200_has_a_new_tag_and_the_old_one_is_dead() {
    let now = start();
    let (mut compositor, first, _) = one(now);
    let mut tags = vec![first];
    for _ in 0..3 {
        let last = *tags.last().expect("one at least");
        let refresh = publish(IfMatch::One(Some(last)), None, false);
        tags.push(send(&mut compositor, &refresh, "", now).expect("a refresh").entity_tag);
    }
    tags.sort_unstable();
    tags.dedup();
    assert_eq!(tags.len(), 4);
    for dead in &tags[..3] {
        let refresh = publish(IfMatch::One(Some(*dead)), None, false);
        let refused = send(&mut compositor, &refresh, "", now);
        assert_eq!(refused, Err(Refusal::ConditionalRequestFailed), "{dead}");
    }
    // A tag that was used is refused, as an internal fault that changes nothing.
    let refresh = publish(IfMatch::One(Some(tags[3])), None, false);
    let refused = compositor.handle_publish(&refresh, tags[3], now, &Settings::default(), || Ok(""));
    assert_eq!(refused.map_err(|refusal| refusal.status()), Err(500));
    assert!(send(&mut compositor, &refresh, "", now).is_ok());
}

#[test]
fn sip_pub_04_of_two_modifications_of_one_state_the_second_gets_412() {
    let now = start();
    let (mut compositor, tag, id) = one(now);
    let modify = publish(IfMatch::One(Some(tag)), None, true);
    assert!(send(&mut compositor, &modify, "first", now).is_ok());
    let second = send(&mut compositor, &modify, "second", now);
    assert_eq!(second.map_err(|refusal| refusal.status()), Err(412));
    assert_eq!(compositor.body(id), Some(&"first"));
}

#[test]
fn sip_pub_05_neither_tag_nor_body_is_400_and_expires_is_never_longer_than_asked() {
    let now = start();
    let mut compositor = Bodies::new();
    let empty = send(&mut compositor, &publish(IfMatch::Absent, None, false), "", now);
    assert_eq!(empty.map_err(|refusal| refusal.status()), Err(400));
    for (asked, granted) in [(None, 3600), (Some(60), 60), (Some(3600), 3600), (Some(u32::MAX), 3600)] {
        let accepted = send(&mut compositor, &publish(IfMatch::Absent, asked, true), "", now);
        assert_eq!(accepted.expect("a body is there").expires, granted, "{asked:?}");
    }
}

#[test]
fn sip_pub_07_expiry_removes_that_publication_only() {
    let now = start();
    let (mut compositor, tag, id) = one(now);
    let other = publish(IfMatch::Absent, Some(1200), true);
    let Change::Added(other) = send(&mut compositor, &other, "away", now).expect("another").change else {
        panic!("an initial publication adds")
    };
    assert_ne!(id, other);
    assert_eq!(compositor.poll_timeout(), Some(now + secs(600)));
    assert_eq!(compositor.handle_timeout(now + secs(599)), None);
    // Run out but not yet swept: its tag is dead.
    let refresh = publish(IfMatch::One(Some(tag)), None, false);
    let refused = send(&mut compositor, &refresh, "", now + secs(600));
    assert_eq!(refused, Err(Refusal::ConditionalRequestFailed));
    assert_eq!(compositor.handle_timeout(now + secs(600)), Some((id, "open")));
    assert_eq!(compositor.handle_timeout(now + secs(600)), None);
    assert_eq!(compositor.iter().collect::<Vec<_>>(), [(other, &"away")]);
}

#[test]
fn an_initial_publication_for_no_time_stores_nothing() {
    let now = start();
    let mut compositor = Bodies::new();
    let accepted = send(&mut compositor, &publish(IfMatch::Absent, Some(0), true), "open", now);
    assert_eq!(accepted.map(|accepted| accepted.change), Ok(Change::Nothing));
    assert!(compositor.is_empty());
}

#[test]
fn a_broken_body_is_400_and_keeps_the_state() {
    let now = start();
    let (mut compositor, tag, id) = one(now);
    let modify = publish(IfMatch::One(Some(tag)), None, true);
    let refused = compositor
        .handle_publish(&modify, tag + 1, now, &Settings::default(), || Err(BodyFault::Malformed("broken")));
    assert_eq!(refused.map_err(|refusal| refusal.status()), Err(400));
    assert_eq!((compositor.body(id), compositor.row(id).map(|row| row.0)), (Some(&"open"), Some(tag)));
}

#[test]
fn the_number_of_publications_is_bounded_but_those_that_stand_go_on() {
    let now = start();
    let (mut compositor, tag, _) = one(now);
    let initial = publish(IfMatch::Absent, Some(3600), true);
    for _ in 1..16 {
        assert!(send(&mut compositor, &initial, "", now).is_ok());
    }
    assert_eq!(send(&mut compositor, &initial, "", now), Err(Refusal::TooMany { limit: 16 }));
    let refresh = publish(IfMatch::One(Some(tag)), Some(600), false);
    assert!(send(&mut compositor, &refresh, "", now).is_ok());
    // What is not stored needs no room.
    let nothing = publish(IfMatch::Absent, Some(0), true);
    assert!(send(&mut compositor, &nothing, "", now).is_ok());
    // One that ran out makes room, swept or not.
    assert!(send(&mut compositor, &initial, "", now + secs(600)).is_ok());
}

#[test]
fn a_restored_publication_keeps_its_id_and_tag_and_new_ones_get_others() {
    let now = start();
    let mut compositor = Bodies::new();
    compositor.restore(PublicationId(7), 40, now + secs(60), "open");
    let refresh = publish(IfMatch::One(Some(40)), None, false);
    let accepted = send(&mut compositor, &refresh, "", now).expect("its tag lives");
    assert_eq!(accepted.change, Change::Refreshed(PublicationId(7)));
    let added = send(&mut compositor, &publish(IfMatch::Absent, None, true), "", now).expect("a new one");
    assert_eq!(added.change, Change::Added(PublicationId(8)));
}

#[test]
fn sip_if_match_is_read_as_one_tag_or_told_to_be_none() {
    let read = |rows: &str| {
        let text = format!(
            "PUBLISH sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP c;branch=z9hG4bK1\r\nFrom: <sip:a@b>;tag=1\r\n\
             To: <sip:a@b>\r\nCall-ID: 1\r\nCSeq: 1 PUBLISH\r\n{rows}Content-Length: 0\r\n\r\n"
        );
        let limits = crate::message::MessageLimits::default();
        let message = crate::message::read_datagram(text.into_bytes().into(), &limits).expect("a message");
        IfMatch::read(&message, |tag| tag.strip_prefix('t')?.parse().ok())
    };
    assert_eq!(read(""), IfMatch::Absent);
    assert_eq!(read("SIP-If-Match: t12\r\n"), IfMatch::One(Some(12)));
    assert_eq!(read("SIP-If-Match: other\r\n"), IfMatch::One(None));
    for invalid in ["t1, t2", "t1 t2", "\"t1\"", "t1;x=y"] {
        assert_eq!(read(&format!("SIP-If-Match: {invalid}\r\n")), IfMatch::Invalid, "{invalid}");
    }
    assert_eq!(read("SIP-If-Match: t1\r\nSIP-If-Match: t2\r\n"), IfMatch::Invalid);
    assert_eq!(read("SIP-If-Match:\r\n"), IfMatch::Invalid);
}

#[test]
fn an_initial_publication_takes_the_place_of_the_publishers_former_one() {
    let now = start();
    let (mut compositor, old_tag, id) = one(now);
    let other =
        send(&mut compositor, &publish(IfMatch::Absent, None, true), "other", now).expect("another phone");
    let Change::Added(other) = other.change else { panic!("{other:?}") };
    let again = Publish { former: Some(id), ..publish(IfMatch::Absent, Some(900), true) };
    let accepted = send(&mut compositor, &again, "again", now + secs(1)).expect("an initial publication");
    assert_eq!(accepted.change, Change::Modified(id), "its row is written over");
    assert_eq!(
        compositor.iter().map(|(id, body)| (id, *body)).collect::<Vec<_>>(),
        [(other, "other"), (id, "again")]
    );
    let refresh = publish(IfMatch::One(Some(old_tag)), None, false);
    assert_eq!(send(&mut compositor, &refresh, "", now), Err(Refusal::ConditionalRequestFailed));
    // What is refused, or stands for no time at all, replaces nothing.
    for expires in [5, 0] {
        let _ = send(&mut compositor, &Publish { expires: Some(expires), ..again }, "lost", now);
        assert_eq!(compositor.body(id), Some(&"again"), "{expires}");
    }
}

#[test]
fn a_publisher_whose_place_is_taken_already_may_publish_anew_where_no_other_may() {
    let now = start();
    let mut compositor = Bodies::new();
    let initial = publish(IfMatch::Absent, None, true);
    let limit = Settings::default().most_publications;
    for _ in 0..limit {
        send(&mut compositor, &initial, "one", now).expect("there is room");
    }
    assert_eq!(send(&mut compositor, &initial, "more", now), Err(Refusal::TooMany { limit }));
    let again = Publish { former: Some(PublicationId(3)), ..initial };
    assert!(send(&mut compositor, &again, "again", now).is_ok());
    let unknown = Publish { former: Some(PublicationId(999)), ..initial };
    assert_eq!(send(&mut compositor, &unknown, "more", now), Err(Refusal::TooMany { limit }));
}
