// SPDX-License-Identifier: GPL-2.0-only

//! What the Rust names are in C.

use std::collections::HashMap;

use syn::Item;

/// What every constant begins with in C.
pub const PREFIX: &str = "SLEEPY_";

/// Rust name to C name, of every constant and structure.
pub struct Names {
    map: HashMap<String, String>,
    structs: Vec<String>,
}

impl Names {
    /// Those of a parsed file.
    pub fn of(items: &[Item]) -> Self {
        let mut names = Self {
            map: HashMap::new(),
            structs: Vec::new(),
        };
        for item in items {
            match item {
                Item::Struct(item) => {
                    let name = item.ident.to_string();
                    names.map.insert(name.clone(), struct_name(&name));
                    names.structs.push(name);
                }
                Item::Const(item) => {
                    let name = item.ident.to_string();
                    names.map.insert(name.clone(), format!("{PREFIX}{name}"));
                }
                _ => {}
            }
        }
        names
    }

    /// Every name.
    pub fn all(&self) -> &HashMap<String, String> {
        &self.map
    }

    /// The structures' Rust names.
    pub fn structs(&self) -> impl Iterator<Item = &String> {
        self.structs.iter()
    }

    /// `VmAdd` or `VmAdd::fault` or `LEVER_*` or `1 << LEVER_NICE`, as C says it.
    pub fn translate(&self, code: &str) -> String {
        let words = code.split(' ').map(|word| {
            let (head, tail) = word.split_once("::").unwrap_or((word, ""));
            let is_family = head
                .strip_suffix("_*")
                .is_some_and(|family| self.is_family(family));
            let head = match self.map.get(head) {
                Some(name) => name.clone(),
                None if is_family => format!("{PREFIX}{head}"),
                None => head.to_string(),
            };
            if tail.is_empty() {
                head
            } else {
                format!("{head}.{tail}")
            }
        });
        words.collect::<Vec<_>>().join(" ")
    }

    fn is_family(&self, family: &str) -> bool {
        self.map.keys().any(|name| {
            name.strip_prefix(family)
                .is_some_and(|rest| rest.starts_with('_'))
        })
    }
}

/// `VmAdd` is `sleepy_vm_add` in C.
fn struct_name(name: &str) -> String {
    let mut out = String::from("sleepy");
    for c in name.chars() {
        if c.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}
