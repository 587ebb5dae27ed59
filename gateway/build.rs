//! Has cargo notice when the duty desk's page has been built anew, which `include_dir!` alone would not tell it, and has the
//! linker lay side by side what a quiet daemon runs.

use std::env;

fn main() {
    println!("cargo:rerun-if-changed=web/dist");
    println!("cargo:rerun-if-changed=layout.ld");
    println!("cargo:rerun-if-env-changed=ANMIN_LAYOUT");
    let is = |name, value| env::var(name).is_ok_and(|is| is == value);
    // As GNU's linker and LLVM's understand it; whoever links with another says ANMIN_LAYOUT=off.
    if is("PROFILE", "release")
        && is("CARGO_CFG_TARGET_OS", "linux")
        && is("CARGO_CFG_TARGET_ENV", "gnu")
        && !is("ANMIN_LAYOUT", "off")
    {
        let folder = env::var("CARGO_MANIFEST_DIR").expect("cargo says where the package lies");
        println!("cargo:rustc-link-arg-bins=-T{folder}/layout.ld");
    }
}
