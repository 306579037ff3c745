// SPDX-License-Identifier: GPL-2.0-only
/* Work that repeats, and giving up the CPU. */
#include "shim.h"

#include <linux/sched.h>

void mwlc_cond_resched(void)
{
	cond_resched();
}

void mwlc_delayed_work_setup(struct delayed_work *work, void (*run)(struct work_struct *))
{
	INIT_DELAYED_WORK(work, run);
}

/* The power-efficient queue: an estimator has no reason to stay on one CPU. */
bool mwlc_delayed_work_queue(struct delayed_work *work, unsigned long delay)
{
	return queue_delayed_work(system_power_efficient_wq, work, delay);
}
