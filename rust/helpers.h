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
struct kvm;
struct mm_struct;
struct net;
struct net_device;
struct pid;
struct sk_buff;
struct task_struct;

/* Scheduler */
int sleepy_task_nice(const struct task_struct *task);
int sleepy_cpu_waited_for(const struct task_struct *task);
bool sleepy_current_is_runnable(void);
bool sleepy_current_is_dead(void);
bool sleepy_current_is_exiting(void);
int sleepy_task_work_add_current(struct callback_head *work);
void sleepy_preempt_disable(void);
void sleepy_preempt_enable(void);

/* Processes */
u64 sleepy_process_start_ticks(const struct task_struct *task);
struct task_struct *sleepy_live_thread(struct pid *pid);
bool sleepy_task_has_mm(struct task_struct *task, const struct mm_struct *mm);

/* KVM */
struct kvm *sleepy_kvm_of_file(const struct file *file);
const struct mm_struct *sleepy_kvm_mm(const struct kvm *kvm);
unsigned int sleepy_kvm_vcpus(const struct kvm *kvm);
struct task_struct *sleepy_kvm_vcpu_task(struct kvm *kvm, unsigned int index,
					 unsigned long *vcpu);
bool sleepy_current_is_halted(unsigned long vcpu);

/* Packets */
bool sleepy_filter_accepts(const struct bpf_prog *prog, struct sk_buff *skb);
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

static const unsigned long SLEEPY_NETDEV_UNREGISTER = 6; /* checked in helpers.c */
static const unsigned int SLEEPY_PF_NETDEV = 5; /* checked in helpers.c */

#endif
