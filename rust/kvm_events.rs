// SPDX-License-Identifier: GPL-2.0-only

//! What happens inside of KVM: tracepoints where they say enough, otherwise kprobes.
//!
//! What a vCPU does is seen in its own thread, so that the [`Observer`] of the thread that this CPU has is
//! the one to tell. An interrupt may be raised by anybody, and KVM's tracepoints for that do not tell for which
//! VM: the functions that raise it do.
//!
//! Each source is attached while somebody wants it, and costs nothing otherwise. KVM may be built in or a module; its
//! module is kept loaded while something is attached.

use super::{bindings as helpers, cpus::Cpus, kvm::VmId, preempt_notifier::Observer, probe::Probe};
use kernel::{
    bindings, new_mutex,
    prelude::*,
    sync::{Arc, Mutex},
};

/// Sees what a vCPU does. All calls come in its thread, with preemption off.
pub(crate) trait Guest: Observer {
    /// The guest calls the hypervisor, with this number and first argument.
    fn hypercall(&self, number: u64, argument: u64);
    /// It interrupts another vCPU.
    fn ipi(&self);
    /// It talks to a device.
    fn io(&self);
    /// Its timer has fired. Perhaps in a breakpoint: must take no lock.
    fn timer(&self);
}

/// Who raises an interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Raiser {
    /// A device: of the VMM, or of the host.
    Device,
    /// KVM's own interval timer.
    Timer,
    /// Another process than the VMM.
    Stranger,
}

/// Sees interrupts.
pub(crate) trait Interrupts: Send + Sync + 'static {
    /// One is raised for this VM. In any context, perhaps in a breakpoint: must take no lock.
    fn interrupt(&self, vm: VmId, raiser: Raiser);
}

/// Something to listen to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// [`Guest::hypercall`]
    Hypercall,
    /// [`Guest::ipi`]
    Ipi,
    /// [`Guest::io`]
    Io,
    /// [`Guest::timer`]
    Timer,
    /// [`Interrupts::interrupt`]
    Interrupt,
}

impl Source {
    /// All of them.
    pub(crate) const ALL: [Self; 5] = [
        Self::Hypercall,
        Self::Ipi,
        Self::Io,
        Self::Timer,
        Self::Interrupt,
    ];
}

/// Whether this kernel can attach to a source at all.
pub(crate) const fn supported(source: Source) -> bool {
    match source {
        Source::Hypercall | Source::Ipi | Source::Io => cfg!(CONFIG_TRACEPOINTS),
        Source::Timer | Source::Interrupt => cfg!(CONFIG_KPROBES),
    }
}

/// What the probes are given.
struct Listener<G: Guest, I: Interrupts> {
    cpus: Arc<Cpus<G>>,
    interrupts: I,
}

impl<G: Guest, I: Interrupts> Listener<G, I> {
    /// # Safety
    ///
    /// `data` must be what the probe was registered with.
    unsafe fn guest(data: *mut c_void, f: impl FnOnce(&G)) {
        // SAFETY: By the safety requirement; probes are unregistered before it is freed.
        let this = unsafe { &*data.cast::<Self>() };
        this.cpus.with_observer(f);
    }

    // The prototype of a tracepoint's probe is that of the tracepoint, behind `data`.

    /// # Safety
    ///
    /// For the tracepoint alone.
    unsafe extern "C" fn kvm_hypercall(
        data: *mut c_void,
        number: c_ulong,
        a0: c_ulong,
        _a1: c_ulong,
        _a2: c_ulong,
        _a3: c_ulong,
    ) {
        // SAFETY: By the safety requirement.
        unsafe { Self::guest(data, |guest| guest.hypercall(number as u64, a0 as u64)) };
    }

    /// # Safety
    ///
    /// For the tracepoint alone.
    unsafe extern "C" fn kvm_apic_ipi(data: *mut c_void, _icr_low: u32, _destination: u32) {
        // SAFETY: By the safety requirement.
        unsafe { Self::guest(data, G::ipi) };
    }

    /// # Safety
    ///
    /// For the tracepoint alone.
    unsafe extern "C" fn kvm_pio(
        data: *mut c_void,
        _direction: c_uint,
        _port: c_uint,
        _size: c_uint,
        _count: c_uint,
        _value: *const c_void,
    ) {
        // SAFETY: By the safety requirement.
        unsafe { Self::guest(data, G::io) };
    }

    /// # Safety
    ///
    /// For the tracepoint alone.
    unsafe extern "C" fn kvm_mmio(
        data: *mut c_void,
        _kind: c_int,
        _len: c_int,
        address: u64,
        _value: *mut c_void,
    ) {
        // The local APIC is no device.
        if address & !0xFFF != u64::from(bindings::APIC_DEFAULT_PHYS_BASE) {
            // SAFETY: By the safety requirement.
            unsafe { Self::guest(data, G::io) };
        }
    }

    /// # Safety
    ///
    /// For the tracepoint alone.
    unsafe extern "C" fn kvm_fast_mmio(data: *mut c_void, _address: u64) {
        // SAFETY: By the safety requirement.
        unsafe { Self::guest(data, G::io) };
    }

    /// # Safety
    ///
    /// For a kprobe on the guest's timer alone.
    unsafe extern "C" fn timer(data: *mut c_void, _kvm: *const helpers::kvm, _raiser: c_uint) {
        // SAFETY: By the safety requirement.
        unsafe { Self::guest(data, G::timer) };
    }

    /// # Safety
    ///
    /// For a kprobe on what raises an interrupt alone.
    unsafe extern "C" fn interrupt(data: *mut c_void, kvm: *const helpers::kvm, raiser: c_uint) {
        let raiser = match raiser {
            helpers::SLEEPY_RAISER_DEVICE => Raiser::Device,
            helpers::SLEEPY_RAISER_TIMER => Raiser::Timer,
            _ => Raiser::Stranger,
        };
        // SAFETY: By the safety requirement; probes are unregistered before it is freed.
        let this = unsafe { &*data.cast::<Self>() };
        this.interrupts.interrupt(VmId::of(kvm), raiser);
    }
}

#[derive(Default)]
struct Attached {
    users: usize,
    probes: KVec<Probe>,
}

/// The sources, and who wants which.
#[pin_data(PinnedDrop)]
pub(crate) struct Events<G: Guest, I: Interrupts> {
    listener: Arc<Listener<G, I>>,
    #[pin]
    attached: Mutex<[Attached; Source::ALL.len()]>,
}

impl<G: Guest, I: Interrupts> Events<G, I> {
    /// Nobody wants any.
    pub(crate) fn new(cpus: Arc<Cpus<G>>, interrupts: I) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            listener: Arc::new(Listener { cpus, interrupts }, GFP_KERNEL)?,
            attached <- new_mutex!(<[Attached; Source::ALL.len()]>::default()),
        })
    }

    /// Who sees interrupts.
    pub(crate) fn interrupts(&self) -> &I {
        &self.listener.interrupts
    }

    /// One more wants this source. `EOPNOTSUPP` if this kernel does not have it, `ENOMEM`. The caller keeps KVM's
    /// module loaded until [`put`](Self::put). For process context.
    pub(crate) fn get(&self, source: Source) -> Result {
        let attached = &mut self.attached.lock()[source as usize];
        if attached.users == 0 {
            attached.probes = self.attach(source)?;
        }
        attached.users += 1;
        Ok(())
    }

    /// One less wants this source.
    pub(crate) fn put(&self, source: Source) {
        let attached = &mut self.attached.lock()[source as usize];
        attached.users = attached.users.saturating_sub(1);
        if attached.users == 0 {
            attached.probes = KVec::new();
        }
    }

    fn attach(&self, source: Source) -> Result<KVec<Probe>> {
        type L<G, I> = Listener<G, I>;
        let data = Arc::as_ptr(&self.listener).cast_mut().cast::<c_void>();
        let tracepoint = |name, function| {
            // SAFETY: Each function below has its tracepoint's prototype and takes a `Listener`, which is kept
            // until every probe is dropped; the caller of `get` keeps KVM's module loaded.
            unsafe { Probe::tracepoint(name, function, data) }
        };
        let interrupt = |place| {
            // SAFETY: As above.
            unsafe { Probe::kprobe(place, L::<G, I>::interrupt, data) }
        };
        let mut probes = KVec::with_capacity(3, GFP_KERNEL)?;
        let mut push = |probe: Result<Probe>| -> Result { Ok(probes.push(probe?, GFP_KERNEL)?) };
        match source {
            Source::Hypercall => push(tracepoint(
                c"kvm_hypercall",
                L::<G, I>::kvm_hypercall as *mut c_void,
            ))?,
            Source::Ipi => push(tracepoint(
                c"kvm_apic_ipi",
                L::<G, I>::kvm_apic_ipi as *mut c_void,
            ))?,
            Source::Io => {
                push(tracepoint(c"kvm_pio", L::<G, I>::kvm_pio as *mut c_void))?;
                push(tracepoint(c"kvm_mmio", L::<G, I>::kvm_mmio as *mut c_void))?;
                push(tracepoint(
                    c"kvm_fast_mmio",
                    L::<G, I>::kvm_fast_mmio as *mut c_void,
                ))?;
            }
            Source::Timer => {
                // SAFETY: As above.
                let timer =
                    unsafe { Probe::kprobe(helpers::SLEEPY_PROBE_TIMER, L::<G, I>::timer, data) };
                push(timer)?;
            }
            Source::Interrupt => {
                push(interrupt(helpers::SLEEPY_PROBE_IRQFD))?;
                push(interrupt(helpers::SLEEPY_PROBE_IRQ))?;
                push(interrupt(helpers::SLEEPY_PROBE_MSI))?;
            }
        }
        Ok(probes)
    }
}

#[pinned_drop]
impl<G: Guest, I: Interrupts> PinnedDrop for Events<G, I> {
    fn drop(self: Pin<&mut Self>) {
        // Before the listener.
        *self.attached.lock() = Default::default();
    }
}
