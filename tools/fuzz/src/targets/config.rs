//! The configuration file and the keys file: written by operators, and not trusted to be right.

use std::path::Path;

use tableside::config::{Config, PublishKeys};

const EXAMPLES: [&str; 2] =
    [include_str!("../../../../config/gateway.toml"), include_str!("../../../../config/publish-keys.example.toml")];

pub(crate) fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Config::parse(Path::new("gateway.toml"), text) {
        Ok(config) => assert!(!config.summary().to_string().is_empty()),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    if let Err(error) = PublishKeys::parse(Path::new("publish-keys.toml"), text) {
        assert!(!error.to_string().is_empty());
    }
}

/// The examples without their comments, each section by itself too.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let bare = EXAMPLES.map(|example| {
        let lines = example.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("# "));
        lines.map(|line| format!("{}\n", line.trim_start_matches('#'))).collect::<String>()
    });
    let sections = bare.iter().flat_map(|text| text.split("\n["));
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
