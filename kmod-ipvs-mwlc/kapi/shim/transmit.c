// SPDX-License-Identifier: GPL-2.0-only
/* Sending a packet on by a route. */
#include "shim.h"
#include "family.h"

#include <net/gso.h>
#include <net/ip.h>
#include <net/ip6_route.h>
#include <net/ipv6.h>
#include <net/ndisc.h>
#include <net/neighbour.h>
#include <net/route.h>

/*
 * Whether the skb, which is longer than the MTU, may not be sent. As ip_exceeds_mtu() in ip_forward.c and
 * ip6_pkt_too_big() in ip6_output.c: a datagram that may be fragmented may, and so may one whose fragments were
 * small enough.
 */
bool mwlc_skb_exceeds_mtu(const struct sk_buff *skb, unsigned int mtu)
{
	if (skb_is_ipv6(skb)) {
		if (unlikely(IP6CB(skb)->frag_max_size > mtu))
			return true;
	} else {
		if (!(ip_hdr(skb)->frag_off & htons(IP_DF)))
			return false;
		if (unlikely(IPCB(skb)->frag_max_size > mtu))
			return true;
	}
	return !skb->ignore_df && !(skb_is_gso(skb) && skb_gso_validate_network_len(skb, mtu));
}

/*
 * The neighbour that a route leads to; the skb's own address is of no interest, for the route is to the real
 * server itself.
 */
static struct neighbour *mwlc_neigh(struct dst_entry *dst, struct sk_buff *skb, bool *is_v6gw)
{
	if (!dst_is_ipv6(dst))
		return ip_neigh_for_gw(dst_rtable(dst), skb, is_v6gw);
	return ip_neigh_gw6(dst->dev, rt6_nexthop(dst_rt6_info(dst), &ipv6_hdr(skb)->daddr));
}

static int mwlc_neigh_output(struct net *net, struct sock *sk, struct sk_buff *skb)
{
	struct neighbour *neigh;
	bool is_v6gw = false;

	neigh = mwlc_neigh(skb_dst(skb), skb, &is_v6gw);
	if (IS_ERR(neigh)) {
		kfree_skb(skb);
		return PTR_ERR(neigh);
	}
	return neigh_output(neigh, skb, is_v6gw);
}

/*
 * What neigh_output does for a neighbour whose address is known, where the cached header is Ethernet's. The
 * kernel's own copies 16 bytes and needs as much room; an skb that came from an Ethernet device with none to spare
 * has just the 14 of the old header. False if it is another neighbour: nothing has happened to the skb then.
 */
static bool mwlc_ether_output(struct neighbour *neigh, struct sk_buff *skb)
{
	const struct hh_cache *hh = &neigh->hh;
	unsigned int seq;

	if (unlikely(!(READ_ONCE(neigh->nud_state) & NUD_CONNECTED) || READ_ONCE(hh->hh_len) != ETH_HLEN ||
		     skb_headroom(skb) < ETH_HLEN))
		return false;
	do {
		seq = read_seqbegin(&hh->hh_lock);
		memcpy(skb->data - ETH_HLEN, (const u8 *)hh->hh_data + HH_DATA_OFF(ETH_HLEN), ETH_HLEN);
	} while (read_seqretry(&hh->hh_lock, seq));
	__skb_push(skb, ETH_HLEN);
	dev_queue_xmit(skb);
	return true;
}

/*
 * Whether a device can send an skb that somebody else is about to free: it must not have to reallocate it. Those
 * that never do say so; veth and netkit do not, because they hand the skb to their peer's stack, which clones what
 * is shared.
 */
static bool mwlc_may_share(const struct sk_buff *skb, const struct net_device *dev)
{
	return !skb_cloned(skb) && !skb_is_nonlinear(skb) && skb->ip_summed != CHECKSUM_PARTIAL &&
	       (dev->priv_flags & IFF_TX_SKB_SHARING || dev->netdev_ops->ndo_get_peer_dev);
}

/* Makes the skb ready to leave by the route's device, with one hop less to live; NULL if it was freed. */
static struct sk_buff *mwlc_skb_leave(struct sk_buff *skb, const struct dst_entry *dst)
{
	bool is_ipv6 = skb_is_ipv6(skb);
	unsigned int header_bytes = is_ipv6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr);

	if (skb_warn_if_lro(skb))
		goto drop;
	if (unlikely(skb_shared(skb)) && !mwlc_may_share(skb, dst->dev)) {
		skb = skb_share_check(skb, GFP_ATOMIC);
		if (!skb)
			return NULL;
	}
	/* The time to live is in data that a clone may share. */
	if (unlikely(skb_cloned(skb)) && !skb_clone_writable(skb, header_bytes) &&
	    pskb_expand_head(skb, 0, 0, GFP_ATOMIC))
		goto drop;
	if (is_ipv6)
		ipv6_hdr(skb)->hop_limit--;
	else
		ip_decrease_ttl(ip_hdr(skb));
	skb_orphan(skb);
	skb_reset_redirect(skb);
	skb_forward_csum(skb);
	skb_clear_tstamp(skb);
	skb_dst_drop(skb);
	skb->dev = dst->dev;
	return skb;
drop:
	kfree_skb(skb);
	return NULL;
}

/* What takes an skb that has left to a neighbour whose address may have to be asked for; NULL if it was freed. */
static struct sk_buff *mwlc_skb_set_way(struct sk_buff *skb, struct dst_entry *dst)
{
	skb = skb_share_check(skb, GFP_ATOMIC);
	if (!skb)
		return NULL;
	if (skb_cow_head(skb, LL_RESERVED_SPACE(dst->dev) + dst->header_len)) {
		kfree_skb(skb);
		return NULL;
	}
	skb_dst_set_noref(skb, dst);
	return skb;
}

/*
 * Consumes the skb, which is no longer than the MTU or in segments that are not; false if it was freed for want of
 * memory. The caller has seen that its TTL is above 1. Under rcu_read_lock, which keeps both dst and neighbour.
 */
bool mwlc_skb_forward(struct net *net, struct sk_buff *skb, struct dst_entry *dst)
{
	struct neighbour *neigh;
	bool is_v6gw = false;

	skb = mwlc_skb_leave(skb, dst);
	if (unlikely(!skb))
		return false;
	neigh = mwlc_neigh(dst, skb, &is_v6gw);
	if (!IS_ERR(neigh) && mwlc_ether_output(neigh, skb))
		return true;
	skb = mwlc_skb_set_way(skb, dst);
	if (!skb)
		return false;
	mwlc_neigh_output(net, NULL, skb);
	return true;
}

/* The same of an skb that is longer. */
bool mwlc_skb_forward_long(struct net *net, struct sk_buff *skb, struct dst_entry *dst)
{
	if (skb_is_gso(skb))
		return mwlc_skb_forward(net, skb, dst);
	skb = mwlc_skb_leave(skb, dst);
	if (skb)
		skb = mwlc_skb_set_way(skb, dst);
	if (!skb)
		return false;
	if (skb_is_ipv6(skb))
		ip6_fragment(net, NULL, skb, mwlc_neigh_output);
	else
		ip_do_fragment(net, NULL, skb, mwlc_neigh_output);
	return true;
}
