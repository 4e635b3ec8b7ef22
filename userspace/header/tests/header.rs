// SPDX-License-Identifier: GPL-2.0-only

//! The committed header is what `src/uapi.rs` gives, and C callers of 64 and 32 bit see the same layout
//! and numbers as Rust.

use std::fmt::Write;
use std::mem::offset_of;
use std::process::Command;

use sleepy_uapi::*;

#[test]
fn header_is_current() {
    let generated =
        sleepy_header::generate(&sleepy_header::source()).expect("src/uapi.rs is understood");
    let committed =
        std::fs::read_to_string(sleepy_header::target()).expect("include/sleepy.h is there");
    assert!(
        generated == committed,
        "include/sleepy.h is stale: run `cargo run -p sleepy-header` in userspace/"
    );
}

#[test]
fn c_layout_64_bit() {
    compile(&["-m64"]);
}

#[test]
fn c_layout_32_bit() {
    compile(&["-m32"]);
}

/// Static assertions of a structure's size and of the offset of each of its fields.
///
/// The pattern has no `..`, so that a new field cannot be forgotten here.
macro_rules! layout {
    ($out:ident, $c:literal, $rust:ident { $($field:ident),* $(,)? } $($field_c:literal = $renamed:ident)?) => {
        #[allow(clippy::no_effect_underscore_binding)]
        let _ = |value: $rust| { let $rust { $($field: _,)* $($renamed: _)? } = value; };
        writeln!($out, "_Static_assert(sizeof(struct {}) == {}, \"\");", $c, size_of::<$rust>()).unwrap();
        $(writeln!($out, "_Static_assert(offsetof(struct {}, {}) == {}, \"\");",
            $c, stringify!($field), offset_of!($rust, $field)).unwrap();)*
        $(writeln!($out, "_Static_assert(offsetof(struct {}, {}) == {}, \"\");",
            $c, $field_c, offset_of!($rust, $renamed)).unwrap();)?
    };
}

macro_rules! values {
    ($out:ident, $($name:ident)*) => {
        $(writeln!($out, "_Static_assert(SLEEPY_{} == {}, \"\");", stringify!($name), $name).unwrap();)*
    };
}

fn assertions() -> String {
    let mut out = String::from("#include <stddef.h>\n#include \"sleepy.h\"\n");
    layout!(
        out,
        "sleepy_policy",
        Policy {
            linger,
            request_timeout,
            max_sleep,
            quiet,
            spin,
            timer_slack,
            park_max,
            stir_run,
            boost_period,
            boost_budget,
            lever,
            sleepy_nice,
            boost_nice,
            flags,
            sleep_on,
            wake_on,
            sleepy_weight,
            reserved,
        }
    );
    layout!(out, "sleepy_rule", Rule { direction, len, tag, insns, text, text_len, prog_fd } "class_" = class);
    layout!(out, "sleepy_vm_rule", VmRule { direction, tag, prog_id, text_len, reserved, text } "class_" = class);
    layout!(out, "sleepy_link", Link { netns_fd, ifindex });
    layout!(
        out,
        "sleepy_info",
        Info {
            version,
            max_vms,
            max_links,
            max_rules,
            max_insns,
            vms,
            levers,
            sleep_on,
            wake_on,
            reserved
        }
    );
    layout!(
        out,
        "sleepy_vm_add",
        VmAdd {
            name,
            pid,
            vm_fd,
            start_time,
            policy,
            links,
            rules,
            n_links,
            n_rules,
            id,
            fault,
            fault_index,
            group_fd,
        }
    );
    layout!(out, "sleepy_vm_remove", VmRemove { id, reserved });
    layout!(
        out,
        "sleepy_vm_set",
        VmSet {
            id,
            flags,
            policy,
            rules,
            n_rules,
            fault,
            fault_index,
            group_fd
        }
    );
    layout!(
        out,
        "sleepy_vm_get",
        VmGet {
            id,
            flags,
            name,
            pid,
            state,
            start_time,
            policy,
            in_flight,
            n_vcpus,
            n_links,
            n_rules,
            lost_links,
            calls,
            group,
            flags_out,
            reserved,
        }
    );
    layout!(
        out,
        "sleepy_vcpu",
        Vcpu {
            index,
            tid,
            nice,
            baseline,
            flags,
            policy,
            oncpu,
            preempted,
            halted,
            blocked,
            yielded,
            parked,
        }
    );
    layout!(
        out,
        "sleepy_vm_link",
        VmLink {
            ifindex,
            reserved,
            netns,
            name
        }
    );
    layout!(out, "sleepy_vm_array", VmArray { id, count, items });
    layout!(out, "sleepy_histogram", Histogram { buckets });
    layout!(
        out,
        "sleepy_last",
        Last {
            request,
            ran,
            response
        }
    );
    layout!(
        out,
        "sleepy_vm_stats",
        VmStats {
            id,
            reserved,
            requests,
            responses,
            closed,
            timeouts,
            overflows,
            calls,
            answers,
            hints_refused,
            wakes,
            sleeps,
            time,
            oncpu,
            trigger,
            exec,
            effect,
            last,
        }
    );
    values!(out,
        ABI_VERSION NAME_SIZE LINK_NAME_SIZE MAX_VMS MAX_LINKS MAX_RULES MAX_INSNS MAX_TEXT MAX_TIME
        MIN_TIMEOUT MAX_WEIGHT MIN_STIR LEVER_OBSERVE LEVER_NICE LEVER_IDLE LEVER_GROUP LEVER_PARK POLICY_BOOST
        POLICY_AUTO FAULT_GROUP VM_GROUP_FOREIGN VM_GROUP_LEFT CLASS_REQUEST CLASS_RESPONSE CLASS_CLOSE
        CLASS_IGNORE CLASS_WAKE CLASS_SLEEP CLASS_PROGRAM TO_VM FROM_VM STATE_AWAKE STATE_SLEEPY
        FAULT_NONE FAULT_NAME FAULT_HANDLE FAULT_POLICY FAULT_LINK FAULT_RULE SET_POLICY SET_RULES
        GET_NEXT VCPU_ATTACHED VCPU_ON_CPU VCPU_FOREIGN VCPU_MOVED WAKE_REQUEST WAKE_STIR WAKE_ADMIN
        WAKE_PACKET WAKE_RULE WAKE_INTERRUPT WAKE_TIMER WAKE_IPI WAKE_DOORBELL WAKE_HINT WAKE_ANSWER
        WAKE_CAUSES WAKE_EVENTS SLEEP_RESPONSE SLEEP_CLOSE SLEEP_TIMEOUT SLEEP_REST SLEEP_IDLE
        SLEEP_SPIN SLEEP_QUIET SLEEP_HINT SLEEP_RULE SLEEP_CALL SLEEP_CAUSES SLEEP_EVENTS
        HINT_HYPERCALL HINT_SLEEP HINT_WAKE HINT_RATE PHASE_IN_FLIGHT PHASE_IDLE PHASE_SLEEPY PHASES
        BUCKETS IOC_INFO IOC_VM_ADD IOC_VM_REMOVE IOC_VM_SET IOC_VM_GET IOC_VM_STATS IOC_VM_VCPUS
        IOC_VM_LINKS IOC_VM_RULES);
    out
}

/// Compiles the assertions; they need no C library, so that a plain compiler does for 32 bit too.
fn compile(flags: &[&str]) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let source = dir.path().join("layout.c");
    std::fs::write(&source, assertions()).expect("layout.c is written");
    let include = sleepy_header::target();
    let output = Command::new("cc")
        .args([
            "-std=c11",
            "-ffreestanding",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-fsyntax-only",
            "-I",
        ])
        .arg(include.parent().expect("the header is in a directory"))
        .args(flags)
        .arg(&source)
        .output()
        .expect("cc runs");
    assert!(
        output.status.success(),
        "cc {flags:?}:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
