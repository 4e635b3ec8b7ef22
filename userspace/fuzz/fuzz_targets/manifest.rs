// SPDX-License-Identifier: GPL-2.0-only

//! Manifests: by bytes, and by lines and words that stand in them.
#![no_main]

use std::sync::LazyLock;

use arbitrary::{Arbitrary, Unstructured};
use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};

static WORDS: LazyLock<Vec<String>> = LazyLock::new(sleepyctl::fuzz::vocabulary);

fuzz_target!(|text: &str| sleepyctl::fuzz::manifest(text));

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let edited = std::str::from_utf8(&data[..size])
        .ok()
        .and_then(|text| edit(text, seed));
    match edited.filter(|text| text.len() <= max_size) {
        Some(text) => {
            data[..text.len()].copy_from_slice(text.as_bytes());
            text.len()
        }
        None => fuzzer_mutate(data, size, max_size),
    }
});

/// What is done to a text, at a line of it.
#[derive(Arbitrary)]
enum Edit {
    Bytes,
    Remove,
    Repeat,
    Table(Table),
    Key(u8, Value),
    Value(Value),
}

#[derive(Arbitrary)]
enum Table {
    Vm,
    Rule,
    Defaults,
    DefaultsRule,
    Template,
}

#[derive(Arbitrary)]
enum Value {
    Word(u8),
    Words(Vec<u8>),
    Number(i16),
    Numbers(Vec<u16>),
    Time(u16, Unit),
    Budget(u16, Unit, u16, Unit),
    Boolean(bool),
    Path(u8),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Unit {
    Ns,
    Us,
    Ms,
    S,
    M,
    H,
}

fn edit(text: &str, seed: u32) -> Option<String> {
    let mut state = u64::from(seed) | 1 << 32;
    let random = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1);
        (state >> 56) as u8
    });
    let random: Vec<u8> = random.take(64).collect();
    let mut from = Unstructured::new(&random);
    let mut lines: Vec<String> = text.lines().map(str::to_string).collect();
    let at = from.choose_index(lines.len() + 1).ok()?;
    match from.arbitrary().ok()? {
        Edit::Bytes => return None,
        Edit::Remove if at < lines.len() => drop(lines.remove(at)),
        Edit::Repeat if at < lines.len() => {
            let to = from.choose_index(lines.len()).ok()?;
            lines.insert(to, lines[at].clone());
        }
        Edit::Table(table) => lines.insert(at, header(&table).to_string()),
        Edit::Key(key, new) => lines.insert(at, format!("{} = {}", word(key), value(&new))),
        Edit::Value(new) => {
            let (key, _) = lines.get(at)?.split_once('=')?;
            lines[at] = format!("{key}= {}", value(&new));
        }
        _ => return None,
    }
    Some(lines.join("\n") + "\n")
}

fn header(table: &Table) -> &'static str {
    match table {
        Table::Vm => "[[vm]]\nname = \"b\"\npid = 2",
        Table::Rule => "[[vm.rule]]\nclass = \"wake\"\nfilter = \"icmp\"",
        Table::Defaults => "[defaults]",
        Table::DefaultsRule => "[[defaults.rule]]\nclass = \"wake\"\nfilter = \"udp\"",
        Table::Template => "[template.t]",
    }
}

fn word(number: u8) -> &'static str {
    &WORDS[usize::from(number) % WORDS.len()]
}

fn value(value: &Value) -> String {
    let time = |number: &u16, unit: &Unit| format!("{number}{unit:?}").to_lowercase();
    match value {
        Value::Word(number) => format!("{:?}", word(*number)),
        Value::Words(numbers) => {
            let words: Vec<&str> = numbers.iter().map(|number| word(*number)).collect();
            format!("{words:?}")
        }
        Value::Number(number) => number.to_string(),
        Value::Numbers(numbers) => format!("{numbers:?}"),
        Value::Time(number, unit) => format!("{:?}", time(number, unit)),
        Value::Budget(number, unit, other, of) => {
            format!("\"{}/{}\"", time(number, unit), time(other, of))
        }
        Value::Boolean(value) => value.to_string(),
        Value::Path(number) => format!("\"/sys/{}*\"", word(*number)),
    }
}
