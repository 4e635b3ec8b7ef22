// SPDX-License-Identifier: GPL-2.0-only

//! What KVM shows of its VMs in debugfs: which threads run vCPUs, and whether KVM halts them itself.

use std::fs;
use std::path::Path;

use procfs::FromRead;
use procfs::process::Status;

use crate::index::Index;
use crate::vmm::text;

/// A VM.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Vm {
    /// The thread that has made it.
    pub maker: i32,
    /// Its maker's descriptor of it.
    pub fd: i32,
    /// The threads that have run its vCPUs.
    pub tids: Vec<i32>,
    /// KVM has an interrupt controller for its vCPUs, so that one that halts waits inside KVM; none if nothing says.
    pub halts_inside: Option<bool>,
}

/// All VMs.
#[derive(Debug, Default)]
pub struct Vms {
    all: Vec<Vm>,
    by_thread: Index<i32>,
}

impl Vms {
    /// Those there are now; none without debugfs, or without the right to look into it.
    pub fn here() -> Option<Self> {
        vms_in(Path::new("/sys/kernel/debug/kvm")).map(Self::new)
    }

    fn new(all: Vec<Vm>) -> Self {
        let mut by_thread = Index::default();
        for (number, vm) in all.iter().enumerate() {
            by_thread.add(number, vm.threads().iter().copied());
        }
        Self { all, by_thread }
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Vm> {
        self.all.iter()
    }

    /// Those of a process with these threads.
    pub fn of(&self, tasks: &[i32]) -> impl Iterator<Item = &Vm> {
        let numbers = self.by_thread.with_any(tasks.iter());
        numbers.into_iter().map(|number| &self.all[number])
    }
}

fn vms_in(directory: &Path) -> Option<Vec<Vm>> {
    let entries = fs::read_dir(directory).ok()?.flatten();
    let vm = |entry: fs::DirEntry| {
        let name = entry.file_name();
        // PID-FD
        let (maker, fd) = name.to_str()?.rsplit_once('-')?;
        let mut vm = Vm {
            maker: maker.parse().ok()?,
            fd: fd.parse().ok()?,
            ..Vm::default()
        };
        for vcpu in fs::read_dir(entry.path()).ok()?.flatten() {
            let is_vcpu = vcpu.file_name().to_str()?.starts_with("vcpu");
            if is_vcpu {
                add_vcpu(&mut vm, &vcpu.path());
            }
        }
        vm.tids.sort_unstable();
        Some(vm)
    };
    Some(entries.filter_map(vm).collect())
}

impl Vm {
    /// Threads of its process. Its maker may have handed it on.
    fn threads(&self) -> &[i32] {
        if self.tids.is_empty() {
            std::slice::from_ref(&self.maker)
        } else {
            &self.tids
        }
    }

    /// Its process; none if that has ended, or is not to be seen.
    pub fn process(&self) -> Option<i32> {
        let status = text(*self.threads().first()?, "status").ok()?;
        Some(Status::from_read(status.as_bytes()).ok()?.tgid)
    }
}

fn add_vcpu(vm: &mut Vm, directory: &Path) {
    let tid = fs::read_to_string(directory.join("pid"));
    let tid = tid.ok().and_then(|text| text.trim().parse::<i32>().ok());
    // One that has not run yet has none.
    vm.tids.extend(tid.filter(|tid| *tid > 0));
    if cfg!(target_arch = "x86_64") {
        // There for a local APIC inside KVM alone.
        vm.halts_inside = Some(directory.join("lapic_timer_advance_ns").exists());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vcpus_and_their_apic_are_seen() {
        let dir = tempfile::tempdir().unwrap();
        for (vcpu, pid, lapic) in [
            ("42-9/vcpu0", "43", true),
            ("42-9/vcpu1", "44", true),
            ("50-5/vcpu0", "51", false),
            ("60-5/vcpu0", "0", true),
        ] {
            let path = dir.path().join(vcpu);
            fs::create_dir_all(&path).unwrap();
            fs::write(path.join("pid"), format!("{pid}\n")).unwrap();
            if lapic {
                fs::write(path.join("lapic_timer_advance_ns"), "0\n").unwrap();
            }
        }
        fs::write(dir.path().join("halt_exits"), "7\n").unwrap();
        let mut vms = vms_in(dir.path()).unwrap();
        vms.sort_by_key(|vm| (vm.fd, vm.tids.clone()));
        let tids: Vec<_> = vms.iter().map(|vm| (vm.fd, vm.tids.as_slice())).collect();
        assert_eq!(tids, [(5, &[][..]), (5, &[51]), (9, &[43, 44])]);
        // One whose vCPUs have not run is known by its maker.
        let all = Vms::new(vms.clone());
        let of = |tasks: &[i32]| all.of(tasks).count();
        assert_eq!([of(&[60]), of(&[43]), of(&[42]), of(&[7])], [1, 1, 0, 0]);
        assert_eq!([of(&[43, 44]), of(&[42, 44, 60])], [1, 2]);
        if cfg!(target_arch = "x86_64") {
            let inside: Vec<_> = vms.iter().map(|vm| vm.halts_inside).collect();
            assert_eq!(inside, [Some(true), Some(false), Some(true)]);
        }
        assert_eq!(vms_in(&dir.path().join("missing")), None);
    }

    #[test]
    fn process_of_a_thread_is_found() {
        let own = std::process::id() as i32;
        let thread = || rustix::thread::gettid().as_raw_nonzero().get();
        std::thread::spawn(move || {
            let maker = thread();
            assert_ne!(maker, own);
            let mut vm = Vm {
                maker,
                ..Vm::default()
            };
            assert_eq!(vm.process(), Some(own));
            (vm.maker, vm.tids) = (1, vec![maker]);
            assert_eq!(vm.process(), Some(own));
        })
        .join()
        .unwrap();
    }
}
