// SPDX-License-Identifier: GPL-2.0-only
#include "shim.h"
#include <linux/jiffies.h>

u64 mwlc_jiffies(void)
{
	return get_jiffies_64();
}
