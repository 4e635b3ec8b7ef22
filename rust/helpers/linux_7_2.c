// SPDX-License-Identifier: GPL-2.0-only
/* For linux_7_2.rs: what is inline. */

#include <linux/spinlock.h>

unsigned long sleepy_spin_lock_irqsave(spinlock_t *lock);
void sleepy_spin_unlock_irqrestore(spinlock_t *lock, unsigned long flags);
bool sleepy_spin_trylock_irqsave(spinlock_t *lock, unsigned long *flags);

unsigned long sleepy_spin_lock_irqsave(spinlock_t *lock)
{
	unsigned long flags;

	spin_lock_irqsave(lock, flags);
	return flags;
}

void sleepy_spin_unlock_irqrestore(spinlock_t *lock, unsigned long flags)
{
	spin_unlock_irqrestore(lock, flags);
}

bool sleepy_spin_trylock_irqsave(spinlock_t *lock, unsigned long *flags)
{
	return spin_trylock_irqsave(lock, *flags);
}
