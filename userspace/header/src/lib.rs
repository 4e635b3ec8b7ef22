// SPDX-License-Identifier: GPL-2.0-only

//! Writes the C header `sleepy.h` from the module's `src/uapi.rs`.
//!
//! cbindgen turns constants and structures into C. What is left to do here: the kernel's own types, of
//! which `__aligned_u64` keeps the layout the same for 32 bit callers; comments that name things as C does;
//! and the ioctl numbers, which cbindgen cannot evaluate because a `const fn` makes them.

use std::path::{Path, PathBuf};

use names::Names;

mod comment;
mod ioctl;
mod names;

/// What can go wrong: an unreadable or unexpected `uapi.rs`.
pub type Error = Box<dyn std::error::Error>;

const HEAD: &str = "/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/*
 * Generated from src/uapi.rs: change that file, then run
 * `cargo run -p sleepy-header` in userspace/.
 */
";

const OPEN: &str = "#ifndef _SLEEPY_H
#define _SLEEPY_H

#include <linux/ioctl.h>
#include <linux/types.h>

";

/// Where the ABI is defined.
pub fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../src/uapi.rs")
}

/// Where the header is kept.
pub fn target() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../include/sleepy.h")
}

/// The header's text.
pub fn generate(source: &Path) -> Result<String, Error> {
    let file = syn::parse_file(&std::fs::read_to_string(source)?)?;
    let names = Names::of(&file.items);

    let mut out = String::from(HEAD);
    out.push_str(&comment::block(
        "",
        &about(&comment::docs(&file.attrs)),
        &names,
    ));
    out.push_str(OPEN);
    out.push_str(&kernel_style(&structures(source, &names)?, &names));
    out.push('\n');
    out.push_str(&ioctl::defines(&file.items, &names)?);
    out.push_str("\n#endif /* _SLEEPY_H */\n");
    Ok(out)
}

/// The file's own doc comment, less what it says about itself as a Rust file.
fn about(docs: &str) -> String {
    let paragraphs = docs.trim().split("\n\n");
    paragraphs
        .filter(|text| !text.starts_with("This very file"))
        .collect::<Vec<_>>()
        .join("\n\n")
}

/// Constants and structures, as cbindgen writes them.
fn structures(source: &Path, names: &Names) -> Result<String, Error> {
    let mut config = cbindgen::Config {
        language: cbindgen::Language::C,
        style: cbindgen::Style::Tag,
        no_includes: true,
        documentation_style: cbindgen::DocumentationStyle::C,
        tab_width: 8,
        ..Default::default()
    };
    config.export.include = names.structs().cloned().collect();
    config.export.rename = names.all().clone();
    // A list of names that are all there anyway.
    config.export.exclude = vec!["CALLS".into()];
    let bindings = cbindgen::Builder::new()
        .with_config(config)
        .with_src(source)
        .generate()?;
    let mut out = Vec::new();
    bindings.write(&mut out);
    Ok(String::from_utf8(out)?)
}

/// `<linux/types.h>`'s types, tabs, and comments of the kernel's kind.
///
/// A `__u64` of a 32 bit x86 caller would be aligned to 4 bytes only; `__aligned_u64` is not.
fn kernel_style(c: &str, names: &Names) -> String {
    const TYPES: [(&str, &str); 6] = [
        ("uint64_t", "__aligned_u64"),
        ("int64_t", "__aligned_s64"),
        ("uint32_t", "__u32"),
        ("int32_t", "__s32"),
        ("uint16_t", "__u16"),
        ("uint8_t", "__u8"),
    ];
    let mut out = String::new();
    let mut lines = c.trim().lines();
    while let Some(line) = lines.next() {
        let text = line.trim();
        let indent = "\t".repeat((line.len() - line.trim_start().len()) / 8);
        if text == "/*" {
            let doc: Vec<&str> = lines
                .by_ref()
                .map(str::trim)
                .take_while(|line| *line != "*/")
                .collect();
            out.push_str(&comment::block(&indent, &doc.join("\n"), names));
            continue;
        }
        if text.is_empty() && out.ends_with("\n\n") {
            continue;
        }
        let (head, rest) = text.split_once(' ').unwrap_or((text, ""));
        match TYPES.iter().find(|(from, _)| *from == head) {
            Some((_, to)) => out.push_str(&format!("{indent}{to} {rest}\n")),
            None if text.is_empty() => out.push('\n'),
            None => out.push_str(&format!("{indent}{text}\n")),
        }
    }
    out
}
