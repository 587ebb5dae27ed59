//! Prints the schema of a rule's `.toml`, `rules/rule.schema.json`.

fn main() {
    print!("{}", anmin_rules::schema::schema());
}
