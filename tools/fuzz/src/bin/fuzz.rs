//! libFuzzer over one target, which `TABLESIDE_FUZZ_TARGET` names. `tools/fuzz/run` builds and starts it.
//!
//! One binary for all of them: linking a dozen instrumented ones takes longer than compiling. For the same reason it is the
//! one that knows the targets: without a target it lists them and what they read, and where `TABLESIDE_FUZZ_SEEDS` names a
//! folder it writes the target's seeds there. Whatever is instrumented has to be linked with the engine in any case.

#![no_main]

use std::path::Path;
use std::process::exit;
use std::sync::OnceLock;

use tableside_fuzz::{TARGETS, Target, target};

static TARGET: OnceLock<&'static Target> = OnceLock::new();

libfuzzer_sys::fuzz_target!(
    init: {
        let Ok(name) = std::env::var("TABLESIDE_FUZZ_TARGET") else {
            TARGETS.iter().for_each(|target| println!("{}\t{}", target.name, target.reads));
            exit(0);
        };
        let Some(chosen) = target(&name) else {
            eprintln!("TABLESIDE_FUZZ_TARGET={name:?} names no target");
            exit(2);
        };
        if let Some(folder) = std::env::var_os("TABLESIDE_FUZZ_SEEDS") {
            write_seeds(chosen, Path::new(&folder));
            exit(0);
        }
        TARGET.get_or_init(|| chosen);
    },
    |data: &[u8]| {
        if let Some(target) = TARGET.get() {
            (target.run)(data);
        }
    }
);

fn write_seeds(target: &Target, folder: &Path) {
    for (n, seed) in (target.seeds)().iter().enumerate() {
        if let Err(error) = std::fs::write(folder.join(format!("seed-{n:02}")), seed) {
            eprintln!("cannot write into {}: {error}", folder.display());
            exit(2);
        }
    }
}
