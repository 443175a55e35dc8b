/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_COLLECTIVE_SOCKET_H
#define SHOAL_COLLECTIVE_SOCKET_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "shoal/status.h"

/* TCP sockets as Shoal uses them: non-blocking, close-on-exec, TCP_NODELAY, keepalive. Deadlines
 * are times of shoal_clock_ms; UINT64_MAX waits for ever. A wake_fd (an eventfd or pipe, or -1)
 * that becomes readable ends any waiting with SHOAL_ERR_STOPPED; it is not read. */

#define SHOAL_ADDRESS_TEXT 64 /* "[IPv6%scope]:port" with its '\0' */

typedef struct ShoalAddress {
    struct sockaddr_storage storage;
    socklen_t size;
} ShoalAddress;

/* "192.0.2.1:4710", "[2001:db8::1]:4710" or "name:4710". Names are resolved only when the host is
 * not numeric, so a static binary without resolver works with numbers. Port 0 .. 65535.
 * SHOAL_ERR_ARGUMENT: malformed; SHOAL_ERR_NETWORK: the name has no address. */
ShoalStatus shoal_address_parse(const char *text, ShoalAddress *address, ShoalError *err);

/* A numeric host without port ("192.0.2.1", "2001:db8::1") and a port. SHOAL_ERR_ARGUMENT. */
ShoalStatus shoal_address_from_host(const char *host, uint16_t port, ShoalAddress *address,
                                    ShoalError *err);

ShoalAddress shoal_address_from_ip4(struct in_addr host, uint16_t port);

/* The text that shoal_address_parse takes; without the port: the text that
 * shoal_address_from_host takes. "?" for a family that is not IP. */
void shoal_address_format(const ShoalAddress *address, char text[SHOAL_ADDRESS_TEXT]);
void shoal_address_format_host(const ShoalAddress *address, char text[SHOAL_ADDRESS_TEXT]);
uint16_t shoal_address_port(const ShoalAddress *address);

/* A listening socket; port 0 takes a free one (see shoal_socket_local).
 * SHOAL_ERR_NETWORK: port in use, not an address of this machine, not allowed. */
ShoalStatus shoal_socket_listen(const ShoalAddress *address, int *fd, ShoalError *err);

/* The next waiting connection; *fd -1 (and SHOAL_OK) when there is none. peer may be NULL.
 * SHOAL_ERR_NETWORK when the process is out of descriptors or the like: try again later. */
ShoalStatus shoal_socket_accept(int listen_fd, int *fd, ShoalAddress *peer, ShoalError *err);

/* Both ends of a socket. SHOAL_ERR_NETWORK. */
ShoalStatus shoal_socket_local(int fd, ShoalAddress *address, ShoalError *err);
ShoalStatus shoal_socket_peer(int fd, ShoalAddress *address, ShoalError *err);

/* Starts connecting; the socket becomes writable when it is decided, then ask _finish.
 * SHOAL_ERR_NETWORK: refused, unreachable. */
ShoalStatus shoal_socket_connect_start(const ShoalAddress *address, int *fd, ShoalError *err);
ShoalStatus shoal_socket_connect_finish(int fd, const ShoalAddress *address, ShoalError *err);

/* Both, waiting in between. SHOAL_ERR_NETWORK at the deadline, too. */
ShoalStatus shoal_socket_connect(const ShoalAddress *address, int wake_fd, uint64_t deadline_ms,
                                 int *fd, ShoalError *err);

/* Waits until fd shows one of `events` (of poll(), errors included). SHOAL_ERR_NETWORK at the
 * deadline, with a message that only says so: prefix it. */
ShoalStatus shoal_socket_wait(int fd, short events, int wake_fd, uint64_t deadline_ms,
                              ShoalError *err);

/* What is left until the deadline, as poll() takes it: -1 for UINT64_MAX, 0 when it is past. */
int shoal_socket_timeout_ms(uint64_t deadline_ms);

#endif
