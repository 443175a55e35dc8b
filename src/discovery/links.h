/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_DISCOVERY_LINKS_H
#define SHOAL_DISCOVERY_LINKS_H

#include <netinet/in.h>
#include <stdbool.h>

/* An IPv4 address of this machine, and the network that it is of. Network order. */
typedef struct ShoalLink4 {
    int index; /* of the interface */
    bool loopback, broadcast;
    struct in_addr address, mask, broadcast_address;
} ShoalLink4;

enum { SHOAL_LINKS = 64 };

/* The addresses of the interfaces that are up; returns how many. With ioctls: Android
 * allows its apps those (system/sepolicy, private/app.te: unpriv_sock_ioctls), but from version 11
 * on not the netlink messages that getifaddrs needs. */
int shoal_links_find(int fd, ShoalLink4 links[SHOAL_LINKS]);

/* The link of an interface on whose network the address is; NULL: none. */
const ShoalLink4 *shoal_links_near(const ShoalLink4 *links, int n, int index,
                                   struct in_addr address);

#endif
