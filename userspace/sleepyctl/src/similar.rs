// SPDX-License-Identifier: GPL-2.0-only

//! "Did you mean": the known name that an unknown one is most like.

/// There is no `what` of this name; there is a similar one, or these are all.
pub fn unknown(what: &str, name: &str, known: &[&str]) -> String {
    match closest(name, known) {
        Some(other) => format!("there is no {what} `{name}`; did you mean `{other}`?"),
        None => format!(
            "there is no {what} `{name}`; there are: {}",
            known.join(", ")
        ),
    }
}

fn closest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let likeness = |other: &&str| strsim::jaro_winkler(&name.to_lowercase(), other);
    known
        .iter()
        .copied()
        .map(|other| (likeness(&other), other))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, other)| other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn similar_names_are_suggested() {
        let known = ["linger", "lever", "max_sleep"];
        for (name, other) in [
            ("lingr", "linger"),
            ("max-sleep", "max_sleep"),
            ("Lever", "lever"),
        ] {
            let text = unknown("key", name, &known);
            assert_eq!(
                text,
                format!("there is no key `{name}`; did you mean `{other}`?")
            );
        }
        assert_eq!(
            unknown("key", "colour", &known),
            "there is no key `colour`; there are: linger, lever, max_sleep"
        );
    }
}
