//! Runs ourselves under callgrind and reads what it wrote.

use std::collections::HashMap;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::hot::Hot;

/// Instructions for each packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Of the gateway and what is compiled into it from Rust.
    pub own: u32,
    /// Of the cryptographic library and the C library, which depend on the machine.
    pub libraries: u32,
}

/// Runs it under callgrind.
///
/// # Errors
/// There is no valgrind, or it fails.
pub fn count(hot: Hot) -> anyhow::Result<Counts> {
    let file = std::env::temp_dir().join(format!("tableside-callgrind-{}-{}", std::process::id(), hot.name()));
    let status = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet", "--collect-atstart=no"])
        .arg(format!("--toggle-collect={}", hot.symbol()))
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(std::env::current_exe()?)
        .args(["--run", hot.name()])
        .stdout(Stdio::null())
        .status()
        .context("valgrind is needed: apt-get install valgrind")?;
    anyhow::ensure!(status.success(), "valgrind ended with {status}");
    let counts = read(&file, hot.packets());
    std::fs::remove_file(&file)?;
    counts
}

fn read(file: &Path, packets: usize) -> anyhow::Result<Counts> {
    let text = std::fs::read_to_string(file).context("what callgrind wrote")?;
    let (mut own, mut libraries) = (0, 0);
    for (function, cost) in self_costs(&text) {
        *if is_library(&function) { &mut libraries } else { &mut own } += cost;
    }
    anyhow::ensure!(own > 0, "callgrind counted nothing: has a function been renamed?");
    let each = |cost: u64| u32::try_from(cost / packets as u64).context("far too many");
    Ok(Counts { own: each(own)?, libraries: each(libraries)? })
}

/// Whether a function is of aws-lc (its symbols are prefixed, but not those in assembly) or of the C library, and not Rust's.
fn is_library(function: &str) -> bool {
    !function.contains("::") && !function.starts_with("_R") && !function.starts_with("_ZN")
}

/// Instructions of each function without those that it calls, from callgrind's output: lines `fn=(id) name`, where the name
/// comes once for each id; lines of a position and a cost; after a line `calls=` one more of those, of the callee.
fn self_costs(text: &str) -> HashMap<String, u64> {
    let (mut names, mut costs) = (HashMap::new(), HashMap::<String, u64>::new());
    let (mut current, mut of_callee) = (String::new(), false);
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("fn=").or_else(|| line.strip_prefix("cfn=")) {
            let (id, name) = name.split_once(' ').map_or((name, None), |(id, name)| (id, Some(name)));
            if let Some(name) = name {
                names.insert(id.to_owned(), name.to_owned());
            }
            if line.starts_with("fn=") {
                current = names.get(id).cloned().unwrap_or_default();
            }
        } else if line.starts_with("calls=") {
            of_callee = true;
        } else if line.starts_with(|first: char| first.is_ascii_digit() || matches!(first, '+' | '-' | '*')) {
            let cost = line.split_whitespace().nth(1).and_then(|cost| cost.parse::<u64>().ok());
            if !std::mem::take(&mut of_callee) {
                *costs.entry(current.clone()).or_default() += cost.unwrap_or_default();
            }
        }
    }
    costs
}
