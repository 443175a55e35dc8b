/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/nchwc/conv_gather.h"
#include "kernels/table.h"

size_t shoal_nchwc_direct_bwd_data_bytes(const ShoalNchwc *engine, const ShoalNchwcConv *conv,
                                         unsigned threads) {
    size_t bytes;
    shoal_nchwc_gather(engine, conv, true, false, threads, NULL, &bytes);
    return bytes;
}

void shoal_nchwc_direct_bwd_data(const ShoalCompute *compute, const ShoalNchwcConv *conv,
                                 const float *dy, const float *w, const ShoalNchwcGradient *dx) {
    size_t bytes;
    ShoalNchwcGather gather =
        shoal_nchwc_gather(compute->kernels->nchwc, conv, true, false,
                           shoal_pool_threads(compute->pool), compute->workspace, &bytes);
    ShoalNchwcInput input = {.x = dy};
    ShoalNchwcGatherOutput out = {.y = dx->g, .grad = dx};
    shoal_nchwc_gather_run(compute, &gather, &input, w, &out);
}
