//! Prints the reference of the rule language, `rules/REFERENCE.md`.

fn main() {
    print!("{}", anmin_rules::reference::reference());
}
