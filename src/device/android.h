/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_DEVICE_ANDROID_H
#define SHOAL_DEVICE_ANDROID_H

#include "shoal/doctor.h"

/* What Android may do to a worker. Asks Android's own tools below ROOT/system/bin (getprop,
 * settings, device_config, dumpsys, cmd), each for a few seconds at most; elsewhere there are none,
 * and is_android is 0. Apps (Termux) may not ask for some of it. */
void shoal_android_read(const char *root, ShoalDoctorAndroid *out);

#endif
