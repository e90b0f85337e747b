//! A host that sends us to another one (RFC 6120 §4.9.3.19): followed once, from a host that proved the domain.

mod common;

use common::{Plan, acquaint, clear::send_elsewhere, message, numbers, partner, run};
use tombolo_edge::{StreamDirection::*, StreamEnd};
use tombolo_policy::Method::{SaslExternal, TlsDialback};

const A: &str = "a.example";
const B: &str = "b.example";

#[test]
fn a_host_that_proved_the_domain_sends_us_to_another_where_the_same_domain_is_proved() {
    run(|world| async move {
        let (a, b) = (world.site(A, Plan::default()), world.site(B, Plan::default()));
        acquaint(&a, &b, &[SaslExternal]);
        let sender = send_elsewhere(B, world.certificates(B, B, false), b.starttls.to_string()).await;
        a.knows(vec![partner(B, &[SaslExternal], Some(sender))]);
        a.dial(B);
        let (out, into) = (a.ear.up(Outgoing, 0).await, b.ear.up(Incoming, 0).await);
        assert_eq!(out.pair, a.pair_with(B));
        a.write(&out, [1], 10);
        assert_eq!(numbers(&b.ear.stanzas_until(into.stream, 1).await), numbers(&[message(A, B, 1, 10)]));
    });
}

#[test]
fn a_host_of_another_domain_at_the_end_of_the_way_is_refused_as_if_it_had_been_dialled() {
    run(|world| async move {
        let (a, other) = (world.site(A, Plan::default()), world.site("c.example", Plan::default()));
        other.knows(vec![partner(A, &[SaslExternal], Some(a.starttls))]);
        let sender = send_elsewhere(B, world.certificates(B, B, false), other.starttls.to_string()).await;
        a.knows(vec![partner(B, &[SaslExternal], Some(sender))]);
        let end = a.ear.no_stream(a.dial(B)).await;
        assert!(matches!(end, StreamEnd::Unauthenticated(_) | StreamEnd::NotFound(_)), "{end:?}");
    });
}

#[test]
fn hosts_that_send_us_in_a_circle_are_followed_once_and_then_told_as_the_cause() {
    run(|world| async move {
        let a = world.site(A, Plan::default());
        let second = send_elsewhere(B, world.certificates(B, B, false), "127.0.0.1:1".to_owned()).await;
        let first = send_elsewhere(B, world.certificates(B, B, false), second.to_string()).await;
        a.knows(vec![partner(B, &[SaslExternal], Some(first))]);
        let end = a.ear.no_stream(a.dial(B)).await;
        let StreamEnd::StreamError(cause) = &end else { panic!("{end:?}") };
        assert_eq!(cause, "see-other-host: 127.0.0.1:1, which is not followed");
    });
}

#[test]
fn a_host_that_proved_nothing_sends_us_nowhere() {
    run(|world| async move {
        let (a, b) = (world.site(A, Plan::default()), world.site(B, Plan::default()));
        acquaint(&a, &b, &[TlsDialback]);
        // Nobody vouches for its certificate; with dialback the stream goes on all the same.
        let sender = send_elsewhere(B, world.certificates(B, B, true), b.starttls.to_string()).await;
        a.knows(vec![partner(B, &[TlsDialback], Some(sender))]);
        let end = a.ear.no_stream(a.dial(B)).await;
        assert!(matches!(&end, StreamEnd::StreamError(cause) if cause.contains("not followed")), "{end:?}");
        assert!(b.ear.ups(Incoming).is_empty());
    });
}
