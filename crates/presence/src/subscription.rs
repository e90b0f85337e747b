//! The nine subscription states and their tables (RFC 6121 appendix A), seen from our local user.

use serde::{Deserialize, Serialize};

/// What a local user and one contact agreed on, seen from the local user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Subscription {
    /// N: nothing.
    #[default]
    None,
    /// N+PO: the user asked, the contact has not answered.
    NonePendingOut,
    /// N+PI: the contact asked, the user has not answered.
    NonePendingIn,
    /// N+POI: both asked, nobody answered.
    NonePendingOutIn,
    /// T: the user sees the contact.
    To,
    /// T+PI: the user sees the contact, the contact asked too.
    ToPendingIn,
    /// F: the contact sees the user.
    From,
    /// F+PO: the contact sees the user, the user asked too.
    FromPendingOut,
    /// B: both see each other.
    Both,
}

/// The four presence types that manage a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SubscriptionKind {
    /// Asks to see the receiver's presence.
    Subscribe,
    /// Gives up seeing it.
    Unsubscribe,
    /// Grants.
    Subscribed,
    /// Refuses, or takes a grant back.
    Unsubscribed,
}

/// What one subscription stanza does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// The state afterwards.
    pub next: Subscription,
    /// Outbound: the stanza is routed. Inbound: it is delivered, that is, has its effect on the SIP side.
    pub forward: bool,
    /// What is answered at once, without asking anybody.
    pub reply: Option<SubscriptionKind>,
}

impl Subscription {
    /// The local user sees the contact (T, T+PI, B).
    pub fn is_to(self) -> bool {
        matches!(self, Self::To | Self::ToPendingIn | Self::Both)
    }

    /// The contact sees the local user (F, F+PO, B).
    pub fn is_from(self) -> bool {
        matches!(self, Self::From | Self::FromPendingOut | Self::Both)
    }

    /// The local user asked and waits.
    pub fn is_pending_out(self) -> bool {
        matches!(self, Self::NonePendingOut | Self::NonePendingOutIn | Self::FromPendingOut)
    }

    /// The contact asked and waits.
    pub fn is_pending_in(self) -> bool {
        matches!(self, Self::NonePendingIn | Self::NonePendingOutIn | Self::ToPendingIn)
    }

    /// What the local user sends (tables of RFC 6121 §A.2).
    pub fn outbound(self, kind: SubscriptionKind) -> Step {
        use Subscription::*;
        use SubscriptionKind as Kind;
        let (next, forward) = match (kind, self) {
            // §A.2.1: always routed.
            (Kind::Subscribe, None) => (NonePendingOut, true),
            (Kind::Subscribe, NonePendingIn) => (NonePendingOutIn, true),
            (Kind::Subscribe, From) => (FromPendingOut, true),
            (Kind::Subscribe, same) => (same, true),
            // §A.2.2: always routed.
            (Kind::Unsubscribe, NonePendingOut) => (None, true),
            (Kind::Unsubscribe, NonePendingOutIn) => (NonePendingIn, true),
            (Kind::Unsubscribe, To) => (None, true),
            (Kind::Unsubscribe, ToPendingIn) => (NonePendingIn, true),
            (Kind::Unsubscribe, FromPendingOut) => (From, true),
            (Kind::Unsubscribe, Both) => (From, true),
            (Kind::Unsubscribe, same) => (same, true),
            // §A.2.3: routed only as the answer to a request.
            (Kind::Subscribed, NonePendingIn) => (From, true),
            (Kind::Subscribed, NonePendingOutIn) => (FromPendingOut, true),
            (Kind::Subscribed, ToPendingIn) => (Both, true),
            (Kind::Subscribed, same) => (same, false),
            // §A.2.4: routed when it refuses or takes back.
            (Kind::Unsubscribed, NonePendingIn) => (None, true),
            (Kind::Unsubscribed, NonePendingOutIn) => (NonePendingOut, true),
            (Kind::Unsubscribed, ToPendingIn) => (To, true),
            (Kind::Unsubscribed, From) => (None, true),
            (Kind::Unsubscribed, FromPendingOut) => (NonePendingOut, true),
            (Kind::Unsubscribed, Both) => (To, true),
            (Kind::Unsubscribed, same) => (same, false),
        };
        Step { next, forward, reply: Option::None }
    }

    /// What the contact sends (tables of RFC 6121 §A.3).
    pub fn inbound(self, kind: SubscriptionKind) -> Step {
        use Subscription::*;
        use SubscriptionKind as Kind;
        let (next, forward, reply) = match (kind, self) {
            // §A.3.1: a request that already waits is not delivered again; one that was granted is answered for the user.
            (Kind::Subscribe, None) => (NonePendingIn, true, Option::None),
            (Kind::Subscribe, NonePendingOut) => (NonePendingOutIn, true, Option::None),
            (Kind::Subscribe, To) => (ToPendingIn, true, Option::None),
            (Kind::Subscribe, same @ (NonePendingIn | NonePendingOutIn | ToPendingIn)) => {
                (same, false, Option::None)
            }
            (Kind::Subscribe, same) => (same, false, Some(Kind::Subscribed)),
            // §A.3.2
            (Kind::Unsubscribe, NonePendingIn) => (None, true, Some(Kind::Unsubscribed)),
            (Kind::Unsubscribe, NonePendingOutIn) => (NonePendingOut, true, Some(Kind::Unsubscribed)),
            (Kind::Unsubscribe, ToPendingIn) => (To, true, Some(Kind::Unsubscribed)),
            (Kind::Unsubscribe, From) => (None, true, Some(Kind::Unsubscribed)),
            (Kind::Unsubscribe, FromPendingOut) => (NonePendingOut, true, Some(Kind::Unsubscribed)),
            (Kind::Unsubscribe, Both) => (To, true, Some(Kind::Unsubscribed)),
            (Kind::Unsubscribe, same) => (same, false, Option::None),
            // §A.3.3: only the answer to a request grants anything.
            (Kind::Subscribed, NonePendingOut) => (To, true, Option::None),
            (Kind::Subscribed, NonePendingOutIn) => (ToPendingIn, true, Option::None),
            (Kind::Subscribed, FromPendingOut) => (Both, true, Option::None),
            (Kind::Subscribed, same) => (same, false, Option::None),
            // §A.3.4
            (Kind::Unsubscribed, NonePendingOut) => (None, true, Option::None),
            (Kind::Unsubscribed, NonePendingOutIn) => (NonePendingIn, true, Option::None),
            (Kind::Unsubscribed, To) => (None, true, Option::None),
            (Kind::Unsubscribed, ToPendingIn) => (NonePendingIn, true, Option::None),
            (Kind::Unsubscribed, FromPendingOut) => (From, true, Option::None),
            (Kind::Unsubscribed, Both) => (From, true, Option::None),
            (Kind::Unsubscribed, same) => (same, false, Option::None),
        };
        Step { next, forward, reply }
    }
}

#[cfg(test)]
mod tests {
    use super::{Subscription::*, SubscriptionKind as Kind, *};

    const ALL: [Subscription; 9] =
        [None, NonePendingOut, NonePendingIn, NonePendingOutIn, To, ToPendingIn, From, FromPendingOut, Both];

    /// Rows: the state after the stanza, for each state of `ALL`, and whether it is forwarded; `r` is an automatic reply.
    fn check(step: impl Fn(Subscription) -> Step, rows: [(Subscription, bool, Option<Kind>); 9]) {
        for (before, (next, forward, reply)) in ALL.into_iter().zip(rows) {
            assert_eq!(step(before), Step { next, forward, reply }, "from {before:?}");
        }
    }

    fn plain(rows: [(Subscription, bool); 9]) -> [(Subscription, bool, Option<Kind>); 9] {
        rows.map(|(next, forward)| (next, forward, Option::None))
    }

    #[test]
    fn xp_01_outbound_subscribe() {
        let rows = [
            NonePendingOut,
            NonePendingOut,
            NonePendingOutIn,
            NonePendingOutIn,
            To,
            ToPendingIn,
            FromPendingOut,
            FromPendingOut,
            Both,
        ];
        check(|s| s.outbound(Kind::Subscribe), plain(rows.map(|next| (next, true))));
    }

    #[test]
    fn xp_02_outbound_unsubscribe() {
        let rows = [None, None, NonePendingIn, NonePendingIn, None, NonePendingIn, From, From, From];
        check(|s| s.outbound(Kind::Unsubscribe), plain(rows.map(|next| (next, true))));
    }

    #[test]
    fn xp_03_outbound_subscribed() {
        check(
            |s| s.outbound(Kind::Subscribed),
            plain([
                (None, false),
                (NonePendingOut, false),
                (From, true),
                (FromPendingOut, true),
                (To, false),
                (Both, true),
                (From, false),
                (FromPendingOut, false),
                (Both, false),
            ]),
        );
    }

    #[test]
    fn xp_04_outbound_unsubscribed() {
        check(
            |s| s.outbound(Kind::Unsubscribed),
            plain([
                (None, false),
                (NonePendingOut, false),
                (None, true),
                (NonePendingOut, true),
                (To, false),
                (To, true),
                (None, true),
                (NonePendingOut, true),
                (To, true),
            ]),
        );
    }

    #[test]
    fn xp_05_inbound_subscribe() {
        let yes = Some(Kind::Subscribed);
        check(
            |s| s.inbound(Kind::Subscribe),
            [
                (NonePendingIn, true, Option::None),
                (NonePendingOutIn, true, Option::None),
                (NonePendingIn, false, Option::None),
                (NonePendingOutIn, false, Option::None),
                (ToPendingIn, true, Option::None),
                (ToPendingIn, false, Option::None),
                (From, false, yes),
                (FromPendingOut, false, yes),
                (Both, false, yes),
            ],
        );
    }

    #[test]
    fn xp_06_inbound_unsubscribe() {
        let gone = Some(Kind::Unsubscribed);
        check(
            |s| s.inbound(Kind::Unsubscribe),
            [
                (None, false, Option::None),
                (NonePendingOut, false, Option::None),
                (None, true, gone),
                (NonePendingOut, true, gone),
                (To, false, Option::None),
                (To, true, gone),
                (None, true, gone),
                (NonePendingOut, true, gone),
                (To, true, gone),
            ],
        );
    }

    #[test]
    fn xp_07_inbound_subscribed() {
        check(
            |s| s.inbound(Kind::Subscribed),
            plain([
                (None, false),
                (To, true),
                (NonePendingIn, false),
                (ToPendingIn, true),
                (To, false),
                (ToPendingIn, false),
                (From, false),
                (Both, true),
                (Both, false),
            ]),
        );
    }

    #[test]
    fn xp_08_inbound_unsubscribed() {
        check(
            |s| s.inbound(Kind::Unsubscribed),
            plain([
                (None, false),
                (None, true),
                (NonePendingIn, false),
                (NonePendingIn, true),
                (None, true),
                (NonePendingIn, true),
                (From, false),
                (From, true),
                (From, true),
            ]),
        );
    }
}
