/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/stop.h"
#include "collective/auth.h"
#include "discovery/discovery.h"
#include "discovery/links.h"
#include "discovery/mdns.h"
#include "shoal/shoal.h"

enum {
    ASK_MS = 500,    /* between questions */
    SETTLE_MS = 400, /* for others, after the first answer */
    LOOK_MS = 50,    /* how long a request to stop may wait */
    PER_SENDER = 4   /* so that one machine cannot crowd out the others */
};

typedef struct Search {
    int fd;
    uint16_t id;
    ShoalAddress *found;
    struct in_addr *senders; /* [max] of found */
    bool *direct;            /* [max] it is the sender's own address; those come first */
    int max, n;
} Search;

static ShoalStatus open_search(Search *search, ShoalError *err) {
    const int on = 1, ttl = 255;
    search->fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (search->fd < 0)
        return shoal_error_set(err, SHOAL_ERR_NETWORK,
                               "cannot look for a coordinator: no UDP socket: %s", strerror(errno));
    setsockopt(search->fd, SOL_SOCKET, SO_BROADCAST, &on, sizeof on);
    setsockopt(search->fd, IPPROTO_IP, IP_MULTICAST_TTL, &ttl, sizeof ttl);
    return SHOAL_OK;
}

static bool send_to(const Search *search, struct in_addr where, const unsigned char *packet,
                    size_t size) {
    struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons(SHOAL_MDNS_PORT), .sin_addr = where};
    return sendto(search->fd, packet, size, 0, (struct sockaddr *)&to, sizeof to) == (ssize_t)size;
}

/* By multicast and by broadcast: some access points drop the one, some the other. A failure on one
 * interface is none: it may come up later. */
static ShoalStatus ask(const Search *search, ShoalError *err) {
    unsigned char packet[SHOAL_MDNS_PACKET];
    ShoalLink4 links[SHOAL_LINKS];
    struct in_addr group;
    size_t size = shoal_mdns_write_query(search->id, packet);
    int n = shoal_links_find(search->fd, links), sent = 0;
    inet_pton(AF_INET, SHOAL_MDNS_GROUP, &group);
    for (int i = 0; i < n; i++) {
        const struct ip_mreqn way = {.imr_ifindex = links[i].index,
                                     .imr_address = links[i].address};
        if (!setsockopt(search->fd, IPPROTO_IP, IP_MULTICAST_IF, &way, sizeof way))
            sent += send_to(search, group, packet, size);
        if (links[i].broadcast)
            sent += send_to(search, links[i].broadcast_address, packet, size);
    }
    return sent ? SHOAL_OK
                : shoal_error_set(err, SHOAL_ERR_NETWORK,
                                  "cannot look for a coordinator: no network is up here");
}

static void add(Search *search, struct in_addr sender, struct in_addr host, uint16_t port) {
    const ShoalAddress address = shoal_address_from_ip4(host, port);
    int of_sender = 0;
    for (int i = 0; i < search->n; i++) {
        of_sender += search->senders[i].s_addr == sender.s_addr;
        if (!memcmp(&search->found[i].storage, &address.storage, address.size))
            return;
    }
    if (search->n == search->max || of_sender == PER_SENDER)
        return;
    /* Whoever speaks for itself comes before who sends us elsewhere: that may lead nowhere, and to
     * find out takes long. */
    int at = search->n++;
    for (; host.s_addr == sender.s_addr && at > 0 && !search->direct[at - 1]; at--) {
        search->senders[at] = search->senders[at - 1];
        search->found[at] = search->found[at - 1];
        search->direct[at] = search->direct[at - 1];
    }
    search->senders[at] = sender;
    search->found[at] = address;
    search->direct[at] = host.s_addr == sender.s_addr;
}

static void take(Search *search, const unsigned char *packet, size_t size, struct in_addr sender) {
    ShoalMdnsFound services[PER_SENDER];
    int n = shoal_mdns_read_answer(packet, size, search->id, services, PER_SENDER);
    for (int i = 0; i < n; i++) {
        struct in_addr host = sender;
        if (services[i].has_address)
            memcpy(&host, services[i].address, sizeof host);
        add(search, sender, host, services[i].port);
    }
}

static void receive(Search *search) {
    unsigned char packet[SHOAL_MDNS_MOST];
    for (int i = 0; i < 64; i++) { /* a flood does not keep us here */
        struct sockaddr_in from = {0};
        socklen_t length = sizeof from;
        ssize_t size =
            recvfrom(search->fd, packet, sizeof packet, 0, (struct sockaddr *)&from, &length);
        if (size < 0)
            return;
        take(search, packet, (size_t)size, from.sin_addr);
    }
}

static uint64_t sooner(uint64_t a, uint64_t b) {
    return a < b ? a : b;
}

static ShoalStatus search_until(Search *search, uint64_t deadline, volatile sig_atomic_t *stop,
                                ShoalError *err) {
    uint64_t next = 0;
    for (;;) {
        uint64_t now = shoal_clock_ms();
        if (shoal_stop_asked(stop) == SHOAL_STOP_NOW)
            return shoal_error_set(err, SHOAL_ERR_STOPPED, "stopped on request");
        if (now >= deadline)
            return SHOAL_OK;
        ShoalStatus status = now >= next ? ask(search, err) : SHOAL_OK;
        if (status)
            return status;
        if (now >= next)
            next = now + ASK_MS;
        uint64_t until = sooner(sooner(now + LOOK_MS, next), deadline);
        ShoalError nothing = {0}; /* came until then */
        (void)shoal_socket_wait(search->fd, POLLIN, -1, until, &nothing);
        receive(search);
        if (search->n)
            deadline = sooner(deadline, now + SETTLE_MS);
    }
}

ShoalStatus shoal_discover(uint64_t deadline_ms, volatile sig_atomic_t *stop, ShoalAddress *found,
                           int max, int *n, ShoalError *err) {
    struct in_addr senders[64];
    bool direct[64];
    Search search = {
        .fd = -1, .found = found, .senders = senders, .direct = direct, .max = max < 64 ? max : 64};
    *n = 0;
    ShoalStatus status = shoal_auth_init(err);
    if (!status)
        status = open_search(&search, err);
    if (status)
        return status;
    /* Who does not hear the question cannot know which answer is taken. */
    shoal_auth_random(&search.id, sizeof search.id);
    status = search_until(&search, deadline_ms, stop, err);
    close(search.fd);
    if (!status)
        *n = search.n;
    return status;
}
