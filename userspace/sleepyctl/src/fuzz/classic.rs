// SPDX-License-Identifier: GPL-2.0-only

//! What the kernel asks of classic BPF: its `bpf_check_classic()`, in our words.

use pcap::BpfInstruction;
use sleepy_uapi::MAX_INSNS;

use crate::filter::parts;

/// Cells of memory.
const CELLS: u32 = 16;
/// Loads from here on are of a packet's metadata, by these offsets.
const METADATA: u32 = 0xffff_f000;
const KNOWN: std::ops::RangeInclusive<u32> = 0..=60;

/// What is wrong with it.
pub fn check(insns: &[BpfInstruction]) -> Result<(), String> {
    let insns: Vec<[u32; 4]> = insns.iter().map(parts).collect();
    let len = insns.len();
    if !(1..=MAX_INSNS as usize).contains(&len) {
        return Err(format!("{len} instructions"));
    }
    let inside = |at: usize, offset: u32| at + 1 + (offset as usize) < len;
    // The cells that are written on every way here.
    let mut written = vec![u32::MAX; len];
    let mut now = 0;
    for (at, insn) in insns.iter().enumerate() {
        now &= written[at];
        let wrong = |what: &str| Err(format!("{at}: {what}: {insn:?}"));
        let [code, jt, jf, k] = *insn;
        let mut goes_to = |offset: u32, now| written[at + 1 + offset as usize] &= now;
        match code {
            // ld [k], ld [x + k], ld #k, ld #len, and ldx
            0x20 | 0x28 | 0x30
                if k >= METADATA && !(KNOWN.contains(&(k - METADATA)) && k % 4 == 0) =>
            {
                return wrong("no such metadata");
            }
            0x20 | 0x28 | 0x30 | 0x40 | 0x48 | 0x50 | 0x00 | 0x80 | 0x01 | 0x81 | 0xb1 => {}
            0x60 | 0x61 | 0x02 | 0x03 if k >= CELLS => return wrong("no such cell"),
            0x60 | 0x61 if now >> k & 1 == 0 => return wrong("cell is not written"),
            0x60 | 0x61 => {}
            0x02 | 0x03 => now |= 1 << k,
            // div and mod; lsh and rsh; add, sub, mul, or, and, xor, neg; all of them with x too
            0x34 | 0x94 if k == 0 => return wrong("division by 0"),
            0x64 | 0x74 if k >= 32 => return wrong("shift is too wide"),
            0x04 | 0x14 | 0x24 | 0x34 | 0x44 | 0x54 | 0x64 | 0x74 | 0x84 | 0x94 | 0xa4 => {}
            0x0c | 0x1c | 0x2c | 0x3c | 0x4c | 0x5c | 0x6c | 0x7c | 0x9c | 0xac => {}
            0x05 if !inside(at, k) => return wrong("jump out of it"),
            0x05 => {
                goes_to(k, now);
                now = u32::MAX;
            }
            0x15 | 0x1d | 0x25 | 0x2d | 0x35 | 0x3d | 0x45 | 0x4d => {
                if !inside(at, jt) || !inside(at, jf) {
                    return wrong("jump out of it");
                }
                goes_to(jt, now);
                goes_to(jf, now);
                now = u32::MAX;
            }
            // ret #k, ret a; tax, txa
            0x06 | 0x16 => now = u32::MAX,
            0x07 | 0x87 => {}
            _ => return wrong("no such instruction"),
        }
    }
    match insns[len - 1][0] {
        0x06 | 0x16 => Ok(()),
        _ => Err("does not end with a return".to_string()),
    }
}
