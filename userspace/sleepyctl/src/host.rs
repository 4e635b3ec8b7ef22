// SPDX-License-Identifier: GPL-2.0-only

//! What this host's processor hides: interrupts that it delivers to a running guest by itself, without KVM.

use std::path::Path;

use serde::Serialize;
use sleepy_uapi::{WAKE_INTERRUPT, WAKE_IPI, WAKE_TIMER};

use crate::events::Set;

/// A feature of the processor that hides events.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Limit {
    /// The module's parameter that has it on.
    pub parameter: String,
    /// The events that may not be seen.
    pub events: Vec<&'static str>,
    #[serde(skip)]
    bits: u32,
}

impl Limit {
    /// A sentence for a VM that wakes on these events; none for others.
    pub fn note(&self, wake_on: u32) -> Option<String> {
        let hidden = Set::WakeOn.names(self.bits & wake_on);
        (!hidden.is_empty()).then(|| {
            format!(
                "note: with {} on, this host may hide: {}",
                self.parameter,
                hidden.join(", ")
            )
        })
    }
}

/// Parameters of KVM's modules, and what the processor does without KVM if they are on: one vCPU interrupts
/// another (AVIC, IPI virtualization), a passed-through device interrupts its VM (posted interrupts), or a timer
/// fires that it counts itself.
const PARAMETERS: [(&str, &str, u32); 3] = [
    ("kvm_amd", "avic", 1 << WAKE_IPI | 1 << WAKE_INTERRUPT),
    (
        "kvm_intel",
        "enable_apicv",
        1 << WAKE_INTERRUPT | 1 << WAKE_TIMER,
    ),
    ("kvm_intel", "enable_ipiv", 1 << WAKE_IPI),
];

/// Those of this host.
pub fn limits() -> Vec<Limit> {
    limits_in(Path::new("/sys/module"))
}

fn limits_in(modules: &Path) -> Vec<Limit> {
    let is_on = |module: &str, parameter: &str| {
        let path = modules.join(module).join("parameters").join(parameter);
        std::fs::read_to_string(path).is_ok_and(|text| matches!(text.trim(), "Y" | "1"))
    };
    let limit = |(module, parameter, bits): (&str, &str, u32)| {
        is_on(module, parameter).then(|| Limit {
            parameter: format!("{module}.{parameter}"),
            events: Set::WakeOn.names(bits),
            bits,
        })
    };
    PARAMETERS.into_iter().filter_map(limit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_that_are_on_are_limits() {
        let dir = tempfile::tempdir().unwrap();
        for (module, parameter, value) in [
            ("kvm_amd", "avic", "N\n"),
            ("kvm_intel", "enable_apicv", "Y\n"),
        ] {
            let parameters = dir.path().join(module).join("parameters");
            std::fs::create_dir_all(&parameters).unwrap();
            std::fs::write(parameters.join(parameter), value).unwrap();
        }
        let limits = limits_in(dir.path());
        assert_eq!(limits.len(), 1);
        assert_eq!(limits[0].parameter, "kvm_intel.enable_apicv");
        assert_eq!(limits[0].events, ["interrupt", "timer"]);
        assert_eq!(limits[0].note(1 << WAKE_IPI), None);
        let note = limits[0].note(1 << WAKE_IPI | 1 << WAKE_INTERRUPT).unwrap();
        assert!(note.ends_with("may hide: interrupt"), "{note}");
    }
}
