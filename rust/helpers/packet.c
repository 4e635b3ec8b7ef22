// SPDX-License-Identifier: GPL-2.0-only
/* Packets, and the programs that look at them. */

#include <linux/bpf.h>
#include <linux/etherdevice.h>
#include <linux/filter.h>
#include <linux/if_arp.h>
#include <linux/if_vlan.h>
#include <linux/skbuff.h>
#include <linux/tcp.h>
#include <net/ip.h>
#include <net/ipv6.h>

#include "helpers.h"

/* Bottom halves are off, so that the program stays on this CPU. */
u32 sleepy_filter_run(const struct bpf_prog *prog, struct sk_buff *skb)
{
	return bpf_prog_run_save_cb(prog, skb);
}

u32 sleepy_prog_id(const struct bpf_prog *prog)
{
	return prog->aux->id;
}

struct bpf_prog *sleepy_prog_get(int fd)
{
	return bpf_prog_get_type_dev(fd, BPF_PROG_TYPE_SOCKET_FILTER, false);
}

void sleepy_prog_put(struct bpf_prog *prog)
{
	bpf_prog_put(prog);
}

/*
 * What the sender of a TCP segment says of itself and of what comes next. The
 * data begin with the link layer's header. A segment is full if it fills the
 * device's MTU, or, of several that travel as one, if the last one is as long as
 * the others.
 */
void sleepy_skb_tcp(const struct sk_buff *skb, struct sleepy_tcp *said)
{
	int ip = skb_network_offset(skb), offset, end, payload;
	struct tcphdr tcp_buffer, *tcp;
	__be16 frag_off;
	u8 protocol;

	*said = (struct sleepy_tcp){};
	if (skb->protocol == htons(ETH_P_IP)) {
		struct iphdr buffer;
		const struct iphdr *header =
			skb_header_pointer(skb, ip, sizeof(buffer), &buffer);

		if (!header || header->protocol != IPPROTO_TCP ||
		    header->frag_off & htons(IP_OFFSET))
			return;
		offset = ip + header->ihl * 4;
		end = ip + ntohs(header->tot_len);
	} else if (skb->protocol == htons(ETH_P_IPV6)) {
		struct ipv6hdr buffer;
		const struct ipv6hdr *header =
			skb_header_pointer(skb, ip, sizeof(buffer), &buffer);

		if (!header)
			return;
		protocol = header->nexthdr;
		offset = ipv6_skip_exthdr(skb, ip + sizeof(buffer), &protocol,
					  &frag_off);
		if (offset < 0 || protocol != IPPROTO_TCP || frag_off)
			return;
		end = ip + (int)sizeof(buffer) + ntohs(header->payload_len);
	} else {
		return;
	}
	tcp = skb_header_pointer(skb, offset, sizeof(tcp_buffer), &tcp_buffer);
	if (!tcp)
		return;
	offset += tcp->doff * 4;
	/* A short packet may be padded, a long one may not say how long it is. */
	if (skb_is_gso(skb))
		end = skb->len;
	payload = max(end - offset, 0);
	said->flags = SLEEPY_TCP;
	said->end = ntohl(tcp->seq) + payload + tcp->syn + tcp->fin;
	if (!payload && !tcp->syn)
		said->flags |= SLEEPY_TCP_BARE;
	/* What opens or ends a connection is whole. */
	if (tcp->syn || tcp->fin || tcp->rst) {
		said->flags |= SLEEPY_TCP_PUSHED;
		return;
	}
	if (tcp->psh)
		said->flags |= SLEEPY_TCP_PUSHED;
	if (payload && (skb_is_gso(skb) ?
			!(payload % skb_shinfo(skb)->gso_size) :
			skb->dev && skb->len - ip >= READ_ONCE(skb->dev->mtu)))
		said->flags |= SLEEPY_TCP_FULL;
}

/*
 * Whether an Ethernet frame is for many, and does not ask one of them for its
 * address, as ARP does and IPv6 neighbour solicitation (to 33:33:ff:...). The
 * data begin with the link layer's header. What is in a VLAN may do so.
 */
bool sleepy_skb_tells_many(const struct sk_buff *skb)
{
	static const u8 solicits[] = { 0x33, 0x33, 0xff };
	const struct ethhdr *eth;
	struct ethhdr buffer;

	if (!skb->dev || skb->dev->type != ARPHRD_ETHER)
		return false;
	eth = skb_header_pointer(skb, 0, sizeof(buffer), &buffer);
	return eth && is_multicast_ether_addr(eth->h_dest) &&
	       eth->h_proto != htons(ETH_P_ARP) &&
	       !eth_type_vlan(eth->h_proto) &&
	       memcmp(eth->h_dest, solicits, sizeof(solicits));
}

/* At ingress, the stack has pulled the link layer's header already. */
void sleepy_skb_push_mac(struct sk_buff *skb)
{
	__skb_push(skb, skb->mac_len);
}

void sleepy_skb_pull_mac(struct sk_buff *skb)
{
	__skb_pull(skb, skb->mac_len);
}

u32 sleepy_skb_flow_hash(const struct sk_buff *skb, const struct net *net)
{
	return __skb_get_hash_symmetric_net(net, skb);
}
