//! One program for all targets: `MILLPOND_FUZZ_TARGET` names the one.

#![no_main]

use std::sync::LazyLock;

use millpond_decoders::{Target, target};

static CHOSEN: LazyLock<Target> =
    LazyLock::new(|| target(&std::env::var("MILLPOND_FUZZ_TARGET").expect("MILLPOND_FUZZ_TARGET names a target")));

libfuzzer_sys::fuzz_target!(|input: &[u8]| (CHOSEN.run)(input));
