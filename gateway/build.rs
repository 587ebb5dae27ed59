//! Has cargo notice when the duty desk's page has been built anew: `include_dir!` alone would not tell it.

fn main() {
    println!("cargo:rerun-if-changed=web/dist");
}
