// SPDX-License-Identifier: GPL-2.0-only
/* The kernel's static inlines and macros as functions, for Rust; see shim.h. */
#include "shim.h"

#include <linux/icmp.h>
#include <linux/icmpv6.h>
#include <linux/kmod.h>
#include <linux/mm.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <net/gso.h>
#include <net/icmp.h>
#include <net/ip.h>
#include <net/ip6_fib.h>
#include <net/ip6_route.h>
#include <net/ipv6.h>
#include <net/ndisc.h>
#include <net/neighbour.h>
#include <net/netfilter/ipv6/nf_defrag_ipv6.h>
#include <net/netns/generic.h>
#include <net/route.h>
#include <net/sock.h>

void mwlc_cond_resched(void)
{
	cond_resched();
}

void mwlc_lock_init(spinlock_t *lock, bool outer)
{
	/* Two places, so that lockdep has two classes: see kapi/lock.rs. */
	if (outer)
		spin_lock_init(lock);
	else
		spin_lock_init(lock);
}

void mwlc_lock_bh(spinlock_t *lock)
{
	spin_lock_bh(lock);
}

void mwlc_unlock_bh(spinlock_t *lock)
{
	spin_unlock_bh(lock);
}

void mwlc_delayed_work_setup(struct delayed_work *work, void (*run)(struct work_struct *))
{
	INIT_DELAYED_WORK(work, run);
}

/* The power-efficient queue: an estimator has no reason to stay on one CPU. */
bool mwlc_delayed_work_queue(struct delayed_work *work, unsigned long delay)
{
	return queue_delayed_work(system_power_efficient_wq, work, delay);
}

u64 mwlc_siphash(const void *data, size_t bytes, const siphash_key_t *key)
{
	return siphash(data, bytes, key);
}

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

u32 mwlc_hsiphash(const void *data, size_t bytes, const hsiphash_key_t *key)
{
	return hsiphash(data, bytes, key);
}

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

/* As IPVS counts it: what is free, and what buffers hold. */
unsigned long mwlc_ram_available_pages(void)
{
	struct sysinfo info;

	si_meminfo(&info);
	return info.freeram + info.bufferram;
}

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
 * Whether nothing is hooked into PRE_ROUTING before this priority, that is no raw table, whose rules are not to be passed by.
 * Reassembly is nothing: whole packets pass it as they are.
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
 * Whether a packet at a device's ingress would go to ip_rcv or ipv6_rcv next, just as it is, and would be the first thing that
 * PRE_ROUTING's hook with this priority sees. Not those of a bridge's, bond's or macvlan's member, nor with a VLAN's tag: they
 * come again from the device that they belong to. Who holds a second reference has been given the packet to look at or is about
 * to free it, so a packet that nobody has to reallocate may be sent on all the same, as nf_flow_table and act_mirred do it.
 */
bool mwlc_skb_arrives(const struct sk_buff *skb, const struct net *net, int priority)
{
	bool is_ipv6 = skb->protocol == htons(ETH_P_IPV6);

	if (skb->pkt_type != PACKET_HOST || skb_vlan_tag_present(skb) || rcu_access_pointer(skb->dev->rx_handler) ||
	    skb->_skb_refdst || skb_network_offset(skb) || skb_pfmemalloc(skb) || skb_sk_is_prefetched((struct sk_buff *)skb))
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

/* What a link added to the packet goes, as in ip_rcv. */
bool mwlc_skb_trim(struct sk_buff *skb, unsigned int bytes)
{
	return pskb_trim_rcsum(skb, bytes) == 0;
}

/*
 * Makes of a packet at ingress what ip_rcv or ipv6_rcv would: the caller's alone, with a control block of IP's. NULL if there was
 * no memory; then it was freed.
 */
struct sk_buff *mwlc_skb_settle(struct sk_buff *skb)
{
	skb = skb_share_check(skb, GFP_ATOMIC);
	if (!skb)
		return NULL;
	skb_orphan(skb);
	if (mwlc_skb_is_ipv6(skb)) {
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

/*
 * 0: the skb is a whole datagram. Otherwise the skb was kept or freed. The queue is that of IPVS (IP_DEFRAG_VS_IN), so fragments
 * never mix with those of conntrack or of local delivery.
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
	return skb->protocol == htons(ETH_P_IPV6);
}

void mwlc_icmpv6_send(struct sk_buff *skb, u8 type, u8 code, u32 info)
{
	icmpv6_send(skb, type, code, info);
}

/*
 * Has IPv6 fragments put together before the hook, which is what nf_defrag_ipv6 does for whoever asks. The module is asked for when
 * it is needed, so that this one loads without it; without it, IPv6 fragments are not balanced.
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

static bool mwlc_dst_is_ipv6(const struct dst_entry *dst)
{
	return dst->ops->family == AF_INET6;
}

/* What mwlc_dst_kind wants to have back later. */
u32 mwlc_dst_cookie(struct dst_entry *dst)
{
	return mwlc_dst_is_ipv6(dst) ? rt6_get_cookie(dst_rt6_info(dst)) : 0;
}

unsigned int mwlc_dst_kind(struct dst_entry *dst, u32 cookie)
{
	bool local;

	if (!dst_check(dst, cookie))
		return MWLC_DST_STALE;
	if (mwlc_dst_is_ipv6(dst))
		local = dst_rt6_info(dst)->rt6i_flags & RTF_LOCAL;
	else
		local = dst_rtable(dst)->rt_flags & RTCF_LOCAL;
	return local ? MWLC_DST_LOCAL : MWLC_DST_REMOTE;
}

unsigned int mwlc_dst_mtu(const struct dst_entry *dst)
{
	return dst_mtu(dst);
}

/*
 * Whether the skb, which is longer than the MTU, may not be sent. As ip_exceeds_mtu() in ip_forward.c and ip6_pkt_too_big() in
 * ip6_output.c: a datagram that may be fragmented may, and so may one whose fragments were small enough.
 */
bool mwlc_skb_exceeds_mtu(const struct sk_buff *skb, unsigned int mtu)
{
	if (mwlc_skb_is_ipv6(skb)) {
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

/* The neighbour that a route leads to; the skb's own address is of no interest, for the route is to the real server itself. */
static struct neighbour *mwlc_neigh(struct dst_entry *dst, struct sk_buff *skb, bool *is_v6gw)
{
	if (!mwlc_dst_is_ipv6(dst))
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
 * What neigh_output does for a neighbour whose address is known, where the cached header is Ethernet's. The kernel's own copies
 * 16 bytes and needs as much room; an skb that came from an Ethernet device with none to spare has just the 14 of the old header.
 * False if it is another neighbour: nothing has happened to the skb then.
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
 * Whether a device can send an skb that somebody else is about to free: it must not have to reallocate it. Those that never do say
 * so; veth and netkit do not, because they hand the skb to their peer's stack, which clones what is shared.
 */
static bool mwlc_may_share(const struct sk_buff *skb, const struct net_device *dev)
{
	return !skb_cloned(skb) && !skb_is_nonlinear(skb) && skb->ip_summed != CHECKSUM_PARTIAL &&
	       (dev->priv_flags & IFF_TX_SKB_SHARING || dev->netdev_ops->ndo_get_peer_dev);
}

/* Makes the skb ready to leave by the route's device, with one hop less to live; NULL if it was freed. */
static struct sk_buff *mwlc_skb_leave(struct sk_buff *skb, const struct dst_entry *dst)
{
	bool is_ipv6 = mwlc_skb_is_ipv6(skb);
	unsigned int header_bytes = is_ipv6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr);

	if (skb_warn_if_lro(skb))
		goto drop;
	if (unlikely(skb_shared(skb)) && !mwlc_may_share(skb, dst->dev)) {
		skb = skb_share_check(skb, GFP_ATOMIC);
		if (!skb)
			return NULL;
	}
	/* The time to live is in data that a clone may share. */
	if (unlikely(skb_cloned(skb)) && !skb_clone_writable(skb, header_bytes) && pskb_expand_head(skb, 0, 0, GFP_ATOMIC))
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
 * Consumes the skb, which is no longer than the MTU or in segments that are not; false if it was freed for want of memory. The
 * caller has seen that its TTL is above 1. Under rcu_read_lock, which keeps both dst and neighbour.
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
	if (mwlc_skb_is_ipv6(skb))
		ip6_fragment(net, NULL, skb, mwlc_neigh_output);
	else
		ip_do_fragment(net, NULL, skb, mwlc_neigh_output);
	return true;
}

struct net *mwlc_skb_net(const struct sk_buff *skb)
{
	return sock_net(skb->sk);
}

struct net *mwlc_info_net(const struct genl_info *info)
{
	return genl_info_net(info);
}

struct sk_buff *mwlc_genlmsg_new(size_t payload)
{
	return genlmsg_new(payload, GFP_KERNEL);
}

struct sk_buff *mwlc_genlmsg_new_atomic(size_t payload)
{
	return genlmsg_new(payload, GFP_ATOMIC);
}

bool mwlc_has_listeners(const struct genl_family *family, struct net *net, unsigned int group)
{
	return genl_has_listeners(family, net, group) > 0;
}

/* Consumes the skb. That nobody listens any more, or that a listener has no room, is not the sender's trouble. */
void mwlc_genlmsg_multicast(const struct genl_family *family, struct net *net, struct sk_buff *skb, unsigned int group)
{
	genlmsg_multicast_netns(family, net, skb, 0, group, GFP_ATOMIC);
}

void mwlc_genlmsg_end(struct sk_buff *skb, void *header)
{
	genlmsg_end(skb, header);
}

void mwlc_genlmsg_cancel(struct sk_buff *skb, void *header)
{
	genlmsg_cancel(skb, header);
}

int mwlc_genlmsg_reply(struct sk_buff *skb, struct genl_info *info)
{
	return genlmsg_reply(skb, info);
}

void mwlc_nlmsg_free(struct sk_buff *skb)
{
	nlmsg_free(skb);
}

int mwlc_skb_tailroom(const struct sk_buff *skb)
{
	return skb_tailroom(skb);
}

const struct genl_info *mwlc_info_of_dump(struct netlink_callback *cb)
{
	return genl_info_dump(cb);
}

void *mwlc_net_generic(const struct net *net, unsigned int id)
{
	return net_generic(net, id);
}

struct net *mwlc_seq_single_net(struct seq_file *seq)
{
	return seq_file_single_net(seq);
}

struct net *mwlc_seq_net(struct seq_file *seq)
{
	return seq_file_net(seq);
}

bool mwlc_proc_create_single(struct net *net, const char *name, int (*show)(struct seq_file *, void *))
{
	return proc_create_net_single(name, 0444, net->proc_net, show, NULL);
}

bool mwlc_proc_create_seq(struct net *net, const char *name, const struct seq_operations *ops)
{
	return proc_create_net_data(name, 0444, net->proc_net, ops, sizeof(struct seq_net_private), NULL);
}

void mwlc_proc_remove(struct net *net, const char *name)
{
	remove_proc_entry(name, net->proc_net);
}
