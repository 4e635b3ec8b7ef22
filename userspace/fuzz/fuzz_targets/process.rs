// SPDX-License-Identifier: GPL-2.0-only

//! What `/proc` says of processes, and selectors.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| sleepyctl::fuzz::process(text));
