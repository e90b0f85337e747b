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
fn sip_d_16_a_request_with_max_forwards_0_is_served_since_we_are_its_user_agent() {
    assert_eq!(status(verdict("MESSAGE sip:j@x", "Max-Forwards: 0\r\n")), 0);
    assert_eq!(status(verdict("OPTIONS sip:j@x", "Max-Forwards: 0\r\n")), 0);
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
    assert_eq!(headers, [("Unsupported", "a, b".to_owned())]);
}
