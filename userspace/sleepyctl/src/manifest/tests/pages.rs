// SPDX-License-Identifier: GPL-2.0-only

//! The documentation and the schema say what the code does.

use std::collections::BTreeSet;

use serde_json::Value;

use super::super::entry::{COMMON, RULE, VM};
use super::super::load::TOP;
use super::super::profile::Profile;
use super::super::{SCHEMA, rules};
use super::findings;
use crate::events::Set;
use crate::lever::Lever;
use crate::rule::{class_name, direction_name};

const PAGE: &str = include_str!("../../../../../Documentation/manifest.md");

const LEVERS: &str = include_str!("../../../../../Documentation/levers.md");

fn schema() -> Value {
    serde_json::from_str(SCHEMA).unwrap()
}

fn keys(schema: &Value, path: &str) -> BTreeSet<String> {
    let properties = schema.pointer(path).and_then(Value::as_object);
    properties
        .unwrap_or_else(|| panic!("{path}"))
        .keys()
        .cloned()
        .collect()
}

fn set<'a>(names: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    names.into_iter().map(str::to_string).collect()
}

fn names(schema: &Value, path: &str) -> BTreeSet<String> {
    let names = schema.pointer(path).and_then(Value::as_array);
    let names = names.unwrap_or_else(|| panic!("{path}")).iter();
    names
        .filter_map(Value::as_str)
        .map(str::to_string)
        .collect()
}

#[test]
fn schema_has_every_key_and_no_other() {
    let schema = schema();
    let common: Vec<&str> = COMMON.into_iter().chain([RULE]).collect();
    assert_eq!(keys(&schema, "/properties"), set(TOP));
    assert_eq!(
        keys(&schema, "/definitions/common/properties"),
        set(common.clone())
    );
    assert_eq!(
        keys(&schema, "/definitions/vm/properties"),
        set(common.into_iter().chain(VM))
    );
    assert_eq!(
        keys(&schema, "/definitions/rule/properties"),
        set(rules::KEYS)
    );
    for table in [
        "",
        "/definitions/common",
        "/definitions/vm",
        "/definitions/rule",
    ] {
        let path = format!("{table}/additionalProperties");
        assert_eq!(schema.pointer(&path), Some(&Value::Bool(false)), "{path}");
    }
}

#[test]
fn schema_has_every_name() {
    let schema = schema();
    let common = "/definitions/common/properties";
    let classes = rules::CLASSES.map(class_name);
    for (path, expected) in [
        (format!("{common}/lever/enum"), set(Lever::names())),
        (format!("{common}/profile/enum"), set(Profile::names())),
        (
            format!("{common}/sleep_on/items/enum"),
            set(Set::SleepOn.all()),
        ),
        (
            format!("{common}/wake_on/items/enum"),
            set(Set::WakeOn.all()),
        ),
        (
            "/definitions/rule/properties/class/enum".to_string(),
            set(classes.iter().map(String::as_str)),
        ),
        (
            "/definitions/rule/properties/direction/enum".to_string(),
            set(rules::DIRECTIONS.map(direction_name)),
        ),
    ] {
        assert_eq!(names(&schema, &path), expected, "{path}");
    }
}

#[test]
fn schema_refers_to_what_there_is() {
    fn refs(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                found.extend(map.get("$ref").and_then(Value::as_str).map(str::to_string));
                map.values().for_each(|value| refs(value, found));
            }
            Value::Array(values) => values.iter().for_each(|value| refs(value, found)),
            _ => {}
        }
    }
    let schema = schema();
    let mut found = Vec::new();
    refs(&schema, &mut found);
    assert!(!found.is_empty());
    for path in found {
        assert!(
            schema.pointer(path.trim_start_matches('#')).is_some(),
            "{path}"
        );
    }
}

#[test]
fn examples_have_nothing_wrong() {
    let examples: Vec<&str> = PAGE
        .split("```toml\n")
        .skip(1)
        .filter_map(|part| part.split("```").next())
        .filter(|example| example.contains("schema_version"))
        .collect();
    assert!(examples.len() >= 3);
    for example in examples {
        assert_eq!(findings(example), [""; 0], "{example}");
    }
}

#[test]
fn page_of_levers_names_each() {
    for name in Lever::names() {
        assert!(LEVERS.contains(&format!("| `{name}` |")), "{name}");
    }
}

#[test]
fn page_names_every_key_and_event() {
    let classes = rules::CLASSES.map(class_name);
    let names = TOP.into_iter().chain(COMMON).chain(VM).chain(rules::KEYS);
    let names = names
        .chain(Profile::names())
        .chain(Lever::names())
        .chain(Set::SleepOn.all())
        .chain(Set::WakeOn.all());
    for name in names.chain(classes.iter().map(String::as_str)) {
        assert!(PAGE.contains(&format!("`{name}`")), "{name}");
    }
}
