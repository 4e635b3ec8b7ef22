// SPDX-License-Identifier: GPL-2.0-only

//! The link between the host and the machine on which the object store is: a network namespace.

use std::fs::{self, File};
use std::os::fd::AsFd;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use sleepy_host::{Result, call};

/// The namespace of the store.
const NAME: &str = "store";
/// Its address.
pub const ADDRESS: &str = "10.8.0.2";
/// There and back, a `remote` store is twice this away.
const DELAY: [&str; 2] = ["2ms", "500us"];

/// Makes the namespace and its link, and has the host forward packets.
pub fn make() -> Result<()> {
    call("ip", &["netns", "add", NAME])?;
    call(
        "ip",
        &[
            "link", "add", "store0", "type", "veth", "peer", "name", "eth0", "netns", NAME,
        ],
    )?;
    call("ip", &["address", "add", "10.8.0.1/24", "dev", "store0"])?;
    call("ip", &["link", "set", "store0", "up"])?;
    call(
        "ip",
        &[
            "-n",
            NAME,
            "address",
            "add",
            &format!("{ADDRESS}/24"),
            "dev",
            "eth0",
        ],
    )?;
    call("ip", &["-n", NAME, "link", "set", "eth0", "up"])?;
    call(
        "ip",
        &["-n", NAME, "route", "add", "default", "via", "10.8.0.1"],
    )?;
    fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
    Ok(())
}

/// Moves this thread, and those that it starts from now on, to where the store is.
pub fn enter() -> Result<()> {
    let namespace = File::open(format!("/run/netns/{NAME}"))?;
    Ok(move_into_link_name_space(
        namespace.as_fd(),
        Some(LinkNameSpaceType::Network),
    )?)
}

/// Has the packets take their time, both ways, or not any more.
pub fn set_remote(remote: bool) -> Result<()> {
    for at in [&["-n", NAME][..], &[]] {
        let device = if at.is_empty() { "store0" } else { "eth0" };
        let tc = |arguments: &[&str]| call("tc", &[at, arguments].concat());
        if remote {
            tc(&[
                "qdisc", "replace", "dev", device, "root", "netem", "delay", DELAY[0], DELAY[1],
            ])?;
        } else {
            // There may be none.
            let _ = tc(&["qdisc", "delete", "dev", device, "root"]);
        }
    }
    Ok(())
}
