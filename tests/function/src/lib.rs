// SPDX-License-Identifier: GPL-2.0-only

//! What goes through the stages of a function microVM: pictures and C programs.

pub mod picture;

/// The small input of the compile chain, a C program of 450 lines that checks itself. It needs no library, and
/// exits with 0 if it computes what it should.
pub const SMALL_C: &str = concat!(
    include_str!("../inputs/start.c"),
    include_str!("../inputs/expression.c"),
    include_str!("../inputs/sort.c"),
    include_str!("../inputs/small.c"),
);

/// The large one, of the same parts and more: four times as long.
pub const LARGE_C: &str = concat!(
    include_str!("../inputs/start.c"),
    include_str!("../inputs/expression.c"),
    include_str!("../inputs/sort.c"),
    include_str!("../inputs/lz.c"),
    include_str!("../inputs/sha256.c"),
    include_str!("../inputs/json.c"),
    include_str!("../inputs/huffman.c"),
    include_str!("../inputs/pattern.c"),
    include_str!("../inputs/bignum.c"),
    include_str!("../inputs/tree.c"),
    include_str!("../inputs/sudoku.c"),
    include_str!("../inputs/large.c"),
);

pub use picture::picture;
