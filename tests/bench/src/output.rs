// SPDX-License-Identifier: GPL-2.0-only

//! What is said while it runs, and the file of its records, which a later run goes on with.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write, stdout};
use std::path::Path;
use std::time::Instant;

use sleepy_bench::record::{Cell, Record, Trial};
use sleepy_host::Result;

/// The file, and what it had at the beginning.
pub struct Output {
    file: File,
    known: Vec<Trial>,
    begin: Instant,
}

impl Output {
    /// Goes on with a file, if there is one.
    pub fn open(path: &Path) -> Result<Self> {
        let failed = |error: std::io::Error| format!("{}: {error}", path.display());
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .read(true)
            .open(path)
            .map_err(failed)?;
        let mut known = Vec::new();
        let mut whole = 0;
        let mut reader = BufReader::new(&file);
        let mut line = String::new();
        while reader.read_line(&mut line).map_err(failed)? > 0 && line.ends_with('\n') {
            let record = serde_json::from_str(&line).map_err(|error| {
                format!("{}: {error}; move it away to begin anew", path.display())
            })?;
            if let Record::Trial(trial) = record {
                known.push(trial);
            }
            whole += line.len() as u64;
            line.clear();
        }
        // A run that was stopped may have left part of a line.
        file.set_len(whole).map_err(failed)?;
        Ok(Self {
            file,
            known,
            begin: Instant::now(),
        })
    }

    /// Whether this has been measured.
    pub fn has(&self, cell: &Cell, system: &str, repetition: u32) -> bool {
        self.known.iter().any(|trial| {
            trial.cell == *cell && trial.system == system && trial.repetition == repetition
        })
    }

    /// Writes a record.
    pub fn write(&mut self, record: Record) -> Result<()> {
        let mut line = serde_json::to_vec(&record)?;
        line.push(b'\n');
        self.file.write_all(&line)?;
        Ok(())
    }

    /// Says what is done now.
    pub fn progress(&self, what: &str) {
        let seconds = self.begin.elapsed().as_secs();
        // Nobody may read it.
        let _ = writeln!(
            stdout(),
            "bench: {:3}:{:02} {what}",
            seconds / 60,
            seconds % 60
        );
    }
}
