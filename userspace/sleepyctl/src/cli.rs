// SPDX-License-Identifier: GPL-2.0-only

//! The command line.

use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand, ValueHint};
use sleepy_uapi::{
    CLASS_IGNORE, CLASS_REQUEST, CLASS_RESPONSE, CLASS_SLEEP, CLASS_WAKE, FROM_VM, TO_VM,
};

use crate::help::{ADD_HELP, APPLY_HELP, CHECK_HELP, HELP, PROBE_HELP, SET_HELP, STATS_HELP};
use crate::manifest::rules::program;
use crate::manifest::vm::check_name;
use crate::policy::Settings;
use crate::rule::{self, Rule};

/// Keeps a KVM host's CPU for the virtual machines that have work
#[derive(Debug, Parser)]
#[command(version, max_term_width = 80, disable_help_subcommand = true, after_help = HELP)]
pub struct Cli {
    /// JSON, for scripts
    #[arg(short, long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    pub command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Add, show, change and remove VMs
    #[command(subcommand)]
    Vm(Vm),
    /// Show what VMs did: requests, wake-ups, CPU time, trigger and execution times
    Stats(StatsArgs),
    /// Say which levers work on this host, for its VMs or for one, and why
    #[command(after_help = PROBE_HELP)]
    Probe(ProbeArgs),
    /// Say what is wrong in manifests; needs no rights, no module, and none of the VMs
    #[command(after_help = CHECK_HELP)]
    Check(CheckArgs),
    /// Make the VMs as manifests say
    #[command(after_help = APPLY_HELP)]
    Apply(ApplyArgs),
    /// Print what there is as a manifest
    Export {
        /// The VMs' names; all if none is given
        names: Vec<String>,
    },
    /// Print the JSON Schema of manifests
    Schema,
    /// Write man pages and shell completions into DIR
    #[command(hide = true)]
    Generate {
        #[arg(value_hint = ValueHint::DirPath)]
        dir: std::path::PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub enum Vm {
    /// Let sleepy look after a VM
    #[command(after_help = ADD_HELP)]
    Add(Box<AddArgs>),
    /// List all VMs, a line each
    #[command(visible_alias = "ls")]
    List,
    /// Show a VM with its policy, vCPU threads and links
    Show {
        /// The VM's name
        name: String,
    },
    /// Change a VM's policy or rules; what is not given stays
    #[command(after_help = SET_HELP)]
    Set(Box<SetArgs>),
    /// Let go of VMs: their threads are as they were before
    #[command(visible_alias = "rm")]
    Remove(RemoveArgs),
}

#[derive(Args, Debug)]
pub struct AddArgs {
    /// The VMM's process
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..))]
    pub pid: i32,
    /// What to call the VM
    #[arg(long, value_parser = parse_name)]
    pub name: String,
    /// A device that carries the VM's packets, besides its taps (repeatable)
    #[arg(long, value_name = "[NETNS/]DEV")]
    pub link: Vec<String>,
    /// Leave out the taps that the VMM holds open
    #[arg(long)]
    pub no_auto_link: bool,
    /// The VMM's descriptor of the virtual machine, if it has several
    #[arg(long, value_name = "FD", value_parser = clap::value_parser!(i32).range(0..))]
    pub vm_fd: Option<i32>,
    #[command(flatten)]
    pub rules: RuleArgs,
    #[command(flatten)]
    pub policy: Settings,
}

/// What a VM's packets mean.
#[derive(Args, Debug, Default)]
#[command(next_help_heading = "Rules")]
pub struct RuleArgs {
    /// Packets that mean nothing: they neither wake nor count (repeatable)
    #[arg(long, value_name = "EXPR", allow_hyphen_values = true)]
    pub ignore: Vec<String>,
    /// Packets to the VM that wake it, and ask for nothing (repeatable)
    #[arg(long, value_name = "EXPR", allow_hyphen_values = true)]
    pub wake: Vec<String>,
    /// Packets from the VM after which it may sleep (repeatable)
    #[arg(long, value_name = "EXPR", allow_hyphen_values = true)]
    pub sleep: Vec<String>,
    /// Packets to the VM that ask it for something (repeatable)
    #[arg(long, value_name = "EXPR", allow_hyphen_values = true)]
    pub request: Vec<String>,
    /// Packets from the VM that answer (repeatable)
    #[arg(long, value_name = "EXPR", allow_hyphen_values = true)]
    pub response: Vec<String>,
    /// Packets from the VM that ask others: it may sleep until the answer comes (repeatable)
    #[arg(long, value_name = "EXPR", allow_hyphen_values = true)]
    pub call: Vec<String>,
    /// Packets to the VM that answer its calls (repeatable)
    #[arg(long, value_name = "EXPR", allow_hyphen_values = true)]
    pub answer: Vec<String>,
    /// A pinned eBPF program that says what packets both ways mean (repeatable)
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath, value_parser = program)]
    pub bpf: Vec<String>,
    /// Leave out the rules for TCP
    #[arg(long)]
    pub no_tcp_defaults: bool,
    /// Leave out the rule for multicast, ARP and the like
    #[arg(long)]
    pub no_noise: bool,
}

impl RuleArgs {
    /// Whether there are any.
    pub fn is_empty(&self) -> bool {
        self.own().is_empty()
    }

    /// Whether a packet to the VM may wake it by one of them, with `wake_on` request.
    pub fn wakes(&self) -> bool {
        let is_answered = !self.call.is_empty() && !self.answer.is_empty();
        !(self.wake.is_empty() && self.request.is_empty() && self.bpf.is_empty()) || is_answered
    }

    /// The user's own, in the order of the options above.
    fn own(&self) -> Vec<Rule> {
        let filters = [
            (CLASS_IGNORE, rule::BOTH, &self.ignore),
            (CLASS_WAKE, TO_VM, &self.wake),
            (CLASS_SLEEP, FROM_VM, &self.sleep),
            (CLASS_REQUEST, TO_VM, &self.request),
            (CLASS_RESPONSE, FROM_VM, &self.response),
            (CLASS_REQUEST, FROM_VM, &self.call),
            (CLASS_RESPONSE, TO_VM, &self.answer),
        ];
        let filters = filters.into_iter().flat_map(|(class, direction, exprs)| {
            let rule = move |expr: &String| Rule::filter(class, direction, expr);
            exprs.iter().map(rule)
        });
        let programs = self.bpf.iter().map(|path| Rule::program(rule::BOTH, path));
        filters.chain(programs).collect()
    }

    /// They, and those that come with sleepyctl.
    pub fn complete(&self) -> Vec<Rule> {
        rule::complete(self.own(), !self.no_tcp_defaults, !self.no_noise)
    }
}

#[derive(Args, Debug)]
pub struct SetArgs {
    /// The VM's name
    pub name: String,
    #[command(flatten)]
    pub rules: RuleArgs,
    #[command(flatten)]
    pub policy: Settings,
    /// No other nice value while a request is in flight
    #[arg(long, conflicts_with_all = ["boost_nice", "boost_budget"], help_heading = "Policy")]
    pub no_boost: bool,
}

#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub struct RemoveArgs {
    /// The VMs' names
    #[arg(value_name = "NAME", action = ArgAction::Append)]
    pub names: Vec<String>,
    /// Every VM
    #[arg(long)]
    pub all: bool,
}

#[derive(Args, Debug)]
pub struct CheckArgs {
    /// Manifests, or directories with *.toml
    #[arg(required = true, value_name = "FILE|DIR", value_hint = ValueHint::AnyPath)]
    pub files: Vec<std::path::PathBuf>,
}

#[derive(Args, Debug)]
pub struct ApplyArgs {
    #[command(flatten)]
    pub manifests: CheckArgs,
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Remove VMs that the manifests do not name
    #[arg(long)]
    pub prune: bool,
    /// Name the VMs that stay as they are, too
    #[arg(short, long)]
    pub verbose: bool,
}

#[derive(Args, Debug)]
#[command(after_help = STATS_HELP)]
pub struct StatsArgs {
    /// The VMs' names; all if none is given
    pub names: Vec<String>,
    /// Show the figures again every SECS seconds
    #[arg(long, value_name = "SECS", value_parser = parse_seconds)]
    pub watch: Option<Duration>,
}

#[derive(Args, Debug)]
pub struct ProbeArgs {
    /// The VM's name; all that were added if neither that nor a process is given
    pub name: Option<String>,
    /// A VMM's process, whose VM may be one that was not added
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..), conflicts_with = "name")]
    pub pid: Option<i32>,
    /// Its descriptor of the virtual machine, if it has several
    #[arg(long, value_name = "FD", requires = "pid", value_parser = clap::value_parser!(i32).range(0..))]
    pub vm_fd: Option<i32>,
}

impl Command {
    /// What errors begin with.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Vm(Vm::Add(_)) => "vm add",
            Self::Vm(Vm::List) => "vm list",
            Self::Vm(Vm::Show { .. }) => "vm show",
            Self::Vm(Vm::Set(_)) => "vm set",
            Self::Vm(Vm::Remove(_)) => "vm remove",
            Self::Stats(_) => "stats",
            Self::Probe(_) => "probe",
            Self::Check(_) => "check",
            Self::Apply(_) => "apply",
            Self::Export { .. } => "export",
            Self::Schema => "schema",
            Self::Generate { .. } => "generate",
        }
    }
}

fn parse_name(text: &str) -> Result<String, String> {
    check_name(text)?;
    if text.contains("{}") {
        return Err("{} in a name is for manifests, with `each = true`".to_string());
    }
    Ok(text.to_string())
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds = text
        .parse::<f64>()
        .ok()
        .filter(|seconds| (0.01..=86400.0).contains(seconds));
    seconds
        .map(Duration::from_secs_f64)
        .ok_or_else(|| "a number of seconds, 0.01 to 86400".to_string())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use sleepy_uapi::NAME_SIZE;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn wrong_command_lines_are_usage_errors() {
        for line in [
            "sleepyctl bogus",
            "sleepyctl vm",
            "sleepyctl vm add --name a",
            "sleepyctl vm add --pid 1",
            "sleepyctl vm add --pid 0 --name a",
            "sleepyctl vm add --pid -5 --name a",
            "sleepyctl vm add --pid x --name a",
            "sleepyctl vm add --pid 1 --name a/b",
            "sleepyctl vm add --pid 1 --name 12345678901234567890123456789012",
            "sleepyctl vm add --pid 1 --name a --lever doze",
            "sleepyctl vm add --pid 1 --name a --sleepy-nice 20",
            "sleepyctl vm add --pid 1 --name a --linger 5",
            "sleepyctl vm add --pid 1 --name a --max-sleep 1us",
            "sleepyctl vm add --pid 1 --name a --quiet 1us",
            "sleepyctl vm add --pid 1 --name a --sleep-on response,naps",
            "sleepyctl vm add --pid 1 --name a --wake-on stir",
            "sleepyctl vm add --pid 1 --name a --bpf pinned/x",
            "sleepyctl vm add --pid 1 --name a --stir-run 1us",
            "sleepyctl vm add --pid 1 --name a --park-max 1us",
            "sleepyctl vm add --pid 1 --name a --sleepy-weight 0",
            "sleepyctl vm add --pid 1 --name a --boost-budget 20ms",
            "sleepyctl vm set a --boost-nice -1 --no-boost",
            "sleepyctl probe a --pid 1",
            "sleepyctl probe --vm-fd 5",
            "sleepyctl vm remove",
            "sleepyctl vm remove a --all",
            "sleepyctl stats --watch 0",
        ] {
            let error = parse(line).expect_err(line);
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn options_repeat() {
        let cli = parse(
            "sleepyctl -j vm add --pid 7 --name a --request x --request y --link blue/tap0 --sleepy-nice -3",
        );
        let Ok(Cli {
            json: true,
            command: Some(Command::Vm(Vm::Add(args))),
        }) = cli
        else {
            panic!("{cli:?}")
        };
        assert_eq!(
            (args.pid, args.rules.request),
            (7, vec!["x".to_string(), "y".to_string()])
        );
        assert_eq!(args.link, ["blue/tap0"]);
    }

    #[test]
    fn rules_have_their_classes_and_directions() {
        let args = RuleArgs {
            request: vec!["a".to_string()],
            ignore: vec!["b".to_string()],
            call: vec!["c".to_string()],
            answer: vec!["d".to_string()],
            bpf: vec!["/e".to_string()],
            ..RuleArgs::default()
        };
        let expected = [
            Rule::filter(CLASS_IGNORE, rule::BOTH, "b"),
            Rule::filter(CLASS_REQUEST, TO_VM, "a"),
            Rule::filter(CLASS_REQUEST, FROM_VM, "c"),
            Rule::filter(CLASS_RESPONSE, TO_VM, "d"),
            Rule::program(rule::BOTH, "/e"),
        ];
        assert_eq!(args.own(), expected);
        assert!(args.wakes());
    }

    #[test]
    fn answer_to_a_call_wakes() {
        let call = RuleArgs {
            call: vec!["udp".to_string()],
            ..RuleArgs::default()
        };
        assert!(!call.wakes());
        let answered = RuleArgs {
            answer: vec!["udp".to_string()],
            ..call
        };
        assert!(answered.wakes());
    }

    #[test]
    fn longest_name_fits() {
        assert!(parse_name(&"x".repeat(NAME_SIZE - 1)).is_ok());
        assert!(parse_name("a b").is_err());
        assert!(parse_name("ä").is_err());
        assert!(parse_name("").is_err());
    }
}
