// SPDX-License-Identifier: GPL-2.0-only

//! Shows and controls sleepy.

fn main() {}
