/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/memory.h"
#include "base/thread.h"
#include "collective/auth.h"
#include "discovery/discovery.h"
#include "discovery/links.h"
#include "discovery/mdns.h"

enum {
    SCAN_MS = 5000,      /* between looks for new interfaces */
    ANNOUNCEMENTS = 2,   /* unasked, on each (RFC 6762, section 8.3) */
    MULTICAST_MS = 1000, /* least time between two answers to all (section 6) */
    UNICAST_PER_S = 200, /* answers to single askers: a drawer full of phones may ask at once */
    NAME_MOST = 36,      /* bytes of the name of the service that are kept */
    QUESTIONS_AT_ONCE = 64
};

/* A network on which we answer. */
typedef struct Place {
    ShoalLink4 link;
    int announcements; /* made so far */
    uint64_t answered_ms;
    bool answered;
} Place;

struct ShoalAnnouncement {
    ShoalMdnsService service;
    struct in_addr listen; /* any: 0 */
    int fd, wake_fd;
    pthread_t thread;
    struct in_addr group;
    Place places[SHOAL_LINKS];
    int n_places;
    double credit; /* answers to single askers that may be sent now */
    uint64_t credit_ms;
};

/* ---- sending ---- */

static void send_packet(const ShoalAnnouncement *own, const ShoalLink4 *link,
                        const struct sockaddr_in *to, const unsigned char *packet, size_t size) {
    const struct ip_mreqn way = {.imr_ifindex = link->index, .imr_address = link->address};
    /* Best effort throughout: whoever got nothing asks again. */
    if (to->sin_addr.s_addr == own->group.s_addr)
        (void)setsockopt(own->fd, IPPROTO_IP, IP_MULTICAST_IF, &way, sizeof way);
    (void)sendto(own->fd, packet, size, 0, (const struct sockaddr *)to, sizeof *to);
}

static const unsigned char *answer_address(const ShoalAnnouncement *own, const ShoalLink4 *link) {
    const struct in_addr *address = own->listen.s_addr ? &own->listen : &link->address;
    return (const unsigned char *)&address->s_addr;
}

static struct sockaddr_in everybody(const ShoalAnnouncement *own) {
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons(SHOAL_MDNS_PORT), .sin_addr = own->group};
}

static void announce(const ShoalAnnouncement *own, const ShoalLink4 *link, unsigned ttl) {
    unsigned char packet[SHOAL_MDNS_PACKET];
    struct sockaddr_in to = everybody(own);
    size_t size =
        shoal_mdns_write_announcement(&own->service, answer_address(own, link), ttl, packet);
    send_packet(own, link, &to, packet, size);
}

/* ---- interfaces ---- */

/* Is the address that we listen at reached by this link? */
static bool is_ours(const ShoalAnnouncement *own, const ShoalLink4 *link) {
    return own->listen.s_addr ? link->address.s_addr == own->listen.s_addr : !link->loopback;
}

static void set_membership(const ShoalAnnouncement *own, const ShoalLink4 *link, int what) {
    const struct ip_mreqn group = {.imr_multiaddr = own->group, .imr_ifindex = link->index};
    (void)setsockopt(own->fd, IPPROTO_IP, what, &group, sizeof group); /* may be there already */
}

static Place *place_like(ShoalAnnouncement *own, const ShoalLink4 *link) {
    for (int i = 0; i < own->n_places; i++)
        if (own->places[i].link.index == link->index &&
            own->places[i].link.address.s_addr == link->address.s_addr)
            return &own->places[i];
    return NULL;
}

static bool has_index(const ShoalLink4 *links, int n, int index) {
    for (int i = 0; i < n; i++)
        if (links[i].index == index)
            return true;
    return false;
}

/* Interfaces come (an adapter is plugged in) and go; a socket has a limited number of memberships,
 * so those of interfaces that are gone are given back. */
static void scan(ShoalAnnouncement *own) {
    ShoalLink4 links[SHOAL_LINKS];
    Place places[SHOAL_LINKS];
    int n = shoal_links_find(own->fd, links), kept = 0;
    for (int i = 0; i < own->n_places; i++)
        if (!has_index(links, n, own->places[i].link.index))
            set_membership(own, &own->places[i].link, IP_DROP_MEMBERSHIP);
    for (int i = 0; i < n; i++) {
        if (!is_ours(own, &links[i]))
            continue;
        const Place *known = place_like(own, &links[i]);
        places[kept] = known ? *known : (Place){.announcements = 0};
        places[kept].link = links[i];
        set_membership(own, &links[i], IP_ADD_MEMBERSHIP);
        if (places[kept].announcements < ANNOUNCEMENTS) {
            announce(own, &links[i], SHOAL_MDNS_TTL);
            places[kept].announcements++;
        }
        kept++;
    }
    memcpy(own->places, places, (size_t)kept * sizeof places[0]);
    own->n_places = kept;
}

/* ---- answers ---- */

static bool may_answer_one(ShoalAnnouncement *own, uint64_t now) {
    own->credit += (double)(now - own->credit_ms) * UNICAST_PER_S / 1000;
    own->credit_ms = now;
    if (own->credit > UNICAST_PER_S)
        own->credit = UNICAST_PER_S;
    if (own->credit < 1)
        return false;
    own->credit -= 1;
    return true;
}

static bool may_answer_all(Place *place, uint64_t now) {
    if (place->answered && now - place->answered_ms < MULTICAST_MS)
        return false;
    place->answered = true;
    place->answered_ms = now;
    return true;
}

/* The place on whose network the asker is. Nobody else gets an answer: an address from beyond is
 * most likely forged, for us to flood it. */
static Place *place_of(ShoalAnnouncement *own, int index, struct in_addr asker) {
    for (int i = 0; i < own->n_places; i++)
        if (shoal_links_near(&own->places[i].link, 1, index, asker))
            return &own->places[i];
    return NULL;
}

static void answer(ShoalAnnouncement *own, const unsigned char *packet, size_t size, int index,
                   const struct sockaddr_in *from) {
    unsigned char reply[SHOAL_MDNS_PACKET];
    ShoalMdnsQuery query;
    Place *place = place_of(own, index, from->sin_addr);
    if (!place || !shoal_mdns_read_query(packet, size, &own->service, &query))
        return;
    uint64_t now = shoal_clock_ms();
    bool legacy = ntohs(from->sin_port) != SHOAL_MDNS_PORT;
    bool to_one = legacy || query.unicast;
    if (to_one ? !may_answer_one(own, now) : !may_answer_all(place, now))
        return;
    struct sockaddr_in to = to_one ? *from : everybody(own);
    size = shoal_mdns_write_answer(&query, &own->service, answer_address(own, &place->link), legacy,
                                   reply);
    send_packet(own, &place->link, &to, reply, size);
}

/* The interface by which a packet came; 0: unknown. */
static int index_of(struct msghdr *message) {
    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c))
        if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
            struct in_pktinfo info;
            memcpy(&info, CMSG_DATA(c), sizeof info);
            return info.ipi_ifindex;
        }
    return 0;
}

static bool receive(ShoalAnnouncement *own) {
    unsigned char packet[SHOAL_MDNS_MOST];
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(struct in_pktinfo))];
    struct sockaddr_in from = {0};
    struct iovec part = {packet, sizeof packet};
    struct msghdr message = {.msg_name = &from,
                             .msg_namelen = sizeof from,
                             .msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control,
                             .msg_controllen = sizeof control};
    ssize_t size = recvmsg(own->fd, &message, 0);
    if (size < 0)
        return false;
    if (!(message.msg_flags & MSG_TRUNC))
        answer(own, packet, (size_t)size, index_of(&message), &from);
    return true;
}

static void *serve(void *context) {
    ShoalAnnouncement *own = context;
    struct pollfd fds[] = {{.fd = own->wake_fd, .events = POLLIN},
                           {.fd = own->fd, .events = POLLIN}};
    uint64_t next = 0;
    for (;;) {
        if (shoal_clock_ms() >= next) {
            scan(own);
            next = shoal_clock_ms() + SCAN_MS;
        }
        (void)poll(fds, 2, shoal_socket_timeout_ms(next));
        if (fds[0].revents)
            break;
        for (int i = 0; i < QUESTIONS_AT_ONCE && receive(own); i++)
            ;
    }
    for (int i = 0; i < own->n_places; i++)
        announce(own, &own->places[i].link, 0);
    return NULL;
}

/* ---- life ---- */

/* Of a name that people gave: whole characters without those that control something. */
static void clean_name(const char *name, char out[NAME_MOST + 1]) {
    size_t n = strnlen(name, NAME_MOST + 1);
    if (n > NAME_MOST)
        for (n = NAME_MOST; n > 0 && ((unsigned char)name[n] & 0xc0) == 0x80;)
            n--;
    for (size_t i = 0; i < n; i++)
        out[i] = (unsigned char)name[i] < 0x20 || name[i] == 0x7f ? '?' : name[i];
    out[n] = '\0';
}

/* The random part makes both names unlike all others, so nobody needs to be asked whether they are
 * in use (RFC 6762, section 8.1). */
static void make_names(ShoalMdnsService *service, const char *name) {
    char host[256] = "", clean[NAME_MOST + 1];
    uint32_t random;
    shoal_auth_random(&random, sizeof random);
    if (!name && !gethostname(host, sizeof host - 1))
        name = host;
    clean_name(name && name[0] ? name : "shoal", clean);
    snprintf(service->instance, sizeof service->instance, "%s:%u (%08x)", clean, service->port,
             (unsigned)random);
    snprintf(service->host, sizeof service->host, "shoal-%08x", (unsigned)random);
}

/* IPv6's any-address takes IPv4 connections, too. */
static ShoalStatus take_address(ShoalAnnouncement *own, const ShoalAddress *listen,
                                ShoalError *err) {
    own->service.port = shoal_address_port(listen);
    if (listen->storage.ss_family == AF_INET) {
        struct sockaddr_in in;
        memcpy(&in, &listen->storage, sizeof in);
        own->listen = in.sin_addr;
        return SHOAL_OK;
    }
    struct sockaddr_in6 in6;
    memcpy(&in6, &listen->storage, sizeof in6);
    if (listen->storage.ss_family == AF_INET6 && IN6_IS_ADDR_UNSPECIFIED(&in6.sin6_addr))
        return SHOAL_OK;
    return shoal_error_set(err, SHOAL_ERR_NETWORK,
                           "discovery speaks IPv4 only, and this coordinator listens at an IPv6 "
                           "address; workers need --join");
}

static ShoalStatus open_socket(ShoalAnnouncement *own, ShoalError *err) {
    const int on = 1, ttl = 255;
    const struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons(SHOAL_MDNS_PORT)};
    inet_pton(AF_INET, SHOAL_MDNS_GROUP, &own->group);
    own->fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (own->fd < 0)
        return shoal_error_set(err, SHOAL_ERR_NETWORK, "no UDP socket: %s", strerror(errno));
    /* Beside the system's own responder, which allows it in the same way. */
    setsockopt(own->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(own->fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
    setsockopt(own->fd, IPPROTO_IP, IP_MULTICAST_TTL, &ttl, sizeof ttl);
    setsockopt(own->fd, IPPROTO_IP, IP_TTL, &ttl, sizeof ttl);
    if (setsockopt(own->fd, IPPROTO_IP, IP_PKTINFO, &on, sizeof on) ||
        bind(own->fd, (const struct sockaddr *)&any, sizeof any))
        return shoal_error_set(err, SHOAL_ERR_NETWORK,
                               "cannot use UDP port %d, that of multicast DNS: %s; workers need "
                               "--join",
                               SHOAL_MDNS_PORT, strerror(errno));
    return SHOAL_OK;
}

static void close_all(ShoalAnnouncement *own) {
    if (own->fd >= 0)
        close(own->fd);
    if (own->wake_fd >= 0)
        close(own->wake_fd);
    shoal_free(own);
}

static ShoalStatus start(ShoalAnnouncement *own, ShoalError *err) {
    own->credit = UNICAST_PER_S;
    own->credit_ms = shoal_clock_ms();
    own->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int code = own->wake_fd < 0 ? errno : shoal_thread_start(&own->thread, serve, own);
    return code ? shoal_error_set(err, SHOAL_ERR_NETWORK, "no thread for discovery: %s",
                                  strerror(code))
                : SHOAL_OK;
}

ShoalStatus shoal_announce_begin(const char *name, const ShoalAddress *listen,
                                 ShoalAnnouncement **out, ShoalError *err) {
    ShoalStatus status = shoal_auth_init(err);
    if (status)
        return status;
    ShoalAnnouncement *own = shoal_calloc(1, sizeof *own);
    if (!own)
        return shoal_error_memory(err, "discovery", sizeof *own);
    own->fd = own->wake_fd = -1;
    status = take_address(own, listen, err);
    if (!status)
        status = open_socket(own, err);
    if (!status) {
        make_names(&own->service, name);
        status = start(own, err);
    }
    if (status)
        close_all(own);
    else
        *out = own;
    return status;
}

void shoal_announce_end(ShoalAnnouncement *announcement) {
    if (!announcement)
        return;
    (void)eventfd_write(announcement->wake_fd, 1);
    pthread_join(announcement->thread, NULL);
    close_all(announcement);
}
