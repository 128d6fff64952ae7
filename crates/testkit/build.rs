//! With the feature `disk`, builds the library that is loaded before a process (`preload/`), with the C compiler that RocksDB needs anyway.
//!
//! A build script, because cargo builds no dynamic library for a crate that only wants to load it; and C, because what stands in
//! libc's place must not stand on it, as Rust's `std` does.

fn main() {
    println!("cargo::rerun-if-changed=preload");
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "disk")]
    build_library();
}

#[cfg(feature = "disk")]
fn build_library() {
    use std::path::PathBuf;
    use std::{env, fs};

    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo says where")).join("libmillpond_disk.so");
    println!("cargo::rustc-env=MILLPOND_DISK_LIBRARY={}", out.display());
    // Elsewhere there is no such disk, and `Disk::under` says so.
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
