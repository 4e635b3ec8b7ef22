// SPDX-License-Identifier: GPL-2.0-only

//! Doc comments, from Markdown to the kernel's C comments.

use syn::{Expr, Lit, Meta};

use crate::names::Names;

const WIDTH: usize = 100;

/// The text of an item's doc comment.
pub fn docs(attrs: &[syn::Attribute]) -> String {
    let mut out = String::new();
    for attr in attrs {
        if let Meta::NameValue(meta) = &attr.meta
            && meta.path.is_ident("doc")
            && let Expr::Lit(expr) = &meta.value
            && let Lit::Str(line) = &expr.lit
        {
            let line = line.value();
            out.push_str(line.strip_prefix(' ').unwrap_or(&line));
            out.push('\n');
        }
    }
    out
}

/// A C comment of a doc comment's text, with a line's end.
pub fn block(indent: &str, doc: &str, names: &Names) -> String {
    let room = WIDTH - 8 * indent.len() - 3;
    let mut lines = Vec::new();
    for paragraph in doc.trim().split("\n\n") {
        if !lines.is_empty() {
            lines.push(String::new());
        }
        if paragraph.starts_with('|') {
            paragraph
                .lines()
                .filter_map(table_row)
                .for_each(|row| wrap(&plain(&row, names), "          ", room, &mut lines));
        } else if let Some(heading) = paragraph.strip_prefix("# ") {
            lines.push(format!("{heading}:"));
        } else {
            wrap(&plain(paragraph, names), "", room, &mut lines);
        }
    }
    if let [line] = &lines[..]
        && line.len() + 3 <= room
    {
        return format!("{indent}/* {line} */\n");
    }
    let body: String = lines
        .iter()
        .map(|line| format!("{indent} * {line}").trim_end().to_string() + "\n")
        .collect();
    format!("{indent}/*\n{body}{indent} */\n")
}

/// `| EPERM | a capability is missing |` to `EPERM  a capability is missing`; none of a table's head.
fn table_row(row: &str) -> Option<String> {
    let mut cells = row.trim_matches('|').split('|').map(str::trim);
    let (key, value) = (cells.next()?, cells.next()?);
    let key = key.strip_prefix('`')?.strip_suffix('`')?;
    Some(format!("{key:<9} {value}"))
}

/// Text without the marks of Markdown and rustdoc, and with the C names.
fn plain(doc: &str, names: &Names) -> String {
    let doc = doc.replace("[`", "`").replace("`]", "`");
    let parts = doc.split('`').enumerate();
    parts
        .map(|(i, part)| {
            if i % 2 == 1 {
                names.translate(part)
            } else {
                part.to_string()
            }
        })
        .collect()
}

/// Fills lines up to `room`; those after the first begin with `hang`.
fn wrap(text: &str, hang: &str, room: usize, lines: &mut Vec<String>) {
    let mut line = String::new();
    for word in text.split_inclusive(char::is_whitespace) {
        let word = word.replace('\n', " ");
        if !line.trim().is_empty() && line.len() + word.trim_end().len() > room {
            lines.push(
                std::mem::replace(&mut line, hang.to_string())
                    .trim_end()
                    .to_string(),
            );
        }
        line.push_str(&word);
    }
    lines.push(line.trim_end().to_string());
}
