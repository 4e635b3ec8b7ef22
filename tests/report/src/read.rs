// SPDX-License-Identifier: GPL-2.0-only

//! From the bench's files to its records, sorted by kind.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use sleepy_bench::record::{Alone, Cost, Host, Reaction, Record, Trial};

use crate::Result;

/// All records of all files, each kind in the order in which it came.
#[derive(Default)]
pub struct Data {
    /// Where things were measured: first the host of the trials, then others, each once.
    pub hosts: Vec<Host>,
    /// Of one host only.
    pub trials: Vec<Trial>,
    pub reactions: Vec<Reaction>,
    pub alone: Vec<Alone>,
    pub costs: Vec<Cost>,
}

/// Reads the files as if they were one. Fails with the file and the line that cannot be used, and why.
pub fn files(paths: &[PathBuf]) -> Result<Data> {
    let mut reader = Reader::default();
    for path in paths {
        reader.file(path)?;
    }
    Ok(reader.finish())
}

/// Whether these are the same: a file may say it again.
fn same(one: &Host, other: &Host) -> bool {
    serde_json::to_value(one).ok() == serde_json::to_value(other).ok()
}

#[derive(Default)]
struct Reader {
    data: Data,
    /// What the next record was measured on: an index of `data.hosts`.
    current: Option<usize>,
    /// What the trials were measured on.
    trials_on: Option<usize>,
}

impl Reader {
    fn file(&mut self, path: &Path) -> Result<()> {
        let name = path.display();
        let file = File::open(path).map_err(|error| format!("{name}: {error}"))?;
        for (index, line) in BufReader::new(file).lines().enumerate() {
            let line = line.map_err(|error| format!("{name}: {error}"))?;
            self.line(&line)
                .map_err(|error| format!("{name}:{}: {error}", index + 1))?;
        }
        Ok(())
    }

    fn line(&mut self, line: &str) -> Result<()> {
        if line.trim().is_empty() {
            return Ok(());
        }
        let record = serde_json::from_str(line).map_err(|error| {
            format!(
                "not a record of this bench ({error}): remove the line, if a bench was stopped \
                 while it wrote it, or measure again"
            )
        })?;
        match record {
            Record::Host(host) => self.host(host)?,
            Record::Trial(trial) => self.trial(trial)?,
            Record::Reaction(reaction) => self.data.reactions.push(reaction),
            Record::Alone(alone) => self.data.alone.push(alone),
            Record::Cost(cost) => self.data.costs.push(cost),
        }
        Ok(())
    }

    fn host(&mut self, host: Host) -> Result<()> {
        if host.vcpu_cpus == 0 {
            return Err("the host's \"vcpu_cpus\" is 0: vCPUs share 1 CPU at least".into());
        }
        let hosts = &mut self.data.hosts;
        let known = hosts.iter().position(|known| same(known, &host));
        self.current = Some(known.unwrap_or(hosts.len()));
        if known.is_none() {
            hosts.push(host);
        }
        Ok(())
    }

    fn trial(&mut self, trial: Trial) -> Result<()> {
        let current = self
            .current
            .ok_or("a trial, but no host: name the file with the \"host\" line first")?;
        if *self.trials_on.get_or_insert(current) != current {
            return Err("trials of two hosts do not compare: report each host alone".into());
        }
        self.data.trials.push(trial);
        Ok(())
    }

    fn finish(mut self) -> Data {
        if let Some(index) = self.trials_on {
            self.data.hosts.swap(0, index);
        }
        self.data
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::summary::tests::{host, trial};

    fn lines(records: &[Record]) -> Result<Data> {
        let mut reader = Reader::default();
        for record in records {
            reader.line(&serde_json::to_string(record)?)?;
        }
        Ok(reader.finish())
    }

    #[test]
    fn hosts_are_told_apart() {
        let (one, mut other) = (host(), host());
        other.cpus = 64;
        let trial = Record::Trial(trial("eevdf", 1, 0, &[1]));

        let again = [one.clone(), one.clone()].map(Record::Host);
        assert_eq!(lines(&again).unwrap().hosts.len(), 1);

        let costs_elsewhere = [
            Record::Host(other.clone()),
            Record::Host(one.clone()),
            trial.clone(),
        ];
        let data = lines(&costs_elsewhere).unwrap();
        assert_eq!(data.hosts[0].cpus, one.cpus);

        let two = [
            Record::Host(one),
            trial.clone(),
            Record::Host(other),
            trial.clone(),
        ];
        assert!(lines(&two).err().unwrap().to_string().contains("two hosts"));
        assert!(
            lines(&[trial])
                .err()
                .unwrap()
                .to_string()
                .contains("no host")
        );
    }

    #[test]
    fn errors_name_file_and_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cut.jsonl");
        std::fs::write(&path, "\n{\"trial\": {\"sys").unwrap();
        let error = files(std::slice::from_ref(&path))
            .err()
            .unwrap()
            .to_string();
        assert!(
            error.starts_with(&format!("{}:2: ", path.display())),
            "{error}"
        );
    }
}
