// SPDX-License-Identifier: GPL-2.0-only

//! The guest's network: addresses, a VLAN, routes, set by netlink.

use std::error::Error;
use std::net::IpAddr;
use std::str::FromStr;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

use crate::setting;

const LOOPBACK: &str = "lo";
const DEVICE: &str = "eth0";

/// What the command line asks for.
pub struct Config {
    addresses: Vec<Address>,
    gateways: Vec<IpAddr>,
    vlan: Option<u16>,
}

struct Address {
    address: IpAddr,
    prefix: u8,
}

impl FromStr for Address {
    type Err = Box<dyn Error>;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (address, prefix) = text
            .split_once('/')
            .ok_or_else(|| format!("{text}: give ADDRESS/PREFIX"))?;
        Ok(Self {
            address: address.parse()?,
            prefix: prefix.parse()?,
        })
    }
}

impl Config {
    /// Reads `ip4`, `ip6`, `gw4`, `gw6` and `vlan`.
    pub fn from_environment() -> Result<Self, Box<dyn Error>> {
        let addresses = ["ip4", "ip6"].into_iter().filter_map(setting);
        let gateways = ["gw4", "gw6"].into_iter().filter_map(setting);
        Ok(Self {
            addresses: addresses
                .map(|text| text.parse())
                .collect::<Result<_, _>>()?,
            gateways: gateways
                .map(|text| text.parse())
                .collect::<Result<_, _>>()?,
            vlan: setting("vlan").map(|text| text.parse()).transpose()?,
        })
    }
}

/// Brings the devices up. With a VLAN, its sub-interface has the addresses.
pub fn configure(config: &Config) -> Result<(), Box<dyn Error>> {
    let mut kernel = Netlink::open()?;
    let loopback = index(LOOPBACK)?;
    kernel.up(loopback)?;
    if config.addresses.is_empty() {
        return Ok(());
    }
    let device = index(DEVICE)?;
    kernel.up(device)?;
    let holder = match config.vlan {
        None => device,
        Some(id) => {
            let name = format!("{DEVICE}.{id}");
            kernel.add_vlan(device, &name, id)?;
            let sub = index(&name)?;
            kernel.up(sub)?;
            sub
        }
    };
    for address in &config.addresses {
        kernel.add_address(holder, address)?;
    }
    for gateway in &config.gateways {
        kernel.add_default_route(holder, *gateway)?;
    }
    Ok(())
}

fn index(device: &str) -> Result<u32, Box<dyn Error>> {
    let text = std::fs::read_to_string(format!("/sys/class/net/{device}/ifindex"))
        .map_err(|error| format!("network device {device}: {error}"))?;
    Ok(text.trim().parse()?)
}

struct Netlink {
    socket: Socket,
}

impl Netlink {
    fn open() -> Result<Self, Box<dyn Error>> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket })
    }

    fn up(&mut self, index: u32) -> Result<(), Box<dyn Error>> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        self.call("link up", RouteNetlinkMessage::SetLink(message))
    }

    fn add_vlan(&mut self, parent: u32, name: &str, id: u16) -> Result<(), Box<dyn Error>> {
        let mut message = LinkMessage::default();
        message.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::Link(parent),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Vlan),
                LinkInfo::Data(InfoData::Vlan(vec![InfoVlan::Id(id)])),
            ]),
        ];
        self.call("VLAN", RouteNetlinkMessage::NewLink(message))
    }

    fn add_address(&mut self, index: u32, address: &Address) -> Result<(), Box<dyn Error>> {
        let mut message = AddressMessage::default();
        message.header.family = family(address.address);
        message.header.prefix_len = address.prefix;
        message.header.index = index;
        message.attributes = vec![
            AddressAttribute::Local(address.address),
            AddressAttribute::Address(address.address),
        ];
        if address.address.is_ipv6() {
            // Usable at once: nobody else has this address.
            message
                .attributes
                .push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        self.call("address", RouteNetlinkMessage::NewAddress(message))
    }

    fn add_default_route(&mut self, index: u32, gateway: IpAddr) -> Result<(), Box<dyn Error>> {
        let mut message = RouteMessage::default();
        message.header.address_family = family(gateway);
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::Static;
        message.header.kind = RouteType::Unicast;
        message.attributes = vec![
            RouteAttribute::Gateway(gateway.into()),
            RouteAttribute::Oif(index),
        ];
        self.call("default route", RouteNetlinkMessage::NewRoute(message))
    }

    fn call(&mut self, what: &str, message: RouteNetlinkMessage) -> Result<(), Box<dyn Error>> {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | NLM_F_ACK;
        if !matches!(message, RouteNetlinkMessage::SetLink(_)) {
            header.flags |= NLM_F_CREATE | NLM_F_EXCL;
        }
        let mut packet = NetlinkMessage::new(header, NetlinkPayload::from(message));
        packet.finalize();
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        let (reply, _) = self.socket.recv_from_full()?;
        match NetlinkMessage::<RouteNetlinkMessage>::deserialize(&reply)?.payload {
            NetlinkPayload::Error(error) if error.code.is_some() => {
                Err(format!("{what}: {}", error.to_io()).into())
            }
            NetlinkPayload::Error(_) => Ok(()),
            other => Err(format!("{what}: unexpected answer {other:?}").into()),
        }
    }
}

fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}
