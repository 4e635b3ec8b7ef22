// SPDX-License-Identifier: GPL-2.0-only

//! What `--help` says after the options.

/// Of `sleepyctl`.
pub const HELP: &str = "\
Without a command, shows the state of everything.

Examples:
  sleepyctl vm add --pid 4242 --name a \\
      --request 'tcp dst port 80' --response 'tcp src port 80'
  sleepyctl vm show a
  sleepyctl stats --watch 2
  sleepyctl probe
  sleepyctl check /etc/sleepy
  sleepyctl apply /etc/sleepy --dry-run
  sleepyctl vm remove --all

Exit codes:
  0  done
  1  failed
  2  the command line makes no sense
  3  the module is not loaded
  4  not permitted";

/// Of `vm add`.
pub const ADD_HELP: &str = "\
EXPR is a pcap-filter(7) expression. It sees the packets of the VM's links as
tcpdump does there. TIME is 200us, 5ms, 1s or 1m.

The taps that the VMM holds open are links without asking. NETNS is a name that
`ip netns` lists, or the path of a file; without it, DEV is looked up here, then
in the VMM's network namespace.

What TCP does by itself is known: bare acknowledgements and a client's bare FIN
mean nothing; a reset or the VM's FIN ends a flow. --no-tcp-defaults leaves all
of it to your expressions. After all other rules, multicast, broadcast, ARP and
IPv6 neighbour discovery mean nothing, unless --no-noise is given.

The first rule that matches counts, in the order of the options above.

Examples:
  A web server:
    sleepyctl vm add --pid 4242 --name a \\
        --request 'tcp dst port 80' --response 'tcp src port 80'
  With the lever that works for this VM on this host:
    sleepyctl vm add --pid 4242 --name a --lever auto \\
        --request 'tcp dst port 80' --response 'tcp src port 80'
  The same, only measured:
    sleepyctl vm add --pid 4242 --name a --lever observe \\
        --request 'tcp dst port 80' --response 'tcp src port 80'
  Any UDP, on a device in the network namespace blue:
    sleepyctl vm add --pid 4242 --name b --link blue/veth0 \\
        --request udp --response udp";

/// Of `vm set`.
pub const SET_HELP: &str = "\
TIME is 200us, 5ms, 1s or 1m.

With --request, or any other rule, all of the VM's rules are replaced, in one
step: no packet goes by unseen, and what is in flight stays so.

Examples:
  sleepyctl vm set a --linger 1ms --boost-nice -5
  sleepyctl vm set a --lever auto
  sleepyctl vm set a --request 'tcp dst port 81' --response 'tcp src port 81'";

/// Of `stats`.
pub const STATS_HELP: &str = "\
With --watch, the first figures count from when a VM was added, all others from
the ones before. With --json they always count from when it was added.

Trigger time is from a request to the first vCPU on a CPU, execution time from
a request to its first answer. Effect is from the event that wakes a VM until its
weight is back, or it is no longer parked; with observe there is none.

A percentile is the largest time of the histogram bucket that it falls into.
Buckets are at most 25 % wide; with --json each one is
[smallest time, largest time, count]. There, last_ns is when the last request
was seen, when a vCPU first ran from then on, and when its first answer was
seen, by the clock CLOCK_MONOTONIC.

Examples:
  sleepyctl stats
  sleepyctl stats a --watch 2";

/// Of `probe`.
pub const PROBE_HELP: &str = "\
Each lever has a line: whether it works, and why. `in part` is not against all
other VMs, or not for sure; `no effect` can be set, and does nothing;
`impossible` cannot be set. `auto` is the one that --lever auto takes.

VMs of which the same is to be said are shown together; in the names of their
cgroups, * stands for what is each one's own. With a VM's name, or with --json,
each is shown by itself.

Examples:
  sleepyctl probe
  sleepyctl probe a
  sleepyctl probe --pid 4242";

/// Of `check`.
pub const CHECK_HELP: &str = "\
A manifest says in TOML which VMs there are, what they wait for and how they
sleep:

  schema_version = 1

  [[vm]]
  name    = \"web\"
  cmdline = \"--id web\"
  profile = \"http\"
  ports   = [80]

Each finding is printed as FILE:LINE:COLUMN: error or warning: what is wrong and
what to do. With errors, the exit code is 1.";

/// Of `apply`.
pub const APPLY_HELP: &str = "\
If anything is wrong with the manifests, or a VM's process or link is not to be
found, nothing is changed. VMs that are as they shall be are left alone.

A VM's rules, events, times and lever are replaced in one step: no packet goes
by unseen, and what is in flight stays so. One with other links, or in another
process, is removed and added again.

Examples:
  sleepyctl apply web.toml --dry-run
  sleepyctl apply /etc/sleepy --prune";
