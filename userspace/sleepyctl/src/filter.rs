// SPDX-License-Identifier: GPL-2.0-only

//! The rules of a VM: pcap-filter(7) expressions, compiled by libpcap to classic BPF.

use pcap::{Active, BpfProgram, Capture, Dead, Linktype};
use sleepy_uapi::{
    CLASS_CLOSE, CLASS_IGNORE, CLASS_REQUEST, CLASS_RESPONSE, FROM_VM, MAX_INSNS, MAX_RULES, TO_VM,
};

use crate::cli::RuleArgs;
use crate::error::{Error, Result};
use crate::ioctl::KernelRule;
use crate::link::Found;

#[cfg(test)]
mod tests;

/// A rule before it is compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// One of `CLASS_*`.
    pub class: u32,
    /// `TO_VM`, `FROM_VM` or both.
    pub direction: u32,
    /// What it matches.
    pub expr: String,
}

impl Rule {
    fn new(class: u32, direction: u32, expr: impl Into<String>) -> Self {
        Self {
            class,
            direction,
            expr: expr.into(),
        }
    }

    /// What the user calls it.
    pub fn name(&self) -> String {
        match self.class {
            CLASS_REQUEST => format!("--request '{}'", self.expr),
            CLASS_RESPONSE => format!("--response '{}'", self.expr),
            _ => "a default rule for TCP (leave it out with --no-tcp-defaults)".to_string(),
        }
    }
}

/// The rules in their order: what TCP does to open, acknowledge and end a connection around what the user
/// wants to see.
///
/// | # | direction | class | segment |
/// |---|---|---|---|
/// | 1 | both | close | reset |
/// | 2 | from the VM | close | FIN without payload: nothing more will come, so no answer either |
/// | 3 | both | ignore | no payload, no SYN: a bare acknowledgement, or the client's FIN |
/// |   | | request, response | the user's |
/// | 4 | from the VM | close | any other FIN: the last of an answer that no rule knows |
///
/// A client's bare FIN asks for nothing. Were it a request, then whenever the VM closes first, its flow
/// would stay in flight: the VM only acknowledges it.
pub fn rules(requests: &[String], responses: &[String], with_tcp: bool) -> Vec<Rule> {
    let tcp = |class, direction, expr: String| with_tcp.then(|| Rule::new(class, direction, expr));
    let before = [
        tcp(CLASS_CLOSE, TO_VM | FROM_VM, tcp_expr("{flags} & 4 != 0")),
        tcp(
            CLASS_CLOSE,
            FROM_VM,
            tcp_expr("{flags} & 3 = 1 and {no payload}"),
        ),
        tcp(
            CLASS_IGNORE,
            TO_VM | FROM_VM,
            tcp_expr("{flags} & 2 = 0 and {no payload}"),
        ),
    ];
    let requests = requests
        .iter()
        .map(|expr| Rule::new(CLASS_REQUEST, TO_VM, expr));
    let responses = responses
        .iter()
        .map(|expr| Rule::new(CLASS_RESPONSE, FROM_VM, expr));
    let after = tcp(CLASS_CLOSE, FROM_VM, tcp_expr("{flags} & 1 != 0"));
    before
        .into_iter()
        .flatten()
        .chain(requests)
        .chain(responses)
        .chain(after)
        .collect()
}

/// A condition on TCP segments, for IPv4 and IPv6, with and without a VLAN tag in the packet.
///
/// libpcap's `tcp[]` is IPv4 only. Lengths are those in the IP header, since short frames are padded. Of
/// a segment too long for that field it is 0, which is no header's length, so that it has a payload.
fn tcp_expr(condition: &str) -> String {
    let ip4 = condition.replace("{flags}", "tcp[13]").replace(
        "{no payload}",
        "ip[2:2] = ((ip[0] & 0xf) << 2) + ((tcp[12] & 0xf0) >> 2)",
    );
    let ip6 = condition
        .replace("{flags}", "ip6[53]")
        .replace("{no payload}", "ip6[4:2] = (ip6[52] & 0xf0) >> 2");
    let both = format!("({ip4}) or (ip6[6] = 6 and {ip6})");
    format!("{both} or (vlan and ({both}))")
}

/// A rule, compiled.
pub struct Compiled {
    /// From what.
    pub rule: Rule,
    /// The instructions.
    pub program: BpfProgram,
}

impl Compiled {
    /// As the kernel takes it.
    pub fn kernel_rule(&self) -> KernelRule<'_> {
        KernelRule {
            class: self.rule.class,
            direction: self.rule.direction,
            insns: self.program.get_instructions(),
        }
    }
}

impl RuleArgs {
    /// Whether there are any.
    pub fn is_empty(&self) -> bool {
        self.request.is_empty() && self.response.is_empty()
    }

    /// Compiles them, and what TCP does by itself, for packets of these links.
    pub fn compile(&self, links: &[Found]) -> Result<Vec<Compiled>> {
        let rules = rules(&self.request, &self.response, !self.no_tcp_defaults);
        compile(rules, links)
    }
}

/// Compiles every rule as for a capture on one of these links.
pub fn compile(rules: Vec<Rule>, links: &[Found]) -> Result<Vec<Compiled>> {
    if rules.len() > MAX_RULES as usize {
        return Err(Error::failed(format!(
            "{} rules (with those for TCP) are too many, at most {MAX_RULES}; join expressions with `or`",
            rules.len()
        )));
    }
    let handle = Handle::open(links)?;
    rules
        .into_iter()
        .map(|rule| compile_one(rule, &handle))
        .collect()
}

fn compile_one(rule: Rule, handle: &Handle) -> Result<Compiled> {
    let program = handle.compile(&rule.expr).map_err(|error| {
        let why = match error {
            pcap::Error::PcapError(text) => text,
            other => other.to_string(),
        };
        Error::failed(format!("{}: {why}; see pcap-filter(7)", rule.name()))
    })?;
    let len = program.get_instructions().len();
    if len > MAX_INSNS as usize {
        return Err(Error::failed(format!(
            "{}: {len} instructions are too many, at most {MAX_INSNS}; split it into several rules",
            rule.name()
        )));
    }
    Ok(Compiled { rule, program })
}

/// What libpcap compiles for.
///
/// The kernel takes the outer VLAN tag out of a packet and keeps it beside it. libpcap knows this, and
/// looks in both places, when it compiles for a live Ethernet device; without one it looks in the packet only.
enum Handle {
    Live(Capture<Active>),
    Dead(Capture<Dead>),
}

impl Handle {
    fn open(links: &[Found]) -> Result<Self> {
        let on_link = links
            .iter()
            .find_map(|link| link.netns.run(|| live(&link.device)).ok().flatten());
        if let Some(capture) = on_link.or_else(|| live("lo")) {
            return Ok(Self::Live(capture));
        }
        Capture::dead(Linktype::ETHERNET)
            .map(Self::Dead)
            .map_err(|error| Error::failed(format!("libpcap: {error}")))
    }

    fn compile(&self, expr: &str) -> std::result::Result<BpfProgram, pcap::Error> {
        match self {
            Self::Live(capture) => capture.compile(expr, true),
            Self::Dead(capture) => capture.compile(expr, true),
        }
    }
}

/// A capture on an Ethernet device of the current network namespace, if it is up and we may.
fn live(device: &str) -> Option<Capture<Active>> {
    let capture = Capture::from_device(device)
        .ok()?
        .promisc(false)
        .buffer_size(1 << 18)
        .open()
        .ok()?;
    (capture.get_datalink() == Linktype::ETHERNET).then_some(capture)
}
