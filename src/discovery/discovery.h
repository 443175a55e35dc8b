/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_DISCOVERY_DISCOVERY_H
#define SHOAL_DISCOVERY_DISCOVERY_H

#include <signal.h>

#include "collective/socket.h"

/* How a worker finds a coordinator on the local network: DNS-SD over multicast DNS (RFC 6762, RFC
 * 6763), service type _shoal._tcp. What is found is only an address: whoever answers must still
 * prove that it knows the token. */

/* ---- the coordinator's side ---- */

typedef struct ShoalAnnouncement ShoalAnnouncement;

/* Answers questions in a thread of its own until shoal_announce_end. listen: where the coordinator
 * listens, with its port; the any-address: answers carry the address of the interface that the
 * question came by. name: of this service, for people; NULL: the host's name.
 * SHOAL_ERR_NETWORK: the port of multicast DNS cannot be used. */
ShoalStatus shoal_announce_begin(const char *name, const ShoalAddress *listen,
                                 ShoalAnnouncement **out, ShoalError *err);
void shoal_announce_end(ShoalAnnouncement *announcement); /* NULL is fine */

/* ---- the worker's side ---- */

/* Asks on every interface, again and again, until somebody has answered (and a moment longer, for
 * others) or the deadline (base/clock.h). *n: how many of found[0 .. max) are set, each once, those
 * first that answered for their own address; 0 at the deadline. SHOAL_ERR_STOPPED after *stop (may
 * be NULL), SHOAL_ERR_NETWORK where there is no interface to ask on. */
ShoalStatus shoal_discover(uint64_t deadline_ms, volatile sig_atomic_t *stop, ShoalAddress *found,
                           int max, int *n, ShoalError *err);

#endif
