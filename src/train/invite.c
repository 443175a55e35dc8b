/* SPDX-License-Identifier: Apache-2.0 */
#include "train/invite.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "discovery/links.h"

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
static int add_links(const ShoalLink4 *links, int n_links, bool loopback, uint16_t port,
                     ShoalAddress *addresses, int n) {
    for (int i = 0; i < n_links && n < SHOAL_INVITE_ADDRESSES; i++)
        if (links[i].loopback == loopback)
            addresses[n++] = shoal_address_from_ip4(links[i].address, port);
    return n;
}

int shoal_invite_addresses(const ShoalAddress *listen,
                           ShoalAddress addresses[SHOAL_INVITE_ADDRESSES]) {
    ShoalLink4 links[SHOAL_LINKS];
    int fd = is_any(listen) ? socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0) : -1;
    int found = fd >= 0 ? shoal_links_find(fd, links) : 0;
    if (fd >= 0)
        close(fd);
    uint16_t port = shoal_address_port(listen);
    int n = add_links(links, found, false, port, addresses, 0);
    n = add_links(links, found, true, port, addresses, n);
    if (n == 0)
        addresses[n++] = *listen;
    return n;
}

void shoal_invite_command(const ShoalAddress *address, const char *token, char *text, size_t size) {
    char where[SHOAL_ADDRESS_TEXT];
    shoal_address_format(address, where);
    snprintf(text, size, "SHOAL_TOKEN=%s shoal worker --join=%s", token, where);
}
