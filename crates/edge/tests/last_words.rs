//! What a peer says last, and whom it means when TLS does not say it: nothing of it is lost, and it is shown the right
//! certificate.

mod common;

use std::{sync::Arc, time::Duration};

use common::{
    Plan,
    clear::{ClearServer, ClearStream, stream_header},
    domain,
    log::{keep_log, logged},
    numbers, partner, run,
};
use tombolo_edge::{ProofMethod, StreamDirection::*, StreamEnd};
use tombolo_policy::{
    Home, LocalDomain,
    Method::{PlainDialback, SaslExternal},
    Partner, Table,
};

const A: &str = "a.example";
const B: &str = "b.example";

fn said(number: u64) -> String {
    format!("<message from='a@a.example' to='b@b.example' id='m{number}'/>")
}

#[test]
fn stanzas_of_the_last_read_are_handed_over_though_the_peer_has_reset_the_connection() {
    run(|world| async move {
        let (b, server) = (world.site(B, Plan::default()), ClearServer::start().await);
        let insecure = Partner { insecure: true, ..partner(A, &[PlainDialback], Some(server.address)) };
        b.knows(vec![insecure]);
        let (mut stream, _) = ClearStream::dial(b.starttls, A, B).await;
        stream.show_key(A, B).await;
        let up = b.ear.up(Incoming, 0).await;
        b.ear.set_full(true);
        stream.say(&said(1)).await;
        b.ear.heard_back().await;
        // Nothing is read until the first one is taken; by then nobody is there to hear our end of the stream.
        stream.say(&format!("{}{}</stream:stream>", said(2), said(3))).await;
        stream.reset();
        tokio::time::sleep(Duration::from_millis(100)).await;
        b.ear.set_full(false);
        assert_eq!(numbers(&b.ear.stanzas_until(up.stream, 3).await), [1, 2, 3]);
        let (end, _) = b.ear.down(up.stream).await;
        assert!(matches!(end, StreamEnd::Broken(_)), "{end:?}");
    });
}

#[test]
fn what_a_partner_says_with_the_error_that_ends_its_unproved_stream_is_logged_with_its_name() {
    keep_log();
    run(|world| async move {
        let b = world.site(B, Plan::default());
        b.knows(vec![partner(A, &[SaslExternal], None)]);
        let own = world.certificates(A, A, false);
        let (mut stream, _) = ClearStream::dial_tls(b.starttls, A, B, B, &own).await;
        let error = "<stream:error><undefined-condition xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>\
                     <text xmlns='urn:ietf:params:xml:ns:xmpp-streams'>out\u{9b}of cheese</text></stream:error>";
        stream.say(&format!("{error}</stream:stream>")).await;
        stream.rest().await;
        let parts = ["s2s stream refused", A, "undefined-condition", "out\u{fffd}of cheese"];
        let waited = async {
            while !logged(&parts) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), waited).await.expect("a line names all of it");
    });
}

#[test]
fn a_stream_whose_proof_stanzas_and_end_come_at_once_is_heard() {
    run(|world| async move {
        let b = world.site(B, Plan::default());
        b.knows(vec![partner(A, &[SaslExternal], None)]);
        let own = world.certificates(A, A, false);
        let (mut stream, _) = ClearStream::dial_tls(b.starttls, A, B, B, &own).await;
        let auth = "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='EXTERNAL'>=</auth>";
        let (header, one, two) = (stream_header(A, B), said(1), said(2));
        stream.say(&format!("{auth}{header}{one}{two}</stream:stream>")).await;
        let up = b.ear.up(Incoming, 0).await;
        assert_eq!((up.pair, up.method), (b.pair_with(A), ProofMethod::SaslExternal));
        assert_eq!(numbers(&b.ear.stanzas_until(up.stream, 2).await), [1, 2]);
        assert_eq!(b.ear.down(up.stream).await, (StreamEnd::Closed, 0));
        assert!(stream.rest().await.ends_with("</stream:stream>"));
    });
}

#[test]
fn a_peer_whose_tls_names_nobody_is_shown_the_certificate_of_the_domain_that_its_stream_is_for() {
    run(|world| async move {
        const SECOND: &str = "second.example";
        let b = world.site(B, Plan { also: Some(SECOND), ..Plan::default() });
        let local = |name| LocalDomain { name: domain(name), home: Home::BuiltIn };
        let partners = vec![partner(A, &[SaslExternal], None)];
        let table = Table::new(3, vec![local(B), local(SECOND)], partners).expect("no conflict");
        b.policy.store(Arc::new(table));
        let own = world.certificates(A, A, false);
        for (to, other) in [(B, SECOND), (SECOND, B)] {
            let (_, facts) = ClearStream::dial_tls(b.starttls, A, to, "127.0.0.1", &own).await;
            let names = facts.certificates.names();
            assert!(names.prove_xmpp(to) && !names.prove_xmpp(other), "to {to}");
        }
        // What TLS names counts more.
        let (_, facts) = ClearStream::dial_tls(b.starttls, A, B, SECOND, &own).await;
        assert!(facts.certificates.names().prove_xmpp(SECOND));
    });
}
