/* SPDX-License-Identifier: Apache-2.0 */
#include "base/error.h"
#include "data/dataset_kinds.h"

ShoalStatus shoal_dataset_open_images(const Caffe__LayerParameter *layer, ShoalDataset *dataset,
                                    ShoalError *err) {
    (void)layer;
    return shoal_error_set(err, SHOAL_ERR_UNSUPPORTED, "dataset %s: ImageData is not in this version",
                           dataset->name);
}
