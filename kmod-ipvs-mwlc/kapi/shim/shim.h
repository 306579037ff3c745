/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The kernel as the module sees it: bindgen reads this header, and the C files beside it define the mwlc_*
 * functions, one file for each noun, as rust/helpers of the kernel has it. They wrap what is static inline or a
 * macro in the kernel. Nothing is decided here; the Rust code in kapi/ is the only caller.
 */
#ifndef IPVS_MWLC_SHIM_H
#define IPVS_MWLC_SHIM_H

#include <linux/jiffies.h>
#include <linux/netdevice.h>
#include <linux/netfilter_ipv4.h>
#include <linux/netfilter_ipv6.h>
#include <linux/proc_fs.h>
#include <linux/random.h>
#include <linux/rcupdate.h>
#include <linux/seq_file.h>
#include <linux/siphash.h>
#include <linux/skbuff.h>
#include <linux/sysctl.h>
#include <linux/workqueue.h>
#include <net/dst.h>
#include <net/genetlink.h>
#include <net/net_namespace.h>

/* Constants that bindgen cannot evaluate, or that are spelled as enums. */
enum {
	MWLC_HZ = HZ,
	MWLC_NLMSG_HDRLEN = NLMSG_HDRLEN,
	MWLC_GENL_HDRLEN = GENL_HDRLEN,
	MWLC_GENL_ADMIN_PERM = GENL_ADMIN_PERM,
	MWLC_GENL_DONT_VALIDATE = GENL_DONT_VALIDATE_STRICT | GENL_DONT_VALIDATE_DUMP | GENL_DONT_VALIDATE_DUMP_STRICT,
	MWLC_GENL_MCAST_CAP_NET_ADMIN = GENL_MCAST_CAP_NET_ADMIN,
	MWLC_NLM_F_MULTI = NLM_F_MULTI,
	MWLC_NF_ACCEPT = NF_ACCEPT,
	MWLC_NF_STOLEN = NF_STOLEN,
	MWLC_NFPROTO_IPV4 = NFPROTO_IPV4,
	MWLC_NFPROTO_IPV6 = NFPROTO_IPV6,
	MWLC_NFPROTO_NETDEV = NFPROTO_NETDEV,
	MWLC_NF_NETDEV_INGRESS = NF_NETDEV_INGRESS,
	MWLC_NETDEV_REGISTER = NETDEV_REGISTER,
	MWLC_NETDEV_UNREGISTER = NETDEV_UNREGISTER,
	MWLC_NOTIFY_DONE = NOTIFY_DONE,
	MWLC_NF_INET_PRE_ROUTING = NF_INET_PRE_ROUTING,
	MWLC_NF_IP_PRI_RAW = NF_IP_PRI_RAW,
	MWLC_NF_IP6_PRI_RAW = NF_IP6_PRI_RAW,
	MWLC_NF_IP_PRI_MANGLE = NF_IP_PRI_MANGLE,
	MWLC_NF_IP6_PRI_MANGLE = NF_IP6_PRI_MANGLE,
};

/* What mwlc_dst_kind says. */
enum {
	MWLC_DST_STALE,
	MWLC_DST_LOCAL,
	MWLC_DST_REMOTE,
};

/* lock.c: spinlocks. */
void mwlc_lock_init(spinlock_t *lock, bool outer);
void mwlc_lock_bh(spinlock_t *lock);
void mwlc_unlock_bh(spinlock_t *lock);

/* work.c: work that repeats, and giving up the CPU. */
void mwlc_cond_resched(void);
void mwlc_delayed_work_setup(struct delayed_work *work, void (*run)(struct work_struct *));
bool mwlc_delayed_work_queue(struct delayed_work *work, unsigned long delay);

/* random.c: keyed hashes. */
u64 mwlc_siphash(const void *data, size_t bytes, const siphash_key_t *key);
u32 mwlc_hsiphash(const void *data, size_t bytes, const hsiphash_key_t *key);

/* machine.c: the machine: its CPUs and its memory. */
unsigned int mwlc_cpu(void);
unsigned int mwlc_cpus(void);
unsigned long mwlc_ram_bytes(void);
unsigned long mwlc_ram_available_pages(void);

/* slab.c: the module's own cache of objects. */
int mwlc_cache_create(unsigned int bytes, unsigned int align);
void mwlc_cache_destroy(void);
void *mwlc_cache_alloc(void);
void mwlc_cache_free(void *object);

/* ingress.c: packets at the ingress of a device, before the IP layer. */
bool mwlc_has_ingress(void);
bool mwlc_dev_is_loopback(const struct net_device *dev);
bool mwlc_skb_arrives(const struct sk_buff *skb, const struct net *net, int priority);
void mwlc_skb_set_seen(struct sk_buff *skb);
bool mwlc_skb_take_seen(struct sk_buff *skb);

/* packet.c: packets: the header is that at skb->data, as in PRE_ROUTING. */
bool mwlc_skb_trim(struct sk_buff *skb, unsigned int bytes);
struct sk_buff *mwlc_skb_settle(struct sk_buff *skb);
bool mwlc_skb_may_pull(struct sk_buff *skb, unsigned int bytes);
bool mwlc_skb_is_multicast(const struct sk_buff *skb);
u32 mwlc_skb_mark(const struct sk_buff *skb);
void mwlc_skb_drop(struct sk_buff *skb);
void mwlc_icmp_send(struct sk_buff *skb, u8 type, u8 code, u32 info);
bool mwlc_skb_is_ipv6(const struct sk_buff *skb);
void mwlc_icmpv6_send(struct sk_buff *skb, u8 type, u8 code, u32 info);

/* defrag.c: putting fragments together. */
int mwlc_skb_defrag(struct net *net, struct sk_buff *skb);
int mwlc_defrag6_start(struct net *net);
void mwlc_defrag6_stop(struct net *net);

/* route.c: routes to real servers. */
struct dst_entry *mwlc_route_output(struct net *net, u32 address_be);
struct dst_entry *mwlc_route_output6(struct net *net, const u8 address[16]);
u32 mwlc_dst_cookie(struct dst_entry *dst);
unsigned int mwlc_dst_kind(struct dst_entry *dst, u32 cookie);
unsigned int mwlc_dst_mtu(const struct dst_entry *dst);

/* transmit.c: sending a packet on by a route. */
bool mwlc_skb_exceeds_mtu(const struct sk_buff *skb, unsigned int mtu);
bool mwlc_skb_forward(struct net *net, struct sk_buff *skb, struct dst_entry *dst);
bool mwlc_skb_forward_long(struct net *net, struct sk_buff *skb, struct dst_entry *dst);

/* netlink.c: generic netlink. */
struct net *mwlc_skb_net(const struct sk_buff *skb);
struct net *mwlc_info_net(const struct genl_info *info);
struct sk_buff *mwlc_genlmsg_new(size_t payload);
struct sk_buff *mwlc_genlmsg_new_atomic(size_t payload);
bool mwlc_has_listeners(const struct genl_family *family, struct net *net, unsigned int group);
void mwlc_genlmsg_multicast(const struct genl_family *family, struct net *net, struct sk_buff *skb, unsigned int group);
void mwlc_genlmsg_end(struct sk_buff *skb, void *header);
void mwlc_genlmsg_cancel(struct sk_buff *skb, void *header);
int mwlc_genlmsg_reply(struct sk_buff *skb, struct genl_info *info);
void mwlc_nlmsg_free(struct sk_buff *skb);
int mwlc_skb_tailroom(const struct sk_buff *skb);
const struct genl_info *mwlc_info_of_dump(struct netlink_callback *cb);

/* namespace.c: network namespaces. */
void *mwlc_net_generic(const struct net *net, unsigned int id);

/* procfs.c: files in /proc/net. */
struct net *mwlc_seq_single_net(struct seq_file *seq);
struct net *mwlc_seq_net(struct seq_file *seq);
bool mwlc_proc_create_single(struct net *net, const char *name, int (*show)(struct seq_file *, void *));
bool mwlc_proc_create_seq(struct net *net, const char *name, const struct seq_operations *ops);
void mwlc_proc_remove(struct net *net, const char *name);

#endif
