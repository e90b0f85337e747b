//! A name server that answers from a table, over UDP on loopback, and remembers what it was asked.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use hickory_resolver::proto::{
    op::{Message, ResponseCode},
    rr::{
        Name, RData, Record,
        rdata::{A, AAAA, NAPTR, SRV},
    },
};
use parking_lot::Mutex;
use tokio::net::UdpSocket;
use tombolo_net::Resolver;

use super::World;

/// A zone that is served.
pub struct Zone {
    pub resolver: Resolver,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Zone {
    /// Serves these records; what is not among them does not exist.
    pub async fn serve(world: &World, records: &[(&str, RData)]) -> Self {
        let mut zone: HashMap<String, Vec<RData>> = HashMap::new();
        for (name, data) in records {
            zone.entry(format!("{name}.")).or_default().push(data.clone());
        }
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
        let address = socket.local_addr().expect("bound");
        let asked = Arc::new(Mutex::new(Vec::new()));
        tokio::spawn(answer(socket, zone, asked.clone()));
        let helpers = world.placement.helpers();
        let _inside = helpers.enter();
        Self { resolver: Resolver::with_servers(&[address]).expect("a resolver"), asked }
    }

    /// What was asked for so far: `NAME TYPE`.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().clone()
    }
}

async fn answer(socket: UdpSocket, zone: HashMap<String, Vec<RData>>, asked: Arc<Mutex<Vec<String>>>) {
    let mut buffer = [0; 4096];
    while let Ok((len, from)) = socket.recv_from(&mut buffer).await {
        let question = Message::from_vec(&buffer[..len]).expect("a question");
        let query = question.queries[0].clone();
        let name = query.name().to_ascii().to_ascii_lowercase();
        asked.lock().push(format!("{} {}", name.trim_end_matches('.'), query.query_type()));
        let mut response = Message::response(question.metadata.id, question.metadata.op_code);
        response.add_query(query.clone());
        match zone.get(&name) {
            None => response.metadata.response_code = ResponseCode::NXDomain,
            Some(records) => {
                for data in records.iter().filter(|data| data.record_type() == query.query_type()) {
                    response.add_answer(Record::from_rdata(query.name().clone(), 60, data.clone()));
                }
            }
        }
        socket.send_to(&response.to_vec().expect("encodes"), from).await.expect("sent");
    }
}

pub fn srv(priority: u16, at: SocketAddr, target: &str) -> RData {
    RData::SRV(SRV::new(priority, 1, at.port(), Name::from_ascii(target).expect("a name")))
}

pub fn v4(address: &str) -> RData {
    RData::A(A(address.parse().expect("an address")))
}

pub fn v6(address: &str) -> RData {
    RData::AAAA(AAAA(address.parse().expect("an address")))
}

/// A record that leads to SRV records.
pub fn naptr(order: u16, service: &str, replacement: &str) -> RData {
    let octets = |text: &str| text.as_bytes().into();
    let replacement = Name::from_ascii(replacement).expect("a name");
    RData::NAPTR(NAPTR::new(order, 0, octets("s"), octets(service), octets(""), replacement))
}
