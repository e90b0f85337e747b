//! Tokens in our tags and branches: any listener can tell whose a request or response is, with no table.
//!
//! A token says the partition and the row, under a short MAC. It only finds the row: Call-ID, both tags and the
//! sending peer must match too. Whoever cannot make the MAC gets 481 or silence.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// What the row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TokenKind {
    /// A dialog in which we notify.
    Notifier,
    /// A dialog in which we are the subscriber.
    Subscriber,
}

/// Names a row from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token {
    /// What the row is.
    pub kind: TokenKind,
    /// The partition that owns it.
    pub partition: u16,
    /// Its number, never used twice: the process's durable start number and a counter.
    pub row: u64,
}

/// The key that tokens are signed with: 32 random octets, kept over restarts and shared by gateways.
#[derive(Clone)]
pub struct TokenKey(Hmac<Sha256>);

impl TokenKey {
    /// A key from its octets.
    pub fn new(octets: &[u8; 32]) -> Self {
        Self(Hmac::new_from_slice(octets).expect("HMAC takes a key of any length"))
    }

    /// The text of `token`: 24 characters that a tag and a branch may hold.
    pub fn sign(&self, token: Token) -> String {
        token.text(&self.mac(token)).as_str().to_owned()
    }

    /// Reads a text that [`TokenKey::sign`] made; `None` for anything else.
    pub fn verify(&self, text: &str) -> Option<Token> {
        let (token, mac) = Token::read_unverified(text)?;
        (self.mac(token) == mac).then_some(token)
    }

    /// The MAC of `token`, for whoever keeps it to spare the signing and the verifying.
    pub fn mac(&self, token: Token) -> TokenMac {
        let mut mac = self.0.clone();
        mac.update(&token.body());
        let full = mac.finalize().into_bytes();
        let mut short = [0; MAC_BYTES];
        short.copy_from_slice(&full[..MAC_BYTES]);
        TokenMac(short)
    }
}

/// The MAC of a token. Compares in the same time whatever the octets are.
#[derive(Debug, Clone, Copy)]
pub struct TokenMac([u8; MAC_BYTES]);

impl PartialEq for TokenMac {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Token {
    /// The text of this token, given its MAC.
    pub fn text(self, mac: &TokenMac) -> TokenText {
        let mut octets = [0; TOKEN_BYTES];
        octets[..BODY_BYTES].copy_from_slice(&self.body());
        octets[BODY_BYTES..].copy_from_slice(&mac.0);
        TokenText(encode(&octets))
    }

    /// What a text says to be. Whoever acts on it compares the MAC with the token's own.
    pub fn read_unverified(text: &str) -> Option<(Self, TokenMac)> {
        let octets = decode(text)?;
        let (body, mac) = octets.split_at(BODY_BYTES);
        let kind = match body[0] {
            1 => TokenKind::Notifier,
            2 => TokenKind::Subscriber,
            _ => return None,
        };
        let partition = u16::from_be_bytes([body[1], body[2]]);
        let row = u64::from_be_bytes(body[3..].try_into().ok()?);
        Some((Self { kind, partition, row }, TokenMac(mac.try_into().ok()?)))
    }

    fn body(self) -> [u8; BODY_BYTES] {
        let mut body = [0; BODY_BYTES];
        body[0] = match self.kind {
            TokenKind::Notifier => 1,
            TokenKind::Subscriber => 2,
        };
        body[1..3].copy_from_slice(&self.partition.to_be_bytes());
        body[3..].copy_from_slice(&self.row.to_be_bytes());
        body
    }
}

/// The text of a token.
#[derive(Debug, Clone, Copy)]
pub struct TokenText([u8; TOKEN_TEXT_LEN]);

impl TokenText {
    /// As text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("")
    }
}

impl std::fmt::Debug for TokenKey {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("TokenKey")
    }
}

/// Number of characters of a token's text.
pub const TOKEN_TEXT_LEN: usize = TOKEN_BYTES * 4 / 3;

const BODY_BYTES: usize = 11;
const MAC_BYTES: usize = 7;
const TOKEN_BYTES: usize = BODY_BYTES + MAC_BYTES;

/// 64 characters of the SIP `token` production; hosts may compare tags blindly to case, so a token is only compared
/// by us, on text that came back unchanged.
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

fn encode(octets: &[u8; TOKEN_BYTES]) -> [u8; TOKEN_TEXT_LEN] {
    let mut text = [0; TOKEN_TEXT_LEN];
    for (three, four) in octets.chunks_exact(3).zip(text.chunks_exact_mut(4)) {
        let word = u32::from(three[0]) << 16 | u32::from(three[1]) << 8 | u32::from(three[2]);
        four.copy_from_slice(&[18, 12, 6, 0].map(|shift| ALPHABET[(word >> shift & 63) as usize]));
    }
    text
}

fn decode(text: &str) -> Option<[u8; TOKEN_BYTES]> {
    if text.len() != TOKEN_TEXT_LEN {
        return None;
    }
    let mut octets = [0; TOKEN_BYTES];
    for (four, three) in text.as_bytes().chunks_exact(4).zip(octets.chunks_exact_mut(3)) {
        let mut word = 0_u32;
        for byte in four {
            let value = match byte {
                b'A'..=b'Z' => byte - b'A',
                b'a'..=b'z' => byte - b'a' + 26,
                b'0'..=b'9' => byte - b'0' + 52,
                b'-' => 62,
                b'_' => 63,
                _ => return None,
            };
            word = word << 6 | u32::from(value);
        }
        three.copy_from_slice(&word.to_be_bytes()[1..]);
    }
    Some(octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signed_token_comes_back_and_a_changed_one_does_not() {
        let key = TokenKey::new(&[7; 32]);
        for row in [0, 1, u64::MAX, 0x0102_0304_0506_0708] {
            for kind in [TokenKind::Notifier, TokenKind::Subscriber] {
                let token = Token { kind, partition: 4095, row };
                let text = key.sign(token);
                assert_eq!(text.len(), TOKEN_TEXT_LEN);
                assert_eq!(key.verify(&text), Some(token));
                for at in 0..text.len() {
                    let mut changed = text.clone().into_bytes();
                    changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
                    let changed = String::from_utf8(changed).expect("ASCII");
                    assert_eq!(key.verify(&changed), None, "{text} with character {at} changed");
                }
            }
        }
    }

    #[test]
    fn another_key_and_other_texts_are_refused() {
        let token = Token { kind: TokenKind::Notifier, partition: 1, row: 2 };
        let text = TokenKey::new(&[1; 32]).sign(token);
        assert_eq!(TokenKey::new(&[2; 32]).verify(&text), None);
        for text in ["", "a", "é", "%%%%%%%%%%%%%%%%%%%%%%%%", &"A".repeat(24), &"A".repeat(400)] {
            assert_eq!(TokenKey::new(&[1; 32]).verify(text), None, "{text:?}");
        }
    }
}
