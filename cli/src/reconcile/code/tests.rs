use std::collections::BTreeSet;

use super::*;

#[test]
fn names_are_unique_and_kebab_case() {
    let names: BTreeSet<_> = Code::ALL.iter().map(|code| code.name()).collect();
    assert_eq!(names.len(), Code::ALL.len());
    for name in names {
        assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '-'), "{name}");
    }
}

#[test]
fn what_is_wrong_says_what_to_do() {
    for code in Code::ALL.into_iter().filter(|code| code.class() == Class::Wrong) {
        assert!(!code.about().remedy.is_empty(), "{}", code.name());
    }
}

/// Scripts rely on them.
#[test]
fn codes_keep_their_names() {
    let table: String = Code::ALL
        .iter()
        .map(|code| format!("{:<26} {:?}\n", code.name(), code.class()))
        .collect();
    insta::assert_snapshot!(table);
}
