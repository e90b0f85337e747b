//! `tombolo demo`.

use std::path::Path;

/// Plays.
pub async fn demo(_data_dir: &Path, _json: bool) -> Result<(), String> {
    Err("the demo is not built yet".to_owned())
}
