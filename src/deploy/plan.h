/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_DEPLOY_PLAN_H
#define SHOAL_DEPLOY_PLAN_H

#include <stdbool.h>

#include "shoal/deploy.h"

/* What to do next with a device, from what is known of it. Pure. */

typedef enum ShoalStep {
    SHOAL_STEP_PROBE,
    SHOAL_STEP_PUSH,    /* the binary */
    SHOAL_STEP_INSTALL, /* check it, try it, put it in place */
    SHOAL_STEP_TOKEN,
    SHOAL_STEP_ACT, /* start, stop, read the log, examine */
    SHOAL_STEP_END
} ShoalStep;

typedef struct ShoalPlan {
    ShoalDeployAction action;
    bool needs_token; /* it is sent before the action */
    bool probed, pushed, installed, token_sent, acted;
    bool there;                         /* probed: its folder is */
    bool runs, same_binary, same_stamp; /* probed */
    bool failed;
    int losses; /* of connections */
} ShoalPlan;

ShoalStep shoal_plan_next(const ShoalPlan *plan);

/* A step went well. After PROBE the caller fills there, runs, same_binary and same_stamp first. */
void shoal_plan_done(ShoalPlan *plan, ShoalStep step);

/* The connection broke in the middle of a step. Once it may: the plan then begins again with a
 * probe, since nobody knows how far the device came. Else it has failed. */
void shoal_plan_lost(ShoalPlan *plan);

/* Place and number of steps, for people. */
int shoal_plan_step(const ShoalPlan *plan);
int shoal_plan_steps(const ShoalPlan *plan);

#endif
