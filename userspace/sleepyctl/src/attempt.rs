// SPDX-License-Identifier: GPL-2.0-only

//! Why a VM could not be added or changed.

use rustix::io::Errno;
use sleepy_uapi::{
    FAULT_GROUP, FAULT_HANDLE, FAULT_LINK, FAULT_NAME, FAULT_POLICY, FAULT_RULE, MAX_LINKS,
    MAX_RULES, MAX_VMS,
};

use crate::device::call_error;
use crate::error::{Error, words};
use crate::link::no_ethernet;
use crate::wanted::list;

/// What was tried.
pub struct Attempt<'a> {
    /// The VM's name.
    pub name: &'a str,
    /// The VMM in words.
    pub process: String,
    /// Its descriptors of virtual machines.
    pub vm_fds: &'a [i32],
    /// The VM that has what is at fault already: the process, the link or the control group.
    pub owner: Option<String>,
    /// The links' names.
    pub links: Vec<&'a str>,
    /// The rules' names.
    pub rules: Vec<String>,
    /// The control group's name.
    pub group: Option<&'a str>,
}

impl Attempt<'_> {
    /// The sentence for what the kernel says.
    pub fn error(&self, errno: Errno, fault: u32, fault_index: u32) -> Error {
        let Self { name, process, .. } = self;
        let index = fault_index as usize;
        let link = || {
            self.links
                .get(index)
                .map_or_else(|| format!("link {index}"), |link| format!("link {link}"))
        };
        let rule = || {
            self.rules
                .get(index)
                .cloned()
                .unwrap_or_else(|| format!("rule {index}"))
        };
        let group = self.group.unwrap_or("of the VM");
        let message = match (errno, fault) {
            (Errno::OPNOTSUPP, FAULT_GROUP) => format!(
                "cgroup {group}: it has no CPU controller with cpu.idle; give it one: \
                 `echo +cpu` into cgroup.subtree_control of the one above, on Linux 5.15 or later"
            ),
            (Errno::BADF | Errno::NODEV, FAULT_GROUP) => {
                format!("cgroup {group}: it was removed just now; try again")
            }
            (Errno::EXIST, FAULT_NAME) => format!(
                "there is a VM named {name} already; take another name, or remove it: `sleepyctl vm remove {name}`"
            ),
            (Errno::INVAL, FAULT_NAME) => {
                format!(
                    "name {name}: the module refuses it; take printable ASCII without blanks and /"
                )
            }
            (Errno::SRCH, _) => format!("{process} has ended"),
            (Errno::AGAIN, _) => format!("{process}: its threads keep ending; try again"),
            (Errno::STALE, _) => {
                format!("{process} has ended, and another process has its number now")
            }
            (Errno::NODEV, FAULT_LINK) => {
                format!(
                    "{}: there is no such device any more; was it removed just now?",
                    link()
                )
            }
            (Errno::NODEV, _) => format!("no KVM virtual machine in {process}; give the VMM's pid"),
            (Errno::NOTUNIQ, _) => format!(
                "{process} has several virtual machines, at its descriptors {}; choose one with --vm-fd (in a manifest: `vm_fd`)",
                list(self.vm_fds)
            ),
            (Errno::BADF, FAULT_LINK) => format!("{}: its network namespace is gone", link()),
            (Errno::BADF, FAULT_RULE) => {
                format!("{}: its program was closed just now; try again", rule())
            }
            (Errno::BADF, _) => format!("the virtual machine of {process} is gone"),
            (Errno::XDEV, _) => {
                format!(
                    "the virtual machine at descriptor {} belongs to another process than {process}",
                    list(self.vm_fds)
                )
            }
            (Errno::ALREADY, _) => match &self.owner {
                Some(other) => format!(
                    "the virtual machine of {process} is here already, as {other}; \
                     change it with `sleepyctl vm set {other}`"
                ),
                None => format!(
                    "the virtual machine of {process} is here already; see `sleepyctl vm list`"
                ),
            },
            (Errno::BUSY, FAULT_GROUP) => {
                let owner = self.owner.as_deref().unwrap_or("another VM");
                format!(
                    "cgroup {group}: the lever of {owner} has it already; give that VM another lever \
                     (`sleepyctl vm set NAME --lever auto`), or remove it"
                )
            }
            (Errno::BUSY, _) => match &self.owner {
                Some(other) => format!(
                    "{} belongs to {other} already; choose others with --no-auto-link --link DEV, \
                     or remove that: `sleepyctl vm remove {other}`",
                    link()
                ),
                None => format!(
                    "{} belongs to another VM; see `sleepyctl vm show NAME`",
                    link()
                ),
            },
            (Errno::TOOBIG, FAULT_RULE) => {
                format!(
                    "{} rules are too many, at most {MAX_RULES}; join expressions with `or`",
                    self.rules.len()
                )
            }
            (Errno::TOOBIG, _) => too_many_links(self.links.len()),
            (Errno::NOSPC, _) => {
                format!("there are {MAX_VMS} VMs, and no room for more; remove some")
            }
            (Errno::NOMEM, _) => format!("the kernel has no memory left for {name}"),
            (Errno::INVAL, FAULT_POLICY) => format!("{name}: the module refuses this policy"),
            (Errno::OPNOTSUPP, FAULT_POLICY) => format!(
                "{name}: this kernel does not show one of the events; `sleepyctl` alone says which"
            ),
            (Errno::OPNOTSUPP, FAULT_LINK) => no_ethernet(&link()),
            (Errno::INVAL, FAULT_RULE) => {
                format!(
                    "{}: the kernel refuses its program; write a filter in a simpler way, \
                     or load an eBPF program of type socket",
                    rule()
                )
            }
            (_, FAULT_LINK) => format!("{}: {}", link(), words(errno)),
            (_, FAULT_RULE) => format!("{}: {}", rule(), words(errno)),
            (_, FAULT_GROUP) => format!("cgroup {group}: {}", words(errno)),
            (_, FAULT_HANDLE) => format!("{process}: {}", words(errno)),
            _ => return call_error(errno),
        };
        match errno {
            Errno::PERM | Errno::ACCESS => Error::not_permitted(format!("{message}; run as root")),
            _ => Error::failed(message),
        }
    }
}

/// A VM cannot have so many links.
pub fn too_many_links(links: usize) -> String {
    format!(
        "{links} links are too many, at most {MAX_LINKS}; choose with --no-auto-link --link DEV \
         (in a manifest: `auto_link` and `links`)"
    )
}

#[cfg(test)]
mod tests {
    use sleepy_uapi::FAULT_NONE;

    use super::*;
    use crate::error::Exit;

    fn error(errno: Errno, fault: u32, fault_index: u32) -> Error {
        let attempt = Attempt {
            name: "a",
            process: "process 42 (qemu)".to_string(),
            vm_fds: &[9, 14],
            owner: Some("b".to_string()),
            links: vec!["tap0", "blue/tap1"],
            rules: vec![
                "request rule 'udp'".to_string(),
                "response rule 'udp'".to_string(),
            ],
            group: Some("/m/a"),
        };
        attempt.error(errno, fault, fault_index)
    }

    #[test]
    fn every_error_names_its_thing() {
        for (errno, fault, index, what) in [
            (Errno::EXIST, FAULT_NAME, 0, "named a already"),
            (Errno::INVAL, FAULT_NAME, 0, "name a:"),
            (Errno::SRCH, FAULT_HANDLE, 0, "process 42 (qemu) has ended"),
            (
                Errno::STALE,
                FAULT_HANDLE,
                0,
                "another process has its number",
            ),
            (
                Errno::NODEV,
                FAULT_HANDLE,
                0,
                "no KVM virtual machine in process 42 (qemu); give the VMM's pid",
            ),
            (Errno::NODEV, FAULT_LINK, 1, "link blue/tap1:"),
            (
                Errno::NOTUNIQ,
                FAULT_HANDLE,
                0,
                "descriptors 9, 14; choose one with --vm-fd",
            ),
            (
                Errno::BADF,
                FAULT_HANDLE,
                0,
                "virtual machine of process 42 (qemu) is gone",
            ),
            (
                Errno::BADF,
                FAULT_LINK,
                0,
                "link tap0: its network namespace",
            ),
            (
                Errno::XDEV,
                FAULT_HANDLE,
                0,
                "another process than process 42",
            ),
            (Errno::ALREADY, FAULT_HANDLE, 0, "is here already, as b"),
            (Errno::BUSY, FAULT_LINK, 0, "link tap0 belongs to b already"),
            (
                Errno::TOOBIG,
                FAULT_LINK,
                0,
                "2 links are too many, at most 16",
            ),
            (
                Errno::TOOBIG,
                FAULT_RULE,
                0,
                "2 rules are too many, at most 64",
            ),
            (Errno::NOSPC, FAULT_NONE, 0, "16384 VMs"),
            (Errno::INVAL, FAULT_POLICY, 0, "policy"),
            (
                Errno::OPNOTSUPP,
                FAULT_GROUP,
                0,
                "cgroup /m/a: it has no CPU controller",
            ),
            (Errno::NODEV, FAULT_GROUP, 0, "cgroup /m/a: it was removed"),
            (
                Errno::BUSY,
                FAULT_GROUP,
                0,
                "cgroup /m/a: the lever of b has it already;",
            ),
            (
                Errno::INVAL,
                FAULT_GROUP,
                0,
                "cgroup /m/a: invalid argument",
            ),
            (Errno::INVAL, FAULT_RULE, 1, "response rule 'udp'"),
            (Errno::INVAL, FAULT_LINK, 7, "link 7: invalid argument"),
        ] {
            let error = error(errno, fault, index);
            assert!(
                error.message.contains(what),
                "{errno:?}, fault {fault}: {error}"
            );
            assert_eq!(error.exit, Exit::Failed);
        }
    }

    #[test]
    fn missing_rights_are_told_apart() {
        assert_eq!(error(Errno::PERM, FAULT_NONE, 0).exit, Exit::NotPermitted);
        assert_eq!(error(Errno::PERM, FAULT_LINK, 0).exit, Exit::NotPermitted);
    }

    #[test]
    fn another_abi_is_told_apart() {
        assert!(
            error(Errno::MSGSIZE, FAULT_NONE, 0)
                .message
                .contains("from one release")
        );
        assert!(
            error(Errno::NOTTY, FAULT_NONE, 0)
                .message
                .contains("from one release")
        );
    }
}
