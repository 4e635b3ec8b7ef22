// SPDX-License-Identifier: GPL-2.0-only

//! Filters of rules.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| sleepyctl::fuzz::filter(text));
