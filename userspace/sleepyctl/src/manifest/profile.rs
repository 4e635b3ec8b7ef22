// SPDX-License-Identifier: GPL-2.0-only

//! Profiles: events, times and rules for the common cases, by a name.

use sleepy_uapi as uapi;
use sleepy_uapi::{CLASS_IGNORE, CLASS_REQUEST, CLASS_RESPONSE, FROM_VM, TO_VM};

use crate::policy::Settings;
use crate::rule::{BOTH, Origin, Rule, tagged_too};

const MS: u64 = 1_000_000;

/// A common case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// A server that gets a request and answers it, on TCP.
    Http,
    /// HTTP/2 without TLS: many streams on one flow, and frames that ask for nothing.
    Grpc,
    /// Requests and answers of a datagram each.
    Udp,
    /// Encrypted, or nobody knows what it does.
    Opaque,
    /// No packets to see: SR-IOV, vhost-user, DPDK.
    Passthrough,
    /// Works in the background, in its own time.
    Batch,
}

use Profile::{Batch, Grpc, Http, Opaque, Passthrough, Udp};

impl Profile {
    const ALL: [Self; 6] = [Http, Grpc, Udp, Opaque, Passthrough, Batch];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Http => "http",
            Grpc => "grpc",
            Udp => "udp",
            Opaque => "opaque",
            Passthrough => "passthrough",
            Batch => "batch",
        }
    }

    /// All names.
    pub fn names() -> Vec<&'static str> {
        Self::ALL.map(Self::name).to_vec()
    }

    /// The one of this name.
    pub fn of_name(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|profile| profile.name() == name);
        found.ok_or_else(|| crate::similar::unknown("profile", name, &Self::names()))
    }

    /// Whether it makes rules of ports.
    pub fn takes_ports(self) -> bool {
        matches!(self, Http | Grpc | Udp)
    }

    /// Events and times; what it does not say is as without a profile.
    pub fn settings(self) -> Settings {
        let on = |events: &[usize]| Some(events.iter().fold(0, |bits, event| bits | 1 << event));
        let requests = Settings {
            sleep_on: on(&[uapi::SLEEP_RESPONSE]),
            wake_on: on(&[uapi::WAKE_REQUEST]),
            ..Settings::default()
        };
        match self {
            Http => Settings {
                linger: Some(MS / 5),
                ..requests
            },
            Grpc => Settings {
                linger: Some(2 * MS),
                ..requests
            },
            Udp => Settings {
                linger: Some(MS),
                ..requests
            },
            Opaque => Settings {
                sleep_on: on(&[uapi::SLEEP_IDLE, uapi::SLEEP_SPIN, uapi::SLEEP_QUIET]),
                wake_on: on(&[uapi::WAKE_PACKET, uapi::WAKE_INTERRUPT, uapi::WAKE_DOORBELL]),
                ..Settings::default()
            },
            Passthrough => Settings {
                sleep_on: on(&[uapi::SLEEP_IDLE, uapi::SLEEP_SPIN]),
                wake_on: on(&[uapi::WAKE_INTERRUPT, uapi::WAKE_DOORBELL]),
                ..Settings::default()
            },
            Batch => Settings {
                sleep_on: on(&[
                    uapi::SLEEP_RESPONSE,
                    uapi::SLEEP_IDLE,
                    uapi::SLEEP_SPIN,
                    uapi::SLEEP_QUIET,
                ]),
                wake_on: on(&[uapi::WAKE_REQUEST, uapi::WAKE_HINT]),
                spin: Some(5 * MS),
                max_sleep: Some(10_000 * MS),
                ..Settings::default()
            },
        }
    }

    /// The rules for these ports. Their text says all that [`of_text`](Self::of_text) needs.
    pub fn rules(self, ports: &[u16]) -> Vec<Rule> {
        if ports.is_empty() || !self.takes_ports() {
            return Vec::new();
        }
        let any = |end: &str| {
            let each: Vec<String> = ports
                .iter()
                .map(|port| format!("{end} port {port}"))
                .collect();
            format!("({})", each.join(" or "))
        };
        let protocol = if self == Udp { "udp" } else { "tcp" };
        let of = |end: &str| tagged_too(&format!("({protocol} and {})", any(end)));
        let mut rules = vec![
            Rule::filter(CLASS_REQUEST, TO_VM, &of("dst")),
            Rule::filter(CLASS_RESPONSE, FROM_VM, &of("src")),
        ];
        if self == Grpc {
            let control = format!("(tcp and {} and ({}))", any(""), control_frames());
            rules.insert(0, Rule::filter(CLASS_IGNORE, BOTH, &tagged_too(&control)));
        }
        let numbers: Vec<String> = ports.iter().map(u16::to_string).collect();
        let text = format!("{} {}", self.name(), numbers.join(","));
        rules
            .into_iter()
            .map(|rule| rule.from(Origin::Profile, &text))
            .collect()
    }

    /// The profile and the ports of a rule that a profile has made.
    pub fn of_text(text: &str) -> Option<(Self, Vec<u16>)> {
        let (name, ports) = text.split_once(' ')?;
        let ports: Result<Vec<u16>, _> = ports.split(',').map(str::parse).collect();
        Some((Self::of_name(name).ok()?, ports.ok()?))
    }
}

/// A TCP segment that is one or two HTTP/2 control frames and nothing else: PRIORITY, RST_STREAM, SETTINGS, PING, GOAWAY
/// or WINDOW_UPDATE. They neither ask nor answer.
///
/// All others count as a request or an answer: a HEADERS or DATA frame, also behind a control frame in one
/// segment; the preface; and the further segments of a long message, which begin anywhere in a frame.
fn control_frames() -> String {
    let ip4 = control_frames_of(
        "(ip[2:2] - ((ip[0] & 0xf) << 2) - ((tcp[12] & 0xf0) >> 2))",
        |offset, size| format!("tcp[((tcp[12] & 0xf0) >> 2) + {offset}:{size}]"),
    );
    let ip6 = control_frames_of("(ip6[4:2] - ((ip6[52] & 0xf0) >> 2))", |offset, size| {
        format!("ip6[40 + ((ip6[52] & 0xf0) >> 2) + {offset}:{size}]")
    });
    format!("(ip and {ip4}) or (ip6 and {ip6})")
}

/// The first nine bytes of a frame are its length, in three of them, its type, flags and stream.
fn control_frames_of(payload: &str, at: impl Fn(&str, u8) -> String) -> String {
    let is_control = |kind: &str| format!("({kind} >= 2 and {kind} <= 8 and {kind} != 5)");
    let (first, first_length) = (at("3", 1), at("1", 2));
    let second = format!("{first_length} + 9");
    let (second_kind, second_length) = (
        at(&format!("{second} + 3"), 1),
        at(&format!("{second} + 1"), 2),
    );
    format!(
        "({} = 0 and {} and ({payload} = {first_length} + 9 or ({payload} = {first_length} + 18 + {second_length} \
         and {})))",
        at("0", 1),
        is_control(&first),
        is_control(&second_kind)
    )
}
