// SPDX-License-Identifier: GPL-2.0-only

//! Manifests: files that say which VMs there are, what they wait for and how they sleep.

pub mod entry;
pub mod load;
pub mod pattern;
pub mod profile;
pub mod report;
pub mod rules;
pub mod selector;
pub mod value;
pub mod vm;

mod claims;
mod lint;

#[cfg(test)]
mod tests;

/// The JSON Schema, for editors.
pub const SCHEMA: &str = include_str!("../../../../Documentation/manifest.schema.json");
