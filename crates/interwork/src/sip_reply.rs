//! Responses to requests that the shard serves.

use tombolo_sip::{build::ResponseBuilder, message::Message};

/// What a response says besides what it copies from its request.
#[derive(Debug, Clone, Copy)]
pub struct Reply<'a> {
    /// The status code.
    pub status: u16,
    /// The tag that To gets, when the request had none.
    pub to_tag: Option<&'a str>,
    /// Further headers.
    pub headers: &'a [(&'static str, String)],
    /// It may form a dialog: Record-Route is copied.
    pub copies_record_route: bool,
}

impl Reply<'_> {
    /// A response with nothing but its status.
    pub fn status(status: u16) -> Self {
        Self { status, to_tag: None, headers: &[], copies_record_route: false }
    }
}

/// The response's text; `None` when the request cannot be answered.
pub fn reply(request: &Message, reply: &Reply<'_>) -> Option<Vec<u8>> {
    let mut builder = ResponseBuilder::to(request, reply.status, None).ok()?;
    if let Some(tag) = reply.to_tag {
        builder = builder.to_tag(tag);
    }
    if reply.copies_record_route {
        builder = builder.copy_record_route();
    }
    for (name, value) in reply.headers {
        builder = builder.header(name, value);
    }
    Some(builder.render())
}
