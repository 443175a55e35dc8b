/* SPDX-License-Identifier: Apache-2.0 */
#include "train/invite.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

static const struct sockaddr_in *as_ip4(const ShoalAddress *address) {
    return (const struct sockaddr_in *)(const void *)&address->storage;
}

static const struct sockaddr_in6 *as_ip6(const ShoalAddress *address) {
    return (const struct sockaddr_in6 *)(const void *)&address->storage;
}

static bool is_any(const ShoalAddress *address) {
    return address->storage.ss_family == AF_INET
               ? as_ip4(address)->sin_addr.s_addr == htonl(INADDR_ANY)
               : IN6_IS_ADDR_UNSPECIFIED(&as_ip6(address)->sin6_addr);
}

bool shoal_invite_is_local(const ShoalAddress *address) {
    return address->storage.ss_family == AF_INET
               ? ntohl(as_ip4(address)->sin_addr.s_addr) >> 24 == IN_LOOPBACKNET
               : IN6_IS_ADDR_LOOPBACK(&as_ip6(address)->sin6_addr);
}

/* Its IPv4 addresses: those of IPv6 that need no scope are rare in a drawer of phones. */
static int add_interfaces(const struct ifaddrs *all, bool loopback, in_port_t port,
                          ShoalAddress *addresses, int n) {
    for (const struct ifaddrs *i = all; i && n < SHOAL_INVITE_ADDRESSES; i = i->ifa_next) {
        bool up = (i->ifa_flags & IFF_UP) && i->ifa_addr && i->ifa_addr->sa_family == AF_INET;
        if (!up || loopback != !!(i->ifa_flags & IFF_LOOPBACK))
            continue;
        struct sockaddr_in at;
        memcpy(&at, i->ifa_addr, sizeof at);
        at.sin_port = port;
        memset(&addresses[n], 0, sizeof addresses[n]);
        memcpy(&addresses[n].storage, &at, sizeof at);
        addresses[n++].size = sizeof at;
    }
    return n;
}

int shoal_invite_addresses(const ShoalAddress *listen,
                           ShoalAddress addresses[SHOAL_INVITE_ADDRESSES]) {
    struct ifaddrs *all;
    if (!is_any(listen) || getifaddrs(&all)) {
        addresses[0] = *listen;
        return 1;
    }
    in_port_t port =
        listen->storage.ss_family == AF_INET ? as_ip4(listen)->sin_port : as_ip6(listen)->sin6_port;
    int n = add_interfaces(all, false, port, addresses, 0);
    n = add_interfaces(all, true, port, addresses, n);
    freeifaddrs(all);
    if (n == 0)
        addresses[n++] = *listen;
    return n;
}

void shoal_invite_command(const ShoalAddress *address, const char *token, char *text, size_t size) {
    char where[SHOAL_ADDRESS_TEXT];
    shoal_address_format(address, where);
    snprintf(text, size, "SHOAL_TOKEN=%s shoal worker --join=%s", token, where);
}
