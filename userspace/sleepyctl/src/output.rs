// SPDX-License-Identifier: GPL-2.0-only

//! What is printed: text for people, JSON for scripts.

use std::fmt::Display;
use std::io::{ErrorKind, Write};

use serde::Serialize;

use crate::error::{Error, Result, one_line};

/// Version of everything that is printed as JSON.
const SCHEMA_VERSION: u32 = 1;

/// How to print.
#[derive(Clone, Copy)]
pub struct Output {
    /// JSON in place of text.
    pub json: bool,
}

#[derive(Serialize)]
struct Document<T> {
    schema_version: u32,
    #[serde(flatten)]
    body: T,
}

impl Output {
    /// Prints `body` as JSON on one line, or `text`, whose lines may quote anything.
    pub fn print(&self, body: impl Serialize, text: impl FnOnce() -> String) -> Result<()> {
        self.print_on(body, text).map(drop)
    }

    /// The same; returns whether somebody reads on.
    pub fn print_on(&self, body: impl Serialize, text: impl FnOnce() -> String) -> Result<bool> {
        write(&if self.json {
            json(body) + "\n"
        } else {
            text()
                .split('\n')
                .map(one_line)
                .collect::<Vec<_>>()
                .join("\n")
        })
    }
}

/// A JSON document on one line.
pub fn json(body: impl Serialize) -> String {
    let document = Document {
        schema_version: SCHEMA_VERSION,
        body,
    };
    serde_json::to_string(&document).expect("every body is an object with keys of text")
}

/// An error as JSON has it.
#[derive(Serialize)]
pub struct ErrorJson<'a> {
    message: &'a str,
    exit: u8,
}

impl<'a> From<&'a Error> for ErrorJson<'a> {
    fn from(error: &'a Error) -> Self {
        Self {
            message: &error.message,
            exit: error.exit as u8,
        }
    }
}

/// `1 file`, `2 files`
pub fn counted(number: usize, thing: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {thing}{plural}")
}

/// A text behind a head, in as many lines of 80 columns as it takes; a line ends with `break_after`.
pub fn hang(head: &str, text: &str, break_after: &str) -> String {
    const COLUMNS: usize = 80;
    let indent = head.chars().count();
    let mut lines = vec![(indent, head.to_string())];
    for part in text.split_inclusive(break_after) {
        let (width, line) = lines.last_mut().expect("there is a first one");
        let (long, whole) = (part.trim_end().chars().count(), part.chars().count());
        if *width + long > COLUMNS && *width > indent {
            lines.push((indent + whole, format!("{:indent$}{part}", "")));
        } else {
            *width += whole;
            line.push_str(part);
        }
    }
    let line = |(_, line): &(usize, String)| format!("{}\n", line.trim_end());
    lines.iter().map(line).collect()
}

/// Writes to standard output, as it is; returns whether somebody reads on. That nobody does is no error:
/// `sleepyctl stats --watch 1 | head`.
pub fn write(text: &str) -> Result<bool> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Error::failed(format!("standard output: {error}"))),
    }
}

/// Says something beside that, on standard error, in a line. Where it cannot be said, the exit code is left.
pub fn say(message: impl Display) {
    let _ = writeln!(std::io::stderr(), "{}", one_line(message.to_string()));
}

/// Where a column's text stands.
#[derive(Clone, Copy, PartialEq)]
pub enum Align {
    /// For words.
    Left,
    /// For numbers.
    Right,
}

/// Columns as wide as their widest text, two blanks between them; no blanks at a line's end.
pub struct Table {
    align: Vec<Align>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these heads.
    pub fn new(heads: &[(&str, Align)]) -> Self {
        let row = heads.iter().map(|(head, _)| (*head).to_string()).collect();
        Self {
            align: heads.iter().map(|(_, align)| *align).collect(),
            rows: vec![row],
        }
    }

    /// One more line.
    pub fn row(&mut self, row: Vec<String>) {
        assert_eq!(row.len(), self.align.len(), "a text for each column");
        self.rows.push(row);
    }

    /// The lines, each after `indent`.
    pub fn text(&self, indent: &str) -> String {
        let width = |column: usize| {
            self.rows
                .iter()
                .map(|row| row[column].chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.align.len()).map(width).collect();
        let cell = |(i, text): (usize, &String)| match self.align[i] {
            Align::Left => format!("{text:<0$}", widths[i]),
            Align::Right => format!("{text:>0$}", widths[i]),
        };
        let line = |row: &Vec<String>| {
            let cells: Vec<String> = row.iter().enumerate().map(cell).collect();
            format!("{indent}{}", cells.join("  "))
                .trim_end()
                .to_string()
                + "\n"
        };
        self.rows.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new(&[
            ("NAME", Align::Left),
            ("ID", Align::Right),
            ("STATE", Align::Left),
        ]);
        table.row(vec!["a".into(), "1".into(), "awake".into()]);
        table.row(vec!["longer".into(), "100".into(), String::new()]);
        assert_eq!(
            table.text(" "),
            " NAME     ID  STATE\n a         1  awake\n longer  100\n"
        );
    }

    #[test]
    fn long_texts_hang() {
        assert_eq!(hang("  a  ", "b c", " "), "  a  b c\n");
        assert_eq!(hang("  a  ", "", " "), "  a\n");
        let text = hang("  head  ", &"word, ".repeat(20), ", ");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(lines[0].starts_with("  head  word, word,") && lines[0].len() <= 80);
        assert!(lines[1].starts_with("        word, word,") && lines[1].len() <= 80);
        let word = "x".repeat(100);
        assert_eq!(hang("  head  ", &word, " "), format!("  head  {word}\n"));
    }

    #[test]
    fn every_document_has_a_version() {
        #[derive(Serialize)]
        struct Body {
            vms: [u32; 0],
        }
        assert_eq!(json(Body { vms: [] }), r#"{"schema_version":1,"vms":[]}"#);
    }
}
