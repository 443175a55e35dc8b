/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_CAFFE_UPGRADE_H
#define SHOAL_CAFFE_UPGRADE_H

#include <stdbool.h>
#include <stddef.h>

#include "caffe/caffe.pb-c.h"
#include "caffe/text.h"
#include "shoal/status.h"

/* Old nets into today's form. The rules are those of BVLC Caffe's upgrade_proto.cpp; where Caffe
 * aborts, these give SHOAL_ERR_MODEL; where it logs an error and goes on, they log a warning. */

/* A message that an upgrade took out of the net. It lives until the upgrade is over, so that no
 * new message can have its address while origins still name it. */
typedef struct ShoalCaffeHusk {
    ProtobufCMessage *old;
    const ProtobufCMessage *now; /* what stands for it; NULL when nothing does */
} ShoalCaffeHusk;

typedef struct ShoalCaffeUpgrade {
    Caffe__NetParameter *net;  /* the one at work; borrowed */
    const char *file;          /* for messages */
    ShoalTextOrigins *origins; /* NULL when there are none */
    ShoalError *err;
    ShoalCaffeHusk *husks; /* shoal_calloc storage */
    size_t husk_count, husk_capacity;
} ShoalCaffeUpgrade;

/* All upgrades that a net needs, in Caffe's order; call it for each net of the file, with file,
 * origins and err set and the rest zero before the first. On failure the net is still whole enough
 * to be freed. Then shoal_caffe_upgrade_finish, always: it frees what was taken out and, when
 * status is SHOAL_OK, makes the origins name the upgraded messages. Returns status, or
 * SHOAL_ERR_MEMORY. */
ShoalStatus shoal_caffe_upgrade_net(ShoalCaffeUpgrade *upgrade, Caffe__NetParameter *net);
ShoalStatus shoal_caffe_upgrade_finish(ShoalCaffeUpgrade *upgrade, ShoalStatus status);

/* solver_type -> type; SHOAL_ERR_MODEL when both are there. */
ShoalStatus shoal_caffe_upgrade_solver(Caffe__SolverParameter *solver, const char *file,
                                       ShoalError *err);

/* The steps, for net->layers that need them: `layers { layer { } }` to `layers { }`, then to
 * `layer { }`. */
ShoalStatus shoal_caffe_upgrade_v0(ShoalCaffeUpgrade *upgrade);
ShoalStatus shoal_caffe_upgrade_v1(ShoalCaffeUpgrade *upgrade);

/* Takes `old` over, to be freed at the end, with `now` in its place. */
ShoalStatus shoal_caffe_upgrade_retire(ShoalCaffeUpgrade *upgrade, ProtobufCMessage *old,
                                       const ProtobufCMessage *now);

/* SHOAL_ERR_MODEL with the place of `message` (or the file) in front. */
__attribute__((format(printf, 3, 4))) ShoalStatus
shoal_caffe_upgrade_fail(const ShoalCaffeUpgrade *upgrade, const void *message, const char *format,
                         ...);
/* The same as a warning in the log. */
__attribute__((format(printf, 3, 4))) void
shoal_caffe_upgrade_warn(const ShoalCaffeUpgrade *upgrade, const void *message, const char *format,
                         ...);

/* "FILE:LINE:COLUMN" or "FILE"; origins may be NULL. Returns where. */
const char *shoal_caffe_where(const char *file, const ShoalTextOrigins *origins,
                              const ProtobufCMessage *message, char *where, size_t size);

/* strdup into malloc storage, replacing a string field's value; false when memory is short. */
bool shoal_caffe_string_set(char **field, const char *default_value, const char *text);

#endif
