//! Who is who at the built-in homes: accounts, and the proof of a request's user by digest.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tombolo_interwork::address::{address_of_uri, login_name};
use tombolo_policy::{Approve, Table};
use tombolo_presence::{Address, Now};
use tombolo_sip::{
    digest::{Algorithm, Credentials, DigestFault, Ha1, Request, Server, ServerSettings, Verdict},
    message::Message,
    uri::{Host, UriRef},
};
use tombolo_xmpp::jid::Domain;

/// One user of a built-in home.
#[derive(Debug, Clone)]
pub struct Account {
    /// The address.
    pub aor: Address,
    /// `H(user:realm:password)`, one per algorithm; the realm is the domain.
    pub ha1: Vec<Ha1>,
    /// The same with `user@domain` as user, for phones that log in so. Accounts of earlier versions have none.
    pub ha1_of_address: Vec<Ha1>,
    /// How watchers are approved.
    pub approve: Approve,
}

/// All accounts; replaced as a whole.
#[derive(Debug, Default)]
pub struct Accounts {
    by_aor: HashMap<Address, Account>,
}

impl FromIterator<Account> for Accounts {
    fn from_iter<I: IntoIterator<Item = Account>>(accounts: I) -> Self {
        Self { by_aor: accounts.into_iter().map(|account| (account.aor.clone(), account)).collect() }
    }
}

impl Accounts {
    /// The account of an address.
    pub fn account(&self, aor: &Address) -> Option<&Account> {
        self.by_aor.get(aor)
    }

    /// The addresses of all accounts.
    pub fn users(&self) -> impl Iterator<Item = &Address> {
        self.by_aor.keys()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_aor.len()
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.by_aor.is_empty()
    }

    /// How many have no hash for any of these algorithms, so that they can never prove themselves.
    pub fn without_hash(&self, algorithms: &[Algorithm]) -> usize {
        let has_one = |account: &Account| account.ha1.iter().any(|ha1| algorithms.contains(&ha1.algorithm()));
        self.by_aor.values().filter(|account| !has_one(account)).count()
    }

    /// What shards need of them.
    pub fn approvals(&self) -> tombolo_interwork::owner::Accounts {
        let approve = self.by_aor.values().map(|account| (account.aor.clone(), account.approve)).collect();
        tombolo_interwork::owner::Accounts { approve }
    }
}

/// What a request's credentials are worth.
#[derive(Debug, PartialEq, Eq)]
pub enum Proof {
    /// They prove this user.
    User(Address),
    /// None, wrong ones, or old ones.
    Challenge {
        /// The values of WWW-Authenticate.
        values: Vec<String>,
        /// What is wrong with the credentials; `None` where there were none, or only their nonce was too old.
        fault: Option<LoginFault>,
    },
    /// The user whom From names is not at a built-in home.
    NoHome,
}

/// Why credentials prove nobody. For the log: the phone is only challenged again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoginFault {
    /// They cannot be read.
    #[error("{0}")]
    Malformed(#[from] DigestFault),
    /// Their user is not the one of From.
    #[error("the user name is not that of From")]
    OtherUser,
    /// There is no such account.
    #[error("there is no such user")]
    UnknownUser,
    /// The account lacks the hash that would be compared.
    #[error(
        "the account has no hash for this algorithm and form of user name: give it a password again with tombolo user passwd"
    )]
    NoHash,
    /// The response is not that of the account's password.
    #[error("wrong password")]
    WrongPassword,
    /// RFC 2069, where MD5 is not offered.
    #[error("digest without qop, which is only taken for MD5 and where accounts.digest offers it")]
    WithoutQop,
    /// They are right, but for a request to somebody else.
    #[error("the credentials are for another URI")]
    OtherUri,
}

/// Proves users by digest. One for the process, so that a nonce counts everywhere.
pub struct Authenticator {
    accounts: ArcSwap<Accounts>,
    /// One a realm; realms are our own domains.
    servers: Mutex<HashMap<String, Server>>,
    /// What challenges offer, the preferred first.
    algorithms: Vec<Algorithm>,
    secret: [u8; 32],
    nonce: AtomicU64,
}

impl Authenticator {
    /// Without accounts. Challenges offer `algorithms`, the preferred first, and credentials of another are refused;
    /// `secret` signs nonces, `seed` begins their numbers.
    pub fn new(algorithms: Vec<Algorithm>, secret: [u8; 32], seed: u64) -> Self {
        let (accounts, servers, nonce) = (ArcSwap::default(), Mutex::default(), AtomicU64::new(seed));
        Self { accounts, servers, algorithms, secret, nonce }
    }

    /// The accounts in force.
    pub fn accounts(&self) -> Arc<Accounts> {
        self.accounts.load_full()
    }

    /// Replaces the accounts.
    pub fn set_accounts(&self, accounts: Accounts) {
        self.accounts.store(Arc::new(accounts));
    }

    /// Proves that a request, which came to `local`, comes from the user whom its From names (RFC 3261 §22).
    pub fn prove(&self, message: &Message, local: SocketAddr, policy: &Table, now: Now) -> Proof {
        let from = message.from().ok().and_then(|from| address_of_uri(&from.uri).ok());
        let Some(aor) = from.map(|from| from.address) else { return Proof::NoHome };
        // Strangers choose what From says: only realms of ours are kept.
        if policy.local_domain(aor.domain()).is_none() {
            return Proof::NoHome;
        }
        let accounts = self.accounts.load();
        let realm = aor.domain().to_owned();
        let mut servers = self.servers.lock();
        let server = servers.entry(realm.clone()).or_insert_with(|| {
            let algorithms = self.algorithms.clone();
            Server::new(ServerSettings { algorithms, ..ServerSettings::new(&realm) }, self.secret)
        });
        let (mut is_stale, mut fault) = (false, None);
        for value in message.authorization() {
            let credentials = match Credentials::parse(value) {
                Ok(credentials) => credentials,
                // As if there were none (RFC 4475 §3.3.7).
                Err(DigestFault::OtherScheme) => continue,
                Err(malformed) => {
                    fault = Some(malformed.into());
                    continue;
                }
            };
            let (method, uri) = (message.method_text(), message.request_uri_text());
            let covered = Request { method, uri, body: message.body() };
            // The user name is the user part of From, or the whole address, each with a hash of its own. A local part with
            // escapes may be meant by either of its forms; the hash is of one of them.
            let account = accounts.account(&aor);
            let hashes = account.and_then(|account| {
                let is_of = |user: &str| user == aor.local() || user == login_name(&aor);
                let name = &*credentials.username;
                let whole = || name.rsplit_once('@').filter(|(_, domain)| *domain == aor.domain());
                if is_of(name) {
                    Some(&account.ha1)
                } else {
                    whole().filter(|(user, _)| is_of(user)).map(|_| &account.ha1_of_address)
                }
            });
            let ha1 = hashes.and_then(|hashes| find(hashes, credentials.algorithm));
            let refused = || match (account, hashes, ha1) {
                (None, ..) => LoginFault::UnknownUser,
                (_, None, _) => LoginFault::OtherUser,
                (.., None) => LoginFault::NoHash,
                _ => LoginFault::WrongPassword,
            };
            match server.verify(&credentials, &covered, ha1, now.wall) {
                Verdict::Accepted => return Proof::User(aor),
                // A proxy on the way may have rewritten the Request-URI, but both were ours (RFC 8760 §2.6).
                Verdict::AcceptedForOtherUri
                    if is_same_target(&credentials.uri, uri, local)
                        || is_ours(&credentials.uri, policy) && is_ours(uri, policy) =>
                {
                    return Proof::User(aor);
                }
                // Good for another request, and whoever relays it here is not who made it.
                Verdict::AcceptedForOtherUri => fault = Some(LoginFault::OtherUri),
                Verdict::Stale => is_stale = true,
                Verdict::WithoutQop => fault = Some(LoginFault::WithoutQop),
                Verdict::Refused => fault = Some(refused()),
                Verdict::OtherRealm => {}
            }
        }
        let random = self.nonce.fetch_add(1, Ordering::Relaxed);
        Proof::Challenge { values: server.challenges(is_stale, now.wall, random), fault }
    }
}

/// True when two URIs name one user, or both one host: proxies add and take parameters (RFC 8760 §2.6-6). Some clients
/// write where they send to, whatever they ask for; what names our own socket was made for nobody else either.
fn is_same_target(covered: &str, asked: &str, local: SocketAddr) -> bool {
    let (Ok(covered), Ok(asked)) = (UriRef::parse(covered), UriRef::parse(asked)) else { return false };
    let host = |uri: &UriRef<'_>| uri.host().map(|host| host.to_string().to_ascii_lowercase());
    let is_ours = || {
        let ip = host(&covered).and_then(|host| host.trim_matches(['[', ']']).parse().ok());
        covered.user().is_none() && ip == Some(local.ip()) && covered.port() == Some(local.port())
    };
    (covered.has_user_of(&asked) && host(&covered) == host(&asked)) || is_ours()
}

fn find(hashes: &[Ha1], algorithm: Algorithm) -> Option<&Ha1> {
    hashes.iter().find(|ha1| ha1.algorithm() == algorithm)
}

/// Whether a URI is of a domain that we serve.
fn is_ours(uri: &str, policy: &Table) -> bool {
    let uri = UriRef::parse(uri).ok();
    let Some(Host::Name(name)) = uri.and_then(|uri| uri.host()) else { return false };
    Domain::parse(name).is_ok_and(|domain| policy.local_domain(domain.as_str()).is_some())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use tombolo_policy::{Home, LocalDomain};
    use tombolo_sip::{
        digest::{Answer, Client, Login, ha1},
        message::{MessageLimits, read_datagram},
    };

    use super::*;

    const URI: &str = "sip:corp.test";

    fn local() -> SocketAddr {
        ([192, 0, 2, 1], 5060).into()
    }

    fn now() -> Now {
        #[expect(clippy::disallowed_methods, reason = "any instant will do as the start of a test")]
        let instant = Instant::now();
        Now { instant, wall: Duration::from_secs(1_790_000_000) }
    }

    fn authenticator(algorithms: &[Algorithm]) -> Authenticator {
        let aor = Address::from_prepared("dave@corp.test").expect("legal");
        let hash = |algorithm| ha1(algorithm, "dave", "corp.test", "secret");
        let account = Account {
            aor,
            ha1: vec![hash(Algorithm::Sha256), hash(Algorithm::Md5)],
            ha1_of_address: vec![ha1(Algorithm::Md5, "dave@corp.test", "corp.test", "secret")],
            approve: Approve::default(),
        };
        let authenticator = Authenticator::new(algorithms.to_vec(), [7; 32], 1);
        authenticator.set_accounts([account].into_iter().collect());
        authenticator
    }

    fn policy() -> Table {
        let name = tombolo_presence::Domain::from_prepared("corp.test").expect("legal");
        Table::new(1, vec![LocalDomain { name, home: Home::BuiltIn }], Vec::new()).expect("one claim")
    }

    fn register(authorization: Option<&str>) -> Message {
        let authorization =
            authorization.map_or(String::new(), |value| format!("Authorization: {value}\r\n"));
        let text = format!(
            "REGISTER {URI} SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bKa\r\nMax-Forwards: 70\r\n\
             From: <sip:dave@corp.test>;tag=f\r\nTo: <sip:dave@corp.test>\r\nCall-ID: c\r\nCSeq: 1 REGISTER\r\n\
             {authorization}Content-Length: 0\r\n\r\n"
        );
        read_datagram(text.into(), &MessageLimits::default()).expect("well formed")
    }

    fn challenges(authenticator: &Authenticator) -> Vec<String> {
        match authenticator.prove(&register(None), local(), &policy(), now()) {
            Proof::Challenge { values, fault: None } => values,
            other => panic!("{other:?}"),
        }
    }

    /// What a phone that takes the first challenge, MD5 or not, gets for its answer.
    fn proof_of_answer(asked: &Authenticator, answered: &Authenticator) -> Proof {
        let (user, password) = ("dave".to_owned(), "secret".to_owned());
        let login = Login { peer: "us".into(), realm: "corp.test".into(), user, password, allows_md5: true };
        let mut phone = Client::new(login);
        let challenges = challenges(asked);
        let next = phone.handle_challenge("us", challenges.iter().map(String::as_str), Answer::None);
        assert_eq!(next, Ok(Answer::Fresh));
        let covered = Request { method: "REGISTER", uri: URI, body: b"" };
        let value = phone.authorize(&covered, 5).expect("challenged");
        answered.prove(&register(Some(&value)), local(), &policy(), now())
    }

    #[test]
    fn sip_au_05_credentials_for_another_uri_count_where_that_one_is_ours_too() {
        let authenticator = authenticator(&[Algorithm::Sha256]);
        let (user, password) = ("dave".to_owned(), "secret".to_owned());
        let login = Login { peer: "us".into(), realm: "corp.test".into(), user, password, allows_md5: false };
        let mut phone = Client::new(login);
        let offered = challenges(&authenticator);
        phone
            .handle_challenge("us", offered.iter().map(String::as_str), Answer::None)
            .expect("a challenge that is known");
        for (uri, is_taken) in [
            ("sip:CORP.test", true),
            ("sip:erin@corp.test", true),
            ("sip:erin@other.test", false),
            ("sip:192.0.2.1", false),
            ("tel:+1", false),
        ] {
            let covered = Request { method: "REGISTER", uri, body: b"" };
            let value = phone.authorize(&covered, 5).expect("challenged");
            let proof = authenticator.prove(&register(Some(&value)), local(), &policy(), now());
            assert_eq!(matches!(proof, Proof::User(_)), is_taken, "{uri}: {proof:?}");
        }
    }

    #[test]
    fn challenges_offer_what_is_set_in_its_order_and_nothing_else_is_taken() {
        let (sha256, md5) = (Algorithm::Sha256, Algorithm::Md5);
        for algorithms in [&[sha256, md5][..], &[md5, sha256], &[md5], &[sha256]] {
            let authenticator = authenticator(algorithms);
            let offered = challenges(&authenticator);
            assert_eq!(offered.len(), algorithms.len());
            for (value, algorithm) in offered.iter().zip(algorithms) {
                assert!(value.contains(&format!("algorithm={},", algorithm.token())), "{value}");
            }
            let dave = Address::from_prepared("dave@corp.test").expect("legal");
            assert_eq!(proof_of_answer(&authenticator, &authenticator), Proof::User(dave));
        }
        // The same secret, so the nonce is good; the hash is not offered here.
        let refused = proof_of_answer(&authenticator(&[md5]), &authenticator(&[sha256]));
        assert!(matches!(refused, Proof::Challenge { .. }), "{refused:?}");
    }

    #[test]
    fn credentials_for_another_target_open_no_way_out_of_our_domains() {
        let (user, password) = ("dave".to_owned(), "secret".to_owned());
        let login = Login { peer: "us".into(), realm: "corp.test".into(), user, password, allows_md5: true };
        let asked = "sip:juliet@xmpp.test";
        for (covered, is_taken) in [
            (asked, true),
            ("sip:juliet@XMPP.test:5060;transport=tcp", true),
            ("sip:erin@corp.test", false),
            ("sip:romeo@xmpp.test", false),
            // Some write where they send to.
            ("sip:192.0.2.1:5060", true),
            ("sip:192.0.2.1:5070", false),
            ("sip:192.0.2.2:5060", false),
            ("sip:dave@192.0.2.1:5060", false),
        ] {
            let authenticator = authenticator(&[Algorithm::Sha256]);
            let mut phone = Client::new(login.clone());
            let challenges = challenges(&authenticator);
            let next = phone.handle_challenge("us", challenges.iter().map(String::as_str), Answer::None);
            assert_eq!(next, Ok(Answer::Fresh));
            let request = Request { method: "MESSAGE", uri: covered, body: b"" };
            let value = phone.authorize(&request, 5).expect("challenged");
            let text = format!(
                "MESSAGE {asked} SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bKa\r\nFrom: <sip:dave@corp.test>;tag=f\r\n\
                 To: <{asked}>\r\nCall-ID: c\r\nCSeq: 1 MESSAGE\r\nAuthorization: {value}\r\n\r\n"
            );
            let message = read_datagram(text.into(), &MessageLimits::default()).expect("well formed");
            let proof = authenticator.prove(&message, local(), &policy(), now());
            assert_eq!(matches!(proof, Proof::User(_)), is_taken, "{covered}: {proof:?}");
        }
    }

    #[test]
    fn whoever_is_of_no_domain_of_ours_gets_no_challenge_and_costs_no_memory() {
        let authenticator = authenticator(&[Algorithm::Md5]);
        for n in 0..100 {
            let text = format!(
                "REGISTER {URI} SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bKa\r\n\
                 From: <sip:dave@realm-{n}.test>;tag=f\r\nTo: <sip:dave@corp.test>\r\nCall-ID: c\r\n\
                 CSeq: 1 REGISTER\r\n\r\n"
            );
            let message = read_datagram(text.into(), &MessageLimits::default()).expect("well formed");
            assert_eq!(authenticator.prove(&message, local(), &policy(), now()), Proof::NoHome);
        }
        assert_eq!(authenticator.servers.lock().len(), 0);
    }

    /// What a phone gets that logs in so and takes the MD5 challenge.
    fn proof_of(authenticator: &Authenticator, user: &str, password: &str) -> Proof {
        let (user, password) = (user.to_owned(), password.to_owned());
        let login = Login { peer: "us".into(), realm: "corp.test".into(), user, password, allows_md5: true };
        let mut phone = Client::new(login);
        let offered = challenges(authenticator);
        let md5 = offered.iter().map(String::as_str).filter(|value| value.contains("MD5"));
        phone.handle_challenge("us", md5, Answer::None).expect("a challenge that is known");
        let covered = Request { method: "REGISTER", uri: URI, body: b"" };
        let value = phone.authorize(&covered, 5).expect("challenged");
        authenticator.prove(&register(Some(&value)), local(), &policy(), now())
    }

    #[test]
    fn a_phone_of_a_user_with_escapes_logs_in_by_the_name_that_sip_shows() {
        let aor = Address::from_prepared("o\\27neil@corp.test").expect("legal");
        // By either form of the name, as that is what its account has the hash of.
        for (hashed, others) in [("o'neil", "o\\27neil"), ("o\\27neil", "o'neil")] {
            let authenticator = authenticator(&[Algorithm::Md5]);
            let of = |user: &str| vec![ha1(Algorithm::Md5, user, "corp.test", "secret")];
            let (ha1, ha1_of_address) = (of(hashed), of(&format!("{hashed}@corp.test")));
            let account = Account { aor: aor.clone(), ha1, ha1_of_address, approve: Approve::default() };
            authenticator.set_accounts([account].into_iter().collect());
            let prove = |user: String| {
                let (password, realm) = ("secret".to_owned(), "corp.test".to_owned());
                let mut phone =
                    Client::new(Login { peer: "us".into(), realm, user, password, allows_md5: true });
                let offered = challenges(&authenticator);
                let offered = offered.iter().map(String::as_str);
                phone.handle_challenge("us", offered, Answer::None).expect("a challenge that is known");
                let covered = Request { method: "REGISTER", uri: URI, body: b"" };
                let value = phone.authorize(&covered, 5).expect("challenged");
                let text = format!(
                    "REGISTER {URI} SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bKa\r\n\
                     From: <sip:o'neil@corp.test>;tag=f\r\nTo: <sip:o'neil@corp.test>\r\nCall-ID: c\r\n\
                     CSeq: 1 REGISTER\r\nAuthorization: {value}\r\n\r\n"
                );
                let message = read_datagram(text.into(), &MessageLimits::default()).expect("well formed");
                authenticator.prove(&message, local(), &policy(), now())
            };
            for user in [hashed.to_owned(), format!("{hashed}@corp.test")] {
                assert_eq!(prove(user.clone()), Proof::User(aor.clone()), "{user}");
            }
            for (user, fault) in [
                (others.to_owned(), LoginFault::WrongPassword),
                ("oneil".to_owned(), LoginFault::OtherUser),
                (format!("{hashed}@other.test"), LoginFault::OtherUser),
            ] {
                let proof = prove(user.clone());
                let is_refused =
                    matches!(&proof, Proof::Challenge { fault: Some(found), .. } if *found == fault);
                assert!(is_refused, "{user}: {proof:?}");
            }
        }
    }

    #[test]
    fn a_phone_may_log_in_by_its_whole_address_and_a_failed_login_says_why() {
        let authenticator = authenticator(&[Algorithm::Sha256, Algorithm::Md5]);
        let dave = Address::from_prepared("dave@corp.test").expect("legal");
        for user in ["dave", "dave@corp.test"] {
            assert_eq!(proof_of(&authenticator, user, "secret"), Proof::User(dave.clone()), "{user}");
        }
        let fault = |proof| match proof {
            Proof::Challenge { fault, .. } => fault,
            other => panic!("{other:?}"),
        };
        assert_eq!(fault(proof_of(&authenticator, "dave", "guess")), Some(LoginFault::WrongPassword));
        assert_eq!(fault(proof_of(&authenticator, "erin", "secret")), Some(LoginFault::OtherUser));
        let older = Account { aor: dave, ha1: vec![], ha1_of_address: vec![], approve: Approve::default() };
        authenticator.set_accounts([older].into_iter().collect());
        assert_eq!(fault(proof_of(&authenticator, "dave@corp.test", "secret")), Some(LoginFault::NoHash));
        authenticator.set_accounts(Accounts::default());
        assert_eq!(fault(proof_of(&authenticator, "dave", "secret")), Some(LoginFault::UnknownUser));
        let zero = "Digest username=\"dave\", realm=\"corp.test\", nonce=\"n\", uri=\"sip:corp.test\", \
                    response=\"r\", cnonce=\"c\", qop=auth, nc=00000000";
        let proof = authenticator.prove(&register(Some(zero)), local(), &policy(), now());
        assert_eq!(fault(proof), Some(LoginFault::Malformed(DigestFault::ZeroCount)));
    }

    #[test]
    fn sip_x_06_credentials_of_an_unknown_scheme_are_none_and_a_register_is_challenged() {
        let authenticator = authenticator(&[Algorithm::Sha256]);
        // regaut01 of RFC 4475 §3.3.7; how its neighbours' Contact is read is told in the SIP crate's torture tests.
        let strange = register(Some("NoOneKnowsThisScheme opaque-data=here"));
        let Proof::Challenge { values, .. } = authenticator.prove(&strange, local(), &policy(), now()) else {
            panic!("no challenge");
        };
        assert!(!values[0].contains("stale"), "{values:?}");
    }

    #[test]
    fn an_account_without_a_hash_for_what_is_offered_is_counted() {
        let aor = Address::from_prepared("old@corp.test").expect("legal");
        let only_md5 = vec![ha1(Algorithm::Md5, "old", "corp.test", "secret")];
        let accounts: Accounts =
            [Account { aor, ha1: only_md5, ha1_of_address: Vec::new(), approve: Approve::default() }]
                .into_iter()
                .collect();
        assert_eq!(accounts.without_hash(&[Algorithm::Sha256]), 1);
        assert_eq!(accounts.without_hash(&[Algorithm::Sha256, Algorithm::Md5]), 0);
    }
}
