// SPDX-License-Identifier: GPL-2.0-only

//! How each system looks: its family by line and fill, itself by marker, both by colour for those who see it.

use plotters::element::DashedPathElement;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::{FONT, Root};
use crate::Result;

/// Radius.
const MARKER: i32 = 12;

#[derive(Clone, Copy)]
enum Marker {
    Circle,
    Square,
    Up,
    Down,
    Diamond,
}

/// Lengths of a dash and of the gap after it.
type Dash = Option<(i32, i32)>;

/// Of a line with markers.
#[derive(Clone, Copy)]
pub struct Style {
    pub color: RGBColor,
    width: u32,
    dash: Dash,
    marker: Marker,
    filled: bool,
}

const KERNEL: Style = style(RGBColor(0, 0, 0), 3, None, Marker::Circle, false);
const OTHER: Style = style(
    RGBColor(130, 130, 130),
    3,
    Some((24, 12)),
    Marker::Circle,
    false,
);
/// The bound that nobody is below.
pub const LIMIT: Style = style(RGBColor(0, 0, 0), 6, Some((30, 10)), Marker::Circle, false);

const fn style(color: RGBColor, width: u32, dash: Dash, marker: Marker, filled: bool) -> Style {
    Style {
        color,
        width,
        dash,
        marker,
        filled,
    }
}

impl Style {
    /// A system's.
    pub fn of(system: &str) -> Self {
        let scx = |color, marker| style(color, 3, Some((5, 9)), marker, false);
        let sleepy = |color, marker| style(color, 4, None, marker, true);
        match system {
            "eevdf" => KERNEL,
            "eevdf-tuned" => Self {
                color: RGBColor(110, 110, 110),
                marker: Marker::Square,
                ..KERNEL
            },
            "controller" => Self {
                color: RGBColor(170, 70, 130),
                marker: Marker::Diamond,
                ..OTHER
            },
            "scx_bpfland" => scx(RGBColor(86, 180, 233), Marker::Up),
            "scx_lavd" => scx(RGBColor(0, 114, 178), Marker::Down),
            "scx_flash" => scx(RGBColor(20, 50, 140), Marker::Square),
            "sleepy-nice" => sleepy(RGBColor(230, 159, 0), Marker::Circle),
            "sleepy-idle" => sleepy(RGBColor(160, 110, 40), Marker::Square),
            "sleepy-cgroup" => sleepy(RGBColor(0, 158, 115), Marker::Up),
            "sleepy-park" => sleepy(RGBColor(213, 50, 0), Marker::Diamond),
            "sleepy-auto" => sleepy(RGBColor(0, 100, 70), Marker::Down),
            _ => OTHER,
        }
    }

    /// Draws a line through these pixels.
    pub fn line(&self, root: &Root, points: &[(i32, i32)]) -> Result<()> {
        let pen = self.color.stroke_width(self.width);
        match self.dash {
            None => root.draw(&PathElement::new(points, pen))?,
            Some((dash, gap)) => {
                root.draw(&DashedPathElement::new(
                    points.iter().copied(),
                    dash,
                    gap,
                    pen,
                ))?;
            }
        }
        Ok(())
    }

    /// Draws the marker around a pixel.
    pub fn marker(&self, root: &Root, (x, y): (i32, i32)) -> Result<()> {
        let inside = if self.filled { self.color } else { WHITE }.filled();
        let edge = self.color.stroke_width(3);
        let r = MARKER;
        let corners = match self.marker {
            Marker::Circle => {
                root.draw(&Circle::new((x, y), r - 1, inside))?;
                root.draw(&Circle::new((x, y), r - 1, edge))?;
                return Ok(());
            }
            Marker::Square => vec![
                (-r + 2, -r + 2),
                (r - 2, -r + 2),
                (r - 2, r - 2),
                (-r + 2, r - 2),
            ],
            Marker::Up => vec![(0, -r), (r, r - 3), (-r, r - 3)],
            Marker::Down => vec![(0, r), (r, 3 - r), (-r, 3 - r)],
            Marker::Diamond => vec![(0, -r - 2), (r + 2, 0), (0, r + 2), (-r - 2, 0)],
        };
        let mut corners: Vec<_> = corners
            .into_iter()
            .map(|(dx, dy)| (x + dx, y + dy))
            .collect();
        root.draw(&Polygon::new(corners.clone(), inside))?;
        corners.extend_from_within(..2);
        root.draw(&PathElement::new(corners, edge))?;
        Ok(())
    }
}

/// Writes a line of text, with its anchor at this pixel.
pub fn text(root: &Root, text: &str, at: (i32, i32), color: RGBColor, anchor: Pos) -> Result<()> {
    let style = ("sans-serif", FONT).into_font().color(&color).pos(anchor);
    root.draw(&Text::new(text.to_owned(), at, style))?;
    Ok(())
}

/// The same from the bottom up, with its middle at this pixel.
pub fn text_upwards(root: &Root, text: &str, at: (i32, i32)) -> Result<()> {
    let font = ("sans-serif", FONT)
        .into_font()
        .transform(FontTransform::Rotate270);
    root.draw(&Text::new(
        text.to_owned(),
        at,
        font.color(&BLACK).pos(MIDDLE),
    ))?;
    Ok(())
}

/// Left, in the middle of its height.
pub const LEFT: Pos = Pos {
    h_pos: HPos::Left,
    v_pos: VPos::Center,
};
/// The same at its right end.
pub const RIGHT: Pos = Pos {
    h_pos: HPos::Right,
    v_pos: VPos::Center,
};
/// The same in its middle.
pub const MIDDLE: Pos = Pos {
    h_pos: HPos::Center,
    v_pos: VPos::Center,
};
