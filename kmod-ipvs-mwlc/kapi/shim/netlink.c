// SPDX-License-Identifier: GPL-2.0-only
/* Generic netlink. */
#include "shim.h"

#include <net/sock.h>

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
