/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_TRAIN_INIT_NETS_H
#define SHOAL_TRAIN_INIT_NETS_H

#include <stdio.h>

/* The nets that `shoal init` writes, and how each is trained. */

/* `folder` is what paths in the files begin with; "" for the working folder. */
typedef struct ShoalInitNet {
    const char *name;
    const char *about; /* one line for the manual */
    void (*train_val)(FILE *out, const char *folder);
    void (*solver)(FILE *out, const char *folder);
} ShoalInitNet;

/* The n-th net; NULL past the end. */
const ShoalInitNet *shoal_init_net_at(int n);
/* NULL for an unknown name. */
const ShoalInitNet *shoal_init_net_find(const char *name);

#endif
