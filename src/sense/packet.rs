// SPDX-License-Identifier: GPL-2.0-only

//! Packets on a VM's links, and the rules that tell what they mean.

use crate::{
    engine::Engine,
    policy::machine::Cause,
    rust::{
        bpf::Filter,
        netfilter::{Direction, PacketHook},
        rcu_cell::RcuCell,
        skb::Packet,
        timed::Timed,
    },
    uapi,
};
use kernel::{
    prelude::*,
    sync::{rcu, Arc},
    uaccess::UserPtr,
};

/// What a packet means.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Request,
    Response,
    Close,
    Ignore,
}

/// One rule.
struct Rule {
    class: Class,
    /// [`uapi::TO_VM`], [`uapi::FROM_VM`] or both.
    direction: u32,
    filter: Filter,
}

impl Rule {
    fn from_user(rule: &uapi::Rule) -> Result<Self> {
        let class = match rule.class {
            uapi::CLASS_REQUEST => Class::Request,
            uapi::CLASS_RESPONSE => Class::Response,
            uapi::CLASS_CLOSE => Class::Close,
            uapi::CLASS_IGNORE => Class::Ignore,
            _ => return Err(EINVAL),
        };
        let direction = rule.direction;
        if rule.reserved != 0 || direction == 0 || direction & !(uapi::TO_VM | uapi::FROM_VM) != 0 {
            return Err(EINVAL);
        }
        let len = u16::try_from(rule.len).map_err(|_| EINVAL)?;
        // The kernel takes an empty pointer for an empty program.
        if rule.insns == 0 && len != 0 {
            return Err(EFAULT);
        }
        let insns = UserPtr::from_addr(usize::try_from(rule.insns).map_err(|_| EFAULT)?);
        Ok(Self {
            class,
            direction,
            filter: Filter::from_user(insns, len)?,
        })
    }
}

/// A VM's rules, in order.
pub(crate) struct Rules(KVec<Rule>);

impl Rules {
    /// Takes rules from the user; an error comes with the index of the rule that is at fault.
    pub(crate) fn from_user(rules: &[uapi::Rule]) -> Result<Self, (Error, u32)> {
        let mut taken = KVec::with_capacity(rules.len(), GFP_KERNEL).map_err(|e| (e.into(), 0))?;
        for (index, rule) in (0..).zip(rules) {
            let rule = Rule::from_user(rule).map_err(|error| (error, index))?;
            taken
                .push(rule, GFP_KERNEL)
                .map_err(|e| (Error::from(e), index))?;
        }
        Ok(Self(taken))
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// What the first rule that matches says.
    fn classify(&self, packet: &Packet, direction: u32) -> Option<Class> {
        self.0
            .iter()
            .find(|rule| rule.direction & direction != 0 && rule.filter.accepts(packet))
            .map(|rule| rule.class)
    }
}

/// What sees the packets of one of a VM's links.
pub(crate) struct LinkHook {
    /// The VM.
    pub(crate) engine: Arc<Timed<Engine>>,
    /// Its rules.
    pub(crate) rules: Arc<RcuCell<Rules>>,
}

impl PacketHook for LinkHook {
    fn packet(&self, packet: &Packet, direction: Direction) {
        let direction = match direction {
            Direction::Egress => uapi::TO_VM,
            Direction::Ingress => uapi::FROM_VM,
        };
        let class = self
            .rules
            .read(&rcu::read_lock())
            .classify(packet, direction);
        match class {
            Some(Class::Request) => Engine::request(&self.engine, packet.flow_hash()),
            Some(Class::Response) => Engine::end(&self.engine, packet.flow_hash(), Cause::Response),
            Some(Class::Close) => Engine::end(&self.engine, packet.flow_hash(), Cause::Close),
            Some(Class::Ignore) | None => {}
        }
    }
}
