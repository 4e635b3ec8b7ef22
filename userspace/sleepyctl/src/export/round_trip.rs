// SPDX-License-Identifier: GPL-2.0-only

//! What is exported reads the same.

use super::*;
use crate::manifest::load::of_texts;
use crate::policy::Settings;
use crate::rule;

/// A link here.
pub fn link() -> VmLink {
    let mut link = VmLink {
        netns: Netns::own().unwrap().inode(),
        ..VmLink::default()
    };
    link.name[..4].copy_from_slice(b"tap0");
    link
}

/// Exports a VM, and reads that again.
pub fn round_trip(vm: &VmGet, rules: &[rule::Rule]) {
    let kernel: Vec<VmRule> = rules.iter().map(rule::Rule::in_kernel).collect();
    let mut notes = Vec::new();
    let manifest = Manifest {
        schema_version: VERSION,
        vm: vec![export(
            vm,
            &[link()],
            &kernel,
            &Namespaces::here(),
            &mut notes,
        )],
    };
    let text = toml(&manifest).unwrap();
    let read = of_texts(&[("f".to_string(), text.clone())]).unwrap();
    assert!(
        !read.report.has_errors(),
        "{text}{:#?}",
        read.report.findings()
    );
    assert_eq!(notes, [""; 0]);
    let [again] = &read.vms[..] else {
        panic!("{text}")
    };
    assert_eq!(again.name.value, "a");
    assert_eq!(again.policy, vm.policy, "{text}");
    assert_eq!(again.rules(), rules, "{text}");
    assert_eq!(again.links[0].value, "tap0");
    assert!(!again.auto_link);
}

/// A VM named `a`.
pub fn vm(settings: &Settings) -> VmGet {
    let mut vm = VmGet {
        pid: 42,
        policy: settings.apply(policy::default()),
        ..VmGet::default()
    };
    vm.name[0] = b'a';
    vm
}
