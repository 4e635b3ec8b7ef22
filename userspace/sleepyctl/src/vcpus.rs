// SPDX-License-Identifier: GPL-2.0-only

//! A VM's vCPU threads, as `vm show` has them.

use serde::Serialize;
use sleepy_uapi::{VCPU_ATTACHED, VCPU_FOREIGN, VCPU_MOVED, VCPU_ON_CPU, Vcpu};

use crate::output::Align::{Left, Right};
use crate::output::{Table, hang};
use crate::probe::facts::policy_name;
use crate::time::short;

/// What threads have that nobody has touched.
const USUAL: &str = "SCHED_OTHER";

/// One of a VM's vCPUs.
#[derive(Serialize)]
pub struct VcpuJson {
    index: u32,
    tid: u32,
    nice: i32,
    baseline: i32,
    attached: bool,
    on_cpu: bool,
    foreign: bool,
    moved: bool,
    oncpu_ns: u64,
    preempted: u64,
    halted: u64,
    blocked: u64,
    yielded: u64,
    parked: u64,
    policy: String,
}

impl From<&Vcpu> for VcpuJson {
    fn from(vcpu: &Vcpu) -> Self {
        let has = |flag| vcpu.flags & flag != 0;
        Self {
            index: vcpu.index,
            tid: vcpu.tid,
            nice: vcpu.nice,
            baseline: vcpu.baseline,
            attached: has(VCPU_ATTACHED),
            on_cpu: has(VCPU_ON_CPU),
            foreign: has(VCPU_FOREIGN),
            moved: has(VCPU_MOVED),
            oncpu_ns: vcpu.oncpu,
            preempted: vcpu.preempted,
            halted: vcpu.halted,
            blocked: vcpu.blocked,
            yielded: vcpu.yielded,
            parked: vcpu.parked,
            policy: policy_name(vcpu.policy),
        }
    }
}

/// A line for each, and what is not as usual.
pub fn table(vcpus: &[VcpuJson]) -> String {
    if vcpus.is_empty() {
        return "  no vCPUs yet\n".to_string();
    }
    let mut table = Table::new(&[
        ("VCPU", Right),
        ("THREAD", Right),
        ("NICE", Right),
        ("BASE", Right),
        ("ON CPU", Right),
        ("PREEMPT", Right),
        ("HALTED", Right),
        ("BLOCKED", Right),
        ("PARKED", Right),
        ("", Left),
    ]);
    for vcpu in vcpus {
        table.row(vec![
            vcpu.index.to_string(),
            vcpu.tid.to_string(),
            vcpu.nice.to_string(),
            vcpu.baseline.to_string(),
            short(vcpu.oncpu_ns),
            vcpu.preempted.to_string(),
            vcpu.halted.to_string(),
            vcpu.blocked.to_string(),
            vcpu.parked.to_string(),
            if vcpu.on_cpu { "running" } else { "" }.to_string(),
        ]);
    }
    table.text("  ") + &remarks(vcpus)
}

/// What is not as usual, and with which vCPUs.
fn remarks(vcpus: &[VcpuJson]) -> String {
    let line = |what: &str, has: &dyn Fn(&VcpuJson) -> bool| {
        let have = vcpus.iter().filter(|vcpu| has(vcpu));
        let have: Vec<String> = have.map(|vcpu| vcpu.index.to_string()).collect();
        if have.is_empty() {
            String::new()
        } else {
            hang(&format!("  {what}: vCPU "), &have.join(", "), ", ")
        }
    };
    let mut policies: Vec<&str> = vcpus.iter().map(|vcpu| vcpu.policy.as_str()).collect();
    policies.sort_unstable();
    policies.dedup();
    policies.retain(|policy| *policy != USUAL);
    let policies = policies
        .into_iter()
        .map(|policy| line(policy, &|vcpu| vcpu.policy == policy));
    policies.collect::<String>()
        + &line("set by hand, left alone", &|vcpu| vcpu.foreign)
        + &line("not seen running yet", &|vcpu| !vcpu.attached)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vcpu(index: u32, flags: u32) -> VcpuJson {
        let busy = Vcpu {
            index,
            tid: 4_194_304,
            nice: 19,
            baseline: -20,
            flags,
            oncpu: 59_900_000_000,
            preempted: 1_234_567,
            halted: 1_234_567,
            blocked: 1_234_567,
            yielded: 1_234_567,
            parked: 1_234_567,
            ..Vcpu::default()
        };
        VcpuJson::from(&busy)
    }

    #[test]
    fn busy_threads_fit_80_columns() {
        let vcpus = [
            vcpu(0, VCPU_ATTACHED | VCPU_MOVED),
            vcpu(127, VCPU_ATTACHED | VCPU_ON_CPU),
        ];
        let text = table(&vcpus);
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
        assert_eq!(text.lines().count(), 3, "{text}");
    }

    #[test]
    fn what_is_unusual_is_named() {
        let mut vcpus: Vec<VcpuJson> = (0..4).map(|index| vcpu(index, VCPU_ATTACHED)).collect();
        assert_eq!(remarks(&vcpus), "");
        for index in [0, 2] {
            vcpus[index].policy = "SCHED_IDLE".to_string();
        }
        vcpus[1].policy = "SCHED_FIFO".to_string();
        vcpus[3].foreign = true;
        let text = remarks(&vcpus);
        let expected =
            "  SCHED_FIFO: vCPU 1\n  SCHED_IDLE: vCPU 0, 2\n  set by hand, left alone: vCPU 3\n";
        assert_eq!(text, expected);
        let text = remarks(&[vcpu(7, 0)]);
        assert_eq!(text, "  not seen running yet: vCPU 7\n");
    }
}
