// SPDX-License-Identifier: GPL-2.0-only

//! The summary as a file for other programs.

use std::fs;
use std::path::Path;

use serde::Serialize;
use sleepy_bench::record::{Cost, Host};

use crate::Result;
use crate::goals::Goal;
use crate::summary::{AloneRow, ReactionRow, Row, Summary};

/// It changes with every change that a reader may trip over.
const SCHEMA_VERSION: u32 = 1;

#[derive(Serialize)]
struct Bench<'a> {
    schema_version: u32,
    host: Option<&'a Host>,
    rows: &'a [Row],
    reactions: &'a [ReactionRow],
    alone: &'a [AloneRow],
    costs: &'a [Cost],
    goals: &'a [Goal],
}

impl<'a> Bench<'a> {
    fn new(summary: &'a Summary, goals: &'a [Goal]) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            host: summary.hosts.first(),
            rows: &summary.rows,
            reactions: &summary.reactions,
            alone: &summary.alone,
            costs: &summary.costs,
            goals,
        }
    }
}

/// Writes it.
pub fn write(path: &Path, summary: &Summary, goals: &[Goal]) -> Result<()> {
    let mut json = serde_json::to_vec_pretty(&Bench::new(summary, goals))?;
    json.push(b'\n');
    Ok(fs::write(path, json).map_err(|error| format!("{}: {error}", path.display()))?)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use sleepy_bench::record::Reaction;

    use super::*;
    use crate::goals;
    use crate::read::Data;
    use crate::summary::tests::{failed_trial, guest, host, trial};

    fn value(data: Data) -> Value {
        let summary = Summary::new(data);
        serde_json::to_value(Bench::new(&summary, &goals::all(&summary))).unwrap()
    }

    #[test]
    fn shape() {
        let value = value(Data {
            hosts: vec![host()],
            trials: vec![
                trial("eevdf", 1, 0, &[100, 300]),
                failed_trial("scx_lavd", 1, "no sched_ext"),
            ],
            reactions: vec![Reaction {
                system: "sleepy-nice".into(),
                vms: 3,
                outcome: Ok(vec![70]),
            }],
            alone: vec![guest("none", 0, 100.0, 10)],
            costs: vec![Cost {
                path: "packet".into(),
                case: "match".into(),
                rules: Some(10),
                vms: Some(1000),
                value: Some(812.5),
                spread: None,
                unit: "instructions".into(),
                why: None,
            }],
        });
        assert_eq!(value["schema_version"], 1);
        assert_eq!(value["host"]["vcpu_cpus"], 2);
        let none = json!({ "p50": null, "p95": null, "p99": null, "max": null, "spread": null });
        assert_eq!(
            value["rows"][0],
            json!({
                "system": "eevdf", "chain": "image", "input": "small", "wait": "busypoll",
                "overcommit": 3, "chains": 1, "network": "local", "arrival": "burst",
                "trigger_ns": none, "inter_ns": none, "stage_ns": none,
                "exec_ns": { "p50": 100, "p95": 300, "p99": 300, "max": 300, "spread": null },
                "idle_share": 0.5, "switch_share": 0.0, "limit_exec_ns": 400, "useful_ns": 800,
                "over_own": 0.25,
                "checks": { "client": null, "schedstat": null, "steal": null },
                "repetitions": 1, "error": null, "samples": [100, 300],
            })
        );
        assert_eq!(value["rows"][1]["error"], "no sched_ext");
        assert_eq!(value["rows"][1]["idle_share"], Value::Null);
        assert_eq!(value["costs"][0]["value"], 812.5);
        assert_eq!(value["alone"][0]["per_second"], 100.0);
        assert_eq!(value["reactions"][0]["p50"], 70);
        let goal = value["goals"][0].as_object().unwrap();
        let mut keys: Vec<&String> = goal.keys().collect();
        keys.sort();
        assert_eq!(keys, ["got", "reached", "wanted", "what"]);
    }

    #[test]
    fn nothing_measured() {
        let value = value(Data::default());
        assert_eq!(value["host"], Value::Null);
        assert_eq!(value["rows"], json!([]));
        assert_eq!(value["goals"][0]["reached"], Value::Null);
    }
}
