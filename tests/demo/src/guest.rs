// SPDX-License-Identifier: GPL-2.0-only

//! A microVM: QEMU with KVM, one vCPU, a tap, and the guest program of tests/guest.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::Result;
use crate::load::Client;

/// The vCPUs share this CPU.
pub const VCPU_CPU: usize = 1;
/// Everything else is here.
pub const SPARE_CPU: usize = 0;
/// Where the guests serve HTTP.
pub const PORT: u16 = 8080;

/// No device but the network's, which is a PCI one for the sake of its message signalled interrupts: those of
/// virtio-mmio cost the VMM four more exits for each request.
const QEMU: &str = "-M microvm,accel=kvm,pcie=on,pic=off,pit=off,rtc=off -bios qboot.rom -cpu host -m 64 \
    -nodefaults -no-user-config -nographic -no-reboot -run-with exit-with-parent=on \
    -device virtio-net-pci,netdev=net,disable-legacy=on,romfile=";
const KERNEL: &str = "console=ttyS0 quiet panic=-1 reboot=t no_timer_check tsc=reliable";

/// A microVM that is not up by then is started once more: the emulator's virtualization may lose one.
const BOOT_TIME: Duration = Duration::from_secs(60);
const ATTEMPTS: u32 = 3;
const POLL: Duration = Duration::from_millis(50);

/// A microVM.
pub struct Guest {
    name: String,
    address: String,
    command: Command,
    console: PathBuf,
    vmm: Child,
}

impl Guest {
    /// Makes the tap and starts the VMM.
    pub fn start(number: u8, kernel: &Path, initramfs: &Path) -> Result<Self> {
        let name = format!("vm{number}");
        let tap = format!("tap{number}");
        let address = format!("10.9.{number}.2");
        ip(&["tuntap", "add", "dev", &tap, "mode", "tap", "vnet_hdr"])?;
        ip(&[
            "address",
            "add",
            &format!("10.9.{number}.1/24"),
            "dev",
            &tap,
        ])?;
        ip(&["link", "set", &tap, "up"])?;

        let console = std::env::temp_dir().join(format!("{name}.console"));
        let mut command = Command::new("qemu-system-x86_64");
        command
            .args(QEMU.split_whitespace())
            .arg("-serial")
            .arg(format!("file:{}", console.display()))
            .arg("-netdev")
            .arg(format!(
                "tap,id=net,ifname={tap},script=no,downscript=no,vhost=on"
            ))
            .arg("-kernel")
            .arg(kernel)
            .arg("-initrd")
            .arg(initramfs)
            .arg("-append")
            .arg(format!("{KERNEL} ip4={address}/24 wait=busy"))
            .stdin(Stdio::null());
        let vmm = spawn(&mut command, &console)?;
        Ok(Self {
            name,
            address,
            command,
            console,
            vmm,
        })
    }

    /// Waits until the guest serves requests.
    pub fn wait_ready(&mut self) -> Result<()> {
        for _ in 1..ATTEMPTS {
            if self.comes_up()? {
                return Ok(());
            }
            self.stop();
            self.vmm = spawn(&mut self.command, &self.console)?;
        }
        if self.comes_up()? {
            return Ok(());
        }
        let said = fs::read(&self.console)?;
        let said = String::from_utf8_lossy(&said);
        Err(format!("{} did not come up; its console:\n{said}", self.name).into())
    }

    fn comes_up(&mut self) -> Result<bool> {
        let deadline = Instant::now() + BOOT_TIME;
        while Instant::now() < deadline && self.vmm.try_wait()?.is_none() {
            let said = fs::read(&self.console)?;
            if said
                .split(|byte| *byte == b'\n')
                .any(|line| line.trim_ascii() == b"READY")
            {
                return Ok(Client::new(self).ping().is_ok());
            }
            sleep(POLL);
        }
        Ok(false)
    }

    /// Moves the vCPU threads to their CPU, and the rest of the VMM to the other.
    pub fn pin(&self, vcpus: &[i32]) -> Result<()> {
        let tasks = format!("/proc/{}/task", self.vmm.id());
        let mut left = vcpus.len();
        for task in fs::read_dir(&tasks)? {
            let tid = task?.file_name().to_string_lossy().parse()?;
            let vcpu = vcpus.contains(&tid);
            left -= usize::from(vcpu);
            pin(Pid::from_raw(tid), if vcpu { VCPU_CPU } else { SPARE_CPU })?;
        }
        if vcpus.is_empty() || left > 0 {
            return Err(format!("{}: sleepy knows no vCPU thread in {tasks}", self.name).into());
        }
        Ok(())
    }

    /// The VMM's process id.
    pub fn pid(&self) -> u32 {
        self.vmm.id()
    }

    /// The name that sleepy is told.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The start of every URL.
    pub fn url(&self) -> String {
        format!("http://{}:{PORT}", self.address)
    }

    fn stop(&mut self) {
        if let Some(pid) = i32::try_from(self.vmm.id()).ok().and_then(Pid::from_raw) {
            // It may have ended by itself.
            let _ = kill_process(pid, Signal::KILL);
        }
        let _ = self.vmm.wait();
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Moves this thread, and what it starts from now on, to a CPU.
pub fn pin_self(cpu: usize) -> Result<()> {
    pin(None, cpu)
}

fn pin(thread: Option<Pid>, cpu: usize) -> Result<()> {
    let mut only = CpuSet::new();
    only.set(cpu);
    Ok(sched_setaffinity(thread, &only)
        .map_err(|error| format!("CPU {cpu}: {error}; the demo needs 2 CPUs"))?)
}

fn spawn(command: &mut Command, console: &Path) -> Result<Child> {
    File::create(console)?;
    Ok(command
        .spawn()
        .map_err(|error| format!("qemu-system-x86_64: {error}"))?)
}

/// Loads the module of the microVMs' network backend.
pub fn load_vhost() -> Result<()> {
    call("modprobe", &["vhost_net"])
}

fn ip(arguments: &[&str]) -> Result<()> {
    call("ip", arguments)
}

fn call(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .map_err(|error| format!("{program}: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{program} {}: {}", arguments.join(" "), said.trim()).into());
    }
    Ok(())
}
