//! Questions to a name server that answers from a table, over UDP on loopback.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use hickory_resolver::proto::{
    op::{Message, ResponseCode},
    rr::{
        Name, RData, Record,
        rdata::{A, AAAA, NAPTR, SRV},
    },
};
use tokio::{net::UdpSocket, task::JoinHandle};
use tombolo_net::{
    Resolver, SipLocation, SipTarget,
    SipTransport::{self, Tcp, Tls, Udp},
    Target, Unresolved,
};

/// What a name has: records of any type, or a failure.
#[derive(Clone)]
enum Has {
    Records(Vec<RData>),
    Failure,
}

type Zone = HashMap<String, Has>;

struct Server {
    resolver: Resolver,
    zone: Arc<Mutex<Zone>>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(zone: &[(&str, Has)]) -> Server {
    let zone: Zone = zone.iter().map(|(name, has)| (format!("{name}."), has.clone())).collect();
    let zone = Arc::new(Mutex::new(zone));
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let address = socket.local_addr().expect("bound");
    let task = tokio::spawn(answer(socket, zone.clone()));
    Server { resolver: Resolver::with_servers(&[address]).expect("a resolver"), zone, task }
}

async fn answer(socket: UdpSocket, zone: Arc<Mutex<Zone>>) {
    let mut buffer = [0; 4096];
    loop {
        let (len, from) = socket.recv_from(&mut buffer).await.expect("received");
        let question = Message::from_vec(&buffer[..len]).expect("a question");
        let query = question.queries[0].clone();
        let has = zone.lock().expect("no panic").get(&query.name().to_ascii().to_ascii_lowercase()).cloned();
        let mut response = Message::response(question.metadata.id, question.metadata.op_code);
        response.add_query(query.clone());
        match has {
            None => response.metadata.response_code = ResponseCode::NXDomain,
            Some(Has::Failure) => response.metadata.response_code = ResponseCode::ServFail,
            Some(Has::Records(records)) => {
                for data in records.into_iter().filter(|data| data.record_type() == query.query_type()) {
                    // A TTL of zero: each question comes to us (after the second that the resolver insists on).
                    response.add_answer(Record::from_rdata(query.name().clone(), 0, data));
                }
            }
        }
        socket.send_to(&response.to_vec().expect("encodes"), from).await.expect("sent");
    }
}

fn name(text: &str) -> Name {
    Name::from_ascii(text).expect("a name")
}

fn srv(priority: u16, port: u16, target: &str) -> RData {
    RData::SRV(SRV::new(priority, 1, port, name(target)))
}

fn naptr(order: u16, service: &str, replacement: &str) -> RData {
    let octets = |text: &str| text.as_bytes().into();
    RData::NAPTR(NAPTR::new(order, 50, octets("s"), octets(service), octets(""), name(replacement)))
}

fn records(records: impl Into<Vec<RData>>) -> Has {
    Has::Records(records.into())
}

fn short(targets: &[Target]) -> Vec<(&str, u16, bool)> {
    targets.iter().map(|target| (target.host.as_str(), target.port, target.is_direct_tls)).collect()
}

const PLAIN: &str = "_xmpp-server._tcp.p.example";
const DIRECT: &str = "_xmpps-server._tcp.p.example";

#[tokio::test]
async fn both_kinds_of_srv_records_come_as_one_list() {
    let server = serve(&[
        (PLAIN, records([srv(20, 5269, "x2.p.example."), srv(5, 5269, "x1.p.example.")])),
        (DIRECT, records([srv(10, 5270, "x1.p.example.")])),
    ])
    .await;
    let targets = server.resolver.xmpp_targets("p.example").await.expect("targets");
    assert_eq!(
        short(&targets),
        [("x1.p.example", 5269, false), ("x1.p.example", 5270, true), ("x2.p.example", 5269, false)]
    );
}

#[tokio::test]
async fn xs_dns_02_three_zones_with_a_dot_stop_the_kind_that_has_it_and_the_fallback() {
    let dot = || records([srv(0, 0, ".")]);
    let both =
        serve(&[(PLAIN, dot()), (DIRECT, dot()), ("p.example", records([RData::A(A::new(192, 0, 2, 1))]))])
            .await;
    assert_eq!(both.resolver.xmpp_targets("p.example").await, Err(Unresolved::NoService));
    let plain_only = serve(&[(PLAIN, records([srv(0, 5269, "x.p.example.")])), (DIRECT, dot())]).await;
    let targets = plain_only.resolver.xmpp_targets("p.example").await.expect("targets");
    assert_eq!(short(&targets), [("x.p.example", 5269, false)]);
    let direct_says_no =
        serve(&[(DIRECT, dot()), ("p.example", records([RData::A(A::new(192, 0, 2, 1))]))]).await;
    assert_eq!(direct_says_no.resolver.xmpp_targets("p.example").await, Err(Unresolved::NoService));
}

#[tokio::test]
async fn xs_dns_03_the_domain_itself_is_a_target_without_srv_and_never_beside_them() {
    let address = ("p.example", records([RData::A(A::new(192, 0, 2, 1))]));
    let without = serve(std::slice::from_ref(&address)).await;
    let targets = without.resolver.xmpp_targets("p.example").await.expect("the domain");
    assert_eq!(short(&targets), [("p.example", 5269, false)]);
    let with = serve(&[address, (PLAIN, records([srv(0, 5269, "dead.p.example.")]))]).await;
    let targets = with.resolver.xmpp_targets("p.example").await.expect("targets");
    assert_eq!(short(&targets), [("dead.p.example", 5269, false)]);
}

#[tokio::test]
async fn a_failure_is_told_apart_from_a_name_that_does_not_exist() {
    let server = serve(&[
        (PLAIN, Has::Failure),
        ("h.example", Has::Failure),
        ("empty.example", records([])),
        (
            "both.example",
            records([
                RData::A(A::new(192, 0, 2, 1)),
                RData::AAAA(AAAA::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
            ]),
        ),
    ])
    .await;
    // RFC 6120 §3.2.1, item 9: the domain's own address may be known all the same.
    let own = server.resolver.xmpp_targets("p.example").await.expect("the domain itself");
    assert_eq!((own.len(), own[0].host.as_str(), own[0].port), (1, "p.example", 5269));
    assert!(matches!(server.resolver.addresses("h.example", 1).await, Err(Unresolved::NoAnswer(_))));
    for missing in ["nowhere.example", "empty.example"] {
        assert_eq!(server.resolver.addresses(missing, 1).await, Err(Unresolved::NotFound), "{missing}");
    }
    let both: Vec<SocketAddr> =
        ["[2001:db8::1]:7", "192.0.2.1:7"].iter().map(|text| text.parse().expect("an address")).collect();
    assert_eq!(server.resolver.addresses("both.example", 7).await, Ok(both));
    for literal in ["192.0.2.9", "2001:db8::9", "[2001:db8::9]"] {
        let found = server.resolver.addresses(literal, 9).await.expect("a literal");
        assert_eq!((found.len(), found[0].port()), (1, 9), "{literal}");
    }
}

#[tokio::test]
async fn of_a_hosts_many_addresses_the_next_attempt_begins_behind_those_that_led_nowhere() {
    let host = "many.example";
    let zone = |first: u8| {
        records((0..20).map(|n| RData::A(A::new(192, 0, 2, 1 + (first + n) % 20))).collect::<Vec<_>>())
    };
    let server = serve(&[(host, zone(0))]).await;
    let address = |n: u8| SocketAddr::from(([192, 0, 2, n], 5269));
    let found = server.resolver.addresses(host, 5269).await.expect("addresses");
    assert_eq!(found, (1..=20).map(address).collect::<Vec<_>>(), "all of them");
    server.resolver.pass_over(host, 16);
    // Its name server begins with another one each time.
    server.zone.lock().expect("no panic").insert(format!("{host}."), zone(7));
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    let found = server.resolver.addresses(host, 5269).await.expect("addresses");
    assert_eq!(found, (17..=20).chain(1..=16).map(address).collect::<Vec<_>>());
    assert_eq!(server.resolver.addresses("192.0.2.9", 5269).await, Ok(vec![address(9)]));
}

#[tokio::test]
async fn stox_a_03_a_learned_answer_is_kept_for_its_life_and_then_asked_for_again() {
    let host = "x.p.example";
    let server = serve(&[(host, records([RData::A(A::new(192, 0, 2, 1))]))]).await;
    let learned = server.resolver.addresses(host, 5269).await.expect("addresses");
    let moved = records([RData::A(A::new(192, 0, 2, 2))]);
    server.zone.lock().expect("no panic").insert(format!("{host}."), moved);
    assert_eq!(server.resolver.addresses(host, 5269).await, Ok(learned), "it is not asked for again");
    // Its life is 0 s, which the resolver takes as one.
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    assert_eq!(server.resolver.addresses(host, 5269).await, Ok(vec![([192, 0, 2, 2], 5269).into()]));
}

#[tokio::test]
async fn a_name_server_that_begins_to_fail_leaves_the_last_good_answer() {
    let server = serve(&[
        (PLAIN, records([srv(0, 5269, "x.p.example.")])),
        ("x.p.example", records([RData::A(A::new(192, 0, 2, 1))])),
    ])
    .await;
    let targets = server.resolver.xmpp_targets("p.example").await.expect("targets");
    let addresses = server.resolver.addresses("x.p.example", 5269).await.expect("addresses");
    for has in server.zone.lock().expect("no panic").values_mut() {
        *has = Has::Failure;
    }
    // The resolver keeps an answer for a second, whatever its TTL.
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    assert_eq!(server.resolver.xmpp_targets("p.example").await, Ok(targets));
    assert_eq!(server.resolver.addresses("x.p.example", 5269).await, Ok(addresses));
}

const ALL: &[SipTransport] = &[Tls, Tcp, Udp];

fn uri(host: &str) -> SipLocation<'_> {
    SipLocation { host, port: None, transport: None, is_sips: false, spoken: ALL }
}

fn at(host: &str, port: u16, transport: SipTransport) -> SipTarget {
    SipTarget { host: host.to_owned(), port, transport }
}

#[tokio::test]
async fn sip_d_13_a_table_of_zones_leads_by_naptr_then_srv_then_the_host_itself() {
    let server = serve(&[
        (
            "named.example",
            records([
                naptr(50, "SIPS+D2T", "_sips._tcp.elsewhere.example."),
                naptr(90, "SIP+D2T", "_sip._tcp.named.example."),
                naptr(100, "SIP+D2U", "_sip._udp.named.example."),
            ]),
        ),
        (
            "_sips._tcp.elsewhere.example",
            records([srv(2, 5061, "b.elsewhere.example."), srv(1, 5071, "a.elsewhere.example.")]),
        ),
        ("_sip._tcp.named.example", records([srv(1, 5060, "t.named.example.")])),
        ("_sip._udp.plain.example", records([srv(1, 5062, "u.plain.example.")])),
        ("_sip._tcp.plain.example", records([srv(1, 5063, "t.plain.example.")])),
        ("_sips._tcp.closed.example", records([srv(0, 0, ".")])),
        ("_sip._tcp.failing.example", Has::Failure),
        ("bare.example", records([RData::A(A::new(192, 0, 2, 1))])),
    ])
    .await;
    let two = vec![at("a.elsewhere.example", 5071, Tls), at("b.elsewhere.example", 5061, Tls)];
    let named = uri("named.example");
    let plain = uri("plain.example");
    let table = [
        (named, Ok(two.clone())),
        (SipLocation { is_sips: true, ..named }, Ok(two)),
        (SipLocation { is_sips: true, spoken: &[Tcp, Udp], ..named }, Err(Unresolved::NoService)),
        (SipLocation { is_sips: true, ..plain }, Ok(vec![at("plain.example", 5061, Tls)])),
        (SipLocation { spoken: &[Udp, Tcp], ..named }, Ok(vec![at("t.named.example", 5060, Tcp)])),
        (SipLocation { transport: Some(Tcp), ..named }, Ok(vec![at("t.named.example", 5060, Tcp)])),
        (plain, Ok(vec![at("t.plain.example", 5063, Tcp), at("u.plain.example", 5062, Udp)])),
        (SipLocation { transport: Some(Udp), ..plain }, Ok(vec![at("u.plain.example", 5062, Udp)])),
        (SipLocation { transport: Some(Tls), ..plain }, Ok(vec![at("plain.example", 5061, Tls)])),
        (SipLocation { port: Some(5099), ..plain }, Ok(vec![at("plain.example", 5099, Udp)])),
        (uri("192.0.2.7"), Ok(vec![at("192.0.2.7", 5060, Udp)])),
        (SipLocation { is_sips: true, ..uri("192.0.2.7") }, Ok(vec![at("192.0.2.7", 5061, Tls)])),
        (uri("bare.example"), Ok(vec![at("bare.example", 5060, Udp)])),
        (SipLocation { is_sips: true, ..uri("bare.example") }, Ok(vec![at("bare.example", 5061, Tls)])),
        (SipLocation { is_sips: true, ..uri("closed.example") }, Err(Unresolved::NoService)),
        (SipLocation { transport: Some(Udp), is_sips: true, ..plain }, Err(Unresolved::NoService)),
    ];
    for (location, wanted) in table {
        assert_eq!(server.resolver.locate_sip(&location).await, wanted, "{location:?}");
    }
    let failing = SipLocation { transport: Some(Tcp), ..uri("failing.example") };
    assert!(matches!(server.resolver.locate_sip(&failing).await, Err(Unresolved::NoAnswer(_))));
}

#[tokio::test]
async fn a_machine_without_name_servers_knows_its_hosts_and_follows_the_files_as_they_change() {
    let folder = tempfile::tempdir().expect("a folder");
    let (resolv_conf, hosts) = (folder.path().join("resolv.conf"), folder.path().join("hosts"));
    let resolver = Resolver::from_files(&resolv_conf, &hosts).expect("neither file need be there");
    let asked = resolver.addresses("own.example", 5269).await;
    assert!(
        matches!(&asked, Err(Unresolved::NoAnswer(cause)) if cause.contains("no name server")),
        "{asked:?}"
    );
    assert_eq!(
        resolver.addresses("192.0.2.1", 1).await,
        Ok(vec!["192.0.2.1:1".parse().expect("an address")])
    );

    std::fs::write(&hosts, "192.0.2.7 own.example other\n").expect("written");
    std::fs::write(&resolv_conf, "# nothing yet\n").expect("written");
    resolver.reload();
    let own = Ok(vec!["192.0.2.7:5269".parse().expect("an address")]);
    assert_eq!(resolver.addresses("own.example", 5269).await, own);
    assert_eq!(resolver.addresses("OWN.example", 5269).await, own);

    // By itself too, after a few seconds.
    std::fs::write(&hosts, "192.0.2.8 own.example\n").expect("written");
    tokio::time::pause();
    tokio::time::advance(std::time::Duration::from_secs(6)).await;
    let moved = Ok(vec!["192.0.2.8:5269".parse().expect("an address")]);
    assert_eq!(resolver.addresses("own.example", 5269).await, moved);
}

#[tokio::test]
async fn a_resolver_of_a_changed_file_asks_the_new_name_server() {
    let folder = tempfile::tempdir().expect("a folder");
    let (resolv_conf, hosts) = (folder.path().join("resolv.conf"), folder.path().join("hosts"));
    let resolver = Resolver::from_files(&resolv_conf, &hosts).expect("a resolver");
    // Nobody answers at this address; what counts is that it is asked now.
    std::fs::write(&resolv_conf, "nameserver 127.0.0.254\noptions timeout:1 attempts:1\n").expect("written");
    resolver.reload();
    let asked = resolver.addresses("own.example", 5269).await;
    assert!(
        matches!(&asked, Err(Unresolved::NoAnswer(cause)) if !cause.contains("no name server is")),
        "{asked:?}"
    );
}
