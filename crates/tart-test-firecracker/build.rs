//! Builds the library that the stand-in loads into QEMU: `src/guest/shim.rs`.

use std::{env, error::Error, path::PathBuf, process::Command};

/// Where it is written, and what it is made of.
const LIBRARY: &str = "shim.so";
const SOURCE: &str = "src/guest/shim.rs";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={SOURCE}");
    let library = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo names no directory")?).join(LIBRARY);
    // It is loaded into another program, so it is none of cargo's libraries, and brings no crate with it.
    let built = Command::new(env::var_os("RUSTC").ok_or("cargo names no compiler")?)
        .args(["--edition=2024", "--crate-type=cdylib", "--crate-name=shim"])
        .args(["-Copt-level=s", "-Cpanic=abort", "-Cstrip=symbols", SOURCE, "-o"])
        .arg(&library)
        .status()?;
    if built.success() { Ok(()) } else { Err(format!("{SOURCE} cannot be built: {built}").into()) }
}
