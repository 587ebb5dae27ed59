//! A new file in `profiles/` is embedded without touching any code.

fn main() {
    println!("cargo:rerun-if-changed=profiles");
}
