//! The rules as a table: every kind of partner, direction, capability and account.

use tombolo_policy::{
    Approve::{self, All, Ask},
    Capability::{self, Message, Watch},
    Denied, Detail,
    Direction::{self, Inbound, Outbound},
    FrontEnd, Home, LocalDomain, Outcome, Partner, PartnerKind, Permitted, Question, Rule, Table, Verdict,
};
use tombolo_presence::{Address, Domain};

const KINDS: [PartnerKind; 3] =
    [PartnerKind::Federated, PartnerKind::PublicVerified, PartnerKind::PublicUnverified];
const APPROVALS: [Approve; 3] = [Approve::Ask, Approve::Partner, Approve::All];

fn domain(name: &str) -> Domain {
    Domain::from_prepared(name).expect("legal")
}

fn address(text: &str) -> Address {
    Address::from_prepared(text).expect("legal")
}

fn front_end() -> Home {
    let next_hop = "sip:pool.corp.example:5061;transport=tls".parse().expect("legal");
    Home::FrontEnd(FrontEnd { next_hop, insecure: false, trusted_addresses: Vec::new() })
}

/// `sip.example` has a built-in home, `corp.example` a front end; each kind of partner has its domain.
fn table() -> Table {
    let local = vec![
        LocalDomain { name: domain("sip.example"), home: Home::BuiltIn },
        LocalDomain { name: domain("other-sip.example"), home: Home::BuiltIn },
        LocalDomain { name: domain("corp.example"), home: front_end() },
    ];
    let mut partners: Vec<Partner> = KINDS
        .iter()
        .map(|kind| Partner { kind: *kind, ..Partner::new(domain(&format!("{}.example", kind.as_str()))) })
        .collect();
    let federated = |name| Partner { kind: PartnerKind::Federated, ..Partner::new(domain(name)) };
    partners.push(Partner { direction: Permitted::Inbound, ..federated("inbound.example") });
    partners.push(Partner { direction: Permitted::Outbound, ..federated("outbound.example") });
    partners.push(Partner { detail: Detail::None, ..federated("blind.example") });
    Table::new(7, local, partners).expect("no conflict")
}

struct Asked {
    local: &'static str,
    remote: String,
    direction: Direction,
    capability: Capability,
    has_relation: bool,
    approve: Approve,
}

impl Asked {
    fn new(local: &'static str, remote: &str, direction: Direction, capability: Capability) -> Self {
        Self {
            local,
            remote: format!("juliet@{remote}"),
            direction,
            capability,
            has_relation: false,
            approve: Ask,
        }
    }

    fn verdict(&self) -> Verdict {
        let (local, remote) = (address(self.local), address(&self.remote));
        let question = Question {
            local: &local,
            remote: &remote,
            direction: self.direction,
            capability: self.capability,
            has_relation: self.has_relation,
            approve: self.approve,
        };
        let verdict = table().decide(&question);
        let told = table().explain(&question);
        let last = told.steps.last().expect("one rule at least");
        assert_eq!((last.rule, last.decided), (verdict.rule, true), "explain ends where decide does");
        assert_eq!(told.steps.iter().filter(|step| step.decided).count(), 1);
        assert_eq!((told.detail, told.generation), (verdict.detail, 7));
        assert_eq!(told.denied.is_some(), matches!(verdict.outcome, Outcome::Deny(_)));
        verdict
    }
}

fn of(kind: PartnerKind) -> String {
    format!("{}.example", kind.as_str())
}

#[test]
fn an_unserved_domain_is_refused_both_ways() {
    for direction in [Inbound, Outbound] {
        for capability in [Watch, Message] {
            let verdict =
                Asked::new("romeo@unserved.example", "federated.example", direction, capability).verdict();
            let denied = Denied::NotServed { domain: domain("unserved.example") };
            assert_eq!((verdict.outcome, verdict.rule), (Outcome::Deny(denied), Rule::LocalDomainServed));
            assert_eq!(verdict.detail, Detail::None);
        }
    }
}

#[test]
fn nothing_is_relayed_between_two_partners() {
    let verdict = Asked::new("romeo@federated.example", "inbound.example", Inbound, Message).verdict();
    let denied = Denied::Relay { from: domain("inbound.example"), to: domain("federated.example") };
    assert_eq!(verdict.outcome, Outcome::Deny(denied));
}

#[test]
fn a_partner_that_is_not_configured_is_denied_by_name_both_ways() {
    for direction in [Inbound, Outbound] {
        for capability in [Watch, Message] {
            let verdict = Asked::new("romeo@sip.example", "nobody.example", direction, capability).verdict();
            let denied = Denied::NotConfigured { domain: domain("nobody.example") };
            assert!(denied.to_string().contains("nobody.example"));
            assert_eq!((verdict.outcome, verdict.rule), (Outcome::Deny(denied), Rule::PartnerConfigured));
        }
    }
}

#[test]
fn a_watcher_is_granted_without_asking_only_by_account_within_the_ceiling_of_the_kind() {
    for kind in KINDS {
        for approve in APPROVALS {
            for has_relation in [false, true] {
                let asked = Asked {
                    approve,
                    has_relation,
                    ..Asked::new("romeo@sip.example", &of(kind), Inbound, Watch)
                };
                let is_granted = kind != PartnerKind::PublicUnverified && approve != Ask;
                let expected = if is_granted { Outcome::Allow } else { Outcome::AskTheUser };
                assert_eq!(asked.verdict().outcome, expected, "{kind:?} {approve:?} {has_relation}");
            }
        }
    }
}

#[test]
fn a_message_from_an_unverified_partner_needs_a_relation_and_others_do_not() {
    for local in ["romeo@sip.example", "romeo@corp.example"] {
        for kind in KINDS {
            for has_relation in [false, true] {
                let asked =
                    Asked { has_relation, approve: All, ..Asked::new(local, &of(kind), Inbound, Message) };
                let is_refused = kind == PartnerKind::PublicUnverified && !has_relation;
                let outcome = asked.verdict().outcome;
                let expected = if is_refused {
                    Outcome::Deny(Denied::NoRelation { partner: domain(&of(kind)) })
                } else {
                    Outcome::Allow
                };
                assert_eq!(outcome, expected, "{local} {kind:?} {has_relation}");
            }
        }
    }
}

#[test]
fn only_a_federated_partner_sees_notes() {
    for kind in KINDS {
        let expected = if kind == PartnerKind::Federated { Detail::Full } else { Detail::NoNote };
        assert_eq!(
            Asked::new("romeo@sip.example", &of(kind), Inbound, Watch).verdict().detail,
            expected,
            "{kind:?}"
        );
    }
}

#[test]
fn behind_a_front_end_its_notifier_decides_within_the_ceiling() {
    for (kind, has_relation, outcome, rule) in [
        (PartnerKind::Federated, false, Outcome::Allow, Rule::FrontEndDecides),
        (PartnerKind::PublicVerified, false, Outcome::Allow, Rule::FrontEndDecides),
        (PartnerKind::PublicUnverified, true, Outcome::Allow, Rule::FrontEndDecides),
        (PartnerKind::PublicUnverified, false, Outcome::AskTheUser, Rule::UnverifiedAlwaysAsks),
    ] {
        let asked = Asked { has_relation, ..Asked::new("romeo@corp.example", &of(kind), Inbound, Watch) };
        let verdict = asked.verdict();
        assert_eq!((verdict.outcome, verdict.rule), (outcome, rule), "{kind:?} {has_relation}");
    }
}

#[test]
fn our_users_may_watch_and_write_to_every_configured_partner() {
    for kind in KINDS {
        for capability in [Watch, Message] {
            let verdict = Asked::new("romeo@sip.example", &of(kind), Outbound, capability).verdict();
            assert_eq!((verdict.outcome, verdict.rule), (Outcome::Allow, Rule::OtherSideDecides), "{kind:?}");
        }
    }
}

#[test]
fn a_closed_direction_is_refused_and_the_open_one_is_not() {
    for (partner, open, closed) in
        [("inbound.example", Inbound, Outbound), ("outbound.example", Outbound, Inbound)]
    {
        for capability in [Watch, Message] {
            let verdict = Asked::new("romeo@sip.example", partner, closed, capability).verdict();
            assert!(
                matches!(verdict.outcome, Outcome::Deny(Denied::DirectionClosed { .. })),
                "{partner} {capability:?}"
            );
            let verdict = Asked::new("romeo@sip.example", partner, open, capability).verdict();
            assert!(!matches!(verdict.outcome, Outcome::Deny(_)), "{partner} {capability:?}");
        }
    }
}

#[test]
fn detail_none_refuses_watchers_and_lets_messages_pass() {
    let verdict = Asked::new("romeo@sip.example", "blind.example", Inbound, Watch).verdict();
    assert_eq!(verdict.outcome, Outcome::Deny(Denied::NothingShown { partner: domain("blind.example") }));
    let verdict = Asked::new("romeo@sip.example", "blind.example", Inbound, Message).verdict();
    assert_eq!(verdict.outcome, Outcome::Allow);
}

#[test]
fn between_local_users_only_built_in_homes_are_joined() {
    for (local, remote, is_joined) in [
        ("romeo@sip.example", "sip.example", true),
        ("romeo@sip.example", "other-sip.example", true),
        ("romeo@sip.example", "corp.example", false),
        ("romeo@corp.example", "sip.example", false),
        ("romeo@corp.example", "corp.example", false),
    ] {
        let verdict = Asked::new(local, remote, Inbound, Message).verdict();
        if is_joined {
            assert_eq!((verdict.outcome, verdict.detail), (Outcome::Allow, Detail::Full), "{local} {remote}");
        } else {
            let Outcome::Deny(denied @ Denied::HomesNotJoined { .. }) = verdict.outcome else {
                panic!("{local} {remote}: {:?}", verdict.outcome)
            };
            assert!(
                denied.to_string().contains("home = { kind = \"built-in\" }"),
                "names the setting: {denied}"
            );
        }
    }
}

#[test]
fn a_local_watcher_is_granted_only_by_approve_all() {
    for approve in APPROVALS {
        let asked = Asked { approve, ..Asked::new("romeo@sip.example", "sip.example", Inbound, Watch) };
        let expected = if approve == All { Outcome::Allow } else { Outcome::AskTheUser };
        assert_eq!(asked.verdict().outcome, expected, "{approve:?}");
    }
}

#[test]
fn an_explanation_lists_every_rule_up_to_the_one_that_decided() {
    let (local, remote) = (address("romeo@sip.example"), address("juliet@public-unverified.example"));
    let told = table().explain(&Question {
        local: &local,
        remote: &remote,
        direction: Inbound,
        capability: Watch,
        has_relation: true,
        approve: All,
    });
    let rules: Vec<Rule> = told.steps.iter().map(|step| step.rule).collect();
    assert_eq!(
        rules,
        [
            Rule::LocalDomainServed,
            Rule::PartnerConfigured,
            Rule::DirectionOpen,
            Rule::DetailShown,
            Rule::UnverifiedAlwaysAsks
        ]
    );
    assert_eq!((told.outcome, told.partner.as_deref()), ("ask", Some("public-unverified.example")));
}

/// Every question of the matrix: a condition that is shown as true or false is so, and the deciding one says how.
#[test]
fn an_explanation_says_of_each_rule_whether_it_holds() {
    let table = table();
    let explain = |local: &str, remote: &str, direction, capability, approve| {
        let (local, remote) = (address(local), address(remote));
        let question =
            Question { local: &local, remote: &remote, direction, capability, has_relation: false, approve };
        table.explain(&question)
    };
    let lines = |told: &tombolo_policy::Explanation| -> Vec<String> {
        told.steps.iter().map(|step| format!("{} {}", step.holds, step.text)).collect()
    };
    let unknown = explain("romeo@sip.example", "x@unknown.example", Inbound, Watch, Ask);
    assert_eq!(
        lines(&unknown),
        [
            "true the local domain is one of the [[domain]] entries",
            "false no [[partner]] entry names unknown.example",
        ]
    );
    let unserved = explain("romeo@elsewhere.example", "x@federated.example", Inbound, Watch, Ask);
    assert_eq!(lines(&unserved), ["false elsewhere.example is not served here"]);
    let asks = explain("romeo@sip.example", "juliet@federated.example", Inbound, Watch, Ask);
    assert_eq!(
        lines(&asks)[3..],
        [
            "true the partner's detail is not \"none\"",
            "false the partner is public-unverified",
            "false the user lives behind a front end, which decides",
            "false the account's approve grants it without asking",
            "true the account's approve is \"ask\", so the user is asked",
        ]
    );
    let granted = explain("romeo@sip.example", "juliet@federated.example", Inbound, Watch, All);
    assert_eq!(lines(&granted).last().expect("one"), "true the account's approve grants it without asking");
    let unverified = explain("romeo@sip.example", "juliet@public-unverified.example", Inbound, Message, All);
    let last = unverified.steps.last().expect("one");
    assert!(last.holds && last.text.contains("did not ask for this contact"), "{last:?}");
}
