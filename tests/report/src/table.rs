// SPDX-License-Identifier: GPL-2.0-only

//! Text of at most 80 columns.

use std::fmt::Write;

use textwrap::Options;

/// Columns of a line.
pub const WIDTH: usize = 80;
/// A longer name is on a line of its own.
const LONGEST_NAME: usize = 28;

/// Appends a paragraph; its lines but the first are indented as its first word after `first` is.
pub fn paragraph(out: &mut String, first: &str, text: &str) {
    let indent = " ".repeat(textwrap::core::display_width(first));
    let options = Options::new(WIDTH)
        .initial_indent(first)
        .subsequent_indent(&indent);
    // What comes from elsewhere may have lines of its own.
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for line in textwrap::wrap(&text, options) {
        let _ = writeln!(out, "{}", line.trim_end());
    }
}

/// Appends a heading.
pub fn heading(out: &mut String, text: &str) {
    out.push('\n');
    let start = out.len();
    paragraph(out, "", text);
    let longest = out[start..]
        .lines()
        .map(textwrap::core::display_width)
        .max();
    let _ = writeln!(out, "{}\n", "-".repeat(longest.unwrap_or(0)));
}

/// A table: a name in the first column, figures, aligned at their right, in the others.
pub struct Table {
    /// Of the figures.
    widths: Vec<usize>,
    head: Vec<Vec<&'static str>>,
    rows: Vec<(String, Line)>,
}

enum Line {
    Figures(Vec<String>),
    /// Why there are none.
    Text(String),
}

impl Table {
    /// With these widths of the figures, without the blank before them, and these lines of the heads of all columns.
    pub fn new(widths: &[usize], head: &[&[&'static str]]) -> Self {
        Self {
            widths: widths.to_vec(),
            head: head.iter().map(|line| line.to_vec()).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row; without a figure, there is a `-`.
    pub fn figures(&mut self, name: &str, figures: Vec<Option<String>>) {
        let figures = figures
            .into_iter()
            .map(|figure| figure.unwrap_or_else(|| "-".into()));
        self.rows
            .push((name.into(), Line::Figures(figures.collect())));
    }

    /// Adds a row with words in place of figures, or after those of the same name.
    pub fn text(&mut self, name: &str, text: String) {
        self.rows.push((name.into(), Line::Text(text)));
    }

    /// Appends it.
    pub fn print(&self, out: &mut String) {
        let names = self.rows.iter().map(|(name, _)| name.as_str());
        let heads = self.head.iter().map(|line| line[0]);
        let room = WIDTH - self.widths.iter().map(|width| width + 1).sum::<usize>();
        let width = names
            .chain(heads)
            .map(textwrap::core::display_width)
            .filter(|width| *width <= LONGEST_NAME.min(room))
            .max()
            .unwrap_or(0);
        for line in &self.head {
            let figures: Vec<String> = line[1..].iter().map(|head| (*head).into()).collect();
            self.line(out, width, line[0], &figures);
        }
        let mut last = None;
        for (name, line) in &self.rows {
            match line {
                Line::Figures(figures) => self.line(out, width, name, figures),
                Line::Text(text) => {
                    let name = if last == Some(name) { "" } else { name };
                    let first = format!("{} ", fitted(out, name, width));
                    paragraph(out, &first, text);
                }
            }
            last = Some(name);
        }
    }

    fn line(&self, out: &mut String, width: usize, name: &str, figures: &[String]) {
        let mut line = fitted(out, name, width);
        for (figure, width) in figures.iter().zip(&self.widths) {
            let _ = write!(line, " {figure:>width$}");
        }
        let _ = writeln!(out, "{}", line.trim_end());
    }
}

/// The name as wide as its column; one that is too long is printed before.
fn fitted(out: &mut String, name: &str, width: usize) -> String {
    let long = textwrap::core::display_width(name) > width;
    if long {
        paragraph(out, "", name);
    }
    format!("{:width$}", if long { "" } else { name })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns() {
        let mut table = Table::new(&[5, 4], &[&["name", "p50", "idle"]]);
        table.figures("eevdf", vec![Some("1.2ms".into()), None]);
        table.text("eevdf", "partly".into());
        table.text("scx_lavd", "no\nsched_ext".into());
        let mut out = String::new();
        table.print(&mut out);
        let wanted = [
            "name       p50 idle",
            "eevdf    1.2ms    -",
            "         partly",
            "scx_lavd no sched_ext",
        ];
        assert_eq!(out.lines().collect::<Vec<_>>(), wanted);
    }

    #[test]
    fn long_words_are_broken() {
        let mut table = Table::new(&[10], &[&["name", "value"]]);
        table.figures(&"n".repeat(200), vec![Some("1".into())]);
        table.text("short", "e".repeat(300));
        let mut out = String::new();
        table.print(&mut out);
        heading(&mut out, &"h".repeat(100));
        assert!(
            out.lines().all(|line| line.chars().count() <= WIDTH),
            "{out}"
        );
        assert_eq!(out.matches('e').count(), 301 + 1);
    }
}
