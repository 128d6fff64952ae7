//! Every target on its corpus and on random mutations of it: what `make fuzz` does for longer and with an eye on coverage.

use std::collections::hash_map::RandomState;
use std::fs;
use std::hash::BuildHasher;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use millpond_decoders::{TARGETS, check};

/// How long the mutations of one target go on.
const TIME: Duration = Duration::from_millis(700);
/// All of the corpus must stay as small as this.
const CORPUS_LIMIT_BYTES: usize = 64 << 10;
/// The longest mutated input.
const INPUT_LIMIT_BYTES: usize = 4096;

fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut inputs: Vec<_> = entries
        .map(|entry| entry.expect("an entry of the corpus").path())
        .map(|path| (path.clone(), fs::read(path).expect("an input")))
        .collect();
    inputs.sort();
    inputs
}

#[test]
fn each_target_holds_for_its_corpus_which_is_small() {
    let mut bytes = 0;
    for target in TARGETS {
        let inputs = corpus(target.name);
        assert!(!inputs.is_empty(), "no corpus for {}", target.name);
        for (path, input) in &inputs {
            bytes += input.len();
            if catch_unwind(|| (target.run)(input)).is_err() {
                panic!("{} does not hold for {}", target.name, path.display());
            }
        }
    }
    assert!(bytes <= CORPUS_LIMIT_BYTES, "the corpus has {bytes} bytes: minimise it");
}

#[test]
fn each_target_holds_for_random_mutations_of_its_corpus() {
    let given = std::env::var("MILLPOND_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = given.unwrap_or_else(|| RandomState::new().hash_one(0));
    println!("MILLPOND_SEED={seed}");
    let tried = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for (number, target) in TARGETS.iter().enumerate() {
            let tried = &tried;
            scope.spawn(move || {
                let mut random = Random(seed ^ (number as u64) << 32);
                let inputs: Vec<_> = corpus(target.name).into_iter().map(|(_, input)| input).collect();
                let end = Instant::now() + TIME;
                let mut count = 0_u64;
                while Instant::now() < end || count == 0 {
                    for _ in 0..100 {
                        let input = mutated(&inputs, &mut random);
                        count += 1;
                        if catch_unwind(|| (target.run)(&input)).is_err() {
                            let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
                            panic!("{}, input {count} of MILLPOND_SEED={seed}: {hex}", target.name);
                        }
                    }
                }
                println!("{}: {count} inputs", target.name);
                tried.fetch_add(count, Ordering::Relaxed);
            });
        }
    });
    assert!(tried.into_inner() >= TARGETS.len() as u64 * 100);
}

#[test]
fn a_decoder_that_believes_a_length_and_one_that_forgets_a_byte_are_caught() {
    let believes = |bytes: &[u8]| {
        let length = u32::from_le_bytes(bytes[..4].try_into().expect("four bytes"));
        let room = Vec::<u8>::with_capacity(length as usize);
        if room.len() == bytes.len() { Ok(()) } else { Err("it ends too early") }
    };
    let small = check::FLAT_BYTES as u32 / 2;
    let run = |length: u32| catch_unwind(|| check::watched(&length.to_le_bytes(), believes));
    assert!(run(small).is_ok_and(|decoded| decoded.is_none()));
    assert!(run(small * 4).is_err());

    let decode = |bytes: &[u8]| Ok::<_, String>(bytes.to_vec());
    check::stable(b"ab", decode, Vec::clone);
    assert!(catch_unwind(|| check::stable(b"ab", decode, |bytes| bytes[1..].to_vec())).is_err());
}

/// One input of the corpus, or two together, changed in a few places.
fn mutated(inputs: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut input = inputs[random.below(inputs.len())].clone();
    for _ in 0..=random.below(5) {
        let at = random.below(input.len() + 1);
        match random.below(8) {
            0 => input.insert(at, random.next() as u8),
            1 if at < input.len() => drop(input.remove(at)),
            2 if at < input.len() => input[at] ^= 1 << random.below(8),
            3 if at < input.len() => input[at] = *[0, 1, 0x7F, 0x80, 0xFF].get(random.below(5)).unwrap_or(&0),
            4 => input.truncate(at.max(1)),
            5 => {
                let other = &inputs[random.below(inputs.len())];
                let from = random.below(other.len() + 1);
                input.truncate(at.max(1));
                input.extend_from_slice(&other[from..]);
            }
            6 if at + 4 <= input.len() => {
                let number = [0_u32, 1, 255, 4096, 1 << 16, 1 << 24, u32::MAX][random.below(7)];
                input[at..at + 4].copy_from_slice(&number.to_le_bytes());
            }
            _ => {
                let from = at.min(input.len());
                let run = input[from..(from + random.below(32)).min(input.len())].to_vec();
                let to = random.below(input.len() + 1);
                input.splice(to..to, run);
            }
        }
    }
    input.truncate(INPUT_LIMIT_BYTES);
    input
}

/// xorshift64*.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.max(1);
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 33) as usize % bound.max(1)
    }
}
