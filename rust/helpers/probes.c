// SPDX-License-Identifier: GPL-2.0-only
/*
 * Where to listen: tracepoints by name, and in KVM the functions that raise
 * interrupts, which no tracepoint shows together with the VM they are for.
 */

#include <linux/err.h>
#include <linux/kprobes.h>
#include <linux/kvm_host.h>
#include <linux/kvm_irqfd.h>
#include <linux/module.h>
#include <linux/poll.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/tracepoint.h>

#include "helpers.h"

struct lookup {
	const char *name;
	struct tracepoint *found;
};

static void match(struct tracepoint *tp, void *data)
{
	struct lookup *lookup = data;

	if (!strcmp(tp->name, lookup->name))
		lookup->found = tp;
}

struct module_lookup {
	struct notifier_block nb;
	struct lookup *lookup;
};

/* Registering the notifier calls it for the modules that are there. */
static int look(struct notifier_block *nb, unsigned long action, void *data)
{
	struct module_lookup *this =
		container_of(nb, struct module_lookup, nb);
	struct module *mod = ((struct tp_module *)data)->mod;

	if (action != MODULE_STATE_COMING ||
	    strncmp(module_name(mod), "kvm", 3))
		return NOTIFY_OK;
	for (unsigned int i = 0; i < mod->num_tracepoints; i++)
		match(tracepoint_ptr_deref(&mod->tracepoints_ptrs[i]),
		      this->lookup);
	return NOTIFY_OK;
}

static void look_in_modules(struct lookup *lookup)
{
	struct module_lookup this = {
		.nb.notifier_call = look,
		.lookup = lookup,
	};

	if (!register_tracepoint_module_notifier(&this.nb))
		unregister_tracepoint_module_notifier(&this.nb);
}

/* A tracepoint, of KVM's or built in; the caller keeps its module loaded. */
struct tracepoint *sleepy_tracepoint(const char *name)
{
	struct lookup lookup = { .name = name };

	for_each_kernel_tracepoint(match, &lookup);
	if (!lookup.found)
		look_in_modules(&lookup);
	return lookup.found;
}

void sleepy_tracepoint_synchronize(void)
{
	tracepoint_synchronize_unregister();
}

#ifdef CONFIG_KPROBES
struct sleepy_kprobe {
	struct kprobe kp;
	sleepy_kprobe_fn fn;
	void *data;
};

/* A kprobe may have come by way of a breakpoint, which counts as an NMI. */
static bool in_interrupt_proper(void)
{
	unsigned long hardirqs = hardirq_count();

	if (in_nmi())
		hardirqs -= HARDIRQ_OFFSET;
	return hardirqs || in_serving_softirq();
}

/* Who raises an interrupt of that VM, here and now. */
static unsigned int raiser(const struct kvm *kvm)
{
	const struct mm_struct *mm = READ_ONCE(current->mm);

	if (in_interrupt_proper() || current->flags & PF_KTHREAD || !mm)
		return SLEEPY_RAISER_DEVICE;
	return mm == kvm->mm ? SLEEPY_RAISER_DEVICE : SLEEPY_RAISER_STRANGER;
}

static unsigned long argument(struct pt_regs *regs, unsigned int n)
{
	return regs_get_kernel_argument(regs, n);
}

/* int irqfd_wakeup(wait_queue_entry_t *wait, unsigned mode, int sync, void *key) */
static int irqfd_wakeup_probe(struct kprobe *kp, struct pt_regs *regs)
{
	struct sleepy_kprobe *this = container_of(kp, struct sleepy_kprobe, kp);
	struct kvm_kernel_irqfd *irqfd =
		container_of((wait_queue_entry_t *)argument(regs, 0),
			     struct kvm_kernel_irqfd, wait);

	if (argument(regs, 3) & (__force unsigned long)EPOLLIN)
		this->fn(this->data, irqfd->kvm, raiser(irqfd->kvm));
	return 0;
}

/* int kvm_set_irq(struct kvm *kvm, int source, u32 irq, int level, ...) */
static int kvm_set_irq_probe(struct kprobe *kp, struct pt_regs *regs)
{
	struct sleepy_kprobe *this = container_of(kp, struct sleepy_kprobe, kp);
	struct kvm *kvm = (struct kvm *)argument(regs, 0);

	/* A worker does what irqfd_wakeup() has told it; a kthread is the PIT. */
	if (!(int)argument(regs, 3) || current->flags & PF_WQ_WORKER)
		return 0;
	this->fn(this->data, kvm, current->flags & PF_KTHREAD ?
				  SLEEPY_RAISER_TIMER : raiser(kvm));
	return 0;
}

/* int kvm_send_userspace_msi(struct kvm *kvm, struct kvm_msi *msi) */
static int kvm_send_userspace_msi_probe(struct kprobe *kp, struct pt_regs *regs)
{
	struct sleepy_kprobe *this = container_of(kp, struct sleepy_kprobe, kp);
	struct kvm *kvm = (struct kvm *)argument(regs, 0);

	this->fn(this->data, kvm, raiser(kvm));
	return 0;
}

/* void kvm_inject_pending_timer_irqs(struct kvm_vcpu *vcpu), by that vCPU */
static int kvm_timer_probe(struct kprobe *kp, struct pt_regs *regs)
{
	struct sleepy_kprobe *this = container_of(kp, struct sleepy_kprobe, kp);

	this->fn(this->data, NULL, SLEEPY_RAISER_TIMER);
	return 0;
}

static const struct {
	const char *symbol, *in_module;
	kprobe_pre_handler_t handler;
} places[] = {
	[SLEEPY_PROBE_IRQFD] = {
		"irqfd_wakeup", "kvm:irqfd_wakeup", irqfd_wakeup_probe },
	[SLEEPY_PROBE_IRQ] = {
		"kvm_set_irq", "kvm:kvm_set_irq", kvm_set_irq_probe },
	[SLEEPY_PROBE_MSI] = {
		"kvm_send_userspace_msi", "kvm:kvm_send_userspace_msi",
		kvm_send_userspace_msi_probe },
	[SLEEPY_PROBE_TIMER] = {
		"kvm_inject_pending_timer_irqs",
		"kvm:kvm_inject_pending_timer_irqs", kvm_timer_probe },
};

/*
 * Calls @fn whenever KVM gets to @place. With preemption off, perhaps in a
 * breakpoint: @fn may take no lock.
 */
struct sleepy_kprobe *sleepy_kprobe_register(unsigned int place,
					     sleepy_kprobe_fn fn, void *data)
{
	struct sleepy_kprobe *this;
	int error;

	if (place >= ARRAY_SIZE(places))
		return ERR_PTR(-EINVAL);
	this = kzalloc(sizeof(*this), GFP_KERNEL);
	if (!this)
		return ERR_PTR(-ENOMEM);
	this->fn = fn;
	this->data = data;
	this->kp.pre_handler = places[place].handler;
	/* Others have functions of the same name: the module's own first. */
	this->kp.symbol_name = places[place].in_module;
	error = register_kprobe(&this->kp);
	if (error == -ENOENT) {
		memset(&this->kp, 0, sizeof(this->kp));
		this->kp.pre_handler = places[place].handler;
		this->kp.symbol_name = places[place].symbol;
		error = register_kprobe(&this->kp);
	}
	if (error) {
		kfree(this);
		return ERR_PTR(error == -ENOMEM ? error : -EOPNOTSUPP);
	}
	return this;
}

/* On return, no handler runs any more. */
void sleepy_kprobe_unregister(struct sleepy_kprobe *this)
{
	unregister_kprobe(&this->kp);
	kfree(this);
}
#else
struct sleepy_kprobe *sleepy_kprobe_register(unsigned int place,
					     sleepy_kprobe_fn fn, void *data)
{
	return ERR_PTR(-EOPNOTSUPP);
}

void sleepy_kprobe_unregister(struct sleepy_kprobe *this)
{
}
#endif
