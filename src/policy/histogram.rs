// SPDX-License-Identifier: GPL-2.0-only

//! Buckets of a log2 histogram in which each power of two is split in four.

/// Number of buckets; the last one begins at 7/4 * 2^40, half an hour in nanoseconds.
pub const BUCKETS: usize = 160;

/// The bucket of `value`.
pub fn bucket(value: u64) -> usize {
    if value < 4 {
        return value as usize;
    }
    let exponent = value.ilog2();
    let step = (value >> (exponent - 2)) & 3;
    ((exponent - 1) as usize * 4 + step as usize).min(BUCKETS - 1)
}

/// The lowest value of bucket `index`.
pub fn lower(index: usize) -> u64 {
    if index < 4 {
        return index as u64;
    }
    (4 + index as u64 % 4) << (index / 4 - 1)
}
