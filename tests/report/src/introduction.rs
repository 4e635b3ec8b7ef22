// SPDX-License-Identifier: GPL-2.0-only

//! What a reader has to know before the tables.

use std::fmt::Write;

use crate::summary::Summary;
use crate::table::paragraph;

/// What the columns of the cells' tables are.
const COLUMNS: [(&str, &str); 7] = [
    (
        "execution",
        "from the time at which a chain's first request was to be sent until its last response, by \
         the client's clock: p50, p99, and p50 over the limit and its own",
    ),
    ("+-", "half of the range of the repetitions' p50"),
    (
        "limit",
        "of chains that are asked all at once: the CPU time in which requests were in flight, of the \
         system that needed least, divided by the CPUs; and never less than one chain alone takes",
    ),
    (
        "own",
        "the same of the turn itself, and not of the system that needed least: the machine's pace may drift between \
         one's turn and another's",
    ),
    (
        "trigger",
        "from a request seen on its way to a microVM until a vCPU of that has a CPU, p99",
    ),
    (
        "inter",
        "from a stage's response seen until a vCPU of the next stage has a CPU, p99",
    ),
    (
        "idle",
        "share of the CPU time that the microVMs used while none of their requests was in flight; the switches \
         between them are no microVM's time",
    ),
];

const SYSTEM_NOTES: [(&str, &str); 5] = [
    ("eevdf", "the kernel as it is"),
    (
        "eevdf-tuned",
        "the kernel, with weights that fit each stage's work",
    ),
    (
        "controller",
        "a program that watches packets and sets nice values",
    ),
    ("scx_...", "a sched_ext scheduler of this name"),
    ("sleepy-...", "sleepy with this lever"),
];

const WAITS: [(&str, &str); 6] = [
    ("halt", "a guest that waits lets go of its CPU"),
    ("haltpoll", "it polls for a moment before it does"),
    ("poll", "its kernel polls (idle=poll)"),
    ("busypoll", "its server polls its sockets"),
    (
        "housekeepingN",
        "halt, and N % of the time other work than requests",
    ),
    ("mix", "halt, busypoll, housekeeping20 and poll in turn"),
];

/// Appends it: the host, and what names and columns mean.
pub fn print(out: &mut String, summary: &Summary) {
    paragraph(
        out,
        "",
        "Chains of functions in microVMs that share CPUs, by who schedules them",
    );
    out.push('\n');
    for host in &summary.hosts {
        let text = format!(
            "{}, {} CPUs, of which the vCPUs share {}, {} MiB, Linux {}, virtualization by {}",
            host.cpu, host.cpus, host.vcpu_cpus, host.memory, host.kernel, host.accelerator
        );
        paragraph(out, "Host: ", &text);
    }
    if summary.rows.is_empty() {
        return;
    }
    let text = "A chain calls its functions (stages) one after the other, each in a microVM of its own. \
                A system decides which microVM has the CPU. p50 and p99 are what half and 99 % of all \
                samples do not exceed; p99 of fewer than 100 is the longest.";
    out.push('\n');
    paragraph(out, "", text);
    for (title, notes) in [
        ("Columns", COLUMNS.as_slice()),
        ("Systems", &SYSTEM_NOTES),
        ("How guests wait for requests", &WAITS),
    ] {
        let _ = writeln!(out, "\n{title}:");
        for (name, text) in notes {
            paragraph(out, &format!("  {name:13} "), text);
        }
    }
}
