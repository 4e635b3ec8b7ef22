// SPDX-License-Identifier: GPL-2.0-only

//! The rules, run by libpcap's own interpreter over the bytes of packets.

use sleepy_uapi::{CLASS_CLOSE, CLASS_IGNORE, CLASS_REQUEST, CLASS_RESPONSE, FROM_VM, TO_VM};

use super::*;
use crate::rule::complete;

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const PSH: u8 = 8;
const ACK: u8 = 16;

const REQUEST: &str = "dst port 80 or (vlan and dst port 80)";
const RESPONSE: &str = "src port 80 or (vlan and src port 80)";

#[derive(Clone, Copy, Debug, PartialEq)]
enum Ip {
    V4,
    V4Options,
    V6,
}

const IPS: [Ip; 3] = [Ip::V4, Ip::V4Options, Ip::V6];

/// An Ethernet frame with one TCP segment; port 80 is the VM's.
fn tcp(ip: Ip, direction: u32, flags: u8, tcp_options: usize, payload: usize) -> Vec<u8> {
    let (source, destination) = if direction == TO_VM {
        (40000u16, 80u16)
    } else {
        (80, 40000)
    };
    let mut segment = vec![0; 20 + tcp_options + payload];
    segment[..2].copy_from_slice(&source.to_be_bytes());
    segment[2..4].copy_from_slice(&destination.to_be_bytes());
    segment[12] = ((20 + tcp_options) as u8 / 4) << 4;
    segment[13] = flags;
    packet(ip, 6, &segment)
}

fn udp(ip: Ip, source: u16, destination: u16, payload: usize) -> Vec<u8> {
    let mut datagram = vec![0; 8 + payload];
    datagram[..2].copy_from_slice(&source.to_be_bytes());
    datagram[2..4].copy_from_slice(&destination.to_be_bytes());
    packet(ip, 17, &datagram)
}

fn packet(ip: Ip, protocol: u8, data: &[u8]) -> Vec<u8> {
    let header = match ip {
        Ip::V4 | Ip::V4Options => {
            let len = if ip == Ip::V4 { 20 } else { 28 };
            let mut header = vec![0; len];
            header[0] = 0x40 | (len as u8 / 4);
            header[2..4].copy_from_slice(&((len + data.len()) as u16).to_be_bytes());
            header[9] = protocol;
            header
        }
        Ip::V6 => {
            let mut header = vec![0; 40];
            header[0] = 0x60;
            header[4..6].copy_from_slice(&(data.len() as u16).to_be_bytes());
            header[6] = protocol;
            header
        }
    };
    frame(
        if ip == Ip::V6 { 0x86dd } else { 0x0800 },
        &[&header, data].concat(),
    )
}

/// Padded to the shortest Ethernet frame, as a network card would.
fn frame(ethertype: u16, data: &[u8]) -> Vec<u8> {
    let mut frame = vec![2; 12];
    frame.extend(ethertype.to_be_bytes());
    frame.extend(data);
    frame.resize(frame.len().max(60), 0);
    frame
}

fn tagged(frame: &[u8]) -> Vec<u8> {
    [&frame[..12], &[0x81, 0x00, 0x00, 0x05], &frame[12..]].concat()
}

fn compiled(with_tcp: bool) -> Vec<Compiled> {
    compile_dead(complete(user(), with_tcp, with_tcp))
}

fn user() -> Vec<Rule> {
    vec![
        Rule::filter(CLASS_REQUEST, TO_VM, REQUEST),
        Rule::filter(CLASS_RESPONSE, FROM_VM, RESPONSE),
    ]
}

/// Unlike a live device's, these programs look for a VLAN tag in the packet only.
fn compile_dead(rules: Vec<Rule>) -> Vec<Compiled> {
    let handle = Handle::dead().unwrap();
    let compile = |rule: Rule| {
        let Match::Filter(expr) = &rule.matches else {
            panic!("{rule:?}")
        };
        let code = Code::Classic(Rc::new(handle.check(expr).unwrap()));
        Compiled { rule, code }
    };
    rules.into_iter().map(compile).collect()
}

/// The class of the first rule that matches, with and without a VLAN tag.
fn class(rules: &[Compiled], direction: u32, frame: &[u8]) -> Option<u32> {
    let first = |bytes: &[u8]| {
        let matches = |rule: &&Compiled| {
            let Code::Classic(program) = &rule.code else {
                return false;
            };
            rule.rule.direction & direction != 0 && program.filter(bytes)
        };
        rules.iter().find(matches).map(|rule| rule.rule.class)
    };
    let class = first(frame);
    assert_eq!(
        first(&tagged(frame)),
        class,
        "a VLAN tag makes no difference"
    );
    class
}

/// The classes of a TCP segment towards the VM and from it.
fn tcp_classes(rules: &[Compiled], ip: Ip, flags: u8, payload: usize) -> [Option<u32>; 2] {
    let of = |direction, options| {
        class(
            rules,
            direction,
            &tcp(ip, direction, flags, options, payload),
        )
    };
    let classes = [of(TO_VM, 0), of(FROM_VM, 0)];
    assert_eq!(
        [of(TO_VM, 12), of(FROM_VM, 12)],
        classes,
        "options of TCP make no difference"
    );
    classes
}

#[test]
fn tcp_segments_have_their_classes() {
    let rules = compiled(true);
    let (request, response) = (Some(CLASS_REQUEST), Some(CLASS_RESPONSE));
    let (close, ignore) = (Some(CLASS_CLOSE), Some(CLASS_IGNORE));
    for ip in IPS {
        for (what, flags, payload, expected) in [
            ("SYN", SYN, 0, [request, response]),
            ("SYN with data", SYN, 10, [request, response]),
            ("SYN and ACK", SYN | ACK, 0, [request, response]),
            ("bare ACK", ACK, 0, [ignore, ignore]),
            ("data", ACK | PSH, 1, [request, response]),
            ("much data", ACK, 1448, [request, response]),
            ("FIN", FIN | ACK, 0, [ignore, close]),
            (
                "FIN with the last data",
                FIN | ACK | PSH,
                100,
                [request, response],
            ),
            ("RST", RST, 0, [close, close]),
            ("RST and ACK", RST | ACK, 0, [close, close]),
            ("RST with data", RST | ACK, 5, [close, close]),
        ] {
            assert_eq!(
                tcp_classes(&rules, ip, flags, payload),
                expected,
                "{what}, {ip:?}"
            );
        }
    }
}

#[test]
fn unknown_fin_with_data_closes() {
    let rules = compiled(true);
    for ip in IPS {
        let mut fin = tcp(ip, FROM_VM, FIN | ACK, 0, 100);
        let port = fin.len() - 120;
        fin[port..port + 2].copy_from_slice(&8080u16.to_be_bytes());
        assert_eq!(class(&rules, FROM_VM, &fin), Some(CLASS_CLOSE), "{ip:?}");
    }
}

#[test]
fn other_packets_are_the_users_alone() {
    let rules = compiled(true);
    for ip in IPS {
        assert_eq!(
            class(&rules, TO_VM, &udp(ip, 40000, 80, 0)),
            Some(CLASS_REQUEST),
            "{ip:?}"
        );
        assert_eq!(
            class(&rules, FROM_VM, &udp(ip, 80, 40000, 9)),
            Some(CLASS_RESPONSE),
            "{ip:?}"
        );
        assert_eq!(class(&rules, TO_VM, &udp(ip, 53, 40000, 9)), None, "{ip:?}");
        // What would be the flags of TCP says RST, FIN and so on here.
        let mut datagram = udp(ip, 53, 40000, 30);
        let payload = datagram.len() - 30;
        datagram[payload..].fill(0xff);
        assert_eq!(class(&rules, TO_VM, &datagram), None, "{ip:?}");
        assert_eq!(class(&rules, FROM_VM, &datagram), None, "{ip:?}");
    }
}

#[test]
fn noise_is_ignored_unless_asked_for() {
    let rules = compiled(true);
    let arp = frame(0x0806, &[0, 1, 8, 0, 6, 4, 0, 1]);
    let icmp6 = |kind| packet(Ip::V6, 58, &[kind, 0, 0, 0, 0, 0, 0, 0]);
    let mut multicast = udp(Ip::V4, 5353, 5353, 9);
    multicast[0] = 1;
    let mut asked_for = udp(Ip::V4, 5353, 80, 9);
    asked_for[0] = 1;
    let echo = packet(Ip::V4, 1, &[8, 0, 0, 0]);
    for (what, frame, noise) in [
        ("ARP", &arp, true),
        ("router solicitation", &icmp6(133), true),
        ("neighbour solicitation", &icmp6(135), true),
        ("redirect", &icmp6(137), true),
        ("ICMPv6 echo", &icmp6(128), false),
        ("ICMP echo", &echo, false),
        ("multicast", &multicast, true),
        ("unicast", &udp(Ip::V4, 5353, 5353, 9), false),
    ] {
        let expected = noise.then_some(CLASS_IGNORE);
        assert_eq!(class(&rules, TO_VM, frame), expected, "{what}");
        assert_eq!(class(&rules, FROM_VM, frame), expected, "{what}");
        assert_eq!(class(&compiled(false), TO_VM, frame), None, "{what}");
    }
    assert_eq!(class(&rules, TO_VM, &asked_for), Some(CLASS_REQUEST));
}

#[test]
fn later_fragments_have_no_flags() {
    let rules = compiled(true);
    for flags in [FIN, RST, ACK] {
        let mut fragment = tcp(Ip::V4, FROM_VM, flags, 0, 0);
        fragment[20..22].copy_from_slice(&100u16.to_be_bytes());
        assert_eq!(class(&rules, FROM_VM, &fragment), None, "flags {flags}");
    }
}

#[test]
fn segment_too_long_for_the_length_field_has_a_payload() {
    let rules = compiled(true);
    for (ip, length) in [(Ip::V4, 16), (Ip::V6, 18)] {
        let mut segment = tcp(ip, FROM_VM, ACK, 0, 1448);
        segment[length..length + 2].fill(0);
        assert_eq!(
            class(&rules, FROM_VM, &segment),
            Some(CLASS_RESPONSE),
            "{ip:?}"
        );
    }
}

#[test]
fn without_defaults_every_segment_is_the_users() {
    let rules = compiled(false);
    assert_eq!(rules.len(), 2);
    for flags in [SYN, ACK, FIN | ACK, RST] {
        let expected = [Some(CLASS_REQUEST), Some(CLASS_RESPONSE)];
        assert_eq!(
            tcp_classes(&rules, Ip::V6, flags, 0),
            expected,
            "flags {flags}"
        );
    }
}

#[test]
fn order_is_as_given() {
    let rules = complete(user(), true, true);
    let classes: Vec<u32> = rules.iter().map(|rule| rule.class).collect();
    let expected = [
        CLASS_CLOSE,
        CLASS_CLOSE,
        CLASS_IGNORE,
        CLASS_REQUEST,
        CLASS_RESPONSE,
        CLASS_CLOSE,
        CLASS_IGNORE,
    ];
    assert_eq!(classes, expected);
    assert_eq!(rules[3..5], user());
    assert_eq!(complete(user(), false, false), user());
}

#[test]
fn bad_expression_is_named() {
    let rules = vec![Rule::filter(CLASS_REQUEST, TO_VM, "tcp prot 80")];
    let error = compile(rules, &[]).err().unwrap().to_string();
    assert!(error.starts_with("request rule 'tcp prot 80': "), "{error}");
    assert!(error.contains("syntax error"), "{error}");
}

#[test]
fn filters_that_cannot_be_meant_are_refused() {
    let handle = Handle::dead().unwrap();
    for (expr, why) in [
        ("tcp and udp", "can ever match"),
        ("ip and arp", "can ever match"),
        ("1 = 2", "can ever match"),
        (" ", "empty"),
        ("wlan type mgt", "pcap-filter(7)"),
    ] {
        let error = handle.check(expr).err().unwrap();
        assert!(error.contains(why), "{expr}: {error}");
    }
    let long = format!("tcp{}", " or tcp".repeat(200));
    let rules = vec![Rule::filter(CLASS_REQUEST, TO_VM, &long)];
    let error = compile(rules, &[]).err().unwrap().to_string();
    assert!(error.contains("too long"), "{error}");
}

#[test]
fn too_many_rules_are_refused() {
    let many = vec![Rule::filter(CLASS_REQUEST, TO_VM, "tcp"); MAX_RULES as usize];
    assert!(compile(many.clone(), &[]).is_ok());
    let error = compile(complete(many, true, true), &[]).err().unwrap();
    assert!(error.to_string().contains("69 rules"), "{error}");
}
