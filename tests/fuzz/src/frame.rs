// SPDX-License-Identifier: GPL-2.0-only

//! Packets, which need not be any.

use etherparse::{IpNumber, PacketBuilder};
use fastrand::Rng;

use crate::make::{once_in, pick};

/// `struct virtio_net_hdr`, in front of each frame.
pub const HEADER: usize = 10;
/// What `struct virtio_net_hdr_v1_hash_tunnel` has after that.
const TUNNEL: usize = 14;
const LONGEST: usize = 20_000;
const ETHERNET: usize = 14;
const TAGS: [u16; 2] = [0x8100, 0x88a8];

/// `struct virtio_net_hdr`, an Ethernet frame, and how it was made.
#[derive(Default)]
pub struct Frame {
    pub bytes: Vec<u8>,
    /// The rest of the header, for whoever has a longer one.
    pub tunnel: [u8; TUNNEL],
    pub kinds: Vec<&'static str>,
}

/// What a packet was put into.
struct Outer {
    v6: bool,
    /// Where its own transport header is.
    transport: usize,
    /// All of its headers.
    length: usize,
}

impl Frame {
    /// Its length when a hook sees it, if it comes so far: on its way in, the outer tag is taken off first.
    pub fn seen(&self, to_vm: bool) -> Option<usize> {
        let frame = &self.bytes[HEADER..];
        let kind = u16::from_be_bytes([frame[12], frame[13]]);
        match frame.len() {
            length if to_vm || !TAGS.contains(&kind) => Some(length),
            length if length >= ETHERNET + 6 => Some(length - 4),
            _ => None,
        }
    }

    fn set16(&mut self, at: usize, value: u16) {
        if let Some(place) = self.bytes.get_mut(at..at + 2) {
            place.copy_from_slice(&value.to_be_bytes());
        }
    }

    /// Makes another one.
    pub fn make(&mut self, rng: &mut Rng) {
        self.kinds.clear();
        self.bytes.clear();
        self.bytes.resize(HEADER, 0);
        self.tunnel = [0; TUNNEL];
        let (v6, protocol) = (rng.bool(), rng.u32(..5));
        let payload = match rng.u32(..40) {
            0 => rng.usize(..LONGEST),
            1..=4 => rng.usize(..3000),
            _ => rng.usize(..100),
        };
        let payload = vec![rng.u8(..); payload];
        // Few flows, so that they are answered and closed now and then.
        let ports = (rng.u16(1000..1040), pick(rng, &[7, 80, 443]));
        let link = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        let net = if v6 {
            let ends = ([0xfd; 16], [0xfe; 16]);
            link.ipv6(ends.0, ends.1, 64)
        } else {
            link.ipv4([192, 0, 2, 1], [192, 0, 2, 2], 64)
        };
        let mut transport = HEADER + ETHERNET + if v6 { 40 } else { 20 };
        let bytes = &mut self.bytes;
        let (kind, made) = match protocol {
            0 | 1 => {
                let seq = rng.u32(..) >> rng.u32(..32);
                let tcp = net.tcp(ports.0, ports.1, seq, 65535).ack(1);
                let tcp = match rng.u32(..6) {
                    0 => tcp.syn(),
                    1 => tcp.fin(),
                    2 => tcp.rst(),
                    3 => tcp,
                    _ => tcp.psh(),
                };
                (["tcp4", "tcp6"], tcp.write(bytes, &payload))
            }
            2 | 3 => (
                ["udp4", "udp6"],
                net.udp(ports.0, ports.1).write(bytes, &payload),
            ),
            _ if v6 => (
                ["icmp4", "icmp6"],
                net.icmpv6_echo_request(1, 2).write(bytes, &payload),
            ),
            _ => (
                ["icmp4", "icmp6"],
                net.icmpv4_echo_request(1, 2).write(bytes, &payload),
            ),
        };
        made.expect("a packet");
        self.kinds.push(kind[usize::from(v6)]);
        // What follows may be done all at once.
        if v6 && once_in(rng, 4) {
            transport += self.extend(rng, protocol);
        } else if !v6 && once_in(rng, 5) {
            let words = rng.u8(1..=10);
            let options: Vec<u8> = (0..4 * words)
                .map(|_| pick(rng, &[0, 1, 7, 68, 131, 148, 255, 4]))
                .collect();
            let at = HEADER + ETHERNET;
            self.bytes.splice(transport..transport, options);
            self.bytes[at] = 0x45 + words;
            self.set16(at + 2, (self.bytes.len() - at) as u16);
            transport += 4 * usize::from(words);
            self.kinds.push("ipv4 options");
        }
        if !v6 && once_in(rng, 8) {
            self.set16(
                HEADER + ETHERNET + 6,
                pick(rng, &[0x2000, 1, 0x2001, 0x1fff, 0x3fff, 0x4000, 0x8000]),
            );
            self.kinds.push("ipv4 fragment");
        }
        if protocol < 2 && once_in(rng, 6) {
            self.bytes[transport + 12] = rng.u8(..);
            self.kinds.push("tcp offset");
        }
        if once_in(rng, 6) {
            let place = if v6 {
                HEADER + ETHERNET + 4
            } else {
                HEADER + ETHERNET + 2
            };
            self.set16(place, rng.u16(..) >> rng.u32(..16));
            self.kinds.push("wrong length");
        }
        let outer = once_in(rng, 8).then(|| self.encapsulate(rng));
        transport += outer.as_ref().map_or(0, |outer| outer.length);
        let depth = if once_in(rng, 5) {
            pick(rng, &[1, 1, 2, 3, 8])
        } else {
            0
        };
        if depth > 0 {
            for _ in 0..depth {
                let [a, b] = pick(rng, &TAGS).to_be_bytes();
                let at = HEADER + 12;
                self.bytes.splice(at..at, [a, b, rng.u8(..), rng.u8(..)]);
            }
            transport += 4 * depth;
            self.kinds
                .push(if depth == 1 { "vlan" } else { "vlan, nested" });
        }
        if once_in(rng, 4) {
            self.offload(rng, transport, protocol, v6);
            if let Some(outer) = outer {
                self.offload_tunnel(rng, &outer, depth);
            }
        }
        if once_in(rng, 8) {
            let rest = self.bytes.len().min(transport + 40);
            self.bytes.truncate(rng.usize(HEADER + ETHERNET..=rest));
            self.kinds.push("truncated");
        }
        if once_in(rng, 5) {
            let headers = self.bytes.len().min(transport + 24);
            for _ in 0..rng.u32(1..6) {
                let at = rng.usize(HEADER..headers);
                self.bytes[at] = rng.u8(..);
            }
            self.kinds.push("mutated");
        }
        if once_in(rng, 40) {
            rng.fill(&mut self.bytes[HEADER + 12..]);
            self.kinds.push("noise");
        }
    }

    /// Puts extension headers into an IPv6 packet, some of which say another length than theirs; returns theirs.
    fn extend(&mut self, rng: &mut Rng, protocol: u32) -> usize {
        const KINDS: [u8; 9] = [0, 43, 44, 51, 60, 135, 139, 140, 59];
        let at = HEADER + ETHERNET;
        let upper = match protocol {
            0 | 1 => IpNumber::TCP,
            2 | 3 => IpNumber::UDP,
            _ => IpNumber::IPV6_ICMP,
        };
        let kinds: Vec<u8> = (0..pick(rng, &[1, 1, 2, 3, 12, 40]))
            .map(|_| pick(rng, &KINDS))
            .collect();
        let mut headers = Vec::new();
        for (index, &kind) in kinds.iter().enumerate() {
            // Fragments have 8 bytes; others say how many more units of 8 (AH: 4, and one less).
            let more = if kind == 44 { 0 } else { rng.usize(..3) };
            let said = match kind {
                51 => 2 * more,
                _ => more,
            };
            let said = if once_in(rng, 10) {
                rng.u8(..)
            } else {
                said as u8
            };
            let next = kinds.get(index + 1).copied().unwrap_or(upper.0);
            headers.extend([next, said]);
            headers.extend((0..8 * more + 6).map(|_| if once_in(rng, 4) { rng.u8(..) } else { 0 }));
        }
        self.bytes[at + 6] = kinds[0];
        let length = headers.len();
        self.bytes.splice(at + 40..at + 40, headers);
        self.set16(at + 4, (self.bytes.len() - at - 40) as u16);
        self.kinds.push("ipv6 extensions");
        length
    }

    /// Puts it into a tunnel, VXLAN by UDP.
    fn encapsulate(&mut self, rng: &mut Rng) -> Outer {
        const PORT: u16 = 4789;
        let v6 = rng.bool();
        let link = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 3], [2, 0, 0, 0, 0, 4]);
        let net = if v6 {
            link.ipv6([0xfc; 16], [0xfb; 16], 64)
        } else {
            link.ipv4([198, 51, 100, 1], [198, 51, 100, 2], 64)
        };
        let inner = [&[8, 0, 0, 0, 0, 0, 1, 0], &self.bytes[HEADER..]].concat();
        let before = self.bytes.len();
        self.bytes.truncate(HEADER);
        net.udp(rng.u16(1000..1040), PORT)
            .write(&mut self.bytes, &inner)
            .expect("a packet");
        self.kinds.push("tunnel");
        Outer {
            v6,
            transport: ETHERNET + if v6 { 40 } else { 20 },
            length: self.bytes.len() - before,
        }
    }

    /// Has the kernel take it for several packets in one tunnelled one, after [`offload`](Self::offload).
    fn offload_tunnel(&mut self, rng: &mut Rng, outer: &Outer, depth: usize) {
        const UDP_TUNNEL_IPV4: u8 = 0x20;
        const UDP_TUNNEL_IPV6: u8 = 0x40;
        const UDP_TUNNEL_CSUM: u8 = 8;
        let right = [UDP_TUNNEL_IPV4, UDP_TUNNEL_IPV6][usize::from(outer.v6)];
        self.bytes[1] |= if once_in(rng, 10) { 0x60 } else { right };
        if rng.bool() {
            self.bytes[0] |= UDP_TUNNEL_CSUM;
        }
        let (transport, inner) = match rng.u32(..12) {
            0 => (rng.u16(..), rng.u16(..)),
            1 => (rng.u16(..200), rng.u16(..200)),
            _ => {
                let tags = 4 * depth;
                let inner = outer.length + tags + ETHERNET;
                ((outer.transport + tags) as u16, inner as u16)
            }
        };
        let [[t0, t1], [n0, n1]] = [transport, inner].map(u16::to_le_bytes);
        self.tunnel[TUNNEL - 4..].copy_from_slice(&[t0, t1, n0, n1]);
        self.kinds.push("offload: tunnel");
    }

    /// Has the kernel take it for several packets in one, or for one without a checksum.
    fn offload(&mut self, rng: &mut Rng, transport: usize, protocol: u32, v6: bool) {
        const NONE: u8 = 0;
        const TCPV4: u8 = 1;
        const UDP: u8 = 3;
        const TCPV6: u8 = 4;
        const UDP_L4: u8 = 5;
        const ECN: u8 = 0x80;
        let right = match protocol {
            0 | 1 if v6 => TCPV6,
            0 | 1 => TCPV4,
            2 => UDP,
            3 => UDP_L4,
            _ => NONE,
        };
        let mut gso = if once_in(rng, 8) {
            pick(rng, &[NONE, TCPV4, UDP, TCPV6, UDP_L4, 2, 77])
        } else {
            right
        };
        if protocol < 2 && once_in(rng, 4) {
            gso |= ECN;
        }
        let start = (transport - HEADER) as u16;
        let (start, offset) = match rng.u32(..12) {
            0 => (rng.u16(..), rng.u16(..)),
            1 => (rng.u16(..200), rng.u16(..20)),
            _ => (start, if protocol < 2 { 16 } else { 6 }),
        };
        let size = pick(rng, &[1, 8, 100, 536, 1448, 1460, 9000, 0xfffe, 0xffff, 0]);
        let flags = pick(rng, &[1, 1, 1, 1, 0, 2, 3, 4, 0xff]);
        let [[s0, s1], [c0, c1], [o0, o1]] = [size, start, offset].map(u16::to_le_bytes);
        let [h0, h1] = pick(rng, &[start + 20, 0, 14, 0xffff]).to_le_bytes();
        self.bytes[..HEADER].copy_from_slice(&[flags, gso, h0, h1, s0, s1, c0, c1, o0, o1]);
        self.kinds.push(match gso & !ECN {
            NONE => "offload: checksum",
            TCPV4 => "offload: tcp4",
            TCPV6 => "offload: tcp6",
            UDP => "offload: udp",
            UDP_L4 => "offload: udp_l4",
            _ => "offload: unknown",
        });
        if gso & ECN != 0 {
            self.kinds.push("offload: ecn");
        }
    }
}
