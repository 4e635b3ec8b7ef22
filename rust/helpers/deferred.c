// SPDX-License-Identifier: GPL-2.0-only
/* Work that is done by another context. */

#include <linux/irq_work.h>
#include <linux/kthread.h>
#include <linux/sched.h>

#include "helpers.h"

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

void sleepy_init_irq_work(struct irq_work *work,
			  void (*func)(struct irq_work *work))
{
	init_irq_work(work, func);
}
