// SPDX-License-Identifier: GPL-2.0-only

//! Values of options and keys.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| sleepyctl::fuzz::value(text));
