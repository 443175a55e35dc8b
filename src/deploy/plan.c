/* SPDX-License-Identifier: Apache-2.0 */
#include "deploy/plan.h"

enum { LOSSES_MAX = 1 };

static bool needs_binary(const ShoalPlan *plan) {
    return plan->action == SHOAL_DEPLOY_START || plan->action == SHOAL_DEPLOY_DOCTOR;
}

static bool nothing_to_do(const ShoalPlan *plan) {
    switch (plan->action) {
    case SHOAL_DEPLOY_START:
        return plan->runs && plan->same_binary && plan->same_stamp;
    case SHOAL_DEPLOY_STATUS:
        return true;
    case SHOAL_DEPLOY_STOP:
    case SHOAL_DEPLOY_LOGS:
        return !plan->there;
    case SHOAL_DEPLOY_DOCTOR:
        break;
    }
    return false;
}

ShoalStep shoal_plan_next(const ShoalPlan *plan) {
    if (plan->failed || plan->acted)
        return SHOAL_STEP_END;
    if (!plan->probed)
        return SHOAL_STEP_PROBE;
    if (nothing_to_do(plan))
        return SHOAL_STEP_END;
    if (needs_binary(plan) && !plan->same_binary && !plan->installed)
        return plan->pushed ? SHOAL_STEP_INSTALL : SHOAL_STEP_PUSH;
    if (needs_binary(plan) && plan->needs_token && !plan->token_sent)
        return SHOAL_STEP_TOKEN;
    return SHOAL_STEP_ACT;
}

void shoal_plan_done(ShoalPlan *plan, ShoalStep step) {
    switch (step) {
    case SHOAL_STEP_PROBE:
        plan->probed = true;
        break;
    case SHOAL_STEP_PUSH:
        plan->pushed = true;
        break;
    case SHOAL_STEP_INSTALL:
        plan->installed = true;
        break;
    case SHOAL_STEP_TOKEN:
        plan->token_sent = true;
        break;
    case SHOAL_STEP_ACT:
        plan->acted = true;
        break;
    case SHOAL_STEP_END:
        break;
    }
}

void shoal_plan_lost(ShoalPlan *plan) {
    if (plan->losses++ >= LOSSES_MAX)
        plan->failed = true;
    plan->probed = plan->pushed = plan->installed = plan->token_sent = false;
}

int shoal_plan_steps(const ShoalPlan *plan) {
    if (plan->action == SHOAL_DEPLOY_STATUS)
        return 1;
    if (!needs_binary(plan))
        return 2;
    int push = plan->probed && plan->same_binary ? 0 : 2;
    return 2 + push + plan->needs_token;
}

int shoal_plan_step(const ShoalPlan *plan) {
    return 1 + plan->probed + plan->pushed + plan->installed + plan->token_sent;
}
