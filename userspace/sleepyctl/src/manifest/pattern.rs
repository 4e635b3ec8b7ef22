// SPDX-License-Identifier: GPL-2.0-only

//! Patterns in selectors: a star stands for any text.

/// Whether a pattern is the whole text, and what its first star stands for, which is nothing without a star.
pub fn glob(pattern: &str, text: &str) -> Option<String> {
    let Some((before, after)) = pattern.split_once('*') else {
        return (pattern == text).then(String::new);
    };
    let rest = text.strip_prefix(before)?;
    let (between, last) = after.rsplit_once('*').unwrap_or(("", after));
    let mut left = rest.strip_suffix(last)?;
    if last.len() == after.len() {
        return Some(left.to_string());
    }
    // Each part as early as can be: to try every place for each takes for ever with many stars.
    let mut star = None;
    for part in between.split('*') {
        let (before, after) = left.split_once(part)?;
        star.get_or_insert(before);
        left = after;
    }
    star.map(str::to_string)
}

/// Whether the words of a pattern are consecutive arguments of a command line, joined by blanks.
///
/// A star stands for a part of one word, so that it does not run on into the next argument.
pub fn arguments(pattern: &str, args: &[String]) -> Option<String> {
    let pattern: Vec<&str> = pattern.split_whitespace().collect();
    let words: Vec<(bool, &str)> = args
        .iter()
        .flat_map(|arg| {
            let word = |(i, word)| (i == 0, word);
            arg.split(' ').enumerate().map(word)
        })
        .collect();
    let begins = |at: usize| words.get(at).is_none_or(|(begins, _)| *begins);
    (0..words.len())
        .filter(|at| begins(*at) && begins(at + pattern.len()))
        .find_map(|at| {
            let words = words.get(at..at + pattern.len())?;
            all(&pattern, words.iter().map(|(_, word)| *word))
        })
}

/// Whether the components of a pattern are consecutive ones of a path, or its first ones with `from_root`.
pub fn components(pattern: &str, path: &str, from_root: bool) -> Option<String> {
    let [pattern, path] = [pattern, path].map(|text| {
        let parts = text.split('/').filter(|part| !part.is_empty());
        parts.collect::<Vec<&str>>()
    });
    let mut starts = if from_root { 0..1 } else { 0..path.len() };
    starts.find_map(|at| {
        let parts = path.get(at..at + pattern.len())?;
        all(&pattern, parts.iter().copied())
    })
}

fn all<'a>(pattern: &[&str], words: impl Iterator<Item = &'a str>) -> Option<String> {
    let mut star = None;
    for (pattern, word) in pattern.iter().zip(words) {
        let matched = glob(pattern, word)?;
        if pattern.contains('*') && star.is_none() {
            star = Some(matched);
        }
    }
    Some(star.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_any_text() {
        for (pattern, text, star) in [
            ("a", "a", Some("")),
            ("a", "ab", None),
            ("fn-*", "fn-7", Some("7")),
            ("fn-*", "fn-", Some("")),
            ("*-x-*", "a-x-b", Some("a")),
            ("*", "any", Some("any")),
            ("a*b", "ab", Some("")),
            ("a*b", "a", None),
            ("ä*", "äö", Some("ö")),
            ("**b", "ab", Some("")),
            ("a*ab*b", "aabab", Some("")),
        ] {
            assert_eq!(glob(pattern, text).as_deref(), star, "{pattern} {text}");
        }
    }

    #[test]
    fn many_stars_take_no_longer() {
        let (pattern, text) = ("a*".repeat(100) + "b", "a".repeat(10_000));
        assert_eq!(glob(&pattern, &text), None);
    }

    #[test]
    fn words_are_consecutive_arguments() {
        let args = |args: &[&str]| args.iter().map(|arg| arg.to_string()).collect::<Vec<_>>();
        let firecracker = args(&["/usr/bin/firecracker", "--id", "fn-7", "--api-sock", "/s"]);
        let qemu = args(&[
            "qemu",
            "-name",
            "my web,debug-threads=on",
            "-append",
            "x --id y",
        ]);
        for (pattern, args, star) in [
            ("--id fn-*", &firecracker, Some("7")),
            ("--id *", &firecracker, Some("fn-7")),
            ("fn-*", &firecracker, Some("7")),
            ("--id fn", &firecracker, None),
            ("--id --api-sock", &firecracker, None),
            ("*/firecracker", &firecracker, Some("/usr/bin")),
            ("-name my web,*", &qemu, Some("debug-threads=on")),
            ("-name my", &qemu, None),
            ("--id y", &qemu, None),
            ("-append x --id y -x", &qemu, None),
        ] {
            assert_eq!(arguments(pattern, args).as_deref(), star, "{pattern}");
        }
    }

    #[test]
    fn components_are_whole() {
        let path = "/machine.slice/vm-7.scope/emulator";
        for (pattern, from_root, star) in [
            ("vm-*.scope", false, Some("7")),
            ("emulator", false, Some("")),
            ("scope", false, None),
            ("/machine.slice", true, Some("")),
            ("/machine.slice/vm-*.scope", true, Some("7")),
            ("/vm-7.scope", true, None),
            ("/machine.slice/vm-7.scope/emulator/deeper", true, None),
        ] {
            let found = components(pattern, path, from_root);
            assert_eq!(found.as_deref(), star, "{pattern}");
        }
    }
}
