/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/nchwc/conv_gather.h"
#include "kernels/table.h"

size_t shoal_nchwc_direct_fwd_bytes(const ShoalNchwc *engine, const ShoalNchwcConv *conv,
                                    unsigned threads) {
    size_t bytes;
    shoal_nchwc_gather(engine, conv, false, true, threads, NULL, &bytes);
    return bytes;
}

void shoal_nchwc_direct_fwd(const ShoalCompute *compute, const ShoalNchwcConv *conv,
                            const ShoalNchwcInput *x, const float *w, const float *bias, float *y,
                            const ShoalNchwcStats *stats) {
    size_t bytes;
    ShoalNchwcGather gather =
        shoal_nchwc_gather(compute->kernels->nchwc, conv, false, x->scale || x->relu,
                           shoal_pool_threads(compute->pool), compute->workspace, &bytes);
    ShoalNchwcGatherOutput out = {.y = y, .bias = bias, .stats = stats};
    shoal_nchwc_gather_run(compute, &gather, x, w, &out);
}
