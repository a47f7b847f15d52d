//! What triage knows, without any IO: values in, values out.
//!
//! A [`record::Record`] is read into a [`case::Reading`]; the [`policy::PolicySet`] decides its case;
//! [`outcome`] and [`dead_letter`] say what is then written to the outbox.

pub mod case;
pub mod dead_letter;
pub mod decision;
pub mod outcome;
pub mod policy;
pub mod record;
pub mod rule;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    #[test]
    fn the_domain_does_no_io() {
        let forbidden = [
            "sqlx",
            "rdkafka",
            "tokio",
            "SystemTime::now",
            "Instant::now",
            "Utc::now",
        ];
        let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src/domain")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).expect("the sources are there") {
                let path = entry.expect("the sources are readable").path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let text = fs::read_to_string(&path).expect("the sources are text");
                for word in forbidden {
                    assert!(!text.contains(word), "{} names {word}", path.display());
                }
            }
        }
    }
}
