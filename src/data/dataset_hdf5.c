/* SPDX-License-Identifier: Apache-2.0 */
#include "base/error.h"
#include "data/dataset_kinds.h"

ShoalStatus shoal_dataset_open_hdf5(const Caffe__LayerParameter *layer, ShoalDataset *dataset,
                                    ShoalError *err) {
    (void)layer;
    return shoal_error_set(err, SHOAL_ERR_UNSUPPORTED, "dataset %s: HDF5Data is not in this version",
                           dataset->name);
}

ShoalStatus shoal_dataset_hdf5_shape(const ShoalDataset *dataset, ShoalRecordShape *out,
                                     ShoalError *err) {
    (void)out;
    return shoal_error_set(err, SHOAL_ERR_UNSUPPORTED, "dataset %s: HDF5Data is not in this version",
                           dataset->name);
}
