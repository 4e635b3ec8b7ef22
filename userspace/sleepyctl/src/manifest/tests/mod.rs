// SPDX-License-Identifier: GPL-2.0-only

//! What is said of manifests, and what comes of them.

mod mistakes;
mod pages;
mod result;

use super::load::{Manifests, of_texts};
use super::report::Finding;

/// What a file named `f` says.
fn load(text: &str) -> Manifests {
    of_texts(&[("f".to_string(), text.to_string())]).unwrap()
}

/// Everything that is found in it, a line each.
fn findings(text: &str) -> Vec<String> {
    let findings = load(text).report.findings();
    findings.iter().map(Finding::to_string).collect()
}
