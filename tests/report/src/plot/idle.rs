// SPDX-License-Identifier: GPL-2.0-only

//! What the CPU time went into: a panel for each number of chains, a bar for each system.

use plotters::prelude::*;

use super::style::{self, LEFT, MIDDLE, RIGHT};
use super::{Root, Series, WIDTH, drawing};
use crate::Result;
use crate::summary::Row;

/// The systems' names are left of this.
const LEFT_EDGE: i32 = 300;
/// Above the panels: title, legend, what each panel is of.
const TOP: i32 = 184;
const LEGEND_STEP: usize = 440;
/// Below them: axes.
const BOTTOM: i32 = 120;
const ROW: i32 = 48;
const BAR: i32 = 32;
/// Right of each panel, for a figure.
const FIGURE: i32 = 90;
const GREY: RGBColor = RGBColor(120, 120, 120);

/// What a bar is made of, in this order.
#[derive(Clone, Copy)]
enum Part {
    Useful,
    Awake,
    Sleepy,
}

const PARTS: [(Part, &str); 3] = [
    (Part::Useful, "a request in flight"),
    (Part::Awake, "idle, awake"),
    (Part::Sleepy, "idle, sleepy"),
];

/// The SVG.
pub fn draw(series: &Series) -> Result<String> {
    let mut systems: Vec<&str> = Vec::new();
    // The longest list first: all others have a part of it, in the same order.
    let mut lists: Vec<&Vec<&Row>> = series.points.iter().map(|(_, rows)| rows).collect();
    lists.sort_by_key(|rows| std::cmp::Reverse(rows.len()));
    for row in lists.into_iter().flatten() {
        if !systems.contains(&row.system.as_str()) {
            systems.push(&row.system);
        }
    }
    let height = TOP + ROW * systems.len() as i32 + BOTTOM;
    drawing(height as u32, |root| plot(root, series, &systems))
}

fn plot(root: &Root, series: &Series, systems: &[&str]) -> Result<()> {
    style::text(root, &series.title(), (WIDTH as i32 / 2, 34), BLACK, MIDDLE)?;
    legend(root)?;
    let head = "chains (vCPUs:CPU)";
    style::text(root, head, (LEFT_EDGE - 16, TOP - 24), BLACK, RIGHT)?;
    let middle = |line: usize| TOP + ROW * line as i32 + ROW / 2;
    for (line, system) in systems.iter().enumerate() {
        style::text(root, system, (LEFT_EDGE - 16, middle(line)), BLACK, RIGHT)?;
    }
    let panels = series.points.len() as i32;
    let step = (WIDTH as i32 - LEFT_EDGE - 10) / panels;
    let width = step - FIGURE;
    let bottom = TOP + ROW * systems.len() as i32;
    for (left, (cell, rows)) in (LEFT_EDGE..).step_by(step as usize).zip(&series.points) {
        let head = format!("{} ({}:1)", cell.chains, cell.overcommit);
        style::text(root, &head, (left + width / 2, TOP - 24), BLACK, MIDDLE)?;
        for (line, system) in systems.iter().enumerate() {
            let row = rows.iter().find(|row| row.system == *system);
            bar(
                root,
                row.and_then(|row| row.shares),
                left,
                width,
                middle(line),
            )?;
        }
        axis(root, left, width, bottom)?;
    }
    let text = "share of the microVMs' CPU time, in % (beside each bar: all that is idle)";
    let center = (LEFT_EDGE + WIDTH as i32) / 2;
    style::text(root, text, (center, bottom + 92), BLACK, MIDDLE)
}

fn legend(root: &Root) -> Result<()> {
    for (x, (part, name)) in (LEFT_EDGE..).step_by(LEGEND_STEP).zip(PARTS) {
        fill(root, part, [(x, 76), (x + 56, 76 + BAR)])?;
        style::text(root, name, (x + 70, 92), BLACK, LEFT)?;
    }
    Ok(())
}

/// One, and the idle share beside it.
fn bar(root: &Root, shares: Option<[f64; 3]>, left: i32, width: i32, middle: i32) -> Result<()> {
    let Some(shares) = shares else {
        return style::text(root, "not run", (left + 8, middle), GREY, LEFT);
    };
    let (top, bottom) = (middle - BAR / 2, middle + BAR / 2);
    let mut sum = 0.0;
    for (share, (part, _)) in shares.into_iter().zip(PARTS) {
        let at = |sum: f64| left + (sum * f64::from(width)).round() as i32;
        let from = at(sum);
        sum += share;
        if at(sum) > from {
            fill(root, part, [(from, top), (at(sum), bottom)])?;
        }
    }
    let idle = (shares[1] + shares[2]) * 100.0;
    let text = if idle < 9.95 {
        format!("{idle:.1}")
    } else {
        format!("{idle:.0}")
    };
    style::text(root, &text, (left + width + 10, middle), BLACK, LEFT)
}

/// Dark, hatched or light: to be told apart without colours.
fn fill(root: &Root, part: Part, corners: [(i32, i32); 2]) -> Result<()> {
    let color = match part {
        Part::Useful => RGBColor(45, 75, 110),
        Part::Awake => WHITE,
        Part::Sleepy => RGBColor(205, 205, 205),
    };
    root.draw(&Rectangle::new(corners, color.filled()))?;
    if let Part::Awake = part {
        hatch(root, corners)?;
    }
    root.draw(&Rectangle::new(corners, BLACK.stroke_width(2)))?;
    Ok(())
}

fn hatch(root: &Root, [(left, top), (right, bottom)]: [(i32, i32); 2]) -> Result<()> {
    let height = bottom - top;
    // All bars have the same pattern, wherever they begin.
    let first = left - left.rem_euclid(12) - height / 12 * 12 - 12;
    for foot in (first..right).step_by(12) {
        // From (foot, bottom) up and right, as far as it is within.
        let (from, to) = ((left - foot).max(0), (right - foot).min(height));
        if from < to {
            let ends = [from, to].map(|along| (foot + along, bottom - along));
            root.draw(&PathElement::new(
                ends,
                RGBColor(190, 60, 20).stroke_width(3),
            ))?;
        }
    }
    Ok(())
}

fn axis(root: &Root, left: i32, width: i32, top: i32) -> Result<()> {
    let pen = BLACK.stroke_width(2);
    root.draw(&PathElement::new([(left, top), (left + width, top)], pen))?;
    for share in [0, 50, 100] {
        let x = left + width * share / 100;
        root.draw(&PathElement::new([(x, top), (x, top + 10)], pen))?;
        style::text(root, &share.to_string(), (x, top + 34), BLACK, MIDDLE)?;
    }
    Ok(())
}
