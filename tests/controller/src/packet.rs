// SPDX-License-Identifier: GPL-2.0-only

//! What a packet means for the VM that it goes to or comes from.

use std::net::{IpAddr, SocketAddr};

use etherparse::{LaxNetSlice, LaxSlicedPacket, TransportSlice};

/// So much of a packet is captured: the longest headers, and some data.
pub const CAPTURED: i32 = 256;

/// What a packet means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// The VM is asked for something: by data, or for a connection.
    Request,
    /// It answers: with data, or by taking or ending the connection; or the peer gives up.
    Response,
}

/// The meaning of a TCP packet for a VM that serves `port`, and the peer whose flow it is in; `None` if it has none, as an
/// acknowledgement alone. `frame` is Ethernet, and may be cut off after [`CAPTURED`] bytes.
pub fn classify(frame: &[u8], port: u16) -> Option<(Meaning, SocketAddr)> {
    let packet = LaxSlicedPacket::from_ethernet(frame).ok()?;
    let (from, to): (IpAddr, IpAddr) = match packet.net? {
        LaxNetSlice::Ipv4(ip) => (
            ip.header().source_addr().into(),
            ip.header().destination_addr().into(),
        ),
        LaxNetSlice::Ipv6(ip) => (
            ip.header().source_addr().into(),
            ip.header().destination_addr().into(),
        ),
        LaxNetSlice::Arp(_) => return None,
    };
    let TransportSlice::Tcp(tcp) = packet.transport? else {
        return None;
    };
    let data = !tcp.payload().is_empty();
    if tcp.destination_port() == port {
        let peer = SocketAddr::new(from, tcp.source_port());
        if tcp.rst() {
            Some((Meaning::Response, peer))
        } else {
            (data || tcp.syn()).then_some((Meaning::Request, peer))
        }
    } else if tcp.source_port() == port {
        let peer = SocketAddr::new(to, tcp.destination_port());
        (data || tcp.syn() || tcp.fin() || tcp.rst()).then_some((Meaning::Response, peer))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Captured between curl, at 10.9.1.1 port 42100, and an HTTP server, at 10.9.1.2 port 8080.
    const SYN: &str = "8e14653ad5268237850bc9bc08004500003cb1fc4000400672ab0a0901010a090102a4741f90d2dcf0d400000000a002\
        faf016430000020405b40402080adaff37e80000000001030308";
    const SYN_ACK: &str = "8237850bc9bc8e14653ad52608004500003c00004000400624a80a0901020a0901011f90a47423089ad2d2dcf0d5a012\
        fe8816430000020405b40402080a42564272daff37e801030308";
    const REQUEST: &str = "8e14653ad5268237850bc9bc080045000085b1fe4000400672600a0901010a090102a4741f90d2dcf0d523089ad38018\
        00fb168c00000101080adaff37f042564272474554202f736c6f7720485454502f312e310d0a486f73743a2031302e39\
        2e312e323a383038300d0a557365722d4167656e743a206375726c2f382e32312e300d0a4163636570743a202a2f2a0d\
        0a0d0a";
    const ACK: &str = "8237850bc9bc8e14653ad526080045000034a788400040067d270a0901020a0901011f90a47423089ad3d2dcf1268010\
        00ff163b00000101080a42564274daff37f0";
    const ANSWER: &str = "8237850bc9bc8e14653ad526080045000036a78a400040067d230a0901020a0901011f90a47423089b42d2dcf1268018\
        00ff163d00000101080a42564a63daff3fde6f6b";
    const PEER_FIN: &str = "8e14653ad5268237850bc9bc080045000034b2014000400672ae0a0901010a090102a4741f90d2dcf12623089b448011\
        00fb163b00000101080adaff3feb42564a63";
    const FIN: &str = "8237850bc9bc8e14653ad526080045000034a78b400040067d240a0901020a0901011f90a47423089b44d2dcf1278011\
        00ff163b00000101080a42564a73daff3feb";

    /// Where the parts of these begin.
    const ETHERTYPE: usize = 12;
    const TCP: usize = 34;
    const FLAGS: usize = TCP + 13;
    const RST: u8 = 4;

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
            .collect()
    }

    fn meaning(frame: &[u8]) -> Option<Meaning> {
        let (meaning, peer) = classify(frame, 8080)?;
        assert_eq!(peer, "10.9.1.1:42100".parse().unwrap());
        Some(meaning)
    }

    #[test]
    fn a_connection() {
        for (frame, expected) in [
            (SYN, Some(Meaning::Request)),
            (SYN_ACK, Some(Meaning::Response)),
            (REQUEST, Some(Meaning::Request)),
            (ACK, None),
            (ANSWER, Some(Meaning::Response)),
            (PEER_FIN, None),
            (FIN, Some(Meaning::Response)),
        ] {
            assert_eq!(meaning(&bytes(frame)), expected, "{frame}");
        }
    }

    #[test]
    fn a_peer_that_gives_up() {
        let mut frame = bytes(PEER_FIN);
        frame[FLAGS] = RST;
        assert_eq!(meaning(&frame), Some(Meaning::Response));
    }

    #[test]
    fn a_request_that_is_cut_off() {
        let mut frame = bytes(REQUEST);
        frame.truncate(TCP + 40);
        assert_eq!(meaning(&frame), Some(Meaning::Request));
    }

    #[test]
    fn padding_is_no_data() {
        let mut frame = bytes(ACK);
        frame.resize(frame.len() + 20, 0);
        assert_eq!(meaning(&frame), None);
    }

    #[test]
    fn ipv6() {
        let frame = bytes(REQUEST);
        let tcp = &frame[TCP..];
        let mut six = bytes(REQUEST)[..ETHERTYPE].to_vec();
        six.extend([
            0x86,
            0xdd,
            0x60,
            0,
            0,
            0,
            0,
            u8::try_from(tcp.len()).unwrap(),
            6,
            64,
        ]);
        six.extend(
            [
                [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
                [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2],
            ]
            .as_flattened(),
        );
        six.extend(tcp);
        assert_eq!(
            classify(&six, 8080),
            Some((Meaning::Request, "[fd00::1]:42100".parse().unwrap()))
        );
    }

    #[test]
    fn anything_else() {
        let frame = bytes(REQUEST);
        assert_eq!(classify(&frame, 80), None);
        let mut arp = frame.clone();
        arp[ETHERTYPE + 1] = 6;
        assert_eq!(meaning(&arp), None);
        for length in 0..TCP + 20 {
            assert_eq!(meaning(&frame[..length]), None, "{length}");
        }
    }
}
