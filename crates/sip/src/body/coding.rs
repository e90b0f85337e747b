//! Unpacking the octets of a part: Content-Encoding (RFC 3261 §20.12) and Content-Transfer-Encoding (RFC 2045 §6).
//!
//! Octets and a budget go in, octets come out, at most as many as the budget allows.

use std::{borrow::Cow, io::Read as _};

use base64::{
    Engine as _,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use flate2::{Decompress, FlushDecompress, Status, bufread::MultiGzDecoder};

use super::{BodyFault, MAX_INFLATED, MAX_RATIO, part::Part};

/// Undoes what was done to a part's content. What it makes is taken from `budget`.
pub(super) fn unpack<'a>(part: &Part<'a>, budget: &mut usize) -> Result<Cow<'a, [u8]>, BodyFault> {
    let mut octets = Cow::Borrowed(part.octets);
    if let Some(encoding) = part.transfer_encoding.as_deref()
        && let Some(decoded) = undo_transfer_encoding(&octets, encoding)?
    {
        octets = Cow::Owned(pay(decoded, budget)?);
    }
    let is_packed = |coding: &&Cow<'_, str>| !coding.is_empty() && !coding.eq_ignore_ascii_case("identity");
    if part.codings.iter().filter(is_packed).count() > MAX_CODINGS {
        return Err(BodyFault::TooBig("a body that was packed again and again"));
    }
    // They are listed in the order in which they were applied.
    for coding in part.codings.iter().filter(is_packed).rev() {
        let limit = MAX_INFLATED.min(*budget).min((octets.len() * MAX_RATIO).max(ANY_RATIO_BYTES));
        let is = |name: &str| coding.eq_ignore_ascii_case(name);
        let inflated = if is("gzip") || is("x-gzip") {
            inflate_gzip(&octets, limit)?
        } else if is("deflate") {
            inflate(&octets, limit)?
        } else {
            return Err(BodyFault::Unsupported("a content coding that is not read"));
        };
        octets = Cow::Owned(pay(inflated, budget)?);
    }
    Ok(octets)
}

fn pay(octets: Vec<u8>, budget: &mut usize) -> Result<Vec<u8>, BodyFault> {
    *budget = budget.checked_sub(octets.len()).ok_or(TOO_LONG)?;
    Ok(octets)
}

/// `deflate` is the zlib format (RFC 9110 §8.4.1.2), but some senders leave its header out.
fn inflate(octets: &[u8], limit: usize) -> Result<Vec<u8>, BodyFault> {
    let has_header = matches!(octets, [first, second, ..]
        if first & 0xf == 8 && u16::from_be_bytes([*first, *second]) % 31 == 0);
    let mut machine = Decompress::new(has_header);
    let mut out = Vec::with_capacity(octets.len().saturating_mul(4).min(limit) + 1);
    loop {
        let read = usize::try_from(machine.total_in()).unwrap_or(octets.len());
        let before = (read, out.len());
        let status = machine
            .decompress_vec(&octets[read..], &mut out, FlushDecompress::None)
            .map_err(|_| NOT_PACKED)?;
        if out.len() > limit {
            return Err(TOO_LONG);
        }
        if status == Status::StreamEnd {
            let is_whole = usize::try_from(machine.total_in()) == Ok(octets.len());
            return if is_whole { Ok(out) } else { Err(NOT_PACKED) };
        }
        if out.len() == out.capacity() {
            out.reserve_exact(out.len().max(1024).min(limit + 1 - out.len()));
        } else if (usize::try_from(machine.total_in()).unwrap_or(octets.len()), out.len()) == before {
            // Cut off: there is room, and nothing more to read.
            return Err(NOT_PACKED);
        }
    }
}

/// All members, one behind the other (RFC 1952 §2.2); anything else behind one is refused.
fn inflate_gzip(octets: &[u8], limit: usize) -> Result<Vec<u8>, BodyFault> {
    let mut out = Vec::new();
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    MultiGzDecoder::new(octets).take(most).read_to_end(&mut out).map_err(|_| NOT_PACKED)?;
    if out.len() > limit { Err(TOO_LONG) } else { Ok(out) }
}

/// `None` where nothing was done.
fn undo_transfer_encoding(octets: &[u8], encoding: &str) -> Result<Option<Vec<u8>>, BodyFault> {
    let is = |name: &str| encoding.trim().eq_ignore_ascii_case(name);
    if ["", "7bit", "8bit", "binary"].iter().any(|name| is(name)) {
        return Ok(None);
    }
    if is("base64") {
        // RFC 2045 §6.8: what is not in the alphabet is skipped; line ends are all that is met.
        let digits: Vec<u8> = octets.iter().copied().filter(|octet| !octet.is_ascii_whitespace()).collect();
        return BASE64.decode(digits).map(Some).map_err(|_| BodyFault::Malformed("base64 that is none"));
    }
    if is("quoted-printable") {
        return Ok(Some(undo_quoted_printable(octets)));
    }
    Err(BodyFault::Unsupported("a transfer encoding that is not read"))
}

/// RFC 2045 §6.7, and as it recommends what is no escape stays as it is.
fn undo_quoted_printable(octets: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(octets.len());
    let mut lines = octets.split_inclusive(|octet| *octet == b'\n');
    for line in &mut lines {
        let content = line.trim_ascii_end();
        let end = if line.ends_with(b"\r\n") {
            &b"\r\n"[..]
        } else if line.ends_with(b"\n") {
            &b"\n"[..]
        } else {
            b""
        };
        // White space at the end of a line was put there on the way.
        let (content, end) = match content.strip_suffix(b"=") {
            Some(content) => (content, &b""[..]),
            None => (content, end),
        };
        let mut rest = content;
        while let Some((&first, after)) = rest.split_first() {
            let escaped = match (first, after) {
                (b'=', [high, low, ..]) => hex(*high).zip(hex(*low)).map(|(high, low)| high << 4 | low),
                _ => None,
            };
            out.push(escaped.unwrap_or(first));
            rest = if escaped.is_some() { &after[2..] } else { after };
        }
        out.extend_from_slice(end);
    }
    out
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);
const TOO_LONG: BodyFault = BodyFault::TooBig("a body that is too long when it is unpacked");
const NOT_PACKED: BodyFault = BodyFault::Malformed("a body that is not packed as it says");
/// Codings one over another.
const MAX_CODINGS: usize = 2;
/// Up to here any ratio will do: a short text of one letter packs well.
const ANY_RATIO_BYTES: usize = 4096;

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::{Compression, write};

    use super::{super::MAX_DECODED, *};

    fn unpacked(
        codings: &[&'static str],
        transfer: &'static str,
        octets: &[u8],
    ) -> Result<Vec<u8>, BodyFault> {
        let part = Part {
            codings: codings.iter().map(|coding| Cow::Borrowed(*coding)).collect(),
            transfer_encoding: (!transfer.is_empty()).then_some(transfer.into()),
            octets,
            ..Part::default()
        };
        let mut budget = MAX_DECODED;
        unpack(&part, &mut budget).map(Cow::into_owned)
    }

    fn zlib(octets: &[u8]) -> Vec<u8> {
        let mut writer = write::ZlibEncoder::new(Vec::new(), Compression::best());
        writer.write_all(octets).and_then(|()| writer.finish()).expect("memory takes everything")
    }

    fn raw(octets: &[u8]) -> Vec<u8> {
        let mut writer = write::DeflateEncoder::new(Vec::new(), Compression::best());
        writer.write_all(octets).and_then(|()| writer.finish()).expect("memory takes everything")
    }

    fn gzip(octets: &[u8]) -> Vec<u8> {
        let mut writer = write::GzEncoder::new(Vec::new(), Compression::best());
        writer.write_all(octets).and_then(|()| writer.finish()).expect("memory takes everything")
    }

    fn varied(len: usize) -> Vec<u8> {
        let mut state = 1_u32;
        let next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        std::iter::repeat_with(next).take(len).collect()
    }

    #[test]
    fn deflate_with_and_without_its_header_and_gzip_are_read() {
        for text in [&b""[..], b"hello", &varied(60_000)] {
            assert_eq!(unpacked(&["deflate"], "", &zlib(text)).as_deref(), Ok(text));
            assert_eq!(unpacked(&["Deflate"], "", &raw(text)).as_deref(), Ok(text));
            assert_eq!(unpacked(&["gzip"], "", &gzip(text)).as_deref(), Ok(text));
            assert_eq!(unpacked(&["x-gzip", "identity"], "", &gzip(text)).as_deref(), Ok(text));
            assert_eq!(unpacked(&["gzip", "deflate"], "", &zlib(&gzip(text))).as_deref(), Ok(text));
        }
        assert_eq!(unpacked(&["identity", ""], "", b"x").as_deref(), Ok(&b"x"[..]));
        for coding in ["br", "compress", "zstd", "x"] {
            assert!(matches!(unpacked(&[coding], "", b"x"), Err(BodyFault::Unsupported(_))), "{coding}");
        }
    }

    #[test]
    fn what_is_cut_off_or_not_packed_is_refused() {
        let long = varied(5000);
        for (coding, packed) in [("deflate", zlib(&long)), ("deflate", raw(&long)), ("gzip", gzip(&long))] {
            for cut in [0, 1, 2, 9, packed.len() / 2, packed.len() - 1] {
                let refused = unpacked(&[coding], "", &packed[..cut]);
                assert!(
                    matches!(refused, Err(BodyFault::Malformed(_))),
                    "{coding} cut at {cut}: {refused:?}"
                );
            }
        }
        for coding in ["deflate", "gzip"] {
            assert!(matches!(unpacked(&[coding], "", b"hello, plain"), Err(BodyFault::Malformed(_))));
        }
    }

    #[test]
    fn all_members_of_a_gzip_body_are_read_and_nothing_else_may_stand_behind() {
        let members = [gzip(b"one "), gzip(b""), gzip(b"two")].concat();
        assert_eq!(unpacked(&["gzip"], "", &members).as_deref(), Ok(&b"one two"[..]));
        for junk in [&b"junk"[..], b"\0", b"\x1f\x8b", &gzip(b"cut")[..15]] {
            for packed in [gzip(b"text"), members.clone(), zlib(b"text"), raw(b"text")] {
                let coding = if packed.starts_with(b"\x1f\x8b") { "gzip" } else { "deflate" };
                let refused = unpacked(&[coding], "", &[&packed[..], junk].concat());
                assert_eq!(refused, Err(NOT_PACKED), "{coding} and {junk:?}");
            }
        }
        assert_eq!(
            unpacked(&["gzip"], "", &gzip(&[b'a'; 60_000]).repeat(9)),
            Err(TOO_LONG),
            "their sum counts"
        );
    }

    #[test]
    fn a_body_that_grows_without_measure_is_refused_before_it_has_grown() {
        let bomb = vec![b'a'; 50 << 20];
        for (coding, packed) in [("deflate", zlib(&bomb)), ("deflate", raw(&bomb)), ("gzip", gzip(&bomb))] {
            assert!(packed.len() < 64 << 10);
            assert_eq!(unpacked(&[coding], "", &packed), Err(TOO_LONG), "{coding}");
        }
        // By its ratio, though it is short.
        assert_eq!(unpacked(&["deflate"], "", &zlib(&[b'a'; 60_000])), Err(TOO_LONG));
        assert_eq!(unpacked(&["deflate"], "", &zlib(&[b'a'; 4096])).map(|text| text.len()), Ok(4096));
        let twice = zlib(&zlib(&bomb));
        assert_eq!(unpacked(&["deflate", "deflate"], "", &twice), Err(TOO_LONG));
        assert!(matches!(unpacked(&["gzip"; 3], "", b""), Err(BodyFault::TooBig(_))));
    }

    #[test]
    fn transfer_encodings_are_undone() {
        for (encoding, text, expected) in [
            ("base64", "aGVs\r\nbG8=", "hello"),
            ("BASE64", "aGVsbG8", "hello"),
            ("8bit", "hello", "hello"),
            ("binary", "=68", "=68"),
            (
                "quoted-printable",
                "h=65llo =3D=C3=A9 \t\r\nso=\r\nft=  \r\n=zz=\n=4",
                "hello =\u{e9}\r\nsoft=zz=4",
            ),
        ] {
            let found = unpacked(&[], encoding, text.as_bytes()).expect("legal");
            assert_eq!(String::from_utf8_lossy(&found), expected, "{encoding}");
        }
        assert!(matches!(unpacked(&[], "base64", b"!!"), Err(BodyFault::Malformed(_))));
        assert!(matches!(unpacked(&[], "x-uuencode", b""), Err(BodyFault::Unsupported(_))));
        let both = base64::engine::general_purpose::STANDARD.encode(gzip(b"hello"));
        assert_eq!(unpacked(&["gzip"], "base64", both.as_bytes()).as_deref(), Ok(&b"hello"[..]));
    }
}
