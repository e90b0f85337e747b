//! The messages of RFC 4475 and RFC 5118, bit by bit: base64 between two marks of the RFC's text, gzip, tar.

use std::{collections::BTreeMap, io::Read};

use base64::{Engine, prelude::BASE64_STANDARD};

/// Octets by file name.
pub type Files = BTreeMap<String, Vec<u8>>;

/// Unpacks the archive that the text of an RFC holds.
pub fn unpack(rfc: &str) -> Files {
    let (_, rest) =
        rfc.split_once("\n   -- BEGIN MESSAGE ARCHIVE --").expect("the mark at the archive's begin");
    let (archive, _) = rest.split_once("-- END MESSAGE ARCHIVE --").expect("the mark at its end");
    // Page breaks have white space between their words; lines of the archive have none.
    let lines =
        archive.lines().map(str::trim).filter(|line| !line.is_empty() && !line.contains(char::is_whitespace));
    let packed = BASE64_STANDARD.decode(lines.collect::<String>()).expect("base64");
    let mut tar = Vec::new();
    flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut tar).expect("gzip");
    read_tar(&tar)
}

fn read_tar(tar: &[u8]) -> Files {
    const BLOCK: usize = 512;
    let mut files = Files::new();
    let mut at = 0;
    while let Some(header) = tar.get(at..at + BLOCK).filter(|header| header[0] != 0) {
        let text = |from: usize, to: usize| {
            let field = header[from..to].split(|octet| *octet == 0).next().unwrap_or_default();
            std::str::from_utf8(field).expect("a name or number of a tar header").trim()
        };
        let name = text(0, 100).trim_start_matches("./").trim_end_matches(".dat").to_owned();
        let len = usize::from_str_radix(text(124, 136), 8).expect("an octal length");
        let is_file = matches!(header[156], b'0' | 0);
        let body = &tar[at + BLOCK..at + BLOCK + len];
        if is_file {
            files.insert(name, body.to_vec());
        }
        at += BLOCK + len.div_ceil(BLOCK) * BLOCK;
    }
    files
}
