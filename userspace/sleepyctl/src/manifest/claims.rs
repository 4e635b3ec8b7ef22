// SPDX-License-Identifier: GPL-2.0-only

//! What two VMs must not both have: a name, a process, a link.

use std::collections::HashMap;

use super::report::{Report, Spot};
use super::selector::Selector;
use super::vm::Vm;

/// Finds what is claimed twice, in all files.
pub fn check(vms: &[Vm], report: &mut Report) {
    let mut seen = Seen {
        claims: HashMap::new(),
        report,
    };
    for (number, vm) in vms.iter().enumerate() {
        let name = &vm.name;
        seen.claim(number, vm, format!("the name `{}`", name.value), name.spot);
        let selector = &vm.selector;
        if selector.value != Selector::Unknown {
            // One process may have several virtual machines.
            let fd = vm
                .vm_fd
                .map_or_else(String::new, |fd| format!(", vm_fd {fd}"));
            let what = match &selector.value {
                Selector::Link(link) if is_one(link) => format!("link {link}"),
                other => format!("{other}{fd}"),
            };
            seen.claim(number, vm, what, selector.spot);
        }
        for link in vm.links.iter().filter(|link| is_one(&link.value)) {
            seen.claim(number, vm, format!("link {}", link.value), link.spot);
        }
    }
}

/// Whether a link is the same one for every VM. Without its namespace, it is looked for in the VMM's own, too.
fn is_one(link: &str) -> bool {
    link.contains('/')
}

struct Seen<'a> {
    claims: HashMap<String, (usize, String, Spot)>,
    report: &'a mut Report,
}

impl Seen<'_> {
    fn claim(&mut self, number: usize, vm: &Vm, what: String, spot: Spot) {
        let first = self
            .claims
            .entry(what.clone())
            .or_insert_with(|| (number, vm.name.value.clone(), spot));
        if first.0 == number {
            return;
        }
        let place = self.report.place(first.2);
        let message = if first.1 == vm.name.value {
            format!("{what} is taken already, at {place}")
        } else {
            format!("{what} is claimed by `{}` already, at {place}", first.1)
        };
        self.report.error(spot, message);
    }
}
