// SPDX-License-Identifier: GPL-2.0-only

//! What a VM's lever needs of the host.

use super::Planner;
use crate::cgroup::own::Others;
use crate::error::Result;
use crate::lever::is_auto;
use crate::manifest::report::Spot;
use crate::manifest::vm::Vm;
use crate::probe::{Futile, Machine, Survey, is_doubtful};
use crate::wanted::Wanted;

impl Planner<'_> {
    /// Names the lever that `auto` is.
    pub(super) fn choose(&mut self, vm: &Vm, wanted: &mut Wanted) -> Option<()> {
        let Some(survey) = self.survey.as_ref().filter(|_| is_auto(&wanted.policy)) else {
            return Some(());
        };
        match self.machine(survey, wanted) {
            Ok(machine) => wanted.choice = survey.settle(machine, &mut wanted.policy),
            Err(error) => return self.good(vm.selector.spot, Err(error)),
        }
        Some(())
    }

    /// What the survey knows of a VM.
    fn machine<'a>(&self, survey: &'a Survey, wanted: &Wanted) -> Result<&'a Machine> {
        let vmm = &wanted.vmm;
        let running = self.running.get(&wanted.name);
        let same = running.filter(|old| old.vm.start_time == vmm.start_time());
        let same = same.filter(|old| old.vm.pid == vmm.pid());
        same.and_then(|old| survey.with_id(old.vm.id))
            .map_or_else(|| survey.of_process(vmm, wanted.vm_fd), Ok)
    }

    /// Finds the control group that the lever needs.
    pub(super) fn find_group(&mut self, vm: &Vm, wanted: &mut Wanted, so_far: u64) -> Option<()> {
        let Some(survey) = &self.survey else {
            return Some(());
        };
        let found = self
            .machine(survey, wanted)
            .map(|machine| survey.group(machine, &wanted.policy, so_far));
        match self.good(vm.spot, found)? {
            Ok(group) => wanted.group = group,
            Err(why) => {
                self.groupless.push((vm.spot, wanted.name.clone(), why));
                return None;
            }
        }
        Some(())
    }

    /// Notes a lever that does nothing for the VM that is to have it.
    pub(super) fn doubt(&mut self, vm: &Vm, wanted: &Wanted) {
        let policy = &wanted.policy;
        if !is_doubtful(policy) {
            return;
        }
        let Some(survey) = self.survey.as_ref().or_else(|| self.quick.as_ref()) else {
            return;
        };
        let machine = self.machine(survey, wanted).ok();
        let futile = machine.and_then(|m| survey.futile(m, policy, "lever = \"auto\""));
        self.futile
            .extend(futile.map(|futile| (vm.spot, wanted.name.clone(), futile)));
    }

    /// Says what is to be said of the levers.
    pub(super) fn judge_levers(&mut self) {
        judge(&self.groupless, |spot, text| self.report.error(spot, text));
        judge(&self.futile, |spot, text| self.report.warning(spot, text));
    }
}

/// One sentence for all VMs of which the same is to be said, at the first one.
fn judge(futile: &[(Spot, String, Futile)], mut say: impl FnMut(Spot, String)) {
    let mut said = Vec::new();
    for (spot, _, first) in futile {
        if said.contains(&&first.common) {
            continue;
        }
        said.push(&first.common);
        let alike = || {
            futile
                .iter()
                .filter(|(.., other)| other.common == first.common)
        };
        let names = Others::new(alike().count(), alike().map(|(_, name, _)| name.as_str()));
        let text = if names.count > 1 {
            &first.common
        } else {
            &first.text
        };
        say(*spot, format!("{names}: {text}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::report::Report;

    #[test]
    fn one_warning_for_all_that_are_alike() {
        let mut report = Report::default();
        let file = report.file("m.toml", "schema_version = 1\n[[vm]]\n\n[[vm]]\n");
        let vm = |name: &str, common: &str, at| {
            let futile = Futile {
                text: format!("{common} for {name}"),
                common: common.to_string(),
            };
            (Spot { file, at }, name.to_string(), futile)
        };
        let futile = [
            vm("a-1", "nothing", 19),
            vm("b", "little", 27),
            vm("a-2", "nothing", 19),
        ];
        judge(&futile, |spot, text| report.warning(spot, text));
        let found: Vec<String> = report.findings().iter().map(|f| f.to_string()).collect();
        assert_eq!(
            found,
            [
                "m.toml:2:1: warning: a-1, a-2: nothing",
                "m.toml:4:1: warning: b: little for b",
            ]
        );
    }
}
