// SPDX-License-Identifier: GPL-2.0-only

//! `vm remove`

use serde::Serialize;

use crate::cli::RemoveArgs;
use crate::device::{Device, vm_name};
use crate::error::Result;
use crate::output::Output;

#[derive(Serialize)]
struct Body {
    removed: Vec<String>,
}

/// Runs it. If one of the names is unknown, none is removed.
pub fn run(output: Output, args: &RemoveArgs) -> Result<()> {
    let device = Device::open()?;
    let mut names = args.names.clone();
    names.sort();
    names.dedup();
    let vms = if args.all {
        device.vms()?
    } else {
        device.named(&names)?
    };
    for vm in &vms {
        device.remove(vm)?;
    }
    let body = Body {
        removed: vms.iter().map(vm_name).collect(),
    };
    output.print(&body, || match &body.removed[..] {
        [] => "there was no VM to remove\n".to_string(),
        names => format!("removed {}\n", names.join(", ")),
    })
}
