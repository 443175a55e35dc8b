/* SPDX-License-Identifier: Apache-2.0 */
#include "device/links.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "device/entries.h"

#define NET "sys/class/net"

typedef struct Links {
    const char *root;
    ShoalDoctorLink *all;
    int count, most;
} Links;

static bool begins(const char *name, const char *const *words) {
    for (; *words; words++)
        if (!strncmp(name, *words, strlen(*words)))
            return true;
    return false;
}

/* Interfaces without a wire or an aerial. */
static bool is_inner(const char *name) {
    static const char *const INNER[] = {"lo",     "dummy",  "ifb",     "tun",    "tap",  "sit",
                                        "ip6tnl", "ip_vti", "ip6_vti", "docker", "veth", "br-",
                                        "virbr",  "p2p",    "gre",     "erspan", "bond", NULL};
    return begins(name, INNER);
}

static ShoalDoctorLinkKind kind_by_name(const char *name) {
    static const char *const ETHERNET[] = {"eth", "en", "usb", "rndis", NULL};
    static const char *const WIFI[] = {"wl", "swlan", "ap", NULL};
    static const char *const MOBILE[] = {"rmnet", "wwan", "ccmni", "ww", "pdp", NULL};
    if (begins(name, WIFI))
        return SHOAL_DOCTOR_LINK_WIFI;
    if (begins(name, MOBILE))
        return SHOAL_DOCTOR_LINK_MOBILE;
    return begins(name, ETHERNET) ? SHOAL_DOCTOR_LINK_ETHERNET : SHOAL_DOCTOR_LINK_OTHER;
}

static ShoalDoctorLink *find(Links *links, const char *name) {
    for (int i = 0; i < links->count; i++)
        if (!strcmp(links->all[i].name, name))
            return &links->all[i];
    return NULL;
}

static ShoalDoctorLink *add(Links *links, const char *name) {
    if (links->count == links->most || strlen(name) >= sizeof links->all->name)
        return NULL;
    ShoalDoctorLink *link = &links->all[links->count++];
    *link = (ShoalDoctorLink){.kind = kind_by_name(name), .up = -1, .full_duplex = -1};
    snprintf(link->name, sizeof link->name, "%s", name);
    shoal_entry_clean(link->name);
    return link;
}

/* ---- sysfs ---- */

/* The adapter is an interface of a USB device, whose `speed` is that of the bus; a hub in between
 * is passed by. (Linux: Documentation/ABI/testing/sysfs-bus-usb.) */
static int usb_mbit(const char *root, const char *name) {
    static const char *const UP[] = {"device/../speed", "device/speed"};
    char subsystem[16];
    if (!shoal_entry_link(root, subsystem, sizeof subsystem, NET "/%s/device/subsystem", name) ||
        strcmp(subsystem, "usb"))
        return 0;
    for (int i = 0; i < 2; i++) {
        long long value;
        if (shoal_entry_number(root, &value, NET "/%s/%s", name, UP[i]) && value > 0 &&
            value <= 100000)
            return (int)value;
    }
    return 0;
}

static bool exists(const char *root, const char *name, const char *what) {
    char path[512];
    int n = snprintf(path, sizeof path, "%s/" NET "/%s/%s", root, name, what);
    return n > 0 && n < (int)sizeof path && access(path, F_OK) == 0;
}

static void visit_interface(void *context, int folder, const char *name) {
    (void)folder;
    Links *links = context;
    const char *root = links->root;
    char line[32];
    long long value;
    if (is_inner(name) || exists(root, name, "bridge"))
        return;
    ShoalDoctorLink *link = add(links, name);
    if (!link)
        return;
    if (exists(root, name, "wireless") || exists(root, name, "phy80211"))
        link->kind = SHOAL_DOCTOR_LINK_WIFI;
    if (shoal_entry_line(root, line, sizeof line, NET "/%s/operstate", name))
        link->up = !strcmp(line, "up") ? 1 : strcmp(line, "unknown") ? 0 : -1;
    if (shoal_entry_number(root, &value, NET "/%s/speed", name) && value > 0 && value <= 1000000)
        link->mbit = (int)value;
    if (shoal_entry_line(root, line, sizeof line, NET "/%s/duplex", name))
        link->full_duplex = !strcmp(line, "full") ? 1 : !strcmp(line, "half") ? 0 : -1;
    shoal_entry_link(root, link->driver, sizeof link->driver, NET "/%s/device/driver", name);
    link->usb_mbit = usb_mbit(root, name);
}

/* A line of proc/net/wireless: "wlan0: 0000   58.  -52.  -256 ..." (status, quality, level, noise;
 * Linux: net/wireless/wext-proc.c). */
static void read_signals(Links *links) {
    char path[512], line[256], name[32];
    snprintf(path, sizeof path, "%s/proc/net/wireless", links->root);
    FILE *file = fopen(path, "re");
    double quality, level;
    while (file && fgets(line, sizeof line, file)) {
        if (sscanf(line, " %31[^:]: %*s %lf %lf", name, &quality, &level) != 3)
            continue;
        ShoalDoctorLink *link = find(links, name);
        if (link && level > -150 && level < 0)
            link->signal_dbm = (int)level;
    }
    if (file)
        fclose(file);
}

/* ---- sockets ---- */

static void ask_driver(int fd, ShoalDoctorLink *link) {
    struct ethtool_drvinfo info = {.cmd = ETHTOOL_GDRVINFO};
    struct ifreq request = {0};
    snprintf(request.ifr_name, sizeof request.ifr_name, "%.15s", link->name);
    request.ifr_data = (void *)&info;
    if (link->driver[0] || ioctl(fd, SIOCETHTOOL, &request))
        return;
    info.driver[sizeof info.driver - 1] = '\0';
    snprintf(link->driver, sizeof link->driver, "%.31s", info.driver);
    shoal_entry_clean(link->driver);
}

/* The older request is the one that all drivers and kernels answer. */
static void ask_speed(int fd, ShoalDoctorLink *link) {
    struct ethtool_cmd settings = {.cmd = ETHTOOL_GSET};
    struct ifreq request = {0};
    snprintf(request.ifr_name, sizeof request.ifr_name, "%.15s", link->name);
    request.ifr_data = (void *)&settings;
    if (link->mbit || ioctl(fd, SIOCETHTOOL, &request))
        return;
    uint32_t mbit = (uint32_t)settings.speed_hi << 16 | settings.speed;
    if (mbit > 0 && mbit <= 1000000)
        link->mbit = (int)mbit;
    if (link->full_duplex < 0 && settings.duplex <= DUPLEX_FULL && link->mbit)
        link->full_duplex = settings.duplex == DUPLEX_FULL;
}

static void take_address(Links *links, const struct ifaddrs *item) {
    ShoalDoctorLink *link = find(links, item->ifa_name);
    if (!link)
        link = is_inner(item->ifa_name) ? NULL : add(links, item->ifa_name);
    if (!link)
        return;
    if (link->up < 0)
        link->up = (item->ifa_flags & IFF_RUNNING) != 0;
    const struct sockaddr *address = item->ifa_addr;
    if (!address)
        return;
    char text[INET6_ADDRSTRLEN];
    const void *bytes = NULL;
    if (address->sa_family == AF_INET)
        bytes = &((const struct sockaddr_in *)(const void *)address)->sin_addr;
    else if (address->sa_family == AF_INET6 && !link->address[0])
        bytes = &((const struct sockaddr_in6 *)(const void *)address)->sin6_addr;
    if (bytes && inet_ntop(address->sa_family, bytes, text, sizeof text))
        snprintf(link->address, sizeof link->address, "%s", text);
}

static void ask_sockets(Links *links) {
    struct ifaddrs *list = NULL;
    if (getifaddrs(&list) == 0) {
        for (const struct ifaddrs *item = list; item; item = item->ifa_next)
            take_address(links, item);
        freeifaddrs(list);
    }
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    for (int i = 0; i < links->count && fd >= 0; i++) {
        ask_driver(fd, &links->all[i]);
        ask_speed(fd, &links->all[i]);
    }
    if (fd >= 0)
        close(fd);
}

/* By name, so that the order does not depend on the folder's. */
static int compare(const void *a, const void *b) {
    return strcmp(((const ShoalDoctorLink *)a)->name, ((const ShoalDoctorLink *)b)->name);
}

int shoal_links_read(const char *root, ShoalDoctorLink *all, int most) {
    Links links = {.root = root, .all = all, .most = most};
    shoal_entry_each(root, NET, "", visit_interface, &links);
    if (!strcmp(root, "/"))
        ask_sockets(&links);
    read_signals(&links);
    qsort(all, (size_t)links.count, sizeof *all, compare);
    return links.count;
}
