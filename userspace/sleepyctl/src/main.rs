// SPDX-License-Identifier: GPL-2.0-only

//! The program; all of it is in the library, so that the fuzzer has it too.

use std::process::ExitCode;

fn main() -> ExitCode {
    sleepyctl::main()
}
