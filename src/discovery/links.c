/* SPDX-License-Identifier: Apache-2.0 */
#include "discovery/links.h"

#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>

static struct in_addr address_of(const struct sockaddr *address) {
    struct sockaddr_in in;
    memcpy(&in, address, sizeof in);
    return in.sin_addr;
}

/* `request` carries the interface's name. */
static bool describe(int fd, struct ifreq *request, ShoalLink4 *link) {
    memset(link, 0, sizeof *link);
    link->address = address_of(&request->ifr_addr);
    if (ioctl(fd, SIOCGIFFLAGS, request) || !(request->ifr_flags & IFF_UP))
        return false;
    link->loopback = request->ifr_flags & IFF_LOOPBACK;
    link->broadcast = request->ifr_flags & IFF_BROADCAST;
    if (!link->loopback && !(request->ifr_flags & (IFF_MULTICAST | IFF_BROADCAST)))
        return false;
    if (ioctl(fd, SIOCGIFINDEX, request))
        return false;
    link->index = request->ifr_ifindex;
    if (ioctl(fd, SIOCGIFNETMASK, request))
        return false;
    link->mask = address_of(&request->ifr_netmask);
    link->broadcast_address.s_addr = link->address.s_addr | ~link->mask.s_addr;
    return true;
}

int shoal_links_find(int fd, ShoalLink4 links[SHOAL_LINKS]) {
    struct ifreq requests[SHOAL_LINKS];
    struct ifconf list = {.ifc_len = sizeof requests, .ifc_req = requests};
    if (ioctl(fd, SIOCGIFCONF, &list))
        return 0;
    int n = 0, count = list.ifc_len / (int)sizeof requests[0];
    for (int i = 0; i < count; i++)
        if (requests[i].ifr_addr.sa_family == AF_INET && describe(fd, &requests[i], &links[n]))
            n++;
    return n;
}

const ShoalLink4 *shoal_links_near(const ShoalLink4 *links, int n, int index,
                                   struct in_addr address) {
    for (int i = 0; i < n; i++)
        if (links[i].index == index &&
            !((links[i].address.s_addr ^ address.s_addr) & links[i].mask.s_addr))
            return &links[i];
    return NULL;
}
