/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What only C can do: inline functions, macros, and a look into structs that
 * bindgen cannot translate (struct kvm).
 */
#ifndef SLEEPY_HELPERS_H
#define SLEEPY_HELPERS_H

#include <linux/types.h>

struct bpf_prog;
struct callback_head;
struct file;
struct irq_work;
struct kthread_work;
struct kthread_worker;
struct kvm;
struct mm_struct;
struct module;
struct net;
struct net_device;
struct pid;
struct sk_buff;
struct sleepy_kprobe;
struct task_struct;
struct tracepoint;

/* Scheduler */
int sleepy_task_nice(const struct task_struct *task);
bool sleepy_task_on_rq(const struct task_struct *task);
int sleepy_cpu_waited_for(const struct task_struct *task);
int sleepy_cpu_of(const struct task_struct *task);
unsigned int sleepy_task_policy(const struct task_struct *task);
bool sleepy_task_resets_on_fork(const struct task_struct *task);
int sleepy_task_set_policy(struct task_struct *task, unsigned int policy);
bool sleepy_current_is_runnable(void);
bool sleepy_current_is_dead(void);
bool sleepy_task_is_exiting(const struct task_struct *task);
int sleepy_task_work_add_current(struct callback_head *work);
void sleepy_preempt_disable(void);
void sleepy_preempt_enable(void);

/* Processes */
u64 sleepy_process_start_ticks(const struct task_struct *task);
struct task_struct *sleepy_live_thread(struct pid *pid);
bool sleepy_task_has_mm(struct task_struct *task, const struct mm_struct *mm);

/* Workers */
struct kthread_worker *sleepy_worker_create(const char *name);
void sleepy_init_kthread_work(struct kthread_work *work,
			      void (*func)(struct kthread_work *work));

/* Control groups */
unsigned int sleepy_cgroup_version(const struct file *directory);
struct file *sleepy_open_beside(const struct file *directory, const char *name);
u64 sleepy_file_inode(const struct file *file);
bool sleepy_same_file(const struct file *one, const struct file *other);
bool sleepy_cgroup_has(const struct file *directory, struct task_struct *task);

/* KVM */
struct kvm *sleepy_kvm_of_file(const struct file *file);
const struct mm_struct *sleepy_kvm_mm(const struct kvm *kvm);
unsigned int sleepy_kvm_vcpus(const struct kvm *kvm);
struct task_struct *sleepy_kvm_vcpu_task(struct kvm *kvm, unsigned int index,
					 unsigned long *vcpu);
bool sleepy_current_is_halted(unsigned long vcpu);
u64 sleepy_kvm_injections(unsigned long vcpu);
unsigned int sleepy_kvm_park(unsigned long vcpu, u64 until, bool pending,
			     unsigned int (*look)(void *data), void *data);
struct module *sleepy_kvm_module_get(const struct file *file);
void sleepy_module_put(struct module *module);

/* Probes */
typedef void (*sleepy_kprobe_fn)(void *data, const struct kvm *kvm,
				 unsigned int raiser);
struct tracepoint *sleepy_tracepoint(const char *name);
void sleepy_tracepoint_synchronize(void);
struct sleepy_kprobe *sleepy_kprobe_register(unsigned int place,
					     sleepy_kprobe_fn fn, void *data);
void sleepy_kprobe_unregister(struct sleepy_kprobe *probe);
void sleepy_init_irq_work(struct irq_work *work, void (*func)(struct irq_work *work));

/* Packets */
u32 sleepy_filter_run(const struct bpf_prog *prog, struct sk_buff *skb);
u32 sleepy_prog_id(const struct bpf_prog *prog);
struct bpf_prog *sleepy_prog_get(int fd);
void sleepy_prog_put(struct bpf_prog *prog);
struct sleepy_tcp {
	u32 flags; /* SLEEPY_TCP_* */
	u32 end; /* sequence number behind it */
};
void sleepy_skb_tcp(const struct sk_buff *skb, struct sleepy_tcp *said);
bool sleepy_skb_tells_many(const struct sk_buff *skb);
void sleepy_skb_push_mac(struct sk_buff *skb);
void sleepy_skb_pull_mac(struct sk_buff *skb);
u32 sleepy_skb_flow_hash(const struct sk_buff *skb, const struct net *net);

/* Devices */
void sleepy_dev_hold(struct net_device *dev);
void sleepy_dev_put(struct net_device *dev);
bool sleepy_dev_is_ethernet(const struct net_device *dev);
u32 sleepy_dev_ifindex(const struct net_device *dev);
void sleepy_dev_name(const struct net_device *dev, char *name);
struct net *sleepy_dev_net(const struct net_device *dev);
u64 sleepy_net_inode(const struct net *net);
void sleepy_put_net(struct net *net);
struct net_device *sleepy_notifier_dev(void *info);

static const unsigned long SLEEPY_NETDEV_UNREGISTER = 6; /* checked in netdev.c */
static const unsigned int SLEEPY_PF_NETDEV = 5; /* checked in netdev.c */

static const unsigned int SLEEPY_TCP = 1 << 0; /* it is TCP */
static const unsigned int SLEEPY_TCP_PUSHED = 1 << 1;
static const unsigned int SLEEPY_TCP_FULL = 1 << 2; /* as long as can be */
static const unsigned int SLEEPY_TCP_BARE = 1 << 3; /* without data or SYN */

/* Who raises an interrupt: a device, of the VMM or the host; a timer; another process */
#define SLEEPY_RAISER_DEVICE 0
#define SLEEPY_RAISER_TIMER 1
#define SLEEPY_RAISER_STRANGER 2

/* How a vCPU was parked; see the Rust side. */
#define SLEEPY_PARK_OUTSIDE 0
#define SLEEPY_PARK_STOPPED 1
#define SLEEPY_PARK_PENDING 2
#define SLEEPY_PARK_TICK 3
#define SLEEPY_PARK_KICKED 4
#define SLEEPY_PARK_SIGNAL 5
#define SLEEPY_PARK_OVER 6
#define SLEEPY_PARK_ON 7

/* Places to probe */
#define SLEEPY_PROBE_IRQFD 0
#define SLEEPY_PROBE_IRQ 1
#define SLEEPY_PROBE_MSI 2
#define SLEEPY_PROBE_TIMER 3

#endif
