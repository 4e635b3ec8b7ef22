// SPDX-License-Identifier: GPL-2.0-only

//! Statistics for people: one VM in full, several a line each.

use crate::histogram::Summary;
use crate::output::Align::{Left, Right};
use crate::output::{Table, hang};
use crate::stats::{Causes, Phases, Stats, share};
use crate::time::short;

/// The text.
pub fn human(vms: &[Stats]) -> String {
    match vms {
        [] => "no VMs\n".to_string(),
        [vm] => full(vm),
        vms => lines(vms),
    }
}

fn lines(vms: &[Stats]) -> String {
    let mut table = Table::new(&[
        ("NAME", Left),
        ("REQUESTS", Right),
        ("FLIGHT", Right),
        ("SLEEPY", Right),
        ("IDLE", Right),
        ("TRIG50", Right),
        ("TRIG99", Right),
        ("EXEC50", Right),
        ("EXEC99", Right),
    ]);
    for vm in vms {
        table.row(vec![
            vm.name.clone(),
            vm.requests.to_string(),
            vm.in_flight.to_string(),
            percent(share(vm.time_ns.sleepy, vm.time_ns.sum())),
            percent(vm.idle_share),
            time(vm.trigger_ns.p50),
            time(vm.trigger_ns.p99),
            time(vm.exec_ns.p50),
            time(vm.exec_ns.p99),
        ]);
    }
    table.text("")
        + "\nSLEEPY: part of the time. IDLE: part of the CPU time with nothing in flight.\n\
           TRIG, EXEC: trigger and execution time, percentiles 50 and 99.\n"
}

fn full(vm: &Stats) -> String {
    let sentence = |parts: &[(&str, u64)]| {
        let parts: Vec<String> = parts
            .iter()
            .map(|(name, count)| format!("{name} {count}"))
            .collect();
        parts.join(", ")
    };
    let packets = sentence(&[("requests", vm.requests), ("responses", vm.responses)]);
    let flows = sentence(&[
        ("in flight", vm.in_flight.into()),
        ("closed", vm.closed),
        ("timed out", vm.timeouts),
        ("untracked", vm.overflows),
    ]);
    let mut lines = vec![("packets", packets), ("flows", flows)];
    let calls = [
        ("calls", vm.calls),
        ("answers", vm.answers),
        ("in flight", vm.calls_in_flight.into()),
    ];
    if calls.iter().any(|(_, count)| *count > 0) {
        lines.push(("its own", sentence(&calls)));
    }
    if vm.hints_refused > 0 {
        lines.push(("hints", sentence(&[("refused", vm.hints_refused)])));
    }
    lines.push(("woken by", causes(&vm.wakes)));
    lines.push(("asleep after", causes(&vm.sleeps)));
    let lines: String = lines
        .iter()
        .map(|(name, text)| hang(&format!("  {name:<14}"), text, ", "))
        .collect();
    format!(
        "{} (id {})\n\n{lines}\n{}\n{}",
        vm.name,
        vm.id,
        phases(vm),
        times(vm)
    )
}

/// Those that there were.
fn causes(causes: &Causes) -> String {
    let seen = causes.0.iter().filter(|(_, count)| *count > 0);
    let seen: Vec<String> = seen
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    if seen.is_empty() {
        "nothing".to_string()
    } else {
        seen.join(", ")
    }
}

fn phases(vm: &Stats) -> String {
    let mut table = Table::new(&[
        ("PHASE", Left),
        ("TIME", Right),
        ("", Right),
        ("CPU TIME", Right),
        ("", Right),
        ("", Left),
    ]);
    let (time, cpu): (&Phases, &Phases) = (&vm.time_ns, &vm.oncpu_ns);
    for (name, time_ns, cpu_ns) in [
        ("in flight", time.in_flight, cpu.in_flight),
        ("idle", time.idle, cpu.idle),
        ("sleepy", time.sleepy, cpu.sleepy),
    ] {
        table.row(vec![
            format!("{name:<12}"),
            short(time_ns),
            percent(share(time_ns, time.sum())),
            short(cpu_ns),
            percent(share(cpu_ns, cpu.sum())),
            String::new(),
        ]);
    }
    table.text("  ")
        + &format!(
            "  {} of the CPU time with nothing in flight\n",
            percent(vm.idle_share)
        )
}

fn times(vm: &Stats) -> String {
    let mut table = Table::new(&[
        ("", Left),
        ("COUNT", Right),
        ("P50", Right),
        ("P90", Right),
        ("P99", Right),
        ("MAX", Right),
    ]);
    let mut row = |name: &str, times: &Summary| {
        table.row(vec![
            format!("{name:<12}"),
            times.count.to_string(),
            time(times.p50),
            time(times.p90),
            time(times.p99),
            time(times.max),
        ]);
    };
    row("trigger", &vm.trigger_ns);
    row("execution", &vm.exec_ns);
    // `observe` has none.
    if vm.effect_ns.count > 0 {
        row("effect", &vm.effect_ns);
    }
    table.text("  ")
}

fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "-".to_string(), |share| format!("{:.0}%", share * 100.0))
}

fn time(ns: Option<u64>) -> String {
    ns.map_or_else(|| "-".to_string(), short)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::{SLEEPS, WAKES};
    use crate::stats::Last;

    fn busy(name: &str) -> Stats {
        let time = Phases {
            in_flight: 59_000_000_000,
            idle: 3_700_000_000,
            sleepy: 120_000_000_000,
        };
        let times = Summary {
            count: 12_345_678,
            p50: Some(12_799),
            p90: Some(49_151),
            p99: Some(1_572_863),
            max: Some(3_145_727),
            buckets: Vec::new(),
        };
        let nothing = || Summary {
            count: 0,
            p50: None,
            p90: None,
            p99: None,
            max: None,
            buckets: Vec::new(),
        };
        Stats {
            name: name.to_string(),
            id: 16384,
            requests: 12_345_678,
            responses: 12_345_678,
            in_flight: 64,
            closed: 1_234_567,
            timeouts: 123_456,
            overflows: 12_345,
            calls: 12_345_678,
            answers: 12_345_678,
            calls_in_flight: 64,
            hints_refused: 12_345,
            wakes: Causes(WAKES.map(|name| (name, 12_345_678)).to_vec()),
            sleeps: Causes(SLEEPS.map(|name| (name, 12_345_678)).to_vec()),
            oncpu_ns: Phases {
                in_flight: 29_000_000_000,
                idle: 1_000_000_000,
                sleepy: 70_000_000_000,
            },
            time_ns: time,
            idle_share: Some(0.71),
            trigger_ns: times,
            exec_ns: nothing(),
            effect_ns: nothing(),
            last_ns: Last::default(),
        }
    }

    #[test]
    fn one_vm_in_full_fits_80_columns() {
        let text = human(&[busy("function-a")]);
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
        assert!(text.contains("71% of the CPU time"), "{text}");
        assert!(text.contains("12.8us"), "{text}");
        let nothing = text
            .lines()
            .find(|line| line.trim_start().starts_with("execution"));
        let words: Vec<&str> = nothing.unwrap_or_default().split_whitespace().collect();
        assert_eq!(words, ["execution", "0", "-", "-", "-", "-"], "{text}");
    }

    #[test]
    fn only_what_happened_is_shown() {
        let mut vm = busy("a");
        vm.wakes = Causes(vec![("request", 0), ("timer", 7), ("stir", 1)]);
        vm.sleeps = Causes(vec![("response", 0)]);
        (vm.calls, vm.answers, vm.calls_in_flight, vm.hints_refused) = (0, 0, 0, 0);
        let text = human(&[vm]);
        assert!(text.contains("  woken by      timer 7, stir 1\n"), "{text}");
        assert!(text.contains("  asleep after  nothing\n"), "{text}");
        assert!(
            !text.contains("its own") && !text.contains("hints"),
            "{text}"
        );
    }

    #[test]
    fn several_vms_have_a_line_each_in_80_columns() {
        let text = human(&[busy("function-a"), busy("function-b")]);
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
        assert_eq!(
            text.lines()
                .filter(|line| line.starts_with("function-"))
                .count(),
            2
        );
    }
}
