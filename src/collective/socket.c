/* SPDX-License-Identifier: Apache-2.0 */
#include "collective/socket.h"

#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <net/if.h>
#ifndef SHOAL_NUMERIC_ONLY
#include <netdb.h>
#endif
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"

/* --- addresses ------------------------------------------------------------------------------ */

/* "host%scope" of IPv6 link-local addresses is split, since inet_pton knows no scopes. */
static bool parse_ipv6(const char *host, uint16_t port, ShoalAddress *address) {
    char bare[INET6_ADDRSTRLEN + 1];
    const char *percent = strchr(host, '%');
    size_t length = percent ? (size_t)(percent - host) : strlen(host);
    if (length >= sizeof(bare))
        return false;
    memcpy(bare, host, length);
    bare[length] = '\0';
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    if (inet_pton(AF_INET6, bare, &in6.sin6_addr) != 1)
        return false;
    if (percent && (in6.sin6_scope_id = if_nametoindex(percent + 1)) == 0)
        return false;
    memset(address, 0, sizeof(*address));
    memcpy(&address->storage, &in6, sizeof(in6));
    address->size = sizeof(in6);
    return true;
}

ShoalAddress shoal_address_from_ip4(struct in_addr host, uint16_t port) {
    const struct sockaddr_in in = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr = host};
    ShoalAddress address;
    memset(&address, 0, sizeof(address));
    memcpy(&address.storage, &in, sizeof(in));
    address.size = sizeof(in);
    return address;
}

static bool parse_numeric(const char *host, uint16_t port, ShoalAddress *address) {
    struct in_addr in;
    if (inet_pton(AF_INET, host, &in) != 1)
        return parse_ipv6(host, port, address);
    *address = shoal_address_from_ip4(in, port);
    return true;
}

#ifdef SHOAL_NUMERIC_ONLY
static ShoalStatus look_up(const char *host, uint16_t port, ShoalAddress *address,
                           ShoalError *err) {
    (void)port;
    (void)address;
    return shoal_error_set(err, SHOAL_ERR_ARGUMENT,
                           "'%s' is no number, and this build for phones looks up no names; give "
                           "the host's number, such as 192.168.1.10",
                           host);
}
#else
static ShoalStatus look_up(const char *host, uint16_t port, ShoalAddress *address,
                           ShoalError *err) {
    char service[8];
    snprintf(service, sizeof(service), "%u", port);
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    int code = getaddrinfo(host, service, &hints, &found);
    if (code || !found || found->ai_addrlen > sizeof(address->storage)) {
        if (found)
            freeaddrinfo(found);
        return shoal_error_set(err, SHOAL_ERR_NETWORK,
                               "the host '%s' has no address (%s); give its number instead", host,
                               code ? gai_strerror(code) : "not found");
    }
    memset(address, 0, sizeof(*address));
    memcpy(&address->storage, found->ai_addr, found->ai_addrlen);
    address->size = found->ai_addrlen;
    freeaddrinfo(found);
    return SHOAL_OK;
}
#endif

static ShoalStatus resolve(const char *host, uint16_t port, ShoalAddress *address,
                           ShoalError *err) {
    /* getaddrinfo reads "1.2" as 1.0.0.2; nobody means that. */
    if (strspn(host, "0123456789.") == strlen(host))
        return shoal_error_set(err, SHOAL_ERR_ARGUMENT,
                               "'%s' is no IPv4 address; expected four numbers from 0 to 255, such "
                               "as 192.168.1.10",
                               host);
    return look_up(host, port, address, err);
}

static bool parse_port(const char *text, uint16_t *port) {
    unsigned value = 0;
    size_t digits = strspn(text, "0123456789");
    if (digits < 1 || digits > 5 || text[digits])
        return false;
    for (size_t i = 0; i < digits; i++)
        value = 10 * value + (unsigned)(text[i] - '0');
    if (value > 65535)
        return false;
    *port = (uint16_t)value;
    return true;
}

/* Splits "host:port" and "[host]:port". */
static bool split(const char *text, char *host, size_t host_size, uint16_t *port) {
    bool bracket = text[0] == '[';
    const char *start = text + bracket;
    const char *end = bracket ? strchr(start, ']') : strrchr(start, ':');
    if (!end || end == start || (size_t)(end - start) >= host_size)
        return false;
    if (bracket ? end[1] != ':' : memchr(start, ':', (size_t)(end - start)) != NULL)
        return false;
    memcpy(host, start, (size_t)(end - start));
    host[end - start] = '\0';
    return parse_port(end + 1 + bracket, port);
}

ShoalStatus shoal_address_parse(const char *text, ShoalAddress *address, ShoalError *err) {
    char host[256];
    uint16_t port;
    if (!split(text, host, sizeof(host), &port))
        return shoal_error_set(err, SHOAL_ERR_ARGUMENT,
                               "address '%s': expected ADDR:PORT with a port of 0 to 65535, such "
                               "as 192.168.1.10:4710 or [2001:db8::1]:4710",
                               text);
    if (parse_numeric(host, port, address))
        return SHOAL_OK;
    return resolve(host, port, address, err);
}

ShoalStatus shoal_address_from_host(const char *host, uint16_t port, ShoalAddress *address,
                                    ShoalError *err) {
    if (!parse_numeric(host, port, address))
        return shoal_error_set(err, SHOAL_ERR_ARGUMENT,
                               "'%s' is no numeric address; expected one such as 192.168.1.10 or "
                               "2001:db8::1",
                               host);
    return SHOAL_OK;
}

uint16_t shoal_address_port(const ShoalAddress *address) {
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
    switch (address->storage.ss_family) {
    case AF_INET:
        memcpy(&in, &address->storage, sizeof(in));
        return ntohs(in.sin_port);
    case AF_INET6:
        memcpy(&in6, &address->storage, sizeof(in6));
        return ntohs(in6.sin6_port);
    default:
        return 0;
    }
}

/* "%eth0" of IPv6 link-local addresses, which need it; otherwise "". */
static void format_scope(const struct sockaddr_in6 *in6, char text[IF_NAMESIZE + 1]) {
    text[0] = '\0';
    if (!in6->sin6_scope_id)
        return;
    char name[IF_NAMESIZE];
    if (if_indextoname(in6->sin6_scope_id, name))
        snprintf(text, IF_NAMESIZE + 1, "%%%s", name);
    else
        snprintf(text, IF_NAMESIZE + 1, "%%%u", (unsigned)in6->sin6_scope_id);
}

/* Not by getnameinfo: linked statically it wants the shared libraries of glibc's name service. */
void shoal_address_format_host(const ShoalAddress *address, char text[SHOAL_ADDRESS_TEXT]) {
    char host[INET6_ADDRSTRLEN] = "?", scope[IF_NAMESIZE + 1] = "";
    sa_family_t family = address->size > 0 ? address->storage.ss_family : AF_UNSPEC;
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
    if (family == AF_INET) {
        memcpy(&in, &address->storage, sizeof(in));
        inet_ntop(AF_INET, &in.sin_addr, host, sizeof(host));
    } else if (family == AF_INET6) {
        memcpy(&in6, &address->storage, sizeof(in6));
        inet_ntop(AF_INET6, &in6.sin6_addr, host, sizeof(host));
        format_scope(&in6, scope);
    }
    snprintf(text, SHOAL_ADDRESS_TEXT, "%s%s", host, scope);
}

void shoal_address_format(const ShoalAddress *address, char text[SHOAL_ADDRESS_TEXT]) {
    char host[SHOAL_ADDRESS_TEXT];
    shoal_address_format_host(address, host);
    bool six = address->storage.ss_family == AF_INET6;
    /* 9: brackets, colon, five digits, end. */
    snprintf(text, SHOAL_ADDRESS_TEXT, "%s%.*s%s:%u", six ? "[" : "", SHOAL_ADDRESS_TEXT - 9, host,
             six ? "]" : "", shoal_address_port(address));
}

/* --- sockets -------------------------------------------------------------------------------- */

/* Best effort: a socket without one of these still works. */
static void set_options(int fd) {
    const int on = 1, idle_s = 10, interval_s = 5, probes = 3;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof(idle_s));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof(interval_s));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof(probes));
}

static ShoalStatus open_socket(const ShoalAddress *address, int *fd, ShoalError *err) {
    int opened = socket(address->storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (opened < 0)
        return shoal_error_set(err, SHOAL_ERR_NETWORK, "cannot open a TCP socket: %s",
                               strerror(errno));
    *fd = opened;
    return SHOAL_OK;
}

static const char *listen_hint(int code) {
    switch (code) {
    case EADDRINUSE:
        return "another program uses this port; stop it or choose another port (0: any free one)";
    case EADDRNOTAVAIL:
        return "this machine does not have that address; 0.0.0.0 listens on all of its addresses";
    case EACCES:
        return "ports below 1024 need special rights; choose a larger one";
    default:
        return strerror(code);
    }
}

ShoalStatus shoal_socket_listen(const ShoalAddress *address, int *fd, ShoalError *err) {
    int opened = -1;
    ShoalStatus status = open_socket(address, &opened, err);
    if (status)
        return status;
    /* A port whose last connections are still timing out is free for Shoal's purposes. */
    const int on = 1;
    setsockopt(opened, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(opened, (const struct sockaddr *)&address->storage, address->size) ||
        listen(opened, SOMAXCONN)) {
        char text[SHOAL_ADDRESS_TEXT];
        int code = errno;
        close(opened);
        shoal_address_format(address, text);
        return shoal_error_set(err, SHOAL_ERR_NETWORK, "cannot listen on %s: %s", text,
                               listen_hint(code));
    }
    *fd = opened;
    return SHOAL_OK;
}

/* Errors of the connection that was to be accepted, not of the listening socket (accept(2)). */
static bool is_of_peer(int code) {
    return code == EINTR || code == ECONNABORTED || code == EPROTO || code == ENETDOWN ||
           code == ENOPROTOOPT || code == EHOSTDOWN || code == ENONET || code == EHOSTUNREACH ||
           code == EOPNOTSUPP || code == ENETUNREACH;
}

ShoalStatus shoal_socket_accept(int listen_fd, int *fd, ShoalAddress *peer, ShoalError *err) {
    ShoalAddress from;
    int accepted;
    do {
        memset(&from, 0, sizeof(from));
        from.size = sizeof(from.storage);
        accepted = accept4(listen_fd, (struct sockaddr *)&from.storage, &from.size,
                           SOCK_NONBLOCK | SOCK_CLOEXEC);
    } while (accepted < 0 && is_of_peer(errno));
    if (accepted < 0 && errno != EAGAIN && errno != EWOULDBLOCK)
        return shoal_error_set(err, SHOAL_ERR_NETWORK, "cannot accept a connection: %s",
                               strerror(errno));
    if (accepted >= 0) {
        set_options(accepted);
        if (peer)
            *peer = from;
    }
    *fd = accepted < 0 ? -1 : accepted;
    return SHOAL_OK;
}

ShoalStatus shoal_socket_local(int fd, ShoalAddress *address, ShoalError *err) {
    ShoalAddress found = {.size = sizeof(found.storage)};
    if (getsockname(fd, (struct sockaddr *)&found.storage, &found.size))
        return shoal_error_set(err, SHOAL_ERR_NETWORK, "cannot read a socket's own address: %s",
                               strerror(errno));
    *address = found;
    return SHOAL_OK;
}

ShoalStatus shoal_socket_peer(int fd, ShoalAddress *address, ShoalError *err) {
    ShoalAddress found = {.size = sizeof(found.storage)};
    if (getpeername(fd, (struct sockaddr *)&found.storage, &found.size))
        return shoal_error_set(err, SHOAL_ERR_NETWORK, "cannot read a peer's address: %s",
                               strerror(errno));
    *address = found;
    return SHOAL_OK;
}

static ShoalStatus connect_error(const ShoalAddress *address, int code, ShoalError *err) {
    char text[SHOAL_ADDRESS_TEXT];
    shoal_address_format(address, text);
    return shoal_error_set(err, SHOAL_ERR_NETWORK, "cannot connect to %s: %s", text,
                           strerror(code));
}

ShoalStatus shoal_socket_connect_start(const ShoalAddress *address, int *fd, ShoalError *err) {
    int opened = -1;
    ShoalStatus status = open_socket(address, &opened, err);
    if (status)
        return status;
    set_options(opened);
    if (connect(opened, (const struct sockaddr *)&address->storage, address->size) &&
        errno != EINPROGRESS && errno != EINTR) {
        int code = errno;
        close(opened);
        return connect_error(address, code, err);
    }
    *fd = opened;
    return SHOAL_OK;
}

/* TCP connects a socket to itself when the port wanted is the one it happens to get (simultaneous
 * open): on one machine that looks like a peer, until somebody needs the port. */
static bool is_self(int fd) {
    ShoalAddress local, peer;
    return !shoal_socket_local(fd, &local, NULL) && !shoal_socket_peer(fd, &peer, NULL) &&
           local.size == peer.size && memcmp(&local.storage, &peer.storage, local.size) == 0;
}

ShoalStatus shoal_socket_connect_finish(int fd, const ShoalAddress *address, ShoalError *err) {
    int code = 0;
    socklen_t size = sizeof(code);
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &size))
        code = errno;
    if (!code && is_self(fd))
        code = ECONNREFUSED;
    return code ? connect_error(address, code, err) : SHOAL_OK;
}

ShoalStatus shoal_socket_connect(const ShoalAddress *address, int wake_fd, uint64_t deadline_ms,
                                 int *fd, ShoalError *err) {
    int opened = -1;
    ShoalStatus status = shoal_socket_connect_start(address, &opened, err);
    if (status)
        return status;
    status = shoal_socket_wait(opened, POLLOUT, wake_fd, deadline_ms, err);
    if (status) {
        char text[SHOAL_ADDRESS_TEXT];
        shoal_address_format(address, text);
        shoal_error_prefix(err, "cannot connect to %s", text);
    } else {
        status = shoal_socket_connect_finish(opened, address, err);
    }
    if (status)
        close(opened);
    else
        *fd = opened;
    return status;
}

int shoal_socket_timeout_ms(uint64_t deadline_ms) {
    if (deadline_ms == UINT64_MAX)
        return -1;
    uint64_t now = shoal_clock_ms();
    uint64_t left = deadline_ms > now ? deadline_ms - now : 0;
    return left > INT_MAX ? INT_MAX : (int)left;
}

ShoalStatus shoal_socket_wait(int fd, short events, int wake_fd, uint64_t deadline_ms,
                              ShoalError *err) {
    for (;;) {
        struct pollfd fds[2] = {{.fd = fd, .events = events}, {.fd = wake_fd, .events = POLLIN}};
        int timeout_ms = shoal_socket_timeout_ms(deadline_ms);
        int n = poll(fds, 2, timeout_ms);
        if (n < 0 && errno != EINTR)
            return shoal_error_set(err, SHOAL_ERR_NETWORK, "cannot wait for a socket: %s",
                                   strerror(errno));
        if (n > 0 && fds[1].revents)
            return shoal_error_set(err, SHOAL_ERR_STOPPED, "stopped while waiting for the network");
        if (n > 0 && fds[0].revents)
            return SHOAL_OK;
        if (n == 0 && timeout_ms == 0)
            return shoal_error_set(err, SHOAL_ERR_NETWORK, "no answer in time");
    }
}
