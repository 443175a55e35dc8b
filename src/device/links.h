/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_DEVICE_LINKS_H
#define SHOAL_DEVICE_LINKS_H

#include "shoal/doctor.h"

/* The network interfaces of the device, without loopback and without those that only this machine
 * knows (bridges, tunnels), as ROOT/sys/class/net tells (Linux:
 * Documentation/ABI/testing/sysfs-class-net). With root "/" also what sockets tell: addresses, and
 * where Android closes sysfs, speed and driver (SIOCETHTOOL). Returns how many, at most `most`. */
int shoal_links_read(const char *root, ShoalDoctorLink *links, int most);

#endif
