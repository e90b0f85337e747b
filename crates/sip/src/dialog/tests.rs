use super::*;

const FORMING: Forming<'static> = Forming {
    call_id: "a84b4c76e66710@pc33.atlanta.example",
    from_uri: "sip:romeo@partner.example",
    from_tag: "from",
    to_uri: "sip:juliet@corp.example",
    to_tag: "to",
    contact: "sip:juliet@192.0.2.4:5070;transport=tcp",
    record_routes: &["<sip:p2.corp.example;lr>;x=1", "<sip:p1.partner.example;lr;r2=on>"],
    cseq: 17,
};

fn texts<'a>(addressing: &'a Addressing<'_>) -> (&'a str, Vec<&'a str>, &'a str) {
    let routes = addressing.routes.iter().map(|route| &**route).collect();
    (&addressing.request_uri, routes, &addressing.next_hop)
}

#[test]
fn a_client_takes_its_own_side_from_from_and_routes_in_reverse() {
    let dialog = DialogState::as_client(&FORMING).expect("a dialog");
    assert_eq!((&*dialog.local_tag, &*dialog.remote_tag), ("from", "to"));
    assert_eq!(
        (&*dialog.local_uri, &*dialog.remote_uri),
        ("sip:romeo@partner.example", "sip:juliet@corp.example")
    );
    let routes: Vec<_> = dialog.routes.iter().collect();
    assert_eq!(routes, ["<sip:p1.partner.example;lr;r2=on>", "<sip:p2.corp.example;lr>;x=1"]);
    assert_eq!((dialog.local_cseq, dialog.remote_cseq.last()), (17, None));
}

#[test]
fn a_server_takes_its_own_side_from_to_and_routes_in_order() {
    let mut dialog = DialogState::as_server(&FORMING).expect("a dialog");
    assert_eq!((&*dialog.local_tag, &*dialog.remote_tag), ("to", "from"));
    assert_eq!(
        (&*dialog.local_uri, &*dialog.remote_uri),
        ("sip:juliet@corp.example", "sip:romeo@partner.example")
    );
    assert_eq!(dialog.routes.iter().collect::<Vec<_>>(), FORMING.record_routes);
    assert_eq!(dialog.remote_cseq.last(), Some(17));
    assert_eq!(dialog.next_cseq(), Some(1));
}

#[test]
fn sip_d_04_call_id_and_both_tags_identify_and_a_missing_remote_tag_is_empty() {
    let dialog = DialogState::as_server(&FORMING).expect("a dialog");
    assert!(dialog.matches(FORMING.call_id, "to", "from"));
    for (call_id, to_tag, from_tag) in [
        ("other", "to", "from"),
        (FORMING.call_id, "from", "to"),
        (FORMING.call_id, "", "from"),
        (FORMING.call_id, "to", ""),
        (FORMING.call_id, "to", "other"),
    ] {
        assert!(!dialog.matches(call_id, to_tag, from_tag), "{call_id} {to_tag} {from_tag}");
    }
    let old = DialogState::as_server(&Forming { from_tag: "", ..FORMING }).expect("a dialog");
    assert!(old.matches(FORMING.call_id, "to", ""));
}

#[test]
fn sip_d_05_a_subscriber_routes_by_the_notify_and_only_the_target_is_renewed() {
    // The 2xx came by other proxies than the NOTIFY.
    let response = Forming { record_routes: &["<sip:a.example;lr>", "<sip:b.example;lr>"], ..FORMING };
    let by_response = DialogState::as_client(&response).expect("a dialog");
    // In the NOTIFY, From is the notifier.
    let notify = Forming {
        from_uri: "sip:juliet@corp.example",
        from_tag: "forked",
        to_uri: "sip:romeo@partner.example",
        to_tag: "from",
        record_routes: &["<sip:c.example;lr>", "<sip:d.example;lr>"],
        cseq: 1,
        ..FORMING
    };
    let mut dialog = DialogState::as_subscriber(&notify, 17).expect("a dialog");
    assert_ne!(dialog.routes, by_response.routes);
    assert_eq!(dialog.routes.iter().collect::<Vec<_>>(), ["<sip:c.example;lr>", "<sip:d.example;lr>"]);
    assert_eq!((&*dialog.local_tag, &*dialog.remote_tag), ("from", "forked"));
    assert_eq!(dialog.next_cseq(), Some(18));
    let before = dialog.routes.clone();
    assert_eq!(dialog.refresh_target("sip:juliet@192.0.2.9"), Ok(true));
    assert_eq!(dialog.refresh_target("sip:juliet@192.0.2.9"), Ok(false));
    assert_eq!((dialog.addressing().request_uri.as_ref(), &dialog.routes), ("sip:juliet@192.0.2.9", &before));
}

#[test]
fn sip_e_05_the_dialog_is_that_of_the_notify_also_where_the_200_came_from_another_fork() {
    let response = DialogState::as_client(&FORMING).expect("a dialog");
    let notify = Forming { from_tag: "forked", to_tag: "from", cseq: 1, ..FORMING };
    let dialog = DialogState::as_subscriber(&notify, 17).expect("a dialog");
    assert!(dialog.matches(FORMING.call_id, "from", "forked"));
    assert!(!dialog.matches(FORMING.call_id, "from", &response.remote_tag));
}

#[test]
fn both_values_of_a_transport_switch_are_kept_in_order() {
    let switch = ["<sip:192.0.2.1;transport=tcp;r2=on;lr>", "<sip:192.0.2.1;r2=on;lr>"];
    let request = Forming { record_routes: &switch, ..FORMING };
    let dialog = DialogState::as_server(&request).expect("a dialog");
    assert_eq!(texts(&dialog.addressing()).1, switch);
}

#[test]
fn sip_d_06_loose_routes_keep_the_target_and_a_strict_first_hop_swaps_it() {
    // RFC 3261 §12.2.1.1.
    let mut dialog =
        DialogState::as_server(&Forming { contact: "sip:user@remoteua", ..FORMING }).expect("a dialog");
    let strict = ["<sip:proxy1>", "<sip:proxy2>", "<sip:proxy3;lr>", "<sip:proxy4>"];
    dialog.routes = RouteSet::new(strict).expect("routes");
    let expected = vec!["<sip:proxy2>", "<sip:proxy3;lr>", "<sip:proxy4>", "<sip:user@remoteua>"];
    assert_eq!(texts(&dialog.addressing()), ("sip:proxy1", expected, "sip:proxy1"));
    // RFC 3261 §16.12.1.2, as U2 sends it.
    let loose = [
        "<sip:p4.domain.com;lr>",
        "<sip:p3.middle.com>",
        "<sip:p2.example.com;lr>",
        "<sip:p1.example.com;lr>",
    ];
    let request = Forming { contact: "sip:caller@u1.example.com", record_routes: &loose, ..FORMING };
    let dialog = DialogState::as_server(&request).expect("a dialog");
    let hop = "sip:p4.domain.com;lr";
    assert_eq!(texts(&dialog.addressing()), ("sip:caller@u1.example.com", loose.to_vec(), hop));
    // No routes at all.
    let bare = DialogState::as_server(&Forming { record_routes: &[], ..FORMING }).expect("a dialog");
    assert_eq!(texts(&bare.addressing()), (FORMING.contact, vec![], FORMING.contact));
    // Parameters are kept, also those outside the brackets; what no Request-URI may hold is not.
    let odd = ["<sip:p1;x=%41;method=INVITE;y?Subject=hi>;z=1", "\"<odd>\" <sip:p2;lr>;w"];
    let dialog = DialogState::as_server(&Forming { record_routes: &odd, ..FORMING }).expect("a dialog");
    let expected = vec!["\"<odd>\" <sip:p2;lr>;w", "<sip:juliet@192.0.2.4:5070;transport=tcp>"];
    assert_eq!(texts(&dialog.addressing()), ("sip:p1;x=%41;y", expected, "sip:p1;x=%41;y"));
}

#[test]
fn a_redirect_in_the_dialog_keeps_the_routes() {
    let dialog = DialogState::as_server(&FORMING).expect("a dialog");
    let addressing = dialog.addressing_to("sip:juliet@elsewhere.example");
    assert_eq!(texts(&addressing).0, "sip:juliet@elsewhere.example");
    assert_eq!(texts(&addressing).1, FORMING.record_routes);
}

#[test]
fn sip_d_07_our_route_on_top_is_removed_and_the_rewrite_of_a_strict_router_is_undone() {
    let is_ours = |uri: &UriRef<'_>| uri.host().is_some_and(|host| host.to_string() == "gw.corp.example");
    let taken = |uri: &'static str, routes: &[&'static str]| {
        let received = take_own_routes(uri, routes, is_ours);
        (received.request_uri, received.routes.to_vec())
    };
    let user = "sip:juliet@corp.example";
    assert_eq!(taken(user, &["<sip:gw.corp.example;lr>"]), (user, vec![]));
    assert_eq!(taken(user, &["<sip:gw.corp.example;lr>", "<sip:gw.corp.example:5061;lr>"]), (user, vec![]));
    let foreign = "<sip:p1.example;lr>";
    assert_eq!(
        taken(user, &["<sip:gw.corp.example;lr>", foreign, "<sip:gw.corp.example;lr>"]),
        (user, vec![foreign, "<sip:gw.corp.example;lr>"])
    );
    assert_eq!(taken(user, &[foreign]), (user, vec![foreign]));
    // As P2 gets it in RFC 3261 §16.12.1.2.
    let by_strict = taken("sip:gw.corp.example;lr", &[foreign, "<sip:caller@u1.example>"]);
    assert_eq!(by_strict, ("sip:caller@u1.example", vec![foreign]));
    assert_eq!(taken("sip:gw.corp.example;lr", &[]), ("sip:gw.corp.example;lr", vec![]));
}

#[test]
fn sip_d_08_cseq_counts_by_one_in_each_direction_and_an_old_one_is_told() {
    let mut dialog = DialogState::as_server(&FORMING).expect("a dialog");
    assert_eq!((dialog.next_cseq(), dialog.next_cseq(), dialog.next_cseq()), (Some(1), Some(2), Some(3)));
    assert_eq!(dialog.take_remote_cseq(18), Order::New);
    assert_eq!(dialog.take_remote_cseq(17), Order::Old, "to be answered with 500");
    assert_eq!(dialog.take_remote_cseq(18), Order::Repeated);
    assert_eq!(dialog.take_remote_cseq(70_000), Order::New, "a gap");
    assert_eq!(dialog.next_cseq(), Some(4), "each direction has its own");
    dialog.local_cseq = (1 << 31) - 2;
    assert_eq!(dialog.next_cseq(), Some((1 << 31) - 1));
    assert_eq!(dialog.next_cseq(), None);
}

#[test]
fn sip_e_04_a_second_notifier_finds_no_dialog_once_the_first_has_one() {
    use crate::event::{
        SubscriptionState, Substate,
        subscriber::{Notify, NotifyVerdict, Settings, Subscriber},
    };
    let settings = Settings::default();
    #[expect(clippy::disallowed_methods, reason = "a test needs one instant to count from")]
    let now = std::time::Instant::now();
    let mut subscriber = Subscriber::new(3600);
    subscriber.handle_sent(now, &settings);
    let mut dialog: Option<DialogState> = None;
    // What a caller does with a NOTIFY that fits our SUBSCRIBE: true for 200, false for 481.
    let mut take = |subscriber: &mut Subscriber, from_tag: &'static str, cseq| {
        let notify = Forming { from_tag, cseq, ..FORMING };
        match &dialog {
            Some(dialog) if !dialog.matches(notify.call_id, notify.to_tag, from_tag) => return false,
            None if !subscriber.may_form_dialog() => return false,
            Some(_) => {}
            None => dialog = Some(DialogState::as_subscriber(&notify, 1).expect("a dialog")),
        }
        let subscription_state = SubscriptionState {
            state: Substate::Active,
            reason: None,
            expires: Some(3600),
            retry_after: None,
        };
        let notify = Notify { cseq, subscription_state };
        let verdict = subscriber.handle_notify(&notify, 0, now, &settings);
        verdict != NotifyVerdict::Unknown
    };
    assert!(take(&mut subscriber, "one", 1));
    assert!(!take(&mut subscriber, "two", 1));
    assert!(take(&mut subscriber, "one", 2));
    // After Timer N a first one is too late.
    let mut late = Subscriber::new(3600);
    late.handle_sent(now, &settings);
    late.handle_timeout(0, now + settings.t1 * 64, &settings);
    assert!(!late.may_form_dialog());
}

#[test]
fn bad_contacts_and_routes_make_no_dialog() {
    for contact in ["", "juliet", "tel:+1234", "mailto:juliet@corp.example", "sip:", "sip:a b"] {
        let made = DialogState::as_server(&Forming { contact, ..FORMING });
        assert_eq!(made, Err(DialogFault::BadContact), "{contact:?}");
    }
    for route in ["", "sip:p1;lr", "<sip:p1", "<tel:+1>", "\"<sip:p1>", "<>"] {
        let made = DialogState::as_server(&Forming { record_routes: &[route], ..FORMING });
        assert_eq!(made, Err(DialogFault::BadRoute), "{route:?}");
    }
    let many = ["<sip:p;lr>"; 33];
    let made = DialogState::as_server(&Forming { record_routes: &many, ..FORMING });
    assert_eq!(made, Err(DialogFault::TooManyRoutes { number: 33 }));
}

#[test]
fn a_dialog_over_sips_does_not_go_on_over_sip() {
    let mut dialog =
        DialogState::as_server(&Forming { contact: "sips:j@192.0.2.4", ..FORMING }).expect("a dialog");
    assert_eq!(dialog.refresh_target("sip:j@192.0.2.4"), Err(DialogFault::NotSecure));
    assert_eq!(&*dialog.remote_target, "sips:j@192.0.2.4");
    assert_eq!(dialog.refresh_target("sips:j@192.0.2.5"), Ok(true));
}

#[test]
fn equal_route_sets_can_be_shared() {
    let (mut one, two) =
        (DialogState::as_server(&FORMING).expect("a dialog"), DialogState::as_server(&FORMING));
    let two = two.expect("a dialog");
    assert_eq!(one.routes, two.routes);
    one.routes = two.routes.clone();
    assert!(Arc::ptr_eq(&one.routes.0, &two.routes.0));
}
