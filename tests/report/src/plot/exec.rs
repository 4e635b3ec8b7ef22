// SPDX-License-Identifier: GPL-2.0-only

//! Execution time over the number of chains, one line for each system, and the limit; both axes are logarithmic.

use std::collections::BTreeMap;
use std::ops::Range;

use plotters::prelude::*;

use super::style::{self, LEFT, LIMIT, MIDDLE, RIGHT, Style};
use super::{Root, Series, WIDTH, drawing};
use crate::Result;
use crate::text::ns;

const HEIGHT: u32 = 1040;
/// Where the axes are; the lines' names are right of them.
const LEFT_EDGE: i32 = 150;
const RIGHT_EDGE: i32 = WIDTH as i32 - 370;
const TOP: i32 = 80;
const BOTTOM: i32 = HEIGHT as i32 - 130;
const MIDDLE_X: i32 = (LEFT_EDGE + RIGHT_EDGE) / 2;
/// From one label to the next.
const LABEL_STEP: i32 = 50;

/// What a line is made of: chains, and the median with what the repetitions' medians spread.
struct Point {
    chains: f64,
    time: f64,
    spread: f64,
}

struct Line<'a> {
    name: &'a str,
    style: Style,
    points: Vec<Point>,
}

/// The SVG; `None` if nothing was measured.
pub fn draw(series: &Series) -> Result<Option<String>> {
    // Without one chain alone, there is nothing but the time itself.
    let (unit, label) = match series.alone {
        Some(alone) => (
            alone as f64,
            format!(
                "execution time (p50), in that of one chain alone ({})",
                ns(alone)
            ),
        ),
        None => (1e9, "execution time (p50), in seconds".into()),
    };
    let lines = lines(series, unit);
    let all = || lines.iter().flat_map(|line| &line.points);
    let least = all().map(|point| point.time).fold(f64::INFINITY, f64::min);
    let most = all()
        .map(|point| point.time + point.spread)
        .fold(0.0, f64::max);
    if most == 0.0 {
        return Ok(None);
    }
    // Never so narrow that noise looks like an effect.
    let times = least * 0.85..(most * 1.15).max(least * 2.0);
    drawing(HEIGHT, |root| plot(root, series, &lines, &label, times)).map(Some)
}

fn lines<'a>(series: &Series<'a>, unit: f64) -> Vec<Line<'a>> {
    let mut by_system: BTreeMap<&str, Vec<Point>> = BTreeMap::new();
    let mut limit = Vec::new();
    for (cell, rows) in &series.points {
        let chains = f64::from(cell.chains);
        let at = |time, spread| Point {
            chains,
            time,
            spread,
        };
        limit.extend(rows[0].limit_exec_ns.map(|ns| at(ns as f64 / unit, 0.0)));
        for row in rows {
            if let Some(ns) = row.exec_ns.p50 {
                let spread = row.exec_ns.spread.unwrap_or(0) as f64;
                let points = by_system.entry(&row.system).or_default();
                points.push(at(ns as f64 / unit, spread / unit));
            }
        }
    }
    let limit = Line {
        name: "limit",
        style: LIMIT,
        points: limit,
    };
    let systems = by_system.into_iter().map(|(name, points)| Line {
        name,
        style: Style::of(name),
        points,
    });
    std::iter::once(limit)
        .chain(systems)
        .filter(|line| !line.points.is_empty())
        .collect()
}

/// Where values are on the sheet.
struct Axes {
    chains: Range<f64>,
    times: Range<f64>,
}

impl Axes {
    fn x(&self, chains: f64) -> i32 {
        along(&self.chains, chains, LEFT_EDGE, RIGHT_EDGE)
    }

    fn y(&self, time: f64) -> i32 {
        along(&self.times, time, BOTTOM, TOP)
    }

    fn pixel(&self, point: &Point) -> (i32, i32) {
        (self.x(point.chains), self.y(point.time))
    }

    fn draw(&self, root: &Root, series: &Series, label: &str) -> Result<()> {
        let pen = BLACK.stroke_width(2);
        for time in time_ticks(&self.times) {
            let y = self.y(time);
            let grid = RGBColor(215, 215, 215).stroke_width(2);
            root.draw(&PathElement::new([(LEFT_EDGE, y), (RIGHT_EDGE, y)], grid))?;
            style::text(root, &plain(time), (LEFT_EDGE - 16, y), BLACK, RIGHT)?;
        }
        for (cell, _) in &series.points {
            let x = self.x(f64::from(cell.chains));
            root.draw(&PathElement::new([(x, BOTTOM), (x, BOTTOM + 10)], pen))?;
            let tick = format!("{} ({}:1)", cell.chains, cell.overcommit);
            style::text(root, &tick, (x, BOTTOM + 36), BLACK, MIDDLE)?;
        }
        let corner = [(LEFT_EDGE, TOP), (LEFT_EDGE, BOTTOM), (RIGHT_EDGE, BOTTOM)];
        root.draw(&PathElement::new(corner, pen))?;
        let text = "chains, all asked at once (vCPUs to a CPU)";
        style::text(root, text, (MIDDLE_X, BOTTOM + 92), BLACK, MIDDLE)?;
        style::text_upwards(root, label, (34, (TOP + BOTTOM) / 2))
    }
}

/// By the logarithm.
fn along(range: &Range<f64>, value: f64, from: i32, to: i32) -> i32 {
    let part = (value / range.start).ln() / (range.end / range.start).ln();
    from + (part * f64::from(to - from)).round() as i32
}

fn plot(
    root: &Root,
    series: &Series,
    lines: &[Line],
    label: &str,
    times: Range<f64>,
) -> Result<()> {
    style::text(root, &series.title(), (MIDDLE_X, 34), BLACK, MIDDLE)?;
    let chains = |index: usize| f64::from(series.points[index].0.chains);
    let (least, most) = (chains(0), chains(series.points.len() - 1));
    let margin = (most / least).powf(0.03);
    let axes = Axes {
        chains: least / margin..most * margin,
        times,
    };
    axes.draw(root, series, label)?;
    for line in lines {
        let points: Vec<_> = line.points.iter().map(|point| axes.pixel(point)).collect();
        line.style.line(root, &points)?;
    }
    for line in lines.iter().filter(|line| line.name != "limit") {
        for point in &line.points {
            let (low, high) = (point.time - point.spread, point.time + point.spread);
            let x = axes.x(point.chains);
            let ends = [low.max(axes.times.start), high].map(|time| (x, axes.y(time)));
            root.draw(&PathElement::new(ends, line.style.color.stroke_width(3)))?;
        }
        for point in &line.points {
            line.style.marker(root, axes.pixel(point))?;
        }
    }
    let ends = lines
        .iter()
        .filter_map(|line| Some((line, axes.pixel(line.points.last()?))));
    labels(root, ends.collect())
}

/// Each line's name beside its end; where they would cover each other, they make way.
fn labels(root: &Root, mut ends: Vec<(&Line, (i32, i32))>) -> Result<()> {
    let left = RIGHT_EDGE;
    ends.sort_by_key(|(_, (_, y))| *y);
    let wanted: Vec<i32> = ends.iter().map(|(_, (_, y))| *y).collect();
    let places = apart(&wanted, LABEL_STEP, TOP..BOTTOM + 60);
    let latest = ends.iter().map(|(_, (x, _))| *x).max();
    for ((line, (x, y)), place) in ends.into_iter().zip(places) {
        let color = RGBColor(170, 170, 170);
        if Some(x) == latest {
            let leader = [(x + 16, y), (left + 6, y), (left + 34, place)];
            root.draw(&PathElement::new(leader, color.stroke_width(1)))?;
        }
        line.style
            .line(root, &[(left + 40, place), (left + 108, place)])?;
        if line.name != "limit" {
            line.style.marker(root, (left + 74, place))?;
        }
        style::text(root, line.name, (left + 120, place), BLACK, LEFT)?;
    }
    Ok(())
}

/// Places near those wanted, which rise, that are this far from each other.
fn apart(wanted: &[i32], step: i32, range: Range<i32>) -> Vec<i32> {
    let mut places = wanted.to_vec();
    // As springs would: neighbours that are too close push each other away by the same distance.
    for _ in 0..1000 {
        for i in 1..places.len() {
            let missing = step - (places[i] - places[i - 1]);
            if missing > 0 {
                places[i - 1] -= missing / 2;
                places[i] += missing - missing / 2;
            }
        }
    }
    let below = places.last().map_or(0, |last| (last - range.end).max(0));
    let above = places
        .first()
        .map_or(0, |first| (range.start - first + below).max(0));
    places.iter().map(|place| place - below + above).collect()
}

/// Round times.
fn time_ticks(times: &Range<f64>) -> Vec<f64> {
    let steps: &[f64] = match times.end / times.start {
        ratio if ratio > 1000.0 => &[1.0],
        ratio if ratio > 5.0 => &[1.0, 2.0, 5.0],
        _ => &[1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0],
    };
    (-9..9)
        .flat_map(|power| steps.iter().map(move |step| step * 10f64.powi(power)))
        .filter(|time| times.contains(time))
        .collect()
}

/// Without the zeros that say nothing.
fn plain(value: f64) -> String {
    let text = format!("{value:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_do_not_touch() {
        let places = apart(&[100, 101, 102, 400, 990], 50, 0..1000);
        assert!(
            places.windows(2).all(|pair| pair[1] - pair[0] >= 49),
            "{places:?}"
        );
        assert!(
            (places[1] - 101).abs() < 5 && places[3] == 400,
            "{places:?}"
        );
        let places = apart(&[990; 11], 50, 0..1000);
        assert!(places[0] > 0 && places[10] <= 1000, "{places:?}");
    }

    #[test]
    fn ticks_are_round() {
        let shown = |range| {
            time_ticks(&range)
                .into_iter()
                .map(plain)
                .collect::<Vec<_>>()
        };
        assert_eq!(shown(0.85..30.0), ["1", "2", "5", "10", "20"]);
        assert_eq!(shown(0.9..2.0), ["1", "1.2", "1.5"]);
    }
}
