/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_DISCOVERY_MDNS_H
#define SHOAL_DISCOVERY_MDNS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The packets of multicast DNS (RFC 6762) and DNS-SD (RFC 6763) as far as one service needs them;
 * no sockets. Packets come from anybody: a name is followed only towards the packet's begin, so it
 * ends, and no packet is looked at beyond SHOAL_MDNS_RECORDS entries.
 *
 * Our own, since a library for this (Avahi) is a client of a daemon, over D-Bus: phones have
 * neither, and a static binary could not bring them. */

enum {
    SHOAL_MDNS_PORT = 5353,
    SHOAL_MDNS_PACKET = 1472,  /* bytes: what we write fits into an Ethernet frame */
    SHOAL_MDNS_MOST = 9000,    /* bytes that a packet may have (RFC 6762, section 17) */
    SHOAL_MDNS_RECORDS = 64,   /* questions and records of a packet that are looked at */
    SHOAL_MDNS_QUESTIONS = 4,  /* for us, of one packet; the others go unanswered */
    SHOAL_MDNS_LABEL = 63 + 1, /* a part of a name, with its '\0' */
    SHOAL_MDNS_TTL = 120,      /* seconds: of records that name a host (section 10) */
    SHOAL_MDNS_TTL_LEGACY = 10 /* of answers to simple resolvers (section 6.7) */
};

#define SHOAL_MDNS_GROUP "224.0.0.251"

/* The service _shoal._tcp.local that is announced, and its names: INSTANCE._shoal._tcp.local and
 * HOST.local. Both labels: 1 .. 63 bytes. */
typedef struct ShoalMdnsService {
    char instance[SHOAL_MDNS_LABEL], host[SHOAL_MDNS_LABEL];
    uint16_t port;
} ShoalMdnsService;

typedef struct ShoalMdnsQuestion {
    int name; /* which of the service's names: see mdns.c */
    uint16_t type;
} ShoalMdnsQuestion;

/* What somebody asks about a service. */
typedef struct ShoalMdnsQuery {
    uint16_t id;
    unsigned wanted; /* kinds of records: see mdns.c */
    bool unicast;    /* all questions ask for an answer to the asker alone */
    ShoalMdnsQuestion questions[SHOAL_MDNS_QUESTIONS];
    int n_questions;
} ShoalMdnsQuery;

/* Is this a query about the service, with something to be answered? What the asker says it knows
 * (section 7.1) needs no answer. */
bool shoal_mdns_read_query(const unsigned char *packet, size_t size,
                           const ShoalMdnsService *service, ShoalMdnsQuery *query);

/* The answer to a query, with the address (network order) at which the service is reached. legacy:
 * to a resolver that knows no multicast DNS: the query's id and questions are repeated. Returns the
 * bytes written into packet[0 .. SHOAL_MDNS_PACKET). */
size_t shoal_mdns_write_answer(const ShoalMdnsQuery *query, const ShoalMdnsService *service,
                               const unsigned char address[4], bool legacy, unsigned char *packet);

/* The same, unasked, to all: the service is there, or (ttl 0) is going. */
size_t shoal_mdns_write_announcement(const ShoalMdnsService *service,
                                     const unsigned char address[4], unsigned ttl,
                                     unsigned char *packet);

/* The question which services there are. */
size_t shoal_mdns_write_query(uint16_t id, unsigned char *packet);

typedef struct ShoalMdnsFound {
    uint16_t port;
    bool has_address;
    unsigned char address[4]; /* network order; never 0.0.0.0, a group or broadcast */
} ShoalMdnsFound;

/* The services that an answer to the query `id` names, at most max of them. 0 for anything else. */
int shoal_mdns_read_answer(const unsigned char *packet, size_t size, uint16_t id,
                           ShoalMdnsFound *found, int max);

#endif
