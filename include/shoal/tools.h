/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_TOOLS_H
#define SHOAL_TOOLS_H

#include <signal.h>
#include <stdint.h>

#include "shoal/shoal.h"
#include "shoal/status.h"

/* What Caffe's tools do besides training: datasets, mean images, features, old files made new. What
 * they write has the bytes that Caffe writes.
 *
 * Datasets and files appear whole or not at all. Of a dataset's path nothing may be there before;
 * a file is replaced. `error` must be empty before a call. */

#ifdef __cplusplus
extern "C" {
#endif

/* Who follows a call, from its thread. A pointer to one may be NULL, and so may each field. */
typedef struct ShoalToolWatch {
    void (*progress)(void *context, uint64_t done, uint64_t total); /* records */
    void (*note)(void *context, const char *text);                  /* something to know */
    void *context;
    volatile sig_atomic_t *stop; /* SHOAL_STOP_NOW: give up (SHOAL_ERR_STOPPED) */
} ShoalToolWatch;

/* ---- datasets ---- */

/* MNIST's idx files into an LMDB, as examples/mnist/convert_mnist_data.cpp: key "%08d", Datum {
 * channels: 1 height width data label }. (A label of 128 or more stays so; Caffe, built where char
 * is signed, makes it negative.) SHOAL_ERR_DATA: not idx files, or they do not belong together. */
SHOAL_API ShoalStatus shoal_convert_mnist(const char *images, const char *labels, const char *lmdb,
                                          const ShoalToolWatch *watch, ShoalError *error);

/* data_batch_1.bin to data_batch_5.bin and test_batch.bin of CIFAR-10 into
 * OUTPUT/cifar10_train_lmdb and OUTPUT/cifar10_test_lmdb, as
 * examples/cifar10/convert_cifar_data.cpp: key "%05d", labels as for MNIST. A file with fewer than
 * its 10,000 records gives those that it has, and a note. SHOAL_ERR_DATA: a file that does not
 * consist of records. */
SHOAL_API ShoalStatus shoal_convert_cifar(const char *input, const char *output,
                                          const ShoalToolWatch *watch, ShoalError *error);

typedef struct ShoalConvertImagesOptions {
    const char *root; /* put in front of each name as it is */
    const char *list; /* a text file; lines "NAME LABEL" */
    const char *lmdb;
    int gray;    /* 1 channel, else 3: blue, green, red */
    int shuffle; /* in an order that `seed` says */
    uint32_t seed;
    int resize_height, resize_width; /* both or none (0) */
    int check_size;                  /* images of different sizes are an error */
    int encoded;                     /* records are image files; else pixels */
    const char *encode_type; /* "jpg" or "png", implies encoded; NULL: as the image's file is */
    int threads;             /* 0: 1 */
} ShoalConvertImagesOptions;

typedef struct ShoalConvertImagesResult {
    uint64_t written;
    uint64_t left_out; /* images that could not be read */
} ShoalConvertImagesResult;

/* Images into an LMDB, as tools/convert_imageset.cpp: key "%08d_NAME" with the number of the line.
 * Images that cannot be read are left out, with a note for each of the first 20; when none can,
 * that is SHOAL_ERR_DATA. So is a line without a label, which Caffe takes for 0. Shuffled orders
 * are not those of Caffe, which has another one each time. */
SHOAL_API ShoalStatus shoal_convert_images(const ShoalConvertImagesOptions *options,
                                           const ShoalToolWatch *watch,
                                           ShoalConvertImagesResult *result, ShoalError *error);

/* ---- mean images ---- */

typedef struct ShoalMean {
    uint64_t records;
    int channels;
    float *values; /* [channels] */
} ShoalMean;

/* The mean of all records of an LMDB, written as a BlobProto to `file` (NULL: nowhere), and the
 * mean of each channel; as tools/compute_image_mean.cpp, summed as there in float. Close *mean with
 * shoal_mean_close. SHOAL_ERR_DATA: records of different sizes, or damaged ones. */
SHOAL_API ShoalStatus shoal_compute_mean(const char *lmdb, const char *file,
                                         const ShoalToolWatch *watch, ShoalMean *mean,
                                         ShoalError *error);
SHOAL_API void shoal_mean_close(ShoalMean *mean);

/* ---- features ---- */

typedef struct ShoalFeaturesOptions {
    const char *weights, *model; /* .caffemodel files, separated by commas; prototxt */
    const char *blobs, *lmdbs;   /* as many names as datasets, separated by commas */
    int batches;
    ShoalNetChoice choice;
    ShoalEngineOptions engine;
} ShoalFeaturesOptions;

/* Runs a net in phase TEST over `batches` batches of its data and writes blobs into LMDBs, as
 * tools/extract_features.cpp: one Datum per image, with float_data, key "%010d". */
SHOAL_API ShoalStatus shoal_extract_features(const ShoalFeaturesOptions *options,
                                             const ShoalToolWatch *watch, ShoalError *error);

/* ---- old files ---- */

typedef enum ShoalUpgradeKind {
    SHOAL_UPGRADE_NET_TEXT,   /* prototxt */
    SHOAL_UPGRADE_NET_BINARY, /* caffemodel */
    SHOAL_UPGRADE_SOLVER_TEXT
} ShoalUpgradeKind;

/* Reads a net or solver, brings it into today's form and writes it: what is in today's form already
 * (*current = 1), too. Comments of a text are lost, as in Caffe. Errors: SHOAL_ERR_IO,
 * SHOAL_ERR_PARSE with the place, SHOAL_ERR_MODEL for what has no form of today. */
SHOAL_API ShoalStatus shoal_upgrade(ShoalUpgradeKind kind, const char *input, const char *output,
                                    int *current, ShoalError *error);

#ifdef __cplusplus
}
#endif
#endif
