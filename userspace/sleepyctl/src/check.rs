// SPDX-License-Identifier: GPL-2.0-only

//! `check`, and how findings are printed.

use serde::Serialize;

use crate::cli::CheckArgs;
use crate::error::{Error, Exit, Result};
use crate::manifest::load::{Manifests, load};
use crate::manifest::report::{Finding, Report, Severity};
use crate::output::{self, Output};

#[derive(Serialize)]
struct Body<'a> {
    findings: Vec<Finding>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<output::ErrorJson<'a>>,
}

/// Runs it.
pub fn run(output: Output, args: &CheckArgs) -> Result<Exit> {
    let Manifests { report, vms } = load(&args.files)?;
    if report.has_errors() {
        if !output.json {
            output::write(&lines(&report))?;
        }
        return refuse(output, "check", &report, "");
    }
    let body = Body {
        findings: report.findings(),
        error: None,
    };
    output.print(body, || {
        let vms = output::counted(vms.len(), "VM");
        let files = output::counted(report.files(), "file");
        let result = match report.count(Severity::Warning) {
            0 => "nothing wrong".to_string(),
            warnings => output::counted(warnings, "warning"),
        };
        format!("{}{files}, {vms}: {result}\n", lines(&report))
    })?;
    Ok(Exit::Done)
}

/// A line for each finding.
pub fn lines(report: &Report) -> String {
    let findings = report.findings();
    findings
        .iter()
        .map(|finding| format!("{finding}\n"))
        .collect()
}

/// Says that nothing was done because of these findings; prints them as JSON, if that is asked for.
pub fn refuse(output: Output, command: &str, report: &Report, done: &str) -> Result<Exit> {
    let errors = output::counted(report.count(Severity::Error), "error");
    let error = Error::failed(format!("{errors}{done}")).of(command);
    if output.json {
        let body = Body {
            findings: report.findings(),
            error: Some(output::ErrorJson::from(&error)),
        };
        output.print(body, String::new)?;
    }
    output::say(&error);
    Ok(error.exit)
}
