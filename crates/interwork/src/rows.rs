//! Rows that are stored: how the shard's durable state is keyed and written.
//!
//! A row is (partition, table, key, value); the partition is that of the local user. Values carry a version in front.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tombolo_presence::{Address, Subscription, SubscriptionKind};

use crate::owner::keys::{PeerKey, PhoneKey};

/// One row to be stored, or deleted when it has no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The partition that owns it.
    pub partition: u16,
    /// Which table.
    pub table: u8,
    /// Its key within partition and table.
    pub key: Vec<u8>,
    /// Its content; `None` deletes it.
    pub value: Option<Vec<u8>>,
}

/// The tables.
pub mod table {
    /// One row a pair of local user and contact.
    pub const PAIR: u8 = 1;
    /// One row a dialog in which we notify.
    pub const NOTIFIER: u8 = 2;
    /// One row a dialog in which we are the subscriber.
    pub const SUBSCRIBER: u8 = 3;
    /// One row a publication.
    pub const PUBLICATION: u8 = 4;
    /// CSeq and expiry of a dialog: written often, in one flush, and kept apart from the others by the store.
    pub const VOLATILE: u8 = 128;
    /// One row a phone that registered: written anew with each of its REGISTERs. No shard's business.
    pub const BINDING: u8 = 129;
    /// All that shards own, in the order in which they are loaded.
    pub const ALL: [u8; 5] = [PAIR, NOTIFIER, SUBSCRIBER, PUBLICATION, VOLATILE];
}

/// What is kept of a pair.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairRow {
    /// Seen from the local user.
    pub subscription: Subscription,
    /// What is still to be said about the user's asking (`subscribe`, `unsubscribe`).
    pub asking: Option<SubscriptionKind>,
    /// What is still to be said about the user's granting (`subscribed`, `unsubscribed`).
    pub granting: Option<SubscriptionKind>,
    /// When the contact asked, in seconds since the Unix epoch; while it waits.
    pub asked_at: Option<u64>,
}

/// What is kept of a dialog in which we notify.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotifierRow {
    /// The local user of the pair.
    pub user: Address,
    /// The contact of the pair.
    pub contact: Address,
    /// The contact watches the user; else the user watches the contact.
    pub watches_user: bool,
    /// By which peer the watcher is reached.
    pub peer: PeerKey,
    /// Call-ID.
    pub call_id: String,
    /// The watcher's tag.
    pub remote_tag: String,
    /// The watcher's URI, as its From named it.
    pub remote_uri: String,
    /// The presentity's URI, as the watcher's To named it.
    pub local_uri: String,
    /// Where requests go.
    pub remote_target: String,
    /// Route header values.
    pub routes: Vec<String>,
    /// The `id` of the Event header.
    pub event_id: Option<String>,
    /// When it ends, in seconds since the Unix epoch.
    pub expires_at: u64,
}

/// What is kept of a dialog in which we are the subscriber.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscriberRow {
    /// The local user who is watched.
    pub user: Address,
    /// The contact who watches.
    pub contact: Address,
    /// The front end.
    pub peer: PeerKey,
    /// Call-ID.
    pub call_id: String,
    /// The notifier's tag.
    pub remote_tag: String,
    /// Where requests go.
    pub remote_target: String,
    /// Route header values.
    pub routes: Vec<String>,
    /// When it ends, in seconds since the Unix epoch.
    pub expires_at: u64,
}

/// What changes often in a dialog.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolatileRow {
    /// The start of the process in which it was stored: numbers are raised once for each start since.
    pub start: u32,
    /// The last CSeq that we used.
    pub local_cseq: u32,
    /// The last CSeq that we saw.
    pub remote_cseq: u32,
    /// When the dialog ends, in seconds since the Unix epoch.
    pub expires_at: u64,
}

/// What is kept of a publication.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicationRow {
    /// The user who published.
    pub user: Address,
    /// Which of the user's publications it is.
    pub number: u32,
    /// The entity tag.
    pub entity_tag: u64,
    /// When it ends, in seconds since the Unix epoch.
    pub expires_at: u64,
    /// The document.
    pub body: Vec<u8>,
    /// Its Content-Language.
    pub lang: Option<String>,
    /// The instance of the phone that published it, as in [`PhoneKey`]. Rows of earlier versions name none.
    pub source: Option<Box<str>>,
}

impl PublicationRow {
    /// Reads a stored form, also one of a version that did not store the source.
    pub fn read(stored: &[u8]) -> Option<Self> {
        decode(stored).or_else(|| {
            let SourcelessPublicationRow { user, number, entity_tag, expires_at, body, lang } =
                decode(stored)?;
            Some(Self { user, number, entity_tag, expires_at, body, lang, source: None })
        })
    }
}

/// A [`PublicationRow`] as earlier versions stored it.
#[derive(Serialize, Deserialize)]
struct SourcelessPublicationRow {
    user: Address,
    number: u32,
    entity_tag: u64,
    expires_at: u64,
    body: Vec<u8>,
    lang: Option<String>,
}

/// What is kept of a phone's registration (RFC 3261 §10.3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindingRow {
    /// The phone.
    pub phone: PhoneKey,
    /// Its Contact URI.
    pub contact: String,
    /// Call-ID of its REGISTER.
    pub call_id: String,
    /// CSeq of its REGISTER.
    pub cseq: u32,
    /// When it runs out, in seconds since the Unix epoch.
    pub expires_at: u64,
    /// It registered by UDP: it is still reached at `remote` when no connection is left.
    pub is_datagram: bool,
    /// Where it registered from.
    pub remote: SocketAddr,
}

/// What is added to a stored CSeq on load: more than one flush interval can use (D-26).
pub const CSEQ_RAISE: u32 = 65_536;

const VERSION: u8 = 1;

/// The key of a pair's row.
pub fn pair_key(user: &Address, contact: &Address) -> Vec<u8> {
    let mut key = Vec::with_capacity(user.as_str().len() + 1 + contact.as_str().len());
    key.extend_from_slice(user.as_str().as_bytes());
    // No address holds NUL, so two pairs never share a key.
    key.push(0);
    key.extend_from_slice(contact.as_str().as_bytes());
    key
}

/// The user and contact of a pair's key.
pub fn pair_of_key(key: &[u8]) -> Option<(Address, Address)> {
    let text = std::str::from_utf8(key).ok()?;
    let (user, contact) = text.split_once('\0')?;
    Some((Address::from_prepared(user).ok()?, Address::from_prepared(contact).ok()?))
}

/// The key of a binding's row.
pub fn binding_key(user: &Address, contact: &str) -> Vec<u8> {
    [user.as_str().as_bytes(), &[0], contact.as_bytes()].concat()
}

/// The key of a dialog's row.
pub fn number_key(row: u64) -> Vec<u8> {
    row.to_be_bytes().to_vec()
}

/// The number in a dialog's key.
pub fn number_of_key(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(key.try_into().ok()?))
}

/// The stored form of a value.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_extend(value, vec![VERSION]).expect("rows hold nothing that cannot be written")
}

/// Reads a stored form; `None` when it is of another version or damaged.
pub fn decode<T: DeserializeOwned>(stored: &[u8]) -> Option<T> {
    let (&VERSION, value) = stored.split_first()? else { return None };
    postcard::from_bytes(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_as_they_were() {
        let row = PairRow {
            subscription: Subscription::FromPendingOut,
            asking: Some(SubscriptionKind::Subscribe),
            granting: None,
            asked_at: Some(1_700_000_000),
        };
        assert_eq!(decode::<PairRow>(&encode(&row)), Some(row));
        let user = Address::from_prepared("a@x").expect("legal");
        let contact = Address::from_prepared("b@y").expect("legal");
        assert_eq!(pair_of_key(&pair_key(&user, &contact)), Some((user, contact)));
        assert_eq!(number_of_key(&number_key(7)), Some(7));
    }

    #[test]
    fn a_publication_stored_before_sources_were_is_read_as_one_of_nobody() {
        let user = Address::from_prepared("a@x").expect("legal");
        let old = SourcelessPublicationRow {
            user: user.clone(),
            number: 3,
            entity_tag: 7,
            expires_at: 1_800_000_000,
            body: b"<presence/>".to_vec(),
            lang: Some("cs".into()),
        };
        let row = PublicationRow {
            user,
            number: 3,
            entity_tag: 7,
            expires_at: 1_800_000_000,
            body: b"<presence/>".to_vec(),
            lang: Some("cs".into()),
            source: None,
        };
        // As the earlier version wrote it, octet by octet.
        let stored = b"\x01\x03a@x\x03\x07\x80\xa4\xa7\xda\x06\x0b<presence/>\x01\x02cs";
        assert_eq!(encode(&old), stored);
        assert_eq!(PublicationRow::read(stored), Some(row.clone()));
        let named = PublicationRow { source: Some("desk".into()), ..row };
        assert_eq!(PublicationRow::read(&encode(&named)), Some(named));
        assert_eq!(PublicationRow::read(&stored[..stored.len() - 1]), None);
    }

    #[test]
    fn a_row_whose_address_would_be_written_otherwise_today_still_opens() {
        // Nodeprep folded `ß`, and let through what PRECIS refuses.
        for contact in ["fussball@y", "a\u{640}b@y", "௰@y"] {
            let key = [&b"a@x"[..], &[0], contact.as_bytes()].concat();
            let (user, found) = pair_of_key(&key).expect("a pair");
            assert_eq!((user.as_str(), found.as_str()), ("a@x", contact));
            assert_eq!(pair_key(&user, &found), key);
        }
    }

    #[test]
    fn damaged_rows_are_refused() {
        for stored in [&b""[..], &[0], &[2, 1, 1], &[VERSION], &[VERSION, 99]] {
            assert_eq!(decode::<PairRow>(stored), None, "{stored:?}");
        }
        assert_eq!(pair_of_key(b"no separator"), None);
        assert_eq!(number_of_key(b"short"), None);
    }
}
