//! The configuration file: written by operators, and not trusted to be right.

use std::path::Path;

use tableside::config::Config;

const EXAMPLE: &str = include_str!("../../../../config/gateway.toml");

pub(crate) fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Config::parse(Path::new("gateway.toml"), text) {
        Ok(config) => assert!(!config.summary().to_string().is_empty()),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// The example without its comments, each section by itself too.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let lines = EXAMPLE.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("# "));
    let bare: String = lines.map(|line| format!("{}\n", line.trim_start_matches('#'))).collect();
    let sections = bare.split("\n[");
    sections
        .map(|section| {
            if section.contains(']') && !section.starts_with('[') {
                format!("[{section}\n")
            } else {
                section.to_owned()
            }
        })
        .map(String::into_bytes)
        .collect()
}
