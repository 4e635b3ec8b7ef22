// SPDX-License-Identifier: GPL-2.0-only

//! What is wrong in manifests, and where.

use std::fmt;

use serde::Serialize;

use crate::error::one_line;

/// A place in a manifest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Spot {
    /// Which file, as [`Report::file`] has numbered it.
    pub file: usize,
    /// The byte in it.
    pub at: usize,
}

/// A value, and where it stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Spotted<T> {
    /// The value.
    pub value: T,
    /// Where.
    pub spot: Spot,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The manifest is not applied.
    Error,
    /// It is, but perhaps this was not meant.
    Warning,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// The file, as it was named.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The character in the line, from 1.
    pub column: usize,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, and the remedy.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let Self {
            file,
            line,
            column,
            message,
            ..
        } = self;
        write!(f, "{file}:{line}:{column}: {severity}: {message}")
    }
}

/// Files, and what was found in them so far.
#[derive(Default)]
pub struct Report {
    files: Vec<File>,
    found: Vec<(Spot, Severity, String)>,
    errors: usize,
    broken: Vec<Spot>,
}

struct File {
    name: String,
    text: String,
    /// Where its lines begin.
    lines: Vec<usize>,
}

impl Report {
    /// Begins a file; returns its number.
    pub fn file(&mut self, name: &str, text: &str) -> usize {
        let ends = text.match_indices('\n').map(|(at, _)| at + 1);
        self.files.push(File {
            name: one_line(name),
            text: text.to_string(),
            lines: [0].into_iter().chain(ends).collect(),
        });
        self.files.len() - 1
    }

    /// How many files there are.
    pub fn files(&self) -> usize {
        self.files.len()
    }

    /// How much was found so far.
    pub fn found(&self) -> usize {
        self.found.len()
    }

    /// Takes back all but the first so many.
    pub fn forget(&mut self, found: usize) {
        self.found.truncate(found);
        let is_error = |found: &&(Spot, Severity, String)| found.1 == Severity::Error;
        self.errors = self.found.iter().filter(is_error).count();
    }

    /// Something that must not be.
    pub fn error(&mut self, spot: Spot, message: impl Into<String>) {
        self.found.push((spot, Severity::Error, one_line(message)));
        self.errors += 1;
    }

    /// Something that is perhaps not meant.
    pub fn warning(&mut self, spot: Spot, message: impl Into<String>) {
        self.found
            .push((spot, Severity::Warning, one_line(message)));
    }

    /// This is no TOML. What else is found in the line follows from it, and is not told.
    pub fn broken(&mut self, spot: Spot, message: impl Into<String>) {
        let line = |spot: Spot| (spot.file, self.line_and_column(spot).0);
        if self.broken.iter().all(|other| line(*other) != line(spot)) {
            self.broken.push(spot);
            self.error(spot, message);
        }
    }

    /// How many errors were found so far, whatever follows from what.
    pub fn errors(&self) -> usize {
        self.errors
    }

    /// How many of them there are.
    pub fn count(&self, severity: Severity) -> usize {
        self.findings()
            .iter()
            .filter(|finding| finding.severity == severity)
            .count()
    }

    /// Whether nothing may be applied.
    pub fn has_errors(&self) -> bool {
        self.errors > 0
    }

    /// `FILE:LINE`, for a message that speaks of another place.
    pub fn place(&self, spot: Spot) -> String {
        let (line, _) = self.line_and_column(spot);
        format!("{}:{line}", self.files[spot.file].name)
    }

    /// Everything, by place; what was found twice is told once.
    pub fn findings(&self) -> Vec<Finding> {
        let line = |spot: Spot| (spot.file, self.line_and_column(spot).0);
        let broken: Vec<_> = self.broken.iter().map(|spot| line(*spot)).collect();
        let mut found: Vec<_> = self
            .found
            .iter()
            .filter(|(spot, ..)| {
                broken.is_empty() || self.broken.contains(spot) || !broken.contains(&line(*spot))
            })
            .collect();
        found.sort_by(|a, b| (a.0, &a.2).cmp(&(b.0, &b.2)));
        found.dedup();
        let finding = |(spot, severity, message): &(Spot, Severity, String)| {
            let (line, column) = self.line_and_column(*spot);
            Finding {
                file: self.files[spot.file].name.clone(),
                line,
                column,
                severity: *severity,
                message: message.clone(),
            }
        };
        found.into_iter().map(finding).collect()
    }

    fn line_and_column(&self, spot: Spot) -> (usize, usize) {
        let File { text, lines, .. } = &self.files[spot.file];
        let at = boundary(text, spot.at);
        let line = lines.partition_point(|start| *start <= at);
        let start = lines[line - 1];
        (line, text[start..at].chars().count() + 1)
    }
}

/// The last place at or before `at` where a character begins.
fn boundary(text: &str, at: usize) -> usize {
    (0..=at.min(text.len()))
        .rev()
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_sorted_and_told_once() {
        let mut report = Report::default();
        let file = report.file("a.toml", "x = 1\n\u{e4} = 22\n");
        let spot = |at| Spot { file, at };
        report.warning(spot(11), "second");
        report.error(spot(4), "first");
        report.error(spot(4), "first, too");
        report.error(spot(4), "first");
        let lines: Vec<String> = report.findings().iter().map(Finding::to_string).collect();
        assert_eq!(
            lines,
            [
                "a.toml:1:5: error: first",
                "a.toml:1:5: error: first, too",
                "a.toml:2:5: warning: second"
            ]
        );
        assert_eq!(report.place(spot(11)), "a.toml:2");
        assert!(report.has_errors());
    }

    #[test]
    fn broken_line_has_one_finding() {
        let mut report = Report::default();
        let file = report.file("a.toml", "x = = 1\ny\n");
        report.broken(Spot { file, at: 4 }, "no TOML");
        report.broken(Spot { file, at: 6 }, "no TOML either");
        report.error(Spot { file, at: 0 }, "x is missing");
        report.error(Spot { file, at: 8 }, "y");
        let messages: Vec<String> = report.findings().into_iter().map(|f| f.message).collect();
        assert_eq!(messages, ["no TOML", "y"]);
    }
}
