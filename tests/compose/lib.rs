//! docker/compose.yaml as people start it, under a project name and ports of its own.

pub mod observe;
pub mod project;
