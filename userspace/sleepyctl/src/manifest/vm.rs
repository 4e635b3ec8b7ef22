// SPDX-License-Identifier: GPL-2.0-only

//! A VM of a manifest, with all that its template, the defaults and its profile say.

use sleepy_uapi::{NAME_SIZE, Policy};

use super::entry::{Common, Entry, RULE};
use super::report::{Report, Spot, Spotted};
use super::selector::Selector;
use crate::boost::Budget;
use crate::filter::check_text;
use crate::policy;
use crate::rule::{self, Rule};

/// Keys by which it is known what a packet or an event does.
const MEANING: [&str; 5] = ["profile", "ports", "sleep_on", "wake_on", RULE];

/// A VM, or with `each` one for every process that matches.
#[derive(Clone, Debug)]
pub struct Vm {
    /// Where it begins.
    pub spot: Spot,
    /// What it shall be called; `{}` is what the selector's star stands for.
    pub name: Spotted<String>,
    /// How its process is found.
    pub selector: Spotted<Selector>,
    /// Whether it is one VM for each process.
    pub each: bool,
    /// The VMM's descriptor of the virtual machine.
    pub vm_fd: Option<i32>,
    /// Links besides its taps.
    pub links: Vec<Spotted<String>>,
    /// Whether its taps are links.
    pub auto_link: bool,
    /// How it sleeps and wakes.
    pub policy: Policy,
    /// What limits a boost, whether there is one or not.
    pub boost_budget: Option<Budget>,
    /// Its own rules, and its profile's.
    pub own_rules: Vec<Spotted<Rule>>,
    /// Whether the rules for TCP are there.
    pub tcp_defaults: bool,
    /// Whether the rule for noise is there.
    pub noise: bool,
    /// Some of its rules or events were wrong, and are missing here.
    pub faulty: bool,
}

impl Vm {
    /// All of its rules.
    pub fn rules(&self) -> Vec<Rule> {
        let own = self.own_rules.iter().map(|rule| rule.value.clone());
        rule::complete(own.collect(), self.tcp_defaults, self.noise)
    }

    /// Puts it together; none if what it cannot do without is missing.
    pub fn new(entry: Entry, others: &[&Common], report: &mut Report) -> Option<Self> {
        let Entry {
            spot,
            name,
            each,
            selectors,
            vm_fd,
            links,
            common,
            ..
        } = entry;
        let common = others.iter().fold(common, |common, other| common.or(other));
        let name = named(name, each, spot, report);
        let selector = selected(selectors, each, spot, report);
        if let (true, Some(link)) = (each, links.first()) {
            let message =
                "with `each`, every VM would claim these links; leave them out: its taps are found";
            report.error(link.spot, message);
        }

        let profile = common.profile.as_ref().map(|profile| profile.value);
        let settings = profile.map_or(common.settings.clone(), |profile| {
            common.settings.or(&profile.settings())
        });
        let mut own_rules = common.rules.clone().unwrap_or_default();
        let errors = report.errors();
        check_ports(&common, spot, report);
        if let (Some(profile), Some(ports)) = (profile, &common.ports) {
            let spotted = |value| Spotted {
                value,
                spot: ports.spot,
            };
            let rules = profile.rules(&ports.value);
            if rules.iter().any(|rule| check_text(&rule.text).is_err()) {
                let message = format!(
                    "`ports`: {} ports are too many for a profile; write [[vm.rule]] with `portrange` in their place",
                    ports.value.len()
                );
                report.error(ports.spot, message);
            }
            own_rules.extend(rules.into_iter().map(spotted));
        }
        Some(Self {
            spot,
            name: name?,
            selector: selector?,
            each,
            vm_fd,
            links,
            auto_link: common.auto_link.unwrap_or(true),
            policy: settings.apply(policy::default()),
            boost_budget: settings.boost_budget,
            own_rules,
            tcp_defaults: common.tcp_defaults.unwrap_or(true),
            noise: common.noise.unwrap_or(true),
            faulty: MEANING.iter().any(|key| common.wrong.contains(*key))
                || report.errors() > errors,
        })
    }
}

fn named(
    name: Option<Spotted<String>>,
    each: bool,
    spot: Spot,
    report: &mut Report,
) -> Option<Spotted<String>> {
    let Some(name) = name else {
        report.error(spot, "a [[vm]] needs a `name`");
        return None;
    };
    match (each, name.value.contains("{}")) {
        (true, false) => {
            let message =
                "with `each`, the name must have {}, which is what the selector's * stands for";
            report.error(name.spot, message);
        }
        (false, true) => {
            let message = "{} in a name is for `each = true`; add that, or leave the {} out";
            report.error(name.spot, message);
        }
        _ => {}
    }
    if let Err(why) = check_name(&name.value.replace("{}", "x")) {
        report.error(name.spot, format!("`name`: {why}"));
    }
    Some(name)
}

/// Whether a VM can be called so.
pub fn check_name(text: &str) -> Result<(), String> {
    let is_good = |byte: u8| byte.is_ascii_graphic() && byte != b'/';
    if (1..NAME_SIZE).contains(&text.len()) && text.bytes().all(is_good) {
        return Ok(());
    }
    Err(format!(
        "a name has 1 to {} printable ASCII characters, no blanks and no /",
        NAME_SIZE - 1
    ))
}

fn selected(
    selectors: Vec<Spotted<Selector>>,
    each: bool,
    spot: Spot,
    report: &mut Report,
) -> Option<Spotted<Selector>> {
    let mut selectors = selectors.into_iter();
    let Some(selector) = selectors.next() else {
        let keys = Selector::KEYS.join(", ");
        report.error(spot, format!("which process is it? Give one of {keys}"));
        return None;
    };
    for other in selectors {
        if other.value != Selector::Unknown {
            let message = format!(
                "a [[vm]] has one selector; leave out {} or {}",
                selector.value, other.value
            );
            report.error(selector.spot.max(other.spot), message);
        }
    }
    if each
        && selector.value != Selector::Unknown
        && selector.value.pattern().matches('*').count() != 1
    {
        let message =
            "with `each`, the selector must be cmdline, unit, cgroup or link, with one * in it";
        report.error(selector.spot, message);
    }
    Some(selector)
}

/// Ports belong to a profile, and some profiles are nothing without ports or rules.
fn check_ports(common: &Common, spot: Spot, report: &mut Report) {
    let profile = common.profile.as_ref();
    match (&common.ports, profile) {
        (Some(ports), None) if !common.wrong.contains("profile") => report.error(
            ports.spot,
            "`ports` makes rules for the profiles http, grpc and udp; name one with `profile`",
        ),
        (Some(ports), Some(profile)) if !profile.value.takes_ports() => report.error(
            ports.spot,
            format!(
                "the profile {} makes no rules of `ports`; leave them out, or write [[vm.rule]]",
                profile.value.name()
            ),
        ),
        (Some(ports), _) if ports.value.is_empty() => {
            report.error(ports.spot, "`ports` is empty; name one, such as [8080]");
        }
        (None, Some(profile))
            if profile.value.takes_ports()
                && common.rules.is_none()
                && !common.wrong.contains("ports") =>
        {
            let place = common.keys.get("profile").copied().unwrap_or(spot);
            report.error(
                place,
                format!(
                    "the profile {} needs `ports`, such as ports = [8080], or rules",
                    profile.value.name()
                ),
            );
        }
        _ => {}
    }
}
