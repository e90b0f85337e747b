use std::time::Duration;

use tombolo_interwork::owner::PhoneKey;
use tombolo_presence::Address;

use super::{
    registrations::{MAX_BINDINGS, PHONE_GRACE},
    *,
};

fn start() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "any instant will do as the start of a test")]
    Instant::now()
}

fn peer(name: &str) -> PeerKey {
    let aor = Address::from_prepared("alice@sip.example").expect("legal");
    PeerKey::Phone(Arc::new(PhoneKey { aor, instance: name.into() }))
}

fn register(name: &str, cseq: u32, expires: u32) -> Register {
    Register {
        peer: peer(name),
        origin: origin(9),
        call_id: name.into(),
        cseq,
        contacts: vec![(format!("sip:alice@{name}"), expires)],
        removes_all: false,
        has_instance: false,
    }
}

fn instance(peer: &PeerKey) -> &str {
    match peer {
        PeerKey::Phone(phone) => &phone.instance,
        PeerKey::FrontEnd(domain) => domain.as_str(),
    }
}

fn origin(port: u16) -> Origin {
    Origin { is_datagram: true, remote: ([192, 0, 2, 1], port).into() }
}

fn draft() -> RequestDraft {
    RequestDraft {
        method: "MESSAGE",
        uri: String::new(),
        routes: Vec::new(),
        from: String::new(),
        to: String::new(),
        call_id: "c".into(),
        cseq: 1,
        max_forwards: 70,
        contact_user: None,
        headers: Vec::new(),
        content_type: None,
        body: bytes::Bytes::new(),
    }
}

fn statuses(user: &mut LocalUser) -> Vec<Option<u16>> {
    std::iter::from_fn(|| user.poll_output())
        .filter_map(|output| match output {
            UserOutput::Delivered { outcome, .. } => Some(match outcome {
                Ok(()) => Some(200),
                Err(Failure::NoPhone) => None,
                Err(failure) => Some(failure.status()),
            }),
            _ => None,
        })
        .collect()
}

#[test]
fn a_phone_whose_user_is_elsewhere_says_where_unless_another_answers_better() {
    let now = start();
    let register_two = || {
        let mut user = LocalUser::new(Account::new("forks", usize::MAX));
        for name in ["a", "b"] {
            user.handle_register(&register(name, 1, 600), now);
        }
        user.handle_message(0, MessageId(1), None, &draft(), now);
        user
    };
    let fate = |user: &mut LocalUser| {
        std::iter::from_fn(|| user.poll_output())
            .filter_map(|output| match output {
                UserOutput::Moved { status, contact, .. } => Some((status, contact)),
                UserOutput::Delivered { outcome, .. } => {
                    Some((outcome.map_or_else(Failure::status, |()| 200), String::new()))
                }
                _ => None,
            })
            .collect::<Vec<_>>()
    };
    for (other, expected) in [
        (Ok(486), (301, "sip:alice@new.example")),
        (Err(NoResponse::Timeout), (301, "sip:alice@new.example")),
        (Ok(200), (200, "")),
        (Ok(603), (603, "")),
    ] {
        let mut user = register_two();
        user.handle_redirect(1, 0, 301, "sip:alice@new.example");
        user.handle_outcome(1, 1, other);
        assert_eq!(fate(&mut user), [(expected.0, expected.1.to_owned())], "{other:?}");
    }
    let mut user = register_two();
    user.handle_redirect(1, 0, 301, &format!("sip:{}@new.example", "a".repeat(2000)));
    user.handle_outcome(1, 1, Ok(486));
    assert_eq!(fate(&mut user), [(301, String::new())], "too long to be kept");
}

#[test]
fn sip_d_21_register_fetch_and_remove() {
    let (mut user, now) = (LocalUser::new(Account::new("forks", usize::MAX)), start());
    let one = vec![("sip:alice@a".to_owned(), 600)];
    assert_eq!(user.handle_register(&register("a", 1, 600), now), Registered::Bindings(one.clone()));
    let fetch = Register { contacts: Vec::new(), cseq: 2, ..register("a", 2, 0) };
    assert_eq!(user.handle_register(&fetch, now), Registered::Bindings(one));
    assert_eq!(user.handle_register(&register("a", 1, 600), now), Registered::OutOfOrder);
    assert_eq!(user.handle_register(&register("a", 2, 5), now), Registered::TooBrief);
    assert_eq!(user.handle_register(&register("a", 3, 0), now), Registered::Bindings(Vec::new()));
    assert!(user.is_idle());
}

#[test]
fn a_phone_that_does_not_register_again_is_gone() {
    let (mut user, now) = (LocalUser::new(Account::new("forks", usize::MAX)), start());
    user.handle_register(&register("a", 1, 60), now);
    user.handle_timeout(now + Duration::from_secs(61));
    assert!(user.bindings().is_empty());
}

#[test]
fn what_is_registered_is_stored_and_what_is_gone_is_taken_out() {
    let (mut user, now) = (LocalUser::new(Account::new("forks", usize::MAX)), start());
    let outputs = |user: &mut LocalUser| -> Vec<String> {
        let name = |output| match output {
            UserOutput::Keep(binding) => format!("keep {} {}", binding.contact, binding.cseq),
            UserOutput::Forget { contact } => format!("forget {contact}"),
            UserOutput::Lapsed(_) => "lapsed".to_owned(),
            UserOutput::Present(phone) => format!("present {}", instance(&phone)),
            UserOutput::Gone(phone) => format!("gone {}", instance(&phone)),
            other => format!("{other:?}"),
        };
        std::iter::from_fn(|| user.poll_output()).map(name).collect()
    };
    user.handle_register(&register("a", 1, 60), now);
    user.handle_register(&register("b", 1, 600), now);
    assert_eq!(outputs(&mut user), ["keep sip:alice@a 1", "present a", "keep sip:alice@b 1", "present b"]);
    user.handle_register(&register("b", 2, 600), now);
    assert_eq!(outputs(&mut user), ["keep sip:alice@b 2", "present b"], "only what changed");
    let fetch = Register { contacts: Vec::new(), ..register("a", 9, 0) };
    user.handle_register(&fetch, now);
    user.handle_register(&register("b", 2, 600), now);
    assert!(outputs(&mut user).is_empty(), "asking and a stale REGISTER change nothing");
    user.handle_timeout(now + Duration::from_secs(60));
    assert_eq!(outputs(&mut user), ["forget sip:alice@a", "lapsed", "gone a"]);
    let all = Register { removes_all: true, contacts: Vec::new(), ..register("b", 3, 0) };
    user.handle_register(&all, now + Duration::from_secs(61));
    assert_eq!(outputs(&mut user), ["forget sip:alice@b", "lapsed", "gone b"]);
    // By Expires 0 too, once the last one is out.
    let two = vec![("sip:alice@a".to_owned(), 60), ("sip:alice@a:9".to_owned(), 60)];
    user.handle_register(&Register { contacts: two, ..register("a", 1, 60) }, now);
    outputs(&mut user);
    user.handle_register(&register("a", 2, 0), now);
    assert_eq!(outputs(&mut user), ["forget sip:alice@a", "present a"]);
    let rest = vec![("sip:alice@a:9".to_owned(), 0)];
    user.handle_register(&Register { contacts: rest, ..register("a", 3, 0) }, now);
    assert_eq!(outputs(&mut user), ["forget sip:alice@a:9", "lapsed", "gone a"]);
}

#[test]
fn a_new_contact_of_an_instance_takes_the_place_of_its_old_one() {
    let (mut user, now) = (LocalUser::new(Account::new("forks", usize::MAX)), start());
    user.handle_register(&register("other", 1, 600), now);
    for n in 0..20 {
        let contacts = vec![(format!("sip:alice@a:{n}"), 600)];
        let call_id = format!("call-{n}");
        let again = Register { contacts, call_id, has_instance: true, ..register("a", 1, 600) };
        assert!(matches!(user.handle_register(&again, now), Registered::Bindings(_)), "{n}");
    }
    let contacts: Vec<_> = user.bindings().iter().map(|binding| &*binding.contact).collect();
    assert_eq!(contacts, ["sip:alice@other", "sip:alice@a:19"]);
    let gone: Vec<_> = std::iter::from_fn(|| user.poll_output()).collect();
    assert!(!gone.iter().any(|output| matches!(output, UserOutput::Lapsed(_))), "it is there still");
}

/// The Contacts to which a message went.
fn targets(user: &mut LocalUser) -> Vec<String> {
    std::iter::from_fn(|| user.poll_output())
        .filter_map(|output| match output {
            UserOutput::Request { uri, .. } => Some(uri),
            _ => None,
        })
        .collect()
}

#[test]
fn a_message_for_a_device_rings_that_one_and_all_where_nobody_is_it() {
    let (mut user, now) = (LocalUser::new(Account::new("forks", usize::MAX)), start());
    let gruu = vec![("sip:alice@sip.example;gr=desk".to_owned(), 600)];
    user.handle_register(&Register { contacts: gruu, ..register("a", 1, 600) }, now);
    user.handle_register(&register("b", 1, 600), now);
    for (device, wanted) in [
        (Some("desk"), &["sip:alice@sip.example;gr=desk"][..]),
        (Some("b"), &["sip:alice@b"]),
        (Some("c"), &["sip:alice@sip.example;gr=desk", "sip:alice@b"]),
        (None, &["sip:alice@sip.example;gr=desk", "sip:alice@b"]),
    ] {
        user.handle_message(0, MessageId(1), device, &draft(), now);
        assert_eq!(targets(&mut user), wanted, "{device:?}");
    }
}

#[test]
fn a_message_that_is_too_long_for_one_phone_is_told_by_the_best_of_all_phones() {
    let (mut user, now) = (LocalUser::new(Account::new("forks", usize::MAX)), start());
    user.handle_register(&register("a", 1, 600), now);
    user.handle_message(0, MessageId(1), None, &draft(), now);
    user.handle_outcome(1, 0, Err(NoResponse::TooLarge));
    assert_eq!(statuses(&mut user), [Some(513)]);
    user.handle_register(&register("b", 1, 600), now);
    user.handle_message(0, MessageId(2), None, &draft(), now);
    user.handle_outcome(2, 0, Err(NoResponse::TooLarge));
    user.handle_outcome(2, 1, Ok(200));
    assert_eq!(statuses(&mut user), [Some(200)]);
}

#[test]
fn a_phone_is_known_by_where_it_registered_from_or_by_its_contact() {
    let (mut user, now) = (LocalUser::new(Account::new("forks", usize::MAX)), start());
    user.handle_register(&register("a", 1, 60), now);
    user.handle_register(&Register { origin: origin(10), ..register("b", 1, 60) }, now);
    assert_eq!(user.find_phone(origin(10), None, now), Some(peer("b")));
    assert_eq!(user.find_phone(origin(11), None, now), None, "two phones are at that address");
    assert_eq!(user.find_phone(origin(11), Some("sip:alice@c"), now), None);
    assert_eq!(user.find_phone(origin(11), Some("SIP:%61lice@A"), now), Some(peer("a")));
    assert_eq!(user.find_phone(origin(11), None, now), Some(peer("a")), "it moved there");
    let by_stream = Origin { is_datagram: false, ..origin(11) };
    assert_eq!(user.find_phone(by_stream, None, now), None, "another transport is another phone");
    assert_eq!(user.find_phone(origin(11), None, now + Duration::from_secs(60)), None, "it ran out");
}

#[test]
fn the_first_success_is_the_outcome_of_a_fork() {
    let (mut user, now) = (LocalUser::new(Account::new("forks", usize::MAX)), start());
    user.handle_register(&register("a", 1, 60), now);
    user.handle_register(&register("b", 1, 60), now);
    user.handle_message(0, MessageId(1), None, &draft(), now);
    user.handle_outcome(1, 0, Ok(486));
    assert!(statuses(&mut user).is_empty());
    user.handle_outcome(1, 1, Ok(200));
    assert_eq!(statuses(&mut user), [Some(200)]);
}

#[test]
fn without_a_success_the_best_failure_counts_and_without_a_phone_480() {
    let (mut user, now) = (LocalUser::new(Account::new("forks", usize::MAX)), start());
    user.handle_message(0, MessageId(1), None, &draft(), now);
    assert_eq!(statuses(&mut user), [None]);
    user.handle_register(&register("a", 1, 60), now);
    user.handle_register(&register("b", 1, 60), now);
    user.handle_message(0, MessageId(2), None, &draft(), now);
    user.handle_outcome(1, 0, Err(NoResponse::Timeout));
    user.handle_outcome(1, 1, Ok(486));
    assert_eq!(statuses(&mut user), [Some(486)]);
    assert_eq!(best([Ok(503), Ok(408)].into_iter()).status(), 480);
}

/// A phone by TCP.
fn by_stream(name: &str, cseq: u32, port: u16) -> Register {
    let origin = Origin { is_datagram: false, ..origin(port) };
    Register { origin, ..register(name, cseq, 600) }
}

/// The phones that the shard was told to be present and gone, since it was asked last.
fn news(user: &mut LocalUser) -> Vec<String> {
    std::iter::from_fn(|| user.poll_output())
        .filter_map(|output| match output {
            UserOutput::Present(phone) => Some(format!("{} is present", instance(&phone))),
            UserOutput::Gone(phone) => Some(format!("{} is gone", instance(&phone))),
            _ => None,
        })
        .collect()
}

fn contacts(user: &LocalUser) -> Vec<&str> {
    user.bindings().iter().map(|binding| &*binding.contact).collect()
}

#[test]
fn equivalent_contacts_are_one_binding_and_one_message() {
    let (mut user, now) = (LocalUser::new(Account::new("forks", usize::MAX)), start());
    let register = |contact: &str, cseq, expires| Register {
        contacts: vec![(contact.to_owned(), expires)],
        ..register("a", cseq, 600)
    };
    for (cseq, contact) in [
        (1, "sip:carol@192.0.2.5:5062;transport=udp"),
        (2, "sip:carol@192.0.2.5:5062;transport=UDP"),
        (3, "SIP:carol@192.0.2.5:5062;Transport=udp"),
        (4, "sip:%63arol@192.0.2.5:5062;ob;transport=udp"),
    ] {
        user.handle_register(&register(contact, cseq, 600), now);
        assert_eq!(contacts(&user), [contact], "as the phone wrote it last");
    }
    news(&mut user);
    user.handle_message(0, MessageId(1), None, &draft(), now);
    assert_eq!(targets(&mut user).len(), 1);
    let other = "sip:carol@192.0.2.5:5062";
    user.handle_register(&register(other, 5, 600), now);
    assert_eq!(user.bindings().len(), 2, "without a transport it is another URI");
    user.handle_register(&register("sip:carol@192.0.2.5:5062;transport=Udp", 6, 0), now);
    assert_eq!(contacts(&user), [other]);
}

#[test]
fn contacts_of_one_register_that_are_equivalent_are_one_and_the_last_counts() {
    let (mut user, now) = (LocalUser::new(Account::new("forks", usize::MAX)), start());
    let contacts = vec![("sip:alice@a".to_owned(), 600), ("SIP:alice@A".to_owned(), 300)];
    user.handle_register(&Register { contacts, ..register("a", 1, 600) }, now);
    let left = user.report(now);
    assert_eq!((left.len(), left[0].expires_in), (1, Duration::from_secs(300)));
    let contacts = vec![("sip:alice@a".to_owned(), 600), ("SIP:alice@A".to_owned(), 0)];
    user.handle_register(&Register { contacts, ..register("a", 2, 600) }, now);
    assert!(user.bindings().is_empty());
}

#[test]
fn bindings_that_an_earlier_version_stored_several_times_are_one_again() {
    let (mut user, now) = (LocalUser::new(Account::new("forks", usize::MAX)), start());
    let binding = |contact: &str, left| Binding {
        contact: contact.into(),
        peer: peer("a"),
        call_id: "a".into(),
        cseq: 1,
        expires_at: now + Duration::from_secs(left),
        origin: origin(9),
    };
    user.restore(
        vec![binding("sip:alice@a", 600), binding("SIP:alice@a", 60), binding("sip:alice@b", 60)],
        now,
    );
    assert_eq!(contacts(&user), ["sip:alice@b", "sip:alice@a"]);
    let forgotten = std::iter::from_fn(|| user.poll_output()).find_map(|output| match output {
        UserOutput::Forget { contact } => Some(contact),
        _ => None,
    });
    assert_eq!(forgotten.as_deref(), Some("SIP:alice@a"));
}

#[test]
fn a_newer_phone_takes_the_place_of_one_that_lost_its_connection_else_of_the_oldest() {
    let (mut user, now) = (LocalUser::new(Account::new("forks", usize::MAX)), start());
    for n in 0..MAX_BINDINGS {
        user.handle_register(&by_stream(&n.to_string(), 1, 9), now);
    }
    user.handle_reach(&peer("4"), Reach::Unreachable, now);
    for n in MAX_BINDINGS..MAX_BINDINGS + 2 {
        let answer = user.handle_register(&by_stream(&n.to_string(), 1, 9), now);
        assert!(matches!(answer, Registered::Bindings(all) if all.len() == MAX_BINDINGS), "{n}");
    }
    let left: Vec<&str> = user.bindings().iter().map(|binding| instance(&binding.peer)).collect();
    assert_eq!(left, ["1", "2", "3", "5", "6", "7", "8", "9", "10", "11"]);
    let news = news(&mut user);
    assert!(news.contains(&"4 is gone".to_owned()) && news.contains(&"0 is gone".to_owned()), "{news:?}");
}

#[test]
fn thirteen_connections_one_after_the_other_register() {
    let (mut user, now) = (LocalUser::new(Account::new("forks", usize::MAX)), start());
    for n in 0..13 {
        let name = n.to_string();
        assert!(matches!(user.handle_register(&by_stream(&name, 1, 9), now), Registered::Bindings(_)), "{n}");
        user.handle_reach(&peer(&name), Reach::Unreachable, now);
    }
}

#[test]
fn a_register_with_more_contacts_than_a_user_may_have_is_refused_and_nothing_changes() {
    let (mut user, now) = (LocalUser::new(Account::new("forks", usize::MAX)), start());
    user.handle_register(&register("x", 1, 60), now);
    let too_many = (0..=MAX_BINDINGS).map(|n| (format!("sip:alice@a:{}", n + 1), 600)).collect();
    let answer = user.handle_register(&Register { contacts: too_many, ..register("a", 1, 600) }, now);
    assert_eq!(answer, Registered::TooMany);
    assert_eq!(contacts(&user), ["sip:alice@x"]);
}

#[test]
fn xp_26_a_phone_whose_connection_ended_is_gone_after_the_grace_and_once() {
    let (mut user, now) = (LocalUser::new(Account::new("forks", usize::MAX)), start());
    user.handle_register(&by_stream("a", 1, 9), now);
    assert_eq!(news(&mut user), ["a is present"]);
    user.handle_reach(&peer("a"), Reach::Unreachable, now);
    assert_eq!(user.poll_timeout(), Some(now + PHONE_GRACE));
    user.handle_timeout(now + PHONE_GRACE - Duration::from_secs(1));
    assert!(news(&mut user).is_empty(), "it may still come back");
    user.handle_timeout(now + PHONE_GRACE);
    assert_eq!(news(&mut user), ["a is gone"]);
    assert_eq!(user.bindings().len(), 1, "its binding lives until it expires");
    assert_eq!(user.poll_timeout(), Some(now + Duration::from_secs(600)));
    user.handle_timeout(now + PHONE_GRACE * 2);
    assert!(news(&mut user).is_empty());
    user.handle_reach(&peer("a"), Reach::Reachable, now + PHONE_GRACE * 2);
    assert_eq!(news(&mut user), ["a is present"]);
}

#[test]
fn a_phone_that_is_back_within_the_grace_was_never_gone() {
    let (mut user, now) = (LocalUser::new(Account::new("forks", usize::MAX)), start());
    user.handle_register(&by_stream("a", 1, 9), now);
    user.handle_reach(&peer("a"), Reach::Unreachable, now);
    user.handle_reach(&peer("a"), Reach::Reachable, now + Duration::from_secs(20));
    user.handle_timeout(now + PHONE_GRACE);
    assert_eq!(news(&mut user), ["a is present", "a is present"]);
}

#[test]
fn a_phone_by_udp_needs_no_connection() {
    let (mut user, now) = (LocalUser::new(Account::new("forks", usize::MAX)), start());
    user.handle_register(&register("a", 1, 600), now);
    user.handle_reach(&peer("a"), Reach::Unreachable, now);
    user.handle_timeout(now + PHONE_GRACE);
    assert_eq!(news(&mut user), ["a is present"]);
    assert!(user.report(now)[0].is_reachable);
}

#[test]
fn after_a_restart_phones_by_tcp_have_the_grace_to_come_back() {
    let (mut old, now) = (LocalUser::new(Account::new("forks", usize::MAX)), start());
    old.handle_register(&by_stream("tcp", 1, 9), now);
    old.handle_register(&register("udp", 1, 600), now);
    let mut user = LocalUser::new(Account::new("forks", usize::MAX));
    user.restore(old.bindings().to_vec(), now);
    let mut told = news(&mut user);
    told.sort_unstable();
    assert_eq!(told, ["tcp is present", "udp is present"]);
    user.handle_timeout(now + PHONE_GRACE);
    assert_eq!(news(&mut user), ["tcp is gone"]);
}

#[test]
fn what_a_phone_published_without_registering_ends_with_its_connection_too() {
    let (mut user, now) = (LocalUser::new(Account::new("forks", usize::MAX)), start());
    user.handle_reach(&peer("visitor"), Reach::Unreachable, now);
    assert!(!user.is_idle(), "the actor must live until then");
    user.handle_timeout(now + PHONE_GRACE);
    assert_eq!(news(&mut user), ["visitor is gone"]);
    assert!(user.is_idle());
}

#[test]
fn a_further_connection_is_the_only_phones_at_its_address_and_moves_nothing() {
    let (mut user, now) = (LocalUser::new(Account::new("forks", usize::MAX)), start());
    user.handle_register(&by_stream("a", 1, 9), now);
    let further = Origin { is_datagram: false, ..origin(4711) };
    assert_eq!(user.find_phone(further, None, now), Some(peer("a")));
    assert_eq!(user.bindings()[0].origin.remote.port(), 9);
    let elsewhere = Origin { remote: ([192, 0, 2, 77], 9).into(), ..further };
    assert_eq!(user.find_phone(elsewhere, None, now), None);
}

#[test]
fn an_operator_sees_each_binding_and_removes_them_all() {
    let (mut user, now) = (LocalUser::new(Account::new("forks", usize::MAX)), start());
    user.handle_register(&by_stream("a", 1, 9), now);
    user.handle_register(&register("b", 1, 60), now);
    user.handle_reach(&peer("a"), Reach::Unreachable, now);
    let report = user.report(now + Duration::from_secs(10));
    let seen: Vec<_> = report
        .iter()
        .map(|b| (&*b.instance, b.is_datagram, b.is_reachable, b.expires_in.as_secs()))
        .collect();
    assert_eq!(seen, [("a", false, false, 590), ("b", true, true, 50)]);
    news(&mut user);
    assert_eq!(user.clear(), 2);
    assert_eq!(news(&mut user), ["a is gone", "b is gone"]);
    assert!(user.is_idle());
}

#[test]
fn the_requests_of_a_message_share_its_body_and_all_that_are_on_their_way_are_bounded_in_octets() {
    let all = Account::new("forks", 40_000);
    let mut user = LocalUser::new(all.clone());
    for n in 0..10 {
        let mut phone = register(&format!("silent{n}"), 1, 600);
        phone.origin.is_datagram = false;
        user.handle_register(&phone, start());
    }
    let long = RequestDraft { body: vec![b'x'; 200_000].into(), ..draft() };
    let (mut sent, mut not_taken) = (0, 0);
    for n in 0..300 {
        user.handle_message(0, MessageId(n), None, &long, start());
        while let Some(output) = user.poll_output() {
            match output {
                UserOutput::Request { draft, .. } => {
                    assert_eq!(draft.body.as_ptr(), long.body.as_ptr(), "one body for all");
                    sent += 1;
                }
                UserOutput::NotTaken { message, .. } => {
                    assert!(message.0 >= 5, "there is room for some");
                    not_taken += 1;
                }
                _ => {}
            }
        }
    }
    assert_eq!(sent, (300 - not_taken) * 10);
    assert!(not_taken > 250 && all.held() <= 40_000, "{not_taken} refused, {} held", all.held());
    for fork in 1..=30 {
        for branch in 0..10 {
            user.handle_outcome(fork, branch, Err(NoResponse::Timeout));
        }
    }
    assert_eq!(all.held(), 0, "what ended is given back");
}
