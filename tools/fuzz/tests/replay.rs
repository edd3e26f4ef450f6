//! The committed corpus goes through its targets: what once crashed, and what reaches furthest.

use std::collections::BTreeSet;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use tableside_fuzz::{TARGETS, Target};

/// All of it, bytes: a corpus is source, and is cloned by everybody.
const MOST: u64 = 300_000;

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

/// The files of a folder by name; what else is in it is an error, and so is a folder that is not there.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    assert!(files.iter().all(|file| file.is_file()), "{}: not only files", folder.display());
    files
}

fn replay(target: &Target) -> usize {
    let files = files(&corpus().join(target.name));
    for file in &files {
        let input = std::fs::read(file).expect("readable");
        assert!(catch_unwind(|| (target.run)(&input)).is_ok(), "{} fails on {}", target.name, file.display());
    }
    files.len()
}

#[test]
fn every_target_has_a_corpus_and_every_corpus_a_target() {
    let folders: BTreeSet<String> = std::fs::read_dir(corpus())
        .expect("tools/fuzz/corpus")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
        .collect();
    let targets: BTreeSet<String> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    assert_eq!(folders, targets);
}

#[test]
fn the_corpus_is_small() {
    let all = TARGETS.iter().flat_map(|target| files(&corpus().join(target.name)));
    let bytes: u64 = all.map(|file| file.metadata().expect("a size").len()).sum();
    assert!(bytes <= MOST, "{bytes} bytes: minimise it with tools/fuzz/run --minimise");
}

#[test]
fn the_corpus_is_survived() {
    let replayed: Vec<(&str, usize)> = TARGETS.iter().map(|target| (target.name, replay(target))).collect();
    let empty: Vec<&str> = replayed.iter().filter(|(_, count)| *count == 0).map(|(name, _)| *name).collect();
    assert!(empty.is_empty(), "no inputs for {empty:?}: see tools/fuzz/run --help");
}

#[test]
fn seeds_are_survived() {
    for target in TARGETS {
        let seeds = (target.seeds)();
        assert!(!seeds.is_empty(), "{} has no seeds", target.name);
        for (n, seed) in seeds.iter().enumerate() {
            assert!(catch_unwind(|| (target.run)(seed)).is_ok(), "{} fails on its seed {n}", target.name);
        }
    }
}
