// SPDX-License-Identifier: GPL-2.0-only

//! The links of a VM: the taps that its VMM holds open, and those named with `--link`.

use std::path::Path;

use rustix::io::Errno;
use sleepy_uapi::{VmGet, VmLink};

use crate::device::{Device, gone, text};
use crate::error::{Error, Result};
use crate::netns::{self, Netns};
use crate::vmm::Vmm;

/// A link, found.
pub struct Found {
    /// As the user would name it.
    pub name: String,
    /// The device's name in its namespace.
    pub device: String,
    /// Where it is.
    pub netns: Netns,
    /// Its number there.
    pub ifindex: u32,
}

impl Found {
    /// What tells it from every other link: its namespace and its number there.
    pub fn key(&self) -> (u64, u32) {
        (self.netns.inode(), self.ifindex)
    }

    /// Whether the kernel takes such a device.
    pub fn check(&self) -> Result<()> {
        match self.netns.is_ethernet(&self.device) {
            Ok(false) => Err(Error::failed(no_ethernet(&format!("link {}", self.name)))),
            // What cannot be seen from here, the kernel sees.
            _ => Ok(()),
        }
    }
}

/// Why a device cannot be a link.
pub fn no_ethernet(link: &str) -> String {
    format!("{link}: it has no Ethernet header; only Ethernet devices, such as taps, can be links")
}

/// Those of a VM's links whose network namespace can be reached from here.
pub fn of_vm(device: &Device, vm: &VmGet) -> Result<Vec<Found>> {
    let names = netns::names();
    let own = Netns::own().ok().map(|netns| netns.inode());
    let found = |link: VmLink| {
        let netns = if own == Some(link.netns) {
            Netns::own().ok()?
        } else {
            Netns::open(Path::new(netns::NAMED).join(names.get(&link.netns)?)).ok()?
        };
        let device = text(&link.name);
        Some(Found {
            name: device.clone(),
            device,
            netns,
            ifindex: link.ifindex,
        })
    };
    let links = device.links(vm)?.ok_or_else(|| gone(vm))?;
    Ok(links.into_iter().filter_map(found).collect())
}

/// Every link, each one once.
pub fn find(vmm: &Vmm, named: &[String], take_taps: bool) -> Result<Vec<Found>> {
    let mut links: Vec<Found> = Vec::new();
    let mut add = |link: Found| {
        if !links.iter().any(|other| other.key() == link.key()) {
            links.push(link);
        }
    };
    if take_taps {
        for tap in vmm.taps()? {
            let ifindex = index(&tap.netns, &tap.name)?.ok_or_else(|| {
                Error::failed(format!(
                    "the tap {} of {vmm} went away or was renamed just now; try again",
                    tap.name
                ))
            })?;
            add(Found {
                name: tap.name.clone(),
                device: tap.name,
                netns: tap.netns,
                ifindex,
            });
        }
    }
    for name in named {
        add(look_up(vmm, name)?);
    }
    Ok(links)
}

/// `[NETNS/]DEV` as the user wrote it, taken apart.
#[derive(Debug, PartialEq, Eq)]
struct Name<'a> {
    netns: Option<String>,
    device: &'a str,
}

impl<'a> Name<'a> {
    fn parse(text: &'a str) -> Self {
        match text.rsplit_once('/') {
            None => Self {
                netns: None,
                device: text,
            },
            Some((path, device)) if path.contains('/') => Self {
                netns: Some(path.to_string()),
                device,
            },
            Some((name, device)) => Self {
                netns: Some(format!("{}/{name}", netns::NAMED)),
                device,
            },
        }
    }
}

/// The path of the namespace, if one is named, and the device.
pub fn split(text: &str) -> (Option<String>, &str) {
    let name = Name::parse(text);
    (name.netns, name.device)
}

fn look_up(vmm: &Vmm, text: &str) -> Result<Found> {
    let name = Name::parse(text);
    let found = |netns: Netns, ifindex| Found {
        name: text.to_string(),
        device: name.device.to_string(),
        netns,
        ifindex,
    };
    if let Some(path) = &name.netns {
        let netns = Netns::open(path).map_err(|errno| match errno {
            Errno::NOENT | Errno::NOTDIR => Error::failed(format!(
                "link {text}: there is no network namespace {path}; `ip netns` lists them"
            )),
            _ => Error::os(format!("link {text}: {path}"), errno),
        })?;
        return match index(&netns, name.device) {
            Ok(Some(ifindex)) => Ok(found(netns, ifindex)),
            Ok(None) => Err(Error::failed(format!(
                "link {text}: there is no such device in {path}"
            ))),
            Err(error) => Err(error.of(&format!("link {text}"))),
        };
    }
    let own = Netns::own().map_err(|errno| Error::os("the network namespace", errno))?;
    if let Some(ifindex) = index(&own, name.device)? {
        return Ok(found(own, ifindex));
    }
    let theirs = vmm.netns()?;
    if let Some(ifindex) = index(&theirs, name.device)? {
        return Ok(found(theirs, ifindex));
    }
    Err(Error::failed(format!(
        "link {text}: there is no such device here or in the network namespace of {vmm}; \
         for another one, write --link NETNS/{text}"
    )))
}

fn index(netns: &Netns, device: &str) -> Result<Option<u32>> {
    netns.ifindex(device).map_err(|errno| match errno {
        Errno::INVAL => Error::failed("this file is not a network namespace"),
        _ => Error::os(format!("device {device}"), errno),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Vmm {
        Vmm::open(std::process::id() as i32).unwrap()
    }

    #[test]
    fn names_are_taken_apart() {
        let netns = |text: &str| Some(text.to_string());
        assert_eq!(
            Name::parse("tap0"),
            Name {
                netns: None,
                device: "tap0"
            }
        );
        assert_eq!(
            Name::parse("blue/tap0"),
            Name {
                netns: netns("/run/netns/blue"),
                device: "tap0"
            }
        );
        assert_eq!(
            Name::parse("/proc/7/ns/net/tap0"),
            Name {
                netns: netns("/proc/7/ns/net"),
                device: "tap0"
            }
        );
        assert_eq!(
            Name::parse("./blue/tap0"),
            Name {
                netns: netns("./blue"),
                device: "tap0"
            }
        );
    }

    #[test]
    fn link_named_twice_is_one() {
        let named = ["lo".to_string(), "/proc/self/ns/net/lo".to_string()];
        let links = find(&own(), &named, false).unwrap();
        assert_eq!(links.len(), 1);
        assert_eq!((links[0].name.as_str(), links[0].ifindex), ("lo", 1));
    }

    #[test]
    fn loopback_is_no_link() {
        let links = find(&own(), &["lo".to_string()], false).unwrap();
        let error = links[0].check().unwrap_err().to_string();
        assert!(
            error.starts_with("link lo: it has no Ethernet header"),
            "{error}"
        );
    }

    #[test]
    fn missing_link_is_named() {
        let error = |name: &str| {
            find(&own(), &[name.to_string()], true)
                .err()
                .unwrap()
                .to_string()
        };
        assert!(error("nosuchdev").starts_with("link nosuchdev: there is no such device here"));
        assert!(
            error("nosuchns/tap0").contains("there is no network namespace /run/netns/nosuchns")
        );
        assert!(error("/proc/self/status/tap0").contains("not a network namespace"));
        assert!(error("much-too-long-a-name").contains("no such device"));
    }
}
