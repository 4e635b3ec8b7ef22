// SPDX-License-Identifier: GPL-2.0-only

//! The command line.

use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand, ValueHint};
use sleepy_uapi::NAME_SIZE;

use crate::policy::PolicyArgs;

const HELP: &str = "\
Without a command, shows the state of everything.

Examples:
  sleepyctl vm add --pid 4242 --name a \\
      --request 'tcp dst port 80' --response 'tcp src port 80'
  sleepyctl vm show a
  sleepyctl stats --watch 2
  sleepyctl vm remove --all

Exit codes:
  0  done
  1  failed
  2  the command line makes no sense
  3  the module is not loaded
  4  not permitted";

const ADD_HELP: &str = "\
EXPR is a pcap-filter(7) expression. It sees the packets of the VM's links as
tcpdump does there. TIME is 200us, 5ms, 1s or 1m.

The taps that the VMM holds open are links without asking. NETNS is a name that
`ip netns` lists, or the path of a file; without it, DEV is looked up here, then
in the VMM's network namespace.

What TCP does by itself is known: bare acknowledgements and a client's bare FIN
mean nothing; a reset or the VM's FIN ends a flow. --no-tcp-defaults leaves all
of it to your expressions.

Examples:
  A web server:
    sleepyctl vm add --pid 4242 --name a \\
        --request 'tcp dst port 80' --response 'tcp src port 80'
  The same, only measured:
    sleepyctl vm add --pid 4242 --name a --lever observe \\
        --request 'tcp dst port 80' --response 'tcp src port 80'
  Any UDP, on a device in the network namespace blue:
    sleepyctl vm add --pid 4242 --name b --link blue/veth0 \\
        --request udp --response udp";

const SET_HELP: &str = "\
TIME is 200us, 5ms, 1s or 1m.

--request and --response replace all of the VM's rules, in one step: no packet
goes by unseen, and what is in flight stays so.

Examples:
  sleepyctl vm set a --linger 1ms --boost-nice -5
  sleepyctl vm set a --request 'tcp dst port 81' --response 'tcp src port 81'";

const STATS_HELP: &str = "\
With --watch, the first figures count from when a VM was added, all others from
the ones before. With --json they always count from when it was added.

A percentile is the largest time of the histogram bucket that it falls into.
Buckets are at most 25 % wide; with --json each one is
[smallest time, largest time, count].

Examples:
  sleepyctl stats
  sleepyctl stats a --watch 2";

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
    Add(AddArgs),
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
    Set(SetArgs),
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
    pub policy: PolicyArgs,
}

/// What a VM's packets mean.
#[derive(Args, Debug)]
#[command(next_help_heading = "Rules")]
pub struct RuleArgs {
    /// Packets to the VM that ask it for something (repeatable)
    #[arg(long, value_name = "EXPR", allow_hyphen_values = true)]
    pub request: Vec<String>,
    /// Packets from the VM that answer (repeatable)
    #[arg(long, value_name = "EXPR", allow_hyphen_values = true)]
    pub response: Vec<String>,
    /// Leave out the rules for TCP
    #[arg(long)]
    pub no_tcp_defaults: bool,
}

#[derive(Args, Debug)]
pub struct SetArgs {
    /// The VM's name
    pub name: String,
    #[command(flatten)]
    pub rules: RuleArgs,
    #[command(flatten)]
    pub policy: PolicyArgs,
    /// No other nice value while a request is in flight
    #[arg(long, conflicts_with = "boost_nice", help_heading = "Policy")]
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
#[command(after_help = STATS_HELP)]
pub struct StatsArgs {
    /// The VMs' names; all if none is given
    pub names: Vec<String>,
    /// Show the figures again every SECS seconds
    #[arg(long, value_name = "SECS", value_parser = parse_seconds)]
    pub watch: Option<Duration>,
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
            Self::Generate { .. } => "generate",
        }
    }
}

fn parse_name(text: &str) -> Result<String, String> {
    let is_good = |byte: u8| byte.is_ascii_graphic() && byte != b'/';
    if (1..NAME_SIZE).contains(&text.len()) && text.bytes().all(is_good) {
        return Ok(text.to_string());
    }
    Err(format!(
        "a name has 1 to {} printable ASCII characters, no blanks and no /",
        NAME_SIZE - 1
    ))
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
            "sleepyctl vm set a --boost-nice -1 --no-boost",
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
    fn longest_name_fits() {
        assert!(parse_name(&"x".repeat(NAME_SIZE - 1)).is_ok());
        assert!(parse_name("a b").is_err());
        assert!(parse_name("ä").is_err());
        assert!(parse_name("").is_err());
    }
}
