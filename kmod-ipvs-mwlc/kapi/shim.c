// SPDX-License-Identifier: GPL-2.0-only
/* The kernel's static inlines and macros as functions, for Rust; see shim.h. */
#include "shim.h"

#include <linux/icmp.h>
#include <linux/jiffies.h>
#include <linux/mm.h>
#include <linux/spinlock.h>
#include <net/gso.h>
#include <net/icmp.h>
#include <net/ip.h>
#include <net/neighbour.h>
#include <net/netns/generic.h>
#include <net/route.h>

unsigned long mwlc_jiffies(void)
{
	return jiffies;
}

void mwlc_lock_init(spinlock_t *lock)
{
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

void mwlc_timer_setup(struct timer_list *timer, void (*fired)(struct timer_list *))
{
	timer_setup(timer, fired, 0);
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

bool mwlc_dst_is_valid(struct dst_entry *dst)
{
	return dst_check(dst, 0) != NULL;
}

bool mwlc_dst_is_local(const struct dst_entry *dst)
{
	return dst_rtable(dst)->rt_flags & RTCF_LOCAL;
}

unsigned int mwlc_dst_mtu(const struct dst_entry *dst)
{
	return dst_mtu(dst);
}

/* As ip_exceeds_mtu() in ip_forward.c: a datagram that may be fragmented never does. */
bool mwlc_skb_exceeds_mtu(const struct sk_buff *skb, unsigned int mtu)
{
	if (skb->len <= mtu || !(ip_hdr(skb)->frag_off & htons(IP_DF)))
		return false;
	if (unlikely(IPCB(skb)->frag_max_size > mtu))
		return true;
	if (skb->ignore_df)
		return false;
	return !(skb_is_gso(skb) && skb_gso_validate_network_len(skb, mtu));
}

/* Makes the header writable with room for the link layer, and decrements the TTL. The caller has seen that it is above 1. */
int mwlc_skb_prepare_forward(struct sk_buff *skb, const struct dst_entry *dst)
{
	if (skb_warn_if_lro(skb))
		return -EINVAL;
	if (skb_cow(skb, LL_RESERVED_SPACE(dst->dev) + dst->header_len))
		return -ENOMEM;
	ip_decrease_ttl(ip_hdr(skb));
	skb_forward_csum(skb);
	skb_clear_tstamp(skb);
	return 0;
}

static int mwlc_neigh_output(struct net *net, struct sock *sk, struct sk_buff *skb)
{
	struct rtable *rt = skb_rtable(skb);
	struct neighbour *neigh;
	bool is_v6gw = false;

	neigh = ip_neigh_for_gw(rt, skb, &is_v6gw);
	if (IS_ERR(neigh)) {
		kfree_skb(skb);
		return PTR_ERR(neigh);
	}
	sock_confirm_neigh(skb, neigh);
	return neigh_output(neigh, skb, is_v6gw);
}

/* Consumes the skb. Under rcu_read_lock, which keeps both dst and neighbour. */
void mwlc_skb_transmit(struct net *net, struct sk_buff *skb, struct dst_entry *dst)
{
	skb_dst_drop(skb);
	skb_dst_set_noref(skb, dst);
	skb->protocol = htons(ETH_P_IP);
	skb->dev = dst->dev;
	if (unlikely(skb->len > dst_mtu(dst) && !skb_is_gso(skb)))
		ip_do_fragment(net, NULL, skb, mwlc_neigh_output);
	else
		mwlc_neigh_output(net, NULL, skb);
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
