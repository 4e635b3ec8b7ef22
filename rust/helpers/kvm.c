// SPDX-License-Identifier: GPL-2.0-only
/* VMs and vCPUs of KVM, and a wait in place of running the guest. */

#include <linux/fs.h>
#include <linux/kvm_host.h>
#include <linux/magic.h>
#include <linux/module.h>
#include <linux/sched.h>

#include "helpers.h"

/* What a guest's watchdogs, which count in seconds, should know of. */
#define LONG_PARK_MS 100

/*
 * The VM behind a descriptor of a VM or of a vCPU, or NULL. KVM exports no way
 * to tell, but it names its anonymous inodes, whose names user space cannot
 * choose, and the file operations belong to the module with the processor's
 * half of KVM (to none where KVM is built in). A descriptor by O_PATH has the
 * name, and nothing behind it.
 */
struct kvm *sleepy_kvm_of_file(const struct file *file)
{
	struct module *owner = file->f_op->owner;
	const char *name;

	if (file->f_mode & FMODE_PATH)
		return NULL;
	if (file_inode(file)->i_sb->s_magic != ANON_INODE_FS_MAGIC)
		return NULL;
	if (owner && strncmp(module_name(owner), "kvm", 3))
		return NULL;
	name = file->f_path.dentry->d_name.name;
	if (!strcmp(name, "kvm-vm"))
		return file->private_data;
	/* "kvm-vcpu:N", but not "kvm-vcpu-stats:N" */
	if (!strncmp(name, "kvm-vcpu:", 9))
		return ((struct kvm_vcpu *)file->private_data)->kvm;
	return NULL;
}

const struct mm_struct *sleepy_kvm_mm(const struct kvm *kvm)
{
	return kvm->mm;
}

unsigned int sleepy_kvm_vcpus(const struct kvm *kvm)
{
	return atomic_read(&kvm->online_vcpus);
}

/*
 * The thread that last ran a vCPU, with a reference, or NULL if none has yet.
 * *@vcpu gets the vCPU's address: a name for sleepy_current_is_halted().
 */
struct task_struct *sleepy_kvm_vcpu_task(struct kvm *kvm, unsigned int index,
					 unsigned long *vcpu)
{
	struct kvm_vcpu *v = NULL;
	struct task_struct *task;

	if (index < atomic_read(&kvm->online_vcpus)) {
		/* Pairs with KVM's smp_wmb() before it counts a new vCPU. */
		smp_rmb();
		v = xa_load(&kvm->vcpu_array, index);
	}
	if (!v)
		return NULL;
	*vcpu = (unsigned long)v;
	read_lock(&v->pid_lock);
	task = get_pid_task(v->pid, PIDTYPE_PID);
	read_unlock(&v->pid_lock);
	return task;
}

/*
 * That vCPU, if this thread is inside KVM_RUN of it. While KVM has the vCPU
 * loaded in this thread, its own notifier is among the thread's: only then is
 * the address looked into.
 */
static struct kvm_vcpu *loaded(unsigned long vcpu)
{
	const struct preempt_notifier *notifier;

	hlist_for_each_entry(notifier, &current->preempt_notifiers, link) {
		if ((unsigned long)notifier ==
		    vcpu + offsetof(struct kvm_vcpu, preempt_notifier))
			return (struct kvm_vcpu *)vcpu;
	}
	return NULL;
}

/* Whether this thread is inside KVM_RUN of that vCPU, and the guest has halted. */
bool sleepy_current_is_halted(unsigned long vcpu)
{
	const struct kvm_vcpu *v = loaded(vcpu);

	return v && READ_ONCE(v->stat.generic.blocking);
}

/* How many interrupts KVM has injected, not those that the CPU delivers by itself. */
u64 sleepy_kvm_injections(unsigned long vcpu)
{
	const struct kvm_vcpu *v = loaded(vcpu);

	return v ? READ_ONCE(v->stat.irq_injections) : 0;
}

/* The guest's watchdogs count from now on, as after KVM_KVMCLOCK_CTRL. */
static void forgive(struct kvm_vcpu *v)
{
	if (!v->arch.pv_time.active)
		return;
	v->arch.pvclock_set_guest_stopped_request = true;
	kvm_make_request(KVM_REQ_CLOCK_UPDATE, v);
}

/* Whether there is an interrupt for the vCPU, other than its own timer's. */
static bool has_event(struct kvm_vcpu *v)
{
	return kvm_test_request(KVM_REQ_EVENT, v) ||
	       kvm_test_request(KVM_REQ_NMI, v) ||
	       kvm_test_request(KVM_REQ_SMI, v);
}

/*
 * Waits as KVM does for a vCPU that has halted: what would wake that wakes this.
 * With @pending, only if there is no event for the vCPU already. Of many more
 * requests, KVM has one or the other at any time, which can wait.
 */
unsigned int sleepy_kvm_park(unsigned long vcpu, u64 until, bool pending,
			     unsigned int (*look)(void *data), void *data)
{
	struct kvm_vcpu *v = loaded(vcpu);
	ktime_t expires = ns_to_ktime(until), began = ktime_get();
	struct rcuwait *wait;
	unsigned long switches;
	unsigned int why;
	int status = -EINTR;
	bool woken = false, timer = false, event = false;

	if (!v)
		return SLEEPY_PARK_OUTSIDE;
	wait = kvm_arch_vcpu_get_wait(v);
	preempt_disable();
	prepare_to_rcuwait(wait);
	switches = current->nvcsw + current->nivcsw;
	preempt_enable();
	for (;; woken = true) {
		set_current_state(TASK_INTERRUPTIBLE);
		why = look(data);
		if (why != SLEEPY_PARK_ON)
			break;
		why = SLEEPY_PARK_SIGNAL;
		if (signal_pending(current))
			break;
		why = SLEEPY_PARK_OVER;
		if (!status)
			break;
		/* A tick of the vCPU's timer makes this request, and no other. */
		if (woken) {
			if (!timer && kvm_test_request(KVM_REQ_UNBLOCK, v) &&
			    (event || !has_event(v)))
				why = SLEEPY_PARK_TICK;
			else
				why = SLEEPY_PARK_KICKED;
			break;
		}
		timer = kvm_test_request(KVM_REQ_UNBLOCK, v);
		event = has_event(v);
		why = SLEEPY_PARK_PENDING;
		if (pending && (timer || event))
			break;
		status = schedule_hrtimeout_range(&expires, 50 * NSEC_PER_USEC,
						HRTIMER_MODE_ABS);
	}
	preempt_disable();
	finish_rcuwait(wait);
	/*
	 * A vCPU that is scheduled in while it waits is loaded without AVIC,
	 * which KVM catches up on where it ends such a wait itself.
	 */
	if (switches != current->nvcsw + current->nivcsw)
		v->preempt_notifier.ops->sched_in(&v->preempt_notifier,
						  smp_processor_id());
	preempt_enable();
	if (ktime_ms_delta(ktime_get(), began) >= LONG_PARK_MS)
		forgive(v);
	return why;
}

/* The module that a VM's or vCPU's file keeps loaded, or NULL if KVM is built in. */
struct module *sleepy_kvm_module_get(const struct file *file)
{
	struct module *owner = file->f_op->owner;

	__module_get(owner);
	return owner;
}

void sleepy_module_put(struct module *module)
{
	module_put(module);
}
