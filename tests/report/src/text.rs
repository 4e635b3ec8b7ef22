// SPDX-License-Identifier: GPL-2.0-only

//! The summary as text, to be understood by somebody who knows nothing of the experiment.

use sleepy_bench::record::Cell;
use sleepy_bench::systems::SYSTEMS;

use crate::costs;
use crate::goals::Goal;
use crate::introduction;
use crate::stats::Figure;
use crate::summary::{AloneRow, Check, FUNCTION, ReactionRow, Row, Summary, one_chain};
use crate::table::{Table, heading, paragraph};

/// All of it.
pub fn report(summary: &Summary, goals: &[Goal]) -> String {
    let mut out = String::new();
    introduction::print(&mut out, summary);
    for cell in summary.rows.chunk_by(|a, b| a.cell == b.cell) {
        print_cell(&mut out, &summary.rows, cell);
    }
    reactions(&mut out, &summary.reactions);
    alone(&mut out, &summary.alone);
    costs::print(&mut out, &summary.costs);
    checks(&mut out, &summary.checks);
    print_goals(&mut out, goals);
    out
}

fn print_cell(out: &mut String, all: &[Row], rows: &[Row]) {
    let cell = &rows[0].cell;
    heading(out, &title(cell));
    let Some(measured) = rows.iter().map(|row| row.repetitions).max() else {
        return;
    };
    let limit = match (rows[0].limit_exec_ns, one_chain(all, cell)) {
        (Some(limit), Some(alone)) => format!("limit {}; one chain alone {}", ns(limit), ns(alone)),
        (Some(limit), None) => format!("limit {}; one chain alone was not measured", ns(limit)),
        (None, _) => "no limit: it is defined for chains asked all at once".into(),
    };
    paragraph(out, "", &format!("{limit}; repetitions: {measured}"));
    let mut table = Table::new(
        &[7, 7, 7, 6, 7, 7, 7, 7],
        &[
            &["", "execut.", "", "", "", "execut.", "trigger", "inter", ""],
            &[
                "system", "p50", "+-", "x limit", "x own", "p99", "p99", "p99", "idle",
            ],
        ],
    );
    for row in rows {
        if row.repetitions > 0 {
            let figures = vec![
                row.exec_ns.p50.map(ns),
                row.exec_ns.spread.map(ns),
                row.over_limit().map(|ratio| format!("{ratio:.2}")),
                row.over_own.map(|ratio| format!("{ratio:.2}")),
                row.exec_ns.p99.map(ns),
                row.trigger_ns.p99.map(ns),
                row.inter_ns.p99.map(ns),
                row.idle_share
                    .map(|share| format!("{:.1} %", share * 100.0)),
            ];
            table.figures(&row.system, figures);
        }
        if let Some(why) = &row.error {
            table.text(&row.system, not_measured(row.repetitions == 0, why));
        }
    }
    table.print(out);
    let missing = |system: &&str| rows.iter().all(|row| row.system != *system);
    let missing: Vec<&str> = SYSTEMS.into_iter().filter(missing).collect();
    if !missing.is_empty() {
        paragraph(out, "not tried here: ", &missing.join(", "));
    }
}

fn title(cell: &Cell) -> String {
    let how = match cell.arrival.as_str() {
        "burst" => "all asked at once".into(),
        other => format!("requests come by '{other}'"),
    };
    format!(
        "{} chain, {} input, guests wait by {}: {} chain{}, {} vCPUs to a CPU, {how}, {} object store",
        cell.chain,
        cell.input,
        cell.wait,
        cell.chains,
        if cell.chains == 1 { "" } else { "s" },
        cell.overcommit,
        cell.network
    )
}

fn not_measured(at_all: bool, why: &str) -> String {
    if at_all {
        format!("could not be run: {why}")
    } else {
        format!("could not be run in {why}")
    }
}

fn reactions(out: &mut String, rows: &[ReactionRow]) {
    if rows.is_empty() {
        return;
    }
    heading(
        out,
        "Reactions: from a packet seen until the weight is changed",
    );
    let mut table = Table::new(
        &[6, 9, 9, 9, 12],
        &[&["system", "VMs", "p50", "+-", "p99", "x faster (*)"]],
    );
    for row in rows {
        let quantiles = &row.quantiles;
        if quantiles.p50.is_some() || row.error.is_none() {
            let figures = vec![
                Some(row.vms.to_string()),
                quantiles.p50.map(ns),
                quantiles.spread.map(ns),
                quantiles.p99.map(ns),
                row.controller_ratio.map(|ratio| format!("{ratio:.1}")),
            ];
            table.figures(&row.system, figures);
        }
        if let Some(why) = &row.error {
            let why = not_measured(quantiles.p50.is_none(), why);
            table.text(&row.system, format!("VMs {}: {why}", row.vms));
        }
    }
    table.print(out);
    paragraph(
        out,
        "(*) ",
        "p50 of the controller over that of this system, with as many VMs",
    );
}

fn alone(out: &mut String, rows: &[AloneRow]) {
    if rows.is_empty() {
        return;
    }
    heading(out, "One guest that halts when it waits, alone on its CPU");
    for rows in rows.chunk_by(|one, other| one.request == other.request) {
        alone_by(out, rows);
        out.push('\n');
    }
    let text = "over that without the module (none) in the same repetition: the median of the \
                repetitions, and half of their range";
    paragraph(out, "(*) ", text);
}

/// Of one kind of request.
fn alone_by(out: &mut String, rows: &[AloneRow]) {
    let what = if rows[0].request == FUNCTION {
        "Each request is one for a function's work:"
    } else {
        "Each request is one for an answer, and no work:"
    };
    paragraph(out, "", what);
    let mut table = Table::new(
        &[10, 9, 9, 7, 9, 9, 7],
        &[
            &["", "requests", "latency", "through-", "", "latency", ""],
            &["system", "per s", "p99", "put (*)", "+-", "p99 (*)", "+-"],
        ],
    );
    for row in rows {
        let ratio = |figure: Figure| {
            let text = |value: f64| format!("{value:.4}");
            [figure.median.map(text), figure.spread.map(text)]
        };
        let mut figures = vec![
            row.per_second.map(|rate| format!("{rate:.1}")),
            row.latency_ns.p99.map(ns),
        ];
        figures.extend(ratio(row.per_second_ratio));
        figures.extend(ratio(row.p99_ratio));
        table.figures(&row.system, figures);
    }
    table.print(out);
}

fn checks(out: &mut String, checks: &[Check]) {
    if checks.is_empty() {
        return;
    }
    heading(
        out,
        "Checks: other clocks' times over those of the module, of all turns",
    );
    let mut table = Table::new(
        &[7, 8, 8, 8],
        &[&["clock", "turns", "median", "least", "most"]],
    );
    for check in checks {
        let ratios =
            [check.median, check.least, check.most].map(|ratio| Some(format!("{ratio:.3}")));
        let [median, least, most] = ratios;
        table.figures(
            check.what,
            vec![Some(check.count.to_string()), median, least, most],
        );
    }
    table.print(out);
    for (name, text) in [
        ("client", "the stages' time as their client saw it"),
        (
            "schedstat",
            "the vCPU threads' time on a CPU, by the kernel's schedstat",
        ),
        (
            "steal",
            "of guests that never halt: their steal time and the module's on-CPU time, over the time \
             that passed",
        ),
    ] {
        paragraph(out, &format!("  {name:10} "), text);
    }
}

fn print_goals(out: &mut String, goals: &[Goal]) {
    heading(out, "Goals");
    for goal in goals {
        let verdict = match goal.reached {
            Some(true) => "reached",
            Some(false) => "NOT reached",
            None => "not measured",
        };
        paragraph(out, &format!("{verdict:13} "), &goal.what);
        let figures = match goal.reached {
            Some(_) => format!("wanted: {}; got: {}", goal.wanted, goal.got),
            None => format!("wanted: {}", goal.wanted),
        };
        paragraph(out, &" ".repeat(14), &figures);
    }
}

/// A time with a unit and three digits that matter.
pub fn ns(ns: u64) -> String {
    let mut value = ns as f64;
    for unit in ["ns", "us", "ms"] {
        if value < 999.5 {
            return format!("{}{unit}", digits(value));
        }
        value /= 1000.0;
    }
    format!("{}s", digits(value))
}

/// Three digits that matter, or all of a larger figure.
pub fn digits(value: f64) -> String {
    let decimals = match value {
        _ if value.fract() == 0.0 || value.abs() >= 99.95 => 0,
        _ if value.abs() >= 9.995 => 1,
        _ => 2,
    };
    format!("{value:.decimals$}")
}

#[cfg(test)]
#[path = "text_tests.rs"]
mod tests;
