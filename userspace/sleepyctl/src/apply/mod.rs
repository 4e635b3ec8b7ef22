// SPDX-License-Identifier: GPL-2.0-only

//! `apply`

use std::fs;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;

use crate::check;
use crate::cli::ApplyArgs;
use crate::device::{Device, vm_name};
use crate::error::{Error, Exit, Result};
use crate::manifest::load::{Manifests, load};
use crate::manifest::report::{Finding, Report};
use crate::output::{self, ErrorJson, Output, hang, say};
use crate::probe::Choice;
use crate::wanted::change;

use diff::Change;
use plan::{Action, Plan, Step};

mod diff;
mod plan;

/// What was done with a VM.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Done {
    Added,
    Changed,
    Unchanged,
    Removed,
    /// One of many, whose process has ended meanwhile.
    Ended,
    Failed,
}

#[derive(Serialize)]
struct Outcome {
    name: String,
    action: Done,
    /// It was removed and added again.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    replaced: bool,
    changes: Vec<Change>,
    /// Why its lever is this one, if sleepyctl has chosen it.
    #[serde(skip_serializing_if = "Option::is_none")]
    lever_why: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// The same as a sentence.
    #[serde(skip)]
    chosen: Option<String>,
    /// What a new one is.
    #[serde(skip)]
    about: String,
}

#[derive(Serialize)]
struct Body<'a> {
    apply: Apply,
    findings: Vec<Finding>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorJson<'a>>,
}

#[derive(Serialize)]
struct Apply {
    dry_run: bool,
    vms: Vec<Outcome>,
    added: usize,
    changed: usize,
    unchanged: usize,
    removed: usize,
    ended: usize,
    failed: usize,
}

impl Apply {
    fn new(dry_run: bool, vms: Vec<Outcome>) -> Self {
        let count = |done| vms.iter().filter(|vm| vm.action == done).count();
        Self {
            dry_run,
            added: count(Done::Added),
            changed: count(Done::Changed),
            unchanged: count(Done::Unchanged),
            removed: count(Done::Removed),
            ended: count(Done::Ended),
            failed: count(Done::Failed),
            vms,
        }
    }

    fn text(&self, verbose: bool) -> String {
        let would_be = if self.dry_run { "would be " } else { "" };
        let mut out = String::new();
        for vm in &self.vms {
            let line = match vm.action {
                Done::Unchanged if !verbose => continue,
                Done::Unchanged => format!("unchanged {}", vm.name),
                Done::Failed => {
                    format!("failed {}: {}", vm.name, vm.error.as_deref().unwrap_or(""))
                }
                Done::Removed => format!("{would_be}removed {}", vm.name),
                Done::Ended => format!("ended {}: its process has ended just now", vm.name),
                Done::Added => format!("{would_be}added {}: {}", vm.name, vm.about),
                Done::Changed => {
                    let changes: Vec<String> = vm.changes.iter().map(Change::to_string).collect();
                    let how = if vm.replaced {
                        " (removed and added again)"
                    } else {
                        ""
                    };
                    format!("{would_be}changed {}: {}{how}", vm.name, changes.join(", "))
                }
            };
            out += &line;
            out.push('\n');
            // Of those that stay as they are it was said before.
            if let (Some(chosen), Done::Added | Done::Changed) = (&vm.chosen, vm.action) {
                out += &hang("  ", chosen, " ");
            }
        }
        let counts = [
            (self.added, format!("{would_be}added")),
            (self.changed, format!("{would_be}changed")),
            (self.removed, format!("{would_be}removed")),
            (self.ended, "ended".to_string()),
            (self.failed, "failed".to_string()),
            (self.unchanged, "unchanged".to_string()),
        ];
        let counts: Vec<String> = counts
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        let vms = output::counted(self.vms.len(), "VM");
        let colon = if counts.is_empty() { "" } else { ": " };
        out + &format!("{vms}{colon}{}\n", counts.join(", "))
    }
}

/// Runs it.
pub fn run(output: Output, args: &ApplyArgs) -> Result<Exit> {
    let show = |report: &Report| {
        if !output.json {
            report.findings().iter().for_each(say);
        }
    };
    let refuse = |report: &Report| {
        show(report);
        check::refuse(output, "apply", report, "; nothing was changed")
    };
    let Manifests { mut report, vms } = load(&args.manifests.files)?;
    if report.has_errors() {
        return refuse(&report);
    }
    let device = Device::open()?;
    raise_limit();
    let plan = plan::make(&device, &vms, args.prune, &mut report)?;
    if report.has_errors() {
        return refuse(&report);
    }
    show(&report);
    let outcomes = carry_out(&device, plan, args.dry_run);
    let apply = Apply::new(args.dry_run, outcomes);
    let error = (apply.failed > 0).then(|| {
        let (failed, vms) = (apply.failed, output::counted(apply.vms.len(), "VM"));
        Error::failed(format!("{failed} of {vms} failed")).of("apply")
    });
    let body = Body {
        apply,
        findings: report.findings(),
        error: error.as_ref().map(ErrorJson::from),
    };
    output.print(&body, || body.apply.text(args.verbose))?;
    Ok(error.map_or(Exit::Done, |error| {
        say(&error);
        error.exit
    }))
}

/// Each VM takes a few descriptors: its process, its links' namespaces. Who may not have more than the hard limit has that; if it is not
/// enough, opening fails, in words.
fn raise_limit() {
    let most = fs::read_to_string("/proc/sys/fs/nr_open")
        .ok()
        .and_then(|text| text.trim().parse().ok());
    let hard = getrlimit(Resource::Nofile).maximum;
    for limit in [most, hard] {
        let limit = Rlimit {
            current: limit,
            maximum: limit,
        };
        if setrlimit(Resource::Nofile, limit).is_ok() {
            break;
        }
    }
}

/// What is removed goes first, so that its links are free.
fn carry_out(device: &Device, plan: Plan, dry_run: bool) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for vm in &plan.remove {
        let result = if dry_run { Ok(()) } else { device.remove(vm) };
        outcomes.push(outcome(vm_name(vm), Done::Removed, result));
    }
    let mut removed = Vec::new();
    for step in &plan.steps {
        removed.push(match &step.action {
            Action::Replace(vm) if !dry_run => device.remove(vm),
            _ => Ok(()),
        });
    }
    for (step, removed) in plan.steps.into_iter().zip(removed) {
        let replaced = matches!(step.action, Action::Replace(_));
        let (done, result) = removed
            .and_then(|()| take(device, &step, dry_run))
            .map_or_else(
                |error| match step.may_end && step.wanted.vmm.has_ended() {
                    true => (Done::Ended, Ok(())),
                    false => (Done::Failed, Err(error)),
                },
                |done| (done, Ok(())),
            );
        let mut outcome = outcome(step.wanted.name.clone(), done, result);
        outcome.replaced = replaced;
        outcome.about = step.wanted.about();
        outcome.changes = step.changes;
        let choice = step.wanted.choice.as_ref();
        outcome.chosen = choice.map(Choice::to_string);
        outcome.lever_why = choice.map(|choice| choice.why.clone());
        outcomes.push(outcome);
    }
    outcomes
}

fn outcome(name: String, done: Done, result: Result<()>) -> Outcome {
    let error = result.err().map(|error| error.message);
    Outcome {
        name,
        action: if error.is_some() { Done::Failed } else { done },
        replaced: false,
        changes: Vec::new(),
        lever_why: None,
        chosen: None,
        error,
        about: String::new(),
    }
}

fn take(device: &Device, step: &Step, dry_run: bool) -> Result<Done> {
    let wanted = &step.wanted;
    match &step.action {
        Action::Keep => return Ok(Done::Unchanged),
        Action::Add if dry_run => return Ok(Done::Added),
        _ if dry_run => return Ok(Done::Changed),
        Action::Add => {
            wanted.add(device)?;
            return Ok(Done::Added);
        }
        Action::Replace(_) => {
            let again = wanted.add(device);
            again.map_err(|error| Error {
                message: format!(
                    "it was removed, and cannot be added again: {}",
                    error.message
                ),
                ..error
            })?;
        }
        Action::Change(vm, parts) => change(
            device,
            vm,
            parts
                .policy
                .then_some((wanted.policy, wanted.group.as_ref())),
            parts.rules.then_some(&wanted.rules),
        )?,
    }
    Ok(Done::Changed)
}
