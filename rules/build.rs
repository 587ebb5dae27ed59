//! The library is embedded: a rule added or changed builds the crate again.

fn main() {
    println!("cargo::rerun-if-changed=library");
}
