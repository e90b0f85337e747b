use std::time::Duration;

use super::{server::Window, *};

const CNONCE: &str = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ";
const NONCE: &str = "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v";

fn mufasa(algorithm: Algorithm) -> Ha1 {
    ha1(algorithm, "Mufasa", "http-auth@example.org", "Circle of Life")
}

#[test]
fn the_vectors_of_rfc7616_section_3_9_1_come_out() {
    let request = Request { method: "GET", uri: "/dir/index.html", body: b"" };
    let md5 = response(&mufasa(Algorithm::Md5), NONCE, "00000001", CNONCE, Qop::Auth, &request);
    assert_eq!(md5.as_str(), "8ca523f5e9506fed4657c9700eebdbec");
    let sha256 = response(&mufasa(Algorithm::Sha256), NONCE, "00000001", CNONCE, Qop::Auth, &request);
    assert_eq!(sha256.as_str(), "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1");
}

#[test]
fn sip_au_03_responses_have_their_length_and_an_empty_body_is_the_hash_of_nothing() {
    let empty = Algorithm::Sha256.hash(&[b""]);
    assert_eq!(empty.as_str(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    let request = Request { method: "PUBLISH", uri: "sip:a@b", body: b"" };
    for (algorithm, len) in [(Algorithm::Md5, 32), (Algorithm::Sha256, 64), (Algorithm::Sha512_256, 64)] {
        for qop in [Qop::Auth, Qop::AuthInt] {
            let digest = response(&mufasa(algorithm), NONCE, "00000001", CNONCE, qop, &request);
            assert_eq!(digest.as_str().len(), len);
            assert!(digest.as_str().bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')));
        }
        // auth-int spelt out.
        let ha1 = mufasa(algorithm);
        let ha2 = algorithm.hash(&[b"PUBLISH", b"sip:a@b", algorithm.hash(&[b""]).as_bytes()]);
        let spelt = format!("{}:{NONCE}:00000001:{CNONCE}:auth-int:{}", ha1.hex(), ha2.as_str());
        let digest = response(&ha1, NONCE, "00000001", CNONCE, Qop::AuthInt, &request);
        assert_eq!(digest.as_str(), algorithm.hash(&[spelt.as_bytes()]).as_str());
    }
    // FIPS 180-4: the algorithm is SHA-512/256, not a cut SHA-512.
    assert_eq!(
        Algorithm::Sha512_256.hash(&[b"abc"]).as_str(),
        "53048e2681941ef99b2e29b76b4c7dabe4c2d0c634fc6d46e0e2f13107e7af23"
    );
}

#[test]
fn a_stored_hash_is_read_back_and_shown_to_nobody() {
    let ha1 = mufasa(Algorithm::Sha256);
    let again = Ha1::from_hex(Algorithm::Sha256, &ha1.hex().to_ascii_uppercase()).expect("64 digits");
    assert_eq!((again.hex(), again.algorithm()), (ha1.hex(), Algorithm::Sha256));
    assert!(!format!("{ha1:?}").contains(&ha1.hex()[..8]));
    for (algorithm, text) in [
        (Algorithm::Sha256, "00"),
        (Algorithm::Sha256, ha1.hex().get(..32).expect("64 digits")),
        (Algorithm::Md5, ha1.hex()),
        (Algorithm::Md5, "0123456789abcdef0123456789abcdeg"),
    ] {
        assert!(Ha1::from_hex(algorithm, text).is_none(), "{text}");
    }
}

const REALM: &str = "corp.example";
const URI: &str = "sip:corp.example";

fn wall() -> Duration {
    Duration::from_secs(1_790_000_000)
}

fn server() -> Server {
    Server::new(ServerSettings::new(REALM), [7; 32])
}

fn register() -> Request<'static> {
    Request { method: "REGISTER", uri: URI, body: b"" }
}

fn client(password: &str) -> Client {
    Client::new(Login {
        peer: "pbx".into(),
        realm: REALM.into(),
        user: "alice".into(),
        password: password.into(),
        allows_md5: true,
    })
}

fn alice(algorithm: Algorithm) -> Ha1 {
    ha1(algorithm, "alice", REALM, "secret")
}

fn answer(
    client: &mut Client,
    server: &Server,
    wall: Duration,
    sent: Answer,
) -> Result<Answer, ClientRefusal> {
    let challenges = server.challenges(false, wall, 1);
    client.handle_challenge("pbx", challenges.iter().map(String::as_str), sent)
}

fn verify(server: &mut Server, value: &str, wall: Duration) -> Verdict {
    let credentials = Credentials::parse(value).expect("credentials");
    server.verify(&credentials, &register(), Some(&alice(credentials.algorithm)), wall)
}

#[test]
fn our_two_sides_understand_each_other_in_every_algorithm() {
    for algorithm in [Algorithm::Sha512_256, Algorithm::Sha256, Algorithm::Md5] {
        let settings = ServerSettings { algorithms: vec![algorithm], ..ServerSettings::new(REALM) };
        let mut server = Server::new(settings, [7; 32]);
        let mut client = client("secret");
        assert_eq!(client.authorize(&register(), 5), None, "nothing is said before a challenge");
        assert_eq!(answer(&mut client, &server, wall(), Answer::None), Ok(Answer::Fresh));
        let value = client.authorize(&register(), 5).expect("challenged");
        assert_eq!(verify(&mut server, &value, wall()), Verdict::Accepted, "{value}");
    }
}

#[test]
fn sip_au_01_challenges_are_of_one_realm_strongest_first_each_with_qop_and_another_algorithm() {
    let challenges = server().challenges(false, wall(), 1);
    let algorithms: Vec<_> =
        challenges.iter().map(|value| Challenge::parse(value).expect("a challenge").algorithm).collect();
    assert_eq!(algorithms, [Algorithm::Sha256, Algorithm::Md5]);
    for value in &challenges {
        assert!(value.starts_with("Digest realm=\"corp.example\", nonce=\""), "{value}");
        assert!(value.contains(", qop=\"auth\"") && !value.contains("stale"), "{value}");
    }
    let settings = ServerSettings {
        algorithms: vec![Algorithm::Sha512_256, Algorithm::Sha256],
        ..ServerSettings::new(REALM)
    };
    let strict = Server::new(settings, [7; 32]).challenges(true, wall(), 1);
    assert!(strict[0].contains("algorithm=SHA-512-256") && strict[1].contains("algorithm=SHA-256"));
    assert!(strict.iter().all(|value| value.contains(", stale=true")));
}

#[test]
fn the_top_most_supported_challenge_is_answered_with_qop() {
    let sha256 = "Digest realm=\"corp.example\", nonce=\"n2\", algorithm=SHA-256, qop=\"auth-int, auth\"";
    let md5 = "Digest realm=\"corp.example\", nonce=\"n1\"";
    let unknown = "Digest realm=\"corp.example\", nonce=\"n0\", algorithm=SHA3-512, qop=\"auth\"";
    let session = "Digest realm=\"corp.example\", nonce=\"n0\", algorithm=SHA-256-sess, qop=\"auth\"";
    let said = |challenges: &[&str]| {
        let mut client = client("secret");
        client.handle_challenge("pbx", challenges.iter().copied(), Answer::None)?;
        Ok::<_, ClientRefusal>(client.authorize(&register(), 5).expect("challenged"))
    };
    let first = said(&[unknown, session, sha256, md5]).expect("one is known");
    assert!(
        first.contains("nonce=\"n2\"") && first.contains("algorithm=SHA-256, qop=auth, nc=00000001"),
        "{first}"
    );
    let first = said(&[unknown, md5, sha256]).expect("one is known");
    assert!(
        first.contains("nonce=\"n1\"") && first.contains("algorithm=MD5, qop=auth, nc=00000001"),
        "{first}"
    );
    assert!(first.contains("uri=\"sip:corp.example\""), "{first}");
    let only_int = "Digest realm=\"corp.example\", nonce=\"n3\", qop=\"auth-int\"";
    assert!(said(&[only_int]).expect("known").contains("qop=auth-int"));
    assert_eq!(said(&[unknown]), Err(ClientRefusal::NothingToAnswer));
    assert_eq!(
        said(&["Digest realm=\"corp.example\", nonce=\"n\", qop=\"x\""]),
        Err(ClientRefusal::NothingToAnswer)
    );
    // Where MD5 is not allowed, it is passed over.
    let login = Login { allows_md5: false, ..client("secret").login().clone() };
    let mut strict = Client::new(login);
    assert_eq!(strict.handle_challenge("pbx", [md5, sha256], Answer::None), Ok(Answer::Fresh));
    assert!(strict.authorize(&register(), 5).expect("challenged").contains("nonce=\"n2\""));
}

#[test]
fn sip_au_04_basic_is_neither_answered_nor_accepted() {
    let mut client = client("secret");
    let refusal = client.handle_challenge("pbx", ["Basic realm=\"corp.example\""], Answer::None);
    assert_eq!(refusal, Err(ClientRefusal::NothingToAnswer));
    assert_eq!(client.authorize(&register(), 5), None);
    let basic = Credentials::parse("Basic YWxpY2U6c2VjcmV0");
    assert_eq!(basic.err(), Some(DigestFault::OtherScheme));
}

#[test]
fn sip_au_05_a_replay_is_refused_an_old_nonce_is_stale_and_another_uri_is_told() {
    let (mut server, mut client) = (server(), client("secret"));
    answer(&mut client, &server, wall(), Answer::None).expect("a challenge");
    let first = client.authorize(&register(), 5).expect("challenged");
    let second = client.authorize(&register(), 6).expect("challenged");
    let third = client.authorize(&register(), 7).expect("challenged");
    assert!(third.contains("nc=00000003"));
    // Out of order is no replay.
    assert_eq!(verify(&mut server, &second, wall()), Verdict::Accepted);
    assert_eq!(verify(&mut server, &first, wall()), Verdict::Accepted);
    for replay in [&first, &second] {
        assert_eq!(verify(&mut server, replay, wall()), Verdict::Stale);
    }
    // Bound in time.
    assert_eq!(verify(&mut server, &third, wall() + Duration::from_secs(301)), Verdict::Stale);
    assert_eq!(verify(&mut server, &third, wall() - Duration::from_secs(31)), Verdict::Stale);
    assert_eq!(verify(&mut server, &third, wall() + Duration::from_secs(300)), Verdict::Accepted);
    // The uri may differ, but that is said.
    let other =
        client.authorize(&Request { uri: "sip:bob@corp.example", ..register() }, 8).expect("challenged");
    assert!(other.contains("uri=\"sip:bob@corp.example\""));
    assert_eq!(verify(&mut server, &other, wall()), Verdict::AcceptedForOtherUri);
    let same = client.authorize(&Request { uri: "SIP:CORP.example", ..register() }, 9).expect("challenged");
    assert_eq!(verify(&mut server, &same, wall()), Verdict::Accepted);
}

#[test]
fn a_nonce_of_another_secret_or_realm_is_stale_only_when_the_password_is_right() {
    let mut server = server();
    let foreign = Server::new(ServerSettings::new(REALM), [8; 32]);
    let mut right = client("secret");
    answer(&mut right, &foreign, wall(), Answer::None).expect("a challenge");
    let value = right.authorize(&register(), 5).expect("challenged");
    assert_eq!(verify(&mut server, &value, wall()), Verdict::Stale);
    let mut wrong = client("guess");
    answer(&mut wrong, &foreign, wall(), Answer::None).expect("a challenge");
    let value = wrong.authorize(&register(), 5).expect("challenged");
    assert_eq!(verify(&mut server, &value, wall()), Verdict::Refused);
    assert_eq!(server.nonces(), 0, "what is not proved takes no place");
}

#[test]
fn every_changed_parameter_spoils_the_credentials() {
    let mut server = server();
    let mut client = client("secret");
    answer(&mut client, &server, wall(), Answer::None).expect("a challenge");
    let value = client.authorize(&register(), 5).expect("challenged");
    for (from, to) in [
        ("\"alice\"", "\"alicf\""),
        ("uri=\"sip:c", "uri=\"sip:d"),
        ("nc=00000001", "nc=00000002"),
        ("cnonce=\"0", "cnonce=\"1"),
        ("response=\"", "response=\"0"),
        ("qop=auth", "qop=auth-int"),
        ("algorithm=SHA-256", "algorithm=MD5"),
        ("algorithm=SHA-256", "algorithm=SHA-512-256"),
    ] {
        let changed = value.replacen(from, to, 1);
        assert_ne!(changed, value, "{from}");
        let credentials = Credentials::parse(&changed).expect("credentials");
        let known = (credentials.username == "alice").then(|| alice(credentials.algorithm));
        let verdict = server.verify(&credentials, &register(), known.as_ref(), wall());
        assert_eq!(verdict, Verdict::Refused, "{from} -> {to}");
    }
    let credentials = Credentials::parse(&value).expect("credentials");
    let other_method = Request { method: "SUBSCRIBE", ..register() };
    let known = alice(Algorithm::Sha256);
    assert_eq!(server.verify(&credentials, &other_method, Some(&known), wall()), Verdict::Refused);
    // A hash of another algorithm is no hash of this user.
    let md5 = alice(Algorithm::Md5);
    assert_eq!(server.verify(&credentials, &register(), Some(&md5), wall()), Verdict::Refused);
    assert_eq!(server.verify(&credentials, &register(), Some(&known), wall()), Verdict::Accepted);
}

#[test]
fn auth_int_which_is_not_offered_is_refused_even_when_right() {
    let mut server = server();
    let mut client = client("secret");
    let challenge = server.challenges(false, wall(), 1).remove(0).replace("qop=\"auth\"", "qop=\"auth-int\"");
    client.handle_challenge("pbx", [challenge.as_str()], Answer::None).expect("a challenge");
    let value = client.authorize(&register(), 5).expect("challenged");
    assert!(value.contains("qop=auth-int"));
    assert_eq!(verify(&mut server, &value, wall()), Verdict::Refused);
}

#[test]
fn no_user_and_an_empty_password_are_refused() {
    let mut server = server();
    // What a client gets that answers with what stands in for nobody.
    let mut nobody = Client::new(Login { user: String::new(), ..client("").login().clone() });
    answer(&mut nobody, &server, wall(), Answer::None).expect("a challenge");
    let value =
        nobody.authorize(&register(), 5).expect("challenged").replace("username=\"\"", "username=\"x\"");
    let credentials = Credentials::parse(&value).expect("credentials");
    assert_eq!(server.verify(&credentials, &register(), None, wall()), Verdict::Refused);
    let elsewhere = value.replace("corp.example\", nonce", "else.example\", nonce");
    let credentials = Credentials::parse(&elsewhere).expect("credentials");
    assert_eq!(server.verify(&credentials, &register(), None, wall()), Verdict::OtherRealm);
}

#[test]
fn the_table_of_nonces_is_bounded_and_what_was_forgotten_cannot_be_replayed() {
    let settings = ServerSettings { most_nonces: 3, ..ServerSettings::new(REALM) };
    let mut server = Server::new(settings, [7; 32]);
    let mut used = Vec::new();
    for random in 0..10 {
        let mut client = client("secret");
        let challenges = server.challenges(false, wall(), random);
        client.handle_challenge("pbx", [challenges[0].as_str()], Answer::None).expect("a challenge");
        let value = client.authorize(&register(), 5).expect("challenged");
        assert_eq!(verify(&mut server, &value, wall()), Verdict::Accepted, "{random}");
        assert!(server.nonces() <= 3);
        used.push(value);
    }
    for value in &used {
        assert_eq!(verify(&mut server, value, wall()), Verdict::Stale);
    }
    // Those that ran out make room by themselves.
    let later = wall() + Duration::from_secs(400);
    let mut client = client("secret");
    let challenges = server.challenges(false, later, 0);
    client.handle_challenge("pbx", [challenges[0].as_str()], Answer::None).expect("a challenge");
    let value = client.authorize(&register(), 5).expect("challenged");
    assert_eq!(verify(&mut server, &value, later), Verdict::Accepted);
    assert_eq!(server.nonces(), 1);
    for value in &used {
        assert_eq!(verify(&mut server, value, wall()), Verdict::Stale, "the clock went back");
    }
}

#[test]
fn refused_credentials_are_not_tried_again_but_after_stale() {
    let server = server();
    let again = |value: &str, sent| {
        let mut client = client("secret");
        answer(&mut client, &server, wall(), Answer::None).expect("a challenge");
        let next = client.handle_challenge("pbx", [value], sent);
        (next, client.authorize(&register(), 5).is_some())
    };
    let fresh = "Digest realm=\"corp.example\", nonce=\"n\", algorithm=SHA-256, qop=\"auth\"";
    let stale = "Digest realm=\"corp.example\", nonce=\"n\", algorithm=SHA-256, qop=\"auth\", stale=TRUE";
    assert_eq!(again(fresh, Answer::Fresh), (Err(ClientRefusal::Rejected), false));
    assert_eq!(again(stale, Answer::Fresh), (Ok(Answer::AfterStale), true));
    assert_eq!(again(stale, Answer::AfterStale), (Err(ClientRefusal::Rejected), false));
    // A kept nonce may have run out.
    assert_eq!(again(fresh, Answer::Cached), (Ok(Answer::Fresh), true));
    let same = server.challenges(false, wall(), 1);
    assert_eq!(again(&same[0], Answer::Cached), (Err(ClientRefusal::Rejected), false));
}

#[test]
fn sip_au_08_a_hundred_requests_need_one_challenge() {
    let (mut server, mut client) = (server(), client("secret"));
    let mut challenges = 0;
    for random in 0..100 {
        let value = match client.authorize(&register(), random) {
            Some(value) => value,
            None => {
                challenges += 1;
                answer(&mut client, &server, wall(), Answer::None).expect("a challenge");
                client.authorize(&register(), random).expect("challenged")
            }
        };
        assert_eq!(verify(&mut server, &value, wall()), Verdict::Accepted);
    }
    assert_eq!(challenges, 1);
    assert_eq!(client.next_answer(), Answer::Cached);
}

#[test]
fn a_password_is_used_only_for_its_peer_and_its_realm() {
    let mut client = client("secret");
    let ours = "Digest realm=\"corp.example\", nonce=\"n\", qop=\"auth\"";
    let other = "Digest realm=\"evil.example\", nonce=\"n\", qop=\"auth\"";
    assert_eq!(client.handle_challenge("evil", [ours], Answer::None), Err(ClientRefusal::OtherPeer));
    assert_eq!(client.handle_challenge("pbx", [other], Answer::None), Err(ClientRefusal::NothingToAnswer));
    assert_eq!(client.authorize(&register(), 5), None);
    assert!(!format!("{client:?}").contains("secret"));
}

#[test]
fn sip_au_09_an_unknown_scheme_is_as_none_and_broken_parameters_are_told() {
    // From RFC 4475 §3.3.7.
    let unknown = "NoOneKnowsThisScheme opaque-data=here";
    assert_eq!(Credentials::parse(unknown).err(), Some(DigestFault::OtherScheme));
    assert_eq!(Challenge::parse(unknown).err(), Some(DigestFault::OtherScheme));
    for broken in [
        "Digest",
        "Digest ",
        "Digest x",
        "Digest x=",
        "Digest =x",
        "Digest x=\"y",
        "Digest x=y z=w",
        "Digest x=y,",
        "Digest x=y,,z=w",
        "Digest x=y,X=z",
        "Digest x=\"a\u{1}b\"",
        "Digest\u{1}x=y",
    ] {
        assert_eq!(Credentials::parse(broken).err(), Some(DigestFault::Malformed), "{broken:?}");
    }
    let many: String = (0..33).map(|at| format!(",p{at}=v")).collect();
    assert_eq!(Challenge::parse(&format!("Digest {}", &many[1..])).err(), Some(DigestFault::Malformed));
    assert_eq!(Challenge::parse("Digest realm=\"r\"").err(), Some(DigestFault::Missing("nonce")));
    for nc in ["1", "0000000g", "000000001", "+0000001"] {
        let value = format!(
            "Digest username=\"u\",realm=\"r\",uri=\"x\",nonce=\"n\",response=\"r\",cnonce=\"c\",nc={nc}"
        );
        assert_eq!(Credentials::parse(&value).err(), Some(DigestFault::Malformed), "{nc}");
    }
}

#[test]
fn quotes_and_backslashes_in_names_survive_both_sides() {
    let (user, realm) = ("a\"b\\c", "r\"\\\\\"");
    let mut server = Server::new(ServerSettings::new(realm), [7; 32]);
    let login = Login { user: user.into(), realm: realm.into(), ..client("secret").login().clone() };
    let mut client = Client::new(login);
    let challenges = server.challenges(false, wall(), 1);
    client.handle_challenge("pbx", [challenges[0].as_str()], Answer::None).expect("a challenge");
    let value = client.authorize(&register(), 5).expect("challenged");
    let credentials = Credentials::parse(&value).expect("credentials");
    assert_eq!(credentials.username, user);
    let known = ha1(Algorithm::Sha256, user, realm, "secret");
    assert_eq!(server.verify(&credentials, &register(), Some(&known), wall()), Verdict::Accepted);
}

#[test]
fn nothing_panics_on_broken_values() {
    let server = server();
    let mut client = client("secret");
    answer(&mut client, &server, wall(), Answer::None).expect("a challenge");
    let seeds =
        [client.authorize(&register(), 5).expect("challenged"), server.challenges(true, wall(), 1).remove(0)];
    let mut state = 1_u32;
    for seed in seeds {
        fuzz_body(seed.as_bytes());
        for _ in 0..3000 {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            let mut mutant = seed.clone().into_bytes();
            let at = usize::try_from(state).expect("32 bits fit") % mutant.len();
            match state >> 30 {
                0 => drop(mutant.drain(at..)),
                1 => drop(mutant.remove(at)),
                _ => mutant[at] = b"\",=\\ \x00;xD"[usize::try_from(state >> 8).expect("24 bits fit") % 9],
            }
            fuzz_body(&mutant);
        }
    }
}

/// Credentials for [`register`] in the form of RFC 2069.
fn without_qop(challenge: &str, algorithm: Algorithm, more: &str) -> String {
    let nonce = challenge.split("nonce=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a nonce");
    let response = response_without_qop(&alice(algorithm), nonce, &register());
    format!(
        "Digest username=\"alice\", realm=\"{REALM}\", nonce=\"{nonce}\", uri=\"{URI}\", algorithm={}, \
         response=\"{}\"{more}",
        algorithm.token(),
        response.as_str()
    )
}

#[test]
fn the_response_without_qop_is_that_of_rfc2069() {
    // The values of RFC 2069 §2.4; its own response is wrong, erratum 749 gives this one.
    let ha1 = ha1(Algorithm::Md5, "Mufasa", "testrealm@host.com", "CircleOfLife");
    let request = Request { method: "GET", uri: "/dir/index.html", body: b"" };
    let response = response_without_qop(&ha1, "dcd98b7102dd2f0e8b11d0f600bfb0c093", &request);
    assert_eq!(response.as_str(), "1949323746fe6a43ef61f9606e7febea");
}

#[test]
fn credentials_without_qop_count_once_for_their_nonce() {
    let mut server = server();
    let challenge = server.challenges(false, wall(), 1).remove(1);
    let value = without_qop(&challenge, Algorithm::Md5, "");
    assert_eq!(verify(&mut server, &value, wall()), Verdict::Accepted);
    assert_eq!(verify(&mut server, &value, wall()), Verdict::Stale, "a replay");
    // Nor does the nonce serve the other form any more.
    let mut phone = client("secret");
    phone.handle_challenge("pbx", [&*challenge], Answer::None).expect("a challenge");
    let counted = phone.authorize(&register(), 5).expect("challenged");
    assert_eq!(verify(&mut server, &counted, wall()), Verdict::Stale);
    // And one that served a count serves it no more.
    let challenge = server.challenges(false, wall(), 2).remove(1);
    let mut phone = client("secret");
    phone.handle_challenge("pbx", [&*challenge], Answer::None).expect("a challenge");
    let counted = phone.authorize(&register(), 5).expect("challenged");
    assert_eq!(verify(&mut server, &counted, wall()), Verdict::Accepted);
    assert_eq!(verify(&mut server, &without_qop(&challenge, Algorithm::Md5, ""), wall()), Verdict::Stale);
    let late = without_qop(&server.challenges(false, wall(), 3)[1], Algorithm::Md5, "");
    assert_eq!(verify(&mut server, &late, wall() + Duration::from_secs(301)), Verdict::Stale);
    let wrong =
        without_qop(&server.challenges(false, wall(), 4)[1], Algorithm::Md5, "").replace("alice", "alicf");
    let credentials = Credentials::parse(&wrong).expect("credentials");
    assert_eq!(server.verify(&credentials, &register(), None, wall()), Verdict::Refused);
}

#[test]
fn credentials_without_qop_are_refused_where_md5_is_not_offered_and_for_other_hashes() {
    let only_sha = ServerSettings { algorithms: vec![Algorithm::Sha256], ..ServerSettings::new(REALM) };
    let mut strict = Server::new(only_sha, [7; 32]);
    let challenge = strict.challenges(false, wall(), 1).remove(0);
    for algorithm in [Algorithm::Md5, Algorithm::Sha256] {
        let value = without_qop(&challenge, algorithm, "");
        assert_eq!(verify(&mut strict, &value, wall()), Verdict::WithoutQop);
    }
    let mut both = server();
    let value = without_qop(&both.challenges(false, wall(), 1)[0], Algorithm::Sha256, "");
    assert_eq!(verify(&mut both, &value, wall()), Verdict::WithoutQop);
    assert_eq!(both.nonces(), 0);
}

#[test]
fn a_count_of_zero_or_a_missing_one_is_no_count() {
    let fault = |more: &str| {
        let value = format!("Digest username=\"u\",realm=\"r\",uri=\"x\",nonce=\"n\",response=\"r\"{more}");
        Credentials::parse(&value).map(|credentials| (credentials.qop, credentials.nc))
    };
    assert_eq!(fault(",cnonce=\"c\",qop=auth,nc=00000000"), Err(DigestFault::ZeroCount));
    assert_eq!(fault(",cnonce=\"c\",nc=00000000"), Err(DigestFault::ZeroCount));
    assert_eq!(fault(",cnonce=\"c\",qop=auth"), Err(DigestFault::Missing("nc")));
    assert_eq!(fault(",qop=auth,nc=00000001"), Err(DigestFault::Missing("cnonce")));
    assert_eq!(fault(",cnonce=\"c\",qop=auth,nc=0000000A"), Ok((Some(Qop::Auth), 10)));
    assert_eq!(fault(",cnonce=\"c\",nc=00000001"), Ok((Some(Qop::Auth), 1)), "RFC 8760 §2.6-8");
    assert_eq!(fault(""), Ok((None, 0)));
}

#[test]
fn sip_au_05_a_count_far_below_the_highest_is_a_replay_for_all_we_know() {
    let mut window = Window { highest: 1, used: 1 };
    assert!(window.take(100) && window.take(37) && !window.take(37) && !window.take(100));
    assert!(!window.take(36), "64 below");
    assert!(window.take(u32::MAX) && !window.take(u32::MAX) && !window.take(100));
}
