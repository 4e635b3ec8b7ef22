// SPDX-License-Identifier: GPL-2.0-only

//! Which levers work for a VM on its host, and which of them `auto` is.

use std::fmt;

use serde::Serialize;

use super::facts::Facts;
use super::host::Host;
use crate::cgroup::own::Missing;
use crate::error::Error;
use crate::lever::Lever;

/// Whether a lever does anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Works {
    /// It does.
    Yes,
    /// Not everywhere, or not for sure.
    Partly,
    /// It can be set, and does nothing.
    NoEffect,
    /// It cannot be set.
    Impossible,
}

impl Works {
    /// In words.
    pub fn text(self) -> &'static str {
        match self {
            Self::Yes => "works",
            Self::Partly => "in part",
            Self::NoEffect => "no effect",
            Self::Impossible => "impossible",
        }
    }
}

/// What is to be said of a lever.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verdict {
    /// Its name.
    pub lever: &'static str,
    /// Whether it does anything.
    pub works: Works,
    /// Why.
    pub why: String,
}

/// The lever that `auto` is.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// Which.
    pub lever: Lever,
    /// Why.
    pub why: String,
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lever auto: {}: {}", self.lever.name(), self.why)
    }
}

/// All levers.
pub fn verdicts(host: &Host, facts: &Facts) -> Vec<Verdict> {
    let verdict = |lever: Lever| {
        let (works, why) = judge(lever, host, facts);
        Verdict {
            lever: lever.name(),
            works,
            why,
        }
    };
    Lever::REAL.map(verdict).to_vec()
}

/// All levers, for VMs of any layout.
pub fn of_host(host: &Host) -> Vec<Verdict> {
    let threads = if host.autogroup {
        "between VMs of one cgroup; in the root cgroup, of one session (autogroup is on)"
    } else {
        "between VMs of one cgroup"
    };
    let verdict = |lever: Lever| {
        let works = |why: &str| (Works::Yes, why.to_string());
        let (works, why) = match (lever, &host.no_cgroup) {
            (Lever::Nice | Lever::Idle, _) => sched_ext(host, false, works(threads)),
            (Lever::Cgroup, Some(why)) => (Works::Impossible, why.clone()),
            (Lever::Cgroup, None) => {
                sched_ext(host, false, works("between VMs that have a cgroup each"))
            }
            (Lever::Park, _) => works("whatever the layout, where KVM itself halts vCPUs"),
            _ => works("measures, changes nothing"),
        };
        Verdict {
            lever: lever.name(),
            works,
            why,
        }
    };
    Lever::REAL.map(verdict).to_vec()
}

fn judge(lever: Lever, host: &Host, facts: &Facts) -> (Works, String) {
    if lever == Lever::Observe {
        return (Works::Yes, "measures, changes nothing".to_string());
    }
    if facts.is_untouchable() {
        let why = "on real-time and deadline threads: they are never touched";
        return (Works::NoEffect, why.to_string());
    }
    match lever {
        Lever::Park => park(facts),
        Lever::Cgroup => sched_ext(host, facts.is_ext(), cgroup(facts)),
        _ => sched_ext(host, facts.is_ext(), thread_by_thread(facts)),
    }
}

/// `nice` and `idle`: between threads of one scheduling group, and those groups inside of it.
fn thread_by_thread(facts: &Facts) -> (Works, String) {
    if let Err(why @ (Missing::Unmounted(_) | Missing::Unseen)) = &facts.own {
        let why = format!("with VMs beside it, if there are any: {why}");
        return (Works::Partly, why);
    }
    let Facts { place, beside, .. } = facts;
    let (it, elsewhere) = (facts.subject(), facts.elsewhere);
    let (whose, remedy) = if facts.by_session {
        let remedy = "; autogroup makes each session a group (`sysctl kernel.sched_autogroup_enabled=0` ends that)";
        ("session".to_string(), remedy)
    } else {
        (format!("cgroup {place}"), "")
    };
    match (beside.count, elsewhere) {
        (0, 0) => (
            Works::NoEffect,
            format!("between VMs: {it} is the only one"),
        ),
        (0, _) => (
            Works::NoEffect,
            format!("between VMs: {it} is alone in its {whose}{remedy}"),
        ),
        (_, 0) => (Works::Yes, format!("with {beside}, in its {whose}")),
        _ => (
            Works::Partly,
            format!("with {beside}, in its {whose}; not with {elsewhere} more elsewhere{remedy}"),
        ),
    }
}

fn cgroup(facts: &Facts) -> (Works, String) {
    let own = match &facts.own {
        Ok(own) => own,
        Err(why) => return (Works::Impossible, why.to_string()),
    };
    let (name, above) = (&own.group.name, &own.above);
    let others = facts.beside.count + facts.elsewhere;
    let helpers = if own.has_helpers {
        "; its VMM's other threads are lowered with it"
    } else {
        ""
    };
    match own.rivals {
        0 if others == 0 => (
            Works::Yes,
            format!("{name} counts in {above}, where no other VM is yet{helpers}"),
        ),
        0 => (
            Works::NoEffect,
            format!("between VMs: {name} counts in {above}, where no other VM is"),
        ),
        rivals if rivals == others => (Works::Yes, format!("{name} counts in {above}{helpers}")),
        rivals => (
            Works::Partly,
            format!("{name} counts in {above}, where {rivals} of {others} other VMs are{helpers}"),
        ),
    }
}

fn park(facts: &Facts) -> (Works, String) {
    match facts.halts_inside {
        Some(true) => (Works::Yes, "whatever the layout; reaches zero".to_string()),
        // Its VMM halts vCPUs, and interrupts them by a signal.
        Some(false) => (
            Works::Partly,
            "its VMM has the interrupt controller: no interrupt ends a park, only a signal does"
                .to_string(),
        ),
        None => (
            Works::Yes,
            "whatever the layout; nothing says whether KVM itself halts vCPUs, as it does for most VMMs"
                .to_string(),
        ),
    }
}

/// With a sched_ext scheduler in charge of all threads, or of these, weights are but numbers that it is told.
fn sched_ext(host: &Host, of_these: bool, (works, why): (Works, String)) -> (Works, String) {
    let in_charge = host
        .sched_ext
        .as_ref()
        .filter(|_| of_these || host.sched_ext_all);
    match (in_charge, works) {
        (Some(ops), Works::Yes | Works::Partly) => (
            Works::Partly,
            format!("{why}; as far as the sched_ext scheduler {ops} minds it"),
        ),
        _ => (works, why),
    }
}

/// The lever that reaches most: `park` wherever KVM halts vCPUs itself, and never one for threads that are not to be
/// touched.
pub fn choose(host: &Host, facts: &Facts) -> Choice {
    let choice = |lever, why: &str| Choice {
        lever,
        why: why.to_string(),
    };
    if !facts.real_time().is_empty() {
        return choice(
            Lever::Observe,
            "it has real-time or deadline threads, which are never touched",
        );
    }
    match facts.halts_inside {
        Some(true) => {
            return choice(
                Lever::Park,
                "it works whatever the layout, and reaches zero",
            );
        }
        None => {
            return choice(
                Lever::Park,
                "it works whatever the layout, if KVM itself halts vCPUs, as for most VMMs",
            );
        }
        Some(false) => {}
    }
    let outside = "its VMM has the interrupt controller, so that no interrupt would end a park";
    let (works, why) = judge(Lever::Cgroup, host, facts);
    match works {
        Works::Yes | Works::Partly => choice(Lever::Cgroup, &format!("{outside}; {why}")),
        _ => {
            let (works, why) = judge(Lever::Nice, host, facts);
            let text = if works == Works::NoEffect {
                "no effect "
            } else {
                ""
            };
            choice(Lever::Nice, &format!("{outside}; {text}{why}"))
        }
    }
}

/// Why a lever does nothing for a VM, or cannot be had, and what does.
#[derive(Clone, Debug, PartialEq)]
pub struct Futile {
    /// For this VM.
    pub text: String,
    /// What of it is true of others like it, too.
    pub common: String,
}

impl From<Futile> for Error {
    fn from(futile: Futile) -> Self {
        Self::failed(futile.text)
    }
}

/// Whether a lever does nothing for a VM, where there are others to give way to. `auto` is how it is asked for.
pub fn futile(lever: Lever, host: &Host, facts: &Facts, auto: &str) -> Option<Futile> {
    let may_come = facts.is_only_one() && !facts.is_untouchable();
    if may_come || judge(lever, host, facts).0 != Works::NoEffect {
        return None;
    }
    let better = choose(host, facts).lever;
    let remedy = match (better, judge(better, host, facts).0) {
        (Lever::Observe, _) | (_, Works::NoEffect) => {
            "; `sleepyctl probe` says what works".to_string()
        }
        _ => format!("; `{auto}` takes {}", better.name()),
    };
    let text = |facts: &Facts| {
        let why = judge(lever, host, facts).1;
        format!("lever {}: no effect {why}{remedy}", lever.name())
    };
    Some(Futile {
        text: text(facts),
        common: text(&facts.common()),
    })
}

#[cfg(test)]
mod tests;
