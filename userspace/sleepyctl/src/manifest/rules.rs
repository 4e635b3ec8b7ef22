// SPDX-License-Identifier: GPL-2.0-only

//! `[[vm.rule]]`, and those of defaults and templates.

use sleepy_uapi::{
    CLASS_IGNORE, CLASS_REQUEST, CLASS_RESPONSE, CLASS_SLEEP, CLASS_WAKE, FROM_VM, MAX_TEXT, TO_VM,
};
use toml::Spanned;
use toml::de::DeValue;

use super::entry::Reader;
use super::report::{Spot, Spotted};
use super::value::{string, wrong};
use crate::filter::check_text;
use crate::rule::{BOTH, Rule, class_name, direction_name, usual_direction};
use crate::similar;

/// Keys of a rule.
pub const KEYS: [&str; 4] = ["class", "filter", "bpf", "direction"];

/// What a user's rule may be.
pub const CLASSES: [u32; 5] = [
    CLASS_REQUEST,
    CLASS_RESPONSE,
    CLASS_WAKE,
    CLASS_SLEEP,
    CLASS_IGNORE,
];

/// Where a user's rule may look.
pub const DIRECTIONS: [u32; 3] = [TO_VM, FROM_VM, BOTH];

/// Reads a list of rules; those that are wrong are left out.
pub fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<Vec<Spotted<Rule>>> {
    const WANTED: &str = "tables: write [[vm.rule]] before each, or [[defaults.rule]]";
    let DeValue::Array(rules) = value.get_ref() else {
        return reader.take("rule", value, |value| Err(wrong(value, WANTED)));
    };
    Some(rules.iter().filter_map(|rule| one(rule, reader)).collect())
}

#[derive(Default)]
struct Parts {
    class: Option<Spotted<u32>>,
    filter: Option<Spotted<String>>,
    bpf: Option<Spotted<String>>,
    direction: Option<u32>,
    /// A key with a wrong value: it is not missing.
    wrong: bool,
}

fn one(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<Spotted<Rule>> {
    let spot = reader.spot(value.span());
    let DeValue::Table(table) = value.get_ref() else {
        return reader.take("rule", value, |value| Err(wrong(value, "a table")));
    };
    let mut parts = Parts::default();
    for (key, value) in table {
        let (span, key) = (key.span(), key.get_ref().as_ref());
        let good = match key {
            "class" => {
                parts.class = reader.take_spotted(key, value, |value| class(&string(value)?));
                parts.class.is_some()
            }
            "filter" => {
                let filters = reader.filters;
                let read = |value: &DeValue<'_>| {
                    let expr = string(value)?;
                    check_text(&expr)?;
                    filters.check(&expr).map(|_| expr)
                };
                parts.filter = reader.take_spotted(key, value, read);
                parts.filter.is_some()
            }
            "bpf" => {
                parts.bpf = reader.take_spotted(key, value, |value| program(&string(value)?));
                parts.bpf.is_some()
            }
            "direction" => {
                parts.direction = reader.take(key, value, |value| direction(&string(value)?));
                parts.direction.is_some()
            }
            _ => {
                reader.unknown_key(span, key, &KEYS);
                false
            }
        };
        parts.wrong |= !good;
    }
    build(parts, spot, reader)
}

fn build(parts: Parts, spot: Spot, reader: &mut Reader<'_>) -> Option<Spotted<Rule>> {
    if let (Some(_), Some(bpf)) = (&parts.filter, &parts.bpf) {
        let message = "a rule has `filter` or `bpf`, not both; make two rules of it";
        reader.report.error(bpf.spot, message);
        return None;
    }
    if let (Some(_), Some(class)) = (&parts.bpf, &parts.class) {
        let message = "the program of `bpf` says the class itself; leave `class` out";
        reader.report.error(class.spot, message);
        return None;
    }
    if parts.wrong {
        return None;
    }
    let value = match (parts.class, parts.filter, parts.bpf) {
        (None, None, Some(path)) => Rule::program(parts.direction.unwrap_or(BOTH), &path.value),
        (Some(class), Some(filter), _) => {
            let direction = parts
                .direction
                .unwrap_or_else(|| usual_direction(class.value));
            Rule::filter(class.value, direction, &filter.value)
        }
        (None, Some(_), _) => {
            let message = format!("a rule with a filter needs a class: {}", names(&CLASSES));
            reader.report.error(spot, message);
            return None;
        }
        _ => {
            let message =
                "a rule needs `filter`, a pcap-filter(7) expression, or `bpf`, a pinned program";
            reader.report.error(spot, message);
            return None;
        }
    };
    Some(Spotted { value, spot })
}

fn names(classes: &[u32]) -> String {
    let names: Vec<String> = classes.iter().map(|class| class_name(*class)).collect();
    names.join(", ")
}

fn class(name: &str) -> Result<u32, String> {
    let known = CLASSES.map(class_name);
    let found = CLASSES.into_iter().find(|class| class_name(*class) == name);
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    found.ok_or_else(|| similar::unknown("class", name, &known))
}

fn direction(name: &str) -> Result<u32, String> {
    let known = DIRECTIONS.map(direction_name);
    let found = DIRECTIONS
        .into_iter()
        .find(|direction| direction_name(*direction) == name);
    found.ok_or_else(|| similar::unknown("direction", name, &known))
}

/// The path of a pinned program.
pub fn program(path: &str) -> Result<String, String> {
    if !path.starts_with('/') || path.contains('\0') || path.len() > MAX_TEXT as usize {
        return Err(format!(
            "`{path}` must be the whole path of a pinned program, such as /sys/fs/bpf/NAME"
        ));
    }
    Ok(path.to_string())
}
