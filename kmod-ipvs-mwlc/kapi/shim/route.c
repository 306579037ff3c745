// SPDX-License-Identifier: GPL-2.0-only
/* Routes to real servers. */
#include "shim.h"
#include "family.h"

#include <net/ip6_fib.h>
#include <net/ip6_route.h>
#include <net/route.h>

/* NULL if there is no route. KNOWN_NH makes the route's gateway the real server itself, for the skb keeps the VIP. */
struct dst_entry *mwlc_route_output(struct net *net, u32 address_be)
{
	struct flowi4 fl4 = {
		.daddr = (__force __be32)address_be,
		.flowi4_flags = FLOWI_FLAG_KNOWN_NH,
	};
	struct rtable *rt = ip_route_output_key(net, &fl4);

	return IS_ERR(rt) ? NULL : &rt->dst;
}

/* As above. KNOWN_NH makes a route whose next hop is the real server, whatever the skb's address is. */
struct dst_entry *mwlc_route_output6(struct net *net, const u8 address[16])
{
	struct flowi6 fl6 = {
		.flowi6_flags = FLOWI_FLAG_KNOWN_NH,
	};
	struct dst_entry *dst;

	memcpy(&fl6.daddr, address, sizeof(fl6.daddr));
	dst = ip6_route_output(net, NULL, &fl6);
	if (dst->error) {
		dst_release(dst);
		return NULL;
	}
	return dst;
}

/* What mwlc_dst_kind wants to have back later. */
u32 mwlc_dst_cookie(struct dst_entry *dst)
{
	return dst_is_ipv6(dst) ? rt6_get_cookie(dst_rt6_info(dst)) : 0;
}

unsigned int mwlc_dst_kind(struct dst_entry *dst, u32 cookie)
{
	bool local;

	if (!dst_check(dst, cookie))
		return MWLC_DST_STALE;
	if (dst_is_ipv6(dst))
		local = dst_rt6_info(dst)->rt6i_flags & RTF_LOCAL;
	else
		local = dst_rtable(dst)->rt_flags & RTCF_LOCAL;
	return local ? MWLC_DST_LOCAL : MWLC_DST_REMOTE;
}

unsigned int mwlc_dst_mtu(const struct dst_entry *dst)
{
	return dst_mtu(dst);
}
