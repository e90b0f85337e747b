//! Asks a running process by the unix socket of its data directory.

use std::path::Path;

use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, body::Bytes};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::UnixStream;

use crate::socket_path::SocketPath;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens at the socket.
    #[error(
        "no running tombolo at {path}: {reason}. Start it with `tombolo run`, or name its data directory with --data-dir"
    )]
    NotRunning {
        /// The socket.
        path: String,
        /// What the system says.
        reason: String,
    },
    /// It said no, and why.
    #[error("{0}")]
    Refused(String),
    /// The answer was not understood.
    #[error("the running tombolo gave an answer that is not understood: {0}")]
    Misunderstood(String),
}

/// The socket of a data directory.
pub fn socket_of(data_dir: &Path) -> std::path::PathBuf {
    data_dir.join("admin.sock")
}

/// Asks a question: `path` with its query.
pub async fn ask<T: DeserializeOwned>(data_dir: &Path, path: &str) -> Result<T, AskError> {
    send(data_dir, Method::GET, path, None).await
}

/// Gives an order.
pub async fn order<T: DeserializeOwned>(data_dir: &Path, path: &str, body: &Value) -> Result<T, AskError> {
    send(data_dir, Method::POST, path, Some(body)).await
}

async fn send<T: DeserializeOwned>(
    data_dir: &Path,
    method: Method,
    path: &str,
    body: Option<&Value>,
) -> Result<T, AskError> {
    let socket = socket_of(data_dir);
    let misunderstood = |error: &dyn std::fmt::Display| AskError::Misunderstood(error.to_string());
    let not_running = |error: std::io::Error| AskError::NotRunning {
        path: socket.display().to_string(),
        reason: error.to_string(),
    };
    let way = SocketPath::of(&socket).map_err(not_running)?;
    let stream = UnixStream::connect(way.as_path()).await.map_err(not_running)?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| misunderstood(&e))?;
    let driving = tokio::spawn(connection);
    let bytes = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "tombolo")
        .header("content-type", "application/json")
        .body(Full::new(bytes))
        .map_err(|e| misunderstood(&e))?;
    let response = sender.send_request(request).await.map_err(|e| misunderstood(&e))?;
    let status = response.status();
    let bytes = response.into_body().collect().await.map_err(|e| misunderstood(&e))?.to_bytes();
    driving.abort();
    if !status.is_success() {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let error = serde_json::from_str::<Value>(&text)
            .ok()
            .and_then(|value| Some(value["error"].as_str()?.to_owned()));
        return Err(AskError::Refused(error.unwrap_or(text)));
    }
    serde_json::from_slice(&bytes).map_err(|e| misunderstood(&e))
}

/// A path segment with what it may not hold escaped.
pub fn segment(text: &str) -> String {
    text.bytes()
        .map(|octet| match octet {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(octet).to_string()
            }
            _ => format!("%{octet:02X}"),
        })
        .collect()
}
