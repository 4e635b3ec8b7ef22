// SPDX-License-Identifier: GPL-2.0-only

//! What the fuzzer has kept, without it; and what it has found.

use std::panic::catch_unwind;
use std::path::Path;

use super::*;
use crate::rule::complete;

/// Each file of a target's corpus.
fn replay(target: &str, test: fn(&str)) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../fuzz/corpus")
        .join(target);
    let files = std::fs::read_dir(&corpus).unwrap();
    let files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    assert!(!files.is_empty(), "{}", corpus.display());
    for file in files {
        let text = String::from_utf8_lossy(&std::fs::read(&file).unwrap()).into_owned();
        let passed = catch_unwind(|| test(&text));
        assert!(passed.is_ok(), "{}: {text:?}", file.display());
    }
}

#[test]
fn manifests() {
    replay("manifest", manifest);
}

#[test]
fn filters() {
    replay("filter", filter);
}

#[test]
fn values() {
    replay("value", value);
}

#[test]
fn processes() {
    replay("process", process);
}

/// The kernel refuses what these become.
#[test]
fn filters_that_the_kernel_does_not_take() {
    let mut compiler = Compiler::dead().unwrap();
    for (text, why) in [
        ("ip6 protochain 6", "no loop"),
        ("ether[4294963201] = 0", "no packet is as long"),
    ] {
        let rule = Rule::filter(CLASS_REQUEST, TO_VM, text);
        let error = compiler.compile(vec![rule]).err().unwrap().to_string();
        assert!(error.contains(why), "{error}");
    }
}

/// Each rule that sleepyctl makes itself, and each filter of a page.
#[test]
fn rules_are_what_the_kernel_takes() {
    let ports: Vec<u16> = (80..120).collect();
    let mut rules = complete(Vec::new(), true, true);
    for profile in [Profile::Http, Profile::Grpc, Profile::Udp] {
        rules.extend(profile.rules(&ports));
    }
    for page in ["manifest", "events", "levers", "bench"] {
        let page =
            Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../Documentation/{page}.md"));
        let text = std::fs::read_to_string(page).unwrap();
        let filters = text
            .lines()
            .filter_map(|line| line.strip_prefix("filter")?.split('"').nth(1));
        rules.extend(filters.map(|filter| Rule::filter(CLASS_REQUEST, TO_VM, filter)));
    }
    assert!(rules.len() > 15, "{}", rules.len());
    let mut compiler = Compiler::dead().unwrap();
    for compiled in rules
        .into_iter()
        .flat_map(|rule| compiler.compile(vec![rule]).unwrap())
    {
        let Code::Classic(program) = &compiled.code else {
            panic!()
        };
        classic::check(program.get_instructions()).unwrap();
    }
}

/// What a message quotes does not end its line, nor speak to the terminal.
#[test]
fn quoted_text_is_shown() {
    let text = "schema_version = 1\n[[vm]]\nname = \"a\"\npid = 1\nlever = \"x\\ny\\u001b[2J\"\n";
    let read = of_texts(&[("f\n".to_string(), text.to_string())]).unwrap();
    let [.., finding] = &read.report.findings()[..] else {
        panic!()
    };
    let begin = "f\\n:5:9: error: `lever`: there is no lever `x\\ny\\u{1b}[2J`";
    assert!(finding.to_string().starts_with(begin), "{finding}");
}
