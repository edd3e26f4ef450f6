//! libFuzzer over one target, which `TABLESIDE_FUZZ_TARGET` names. `tools/fuzz/run` builds and starts it.
//!
//! One binary for all of them: linking a dozen instrumented ones takes longer than compiling.

#![no_main]

use std::sync::OnceLock;

use tableside_fuzz::{Target, target};

static TARGET: OnceLock<&'static Target> = OnceLock::new();

libfuzzer_sys::fuzz_target!(
    init: {
        let name = std::env::var("TABLESIDE_FUZZ_TARGET").unwrap_or_default();
        let Some(chosen) = target(&name) else {
            eprintln!("TABLESIDE_FUZZ_TARGET={name:?} names no target");
            std::process::exit(2);
        };
        TARGET.get_or_init(|| chosen);
    },
    |data: &[u8]| {
        if let Some(target) = TARGET.get() {
            (target.run)(data);
        }
    }
);
