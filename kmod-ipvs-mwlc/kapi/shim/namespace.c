// SPDX-License-Identifier: GPL-2.0-only
/* Network namespaces. */
#include "shim.h"

#include <net/netns/generic.h>

void *mwlc_net_generic(const struct net *net, unsigned int id)
{
	return net_generic(net, id);
}
