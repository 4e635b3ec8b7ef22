// SPDX-License-Identifier: GPL-2.0-only

//! Plots over the number of chains, as SVG and PNG: execution times, and what the CPU time went into.

mod exec;
mod idle;
mod style;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;
use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{Options, Tree};
use sleepy_bench::record::Cell;

use crate::Result;
use crate::summary::{BURST, Row, one_chain};

/// In the SVG's units, of which there are many, as coordinates are whole; so high are letters.
const FONT: f64 = 34.0;
const WIDTH: u32 = 1600;

/// All of a drawing.
type Root<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// The same chain with guests that wait in the same way, by the number of chains.
struct Series<'a> {
    /// In rising order, each with the rows of its cell.
    points: Vec<(&'a Cell, Vec<&'a Row>)>,
    /// The execution time of one chain alone, in nanoseconds.
    alone: Option<u64>,
}

impl Series<'_> {
    fn cell(&self) -> &Cell {
        self.points[0].0
    }

    fn title(&self) -> String {
        let cell = self.cell();
        format!(
            "{} chain, {} input, guests wait by {}, {} object store",
            cell.chain, cell.input, cell.wait, cell.network
        )
    }
}

/// Writes the plots of all series.
pub fn write_all(dir: &Path, rows: &[Row]) -> Result<()> {
    for series in all_series(rows) {
        let Cell { chain, wait, .. } = series.cell();
        if let Some(svg) = exec::draw(&series)? {
            save(dir, &format!("exec-{chain}-{wait}"), &svg)?;
        }
        save(dir, &format!("idle-{chain}-{wait}"), &idle::draw(&series)?)?;
    }
    Ok(())
}

/// One for each chain and way to wait, where there is more than one number of chains: with the input and the network of
/// which there are most.
fn all_series(rows: &[Row]) -> Vec<Series<'_>> {
    type Points<'a> = BTreeMap<u32, (&'a Cell, Vec<&'a Row>)>;
    type Variants<'a> = BTreeMap<(&'a str, &'a str), Points<'a>>;
    let mut all: BTreeMap<(&str, &str), Variants> = BTreeMap::new();
    let bursts = rows.iter().filter(|row| row.cell.arrival == BURST);
    for row in bursts {
        let cell = &row.cell;
        let variants = all.entry((&cell.chain, &cell.wait)).or_default();
        let points = variants.entry((&cell.input, &cell.network)).or_default();
        let (at, members) = points.entry(cell.chains).or_insert((cell, Vec::new()));
        // The same number of chains may have been on fewer CPUs, too: that comes later, and is left out.
        if *at == cell {
            members.push(row);
        }
    }
    all.into_values()
        .filter_map(|variants| variants.into_values().max_by_key(BTreeMap::len))
        .filter(|points| points.len() > 1)
        .map(|points| Series {
            alone: points
                .values()
                .next()
                .and_then(|(cell, _)| one_chain(rows, cell)),
            points: points.into_values().collect(),
        })
        .collect()
}

/// Both files are of the same drawing.
fn save(dir: &Path, name: &str, svg: &str) -> Result<()> {
    let path = dir.join(format!("{name}.svg"));
    fs::write(&path, svg).map_err(|error| format!("{}: {error}", path.display()))?;
    let path = dir.join(format!("{name}.png"));
    Ok(png(svg, &path).map_err(|error| format!("{}: {error}", path.display()))?)
}

fn png(svg: &str, path: &Path) -> Result<()> {
    let mut options = Options::default();
    let fonts = options.fontdb_mut();
    fonts.load_font_data(dejavu::sans::regular().to_vec());
    fonts.set_sans_serif_family("DejaVu Sans");
    let tree = Tree::from_str(svg, &options)?;
    let size = tree.size().to_int_size();
    let mut pixels = Pixmap::new(size.width(), size.height()).ok_or("a plot without a size")?;
    resvg::render(&tree, Transform::identity(), &mut pixels.as_mut());
    Ok(pixels.save_png(path)?)
}

/// What is drawn on a sheet of this height, as SVG.
fn drawing(height: u32, draw: impl FnOnce(&Root) -> Result<()>) -> Result<String> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        root.fill(&WHITE)?;
        draw(&root)?;
        root.present()?;
    }
    Ok(svg)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::summary::tests::{failed_trial, summary, trial};

    #[test]
    fn a_series_has_several_numbers_of_chains() {
        let mut other = trial("eevdf", 1, 0, &[5]);
        other.cell.wait = "halt".into();
        let mut large = trial("eevdf", 2, 0, &[500]);
        large.cell.input = "large".into();
        let rows = summary(vec![
            trial("eevdf", 10, 0, &[90]),
            trial("eevdf", 1, 0, &[10]),
            trial("sleepy-park", 1, 0, &[9]),
            other,
            large,
        ])
        .rows;
        let series = all_series(&rows);
        assert_eq!(series.len(), 1);
        let chains: Vec<u32> = series[0]
            .points
            .iter()
            .map(|(cell, _)| cell.chains)
            .collect();
        assert_eq!(chains, [1, 10]);
        assert_eq!(
            (series[0].cell().input.as_str(), series[0].alone),
            ("small", Some(9))
        );
    }

    #[test]
    fn files() {
        let dir = tempfile::tempdir().unwrap();
        let rows = summary(vec![
            trial("eevdf", 1, 0, &[10_000]),
            trial("eevdf", 10, 0, &[90_000]),
            trial("unknown", 10, 0, &[80_000]),
            failed_trial("scx_lavd", 10, "no sched_ext"),
        ])
        .rows;
        write_all(dir.path(), &rows).unwrap();
        for name in ["exec-image-busypoll", "idle-image-busypoll"] {
            let svg = fs::read_to_string(dir.path().join(format!("{name}.svg"))).unwrap();
            assert!(svg.contains("eevdf") && svg.contains("unknown"), "{svg}");
            let png = fs::read(dir.path().join(format!("{name}.png"))).unwrap();
            assert!(png.starts_with(b"\x89PNG"));
        }
    }

    #[test]
    fn nothing_could_be_run() {
        let dir = tempfile::tempdir().unwrap();
        let failed = [1, 2].map(|chains| failed_trial("eevdf", chains, "why"));
        write_all(dir.path(), &summary(failed.to_vec()).rows).unwrap();
        assert!(!dir.path().join("exec-image-busypoll.svg").exists());
        assert!(dir.path().join("idle-image-busypoll.svg").exists());
    }
}
