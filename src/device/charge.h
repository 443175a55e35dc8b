/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_DEVICE_CHARGE_H
#define SHOAL_DEVICE_CHARGE_H

#include <stdbool.h>

/* The file of the system in which a charge limit can be set, where there is one. Most phones let
 * only root write it. A limit that was set stays when the process is killed, until somebody sets
 * another one or the device starts anew. */

typedef struct ShoalCharge {
    char path[256]; /* "": this device has none that we know */
    bool writable;
    int limit;      /* percent that it said last, 100: none; -1: not known */
    char saved[32]; /* what shoal_charge_restore writes; "": nothing was changed */
    int kind;       /* of the file: what is to be written into it */
} ShoalCharge;

/* Looks below root ("/" but for tests). */
void shoal_charge_find(const char *root, ShoalCharge *charge);
/* Lets the battery be charged to no more than so many percent; `limit` says what became of it: a
 * lower limit of somebody else is left, and a system may round. False: it cannot be set, errno says
 * why (ENOENT: no file; ENOTSUP: one that cannot be read, so not be restored; ERANGE: the system
 * made something else of it, and it is as it was). */
bool shoal_charge_set(ShoalCharge *charge, int percent);
/* Writes back what was there before shoal_charge_set, unless somebody has changed it since. */
void shoal_charge_restore(ShoalCharge *charge);

#endif
