//! Federated sessions with the real actors and a scripted edge: what reaches a session, and when it ends.

#[allow(dead_code, reason = "other tests use the rest of it")]
mod common;

use std::time::Duration;

use common::*;
use tombolo_edge::{FromEdge, StreamEnd};
use tombolo_policy::Approve;

const JULIET: &str = "juliet@xmpp.example";

/// Makes the gateway say something to the partner, in the name of a local domain.
async fn provoke(gateway: &mut Gateway) {
    let stream = gateway.stream_from_partner(HOME);
    let ask =
        format!("<iq from='{JULIET}/b' to='{HOME}' type='get' id='7'><ping xmlns='urn:xmpp:ping'/></iq>");
    gateway.stanzas_come(stream, &[&ask]);
    gateway.settle().await;
}

#[test]
fn a_session_hears_the_end_of_its_stream_though_the_stream_had_lost_its_pair() {
    run(async {
        tokio::time::pause();
        let mut gateway = Gateway::start(Approve::Partner);
        provoke(&mut gateway).await;
        assert_eq!(gateway.stanzas.len(), 1, "{:?}", gateway.stanzas);
        let (stream, pair) = gateway.opened.remove(0);
        assert_eq!(gateway.broker.sessions().await[0].stream, Some(stream));
        // A partner that was removed and put back.
        gateway.edge_reports(FromEdge::PairLost { stream, pair });
        gateway.stream_ends(stream, StreamEnd::StreamError("policy-violation".into()));
        gateway.settle().await;
        assert_eq!(gateway.broker.sessions().await[0].stream, None, "it is on a stream that is dead");
        tokio::time::advance(Duration::from_secs(61)).await;
        gateway.settle().await;
        gateway.stanzas.clear();
        provoke(&mut gateway).await;
        assert_eq!(gateway.opened.len(), 1, "it dials again");
        assert_eq!(gateway.stanzas.len(), 1, "{:?}", gateway.stanzas);
    });
}

#[test]
fn what_is_written_frees_the_window_though_the_stream_had_lost_its_pair() {
    run(async {
        let mut gateway = Gateway::start(Approve::Partner);
        provoke(&mut gateway).await;
        let (stream, pair) = gateway.opened.remove(0);
        gateway.edge_reports(FromEdge::PairLost { stream, pair });
        // More than a window in all.
        for _ in 0..1000 {
            provoke(&mut gateway).await;
        }
        assert_eq!(gateway.stanzas.len(), 1001);
    });
}
