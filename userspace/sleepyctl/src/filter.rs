// SPDX-License-Identifier: GPL-2.0-only

//! Rules as the kernel takes them: pcap-filter(7) expressions, compiled by libpcap to classic BPF, and pinned
//! eBPF programs.

use std::collections::HashMap;
use std::rc::Rc;

use pcap::{Active, BpfInstruction, BpfProgram, Capture, Dead, Linktype};
use sleepy_uapi::{MAX_INSNS, MAX_RULES, MAX_TEXT};

use crate::error::{Error, Result};
use crate::ioctl::{KernelRule, Matcher};
use crate::link::Found;
use crate::program::Program;
use crate::rule::{Match, Rule};

#[cfg(test)]
mod tests;

/// A rule, compiled.
pub struct Compiled {
    /// From what.
    pub rule: Rule,
    /// To what.
    pub code: Code,
}

/// What the kernel runs.
pub enum Code {
    /// Classic BPF.
    Classic(Rc<BpfProgram>),
    /// An eBPF program.
    Program(Program),
}

impl Compiled {
    /// As the kernel takes it.
    pub fn kernel_rule(&self) -> KernelRule<'_> {
        KernelRule {
            class: self.rule.class,
            direction: self.rule.direction,
            tag: self.rule.origin as u32,
            text: &self.rule.text,
            matcher: match &self.code {
                Code::Classic(program) => Matcher::Classic(program.get_instructions()),
                Code::Program(program) => Matcher::Program(program.fd()),
            },
        }
    }
}

/// Compiles every rule as for a capture on one of these links.
pub fn compile(rules: Vec<Rule>, links: &[Found]) -> Result<Vec<Compiled>> {
    Compiler::open(links)?.compile(rules)
}

/// Compiles rules, each expression once.
pub struct Compiler {
    handle: Handle,
    done: HashMap<String, Rc<BpfProgram>>,
}

impl Compiler {
    /// As for a capture on one of these links.
    pub fn open(links: &[Found]) -> Result<Self> {
        Ok(Self {
            handle: Handle::open(links)?,
            done: HashMap::new(),
        })
    }

    /// For any Ethernet device.
    #[cfg(any(test, feature = "fuzz"))]
    pub fn dead() -> Result<Self> {
        Ok(Self {
            handle: Handle::dead()?,
            done: HashMap::new(),
        })
    }

    /// All rules of a VM.
    pub fn compile(&mut self, rules: Vec<Rule>) -> Result<Vec<Compiled>> {
        check_number(rules.len()).map_err(Error::failed)?;
        for rule in &rules {
            let named = |why| Error::failed(format!("{}: {why}", rule.name()));
            check_text(&rule.text).map_err(named)?;
        }
        let compiled = |rule: Rule| {
            let code = match &rule.matches {
                Match::Filter(expr) => {
                    let classic = self.classic(expr);
                    let named = |why| Error::failed(format!("{}: {why}", rule.name()));
                    Code::Classic(classic.map_err(named)?)
                }
                Match::Program(path) => Code::Program(Program::open(path)?),
            };
            Ok(Compiled { rule, code })
        };
        rules.into_iter().map(compiled).collect()
    }

    fn classic(&mut self, expr: &str) -> std::result::Result<Rc<BpfProgram>, String> {
        if let Some(program) = self.done.get(expr) {
            return Ok(Rc::clone(program));
        }
        let program = Rc::new(self.handle.check(expr)?);
        self.done.insert(expr.to_string(), Rc::clone(&program));
        Ok(program)
    }
}

/// Whether a VM may have so many rules.
pub fn check_number(rules: usize) -> std::result::Result<(), String> {
    if rules <= MAX_RULES as usize {
        return Ok(());
    }
    Err(format!(
        "{rules} rules (with those for TCP and noise) are too many, at most {MAX_RULES}; join expressions with `or`"
    ))
}

/// Whether the kernel can keep a rule's text.
pub fn check_text(text: &str) -> std::result::Result<(), String> {
    if text.len() <= MAX_TEXT as usize {
        return Ok(());
    }
    Err(format!(
        "{} bytes are too long, at most {MAX_TEXT}; split it into several rules",
        text.len()
    ))
}

/// What libpcap compiles for.
///
/// The kernel takes the outer VLAN tag out of a packet and keeps it beside it. libpcap knows this, and
/// looks in both places, when it compiles for a live Ethernet device; without one it looks in the packet only.
pub enum Handle {
    Live(Capture<Active>),
    Dead(Capture<Dead>),
}

impl Handle {
    fn open(links: &[Found]) -> Result<Self> {
        let on_link = links
            .iter()
            .find_map(|link| link.netns.run(|| live(&link.device)).ok().flatten());
        if let Some(capture) = on_link.or_else(|| live("lo")) {
            return Ok(Self::Live(capture));
        }
        Self::dead()
    }

    /// For any Ethernet device, without rights.
    pub fn dead() -> Result<Self> {
        Capture::dead(Linktype::ETHERNET)
            .map(Self::Dead)
            .map_err(|error| Error::failed(format!("libpcap: {error}")))
    }

    /// What it compiles to, or what is wrong with it and the remedy.
    pub fn check(&self, expr: &str) -> std::result::Result<BpfProgram, String> {
        if expr.trim().is_empty() {
            return Err("an empty filter matches every packet; write what is meant, or `ether[0] >= 0` for all".to_string());
        }
        let program = self.compile(expr).map_err(|error| match error {
            pcap::Error::PcapError(text) if text.contains("rejects all packets") => never(),
            pcap::Error::PcapError(text) => format!("{text}; see pcap-filter(7)"),
            other => format!("{other}; see pcap-filter(7)"),
        })?;
        let insns = program.get_instructions();
        if insns.len() > MAX_INSNS as usize {
            return Err(format!(
                "{} instructions are too many, at most {MAX_INSNS}; split it into several rules",
                insns.len()
            ));
        }
        if let Some(why) = insns.iter().find_map(refused) {
            return Err(why.to_string());
        }
        match insns {
            // `ret #0`, as code, jt, jf, k.
            [only] if only.to_string() == "6 0 0 0" => Err(never()),
            _ => Ok(program),
        }
    }

    fn compile(&self, expr: &str) -> std::result::Result<BpfProgram, pcap::Error> {
        match self {
            Self::Live(capture) => capture.compile(expr, true),
            Self::Dead(capture) => capture.compile(expr, true),
        }
    }
}

/// Why the kernel does not take an instruction that libpcap makes; it takes all others.
fn refused(insn: &BpfInstruction) -> Option<&'static str> {
    // Metadata begins there: 16 numbers of four bytes.
    const METADATA: u32 = 0xffff_f000;
    match parts(insn) {
        // `ja`
        [0x05, _, _, k] if (k as i32) < 0 => {
            Some("the kernel takes no loop, and protochain is one; name the headers without it")
        }
        // `ld`, `ldh`, `ldb` of an offset
        [0x20 | 0x28 | 0x30, _, _, k] if k > METADATA + 60 || k >= METADATA && k % 4 != 0 => {
            Some("no packet is as long as an offset in it; write a smaller one in the brackets")
        }
        _ => None,
    }
}

/// Its code, both jumps and the constant, which it shows and does not give.
pub fn parts(insn: &BpfInstruction) -> [u32; 4] {
    let text = insn.to_string();
    let mut numbers = text.split(' ').map_while(|number| number.parse().ok());
    std::array::from_fn(|_| numbers.next().unwrap_or_default())
}

fn never() -> String {
    "no packet on an Ethernet link can ever match; see pcap-filter(7)".to_string()
}

/// A capture on an Ethernet device of the current network namespace, if it is up and we may.
fn live(device: &str) -> Option<Capture<Active>> {
    let capture = Capture::from_device(device)
        .ok()?
        .promisc(false)
        .buffer_size(1 << 18)
        .open()
        .ok()?;
    (capture.get_datalink() == Linktype::ETHERNET).then_some(capture)
}
