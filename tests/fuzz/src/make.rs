// SPDX-License-Identifier: GPL-2.0-only

//! Policies, rules and filters: good ones, and such as are wrong in some place.

use fastrand::Rng;
use sleepy_uapi as uapi;
use sleepy_uapi::{Policy, Rule};

use crate::sys::Arena;

/// One of them.
pub fn pick<T: Copy>(rng: &mut Rng, of: &[T]) -> T {
    of[rng.usize(..of.len())]
}

/// One time in `n`.
pub fn once_in(rng: &mut Rng, n: u32) -> bool {
    rng.u32(..n) == 0
}

/// A number that is at some border, or anywhere.
pub fn odd(rng: &mut Rng) -> u64 {
    let any = rng.u64(..);
    let near = pick(
        rng,
        &[uapi::MIN_TIMEOUT, uapi::MAX_TIME, 1 << 31, 1 << 32, 0, any],
    );
    near.wrapping_add(rng.u64(..3)).wrapping_sub(1)
}

/// A policy that is taken, of events that this kernel shows. With `group`, its lever may be the control group's weight.
pub fn policy(rng: &mut Rng, info: &uapi::Info, group: bool) -> Policy {
    let time = |rng: &mut Rng| uapi::MIN_TIMEOUT << rng.u32(..14);
    let levers = [
        uapi::LEVER_NICE,
        uapi::LEVER_OBSERVE,
        uapi::LEVER_IDLE,
        uapi::LEVER_PARK,
        uapi::LEVER_GROUP,
    ];
    let lever = pick(rng, &levers[..if group { 5 } else { 4 }]);
    // Another set of events takes long: KVM's tracepoints and kprobes are left, or others are taken.
    let (sleep_on, wake_on) = if once_in(rng, 8) {
        (info.sleep_on & rng.u32(..), info.wake_on & rng.u32(..))
    } else {
        (1 << uapi::SLEEP_RESPONSE, 1 << uapi::WAKE_REQUEST)
    };
    let boosts = lever != uapi::LEVER_IDLE && rng.bool();
    let period = if boosts && rng.bool() { time(rng) } else { 0 };
    let park_max = time(rng);
    let (linger, timer_slack) = (1 << rng.u32(1..28), time(rng));
    Policy {
        linger: rng.u64(..linger),
        request_timeout: time(rng),
        max_sleep: time(rng),
        quiet: time(rng),
        spin: time(rng),
        timer_slack: rng.u64(..timer_slack),
        park_max,
        stir_run: rng.u64(uapi::MIN_STIR..=park_max),
        boost_period: period,
        boost_budget: rng.u64(period >> uapi::BOOST_SHIFT..=period),
        lever,
        sleepy_nice: rng.i32(-20..=19),
        // Above that of the threads that fuzz.
        boost_nice: if boosts { rng.i32(5..=19) } else { 0 },
        flags: u32::from(boosts) * uapi::POLICY_BOOST + u32::from(rng.bool()) * uapi::POLICY_AUTO,
        sleep_on,
        wake_on,
        sleepy_weight: rng.u32(..=uapi::MAX_WEIGHT),
        reserved: 0,
    }
}

/// Puts an odd number into one of the policy's fields.
pub fn spoil(rng: &mut Rng, policy: &mut Policy) {
    let (field, value) = (rng.u32(..18), odd(rng));
    let small = value as u32;
    match field {
        0 => policy.linger = value,
        1 => policy.request_timeout = value,
        2 => policy.max_sleep = value,
        3 => policy.quiet = value,
        4 => policy.spin = value,
        5 => policy.timer_slack = value,
        6 => policy.park_max = value,
        7 => policy.stir_run = value,
        8 => policy.boost_period = value,
        9 => policy.boost_budget = value,
        10 => policy.lever = rng.u32(..8),
        11 => policy.sleepy_nice = rng.i32(-22..22),
        12 => policy.boost_nice = rng.i32(-22..22),
        13 => policy.flags ^= 1 << rng.u32(..32),
        14 => policy.sleep_on ^= 1 << rng.u32(..32),
        15 => policy.wake_on ^= 1 << rng.u32(..32),
        16 => policy.sleepy_weight = small,
        _ => policy.reserved = small,
    }
}

/// One instruction of classic BPF, as `struct sock_filter` has it.
pub fn insn(code: u16, jt: u8, jf: u8, k: u32) -> [u8; 8] {
    let [c0, c1] = code.to_le_bytes();
    let [k0, k1, k2, k3] = k.to_le_bytes();
    [c0, c1, jt, jf, k0, k1, k2, k3]
}

/// Accepts packets whose length is `class` modulo 8.
pub fn by_length(class: u32) -> Vec<u8> {
    [
        insn(0x80, 0, 0, 0), // ld len
        insn(0x54, 0, 0, 7), // and #7
        insn(0x15, 0, 1, class),
        insn(0x06, 0, 0, 1),
        insn(0x06, 0, 0, 0),
    ]
    .concat()
}

/// A filter that the kernel takes, whatever it does: it reads anywhere, behind the packet's end too, and jumps forward.
pub fn filter(rng: &mut Rng) -> Vec<u8> {
    const SKF_AD_OFF: u32 = -0x1000_i32 as u32;
    const SKF_NET_OFF: u32 = -0x10_0000_i32 as u32;
    const SKF_LL_OFF: u32 = -0x20_0000_i32 as u32;
    let len = if once_in(rng, 50) {
        4096
    } else {
        rng.usize(1..24)
    };
    let mut program = Vec::with_capacity(8 * len);
    // So that nothing is loaded from memory that nothing was stored in.
    let mut stored = false;
    for at in 0..len - 1 {
        let left = (len - 2 - at).min(255) as u8;
        let near = rng.u32(..64);
        let offset = match rng.u32(..10) {
            0 => rng.u32(..),
            1 => SKF_NET_OFF + near,
            2 => SKF_LL_OFF + near,
            3 => rng.u32(1400..70000),
            _ => near,
        };
        let value = rng.u32(..) >> rng.u32(..32);
        program.extend(match rng.u32(..10) {
            0..=3 => insn(
                pick(rng, &[0x20, 0x28, 0x30, 0x40, 0x48, 0x50]),
                0,
                0,
                offset,
            ),
            4 => insn(0xb1, 0, 0, offset),
            5 => {
                let extension = pick(rng, &[0, 4, 8, 20, 24, 28, 32, 36, 40, 44, 48, 56, 60]);
                insn(0x20, 0, 0, SKF_AD_OFF + extension)
            }
            6 => insn(
                pick(
                    rng,
                    &[
                        0x04, 0x0c, 0x14, 0x1c, 0x24, 0x34, 0x44, 0x54, 0x94, 0xa4, 0x3c, 0x9c,
                    ],
                ),
                0,
                0,
                value.max(1),
            ),
            7 if stored => insn(pick(rng, &[0x60, 0x61]), 0, 0, 3),
            7 if at == 0 => {
                stored = true;
                insn(0x02, 0, 0, 3)
            }
            8 => insn(pick(rng, &[0x07, 0x87, 0x80, 0x81]), 0, 0, 0),
            _ => insn(
                pick(rng, &[0x15, 0x25, 0x35, 0x45, 0x1d, 0x2d]),
                rng.u8(..=left),
                rng.u8(..=left),
                value,
            ),
        });
    }
    program.extend(insn(pick(rng, &[0x06, 0x06, 0x16]), 0, 0, rng.u32(..2)));
    program
}

/// A rule whose filter is taken. `programs` are descriptors of eBPF programs.
pub fn rule(rng: &mut Rng, arena: &mut Arena, programs: &[i32]) -> Rule {
    let text = vec![b'x'; rng.usize(..40)];
    let rule = Rule {
        class: rng.u32(..6),
        direction: rng.u32(1..=3),
        tag: rng.u32(..),
        text: arena.put(&text, 0),
        text_len: text.len() as u32,
        ..Rule::default()
    };
    if once_in(rng, 4) && !programs.is_empty() {
        return Rule {
            class: uapi::CLASS_PROGRAM,
            prog_fd: pick(rng, programs),
            ..rule
        };
    }
    let filter = filter(rng);
    Rule {
        len: filter.len() as u32 / 8,
        insns: arena.put(&filter, 0),
        ..rule
    }
}
