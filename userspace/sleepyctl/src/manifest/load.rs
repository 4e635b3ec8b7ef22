// SPDX-License-Identifier: GPL-2.0-only

//! From files to VMs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::entry::{Common, Entry, Reader};
use super::report::{Report, Spot};
use super::value::{integer, wrong};
use super::vm::Vm;
use super::{claims, lint};
use crate::error::{Error, Result};
use crate::filter::Handle;
use crate::similar;

/// The version of manifests that this is about.
pub const VERSION: i64 = 1;

/// Keys outside of any table, and the tables.
pub const TOP: [&str; 4] = ["schema_version", "defaults", "template", "vm"];

/// What files say.
pub struct Manifests {
    /// What is wrong with them.
    pub report: Report,
    /// The VMs that can be made out.
    pub vms: Vec<Vm>,
}

/// Reads files, and those named `*.toml` in directories.
pub fn load(paths: &[PathBuf]) -> Result<Manifests> {
    let mut texts = Vec::new();
    for path in paths {
        for file in files(path)? {
            let name = file.display().to_string();
            let text = std::fs::read_to_string(&file)
                .map_err(|error| Error::failed(format!("{name}: {}", why(&error))))?;
            texts.push((name, text));
        }
    }
    of_texts(&texts)
}

fn files(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_path_buf()]);
    }
    let cannot =
        |error: std::io::Error| Error::failed(format!("{}: {}", path.display(), why(&error)));
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(cannot)? {
        let file = entry.map_err(cannot)?.path();
        if file
            .extension()
            .is_some_and(|extension| extension == "toml")
        {
            files.push(file);
        }
    }
    files.sort();
    if files.is_empty() {
        return Err(Error::failed(format!(
            "{}: there is no *.toml in this directory",
            path.display()
        )));
    }
    Ok(files)
}

fn why(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::InvalidData => "this is not a text in UTF-8".to_string(),
        _ => match rustix::io::Errno::from_io_error(error) {
            Some(errno) => crate::error::words(errno),
            None => error.to_string(),
        },
    }
}

/// What texts with these names say.
pub fn of_texts(texts: &[(String, String)]) -> Result<Manifests> {
    let filters = Handle::dead()?;
    let mut report = Report::default();
    let mut vms = Vec::new();
    for (name, text) in texts {
        let file = report.file(name, text);
        let mut reader = Reader {
            report: &mut report,
            file,
            filters: &filters,
        };
        vms.extend(read(text, &mut reader));
    }
    claims::check(&vms, &mut report);
    Ok(Manifests { report, vms })
}

fn read(text: &str, reader: &mut Reader<'_>) -> Vec<Vm> {
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let spot = reader.spot(error.span().unwrap_or_default());
        let message = error.message().trim().replace('\n', ", ");
        reader
            .report
            .broken(spot, format!("this is no TOML: {message}"));
    }
    let document = document.get_ref();
    let (mut defaults, mut templates, mut entries) =
        (Common::default(), BTreeMap::new(), Vec::new());
    for (key, value) in document {
        match key.get_ref().as_ref() {
            "schema_version" => version(value, reader),
            "defaults" => defaults = table(key.get_ref(), value, reader),
            "template" => templates = read_templates(value, reader),
            "vm" => entries = read_vms(value, reader),
            other => reader.unknown_key(key.span(), other, &TOP),
        }
    }
    let start = reader.spot(0..0);
    if !document.contains_key("schema_version") && errors.is_empty() {
        let message = format!("`schema_version` is missing; begin with schema_version = {VERSION}");
        reader.report.error(start, message);
    }
    if entries.is_empty() && errors.is_empty() && !document.contains_key("vm") {
        let message = "there is no [[vm]] in this file";
        reader.report.warning(start, message);
    }
    complete(entries, &defaults, &templates, reader.report)
}

fn version(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) {
    let read = |value: &DeValue<'_>| match integer::<i64>(value, 0..=i64::MAX)? {
        VERSION => Ok(()),
        other => Err(format!(
            "{other} is not known to this sleepyctl, which reads {VERSION}; install a newer one, or write {VERSION}"
        )),
    };
    reader.take("schema_version", value, read);
}

fn table(name: &str, value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Common {
    match value.get_ref() {
        DeValue::Table(table) => Common::read(table, reader),
        other => {
            let spot = reader.spot(value.span());
            let message = format!(
                "`{name}`: {}",
                wrong(other, &format!("a table: write [{name}]"))
            );
            reader.report.error(spot, message);
            Common::default()
        }
    }
}

type Templates = BTreeMap<String, (Spot, Common)>;

fn read_templates(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Templates {
    let DeValue::Table(templates) = value.get_ref() else {
        let read = |value: &DeValue<'_>| Err(wrong(value, "a table: write [template.NAME]"));
        reader.take::<()>("template", value, read);
        return Templates::new();
    };
    let template = |(name, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| {
        let name: &std::borrow::Cow<'_, str> = name.get_ref();
        let spot = reader.spot(value.span());
        let common = table(&format!("template.{name}"), value, reader);
        (name.to_string(), (spot, common))
    };
    templates.iter().map(template).collect()
}

fn read_vms(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Vec<Entry> {
    let DeValue::Array(vms) = value.get_ref() else {
        let read = |value: &DeValue<'_>| {
            Err(wrong(
                value,
                "a list of tables: write [[vm]], in two brackets",
            ))
        };
        reader.take::<()>("vm", value, read);
        return Vec::new();
    };
    vms.iter()
        .filter_map(|vm| Entry::read(vm, reader))
        .collect()
}

fn complete(
    entries: Vec<Entry>,
    defaults: &Common,
    templates: &Templates,
    report: &mut Report,
) -> Vec<Vm> {
    let names: Vec<&str> = templates.keys().map(String::as_str).collect();
    let mut used = BTreeSet::new();
    let mut vms = Vec::new();
    for entry in entries {
        let mut others = Vec::new();
        if let Some(name) = &entry.template {
            match templates.get(&name.value) {
                Some((_, template)) => others.push(template),
                None if names.is_empty() => report.error(
                    name.spot,
                    format!("there is no template; write [template.{}]", name.value),
                ),
                None => report.error(name.spot, similar::unknown("template", &name.value, &names)),
            }
            used.insert(name.value.clone());
        }
        others.push(defaults);
        let own = entry.common.clone();
        if let Some(vm) = Vm::new(entry, &others, report) {
            lint::lint(&vm, &own, report);
            vms.push(vm);
        }
    }
    for (name, (spot, _)) in templates {
        if !used.contains(name) {
            report.warning(*spot, format!("no VM uses the template `{name}`"));
        }
    }
    vms
}
