//! Rebuilds the embedded migrations when a file is added, which the macro alone does not notice.

fn main() {
    println!("cargo:rerun-if-changed=../migrations");
}
