// SPDX-License-Identifier: GPL-2.0-only

//! A microVM: QEMU with KVM, one vCPU, a tap, and a guest program that says READY on its console.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::{Result, call, cpu};

/// Where the guests serve HTTP.
pub const PORT: u16 = 8080;

/// No device but the network's, which is a PCI one for the sake of its message signalled interrupts: those of
/// virtio-mmio cost the VMM four more exits for each request.
const QEMU: &str = "-M microvm,accel=kvm,pcie=on,pic=off,pit=off,rtc=off -bios qboot.rom -cpu host \
    -nodefaults -no-user-config -nographic -no-reboot -run-with exit-with-parent=on";
const DEVICE: &str = "virtio-net-pci,netdev=net,disable-legacy=on,romfile=";
/// Of every guest: each has a link of its own.
const MAC: &str = "52:54:00:12:34:56";
const KERNEL: &str = "console=ttyS0 quiet panic=-1 reboot=t no_timer_check tsc=reliable";

/// A microVM that is not up by then is started once more: the emulator's virtualization may lose one.
const BOOT_TIME: Duration = Duration::from_secs(60);
const ATTEMPTS: u32 = 3;
const POLL: Duration = Duration::from_millis(50);

/// What microVMs boot.
pub struct Image {
    /// The kernel, a file for direct boot.
    pub kernel: PathBuf,
    /// The initramfs.
    pub initramfs: PathBuf,
    /// In MiB.
    pub memory: u32,
}

/// A microVM.
pub struct Vm {
    name: String,
    address: String,
    command: Command,
    console: PathBuf,
    /// What the VMM says.
    log: PathBuf,
    vmm: Child,
}

impl Vm {
    /// Makes the tap `tapN` and starts the VMM of `vmN`; the guest is told `parameters` on its kernel's command line.
    pub fn start(number: u8, image: &Image, parameters: &str) -> Result<Self> {
        let name = format!("vm{number}");
        let tap = format!("tap{number}");
        let address = format!("10.9.{number}.2");
        let gateway = format!("10.9.{number}.1");
        ip(&["tuntap", "add", "dev", &tap, "mode", "tap", "vnet_hdr"])?;
        ip(&["address", "add", &format!("{gateway}/24"), "dev", &tap])?;
        ip(&["link", "set", &tap, "up"])?;
        // A guest that has little CPU, and does everything for the first time, may take the emulator too long to answer ARP.
        let known = format!("neighbour replace {address} lladdr {MAC} dev {tap} nud permanent");
        ip(&known.split(' ').collect::<Vec<_>>())?;

        let console = std::env::temp_dir().join(format!("{name}.console"));
        let log = console.with_extension("log");
        let mut command = Command::new("qemu-system-x86_64");
        command
            .args(QEMU.split_whitespace())
            .args(["-m", &image.memory.to_string()])
            .arg("-serial")
            .arg(format!("file:{}", console.display()))
            .arg("-netdev")
            .arg(format!(
                "tap,id=net,ifname={tap},script=no,downscript=no,vhost=on"
            ))
            .arg("-device")
            .arg(format!("{DEVICE},mac={MAC}"))
            .arg("-kernel")
            .arg(&image.kernel)
            .arg("-initrd")
            .arg(&image.initramfs)
            .arg("-append")
            .arg(format!(
                "{KERNEL} ip4={address}/24 gw4={gateway} {parameters}"
            ))
            .stdin(Stdio::null());
        let vmm = spawn(&mut command, &console, &log)?;
        Ok(Self {
            name,
            address,
            command,
            console,
            log,
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
            self.vmm = spawn(&mut self.command, &self.console, &self.log)?;
        }
        if self.comes_up()? {
            return Ok(());
        }
        let said = fs::read(&self.console)?;
        let said = String::from_utf8_lossy(&said);
        Err(format!("{} did not come up; its console:\n{said}", self.name).into())
    }

    /// Fails if it has ended, or its VMM waits with a guest that KVM does not enter any more. Both happen only by a fault: the
    /// emulator's virtualization may lose one.
    pub fn check(&mut self) -> Result<()> {
        let said = fs::read_to_string(&self.log)?;
        let lost = said.lines().find(|line| line.starts_with("KVM"));
        match (self.vmm.try_wait()?, lost) {
            (None, None) => Ok(()),
            (None, Some(why)) => Err(format!("{} has lost its guest: {why}", self.name).into()),
            (Some(status), _) => Err(format!("{} has ended: {status}: {said}", self.name).into()),
        }
    }

    fn comes_up(&mut self) -> Result<bool> {
        let deadline = Instant::now() + BOOT_TIME;
        while Instant::now() < deadline && self.check().is_ok() {
            let said = fs::read(&self.console)?;
            if said
                .split(|byte| *byte == b'\n')
                .any(|line| line.trim_ascii() == b"READY")
            {
                return Ok(true);
            }
            sleep(POLL);
        }
        Ok(false)
    }

    /// Moves the vCPU threads to one CPU, and the rest of the VMM to another.
    pub fn pin(&self, vcpus: &[i32], vcpu_cpu: usize, spare_cpu: usize) -> Result<()> {
        let tasks = format!("/proc/{}/task", self.vmm.id());
        let mut left = vcpus.len();
        for task in fs::read_dir(&tasks)? {
            let tid = task?.file_name().to_string_lossy().parse()?;
            let vcpu = vcpus.contains(&tid);
            left -= usize::from(vcpu);
            cpu::pin(Pid::from_raw(tid), if vcpu { vcpu_cpu } else { spare_cpu })?;
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

    /// The tap's name.
    pub fn tap(&self) -> String {
        self.name.replacen("vm", "tap", 1)
    }

    /// The start of every URL of its server.
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

impl Drop for Vm {
    fn drop(&mut self) {
        self.stop();
    }
}

fn spawn(command: &mut Command, console: &Path, log: &Path) -> Result<Child> {
    File::create(console)?;
    Ok(command
        .stderr(File::create(log)?)
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
