// SPDX-License-Identifier: GPL-2.0-only
/* Packets at the ingress of a device, before the IP layer. */
#include "shim.h"

#include <linux/if_vlan.h>
#include <net/addrconf.h>
#include <net/ip.h>
#include <net/sock.h>

/* The bit that says that a packet was looked at is one that stock ip_vs has in each skb. */
bool mwlc_has_ingress(void)
{
	return IS_ENABLED(CONFIG_NETFILTER_INGRESS) && IS_ENABLED(CONFIG_IP_VS);
}

bool mwlc_dev_is_loopback(const struct net_device *dev)
{
	return dev->flags & IFF_LOOPBACK;
}

/*
 * Whether nothing is hooked into PRE_ROUTING before this priority, that is no raw table, whose rules are not to be
 * passed by. Reassembly is nothing: whole packets pass it as they are.
 */
static bool mwlc_is_first(const struct net *net, bool is_ipv6, int priority)
{
	const struct nf_hook_entries *hooks;
	struct nf_hook_ops *const *ops;
	unsigned int i;

	BUILD_BUG_ON((int)NF_IP_PRI_CONNTRACK_DEFRAG != (int)NF_IP6_PRI_CONNTRACK_DEFRAG);
	hooks = is_ipv6 ? rcu_dereference(net->nf.hooks_ipv6[NF_INET_PRE_ROUTING])
			: rcu_dereference(net->nf.hooks_ipv4[NF_INET_PRE_ROUTING]);
	if (unlikely(!hooks))
		return false;
	ops = nf_hook_entries_get_hook_ops(hooks);
	for (i = 0; i < hooks->num_hook_entries; i++) {
		int other = READ_ONCE(ops[i]->priority);

		if (other >= priority)
			return true;
		if (other != NF_IP_PRI_CONNTRACK_DEFRAG)
			return false;
	}
	return false;
}

/*
 * Whether a packet at a device's ingress would go to ip_rcv or ipv6_rcv next, just as it is, and would be the
 * first thing that PRE_ROUTING's hook with this priority sees. Not those of a bridge's, bond's or macvlan's
 * member, nor with a VLAN's tag: they come again from the device that they belong to. Who holds a second reference
 * has been given the packet to look at or is about to free it, so a packet that nobody has to reallocate may be
 * sent on all the same, as nf_flow_table and act_mirred do it.
 */
bool mwlc_skb_arrives(const struct sk_buff *skb, const struct net *net, int priority)
{
	bool is_ipv6 = skb->protocol == htons(ETH_P_IPV6);

	if (skb->pkt_type != PACKET_HOST || skb_vlan_tag_present(skb) || rcu_access_pointer(skb->dev->rx_handler) ||
	    skb->_skb_refdst || skb_network_offset(skb) || skb_pfmemalloc(skb) ||
	    skb_sk_is_prefetched((struct sk_buff *)skb))
		return false;
	if (is_ipv6) {
		const struct inet6_dev *idev = __in6_dev_get(skb->dev);

		if (!idev || READ_ONCE(idev->cnf.disable_ipv6))
			return false;
	} else if (skb->protocol != htons(ETH_P_IP)) {
		return false;
	}
	/* The header's reader goes by this alone. */
	if (!skb_headlen(skb) || ip_hdr(skb)->version != (is_ipv6 ? 6 : 4))
		return false;
	if (skb_shared(skb) && (skb_is_nonlinear(skb) || skb_cloned(skb)))
		return false;
	return mwlc_is_first(net, is_ipv6, priority);
}

/* Notes that a packet at ingress needs no look in PRE_ROUTING any more; a clone of it has the note as well. */
void mwlc_skb_set_seen(struct sk_buff *skb)
{
#if IS_ENABLED(CONFIG_IP_VS)
	skb->ipvs_property = 1;
#endif
}

/* Whether that was noted; the note is gone afterwards. */
bool mwlc_skb_take_seen(struct sk_buff *skb)
{
#if IS_ENABLED(CONFIG_IP_VS)
	if (skb->ipvs_property) {
		skb->ipvs_property = 0;
		return true;
	}
#endif
	return false;
}
