// SPDX-License-Identifier: GPL-2.0-only
/* Files in /proc/net. */
#include "shim.h"

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
