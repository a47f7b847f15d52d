//! A copy of the tree, and the mutants in it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};

use crate::list::{Edit, Mutant};

/// The variable that chooses a mutant.
pub(crate) const VARIABLE: &str = "MUTANT";
/// Stands in `new` where the mutant is asked for.
const ASKED: &str = "MUTANT";
/// Where the switch goes.
const SWITCH_FILE: &str = "shared/src/lib.rs";

/// The switch that every crate of ours can ask; it is in the copy alone.
const SWITCH: &str = r#"
#[doc(hidden)]
#[allow(missing_docs)]
pub mod mutant {
    pub fn is_on(name: &str) -> bool {
        static CHOSEN: std::sync::LazyLock<Option<String>> = std::sync::LazyLock::new(|| std::env::var("VARIABLE").ok());
        CHOSEN.as_deref() == Some(name)
    }

    pub fn sql(name: &str, text: &'static str, old: &str, new: &str) -> &'static str {
        assert_eq!(text.matches(old).count(), 1, "{name}: {old}");
        if is_on(name) { text.replace(old, new).leak() } else { text }
    }
}
"#;

/// Packages of the copy that are compiled for it, with the least effort: each test runs for moments.
const UNOPTIMISED: [&str; 4] = ["shared", "triage-service", "outbox-publisher", "simulation"];
/// The copy's packages have a version of their own, or cargo would take them for those of the tree, whose
/// dependencies they share.
const VERSIONS: [&str; 2] = ["version = \"0.1.0\"", "version = \"0.1.0-mutants\""];

/// Copies what git knows or would add, with the mutants in it, switched off. Files that are the same already are left
/// alone, so that cargo builds what has changed and nothing else.
pub(crate) fn copy(root: &Path, copy: &Path, mutants: &[Mutant]) -> anyhow::Result<()> {
    let names = files_of(root)?;
    for name in &names {
        let mut text = fs::read(root.join(name))?;
        for mutant in mutants {
            for edit in mutant.edits().filter(|edit| edit.file == *name) {
                let changed = with(&mutant.name, edit, std::str::from_utf8(&text)?);
                text = changed.with_context(|| format!("mutant {}", mutant.name))?.into_bytes();
            }
        }
        if name == Path::new(SWITCH_FILE) {
            text.extend(SWITCH.replace("VARIABLE", VARIABLE).into_bytes());
        }
        if name == Path::new("Cargo.toml") {
            text = manifest(std::str::from_utf8(&text)?)?.into_bytes();
        }
        write_if_other(&copy.join(name), &text).with_context(|| format!("copy {}", name.display()))?;
        fs::set_permissions(copy.join(name), fs::metadata(root.join(name))?.permissions())?;
    }
    for mutant in mutants {
        if let Some(astray) = mutant.edits().find(|edit| !names.contains(&edit.file)) {
            bail!("mutant {}: there is no {}", mutant.name, astray.file.display());
        }
    }
    // Kafka's jars are fetched once.
    let (jars, link) = (root.join(".stack"), copy.join(".stack"));
    if jars.exists() && !link.exists() {
        std::os::unix::fs::symlink(fs::canonicalize(jars)?, link)?;
    }
    Ok(())
}

fn files_of(root: &Path) -> anyhow::Result<BTreeSet<PathBuf>> {
    let mut list = Command::new("git");
    list.current_dir(root)
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let listed = list.output().context("run git")?;
    ensure!(listed.status.success(), "git ls-files ended with {}", listed.status);
    Ok(String::from_utf8(listed.stdout)?
        .split_terminator('\0')
        .map(PathBuf::from)
        .filter(|name| root.join(name).is_file())
        .collect())
}

fn write_if_other(file: &Path, text: &[u8]) -> anyhow::Result<()> {
    if fs::read(file).is_ok_and(|there| there == text) {
        return Ok(());
    }
    fs::create_dir_all(file.parent().context("a file lies in a folder")?)?;
    Ok(fs::write(file, text)?)
}

fn manifest(text: &str) -> anyhow::Result<String> {
    let [ours, the_copys] = VERSIONS;
    ensure!(text.contains(ours), "Cargo.toml has no {ours}");
    ensure!(
        text.rfind("\n[") == text.find("\n[profile.release.package]"),
        "Cargo.toml does not end with [profile.release.package]"
    );
    let unoptimised = UNOPTIMISED.map(|package| format!("{package}.opt-level = 0\n{package}.debug = false\n"));
    Ok(text.replacen(ours, the_copys, 1) + &unoptimised.concat())
}

/// The text of a file with a mutant in it.
fn with(name: &str, edit: &Edit, text: &str) -> anyhow::Result<String> {
    let krate = if edit.file.starts_with("shared") {
        "crate"
    } else {
        "shared"
    };
    let old = match &edit.sql {
        None => edit.old.clone(),
        Some(sql) => included(text, sql).with_context(|| format!("{sql} is not included"))?,
    };
    let count = text.matches(&old).count();
    ensure!(count == 1, "{old:?} stands {count} times in {}", edit.file.display());
    let new = match &edit.sql {
        None => edit.new.replace(ASKED, &format!("{krate}::mutant::is_on({name:?})")),
        Some(_) => format!("{krate}::mutant::sql({name:?}, {old}, {:?}, {:?})", edit.old, edit.new),
    };
    Ok(text.replacen(&old, &new, 1))
}

/// `include_str!` of a file as it is written, maybe over several lines, with the mutants before this one around it.
fn included(text: &str, file: &str) -> Option<String> {
    let quoted = text.find(&format!("{file:?}"))?;
    let begin = text[..quoted].rfind("include_str!(")?;
    let end = quoted + text[quoted..].find(')')?;
    Some(text[begin..=end].to_owned())
}
