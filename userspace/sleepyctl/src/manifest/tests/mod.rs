// SPDX-License-Identifier: GPL-2.0-only

//! What is said of manifests, and what comes of them.

mod meaning;
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

/// A file with one good VM, whose last lines are these: the first of them is line 5.
fn vm(lines: &str) -> String {
    format!("schema_version = 1\n[[vm]]\nname = \"a\"\npid = 1\n{lines}\n")
}

const GOOD_RULES: &str = "[[vm.rule]]\nclass = \"request\"\nfilter = \"udp\"\n[[vm.rule]]\nclass = \"response\"\nfilter = \"udp\"";

/// Each of the texts has the one finding that begins so.
fn each(cases: &[(&str, &str)], file: impl Fn(&str) -> String) {
    for (text, expected) in cases {
        let found = findings(&file(text));
        assert_eq!(found.len(), 1, "{text}\n{found:#?}");
        assert!(found[0].starts_with(expected), "{text}\n{}", found[0]);
    }
}
