// SPDX-License-Identifier: GPL-2.0-only

#include <linux/bpf.h>
#include <linux/etherdevice.h>
#include <linux/file.h>
#include <linux/filter.h>
#include <linux/fs.h>
#include <linux/if_arp.h>
#include <linux/if_vlan.h>
#include <linux/irq_work.h>
#include <linux/kernfs.h>
#include <linux/kthread.h>
#include <linux/kvm_host.h>
#include <linux/magic.h>
#include <linux/math64.h>
#include <linux/module.h>
#include <linux/netdevice.h>
#include <linux/netfilter.h>
#include <linux/pid.h>
#include <linux/preempt.h>
#include <linux/sched.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/sched/task.h>
#include <uapi/linux/sched/types.h>
#include <linux/skbuff.h>
#include <linux/task_work.h>
#include <linux/tcp.h>
#include <net/ip.h>
#include <net/ipv6.h>
#include <net/net_namespace.h>

#include "helpers.h"

static_assert(SLEEPY_NETDEV_UNREGISTER == NETDEV_UNREGISTER);
static_assert(SLEEPY_PF_NETDEV == NFPROTO_NETDEV);

/* What a guest's watchdogs, which count in seconds, should know of. */
#define LONG_PARK_MS 100

int sleepy_task_nice(const struct task_struct *task)
{
	return task_nice(task);
}

bool sleepy_task_on_rq(const struct task_struct *task)
{
	return READ_ONCE(task->on_rq);
}

/* The CPU that the thread waits for, which another thread has; -1 if none. */
int sleepy_cpu_waited_for(const struct task_struct *task)
{
	if (!READ_ONCE(task->on_rq) || READ_ONCE(task->on_cpu))
		return -1;
	return task_cpu(task);
}

bool sleepy_current_is_runnable(void)
{
	return task_is_runnable(current);
}

bool sleepy_current_is_dead(void)
{
	return READ_ONCE(current->__state) & TASK_DEAD;
}

bool sleepy_current_is_exiting(void)
{
	return current->flags & PF_EXITING;
}

/* -ESRCH for a thread that never returns to user space, or not any more. */
int sleepy_task_work_add_current(struct callback_head *work)
{
	if (current->flags & PF_KTHREAD)
		return -ESRCH;
	return task_work_add(current, work, TWA_RESUME);
}

/* The CPU that the thread has; -1 if none. */
int sleepy_cpu_of(const struct task_struct *task)
{
	return READ_ONCE(task->on_cpu) ? task_cpu(task) : -1;
}

unsigned int sleepy_task_policy(const struct task_struct *task)
{
	return READ_ONCE(task->policy);
}

/* The rest of what sched_setattr() sets stays as it is. */
int sleepy_task_set_policy(struct task_struct *task, unsigned int policy)
{
	struct sched_attr attr = {
		.size = sizeof(attr),
		.sched_policy = policy,
		.sched_nice = task_nice(task),
	};

	if (READ_ONCE(task->se.custom_slice))
		attr.sched_runtime = READ_ONCE(task->se.slice);
	if (task->sched_reset_on_fork)
		attr.sched_flags = SCHED_FLAG_RESET_ON_FORK;
	return sched_setattr_nocheck(task, &attr);
}

struct kthread_worker *sleepy_worker_create(const char *name)
{
	struct kthread_worker *worker = kthread_run_worker(0, "%s", name);

	if (!IS_ERR(worker))
		sched_set_fifo_low(worker->task);
	return worker;
}

void sleepy_init_kthread_work(struct kthread_work *work,
			      void (*func)(struct kthread_work *work))
{
	kthread_init_work(work, func);
}

unsigned int sleepy_cgroup_version(const struct file *directory)
{
	if (!S_ISDIR(file_inode(directory)->i_mode))
		return 0;
	switch (directory->f_path.dentry->d_sb->s_magic) {
	case CGROUP_SUPER_MAGIC:
		return 1;
	case CGROUP2_SUPER_MAGIC:
		return 2;
	default:
		return 0;
	}
}

/* A file in a directory, by its name alone. */
struct file *sleepy_open_beside(const struct file *directory, const char *name)
{
	return file_open_root(&directory->f_path, name, O_RDWR | O_NOFOLLOW, 0);
}

u64 sleepy_file_inode(const struct file *file)
{
	return file_inode(file)->i_ino;
}

bool sleepy_same_file(const struct file *one, const struct file *other)
{
	return file_inode(one) == file_inode(other);
}

/* Whether a thread's CPU time is accounted to a group, or below it. */
bool sleepy_cgroup_has(const struct file *directory, struct task_struct *task)
{
#ifdef CONFIG_CGROUP_SCHED
	struct kernfs_node *node = file_inode(directory)->i_private;
	struct cgroup *group;
	bool has = false;

	rcu_read_lock();
	/* The group's node outlives the group, by the file's reference. */
	group = rcu_dereference(*(struct cgroup __rcu **)&node->priv);
	if (group)
		has = cgroup_is_descendant(task_css(task, cpu_cgrp_id)->cgroup,
					   group);
	rcu_read_unlock();
	return has;
#else
	return false;
#endif
}

void sleepy_preempt_disable(void)
{
	preempt_disable();
}

void sleepy_preempt_enable(void)
{
	preempt_enable();
}

/* As /proc/PID/stat shows it in the initial time namespace. */
u64 sleepy_process_start_ticks(const struct task_struct *task)
{
	u64 start;

	rcu_read_lock();
	start = READ_ONCE(task->group_leader)->start_boottime;
	rcu_read_unlock();
	return div_u64(start, NSEC_PER_SEC / USER_HZ);
}

/* A thread of the process that still has its files; the leader may be gone. */
struct task_struct *sleepy_live_thread(struct pid *pid)
{
	struct task_struct *leader, *thread, *live = NULL;

	rcu_read_lock();
	leader = pid_task(pid, PIDTYPE_TGID);
	if (leader) {
		for_each_thread(leader, thread) {
			if (!(READ_ONCE(thread->flags) & PF_EXITING)) {
				live = get_task_struct(thread);
				break;
			}
		}
	}
	rcu_read_unlock();
	return live;
}

bool sleepy_task_has_mm(struct task_struct *task, const struct mm_struct *mm)
{
	bool same;

	task_lock(task);
	same = task->mm == mm;
	task_unlock(task);
	return same;
}

/*
 * The VM behind a descriptor of a VM or of a vCPU, or NULL. KVM exports no way
 * to tell, but it names its anonymous inodes, whose names user space cannot
 * choose, and the file operations belong to the module with the processor's
 * half of KVM (to none where KVM is built in).
 */
struct kvm *sleepy_kvm_of_file(const struct file *file)
{
	struct module *owner = file->f_op->owner;
	const char *name;

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

void sleepy_init_irq_work(struct irq_work *work,
			  void (*func)(struct irq_work *work))
{
	init_irq_work(work, func);
}

/* Bottom halves are off, so that the program stays on this CPU. */
u32 sleepy_filter_run(const struct bpf_prog *prog, struct sk_buff *skb)
{
	return bpf_prog_run_save_cb(prog, skb);
}

u32 sleepy_prog_id(const struct bpf_prog *prog)
{
	return prog->aux->id;
}

struct bpf_prog *sleepy_prog_get(int fd)
{
	return bpf_prog_get_type_dev(fd, BPF_PROG_TYPE_SOCKET_FILTER, false);
}

void sleepy_prog_put(struct bpf_prog *prog)
{
	bpf_prog_put(prog);
}

/*
 * What the sender of a TCP segment says of itself and of what comes next. The
 * data begin with the link layer's header. A segment is full if it fills the
 * device's MTU, or, of several that travel as one, if the last one is as long as
 * the others.
 */
void sleepy_skb_tcp(const struct sk_buff *skb, struct sleepy_tcp *said)
{
	int ip = skb_network_offset(skb), offset, end, payload;
	struct tcphdr tcp_buffer, *tcp;
	__be16 frag_off;
	u8 protocol;

	*said = (struct sleepy_tcp){};
	if (skb->protocol == htons(ETH_P_IP)) {
		struct iphdr buffer;
		const struct iphdr *header =
			skb_header_pointer(skb, ip, sizeof(buffer), &buffer);

		if (!header || header->protocol != IPPROTO_TCP ||
		    header->frag_off & htons(IP_OFFSET))
			return;
		offset = ip + header->ihl * 4;
		end = ip + ntohs(header->tot_len);
	} else if (skb->protocol == htons(ETH_P_IPV6)) {
		struct ipv6hdr buffer;
		const struct ipv6hdr *header =
			skb_header_pointer(skb, ip, sizeof(buffer), &buffer);

		if (!header)
			return;
		protocol = header->nexthdr;
		offset = ipv6_skip_exthdr(skb, ip + sizeof(buffer), &protocol,
					  &frag_off);
		if (offset < 0 || protocol != IPPROTO_TCP || frag_off)
			return;
		end = ip + (int)sizeof(buffer) + ntohs(header->payload_len);
	} else {
		return;
	}
	tcp = skb_header_pointer(skb, offset, sizeof(tcp_buffer), &tcp_buffer);
	if (!tcp)
		return;
	offset += tcp->doff * 4;
	/* A short packet may be padded, a long one may not say how long it is. */
	if (skb_is_gso(skb))
		end = skb->len;
	payload = max(end - offset, 0);
	said->flags = SLEEPY_TCP;
	said->end = ntohl(tcp->seq) + payload + tcp->syn + tcp->fin;
	if (!payload && !tcp->syn)
		said->flags |= SLEEPY_TCP_BARE;
	/* What opens or ends a connection is whole. */
	if (tcp->syn || tcp->fin || tcp->rst) {
		said->flags |= SLEEPY_TCP_PUSHED;
		return;
	}
	if (tcp->psh)
		said->flags |= SLEEPY_TCP_PUSHED;
	if (payload && (skb_is_gso(skb) ?
			!(payload % skb_shinfo(skb)->gso_size) :
			skb->dev && skb->len - ip >= READ_ONCE(skb->dev->mtu)))
		said->flags |= SLEEPY_TCP_FULL;
}

/*
 * Whether an Ethernet frame is for many, and does not ask one of them for its
 * address, as ARP does and IPv6 neighbour solicitation (to 33:33:ff:...). The
 * data begin with the link layer's header. What is in a VLAN may do so.
 */
bool sleepy_skb_tells_many(const struct sk_buff *skb)
{
	static const u8 solicits[] = { 0x33, 0x33, 0xff };
	const struct ethhdr *eth;
	struct ethhdr buffer;

	if (!skb->dev || skb->dev->type != ARPHRD_ETHER)
		return false;
	eth = skb_header_pointer(skb, 0, sizeof(buffer), &buffer);
	return eth && is_multicast_ether_addr(eth->h_dest) &&
	       eth->h_proto != htons(ETH_P_ARP) &&
	       !eth_type_vlan(eth->h_proto) &&
	       memcmp(eth->h_dest, solicits, sizeof(solicits));
}

/* At ingress, the stack has pulled the link layer's header already. */
void sleepy_skb_push_mac(struct sk_buff *skb)
{
	__skb_push(skb, skb->mac_len);
}

void sleepy_skb_pull_mac(struct sk_buff *skb)
{
	__skb_pull(skb, skb->mac_len);
}

u32 sleepy_skb_flow_hash(const struct sk_buff *skb, const struct net *net)
{
	return __skb_get_hash_symmetric_net(net, skb);
}

void sleepy_dev_hold(struct net_device *dev)
{
	dev_hold(dev);
}

void sleepy_dev_put(struct net_device *dev)
{
	dev_put(dev);
}

bool sleepy_dev_is_ethernet(const struct net_device *dev)
{
	return dev->type == ARPHRD_ETHER;
}

u32 sleepy_dev_ifindex(const struct net_device *dev)
{
	return READ_ONCE(dev->ifindex);
}

/* The caller holds RTNL, against renaming. */
void sleepy_dev_name(const struct net_device *dev, char *name)
{
	strscpy(name, dev->name, IFNAMSIZ);
}

struct net *sleepy_dev_net(const struct net_device *dev)
{
	return dev_net(dev);
}

u64 sleepy_net_inode(const struct net *net)
{
	return net->ns.inum;
}

void sleepy_put_net(struct net *net)
{
	put_net(net);
}

struct net_device *sleepy_notifier_dev(void *info)
{
	return netdev_notifier_info_to_dev(info);
}
