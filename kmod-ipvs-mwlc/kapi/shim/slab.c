// SPDX-License-Identifier: GPL-2.0-only
/* The module's own cache of objects. */
#include "shim.h"

#include <linux/slab.h>

/* Written when the module is loaded and unloaded, before the first and after the last object. */
static struct kmem_cache *mwlc_cache __read_mostly;

int mwlc_cache_create(unsigned int bytes, unsigned int align)
{
	mwlc_cache = kmem_cache_create("ipvs_mwlc_conn", bytes, align, 0, NULL);
	return mwlc_cache ? 0 : -ENOMEM;
}

void mwlc_cache_destroy(void)
{
	kmem_cache_destroy(mwlc_cache);
	mwlc_cache = NULL;
}

void *mwlc_cache_alloc(void)
{
	return mwlc_cache ? kmem_cache_alloc(mwlc_cache, GFP_ATOMIC | __GFP_NOWARN) : NULL;
}

void mwlc_cache_free(void *object)
{
	kmem_cache_free(mwlc_cache, object);
}
