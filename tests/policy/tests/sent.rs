// SPDX-License-Identifier: GPL-2.0-only

//! What the VM sends again.

use proptest::prelude::*;
use sleepy_policy::sent::Sent;
use sleepy_policy_tests::StdWord;

proptest! {
    /// All up to where it was, and nothing beyond, wherever in the sequence.
    #[test]
    fn sent_again(hash in 0..u32::MAX, end: u32, back in 0..1u32 << 22, on in 1..1u32 << 31) {
        let sent = Sent::<StdWord>::new();
        prop_assert!(sent.advance(hash, end), "nothing was sent");
        prop_assert!(!sent.advance(hash, end.wrapping_sub(back)));
        prop_assert!(sent.advance(hash, end.wrapping_add(on)));
        prop_assert!(!sent.advance(hash, end.wrapping_add(on)));
        prop_assert!(sent.advance(hash ^ 1 << 31, end), "another flow");
    }

    /// A new connection between the same ports begins somewhere else.
    #[test]
    fn closed(hash: u32, end: u32, back in 0..1u32 << 31, forgotten: bool) {
        let sent = Sent::<StdWord>::new();
        sent.advance(hash, end);
        sent.forget(hash ^ 1 << 31);
        prop_assert!(!sent.advance(hash, end));
        if forgotten {
            sent.forget(hash);
        }
        let far = back >= 1 << 24;
        prop_assert!(!(forgotten || far) || sent.advance(hash, end.wrapping_sub(back)));
    }
}
