// SPDX-License-Identifier: GPL-2.0-only
/* Network devices and their namespaces. */

#include <linux/if_arp.h>
#include <linux/netdevice.h>
#include <linux/netfilter.h>
#include <net/net_namespace.h>

#include "helpers.h"

static_assert(SLEEPY_NETDEV_UNREGISTER == NETDEV_UNREGISTER);
static_assert(SLEEPY_PF_NETDEV == NFPROTO_NETDEV);

void sleepy_dev_hold(struct net_device *dev)
{
	dev_hold(dev);
}

void sleepy_dev_put(struct net_device *dev)
{
	dev_put(dev);
}

bool sleepy_dev_is_ethernet(const struct net_device *dev)
{
	return dev->type == ARPHRD_ETHER;
}

u32 sleepy_dev_ifindex(const struct net_device *dev)
{
	return READ_ONCE(dev->ifindex);
}

/* The caller holds RTNL, against renaming. */
void sleepy_dev_name(const struct net_device *dev, char *name)
{
	strscpy(name, dev->name, IFNAMSIZ);
}

struct net *sleepy_dev_net(const struct net_device *dev)
{
	return dev_net(dev);
}

u64 sleepy_net_inode(const struct net *net)
{
	return net->ns.inum;
}

void sleepy_put_net(struct net *net)
{
	put_net(net);
}

struct net_device *sleepy_notifier_dev(void *info)
{
	return netdev_notifier_info_to_dev(info);
}
