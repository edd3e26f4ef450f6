//! A smoke test that needs no engine: the corpus and the seeds, damaged at random.
//!
//! `TABLESIDE_FUZZ_INPUTS` says how many inputs for each target: libFuzzer finds more in the same time, where it can be had.

use std::panic::catch_unwind;
use std::path::Path;

use tableside_fuzz::{TARGETS, Target};

/// Each is another beginning for the dice; the seed of a failure is in its message.
const INPUTS: u64 = 20;

/// Seeded dice (xorshift64*): the same seed throws the same.
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % n.max(1)
    }

    fn byte(&mut self) -> u8 {
        // What lengths, counts and sequence numbers break at, half of the time.
        const EDGES: [u8; 10] = [0, 1, 2, 4, 16, 64, 127, 128, 254, 255];
        if self.below(2) == 0 { EDGES[self.below(EDGES.len())] } else { self.below(256) as u8 }
    }
}

/// Some bytes changed, a piece cut out, doubled or taken from another input.
fn damaged(dice: &mut Dice, inputs: &[Vec<u8>]) -> Vec<u8> {
    let mut input = inputs[dice.below(inputs.len())].clone();
    for _ in 0..=dice.below(6) {
        let (at, len) = (dice.below(input.len() + 1), dice.below(40));
        let end = input.len().min(at + len);
        match dice.below(6) {
            0 if at < input.len() => input[at] = dice.byte(),
            1 if at < input.len() => input[at] ^= 1 << dice.below(8),
            2 => drop(input.drain(at..end)),
            3 => {
                let piece = input[at..end].to_vec();
                input.splice(at..at, piece);
            }
            4 => {
                let other = &inputs[dice.below(inputs.len())];
                let from = dice.below(other.len() + 1);
                let piece = other[from..other.len().min(from + 4 * len)].to_vec();
                input.splice(at..at, piece);
            }
            _ => input.insert(at, dice.byte()),
        }
    }
    input.truncate(4096);
    input
}

fn inputs(target: &Target) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name);
    let mut files: Vec<_> = std::fs::read_dir(folder).expect("a corpus").map(|e| e.expect("an entry").path()).collect();
    files.sort();
    let corpus = files.iter().map(|file| std::fs::read(file).expect("readable"));
    (target.seeds)().into_iter().chain(corpus).collect()
}

#[test]
fn damaged_inputs_are_survived() {
    let count = std::env::var("TABLESIDE_FUZZ_INPUTS").map_or(INPUTS, |count| count.parse().expect("a number"));
    for target in TARGETS {
        let inputs = inputs(target);
        for seed in 0..count {
            let input = damaged(&mut Dice::new(seed), &inputs);
            let survived = catch_unwind(|| (target.run)(&input)).is_ok();
            assert!(survived, "{} fails on seed {seed}: {}", target.name, hex(&input));
        }
    }
}

/// To be put into a file with `xxd -r -p`.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
