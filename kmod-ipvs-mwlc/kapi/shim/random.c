// SPDX-License-Identifier: GPL-2.0-only
/* Keyed hashes. */
#include "shim.h"

u64 mwlc_siphash(const void *data, size_t bytes, const siphash_key_t *key)
{
	return siphash(data, bytes, key);
}

u32 mwlc_hsiphash(const void *data, size_t bytes, const hsiphash_key_t *key)
{
	return hsiphash(data, bytes, key);
}
