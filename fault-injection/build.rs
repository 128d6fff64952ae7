//! Builds the library that is loaded before a victim (`preload/`), with the C compiler that RocksDB needs anyway.
//!
//! A build script, because cargo builds no dynamic library for a crate that only wants to load it; and C, because what stands in
//! libc's place must not stand on it, as Rust's `std` does.

use std::path::PathBuf;
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-changed=preload");
    println!("cargo::rerun-if-changed=build.rs");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo says where")).join("libmillpond_disk.so");
    println!("cargo::rustc-env=MILLPOND_DISK_LIBRARY={}", out.display());
    // Elsewhere the harness says that it has no such disk.
    if env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("linux") {
        return;
    }
    let sources = fs::read_dir("preload").expect("the folder `preload`").map(|entry| entry.expect("an entry").path());
    let sources = sources.filter(|path| path.extension().is_some_and(|ending| ending == "c"));
    let mut build = cc::Build::new();
    build.std("gnu11").opt_level(2).pic(true).warnings(true).extra_warnings(true).debug(false);
    // Checks of buffers would be further names of the same calls.
    for flag in ["-fvisibility=hidden", "-U_FORTIFY_SOURCE"] {
        build.flag(flag);
    }
    let mut compiler = build.get_compiler().to_command();
    let status = compiler.arg("-shared").args(sources).arg("-o").arg(&out).args(["-ldl", "-lpthread"]).status();
    assert!(status.is_ok_and(|status| status.success()), "the C compiler cannot build the library in `preload/`");
}
