// SPDX-License-Identifier: GPL-2.0-only

//! The ioctl ABI of `/dev/sleepy`.
//!
//! This very file is compiled three times: into the module, into `sleepyctl`, and, through cbindgen, into
//! the C header `sleepy.h`. It follows `Documentation/driver-api/ioctl.rst`: fixed-width fields, explicit
//! padding that must be zero, 64-bit pointers, and the same layout for 32 and 64 bit callers, so that no
//! compat handler is needed.
//!
//! All times are nanoseconds unless said otherwise. All calls need `CAP_SYS_NICE` and `CAP_NET_ADMIN` in
//! the initial user namespace, at open and again in every call.
//!
//! # Errors
//!
//! | errno | meaning |
//! |---|---|
//! | `EPERM` | a capability is missing |
//! | `ENOTTY` | no such call |
//! | `EMSGSIZE` | a known call, with an argument of another size than this ABI's |
//! | `EINVAL` | a reserved field is not zero, or a value is out of range; see [`VmAdd::fault`] |
//! | `EFAULT` | a pointer is bad |
//! | `ENOENT` | no VM has this id |
//! | `EEXIST` | the name is taken |
//! | `ESRCH` | no such process, or it has the VM no more |
//! | `EAGAIN` | each thread of the process that was looked at was about to end: try again |
//! | `ESTALE` | the process is not the one that started at `start_time` |
//! | `ENODEV` | the process has no KVM virtual machine (`fault` is [`FAULT_HANDLE`]), or there is no such link ([`FAULT_LINK`]) |
//! | `ENOTUNIQ` | the process has several virtual machines: pass `vm_fd` |
//! | `EBADF` | `vm_fd` is not an open descriptor, or not a KVM virtual machine's; `netns_fd` or `prog_fd` is not open; or `group_fd` is not, or no control group's |
//! | `EXDEV` | `vm_fd` is a virtual machine of another process |
//! | `EALREADY` | this virtual machine was added before, under another name |
//! | `EBUSY` | the link, or the control group, belongs to another VM |
//! | `EOPNOTSUPP` | the link has no Ethernet header; the control group has no CPU weight ([`FAULT_GROUP`]); or the policy wants an event that this kernel does not show ([`FAULT_POLICY`], see [`Info::sleep_on`]) |
//! | `E2BIG` | too many links or rules, or a rule's text is too long |
//! | `ENOSPC` | too many VMs |
//! | `ENOMEM` | out of memory |

/// Version of this ABI, as reported by [`IOC_INFO`].
pub const ABI_VERSION: u32 = 1;
/// Size of a VM's name, with its terminating NUL.
pub const NAME_SIZE: usize = 32;
/// Size of a link's name, with its terminating NUL (the kernel's `IFNAMSIZ`).
pub const LINK_NAME_SIZE: usize = 16;
/// The most VMs that can be registered.
pub const MAX_VMS: u32 = 16384;
/// The most links of one VM.
pub const MAX_LINKS: u32 = 16;
/// The most rules of one VM.
pub const MAX_RULES: u32 = 64;
/// The most vCPU threads of one VM that anything is done to: more are left as they are.
pub const MAX_VCPUS: u32 = 256;
/// The most classic BPF instructions of one filter (the kernel's `BPF_MAXINSNS`).
pub const MAX_INSNS: u32 = 4096;
/// The longest text of a rule, in bytes.
pub const MAX_TEXT: u32 = 1024;
/// The longest time, in nanoseconds, for any field of [`Policy`]: one hour.
pub const MAX_TIME: u64 = 3_600_000_000_000;
/// The shortest `request_timeout`, `max_sleep`, `quiet` and `spin`, in nanoseconds: one millisecond.
pub const MIN_TIMEOUT: u64 = 1_000_000;

/// `boost_budget` is at least `boost_period` by two to the power of this: about a thousandth.
pub const BOOST_SHIFT: u32 = 10;
/// The most that `sleepy_weight` can be.
pub const MAX_WEIGHT: u32 = 10000;
/// The shortest `stir_run`, in nanoseconds.
pub const MIN_STIR: u64 = 50_000;

/// Lever: measure everything, change nothing.
pub const LEVER_OBSERVE: u32 = 0;
/// Lever: the nice value of the vCPU threads.
pub const LEVER_NICE: u32 = 1;
/// Lever: the vCPU threads of a sleepy VM have the policy `SCHED_IDLE`.
pub const LEVER_IDLE: u32 = 2;
/// Lever: the weight of the VM's control group, which is passed as `group_fd`.
pub const LEVER_GROUP: u32 = 3;
/// Lever: the vCPU threads of a sleepy VM wait in place of running, for [`Policy::park_max`] at most, or until KVM would
/// wake a halted vCPU; then they run for [`Policy::stir_run`].
pub const LEVER_PARK: u32 = 4;

/// [`Policy::flags`]: while a request is in flight, the threads run at `boost_nice`. Not with [`LEVER_IDLE`].
pub const POLICY_BOOST: u32 = 1 << 0;
/// [`Policy::flags`]: for the caller's own use, read back as it is: the lever was chosen for the user.
pub const POLICY_AUTO: u32 = 1 << 1;

/// A packet that asks for something and puts its flow in flight. To the VM: wakes it. From the VM: it calls
/// somebody else, and may sleep until the answer comes, whether it has one request in flight itself or none.
pub const CLASS_REQUEST: u32 = 0;
/// A packet that answers: takes its flow out of flight. To the VM: wakes it.
pub const CLASS_RESPONSE: u32 = 1;
/// A packet that ends its flow (a reset, the last FIN): takes it out of flight, and is no answer.
pub const CLASS_CLOSE: u32 = 2;
/// A packet that means nothing (a bare acknowledgement, noise): it neither wakes nor counts.
pub const CLASS_IGNORE: u32 = 3;
/// A packet that wakes the VM, without a flow.
pub const CLASS_WAKE: u32 = 4;
/// A packet after which the VM may sleep, unless something is in flight.
pub const CLASS_SLEEP: u32 = 5;
/// The eBPF program says: it returns one of `CLASS_*` above plus one, or 0 for a packet that it does not know.
pub const CLASS_PROGRAM: u32 = 6;

/// Direction of a rule: packets that the host sends to the VM.
pub const TO_VM: u32 = 1 << 0;
/// Direction of a rule: packets that the VM sends.
pub const FROM_VM: u32 = 1 << 1;

/// State of a VM: it has its full weight.
pub const STATE_AWAKE: u32 = 0;
/// State of a VM: its weight is taken away.
pub const STATE_SLEEPY: u32 = 1;

/// [`VmAdd::fault`]: nothing in particular.
pub const FAULT_NONE: u32 = 0;
/// The name: empty, not terminated, not printable ASCII without blanks and `/`, or taken.
pub const FAULT_NAME: u32 = 1;
/// The process or the virtual machine.
pub const FAULT_HANDLE: u32 = 2;
/// The policy.
pub const FAULT_POLICY: u32 = 3;
/// The link with the index `fault_index`.
pub const FAULT_LINK: u32 = 4;
/// The rule with the index `fault_index`.
pub const FAULT_RULE: u32 = 5;
/// The control group.
pub const FAULT_GROUP: u32 = 6;

/// How a VM sleeps and wakes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// How long a VM stays awake after its last answer, and after whatever else has woken it; and for how long
    /// it must have been idle for [`SLEEP_IDLE`].
    pub linger: u64,
    /// After this time a request counts as lost. At least [`MIN_TIMEOUT`].
    pub request_timeout: u64,
    /// After this time a sleepy VM is awake for `linger`, whatever happens. At least [`MIN_TIMEOUT`].
    pub max_sleep: u64,
    /// For [`SLEEP_QUIET`]: how long there is neither a packet nor device I/O. At least [`MIN_TIMEOUT`].
    pub quiet: u64,
    /// For [`SLEEP_SPIN`]: how long its vCPUs, together, are on a CPU without I/O. At least [`MIN_TIMEOUT`].
    pub spin: u64,
    /// For [`WAKE_TIMER`]: how long after a guest's timer the VM may stay sleepy.
    pub timer_slack: u64,
    /// For [`LEVER_PARK`]: how long a vCPU thread waits at most. At least [`MIN_TIMEOUT`].
    pub park_max: u64,
    /// For [`LEVER_PARK`]: for how long it then runs. At least [`MIN_STIR`], at most `park_max`.
    pub stir_run: u64,
    /// With [`POLICY_BOOST`]: in each time this long, a VM is boosted for no longer than `boost_budget`; what it has had too
    /// much is missing from the next ones. At least [`MIN_TIMEOUT`], or 0 for no limit.
    pub boost_period: u64,
    /// How long a VM may be boosted in each `boost_period`, at most that, and see [`BOOST_SHIFT`]. 0 without one.
    pub boost_budget: u64,
    /// One of `LEVER_*`.
    pub lever: u32,
    /// For [`LEVER_NICE`]: nice value of a sleepy VM's threads, -20 to 19; used if it is above a thread's own.
    pub sleepy_nice: i32,
    /// Nice value while a request is in flight, with [`POLICY_BOOST`]; used if it is below a thread's own.
    /// Zero without.
    pub boost_nice: i32,
    /// `POLICY_*` bits.
    pub flags: u32,
    /// What lets it sleep: bits of [`SLEEP_EVENTS`].
    pub sleep_on: u32,
    /// What wakes it, besides rules of [`CLASS_WAKE`], `max_sleep`, and changes by the administrator: bits of
    /// [`WAKE_EVENTS`].
    pub wake_on: u32,
    /// For [`LEVER_GROUP`]: weight of a sleepy VM's control group (`cpu.weight`, or `cpu.shares`), used if it is below the
    /// group's own; or 0 for `cpu.idle`. At most [`MAX_WEIGHT`].
    pub sleepy_weight: u32,
    /// Zero.
    pub reserved: u32,
}

/// One rule: packets of `direction` that `insns` accepts are of `class`. The first rule that matches counts.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Rule {
    /// One of `CLASS_*`.
    pub class: u32,
    /// [`TO_VM`], [`FROM_VM`] or both.
    pub direction: u32,
    /// Number of instructions, 1 to [`MAX_INSNS`]; 0 with [`CLASS_PROGRAM`].
    pub len: u32,
    /// For the caller's own use, read back as it is.
    pub tag: u32,
    /// Address of `len` classic BPF instructions (`struct sock_filter`), which see the packet from its
    /// Ethernet header on, as a packet socket on the link would. Nonzero means: accept. Zero with
    /// [`CLASS_PROGRAM`].
    pub insns: u64,
    /// Address of `text_len` bytes for the caller's own use, read back as they are.
    pub text: u64,
    /// At most [`MAX_TEXT`].
    pub text_len: u32,
    /// With [`CLASS_PROGRAM`]: descriptor of an eBPF program of type `BPF_PROG_TYPE_SOCKET_FILTER`. Zero without.
    pub prog_fd: i32,
}

/// One rule, as [`IOC_VM_RULES`] writes it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct VmRule {
    /// See [`Rule::class`].
    pub class: u32,
    /// See [`Rule::direction`].
    pub direction: u32,
    /// See [`Rule::tag`].
    pub tag: u32,
    /// The eBPF program's id, 0 without.
    pub prog_id: u32,
    /// Length of `text`.
    pub text_len: u32,
    /// Zero.
    pub reserved: u32,
    /// See [`Rule::text`]; the rest is zero.
    pub text: [u8; MAX_TEXT as usize],
}

impl Default for VmRule {
    fn default() -> Self {
        Self {
            class: 0,
            direction: 0,
            tag: 0,
            prog_id: 0,
            text_len: 0,
            reserved: 0,
            text: [0; MAX_TEXT as usize],
        }
    }
}

/// A link to add.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Link {
    /// Descriptor of the network namespace that the device is in.
    pub netns_fd: i32,
    /// Interface index in that namespace.
    pub ifindex: u32,
}

/// Argument of [`IOC_INFO`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Info {
    /// [`ABI_VERSION`].
    pub version: u32,
    /// [`MAX_VMS`].
    pub max_vms: u32,
    /// [`MAX_LINKS`].
    pub max_links: u32,
    /// [`MAX_RULES`].
    pub max_rules: u32,
    /// [`MAX_INSNS`].
    pub max_insns: u32,
    /// How many VMs there are.
    pub vms: u32,
    /// One bit for each lever: `1 << LEVER_*`.
    pub levers: u64,
    /// The events of [`SLEEP_EVENTS`] that this kernel lets the module see.
    pub sleep_on: u32,
    /// The events of [`WAKE_EVENTS`] that this kernel lets the module see.
    pub wake_on: u32,
    /// Zero.
    pub reserved: [u64; 4],
}

/// Argument of [`IOC_VM_ADD`]. All or nothing: after an error, nothing has changed.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct VmAdd {
    /// Unique name, padded with at least one NUL: printable ASCII without blanks and `/`.
    pub name: [u8; NAME_SIZE],
    /// The VMM's process, in the caller's PID namespace.
    pub pid: u32,
    /// A descriptor of the KVM virtual machine (from the VMM by `pidfd_getfd(2)`), or -1 for the only one
    /// that the process has. It is not kept.
    pub vm_fd: i32,
    /// When that process started, in clock ticks after boot: field 22 of `/proc/PID/stat`, as the initial time namespace has it.
    pub start_time: u64,
    /// How it sleeps and wakes.
    pub policy: Policy,
    /// Address of `n_links` [`Link`]s.
    pub links: u64,
    /// Address of `n_rules` [`Rule`]s.
    pub rules: u64,
    /// Number of links, at most [`MAX_LINKS`].
    pub n_links: u32,
    /// Number of rules, at most [`MAX_RULES`].
    pub n_rules: u32,
    /// Out: the VM's id, never used again for another.
    pub id: u32,
    /// Out, after an error: what is wrong, one of `FAULT_*`.
    pub fault: u32,
    /// Out, after an error: the index of the link or rule.
    pub fault_index: u32,
    /// With [`LEVER_GROUP`]: descriptor of the VM's control group, a directory of a cgroup file system. -1 without. It may
    /// be closed afterwards.
    pub group_fd: i32,
}

/// Argument of [`IOC_VM_REMOVE`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct VmRemove {
    /// Which VM.
    pub id: u32,
    /// Zero.
    pub reserved: u32,
}

/// [`VmSet::flags`]: the policy.
pub const SET_POLICY: u32 = 1 << 0;
/// [`VmSet::flags`]: the rules.
pub const SET_RULES: u32 = 1 << 1;

/// Argument of [`IOC_VM_SET`]. All or nothing: after an error, nothing has changed.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct VmSet {
    /// Which VM.
    pub id: u32,
    /// What is replaced: `SET_*` bits.
    pub flags: u32,
    /// The new policy, whole.
    pub policy: Policy,
    /// Address of `n_rules` [`Rule`]s, all of the new ones.
    pub rules: u64,
    /// Number of rules, at most [`MAX_RULES`].
    pub n_rules: u32,
    /// Out, after an error: what is wrong, one of `FAULT_*`.
    pub fault: u32,
    /// Out, after an error: the index of the rule.
    pub fault_index: u32,
    /// As [`VmAdd::group_fd`], for the new policy.
    pub group_fd: i32,
}

/// [`VmGet::flags_out`]: an administrator has changed the control group's weight meanwhile; it is left alone.
pub const VM_GROUP_FOREIGN: u32 = 1 << 0;
/// [`VmGet::flags_out`]: a vCPU thread is in another control group.
pub const VM_GROUP_LEFT: u32 = 1 << 1;

/// [`VmGet::flags`]: the VM with the lowest id that is `id` or above, to list them all.
pub const GET_NEXT: u32 = 1 << 0;

/// Argument of [`IOC_VM_GET`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct VmGet {
    /// Which VM; with [`GET_NEXT`] also out.
    pub id: u32,
    /// [`GET_NEXT`] or zero.
    pub flags: u32,
    /// Out: its name.
    pub name: [u8; NAME_SIZE],
    /// Out: the VMM's process in the caller's PID namespace, 0 if it is not in there.
    pub pid: u32,
    /// Out: one of `STATE_*`.
    pub state: u32,
    /// Out: see [`VmAdd::start_time`].
    pub start_time: u64,
    /// Out: its policy.
    pub policy: Policy,
    /// Out: requests to the VM in flight.
    pub in_flight: u32,
    /// Out: vCPUs whose threads are known, up to [`MAX_VCPUS`], and up to 8 of one thread.
    pub n_vcpus: u32,
    /// Out: links.
    pub n_links: u32,
    /// Out: rules.
    pub n_rules: u32,
    /// Out: links that were there and are gone. With one, the VM is kept awake.
    pub lost_links: u32,
    /// Out: requests of the VM itself in flight.
    pub calls: u32,
    /// Out: inode of its control group's directory, with [`LEVER_GROUP`].
    pub group: u64,
    /// Out: `VM_*` bits.
    pub flags_out: u32,
    /// Zero.
    pub reserved: u32,
}

/// [`Vcpu::flags`]: the notifier is in place; on-CPU time is measured.
pub const VCPU_ATTACHED: u32 = 1 << 0;
/// [`Vcpu::flags`]: on a CPU now.
pub const VCPU_ON_CPU: u32 = 1 << 1;
/// [`Vcpu::flags`]: an administrator changed this thread's nice value meanwhile; it is left alone.
pub const VCPU_FOREIGN: u32 = 1 << 2;
/// [`Vcpu::flags`]: sleepy has changed this thread's nice value, and will restore it to `baseline`.
pub const VCPU_MOVED: u32 = 1 << 3;

/// One vCPU thread, as [`IOC_VM_VCPUS`] writes it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Vcpu {
    /// Number of the vCPU, as KVM counts.
    pub index: u32,
    /// Thread id in the caller's PID namespace, 0 if it is not in there.
    pub tid: u32,
    /// Nice value now.
    pub nice: i32,
    /// Nice value before sleepy changed it, and after it is done.
    pub baseline: i32,
    /// `VCPU_*` bits.
    pub flags: u32,
    /// Scheduling policy now: `SCHED_*` of sched(7).
    pub policy: u32,
    /// Time on a CPU since the notifier is in place.
    pub oncpu: u64,
    /// How often it lost its CPU while it could run.
    pub preempted: u64,
    /// How often it left its CPU because the guest had halted.
    pub halted: u64,
    /// How often it left its CPU for another reason (it waited in the VMM, for a page, for a lock).
    pub blocked: u64,
    /// How often it gave up its turn on its CPU to a VM that is awake.
    pub yielded: u64,
    /// How often it was parked.
    pub parked: u64,
}

/// One link, as [`IOC_VM_LINKS`] writes it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct VmLink {
    /// Interface index in its network namespace.
    pub ifindex: u32,
    /// Zero.
    pub reserved: u32,
    /// Inode of its network namespace.
    pub netns: u64,
    /// Its name now.
    pub name: [u8; LINK_NAME_SIZE],
}

/// Argument of [`IOC_VM_VCPUS`], [`IOC_VM_LINKS`] and [`IOC_VM_RULES`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct VmArray {
    /// Which VM.
    pub id: u32,
    /// In: room at `items`. Out: how many there are; at most the room was written.
    pub count: u32,
    /// Address of `count` [`Vcpu`]s, [`VmLink`]s or [`VmRule`]s.
    pub items: u64,
}

/// Causes of a wake-up, indices of [`VmStats::wakes`]: a request.
pub const WAKE_REQUEST: usize = 0;
/// `max_sleep` was over.
pub const WAKE_STIR: usize = 1;
/// A link went away, or the policy was set.
pub const WAKE_ADMIN: usize = 2;
/// A packet to the VM that no rule ignores.
pub const WAKE_PACKET: usize = 3;
/// A packet of [`CLASS_WAKE`].
pub const WAKE_RULE: usize = 4;
/// A device's interrupt for the VM.
pub const WAKE_INTERRUPT: usize = 5;
/// A timer of the guest.
pub const WAKE_TIMER: usize = 6;
/// One vCPU interrupts another.
pub const WAKE_IPI: usize = 7;
/// An interrupt that another process than the VMM has raised: a doorbell, a back end of its own.
pub const WAKE_DOORBELL: usize = 8;
/// The guest asks for it, see [`HINT_HYPERCALL`].
pub const WAKE_HINT: usize = 9;
/// The answer to a call of the VM itself came, the call was closed or lost, or the VM sends one.
pub const WAKE_ANSWER: usize = 10;
/// Number of causes that have a name.
pub const WAKE_CAUSES: usize = 11;
/// What [`Policy::wake_on`] may have. [`WAKE_REQUEST`] stands for answers as well.
pub const WAKE_EVENTS: u32 = 1 << WAKE_REQUEST
    | 1 << WAKE_PACKET
    | 1 << WAKE_INTERRUPT
    | 1 << WAKE_TIMER
    | 1 << WAKE_IPI
    | 1 << WAKE_DOORBELL
    | 1 << WAKE_HINT;

/// Causes of falling asleep, indices of [`VmStats::sleeps`]: nothing is in flight, and `linger` has gone by,
/// after the last answer.
pub const SLEEP_RESPONSE: usize = 0;
/// As [`SLEEP_RESPONSE`], after the last flow in flight was closed or reset.
pub const SLEEP_CLOSE: usize = 1;
/// As [`SLEEP_RESPONSE`], after the last flow in flight was given up: it was older than `request_timeout`.
pub const SLEEP_TIMEOUT: usize = 2;
/// Nothing came within `linger` after it was woken by something else than a request, or was added.
pub const SLEEP_REST: usize = 3;
/// Every vCPU has halted.
pub const SLEEP_IDLE: usize = 4;
/// A vCPU burns CPU time without I/O.
pub const SLEEP_SPIN: usize = 5;
/// Neither a packet nor device I/O for `quiet`.
pub const SLEEP_QUIET: usize = 6;
/// The guest says so, see [`HINT_HYPERCALL`].
pub const SLEEP_HINT: usize = 7;
/// A packet of [`CLASS_SLEEP`].
pub const SLEEP_RULE: usize = 8;
/// The VM waits for the answer to a call of its own.
pub const SLEEP_CALL: usize = 9;
/// Number of causes that have a name.
pub const SLEEP_CAUSES: usize = 10;
/// What [`Policy::sleep_on`] may have. [`SLEEP_RESPONSE`] stands for [`SLEEP_CLOSE`], [`SLEEP_TIMEOUT`],
/// [`SLEEP_REST`] and [`SLEEP_CALL`] as well.
pub const SLEEP_EVENTS: u32 =
    1 << SLEEP_RESPONSE | 1 << SLEEP_IDLE | 1 << SLEEP_SPIN | 1 << SLEEP_QUIET | 1 << SLEEP_HINT;

/// Number of the hypercall by which a guest gives a hint (`vmcall` or `vmmcall` with this in `eax`, one of
/// `HINT_*` in `ebx`). KVM itself answers `-KVM_ENOSYS`: whether the hint was taken is not told.
pub const HINT_HYPERCALL: u32 = 0x51EE_9000;
/// The guest has nothing to do.
pub const HINT_SLEEP: u32 = 0;
/// The guest has something to do.
pub const HINT_WAKE: u32 = 1;
/// Hints of one VM that are taken per second; more are counted in [`VmStats::hints_refused`].
pub const HINT_RATE: u64 = 1000;

/// Phase of a VM, index of [`VmStats::time`] and [`VmStats::oncpu`]: a request is in flight.
pub const PHASE_IN_FLIGHT: usize = 0;
/// Awake with nothing in flight.
pub const PHASE_IDLE: usize = 1;
/// Sleepy.
pub const PHASE_SLEEPY: usize = 2;
/// Number of phases.
pub const PHASES: usize = 3;

/// Buckets of a [`Histogram`].
pub const BUCKETS: usize = 160;

/// Times in a log2 histogram in which each power of two is split in four.
///
/// Bucket `b` counts the times `t`, in nanoseconds, with `t == b` for `b < 4`, otherwise with
/// `(4 + b % 4) << (b / 4 - 1) <= t < (5 + b % 4) << (b / 4 - 1)`. The last bucket also has all that is longer.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Histogram {
    /// Number of times in each bucket.
    pub buckets: [u64; BUCKETS],
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: [0; BUCKETS],
        }
    }
}

/// Times of the last request that came into flight, in nanoseconds of `CLOCK_MONOTONIC`; 0 if there was none, or not
/// yet. Written one by one: while a request comes, some may be of the one before.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Last {
    /// When it was seen.
    pub request: u64,
    /// When, from then on, a vCPU was first on a CPU: `request`, if one was already.
    pub ran: u64,
    /// When its first response was seen.
    pub response: u64,
}

/// Argument of [`IOC_VM_STATS`]. Everything counts from when the VM was added.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct VmStats {
    /// Which VM.
    pub id: u32,
    /// Zero.
    pub reserved: u32,
    /// Out: packets of class request to the VM.
    pub requests: u64,
    /// Out: packets of class response from the VM.
    pub responses: u64,
    /// Out: flows closed while in flight.
    pub closed: u64,
    /// Out: flows that were in flight for `request_timeout`.
    pub timeouts: u64,
    /// Out: requests that found the flow table full.
    pub overflows: u64,
    /// Out: packets of class request that the VM sent.
    pub calls: u64,
    /// Out: packets of class response that it got.
    pub answers: u64,
    /// Out: hints that came too fast to be taken.
    pub hints_refused: u64,
    /// Out: wake-ups by cause, `WAKE_*`.
    pub wakes: [u64; 16],
    /// Out: times it fell asleep by cause, `SLEEP_*`.
    pub sleeps: [u64; 16],
    /// Out: time in each phase, `PHASE_*`.
    pub time: [u64; PHASES],
    /// Out: on-CPU time of all vCPUs in each phase. The paper's idle time is all but [`PHASE_IN_FLIGHT`].
    pub oncpu: [u64; PHASES],
    /// Out: from a request seen to the first vCPU on a CPU; zero where one was on it already.
    pub trigger: Histogram,
    /// Out: from a request seen to its first response.
    pub exec: Histogram,
    /// Out: from when what wakes it was seen until its weight is back, or it is no longer parked. Not with [`LEVER_OBSERVE`].
    pub effect: Histogram,
    /// Out: times of the last request.
    pub last: Last,
}

const TYPE: u32 = 0xB9;
const WRITE: u32 = 1;
const READ: u32 = 2;

const fn ioc<T>(direction: u32, number: u32) -> u32 {
    direction << 30 | (core::mem::size_of::<T>() as u32) << 16 | TYPE << 8 | number
}

/// What this module is and can do.
pub const IOC_INFO: u32 = ioc::<Info>(READ, 0);
/// Adds a VM.
pub const IOC_VM_ADD: u32 = ioc::<VmAdd>(READ | WRITE, 1);
/// Removes a VM; its threads are as they were before.
pub const IOC_VM_REMOVE: u32 = ioc::<VmRemove>(WRITE, 2);
/// Replaces a VM's policy, its rules, or both. Each packet is held against the old rules or the new ones, whole; what is
/// in flight stays so.
pub const IOC_VM_SET: u32 = ioc::<VmSet>(READ | WRITE, 3);
/// What a VM is like.
pub const IOC_VM_GET: u32 = ioc::<VmGet>(READ | WRITE, 4);
/// A VM's statistics.
pub const IOC_VM_STATS: u32 = ioc::<VmStats>(READ | WRITE, 5);
/// A VM's vCPU threads.
pub const IOC_VM_VCPUS: u32 = ioc::<VmArray>(READ | WRITE, 6);
/// A VM's links.
pub const IOC_VM_LINKS: u32 = ioc::<VmArray>(READ | WRITE, 7);
/// A VM's rules.
pub const IOC_VM_RULES: u32 = ioc::<VmArray>(READ | WRITE, 8);

/// Every call; their numbers are without gaps, from 0.
pub const CALLS: [u32; 9] = [
    IOC_INFO,
    IOC_VM_ADD,
    IOC_VM_REMOVE,
    IOC_VM_SET,
    IOC_VM_GET,
    IOC_VM_STATS,
    IOC_VM_VCPUS,
    IOC_VM_LINKS,
    IOC_VM_RULES,
];
