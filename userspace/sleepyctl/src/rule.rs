// SPDX-License-Identifier: GPL-2.0-only

//! The rules of a VM: what its packets mean, the user's and those that come with sleepyctl.

use sleepy_uapi::{
    CLASS_CLOSE, CLASS_IGNORE, CLASS_PROGRAM, CLASS_REQUEST, CLASS_RESPONSE, CLASS_SLEEP,
    CLASS_WAKE, FROM_VM, TO_VM,
};

/// Both directions.
pub const BOTH: u32 = TO_VM | FROM_VM;

/// Who has written a rule; kept in the kernel as its tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Origin {
    /// The user.
    User = 0,
    /// What TCP does by itself.
    Tcp = 1,
    /// What means nothing on any link.
    Noise = 2,
    /// A profile; the rule's text is the profile's name and the ports.
    Profile = 3,
}

impl Origin {
    /// Of a tag; another program may have set any.
    pub fn of_tag(tag: u32) -> Option<Self> {
        [Self::User, Self::Tcp, Self::Noise, Self::Profile]
            .into_iter()
            .find(|origin| *origin as u32 == tag)
    }

    /// In one word.
    pub fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Tcp => "tcp",
            Self::Noise => "noise",
            Self::Profile => "profile",
        }
    }
}

/// What a rule matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// A pcap-filter(7) expression.
    Filter(String),
    /// A pinned eBPF program.
    Program(String),
}

/// A rule before it is compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// One of `CLASS_*`.
    pub class: u32,
    /// `TO_VM`, `FROM_VM` or both.
    pub direction: u32,
    /// Who has written it.
    pub origin: Origin,
    /// What it matches.
    pub matches: Match,
    /// What the kernel keeps, to be read back: as the user would write it.
    pub text: String,
}

impl Rule {
    /// As the kernel would tell it.
    #[cfg(any(test, feature = "fuzz"))]
    pub fn in_kernel(&self) -> sleepy_uapi::VmRule {
        let mut text = [0; sleepy_uapi::MAX_TEXT as usize];
        text[..self.text.len()].copy_from_slice(self.text.as_bytes());
        sleepy_uapi::VmRule {
            class: self.class,
            direction: self.direction,
            tag: self.origin as u32,
            text_len: self.text.len() as u32,
            text,
            ..sleepy_uapi::VmRule::default()
        }
    }

    /// A rule with a filter.
    pub fn filter(class: u32, direction: u32, expr: &str) -> Self {
        Self {
            class,
            direction,
            origin: Origin::User,
            matches: Match::Filter(expr.to_string()),
            text: expr.to_string(),
        }
    }

    /// A rule with a pinned program.
    pub fn program(direction: u32, path: &str) -> Self {
        Self {
            class: CLASS_PROGRAM,
            direction,
            origin: Origin::User,
            matches: Match::Program(path.to_string()),
            text: path.to_string(),
        }
    }

    /// The same, of another origin.
    pub fn from(self, origin: Origin, text: &str) -> Self {
        Self {
            origin,
            text: text.to_string(),
            ..self
        }
    }

    /// What the user calls it.
    pub fn name(&self) -> String {
        match (self.origin, &self.matches) {
            (Origin::Tcp, _) => "a default rule for TCP (leave them out: tcp_defaults)".to_string(),
            (Origin::Noise, _) => "the rule for noise (leave it out: noise)".to_string(),
            (Origin::Profile, _) => format!("a rule of the profile {}", self.text),
            (Origin::User, Match::Program(path)) => format!("program '{path}'"),
            (Origin::User, Match::Filter(expr)) => {
                format!("{} rule '{expr}'", class_name(self.class))
            }
        }
    }
}

/// A class's name.
pub fn class_name(class: u32) -> String {
    let known = match class {
        CLASS_REQUEST => "request",
        CLASS_RESPONSE => "response",
        CLASS_CLOSE => "close",
        CLASS_IGNORE => "ignore",
        CLASS_WAKE => "wake",
        CLASS_SLEEP => "sleep",
        CLASS_PROGRAM => "program",
        other => return format!("class {other}"),
    };
    known.to_string()
}

/// A direction's name.
pub fn direction_name(direction: u32) -> &'static str {
    match direction {
        TO_VM => "to-vm",
        FROM_VM => "from-vm",
        _ => "both",
    }
}

/// The direction of a user's rule of this class that names none.
pub fn usual_direction(class: u32) -> u32 {
    match class {
        CLASS_REQUEST | CLASS_WAKE => TO_VM,
        CLASS_RESPONSE | CLASS_SLEEP => FROM_VM,
        _ => BOTH,
    }
}

/// All rules of a VM in their order: what TCP does to open, acknowledge and end a connection around what the
/// user wants to see, and last what means nothing if nobody has asked for it.
///
/// | # | direction | class | packet |
/// |---|---|---|---|
/// | 1 | both | close | TCP reset |
/// | 2 | from the VM | close | TCP FIN without payload: nothing more will come, so no answer either |
/// | 3 | both | ignore | TCP without payload and SYN: a bare acknowledgement, or the client's FIN |
/// |   | | | the user's, then the profile's |
/// | 4 | from the VM | close | any other TCP FIN: the last of an answer that no rule knows |
/// | 5 | both | ignore | multicast, broadcast, ARP, IPv6 neighbour discovery |
///
/// A client's bare FIN asks for nothing. Were it a request, then whenever the VM closes first, its flow
/// would stay in flight: the VM only acknowledges it.
pub fn complete(own: Vec<Rule>, with_tcp: bool, with_noise: bool) -> Vec<Rule> {
    let tcp = |class, direction, condition| {
        let rule = Rule::filter(class, direction, &tcp_expr(condition));
        with_tcp.then(|| rule.from(Origin::Tcp, ""))
    };
    let before = [
        tcp(CLASS_CLOSE, BOTH, "{flags} & 4 != 0"),
        tcp(CLASS_CLOSE, FROM_VM, "{flags} & 3 = 1 and {no payload}"),
        tcp(CLASS_IGNORE, BOTH, "{flags} & 2 = 0 and {no payload}"),
    ];
    let after = tcp(CLASS_CLOSE, FROM_VM, "{flags} & 1 != 0");
    let noise = Rule::filter(CLASS_IGNORE, BOTH, &noise_expr()).from(Origin::Noise, "");
    before
        .into_iter()
        .flatten()
        .chain(own)
        .chain(after)
        .chain(with_noise.then_some(noise))
        .collect()
}

/// With and without a VLAN tag in the packet.
pub fn tagged_too(expr: &str) -> String {
    format!("{expr} or (vlan and ({expr}))")
}

/// A condition on TCP segments, for IPv4 and IPv6, with and without a VLAN tag.
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
    tagged_too(&format!("({ip4}) or (ip6[6] = 6 and {ip6})"))
}

/// Multicast (broadcast is one), ARP, and IPv6 neighbour discovery, which is unicast at times. An echo request is
/// none: somebody wants to know whether the VM is well.
fn noise_expr() -> String {
    let tagged = tagged_too("arp or (ip6[6] = 58 and ip6[40] >= 133 and ip6[40] <= 137)");
    format!("ether multicast or {tagged}")
}
