// SPDX-License-Identifier: GPL-2.0-only

//! Times, as people write and read them.

use std::time::Duration;

use sleepy_uapi::{MAX_TIME, MIN_STIR, MIN_TIMEOUT};

/// `200us`, `5ms`, `1s`, `1m` in nanoseconds, at most an hour.
pub fn parse(text: &str) -> Result<u64, String> {
    let duration = humantime::parse_duration(text)
        .map_err(|error| format!("{error}; write 200us, 5ms, 1s or 1m"))?;
    u64::try_from(duration.as_nanos())
        .ok()
        .filter(|ns| *ns <= MAX_TIME)
        .ok_or_else(|| "at most 1h".to_string())
}

/// The same, at least a millisecond.
pub fn parse_timeout(text: &str) -> Result<u64, String> {
    parse_from(text, MIN_TIMEOUT)
}

/// The same, for `stir_run`.
pub fn parse_stir(text: &str) -> Result<u64, String> {
    parse_from(text, MIN_STIR)
}

fn parse_from(text: &str, least: u64) -> Result<u64, String> {
    let ns = parse(text)?;
    if ns < least {
        return Err(format!("at least {}", exact(least)));
    }
    Ok(ns)
}

/// A time that somebody has set: exact, as [`parse`] reads it.
pub fn exact(ns: u64) -> String {
    humantime::format_duration(Duration::from_nanos(ns))
        .to_string()
        .replace(' ', "")
}

/// A time that was measured: three digits are enough.
pub fn short(ns: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1_000, "us"), (1_000_000, "ms"), (1_000_000_000, "s")];
    if ns == 0 {
        return "0".to_string();
    }
    if ns < 1000 {
        return format!("{ns}ns");
    }
    for (unit, name) in UNITS {
        let value = ns as f64 / unit as f64;
        let limit = if name == "s" { 59.95 } else { 999.5 };
        if value < limit {
            let digits = if value < 9.995 {
                2
            } else if value < 99.95 {
                1
            } else {
                0
            };
            return format!("{value:.digits$}{name}");
        }
    }
    let seconds = (ns + 500_000_000) / 1_000_000_000;
    match seconds / 60 {
        0..60 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        60..1440 => format!("{}h {:02}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d {:02}h", seconds / 86400, seconds / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        for (text, ns) in [
            ("0s", 0),
            ("250ns", 250),
            ("200us", 200_000),
            ("5ms", 5_000_000),
            ("1s", 1_000_000_000),
            ("1m", 60_000_000_000),
            ("1h", MAX_TIME),
        ] {
            assert_eq!(parse(text), Ok(ns), "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "5",
            "ms",
            "-1s",
            "1 fortnight",
            "3601s",
            "2h",
            "99999999999999999999s",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(
            parse("5").unwrap_err().contains("200us"),
            "the remedy is named"
        );
    }

    #[test]
    fn timeouts_have_a_floor() {
        assert!(parse_timeout("999us").is_err());
        assert_eq!(parse_timeout("1ms"), Ok(MIN_TIMEOUT));
        assert_eq!(parse_stir("50us"), Ok(MIN_STIR));
        assert_eq!(parse_stir("49us"), Err("at least 50us".to_string()));
    }

    #[test]
    fn exact_times_can_be_read_back() {
        for ns in [
            0,
            1,
            200_000,
            1_500_000,
            1_000_000_000,
            61_000_000_000,
            MAX_TIME,
        ] {
            assert_eq!(parse(&exact(ns)), Ok(ns), "{}", exact(ns));
        }
        assert_eq!(exact(200_000), "200us");
        assert_eq!(exact(60_000_000_000), "1m");
    }

    #[test]
    fn measured_times_have_three_digits() {
        for (ns, text) in [
            (0, "0"),
            (999, "999ns"),
            (1_279, "1.28us"),
            (12_800, "12.8us"),
            (999_499, "999us"),
            (999_500, "1.00ms"),
            (5_000_000, "5.00ms"),
            (59_900_000_000, "59.9s"),
            (59_960_000_000, "1m 00s"),
            (61_000_000_000, "1m 01s"),
            (3_600_000_000_000, "1h 00m"),
            (90_000_000_000_000, "1d 01h"),
        ] {
            assert_eq!(short(ns), text);
        }
    }
}
