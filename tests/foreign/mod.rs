//! Programs of others that tests run against.

use std::path::{Path, PathBuf};

/// Where `tools/setup` puts a program, else where the system has it.
pub fn program(name: &str) -> PathBuf {
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools-venv/bin").join(name);
    if installed.exists() {
        return installed;
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.exists());
    found.unwrap_or_else(|| panic!("there is no {name}: run tools/setup, which installs it below target/tools-venv"))
}
