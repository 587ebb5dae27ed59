//! Writes what anmin's binary is made of, as CycloneDX JSON, to standard output: `make sbom`.

use anmin_tests::supply;

fn main() {
    println!("{:#}", supply::sbom(&supply::parts()));
}
