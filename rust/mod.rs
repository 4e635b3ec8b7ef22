// SPDX-License-Identifier: GPL-2.0-only

//! Safe abstractions that the `kernel` crate lacks, written as if for it.
//!
//! All of the module's `unsafe` is here, and all of its C (`helpers/`). Nothing in here knows what the
//! module is for.

pub(crate) mod apart;
pub(crate) mod bpf;
pub(crate) mod bytes;
pub(crate) mod capability;
pub(crate) mod cgroup;
pub(crate) mod clock;
pub(crate) mod cpus;
pub(crate) mod forks;
pub(crate) mod global;
pub(crate) mod kvm;
pub(crate) mod kvm_events;
pub(crate) mod module_ref;
pub(crate) mod netdev;
pub(crate) mod netfilter;
pub(crate) mod periodic;
mod preempt;
pub(crate) mod preempt_notifier;
mod probe;
pub(crate) mod process;
pub(crate) mod rcu_cell;
pub(crate) mod rcu_map;
pub(crate) mod sched;
#[cfg_attr(linux_7_2, path = "linux_7_2.rs")]
pub(crate) mod series;
pub(crate) mod skb;
pub(crate) mod task_work;
pub(crate) mod timed;
pub(crate) mod worker;

mod bindings {
    #![allow(
        clippy::all,
        clippy::cast_lossless,
        clippy::ptr_as_ptr,
        clippy::ref_as_ptr,
        clippy::undocumented_unsafe_blocks,
        dead_code,
        improper_ctypes,
        missing_docs,
        non_camel_case_types,
        non_snake_case,
        non_upper_case_globals,
        unreachable_pub,
        unsafe_op_in_unsafe_fn
    )]
    include!(env!("SLEEPY_BINDINGS"));
}
