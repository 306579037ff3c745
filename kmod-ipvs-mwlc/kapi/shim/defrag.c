// SPDX-License-Identifier: GPL-2.0-only
/* Putting fragments together. */
#include "shim.h"

#include <linux/kmod.h>
#include <net/ip.h>
#include <net/netfilter/ipv6/nf_defrag_ipv6.h>

/*
 * 0: the skb is a whole datagram. Otherwise the skb was kept or freed. The queue is that of IPVS
 * (IP_DEFRAG_VS_IN), so fragments never mix with those of conntrack or of local delivery.
 */
int mwlc_skb_defrag(struct net *net, struct sk_buff *skb)
{
	int err;

	local_bh_disable();
	err = ip_defrag(net, skb, IP_DEFRAG_VS_IN);
	local_bh_enable();
	if (err)
		return err;
	ip_send_check(ip_hdr(skb));
	/* The pieces were small enough to come here, so the whole may be cut again. */
	skb->ignore_df = 1;
	return 0;
}

/*
 * Has IPv6 fragments put together before the hook, which is what nf_defrag_ipv6 does for whoever asks. The module
 * is asked for when it is needed, so that this one loads without it; without it, IPv6 fragments are not balanced.
 */
int mwlc_defrag6_start(struct net *net)
{
	typeof(&nf_defrag_ipv6_enable) enable;
	int err;

	request_module("nf_defrag_ipv6");
	enable = symbol_get(nf_defrag_ipv6_enable);
	if (!enable)
		return -ENOENT;
	err = enable(net);
	/* It counts its users itself only while it is there, so the reference stays until mwlc_defrag6_stop. */
	if (err)
		symbol_put(nf_defrag_ipv6_enable);
	return err;
}

void mwlc_defrag6_stop(struct net *net)
{
	typeof(&nf_defrag_ipv6_disable) disable = symbol_get(nf_defrag_ipv6_disable);

	if (!disable)
		return;
	disable(net);
	symbol_put(nf_defrag_ipv6_disable);
	symbol_put(nf_defrag_ipv6_enable);
}
