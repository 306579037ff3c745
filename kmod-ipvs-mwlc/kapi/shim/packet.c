// SPDX-License-Identifier: GPL-2.0-only
/* Packets: the header is that at skb->data, as in PRE_ROUTING. */
#include "shim.h"
#include "family.h"

#include <linux/icmp.h>
#include <linux/icmpv6.h>
#include <net/icmp.h>
#include <net/ip.h>
#include <net/ipv6.h>
#include <net/route.h>

/* What a link added to the packet goes, as in ip_rcv. */
bool mwlc_skb_trim(struct sk_buff *skb, unsigned int bytes)
{
	return pskb_trim_rcsum(skb, bytes) == 0;
}

/*
 * Makes of a packet at ingress what ip_rcv or ipv6_rcv would: the caller's alone, with a control block of IP's.
 * NULL if there was no memory; then it was freed.
 */
struct sk_buff *mwlc_skb_settle(struct sk_buff *skb)
{
	skb = skb_share_check(skb, GFP_ATOMIC);
	if (!skb)
		return NULL;
	skb_orphan(skb);
	if (skb_is_ipv6(skb)) {
		memset(IP6CB(skb), 0, sizeof(struct inet6_skb_parm));
		IP6CB(skb)->iif = skb->dev->ifindex;
		IP6CB(skb)->nhoff = offsetof(struct ipv6hdr, nexthdr);
		skb_set_transport_header(skb, sizeof(struct ipv6hdr));
	} else {
		memset(IPCB(skb), 0, sizeof(struct inet_skb_parm));
		IPCB(skb)->iif = skb->skb_iif;
		skb_set_transport_header(skb, ip_hdrlen(skb));
	}
	return skb;
}

bool mwlc_skb_may_pull(struct sk_buff *skb, unsigned int bytes)
{
	return pskb_may_pull(skb, bytes);
}

/* Whether the frame was not addressed to this host alone. */
bool mwlc_skb_is_multicast(const struct sk_buff *skb)
{
	return skb->pkt_type != PACKET_HOST;
}

u32 mwlc_skb_mark(const struct sk_buff *skb)
{
	return skb->mark;
}

void mwlc_skb_drop(struct sk_buff *skb)
{
	kfree_skb(skb);
}

/* icmp_send answers along the route of the skb, which has none yet in PRE_ROUTING. */
void mwlc_icmp_send(struct sk_buff *skb, u8 type, u8 code, u32 info)
{
	const struct iphdr *iph = ip_hdr(skb);

	if (!skb_dst(skb) &&
	    ip_route_input_noref(skb, iph->daddr, iph->saddr, ip4h_dscp(iph), skb->dev))
		return;
	icmp_send(skb, type, code, htonl(info));
}

bool mwlc_skb_is_ipv6(const struct sk_buff *skb)
{
	return skb_is_ipv6(skb);
}

void mwlc_icmpv6_send(struct sk_buff *skb, u8 type, u8 code, u32 info)
{
	icmpv6_send(skb, type, code, info);
}
