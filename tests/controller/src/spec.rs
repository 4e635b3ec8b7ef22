// SPDX-License-Identifier: GPL-2.0-only

//! Which VMs there are.

use std::str::FromStr;

use rustix::process::Pid;

/// A VM, as the command line names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// What it is called in messages.
    pub name: String,
    /// The network device that carries its packets.
    pub tap: String,
    /// The TCP port that it serves.
    pub port: u16,
    /// The threads of its vCPUs.
    pub vcpus: Vec<Pid>,
}

impl FromStr for Spec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}': give NAME=TAP:PORT:TID[,TID...]");
        let (name, rest) = text.split_once('=').ok_or_else(wrong)?;
        // The name of a device may have a colon.
        let mut parts = rest.rsplitn(3, ':');
        let (Some(tids), Some(port), Some(tap)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(wrong());
        };
        let vcpus = tids
            .split(',')
            .map(|tid| {
                tid.parse()
                    .ok()
                    .filter(|tid| *tid > 0)
                    .and_then(Pid::from_raw)
            })
            .collect::<Option<_>>();
        Ok(Self {
            name: name.into(),
            tap: tap.into(),
            port: port.parse().map_err(|_| wrong())?,
            vcpus: vcpus.ok_or_else(wrong)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vm() {
        let spec = "a=tap1:8080:12,13".parse::<Spec>().unwrap();
        let vcpus = spec.vcpus.iter().map(|tid| tid.as_raw_pid());
        assert_eq!((&*spec.name, &*spec.tap, spec.port), ("a", "tap1", 8080));
        assert_eq!(vcpus.collect::<Vec<_>>(), [12, 13]);
    }

    #[test]
    fn no_vm() {
        for text in [
            "",
            "a",
            "a=tap1",
            "a=tap1:80",
            "a=tap1:80:",
            "a=tap1:80:0",
            "a=tap1:80:-1",
            "a=tap1:x:1",
        ] {
            assert!(text.parse::<Spec>().is_err(), "{text}");
        }
    }
}
