/* SPDX-License-Identifier: Apache-2.0 */
#include "train/engine.h"

#include <string.h>

#include "base/error.h"
#include "train/cores.h"

static ShoalStatus choose_plan(const char *name, ShoalReplicaPlan *plan, ShoalError *err) {
    static const char *const names[] = {"auto", "fused", "plain"};
    if (!name)
        return SHOAL_OK;
    for (int i = 0; i < 3; i++)
        if (!strcmp(name, names[i])) {
            *plan = (ShoalReplicaPlan)i;
            return SHOAL_OK;
        }
    return shoal_error_set(err, SHOAL_ERR_ARGUMENT,
                           "plan '%s' is unknown; use auto, fused or plain", name);
}

/* "on" or "off" into *on, which stays when nothing is asked for. */
static ShoalStatus choose_switch(const char *name, const char *asked, bool *on, ShoalError *err) {
    if (!asked)
        return SHOAL_OK;
    if (strcmp(asked, "on") != 0 && strcmp(asked, "off") != 0)
        return shoal_error_set(err, SHOAL_ERR_ARGUMENT, "%s is '%s'; use on or off", name, asked);
    *on = !strcmp(asked, "on");
    return SHOAL_OK;
}

ShoalStatus shoal_engine_choose(const ShoalEngineOptions *asked, int threads,
                                ShoalReplicaOptions *options, ShoalError *err) {
    bool winograd = true, recompute = true;
    ShoalStatus status = choose_switch("winograd", asked->winograd, &winograd, err);
    options->no_winograd = !winograd;
    if (!status)
        status = choose_switch("recompute", asked->recompute, &recompute, err);
    options->no_recompute = !recompute;
    if (!status)
        status = choose_plan(asked->plan, &options->plan, err);
    if (!status)
        status = shoal_cpu_level_choose(asked->cpu, &options->level, err);
    if (status)
        return status;
    options->threads = asked->threads > 0 ? asked->threads : threads;
    if (options->threads == 0) {
        ShoalCpuChoice choice;
        shoal_cores_choose(options->level, 0, &choice);
        options->threads = choice.threads;
    }
    return SHOAL_OK;
}
