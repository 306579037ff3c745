/* SPDX-License-Identifier: GPL-2.0-only */
/* Which IP family a packet or a route is of, compiled in place: packets ask several times. */
#ifndef IPVS_MWLC_FAMILY_H
#define IPVS_MWLC_FAMILY_H

#include <linux/if_ether.h>
#include <linux/skbuff.h>
#include <linux/socket.h>
#include <net/dst.h>
#include <net/dst_ops.h>

static inline bool skb_is_ipv6(const struct sk_buff *skb)
{
	return skb->protocol == htons(ETH_P_IPV6);
}

static inline bool dst_is_ipv6(const struct dst_entry *dst)
{
	return dst->ops->family == AF_INET6;
}

#endif
