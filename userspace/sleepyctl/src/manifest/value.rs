// SPDX-License-Identifier: GPL-2.0-only

//! Values of a manifest's keys, or what they should have been.

use std::ops::RangeInclusive;

use toml::de::DeValue;

/// What a value is, for messages.
fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a number with a point",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// It should have been something else.
pub fn wrong(value: &DeValue<'_>, wanted: &str) -> String {
    format!("this is {}, it must be {wanted}", kind(value))
}

/// A text that is not empty.
pub fn string(value: &DeValue<'_>) -> Result<String, String> {
    match value {
        DeValue::String(text) if text.trim().is_empty() => {
            Err("an empty text; leave the key out, or say what is meant".to_string())
        }
        DeValue::String(text) => Ok(text.to_string()),
        other => Err(wrong(other, "a text in quotes")),
    }
}

/// `true` or `false`.
pub fn boolean(value: &DeValue<'_>) -> Result<bool, String> {
    match value {
        DeValue::Boolean(value) => Ok(*value),
        other => Err(wrong(other, "true or false, without quotes")),
    }
}

/// A whole number.
pub fn integer<T: TryFrom<i64>>(
    value: &DeValue<'_>,
    range: RangeInclusive<i64>,
) -> Result<T, String> {
    let wanted = format!("a number from {} to {}", range.start(), range.end());
    let DeValue::Integer(number) = value else {
        return Err(wrong(value, &format!("{wanted}, without quotes")));
    };
    i64::from_str_radix(number.as_str(), number.radix())
        .ok()
        .filter(|number| range.contains(number))
        .and_then(|number| T::try_from(number).ok())
        .ok_or_else(|| format!("{number} is out of range; it must be {wanted}"))
}

/// A time with its unit.
pub fn time(value: &DeValue<'_>, parse: fn(&str) -> Result<u64, String>) -> Result<u64, String> {
    match value {
        DeValue::String(text) => parse(text),
        other => Err(wrong(
            other,
            "a text: a time with its unit, such as \"200us\", \"5ms\", \"1s\"",
        )),
    }
}
