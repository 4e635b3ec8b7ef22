// SPDX-License-Identifier: GPL-2.0-only

//! Writes `include/sleepy.h`.

fn main() -> Result<(), sleepy_header::Error> {
    let header = sleepy_header::generate(&sleepy_header::source())?;
    std::fs::write(sleepy_header::target(), header)?;
    Ok(())
}
