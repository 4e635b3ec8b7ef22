// SPDX-License-Identifier: GPL-2.0-only

//! What things cost, as text.

use sleepy_bench::record::Cost;

use crate::table::{Table, heading, paragraph};
use crate::text::{digits, ns};

/// What each path is, and its cases.
const PATHS: [(&str, &str, &str); 6] = [
    (
        "packet",
        "a packet on its way into a VM's tap",
        "none: no VM is registered on this link; each other case is what comes on top of that: the VM's \
         last rule matches or none does; nft: as many rules of nftables in the same place",
    ),
    (
        "switch",
        "a switch to a vCPU's thread, and one back",
        "none: its VM is not registered; each other case is what comes on top of that, by the VM's state",
    ),
    (
        "exit",
        "a guest's exit, or an interrupt to it",
        "none: the VM is not registered, and nobody wants the event; each other case is what comes on \
         top of that: default: registered, the event is not wanted; other: not registered, another VM \
         wants it; the rest: registered, and the event of this name is wanted",
    ),
    ("memory", "memory of a VM that is registered", ""),
    (
        "apply",
        "sleepyctl apply, for all VMs together",
        "by a clock that counts instructions, each as 1 ns",
    ),
    (
        "list",
        "sleepyctl vm list, of all VMs",
        "by a clock that counts instructions, each as 1 ns",
    ),
];

/// Appends a table for each path, in the order in which they were measured.
pub fn print(out: &mut String, costs: &[Cost]) {
    let mut paths: Vec<&str> = Vec::new();
    for cost in costs {
        if !paths.contains(&cost.path.as_str()) {
            paths.push(&cost.path);
        }
    }
    for path in paths {
        let of_path: Vec<&Cost> = costs.iter().filter(|cost| cost.path == path).collect();
        print_path(out, path, &of_path);
    }
    if !costs.is_empty() {
        let text = "half of the range between the quartiles of the repetitions";
        paragraph(out, "(*) ", text);
    }
}

fn print_path(out: &mut String, path: &str, costs: &[&Cost]) {
    let known = PATHS.iter().find(|(known, ..)| *known == path);
    let (title, note) = known.map_or((path, ""), |(_, title, note)| (*title, *note));
    heading(out, &format!("Costs: {title}"));
    let mut table = Table::new(
        &[6, 6, 14, 10, 13],
        &[&["case", "rules", "VMs", "value", "+- (*)", "unit"]],
    );
    for cost in costs {
        let Some(value) = cost.value else {
            table.text(&cost.case, missing(cost));
            continue;
        };
        let show = |value: f64| match cost.unit.as_str() {
            "ns" if value >= 0.0 => ns(value.round() as u64),
            _ => digits(value),
        };
        let unit = if cost.unit == "ns" {
            "time"
        } else {
            &cost.unit
        };
        let figures = vec![
            cost.rules.map(|rules| rules.to_string()),
            cost.vms.map(|vms| vms.to_string()),
            Some(show(value)),
            cost.spread.map(show),
            Some(unit.into()),
        ];
        table.figures(&cost.case, figures);
    }
    table.print(out);
    if !note.is_empty() {
        paragraph(out, "", note);
    }
}

/// Why there is no value.
fn missing(cost: &Cost) -> String {
    let rules = cost.rules.map(|rules| format!("rules {rules}: "));
    let vms = cost.vms.map(|vms| format!("VMs {vms}: "));
    let why = cost.why.as_deref().unwrap_or("no reason is given");
    let place = rules.unwrap_or_default() + &vms.unwrap_or_default();
    format!("{place}not measured: {why}")
}
