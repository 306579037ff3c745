// SPDX-License-Identifier: GPL-2.0-only
/* Spinlocks. */
#include "shim.h"

#include <linux/spinlock.h>

void mwlc_lock_init(spinlock_t *lock, bool outer)
{
	/* Two places, so that lockdep has two classes: see kapi/lock.rs. */
	if (outer)
		spin_lock_init(lock);
	else
		spin_lock_init(lock);
}

void mwlc_lock_bh(spinlock_t *lock)
{
	spin_lock_bh(lock);
}

void mwlc_unlock_bh(spinlock_t *lock)
{
	spin_unlock_bh(lock);
}
