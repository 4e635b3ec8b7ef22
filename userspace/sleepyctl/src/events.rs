// SPDX-License-Identifier: GPL-2.0-only

//! The names of events: what lets a VM sleep, what wakes it, and what has.

use sleepy_uapi as uapi;

/// Causes of falling asleep, by index.
pub const SLEEPS: [&str; uapi::SLEEP_CAUSES] = [
    "response", "close", "timeout", "rest", "idle", "spin", "quiet", "hint", "rule", "call",
];

/// Causes of a wake-up, by index.
pub const WAKES: [&str; uapi::WAKE_CAUSES] = [
    "request",
    "stir",
    "admin",
    "packet",
    "rule",
    "interrupt",
    "timer",
    "ipi",
    "doorbell",
    "hint",
    "answer",
];

/// A set of events that a policy has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Set {
    /// `Policy::sleep_on`
    SleepOn,
    /// `Policy::wake_on`
    WakeOn,
}

impl Set {
    /// The key in a manifest.
    pub fn key(self) -> &'static str {
        match self {
            Self::SleepOn => "sleep_on",
            Self::WakeOn => "wake_on",
        }
    }

    fn causes(self) -> (&'static [&'static str], u32) {
        match self {
            Self::SleepOn => (&SLEEPS, uapi::SLEEP_EVENTS),
            Self::WakeOn => (&WAKES, uapi::WAKE_EVENTS),
        }
    }

    /// The names of the events in a bit set.
    pub fn names(self, bits: u32) -> Vec<&'static str> {
        let (causes, _) = self.causes();
        let has = |(bit, _): &(usize, &&str)| bits >> bit & 1 == 1;
        causes
            .iter()
            .enumerate()
            .filter(has)
            .map(|(_, name)| *name)
            .collect()
    }

    /// The names of all events.
    pub fn all(self) -> Vec<&'static str> {
        self.names(self.causes().1)
    }

    /// The bit of an event.
    pub fn bit(self, name: &str) -> Result<u32, String> {
        let (causes, events) = self.causes();
        let bit = causes.iter().position(|cause| *cause == name);
        if let Some(bit) = bit.filter(|bit| events >> bit & 1 == 1) {
            return Ok(1 << bit);
        }
        if self == Self::WakeOn && name == "stir" {
            return Err("`stir` is always on, see max_sleep; leave it out".to_string());
        }
        Err(crate::similar::unknown("event", name, &self.all()))
    }

    /// The bits of a list with commas; `none` is the empty one.
    pub fn parse(self, list: &str) -> Result<u32, String> {
        match list.trim() {
            "" | "none" => Ok(0),
            list => list
                .split(',')
                .try_fold(0, |bits, name| Ok(bits | self.bit(name.trim())?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read() {
        assert_eq!(
            Set::SleepOn.parse("response, idle"),
            Ok(1 << uapi::SLEEP_RESPONSE | 1 << uapi::SLEEP_IDLE)
        );
        assert_eq!(Set::WakeOn.parse("none"), Ok(0));
        assert_eq!(Set::WakeOn.parse("doorbell"), Ok(1 << uapi::WAKE_DOORBELL));
    }

    #[test]
    fn all_events_have_names() {
        for set in [Set::SleepOn, Set::WakeOn] {
            assert_eq!(set.parse(&set.all().join(",")), Ok(set.causes().1));
        }
    }

    #[test]
    fn causes_that_are_no_events_are_refused() {
        for (set, name, why) in [
            (Set::SleepOn, "close", "no event `close`"),
            (Set::WakeOn, "stir", "always on"),
            (Set::WakeOn, "admin", "no event `admin`"),
            (Set::WakeOn, "requests", "did you mean `request`?"),
        ] {
            let error = set.parse(name).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
