//! A kernel that was built or started without IPv6: `socket(AF_INET6, …)` fails with EAFNOSUPPORT.

use std::{collections::BTreeMap, net::SocketAddr};

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    apply_filter,
};
use tombolo_net::{listen_all, udp_all};

#[cfg(target_arch = "x86_64")]
const SOCKET: i64 = 41;
#[cfg(target_arch = "aarch64")]
const SOCKET: i64 = 198;
const AF_INET6: u64 = 10;
const EAFNOSUPPORT: u32 = 97;

/// From now on this thread can make no socket of IPv6.
fn take_ipv6_away() {
    let is_ipv6 =
        SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, AF_INET6).expect("a condition");
    let rule = SeccompRule::new(vec![is_ipv6]).expect("a rule");
    let filter = SeccompFilter::new(
        BTreeMap::from([(SOCKET, vec![rule])]),
        SeccompAction::Allow,
        SeccompAction::Errno(EAFNOSUPPORT),
        std::env::consts::ARCH.try_into().expect("an architecture with filters"),
    );
    let program: BpfProgram = filter.and_then(TryInto::try_into).expect("a filter");
    apply_filter(&program).expect("the kernel takes filters");
}

fn at(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

#[test]
fn without_ipv6_all_addresses_are_those_of_ipv4_and_an_address_of_ipv6_is_an_error_that_says_so() {
    take_ipv6_away();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let _inside = runtime.enter();
    let all = at("[::]:0");
    let listeners = listen_all(all, &[all]).expect("IPv4 is listened on");
    let sockets = udp_all(all, &[all]).expect("and for datagrams");
    let bound: Vec<SocketAddr> = listeners
        .iter()
        .map(|listener| listener.local_addr().expect("bound"))
        .chain(sockets.iter().map(|socket| socket.local_addr().expect("bound")))
        .collect();
    assert!(bound.len() == 2 && bound.iter().all(SocketAddr::is_ipv4), "{bound:?}");

    let own = at("[::1]:0");
    for error in [listen_all(own, &[own]).err(), udp_all(own, &[own]).err()] {
        let text = error.expect("no such address").to_string();
        assert!(text.contains("this machine has no IPv6"), "{text}");
    }
}
