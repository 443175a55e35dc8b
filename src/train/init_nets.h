/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_TRAIN_INIT_NETS_H
#define SHOAL_TRAIN_INIT_NETS_H

#include <stdio.h>

/* The nets that `shoal init` writes, and how each is trained. */

enum { SHOAL_INIT_MOST_BATCH = 65536 };

/* `folder` is what paths in the files begin with; "" for the working folder. `batch` is that of all
 * workers together, 1 to SHOAL_INIT_MOST_BATCH. */
typedef struct ShoalInitNet {
    const char *name;
    const char *about; /* one line for the manual */
    int batch;         /* where none is asked for */
    void (*train_val)(FILE *out, const char *folder, int batch);
    void (*solver)(FILE *out, const char *folder, int batch);
} ShoalInitNet;

/* The n-th net; NULL past the end. */
const ShoalInitNet *shoal_init_net_at(int n);
/* NULL for an unknown name. */
const ShoalInitNet *shoal_init_net_find(const char *name);

#endif
