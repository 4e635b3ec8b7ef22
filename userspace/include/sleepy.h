/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/*
 * Generated from src/uapi.rs: change that file, then run
 * `cargo run -p sleepy-header` in userspace/.
 */
/*
 * The ioctl ABI of /dev/sleepy.
 *
 * All times are nanoseconds unless said otherwise. All calls need CAP_SYS_NICE and CAP_NET_ADMIN in
 * the initial user namespace, at open and again in every call.
 *
 * Errors:
 *
 * EPERM     a capability is missing
 * ENOTTY    no such call
 * EMSGSIZE  a known call, with an argument of another size than this ABI's
 * EINVAL    a reserved field is not zero, or a value is out of range; see sleepy_vm_add.fault
 * EFAULT    a pointer is bad
 * ENOENT    no VM has this id
 * EEXIST    the name is taken
 * ESRCH     no such process, or it has the VM no more
 * EAGAIN    each thread of the process that was looked at was about to end: try again
 * ESTALE    the process is not the one that started at start_time
 * ENODEV    the process has no KVM virtual machine (fault is SLEEPY_FAULT_HANDLE), or there is no
 *           such link (SLEEPY_FAULT_LINK)
 * ENOTUNIQ  the process has several virtual machines: pass vm_fd
 * EBADF     vm_fd is not an open descriptor, or not a KVM virtual machine's; netns_fd or prog_fd is
 *           not open; or group_fd is not, or no control group's
 * EXDEV     vm_fd is a virtual machine of another process
 * EALREADY  this virtual machine was added before, under another name
 * EBUSY     the link, or the control group, belongs to another VM
 * EOPNOTSUPP the link has no Ethernet header; the control group has no CPU weight
 *           (SLEEPY_FAULT_GROUP); or the policy wants an event that this kernel does not show
 *           (SLEEPY_FAULT_POLICY, see sleepy_info.sleep_on)
 * E2BIG     too many links or rules, or a rule's text is too long
 * ENOSPC    too many VMs
 * ENOMEM    out of memory
 */
#ifndef _SLEEPY_H
#define _SLEEPY_H

#include <linux/ioctl.h>
#include <linux/types.h>

/* Version of this ABI, as reported by SLEEPY_IOC_INFO. */
#define SLEEPY_ABI_VERSION 1

/* Size of a VM's name, with its terminating NUL. */
#define SLEEPY_NAME_SIZE 32

/* Size of a link's name, with its terminating NUL (the kernel's IFNAMSIZ). */
#define SLEEPY_LINK_NAME_SIZE 16

/* The most VMs that can be registered. */
#define SLEEPY_MAX_VMS 16384

/* The most links of one VM. */
#define SLEEPY_MAX_LINKS 16

/* The most rules of one VM. */
#define SLEEPY_MAX_RULES 64

/* The most vCPU threads of one VM that anything is done to: more are left as they are. */
#define SLEEPY_MAX_VCPUS 256

/* The most classic BPF instructions of one filter (the kernel's BPF_MAXINSNS). */
#define SLEEPY_MAX_INSNS 4096

/* The longest text of a rule, in bytes. */
#define SLEEPY_MAX_TEXT 1024

/* The longest time, in nanoseconds, for any field of sleepy_policy: one hour. */
#define SLEEPY_MAX_TIME 3600000000000

/* The shortest request_timeout, max_sleep, quiet and spin, in nanoseconds: one millisecond. */
#define SLEEPY_MIN_TIMEOUT 1000000

/* boost_budget is at least boost_period by two to the power of this: about a thousandth. */
#define SLEEPY_BOOST_SHIFT 10

/* The most that sleepy_weight can be. */
#define SLEEPY_MAX_WEIGHT 10000

/* The shortest stir_run, in nanoseconds. */
#define SLEEPY_MIN_STIR 50000

/* Lever: measure everything, change nothing. */
#define SLEEPY_LEVER_OBSERVE 0

/* Lever: the nice value of the vCPU threads. */
#define SLEEPY_LEVER_NICE 1

/* Lever: the vCPU threads of a sleepy VM have the policy SCHED_IDLE. */
#define SLEEPY_LEVER_IDLE 2

/* Lever: the weight of the VM's control group, which is passed as group_fd. */
#define SLEEPY_LEVER_GROUP 3

/*
 * Lever: the vCPU threads of a sleepy VM wait in place of running, for sleepy_policy.park_max at
 * most, or until KVM would wake a halted vCPU; then they run for sleepy_policy.stir_run.
 */
#define SLEEPY_LEVER_PARK 4

/*
 * sleepy_policy.flags: while a request is in flight, the threads run at boost_nice. Not with
 * SLEEPY_LEVER_IDLE.
 */
#define SLEEPY_POLICY_BOOST (1 << 0)

/*
 * sleepy_policy.flags: for the caller's own use, read back as it is: the lever was chosen for the
 * user.
 */
#define SLEEPY_POLICY_AUTO (1 << 1)

/*
 * A packet that asks for something and puts its flow in flight. To the VM: wakes it. From the VM:
 * it calls somebody else, and may sleep until the answer comes, whether it has one request in
 * flight itself or none.
 */
#define SLEEPY_CLASS_REQUEST 0

/* A packet that answers: takes its flow out of flight. To the VM: wakes it. */
#define SLEEPY_CLASS_RESPONSE 1

/* A packet that ends its flow (a reset, the last FIN): takes it out of flight, and is no answer. */
#define SLEEPY_CLASS_CLOSE 2

/* A packet that means nothing (a bare acknowledgement, noise): it neither wakes nor counts. */
#define SLEEPY_CLASS_IGNORE 3

/* A packet that wakes the VM, without a flow. */
#define SLEEPY_CLASS_WAKE 4

/* A packet after which the VM may sleep, unless something is in flight. */
#define SLEEPY_CLASS_SLEEP 5

/*
 * The eBPF program says: it returns one of SLEEPY_CLASS_* above plus one, or 0 for a packet that it
 * does not know.
 */
#define SLEEPY_CLASS_PROGRAM 6

/* Direction of a rule: packets that the host sends to the VM. */
#define SLEEPY_TO_VM (1 << 0)

/* Direction of a rule: packets that the VM sends. */
#define SLEEPY_FROM_VM (1 << 1)

/* State of a VM: it has its full weight. */
#define SLEEPY_STATE_AWAKE 0

/* State of a VM: its weight is taken away. */
#define SLEEPY_STATE_SLEEPY 1

/* sleepy_vm_add.fault: nothing in particular. */
#define SLEEPY_FAULT_NONE 0

/* The name: empty, not terminated, not printable ASCII without blanks and /, or taken. */
#define SLEEPY_FAULT_NAME 1

/* The process or the virtual machine. */
#define SLEEPY_FAULT_HANDLE 2

/* The policy. */
#define SLEEPY_FAULT_POLICY 3

/* The link with the index fault_index. */
#define SLEEPY_FAULT_LINK 4

/* The rule with the index fault_index. */
#define SLEEPY_FAULT_RULE 5

/* The control group. */
#define SLEEPY_FAULT_GROUP 6

/* sleepy_vm_set.flags: the policy. */
#define SLEEPY_SET_POLICY (1 << 0)

/* sleepy_vm_set.flags: the rules. */
#define SLEEPY_SET_RULES (1 << 1)

/*
 * sleepy_vm_get.flags_out: an administrator has changed the control group's weight meanwhile; it is
 * left alone.
 */
#define SLEEPY_VM_GROUP_FOREIGN (1 << 0)

/* sleepy_vm_get.flags_out: a vCPU thread is in another control group. */
#define SLEEPY_VM_GROUP_LEFT (1 << 1)

/* sleepy_vm_get.flags: the VM with the lowest id that is id or above, to list them all. */
#define SLEEPY_GET_NEXT (1 << 0)

/* sleepy_vcpu.flags: the notifier is in place; on-CPU time is measured. */
#define SLEEPY_VCPU_ATTACHED (1 << 0)

/* sleepy_vcpu.flags: on a CPU now. */
#define SLEEPY_VCPU_ON_CPU (1 << 1)

/*
 * sleepy_vcpu.flags: an administrator changed this thread's nice value meanwhile; it is left alone.
 */
#define SLEEPY_VCPU_FOREIGN (1 << 2)

/*
 * sleepy_vcpu.flags: sleepy has changed this thread's nice value, and will restore it to baseline.
 */
#define SLEEPY_VCPU_MOVED (1 << 3)

/* Causes of a wake-up, indices of sleepy_vm_stats.wakes: a request. */
#define SLEEPY_WAKE_REQUEST 0

/* max_sleep was over. */
#define SLEEPY_WAKE_STIR 1

/* A link went away, or the policy was set. */
#define SLEEPY_WAKE_ADMIN 2

/* A packet to the VM that no rule ignores. */
#define SLEEPY_WAKE_PACKET 3

/* A packet of SLEEPY_CLASS_WAKE. */
#define SLEEPY_WAKE_RULE 4

/* A device's interrupt for the VM. */
#define SLEEPY_WAKE_INTERRUPT 5

/* A timer of the guest. */
#define SLEEPY_WAKE_TIMER 6

/* One vCPU interrupts another. */
#define SLEEPY_WAKE_IPI 7

/* An interrupt that another process than the VMM has raised: a doorbell, a back end of its own. */
#define SLEEPY_WAKE_DOORBELL 8

/* The guest asks for it, see SLEEPY_HINT_HYPERCALL. */
#define SLEEPY_WAKE_HINT 9

/* The answer to a call of the VM itself came, the call was closed or lost, or the VM sends one. */
#define SLEEPY_WAKE_ANSWER 10

/* Number of causes that have a name. */
#define SLEEPY_WAKE_CAUSES 11

/* What sleepy_policy.wake_on may have. SLEEPY_WAKE_REQUEST stands for answers as well. */
#define SLEEPY_WAKE_EVENTS (((((((1 << SLEEPY_WAKE_REQUEST) | (1 << SLEEPY_WAKE_PACKET)) | (1 << SLEEPY_WAKE_INTERRUPT)) | (1 << SLEEPY_WAKE_TIMER)) | (1 << SLEEPY_WAKE_IPI)) | (1 << SLEEPY_WAKE_DOORBELL)) | (1 << SLEEPY_WAKE_HINT))

/*
 * Causes of falling asleep, indices of sleepy_vm_stats.sleeps: nothing is in flight, and linger has
 * gone by, after the last answer.
 */
#define SLEEPY_SLEEP_RESPONSE 0

/* As SLEEPY_SLEEP_RESPONSE, after the last flow in flight was closed or reset. */
#define SLEEPY_SLEEP_CLOSE 1

/*
 * As SLEEPY_SLEEP_RESPONSE, after the last flow in flight was given up: it was older than
 * request_timeout.
 */
#define SLEEPY_SLEEP_TIMEOUT 2

/* Nothing came within linger after it was woken by something else than a request, or was added. */
#define SLEEPY_SLEEP_REST 3

/* Every vCPU has halted. */
#define SLEEPY_SLEEP_IDLE 4

/* A vCPU burns CPU time without I/O. */
#define SLEEPY_SLEEP_SPIN 5

/* Neither a packet nor device I/O for quiet. */
#define SLEEPY_SLEEP_QUIET 6

/* The guest says so, see SLEEPY_HINT_HYPERCALL. */
#define SLEEPY_SLEEP_HINT 7

/* A packet of SLEEPY_CLASS_SLEEP. */
#define SLEEPY_SLEEP_RULE 8

/* The VM waits for the answer to a call of its own. */
#define SLEEPY_SLEEP_CALL 9

/* Number of causes that have a name. */
#define SLEEPY_SLEEP_CAUSES 10

/*
 * What sleepy_policy.sleep_on may have. SLEEPY_SLEEP_RESPONSE stands for SLEEPY_SLEEP_CLOSE,
 * SLEEPY_SLEEP_TIMEOUT, SLEEPY_SLEEP_REST and SLEEPY_SLEEP_CALL as well.
 */
#define SLEEPY_SLEEP_EVENTS (((((1 << SLEEPY_SLEEP_RESPONSE) | (1 << SLEEPY_SLEEP_IDLE)) | (1 << SLEEPY_SLEEP_SPIN)) | (1 << SLEEPY_SLEEP_QUIET)) | (1 << SLEEPY_SLEEP_HINT))

/*
 * Number of the hypercall by which a guest gives a hint (vmcall or vmmcall with this in eax, one of
 * SLEEPY_HINT_* in ebx). KVM itself answers -KVM_ENOSYS: whether the hint was taken is not told.
 */
#define SLEEPY_HINT_HYPERCALL 1374588928

/* The guest has nothing to do. */
#define SLEEPY_HINT_SLEEP 0

/* The guest has something to do. */
#define SLEEPY_HINT_WAKE 1

/* Hints of one VM that are taken per second; more are counted in sleepy_vm_stats.hints_refused. */
#define SLEEPY_HINT_RATE 1000

/*
 * Phase of a VM, index of sleepy_vm_stats.time and sleepy_vm_stats.oncpu: a request is in flight.
 */
#define SLEEPY_PHASE_IN_FLIGHT 0

/* Awake with nothing in flight. */
#define SLEEPY_PHASE_IDLE 1

/* Sleepy. */
#define SLEEPY_PHASE_SLEEPY 2

/* Number of phases. */
#define SLEEPY_PHASES 3

/* Buckets of a sleepy_histogram. */
#define SLEEPY_BUCKETS 160

/* How a VM sleeps and wakes. */
struct sleepy_policy {
	/*
	 * How long a VM stays awake after its last answer, and after whatever else has woken it;
	 * and for how long it must have been idle for SLEEPY_SLEEP_IDLE.
	 */
	__aligned_u64 linger;
	/* After this time a request counts as lost. At least SLEEPY_MIN_TIMEOUT. */
	__aligned_u64 request_timeout;
	/*
	 * After this time a sleepy VM is awake for linger, whatever happens. At least
	 * SLEEPY_MIN_TIMEOUT.
	 */
	__aligned_u64 max_sleep;
	/*
	 * For SLEEPY_SLEEP_QUIET: how long there is neither a packet nor device I/O. At least
	 * SLEEPY_MIN_TIMEOUT.
	 */
	__aligned_u64 quiet;
	/*
	 * For SLEEPY_SLEEP_SPIN: how long its vCPUs, together, are on a CPU without I/O. At least
	 * SLEEPY_MIN_TIMEOUT.
	 */
	__aligned_u64 spin;
	/* For SLEEPY_WAKE_TIMER: how long after a guest's timer the VM may stay sleepy. */
	__aligned_u64 timer_slack;
	/*
	 * For SLEEPY_LEVER_PARK: how long a vCPU thread waits at most. At least SLEEPY_MIN_TIMEOUT.
	 */
	__aligned_u64 park_max;
	/*
	 * For SLEEPY_LEVER_PARK: for how long it then runs. At least SLEEPY_MIN_STIR, at most
	 * park_max.
	 */
	__aligned_u64 stir_run;
	/*
	 * With SLEEPY_POLICY_BOOST: in each time this long, a VM is boosted for no longer than
	 * boost_budget; what it has had too much is missing from the next ones. At least
	 * SLEEPY_MIN_TIMEOUT, or 0 for no limit.
	 */
	__aligned_u64 boost_period;
	/*
	 * How long a VM may be boosted in each boost_period, at most that, and see
	 * SLEEPY_BOOST_SHIFT. 0 without one.
	 */
	__aligned_u64 boost_budget;
	/* One of SLEEPY_LEVER_*. */
	__u32 lever;
	/*
	 * For SLEEPY_LEVER_NICE: nice value of a sleepy VM's threads, -20 to 19; used if it is
	 * above a thread's own.
	 */
	__s32 sleepy_nice;
	/*
	 * Nice value while a request is in flight, with SLEEPY_POLICY_BOOST; used if it is below a
	 * thread's own. Zero without.
	 */
	__s32 boost_nice;
	/* SLEEPY_POLICY_* bits. */
	__u32 flags;
	/* What lets it sleep: bits of SLEEPY_SLEEP_EVENTS. */
	__u32 sleep_on;
	/*
	 * What wakes it, besides rules of SLEEPY_CLASS_WAKE, max_sleep, and changes by the
	 * administrator: bits of SLEEPY_WAKE_EVENTS.
	 */
	__u32 wake_on;
	/*
	 * For SLEEPY_LEVER_GROUP: weight of a sleepy VM's control group (cpu.weight, or
	 * cpu.shares), used if it is below the group's own; or 0 for cpu.idle. At most
	 * SLEEPY_MAX_WEIGHT.
	 */
	__u32 sleepy_weight;
	/* Zero. */
	__u32 reserved;
};

/*
 * One rule: packets of direction that insns accepts are of class. The first rule that matches
 * counts.
 */
struct sleepy_rule {
	/* One of SLEEPY_CLASS_*. */
	__u32 class_;
	/* SLEEPY_TO_VM, SLEEPY_FROM_VM or both. */
	__u32 direction;
	/* Number of instructions, 1 to SLEEPY_MAX_INSNS; 0 with SLEEPY_CLASS_PROGRAM. */
	__u32 len;
	/* For the caller's own use, read back as it is. */
	__u32 tag;
	/*
	 * Address of len classic BPF instructions (struct sock_filter), which see the packet from
	 * its Ethernet header on, as a packet socket on the link would. Nonzero means: accept. Zero
	 * with SLEEPY_CLASS_PROGRAM.
	 */
	__aligned_u64 insns;
	/* Address of text_len bytes for the caller's own use, read back as they are. */
	__aligned_u64 text;
	/* At most SLEEPY_MAX_TEXT. */
	__u32 text_len;
	/*
	 * With SLEEPY_CLASS_PROGRAM: descriptor of an eBPF program of type
	 * BPF_PROG_TYPE_SOCKET_FILTER. Zero without.
	 */
	__s32 prog_fd;
};

/* One rule, as SLEEPY_IOC_VM_RULES writes it. */
struct sleepy_vm_rule {
	/* See sleepy_rule.class. */
	__u32 class_;
	/* See sleepy_rule.direction. */
	__u32 direction;
	/* See sleepy_rule.tag. */
	__u32 tag;
	/* The eBPF program's id, 0 without. */
	__u32 prog_id;
	/* Length of text. */
	__u32 text_len;
	/* Zero. */
	__u32 reserved;
	/* See sleepy_rule.text; the rest is zero. */
	__u8 text[SLEEPY_MAX_TEXT];
};

/* A link to add. */
struct sleepy_link {
	/* Descriptor of the network namespace that the device is in. */
	__s32 netns_fd;
	/* Interface index in that namespace. */
	__u32 ifindex;
};

/* Argument of SLEEPY_IOC_INFO. */
struct sleepy_info {
	/* SLEEPY_ABI_VERSION. */
	__u32 version;
	/* SLEEPY_MAX_VMS. */
	__u32 max_vms;
	/* SLEEPY_MAX_LINKS. */
	__u32 max_links;
	/* SLEEPY_MAX_RULES. */
	__u32 max_rules;
	/* SLEEPY_MAX_INSNS. */
	__u32 max_insns;
	/* How many VMs there are. */
	__u32 vms;
	/* One bit for each lever: 1 << SLEEPY_LEVER_*. */
	__aligned_u64 levers;
	/* The events of SLEEPY_SLEEP_EVENTS that this kernel lets the module see. */
	__u32 sleep_on;
	/* The events of SLEEPY_WAKE_EVENTS that this kernel lets the module see. */
	__u32 wake_on;
	/* Zero. */
	__aligned_u64 reserved[4];
};

/* Argument of SLEEPY_IOC_VM_ADD. All or nothing: after an error, nothing has changed. */
struct sleepy_vm_add {
	/* Unique name, padded with at least one NUL: printable ASCII without blanks and /. */
	__u8 name[SLEEPY_NAME_SIZE];
	/* The VMM's process, in the caller's PID namespace. */
	__u32 pid;
	/*
	 * A descriptor of the KVM virtual machine (from the VMM by pidfd_getfd(2)), or -1 for the
	 * only one that the process has. It is not kept.
	 */
	__s32 vm_fd;
	/*
	 * When that process started, in clock ticks after boot: field 22 of /proc/PID/stat, as the
	 * initial time namespace has it.
	 */
	__aligned_u64 start_time;
	/* How it sleeps and wakes. */
	struct sleepy_policy policy;
	/* Address of n_links sleepy_links. */
	__aligned_u64 links;
	/* Address of n_rules sleepy_rules. */
	__aligned_u64 rules;
	/* Number of links, at most SLEEPY_MAX_LINKS. */
	__u32 n_links;
	/* Number of rules, at most SLEEPY_MAX_RULES. */
	__u32 n_rules;
	/* Out: the VM's id, never used again for another. */
	__u32 id;
	/* Out, after an error: what is wrong, one of SLEEPY_FAULT_*. */
	__u32 fault;
	/* Out, after an error: the index of the link or rule. */
	__u32 fault_index;
	/*
	 * With SLEEPY_LEVER_GROUP: descriptor of the VM's control group, a directory of a cgroup
	 * file system. -1 without. It may be closed afterwards.
	 */
	__s32 group_fd;
};

/* Argument of SLEEPY_IOC_VM_REMOVE. */
struct sleepy_vm_remove {
	/* Which VM. */
	__u32 id;
	/* Zero. */
	__u32 reserved;
};

/* Argument of SLEEPY_IOC_VM_SET. All or nothing: after an error, nothing has changed. */
struct sleepy_vm_set {
	/* Which VM. */
	__u32 id;
	/* What is replaced: SLEEPY_SET_* bits. */
	__u32 flags;
	/* The new policy, whole. */
	struct sleepy_policy policy;
	/* Address of n_rules sleepy_rules, all of the new ones. */
	__aligned_u64 rules;
	/* Number of rules, at most SLEEPY_MAX_RULES. */
	__u32 n_rules;
	/* Out, after an error: what is wrong, one of SLEEPY_FAULT_*. */
	__u32 fault;
	/* Out, after an error: the index of the rule. */
	__u32 fault_index;
	/* As sleepy_vm_add.group_fd, for the new policy. */
	__s32 group_fd;
};

/* Argument of SLEEPY_IOC_VM_GET. */
struct sleepy_vm_get {
	/* Which VM; with SLEEPY_GET_NEXT also out. */
	__u32 id;
	/* SLEEPY_GET_NEXT or zero. */
	__u32 flags;
	/* Out: its name. */
	__u8 name[SLEEPY_NAME_SIZE];
	/* Out: the VMM's process in the caller's PID namespace, 0 if it is not in there. */
	__u32 pid;
	/* Out: one of SLEEPY_STATE_*. */
	__u32 state;
	/* Out: see sleepy_vm_add.start_time. */
	__aligned_u64 start_time;
	/* Out: its policy. */
	struct sleepy_policy policy;
	/* Out: requests to the VM in flight. */
	__u32 in_flight;
	/* Out: vCPUs whose threads are known, up to SLEEPY_MAX_VCPUS, and up to 8 of one thread. */
	__u32 n_vcpus;
	/* Out: links. */
	__u32 n_links;
	/* Out: rules. */
	__u32 n_rules;
	/* Out: links that were there and are gone. With one, the VM is kept awake. */
	__u32 lost_links;
	/* Out: requests of the VM itself in flight. */
	__u32 calls;
	/* Out: inode of its control group's directory, with SLEEPY_LEVER_GROUP. */
	__aligned_u64 group;
	/* Out: SLEEPY_VM_* bits. */
	__u32 flags_out;
	/* Zero. */
	__u32 reserved;
};

/* One vCPU thread, as SLEEPY_IOC_VM_VCPUS writes it. */
struct sleepy_vcpu {
	/* Number of the vCPU, as KVM counts. */
	__u32 index;
	/* Thread id in the caller's PID namespace, 0 if it is not in there. */
	__u32 tid;
	/* Nice value now. */
	__s32 nice;
	/* Nice value before sleepy changed it, and after it is done. */
	__s32 baseline;
	/* SLEEPY_VCPU_* bits. */
	__u32 flags;
	/* Scheduling policy now: SCHED_* of sched(7). */
	__u32 policy;
	/* Time on a CPU since the notifier is in place. */
	__aligned_u64 oncpu;
	/* How often it lost its CPU while it could run. */
	__aligned_u64 preempted;
	/* How often it left its CPU because the guest had halted. */
	__aligned_u64 halted;
	/*
	 * How often it left its CPU for another reason (it waited in the VMM, for a page, for a
	 * lock).
	 */
	__aligned_u64 blocked;
	/* How often it gave up its turn on its CPU to a VM that is awake. */
	__aligned_u64 yielded;
	/* How often it was parked. */
	__aligned_u64 parked;
};

/* One link, as SLEEPY_IOC_VM_LINKS writes it. */
struct sleepy_vm_link {
	/* Interface index in its network namespace. */
	__u32 ifindex;
	/* Zero. */
	__u32 reserved;
	/* Inode of its network namespace. */
	__aligned_u64 netns;
	/* Its name now. */
	__u8 name[SLEEPY_LINK_NAME_SIZE];
};

/* Argument of SLEEPY_IOC_VM_VCPUS, SLEEPY_IOC_VM_LINKS and SLEEPY_IOC_VM_RULES. */
struct sleepy_vm_array {
	/* Which VM. */
	__u32 id;
	/* In: room at items. Out: how many there are; at most the room was written. */
	__u32 count;
	/* Address of count sleepy_vcpus, sleepy_vm_links or sleepy_vm_rules. */
	__aligned_u64 items;
};

/*
 * Times in a log2 histogram in which each power of two is split in four.
 *
 * Bucket b counts the times t, in nanoseconds, with t == b for b < 4, otherwise with (4 + b % 4) <<
 * (b / 4 - 1) <= t < (5 + b % 4) << (b / 4 - 1). The last bucket also has all that is longer.
 */
struct sleepy_histogram {
	/* Number of times in each bucket. */
	__aligned_u64 buckets[SLEEPY_BUCKETS];
};

/*
 * Times of the last request that came into flight, in nanoseconds of CLOCK_MONOTONIC; 0 if there
 * was none, or not yet. Written one by one: while a request comes, some may be of the one before.
 */
struct sleepy_last {
	/* When it was seen. */
	__aligned_u64 request;
	/* When, from then on, a vCPU was first on a CPU: request, if one was already. */
	__aligned_u64 ran;
	/* When its first response was seen. */
	__aligned_u64 response;
};

/* Argument of SLEEPY_IOC_VM_STATS. Everything counts from when the VM was added. */
struct sleepy_vm_stats {
	/* Which VM. */
	__u32 id;
	/* Zero. */
	__u32 reserved;
	/* Out: packets of class request to the VM. */
	__aligned_u64 requests;
	/* Out: packets of class response from the VM. */
	__aligned_u64 responses;
	/* Out: flows closed while in flight. */
	__aligned_u64 closed;
	/* Out: flows that were in flight for request_timeout. */
	__aligned_u64 timeouts;
	/* Out: requests that found the flow table full. */
	__aligned_u64 overflows;
	/* Out: packets of class request that the VM sent. */
	__aligned_u64 calls;
	/* Out: packets of class response that it got. */
	__aligned_u64 answers;
	/* Out: hints that came too fast to be taken. */
	__aligned_u64 hints_refused;
	/* Out: wake-ups by cause, SLEEPY_WAKE_*. */
	__aligned_u64 wakes[16];
	/* Out: times it fell asleep by cause, SLEEPY_SLEEP_*. */
	__aligned_u64 sleeps[16];
	/* Out: time in each phase, SLEEPY_PHASE_*. */
	__aligned_u64 time[SLEEPY_PHASES];
	/*
	 * Out: on-CPU time of all vCPUs in each phase. The paper's idle time is all but
	 * SLEEPY_PHASE_IN_FLIGHT.
	 */
	__aligned_u64 oncpu[SLEEPY_PHASES];
	/* Out: from a request seen to the first vCPU on a CPU; zero where one was on it already. */
	struct sleepy_histogram trigger;
	/* Out: from a request seen to its first response. */
	struct sleepy_histogram exec;
	/*
	 * Out: from when what wakes it was seen until its weight is back, or it is no longer
	 * parked. Not with SLEEPY_LEVER_OBSERVE.
	 */
	struct sleepy_histogram effect;
	/* Out: times of the last request. */
	struct sleepy_last last;
};

#define SLEEPY_TYPE 0xB9

/* What this module is and can do. */
#define SLEEPY_IOC_INFO _IOR(SLEEPY_TYPE, 0, struct sleepy_info)

/* Adds a VM. */
#define SLEEPY_IOC_VM_ADD _IOWR(SLEEPY_TYPE, 1, struct sleepy_vm_add)

/* Removes a VM; its threads are as they were before. */
#define SLEEPY_IOC_VM_REMOVE _IOW(SLEEPY_TYPE, 2, struct sleepy_vm_remove)

/*
 * Replaces a VM's policy, its rules, or both. Each packet is held against the old rules or the new
 * ones, whole; what is in flight stays so.
 */
#define SLEEPY_IOC_VM_SET _IOWR(SLEEPY_TYPE, 3, struct sleepy_vm_set)

/* What a VM is like. */
#define SLEEPY_IOC_VM_GET _IOWR(SLEEPY_TYPE, 4, struct sleepy_vm_get)

/* A VM's statistics. */
#define SLEEPY_IOC_VM_STATS _IOWR(SLEEPY_TYPE, 5, struct sleepy_vm_stats)

/* A VM's vCPU threads. */
#define SLEEPY_IOC_VM_VCPUS _IOWR(SLEEPY_TYPE, 6, struct sleepy_vm_array)

/* A VM's links. */
#define SLEEPY_IOC_VM_LINKS _IOWR(SLEEPY_TYPE, 7, struct sleepy_vm_array)

/* A VM's rules. */
#define SLEEPY_IOC_VM_RULES _IOWR(SLEEPY_TYPE, 8, struct sleepy_vm_array)

#endif /* _SLEEPY_H */
