//! `seeds` lists the targets with what they read; `seeds TARGET FOLDER` writes the target's seeds there.

use std::path::Path;
use std::process::ExitCode;

use tableside_fuzz::{TARGETS, target};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => TARGETS.iter().for_each(|target| println!("{}\t{}", target.name, target.reads)),
        [name, folder] => {
            let Some(target) = target(name) else {
                eprintln!("seeds: there is no target {name:?}");
                return ExitCode::FAILURE;
            };
            for (n, seed) in (target.seeds)().iter().enumerate() {
                if let Err(error) = std::fs::write(Path::new(folder).join(format!("seed-{n:02}")), seed) {
                    eprintln!("seeds: cannot write into {folder}: {error}");
                    return ExitCode::FAILURE;
                }
            }
        }
        _ => {
            eprintln!("usage: seeds [TARGET FOLDER]");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
