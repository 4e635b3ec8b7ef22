// SPDX-License-Identifier: GPL-2.0-only

//! What sleepy is compared with: programs that run beside the microVMs.

pub mod controller;
pub mod scx;

use std::fs;
use std::path::Path;
use std::process::Child;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use sleepy_host::Result;

const POLL: Duration = Duration::from_millis(20);
/// A program that was asked to end and is there after this is killed.
const END_TIME: Duration = Duration::from_secs(10);
/// In characters, of what a program said last.
const WORDS: usize = 200;

/// Asks a program to end, and waits until it has.
fn end(child: &mut Child, signal: Signal) -> Result<()> {
    let program = Pid::from_child(child);
    if child.try_wait()?.is_none() {
        kill_process(program, signal)?;
    }
    let deadline = Instant::now() + END_TIME;
    while child.try_wait()?.is_none() {
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            return Err(format!(
                "process {program} did not end {END_TIME:?} after {signal:?}: killed"
            )
            .into());
        }
        sleep(POLL);
    }
    Ok(())
}

/// The last lines that a program wrote to a file, without colours.
fn last_words(file: &Path) -> String {
    let said = fs::read(file).unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    let lines: Vec<_> = said
        .lines()
        .map(plain)
        .filter(|line| !line.is_empty())
        .collect();
    let mut words = String::new();
    for line in lines.iter().rev() {
        let longer = if words.is_empty() {
            line.clone()
        } else {
            format!("{line}; {words}")
        };
        if !words.is_empty() && longer.chars().count() > WORDS {
            break;
        }
        words = longer;
    }
    words.chars().take(WORDS).collect()
}

/// A line without the escape sequences of a terminal, each of which ends with a letter.
fn plain(line: &str) -> String {
    let mut parts = line.split('\x1b');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        text += part
            .split_once(|c: char| c.is_ascii_alphabetic())
            .map_or("", |(_, rest)| rest);
    }
    text.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_said_last() -> Result<()> {
        let file = std::env::temp_dir().join(format!("last-words.{}", std::process::id()));
        fs::write(
            &file,
            format!(
                "{}\n\x1b[34m[INFO]\x1b[0m topology\n\nError: no BTF\n",
                "x".repeat(WORDS)
            ),
        )?;
        let words = last_words(&file);
        fs::remove_file(&file)?;
        assert_eq!(words, "[INFO] topology; Error: no BTF");
        Ok(())
    }
}
