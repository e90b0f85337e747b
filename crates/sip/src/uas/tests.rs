use bytes::Bytes;

use super::*;
use crate::message::{MessageLimits, read_datagram};

fn verdict(start: &str, more: &str) -> Verdict {
    let method = start.split(' ').next().unwrap_or_default();
    let text = format!(
        "{start} SIP/2.0\r\nVia: SIP/2.0/TCP a;branch=z9hG4bK1\r\nFrom: <sip:r@y>;tag=f\r\nTo: <sip:j@x>\r\n\
         Call-ID: c\r\nCSeq: 7 {method}\r\n{more}\r\n"
    );
    let message = read_datagram(Bytes::from(text), &MessageLimits::default()).expect("a message");
    check(&message)
}

fn status(verdict: Verdict) -> u16 {
    match verdict {
        Verdict::Accept => 0,
        Verdict::Refuse { status, .. } => status,
        Verdict::Drop => 1,
    }
}

#[test]
fn sip_d_16_stox_a_21_no_hop_left_stops_what_is_carried_on_and_nothing_that_ends_here() {
    let zero = "Max-Forwards: 0\r\n";
    assert_eq!(status(verdict("MESSAGE sip:j@x", zero)), 483);
    for method in ["OPTIONS", "REGISTER", "PUBLISH", "NOTIFY", "SUBSCRIBE", "ACK", "CANCEL"] {
        assert_eq!(status(verdict(&format!("{method} sip:j@x"), zero)), 0, "{method}");
    }
    for more in ["Max-Forwards: 1\r\n", "Max-Forwards: 255\r\n", ""] {
        assert_eq!(status(verdict("MESSAGE sip:j@x", more)), 0, "{more:?}");
    }
}

#[test]
fn a_malformed_max_forwards_is_a_bad_request_of_any_method() {
    for method in ["MESSAGE", "OPTIONS", "REGISTER", "PUBLISH", "NOTIFY", "SUBSCRIBE"] {
        for value in ["", "-1", "+1", "256", "300", "7x", "0x10", "70, 70", "99999999999999999999", "\u{661}"]
        {
            let refused = verdict(&format!("{method} sip:j@x"), &format!("Max-Forwards: {value}\r\n"));
            assert_eq!(status(refused), 400, "{method} with {value:?}");
        }
        let twice = verdict(&format!("{method} sip:j@x"), "Max-Forwards: 70\r\nMax-Forwards: 70\r\n");
        assert_eq!(status(twice), 400, "{method} with two");
    }
}

#[test]
fn header_fields_for_proxies_mean_nothing_to_a_user_agent() {
    for more in [
        "Proxy-Require: ms-benotify\r\n",
        "Proxy-Require: nothingSupportsThis, norThis\r\nProxy-Require: gruu\r\n",
        "Proxy-Require: ,;@ [\r\n",
        "Proxy-Require:\r\n",
        "Proxy-Authorization: Digest x\r\nProxy-Authorization: NTLM y\r\n",
        "Proxy-Authenticate: z\r\nRoute: <sip:elsewhere;lr>\r\nMax-Breadth: 0\r\n",
    ] {
        for method in ["MESSAGE", "OPTIONS", "REGISTER", "PUBLISH", "NOTIFY", "SUBSCRIBE"] {
            assert_eq!(status(verdict(&format!("{method} sip:j@x"), more)), 0, "{method} with {more:?}");
        }
    }
}

/// What an old Microsoft client sends through its front end for a contact elsewhere.
const OLD_CLIENT: &str = "SUBSCRIBE sip:juliet@partner.localhost SIP/2.0\r\n\
    Via: SIP/2.0/UDP 127.0.0.31:5060;branch=z9hG4bK076bd746a020;rport\r\n\
    Max-Forwards: 70\r\n\
    From: \"Al\" <sip:al@corp.localhost>;tag=38209e;epid=d6277c\r\n\
    To: <sip:juliet@partner.localhost>\r\n\
    Call-ID: 47d168f23618\r\n\
    CSeq: 1 SUBSCRIBE\r\n\
    Contact: <sip:al@corp.localhost:1620;maddr=127.0.0.31;transport=udp>;proxy=replace\r\n\
    User-Agent: LCC/1.3\r\n\
    Event: presence\r\n\
    Accept: application/xpidf+xml, text/xml+msrtc.pidf, application/pidf+xml\r\n\
    Supported: ms-benotify\r\n\
    Proxy-Require: ms-benotify\r\n\
    Supported: ms-piggyback-first-notify\r\n\
    Content-Length: 0\r\n\r\n";

#[test]
fn a_watcher_behind_a_microsoft_front_end_is_served() {
    let message = read_datagram(OLD_CLIENT.into(), &MessageLimits::default()).expect("a message");
    assert_eq!(check(&message), Verdict::Accept);
}

#[test]
fn sip_d_03_each_fault_has_its_status_and_the_first_one_counts() {
    for (start, more, expected) in [
        ("MESSAGE sip:j@x", "", 0),
        ("NEWMETHOD sip:j@x", "", 501),
        ("INVITE sip:j@x", "", 405),
        ("MESSAGE tel:+1", "", 416),
        ("MESSAGE nobody:x", "", 416),
        ("MESSAGE sip:j@x", "Require: nothingSupportsThis\r\nProxy-Require: norDoes\r\n", 420),
        ("MESSAGE sip:j@x", "Require: x\r\nMax-Forwards: 0\r\n", 483),
        ("MESSAGE tel:+1", "Max-Forwards: 0\r\n", 416),
        ("MESSAGE sip:j@x", "From: <sip:z@z>;tag=2\r\n", 400),
        ("MESSAGE sip:j@x", "Max-Forwards: 300\r\n", 400),
        ("NEWMETHOD sip:j@x", "Require: x\r\n", 501),
        ("MESSAGE tel:+1", "Require: x\r\n", 416),
    ] {
        assert_eq!(status(verdict(start, more)), expected, "{start} {more:?}");
    }
    let Verdict::Refuse { headers, .. } =
        verdict("MESSAGE sip:j@x", "Require: a, gruu\r\nProxy-Require: b\r\n")
    else {
        panic!("it is refused");
    };
    assert_eq!(headers, [("Unsupported", "a".to_owned())], "only what Require names counts");
}
