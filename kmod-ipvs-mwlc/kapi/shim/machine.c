// SPDX-License-Identifier: GPL-2.0-only
/* The machine: its CPUs and its memory. */
#include "shim.h"

#include <linux/mm.h>

unsigned int mwlc_cpu(void)
{
	return raw_smp_processor_id();
}

unsigned int mwlc_cpus(void)
{
	return nr_cpu_ids;
}

unsigned long mwlc_ram_bytes(void)
{
	return totalram_pages() << PAGE_SHIFT;
}

/* As IPVS counts it: what is free, and what buffers hold. */
unsigned long mwlc_ram_available_pages(void)
{
	struct sysinfo info;

	si_meminfo(&info);
	return info.freeram + info.bufferram;
}
