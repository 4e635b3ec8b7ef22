// SPDX-License-Identifier: GPL-2.0-only

use super::*;

#[test]
fn options_replace_only_what_they_name() {
    assert_eq!(Settings::default().apply(default()), default());
    let args = Settings {
        linger: Some(0),
        lever: Some(Lever::Observe),
        ..Settings::default()
    };
    assert_eq!(
        args.apply(default()),
        Policy {
            linger: 0,
            lever: sleepy_uapi::LEVER_OBSERVE,
            ..default()
        }
    );
}

#[test]
fn boost_comes_and_goes() {
    let args = Settings {
        boost_nice: Some(Boost::To(-5)),
        ..Settings::default()
    };
    let boosted = args.apply(default());
    assert_eq!(boost(&boosted), Some(-5));
    assert_eq!(
        boost(&Settings::default().apply(boosted)),
        Some(-5),
        "kept by a later change"
    );
    let off = Settings {
        boost_nice: Some(Boost::Off),
        ..Settings::default()
    };
    assert_eq!(off.apply(boosted), default());
}

#[test]
fn first_one_to_say_something_counts() {
    let first = Settings {
        linger: Some(0),
        ..Settings::default()
    };
    let second = Settings {
        linger: Some(1),
        quiet: Some(2_000_000),
        boost_nice: Some(Boost::Off),
        ..Settings::default()
    };
    let both = first.or(&second);
    assert_eq!(
        (both.linger, both.quiet, both.boost_nice),
        (Some(0), Some(2_000_000), Some(Boost::Off))
    );
}

#[test]
fn events_have_their_times() {
    let policy = Policy {
        sleep_on: sleepy_uapi::SLEEP_EVENTS,
        wake_on: 1 << WAKE_REQUEST | 1 << WAKE_TIMER,
        ..default()
    };
    assert_eq!(
        events_text(&policy, Set::SleepOn),
        "response, idle, spin (20ms), quiet (50ms), hint"
    );
    assert_eq!(
        events_text(&policy, Set::WakeOn),
        "request, timer (slack 0s)"
    );
    assert_eq!(events_text(&Policy::default(), Set::WakeOn), "nothing");
}

#[test]
fn auto_is_a_mark_of_its_own() {
    let lever = |lever| Settings {
        lever: Some(lever),
        ..Settings::default()
    };
    let auto = lever(Lever::Auto).apply(default());
    assert!(is_auto(&auto));
    assert_eq!(
        Settings::default().apply(auto),
        auto,
        "kept by a later change"
    );
    assert_eq!(lever(Lever::Nice).apply(auto), default());
}

#[test]
fn budget_goes_with_the_boost() {
    let budget = boost::parse_budget("20ms/100ms").unwrap();
    let limited = Settings {
        boost_budget: Some(budget),
        ..Settings::default()
    };
    let policy = limited.apply(default());
    assert_eq!(policy, default());
    assert!(limited.check(&policy).is_err(), "it limits nothing");
    let both = Settings {
        boost_nice: Some(Boost::To(-5)),
        ..limited
    };
    let policy = both.apply(default());
    assert_eq!(boost::budget(&policy), Some(budget));
    assert_eq!(both.check(&policy), Ok(()));
    let off = Settings {
        boost_nice: Some(Boost::Off),
        ..Settings::default()
    };
    assert_eq!(off.apply(policy), default());
}

#[test]
fn lever_idle_has_no_boost() {
    let settings = Settings {
        lever: Some(Lever::Idle),
        boost_nice: Some(Boost::To(-5)),
        ..Settings::default()
    };
    let why = settings.check(&settings.apply(default())).unwrap_err();
    assert!(why.starts_with("the lever idle has no boost;"), "{why}");
    for fine in [
        Settings {
            boost_nice: Some(Boost::Off),
            ..settings.clone()
        },
        Settings {
            lever: Some(Lever::Auto),
            ..settings
        },
    ] {
        assert_eq!(fine.check(&fine.apply(default())), Ok(()));
    }
}

#[test]
fn stir_is_no_longer_than_a_park() {
    let policy = |park_max, stir_run| Policy {
        park_max,
        stir_run,
        ..default()
    };
    assert_eq!(check_stir(&policy(1_000_000, 1_000_000)), Ok(()));
    let error = check_stir(&policy(1_000_000, 2_000_000)).unwrap_err();
    assert!(error.starts_with("stir_run 2ms is longer than park_max 1ms"));
}
