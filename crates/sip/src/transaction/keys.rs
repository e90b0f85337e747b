//! What tells one transaction from another (RFC 3261 §8.2.2.2, §17.1.3, §17.2.3).

use crate::{
    headers::{NameAddr, ValueFault, Via},
    message::Message,
    method::Method,
};

/// The key of the server transaction of `request` as if it were of `method`: an ACK and a CANCEL name another's.
///
/// Branch, sent-by and method; without a branch of RFC 3261 the old rules hold (§17.2.3).
pub(super) fn server_key(request: &Message, method: &str) -> String {
    let via = request.top_via().ok();
    if let Some(via) = &via
        && let Some(branch) = via.rfc3261_branch()
    {
        return format!("{branch}\n{}\n{method}", via.sent_by.to_string().to_ascii_lowercase());
    }
    let tag = |name: Result<NameAddr<'_>, ValueFault>| {
        name.ok().and_then(|name| name.tag().map(ToOwned::to_owned)).unwrap_or_default()
    };
    // An ACK has the tag of the response, which its INVITE had not.
    let to_tag = if method == Method::Invite.as_str() { String::new() } else { tag(request.to()) };
    format!(
        "{}\n{to_tag}\n{}\n{}\n{:?}\n{}\n{method}",
        request.request_uri_text(),
        tag(request.from()),
        request.call_id().unwrap_or_default(),
        request.cseq().map(|(number, _)| number).ok(),
        request.vias().next().unwrap_or_default(),
    )
}

/// What tells two copies of one request that came by two ways; `None` inside a dialog.
pub(super) fn merge_key(request: &Message) -> Option<String> {
    if request.to().ok()?.tag().is_some() {
        return None;
    }
    let from = request.from().ok()?;
    let (number, method) = request.cseq().ok()?;
    Some(format!("{}\n{}\n{number}\n{}", from.tag()?, request.call_id().ok()?, method.as_str()))
}

/// Host and port of the Via row that holds `branch` in a request that we wrote; `None` when there is no such row.
pub(super) fn sent_by(request: &[u8], branch: &str) -> Option<Box<str>> {
    let at = memchr::memmem::find(request, branch.as_bytes())?;
    let from = memchr::memrchr(b'\n', &request[..at])? + 1;
    let row = std::str::from_utf8(request[from..].split(|octet| *octet == b'\r').next()?).ok()?;
    let via = Via::parse(row.strip_prefix("Via:")?).ok()?;
    Some(via.sent_by.to_string().into())
}
