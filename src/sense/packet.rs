// SPDX-License-Identifier: GPL-2.0-only

//! Packets on a VM's links, and the rules that tell what they mean.

use crate::{
    act::park::Knock,
    engine::Engine,
    rust::{
        bpf::Filter,
        netfilter::{Direction, PacketHook},
        rcu_cell::RcuCell,
        skb::Packet,
        timed::Timed,
    },
    uapi,
};
use core::cell::LazyCell;
use kernel::{
    prelude::*,
    sync::{rcu, Arc},
    uaccess::{UserPtr, UserSlice},
};

/// What a packet means.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
enum Class {
    Request = uapi::CLASS_REQUEST,
    Response = uapi::CLASS_RESPONSE,
    Close = uapi::CLASS_CLOSE,
    Ignore = uapi::CLASS_IGNORE,
    Wake = uapi::CLASS_WAKE,
    Sleep = uapi::CLASS_SLEEP,
}

impl Class {
    fn new(number: u32) -> Option<Self> {
        Some(match number {
            uapi::CLASS_REQUEST => Self::Request,
            uapi::CLASS_RESPONSE => Self::Response,
            uapi::CLASS_CLOSE => Self::Close,
            uapi::CLASS_IGNORE => Self::Ignore,
            uapi::CLASS_WAKE => Self::Wake,
            uapi::CLASS_SLEEP => Self::Sleep,
            _ => return None,
        })
    }
}

/// One rule.
struct Rule {
    /// None if the program says.
    class: Option<Class>,
    /// [`uapi::TO_VM`], [`uapi::FROM_VM`] or both.
    direction: u32,
    filter: Filter,
    tag: u32,
    text: KVec<u8>,
}

impl Rule {
    fn from_user(rule: &uapi::Rule) -> Result<Self> {
        let program = rule.class == uapi::CLASS_PROGRAM;
        let class = Class::new(rule.class);
        let direction = rule.direction;
        if (class.is_none() && !program)
            || direction == 0
            || direction & !(uapi::TO_VM | uapi::FROM_VM) != 0
        {
            return Err(EINVAL);
        }
        let filter = if program {
            if rule.insns != 0 || rule.len != 0 {
                return Err(EINVAL);
            }
            Filter::from_fd(rule.prog_fd)?
        } else {
            let len = u16::try_from(rule.len).map_err(|_| EINVAL)?;
            if rule.prog_fd != 0 {
                return Err(EINVAL);
            }
            // The kernel takes an empty pointer for an empty program.
            if rule.insns == 0 && len != 0 {
                return Err(EFAULT);
            }
            Filter::from_user(address(rule.insns)?, len)?
        };
        if rule.text_len > uapi::MAX_TEXT {
            return Err(E2BIG);
        }
        let mut text = KVec::new();
        UserSlice::new(address(rule.text)?, rule.text_len as usize)
            .read_all(&mut text, GFP_KERNEL)?;
        Ok(Self {
            class,
            direction,
            filter,
            tag: rule.tag,
            text,
        })
    }

    /// What the packet means, if this rule knows it.
    fn classify(&self, packet: &Packet, direction: u32) -> Option<Class> {
        if self.direction & direction == 0 {
            return None;
        }
        let verdict = self.filter.run(packet);
        match self.class {
            Some(class) => (verdict != 0).then_some(class),
            None => Class::new(verdict.checked_sub(1)?),
        }
    }

    fn describe(&self, out: &mut uapi::VmRule) {
        out.class = self.class.map_or(uapi::CLASS_PROGRAM, |class| class as u32);
        out.direction = self.direction;
        out.tag = self.tag;
        out.prog_id = self.filter.id();
        out.text_len = self.text.len() as u32;
        out.text[..self.text.len()].copy_from_slice(&self.text);
    }
}

fn address(user: u64) -> Result<UserPtr> {
    Ok(UserPtr::from_addr(
        usize::try_from(user).map_err(|_| EFAULT)?,
    ))
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

    /// Tells the user of rule number `index`, in what is all zero before; None if there is no such rule.
    pub(crate) fn describe(&self, index: usize, out: &mut uapi::VmRule) -> Option<()> {
        self.0.get(index).map(|rule| rule.describe(out))
    }

    /// What the first rule that matches says.
    fn classify(&self, packet: &Packet, direction: u32) -> Option<Class> {
        self.0
            .iter()
            .find_map(|rule| rule.classify(packet, direction))
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
        match direction {
            Direction::Egress => self.egress(packet),
            Direction::Ingress => self.ingress(packet),
        }
    }
}

impl LinkHook {
    fn classify(&self, packet: &Packet, direction: u32) -> Option<Class> {
        self.rules
            .read(&rcu::read_lock())
            .classify(packet, direction)
    }

    /// To the VM.
    fn egress(&self, packet: &Packet) {
        let engine = &self.engine;
        let class = self.classify(packet, uapi::TO_VM);
        let segment = LazyCell::new(|| packet.segment());
        match class {
            Some(Class::Wake | Class::Sleep) => engine.io(),
            Some(Class::Ignore) => {
                engine.hush(true);
                if engine.parks() && !segment.bare && !packet.tells_many() {
                    engine.knock(Knock::Brief);
                }
            }
            Some(Class::Request | Class::Response | Class::Close) | None => {
                let asks = matches!(class, Some(Class::Request | Class::Response));
                if !Engine::packet(engine, asks) {
                    // Nobody waits for what the guest makes of an acknowledgement, or of an end.
                    engine.hush(segment.bare);
                    if engine.parks() && !segment.bare {
                        engine.knock(Knock::Full);
                    }
                }
            }
        }
        match class {
            Some(Class::Request) => Engine::request(engine, packet.flow_hash(), segment.pushed),
            Some(Class::Response) => Engine::answer(engine, packet.flow_hash()),
            Some(Class::Close) => Engine::closed(engine, packet.flow_hash()),
            Some(Class::Wake) => Engine::wake(engine, uapi::WAKE_RULE),
            Some(Class::Sleep) => Engine::doze(engine, uapi::SLEEP_RULE),
            Some(Class::Ignore) | None => {
                if engine.asks() && segment.bare {
                    Engine::acknowledged(engine, packet.flow_hash());
                }
            }
        }
    }

    /// From the VM.
    fn ingress(&self, packet: &Packet) {
        let engine = &self.engine;
        let class = self.classify(packet, uapi::FROM_VM);
        let segment = LazyCell::new(|| packet.segment());
        // The device is about to tell it that this is sent.
        engine.hush(true);
        // To acknowledge is not all that somebody waits for.
        if engine.parks() && !segment.bare {
            Engine::heard(engine);
        }
        if class != Some(Class::Ignore) {
            engine.io();
        }
        match class {
            Some(Class::Request) => Engine::call(engine, packet.flow_hash(), *segment),
            Some(Class::Response) => Engine::response(engine, packet.flow_hash(), *segment),
            Some(Class::Close) => Engine::closed(engine, packet.flow_hash()),
            Some(Class::Wake) => Engine::wake(engine, uapi::WAKE_RULE),
            Some(Class::Sleep) => Engine::doze(engine, uapi::SLEEP_RULE),
            Some(Class::Ignore) | None => {}
        }
    }
}
