/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_TRAIN_PROBE_BULK_H
#define SHOAL_TRAIN_PROBE_BULK_H

#include "train/probe.h"

/* What prober and server of a link test share. */

/* Says one thing. */
ShoalStatus shoal_probe_say(ShoalChannel *channel, int wake_fd, ShoalProbeKind kind, uint32_t a,
                            uint32_t b, uint64_t deadline_ms, ShoalError *err);

/* Sends DATA for ms milliseconds, at most SHOAL_PROBE_MOST_BYTES, and DONE. */
ShoalStatus shoal_probe_send(ShoalChannel *channel, int wake_fd, unsigned ms, ShoalError *err);

/* Receives DATA until DONE, whose loss goes to *loss. SHOAL_ERR_PROTOCOL: too long, too much, or
 * something else. */
ShoalStatus shoal_probe_receive(ShoalChannel *channel, int wake_fd, unsigned ms,
                                ShoalProbeMeter *meter, uint32_t *loss, ShoalError *err);

#endif
