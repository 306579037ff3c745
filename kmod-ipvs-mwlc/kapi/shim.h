/* SPDX-License-Identifier: GPL-2.0-only */
/* The kernel as the module sees it: bindgen reads this header, and shim.c defines what is static inline in the kernel. */
#ifndef IPVS_MWLC_SHIM_H
#define IPVS_MWLC_SHIM_H

#include <linux/netfilter_ipv4.h>

u64 mwlc_jiffies(void);

#endif
