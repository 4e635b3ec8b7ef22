// SPDX-License-Identifier: GPL-2.0-only

//! How a manifest names a VM's process.

use std::fmt;

use toml::de::DeValue;

use super::entry::device;
use super::value::{integer, string};

/// One way to find a VMM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// This process.
    Pid(i32),
    /// The process whose number is in this file.
    Pidfile(String),
    /// The process of this systemd unit.
    Unit(String),
    /// The process in this cgroup, or below it.
    Cgroup(String),
    /// The process with these consecutive arguments.
    Cmdline(String),
    /// The process that holds this tap.
    Link(String),
    /// It was given, and is wrong.
    Unknown,
}

impl Selector {
    /// Their keys.
    pub const KEYS: [&str; 6] = ["cmdline", "pid", "pidfile", "unit", "cgroup", "link"];

    /// The value of one of the keys.
    pub fn read(key: &str, value: &DeValue<'_>) -> Result<Self, String> {
        if key == "pid" {
            return integer(value, 1..=i32::MAX.into()).map(Self::Pid);
        }
        let text = string(value)?;
        match key {
            "cmdline" => Ok(Self::Cmdline(text)),
            "unit" if text.contains('/') => {
                Err(format!("`{text}` is no unit; for a path, use `cgroup`"))
            }
            "unit" => Ok(Self::Unit(with_suffix(text))),
            "link" => tap(&text).map(Self::Link),
            _ if !text.starts_with('/') => Err(format!("`{text}` must be a whole path, from / on")),
            "cgroup" => {
                let path = text.strip_prefix("/sys/fs/cgroup").unwrap_or(&text);
                Ok(Self::Cgroup(format!("/{}", path.trim_matches('/'))))
            }
            _ => Ok(Self::Pidfile(text)),
        }
    }

    /// The text in which there may be stars.
    pub fn pattern(&self) -> &str {
        match self {
            Self::Unit(text) | Self::Cgroup(text) | Self::Cmdline(text) | Self::Link(text) => text,
            Self::Pid(_) | Self::Pidfile(_) | Self::Unknown => "",
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pid(pid) => write!(f, "pid {pid}"),
            Self::Pidfile(path) => write!(f, "pidfile {path}"),
            Self::Unit(unit) => write!(f, "unit {unit}"),
            Self::Cgroup(path) => write!(f, "cgroup {path}"),
            Self::Cmdline(pattern) => write!(f, "cmdline '{pattern}'"),
            Self::Link(name) => write!(f, "link {name}"),
            Self::Unknown => write!(f, "selector"),
        }
    }
}

/// `[NETNS/]DEV`, where a star may stand in DEV.
fn tap(text: &str) -> Result<String, String> {
    match text.rsplit_once('/') {
        Some((netns, _)) if netns.contains('*') => Err(format!(
            "`{text}`: a * stands for text in DEV only; name the namespace, or leave it out for any"
        )),
        _ => device(text),
    }
}

/// `web` means `web.service`, as for systemctl.
fn with_suffix(unit: String) -> String {
    let known = [".service", ".scope", ".slice"];
    if known.iter().any(|suffix| unit.ends_with(suffix)) {
        unit
    } else {
        format!("{unit}.service")
    }
}
