// SPDX-License-Identifier: GPL-2.0-only
/* Threads and processes. */

#include <linux/math64.h>
#include <linux/pid.h>
#include <linux/preempt.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/sched/task.h>
#include <linux/task_work.h>
#include <uapi/linux/sched/types.h>

#include "helpers.h"

int sleepy_task_nice(const struct task_struct *task)
{
	return task_nice(task);
}

/* One that has blocked may be in its queue still, until it is due. */
bool sleepy_task_on_rq(const struct task_struct *task)
{
	return READ_ONCE(task->on_rq) && !READ_ONCE(task->se.sched_delayed);
}

/*
 * The CPU that the thread waits for, which another thread has; -1 if none. One
 * that has blocked, but is in the queue still, counts: it may be woken there,
 * at the place and with the weight that it has.
 */
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

bool sleepy_task_is_exiting(const struct task_struct *task)
{
	return READ_ONCE(task->flags) & PF_EXITING;
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

bool sleepy_task_resets_on_fork(const struct task_struct *task)
{
	return task->sched_reset_on_fork;
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
			if (!sleepy_task_is_exiting(thread)) {
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
