//! Partners that refuse a step of the negotiation and close the stream: the next stream of the pair does without that step,
//! where the partner's entry allows it.

mod common;

use std::sync::Arc;

use common::{
    Plan, Site, World,
    log::{keep_log, logged},
    partner, run,
    strict::{Asked, Strict},
};
use tokio_rustls::rustls::{
    RootCertStore, ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, pem::PemObject},
    server::WebPkiClientVerifier,
    sign::SingleCertAndKey,
    version::{TLS12, TLS13},
};
use tombolo_edge::{EdgePort, ProofMethod, StreamDirection::*, StreamEnd, ToEdge};
use tombolo_net::{Replace, server_config};
use tombolo_policy::{
    Method::{self, PlainDialback, SaslExternal, TlsDialback},
    Partner,
};

const A: &str = "a.example";
const B: &str = "b.example";
const FAILURE: &str = "<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><not-authorized/>\
                       <text>no\u{9b}such CA</text></failure>";

/// A server of B that refuses EXTERNAL.
fn strict(world: &World) -> Strict {
    let tls = server_config(&world.certificates(B, B, false), &[]);
    Strict { to_auth: FAILURE, to_starttls: None, to_key: Some("type='valid'"), tls }
}

/// A, which knows B at a server by these proofs.
async fn joined(world: &Arc<World>, server: Strict, methods: &[Method]) -> (Site, Asked) {
    let (at, asked) = server.start().await;
    let a = world.site(A, Plan::default());
    let insecure = methods.contains(&PlainDialback);
    a.knows(vec![Partner { insecure, ..partner(B, methods, Some(at)) }]);
    (a, asked)
}

fn taken(asked: &Asked) -> Vec<&'static str> {
    std::mem::take(&mut *asked.lock())
}

/// Dials until the n-th stream is up, and closes it; how it was proved.
async fn dialled(a: &Site, n: usize) -> ProofMethod {
    a.dial(B);
    let up = a.ear.up(Outgoing, n).await;
    a.edge.send(ToEdge::Close { stream: up.stream });
    up.method
}

#[test]
fn xs_sasl_03_where_external_is_refused_and_the_stream_closed_the_next_ones_use_dialback() {
    run(|world| async move {
        let error =
            "<stream:error><not-authorized xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>";
        let closed = Box::leak(format!("{FAILURE}</stream:stream>").into_boxed_str());
        for to_auth in [FAILURE, closed, error, "</stream:stream>", ""] {
            let server = Strict { to_auth, ..strict(&world) };
            let (a, asked) = joined(&world, server, &[SaslExternal, TlsDialback]).await;
            assert_eq!(dialled(&a, 0).await, ProofMethod::TlsDialback, "{to_auth}");
            let by_dialback = ["connection", "starttls", "certificate", "key"];
            let first = ["connection", "starttls", "certificate", "auth"];
            assert_eq!(taken(&asked), [first, by_dialback].concat(), "{to_auth}");
            assert_eq!(dialled(&a, 1).await, ProofMethod::TlsDialback);
            assert_eq!(taken(&asked), by_dialback, "at once: {to_auth}");
        }
    });
}

#[test]
fn xs_sasl_03_dialback_never_takes_the_place_of_external_where_the_entry_does_not_allow_it() {
    run(|world| async move {
        let (a, asked) = joined(&world, strict(&world), &[SaslExternal]).await;
        for _ in 0..2 {
            let end = a.ear.no_stream(a.dial(B)).await;
            let text =
                "authentication failed: the peer refused SASL EXTERNAL: not-authorized (no\u{fffd}such CA)";
            assert_eq!(end.to_string(), text);
            assert_eq!(taken(&asked), ["connection", "starttls", "certificate", "auth"]);
        }
    });
}

#[test]
fn external_is_tried_again_once_the_settings_or_our_certificate_changed() {
    run(|world| async move {
        let (a, asked) = joined(&world, strict(&world), &[SaslExternal, TlsDialback]).await;
        let tries_external = |asked: &Asked| taken(asked).contains(&"auth");
        dialled(&a, 0).await;
        assert!(tries_external(&asked));
        dialled(&a, 1).await;
        assert!(!tries_external(&asked), "remembered");
        a.edge.policy_changed();
        dialled(&a, 2).await;
        assert!(tries_external(&asked), "the settings changed");
        let now = world.clock.now().wall;
        assert!(a.certificates.reload(Replace::ByAny, now).is_empty());
        dialled(&a, 3).await;
        assert!(tries_external(&asked), "the certificate is another");
    });
}

#[test]
fn where_both_proofs_fail_the_cause_names_both_and_the_next_dial_begins_with_external() {
    run(|world| async move {
        keep_log();
        let server = Strict { to_key: None, ..strict(&world) };
        let (a, asked) = joined(&world, server, &[SaslExternal, TlsDialback]).await;
        for _ in 0..2 {
            let end = a.ear.no_stream(a.dial(B)).await;
            assert_eq!(
                end.to_string(),
                "authentication failed: the partner refused our certificate (SASL EXTERNAL: not-authorized \
                 (no\u{fffd}such CA)); dialback failed too: the stream ended before the answer to our key"
            );
            let first = ["connection", "starttls", "certificate", "auth"];
            assert_eq!(taken(&asked), [first, ["connection", "starttls", "certificate", "key"]].concat());
        }
        let refusal =
            ["WARN", "refused our SASL EXTERNAL", "b.example", "not-authorized", "no\u{fffd}such CA"];
        assert!(logged(&refusal));
    });
}

#[test]
fn a_certificate_that_proves_nothing_is_named_when_dialback_fails_too() {
    run(|world| async move {
        let tls = server_config(&world.certificates(B, B, true), &[]);
        for to_key in [None, Some("type='invalid'")] {
            let server = Strict { to_key, tls: tls.clone(), ..strict(&world) };
            let (a, _) = joined(&world, server, &[SaslExternal, TlsDialback]).await;
            let end = a.ear.no_stream(a.dial(B)).await;
            let text = end.to_string();
            assert!(
                text.contains(
                    "does not prove b.example: a signature in the chain of the certificate of b.example"
                ),
                "{text}"
            );
            assert!(text.contains("; dialback failed too: "), "{text}");
            assert_eq!(matches!(end, StreamEnd::KeyRefused(_)), to_key.is_some());
        }
        // Where a certificate is no proof anyhow, it is no cause.
        let server = Strict { to_key: None, tls, ..strict(&world) };
        let (a, _) = joined(&world, server, &[TlsDialback]).await;
        let end = a.ear.no_stream(a.dial(B)).await;
        assert_eq!(end.to_string(), "authentication failed: the stream ended before the answer to our key");
    });
}

#[test]
fn where_our_certificate_is_refused_in_the_handshake_the_next_streams_show_none_and_use_dialback() {
    run(|world| async move {
        // It asks for certificates of an authority that A's is not from.
        let mut roots = RootCertStore::empty();
        let rogue = std::fs::read(world.authority(true).certificate()).expect("made");
        roots.add(CertificateDer::from_pem_slice(&rogue).expect("a certificate")).expect("an authority");
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .allow_unauthenticated()
            .build()
            .expect("a verifier");
        let own = world.certificates(B, B, false).certificate(B).expect("issued");
        let resolver = Arc::new(SingleCertAndKey::from((*own).clone()));
        for version in [&TLS12, &TLS13] {
            let tls = ServerConfig::builder_with_provider(provider.clone())
                .with_protocol_versions(&[version])
                .expect("a version")
                .with_client_cert_verifier(verifier.clone())
                .with_cert_resolver(resolver.clone());
            let server = Strict { tls: Arc::new(tls), ..strict(&world) };
            let (a, asked) = joined(&world, server.clone(), &[TlsDialback]).await;
            for n in 0..2 {
                assert_eq!(dialled(&a, n).await, ProofMethod::TlsDialback);
            }
            let without = ["connection", "starttls", "no certificate", "key"];
            assert_eq!(taken(&asked), [&["connection", "starttls"], &without[..], &without[..]].concat());

            let (a, asked) = joined(&world, server, &[SaslExternal]).await;
            let end = a.ear.no_stream(a.dial(B)).await.to_string();
            assert!(end.contains("the partner refused our certificate in the TLS handshake"), "{end}");
            assert_eq!(taken(&asked), ["connection", "starttls"]);
        }
    });
}

#[test]
fn xs_tls_01_where_tls_is_offered_and_fails_only_an_insecure_entry_leads_to_the_clear() {
    run(|world| async move {
        let refusal = "<failure xmlns='urn:ietf:params:xml:ns:xmpp-tls'/></stream:stream>";
        let broken = "<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>|this is no TLS";
        for to_starttls in [refusal, broken] {
            let server = Strict { to_starttls: Some(to_starttls), ..strict(&world) };
            let (a, asked) = joined(&world, server.clone(), &[PlainDialback]).await;
            for n in 0..2 {
                assert_eq!(dialled(&a, n).await, ProofMethod::PlainDialback);
            }
            let clear = ["connection", "key"];
            assert_eq!(taken(&asked), [&["connection", "starttls"], &clear[..], &clear[..]].concat());

            let (a, asked) = joined(&world, server, &[SaslExternal, TlsDialback]).await;
            a.ear.no_stream(a.dial(B)).await;
            assert_eq!(taken(&asked), ["connection", "starttls"], "nothing goes in the clear");
        }
    });
}

#[test]
fn xs_tls_01_a_partner_that_goes_away_while_tls_begins_has_not_refused_it() {
    run(|world| async move {
        let answers = [
            "",
            "<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>",
            "<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>in the clear",
            "<stream:error><system-shutdown xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>",
        ];
        for to_starttls in answers {
            let server = Strict { to_starttls: Some(to_starttls), ..strict(&world) };
            let (a, asked) = joined(&world, server, &[PlainDialback]).await;
            a.ear.no_stream(a.dial(B)).await;
            assert_eq!(taken(&asked), ["connection", "starttls"], "{to_starttls}: nothing goes in the clear");
        }
    });
}
