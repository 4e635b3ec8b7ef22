// SPDX-License-Identifier: GPL-2.0-only

//! The function microVMs of a cell. All vCPUs share one CPU; everything else is on the other.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, setpriority_process};
use sleepy_host::ctl::{Sleepyctl, Stats};
use sleepy_host::vm::{self, Image, Vm};
use sleepy_host::{Result, cpu};

use crate::chain::Chain;
use crate::store;

/// The vCPUs share this CPU,
pub const VCPU_CPU: usize = 1;
/// and everything else this one.
pub const SPARE_CPU: usize = 0;

/// So many microVMs boot at once.
const BATCH: usize = 4;
/// How the microVMs of a mix wait, in turn.
const MIX: [&str; 4] = ["halt", "busypoll", "housekeeping20", "poll"];
/// One that works for a minute is not dead, on a host that is overcommitted a hundred times; and what each takes while it sleeps is
/// taken a hundred times.
const TIMES: &str = "request_timeout = \"5m\"\nmax_sleep = \"1m\"\npark_max = \"1m\"\n";
/// Where the microVMs have control groups of their own.
const GROUPS: &str = "/sys/fs/cgroup/bench";

/// Which control groups the microVMs are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// All in the root group.
    Flat,
    /// Each in one of its own.
    PerVm,
}

/// The microVMs of so many chains of one kind.
pub struct Fleet<'a> {
    ctl: &'a Sleepyctl,
    image: &'a Image,
    chain: Chain,
    wait: String,
    layout: Layout,
    members: Vec<Member>,
}

/// A microVM of a fleet.
pub struct Member {
    /// It.
    pub vm: Vm,
    /// The threads of its vCPUs.
    pub vcpus: Vec<i32>,
}

impl<'a> Fleet<'a> {
    /// An empty one.
    pub fn new(ctl: &'a Sleepyctl, image: &'a Image, chain: Chain, wait: &str) -> Self {
        Self {
            ctl,
            image,
            chain,
            wait: wait.to_owned(),
            layout: Layout::Flat,
            members: Vec::new(),
        }
    }

    /// Whether it is one of these.
    pub fn is(&self, chain: Chain, wait: &str) -> bool {
        self.chain == chain && self.wait == wait
    }

    /// Whether no guest ever lets go of its CPU.
    pub fn never_halts(&self) -> bool {
        matches!(&*self.wait, "poll" | "busypoll")
    }

    /// Fails if a microVM has ended.
    pub fn check(&mut self) -> Result<()> {
        for Member { vm, .. } in &mut self.members {
            vm.check()?;
        }
        Ok(())
    }

    /// How many chains there are.
    pub fn chains(&self) -> usize {
        self.members.len() / self.chain.stages.len()
    }

    /// Starts microVMs until there are so many chains. Those that are there are asleep meanwhile.
    pub fn grow(&mut self, chains: usize, mut progress: impl FnMut(usize, usize)) -> Result<()> {
        let wanted = chains * self.chain.stages.len();
        self.place(Layout::Flat)?;
        // Those that spin would leave little for those that boot.
        if !self.members.is_empty() {
            self.apply("park")?;
        }
        while self.members.len() < wanted {
            progress(self.members.len(), wanted);
            let mut batch = Vec::new();
            for number in self.members.len()..wanted.min(self.members.len() + BATCH) {
                // On one CPU: while guests boot on both, the emulator hangs now and then.
                cpu::pin_self(VCPU_CPU)?;
                let number = u8::try_from(number + 1).map_err(|_| "at most 255 microVMs")?;
                let started = Vm::start(number, self.image, &self.parameters(number.into()));
                cpu::pin_self(SPARE_CPU)?;
                batch.push(started?);
            }
            for vm in &mut batch {
                vm.wait_ready()?;
            }
            self.members.extend(batch.into_iter().map(|vm| Member {
                vm,
                vcpus: Vec::new(),
            }));
            self.apply("park")?;
            for member in &mut self.members {
                if member.vcpus.is_empty() {
                    member.vcpus = self.ctl.vcpus(member.vm.name())?;
                    member.vm.pin(&member.vcpus, VCPU_CPU, SPARE_CPU)?;
                }
            }
        }
        Ok(())
    }

    /// What a guest is told on its kernel's command line.
    fn parameters(&self, number: usize) -> String {
        let wait = match &*self.wait {
            "mix" => MIX[number % MIX.len()],
            wait => wait,
        };
        match wait {
            "poll" => "wait=halt idle=poll".into(),
            "haltpoll" => "wait=halt cpuidle_haltpoll.force=1 cpuidle.governor=haltpoll".into(),
            wait => format!("wait={wait}"),
        }
    }

    /// Has them sleep by a lever, as sleepyctl names it.
    pub fn apply(&self, lever: &str) -> Result<()> {
        let mut text = format!(
            "schema_version = 1\n[defaults]\nlever = \"{lever}\"\n{TIMES}{}",
            rules()
        );
        for Member { vm, .. } in &self.members {
            write!(
                text,
                "[[vm]]\nname = \"{}\"\npid = {}\n",
                vm.name(),
                vm.pid()
            )?;
        }
        let manifest = temporary("fleet.toml");
        fs::write(&manifest, text)?;
        self.ctl.apply(&manifest)
    }

    /// Has sleepy forget them.
    pub fn forget(&self) -> Result<()> {
        for Member { vm, .. } in &self.members {
            self.ctl.remove(vm.name())?;
        }
        Ok(())
    }

    /// The module's statistics, in the order of the members.
    pub fn stats(&self) -> Result<Vec<Stats>> {
        let mut stats = self.ctl.stats()?;
        let place = |stats: &Stats| {
            let named = |member: &Member| member.vm.name() == stats.name;
            self.members.iter().position(named)
        };
        stats.retain(|stats| place(stats).is_some());
        if stats.len() != self.members.len() {
            return Err("sleepy does not know all microVMs".into());
        }
        stats.sort_by_key(place);
        Ok(stats)
    }

    /// The members, chain by chain.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The functions of each chain, in the order of the stages.
    pub fn urls(&self) -> Vec<Vec<String>> {
        self.members
            .chunks(self.chain.stages.len())
            .map(|chain| chain.iter().map(|member| member.vm.url()).collect())
            .collect()
    }

    /// Moves them to where they shall be.
    pub fn place(&mut self, layout: Layout) -> Result<()> {
        let root = Path::new("/sys/fs/cgroup");
        if layout == Layout::PerVm {
            fs::create_dir_all(GROUPS)?;
            for group in [root, Path::new(GROUPS)] {
                fs::write(group.join("cgroup.subtree_control"), "+cpu")?;
            }
        }
        for member in &self.members {
            let own = group(&member.vm);
            let to = match layout {
                Layout::Flat => root,
                Layout::PerVm => {
                    fs::create_dir_all(&own)?;
                    &own
                }
            };
            fs::write(to.join("cgroup.procs"), member.vm.pid().to_string())?;
            if layout == Layout::Flat && own.exists() {
                fs::remove_dir(&own)?;
            }
        }
        self.layout = layout;
        Ok(())
    }

    /// Gives each stage's microVMs a share of the CPU that fits its work, and what serves the guests precedence; or takes it back.
    pub fn tune(&self, work: Option<&[u64]>) -> Result<()> {
        let mean = work.map(|work| work.iter().sum::<u64>() / work.len() as u64);
        for (number, member) in self.members.iter().enumerate() {
            let stage = number % self.chain.stages.len();
            if self.layout == Layout::PerVm {
                let weight = work.zip(mean).map_or(100, |(work, mean)| {
                    (100 * work[stage] / mean.max(1)).clamp(1, 10_000)
                });
                fs::write(group(&member.vm).join("cpu.weight"), weight.to_string())?;
            }
            for helper in member.helpers()? {
                setpriority_process(Pid::from_raw(helper), if work.is_some() { -5 } else { 0 })?;
            }
        }
        Ok(())
    }
}

impl Member {
    /// The threads of the VMM that are no vCPUs, the network's among them.
    fn helpers(&self) -> Result<Vec<i32>> {
        let mut helpers = Vec::new();
        for task in fs::read_dir(format!("/proc/{}/task", self.vm.pid()))? {
            helpers.push(task?.file_name().to_string_lossy().parse()?);
        }
        helpers.retain(|tid| !self.vcpus.contains(tid));
        Ok(helpers)
    }
}

impl Drop for Fleet<'_> {
    fn drop(&mut self) {
        for Member { vm, .. } in &self.members {
            // It may not have been added yet.
            let _ = self.ctl.remove(vm.name());
        }
        for Member { vm, .. } in self.members.drain(..) {
            let (own, tap) = (group(&vm), vm.tap());
            drop(vm);
            // Neither need be there.
            let _ = fs::remove_dir(own);
            let _ = sleepy_host::call("ip", &["link", "delete", &tap]);
        }
    }
}

fn group(vm: &Vm) -> PathBuf {
    Path::new(GROUPS).join(vm.name())
}

/// Requests to a function, and what it asks the store.
fn rules() -> String {
    let mut text = String::new();
    for (class, direction, end, port) in [
        ("request", "to-vm", "dst", vm::PORT),
        ("response", "from-vm", "src", vm::PORT),
        ("request", "from-vm", "dst", store::PORT),
        ("response", "to-vm", "src", store::PORT),
    ] {
        text += &format!(
            "[[defaults.rule]]\nclass = \"{class}\"\ndirection = \"{direction}\"\nfilter = \"tcp {end} port {port}\"\n"
        );
    }
    text
}

/// A file of this run.
pub fn temporary(name: &str) -> PathBuf {
    std::env::temp_dir().join(name)
}
