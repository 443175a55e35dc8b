/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "cli/cli.h"
#include "cpu/cpu.h"

static void print_result(const ShoalConvertImagesResult *result) {
    printf("Processed %llu files.\n", (unsigned long long)result->written);
    if (result->left_out)
        printf("Left out %llu that could not be read.\n", (unsigned long long)result->left_out);
}

static int run(int argc, char **argv) {
    const char *operands[3], *backend = "lmdb", *type = "";
    bool gray = false, shuffle = false, check_size = false, encoded = false;
    int seed = 0, height = 0, width = 0, threads = shoal_cpu_cores();
    const ShoalFlag flags[] = {
        {"gray", SHOAL_FLAG_SWITCH, &gray, NULL, "one channel instead of three (blue, green, red)"},
        {"shuffle", SHOAL_FLAG_SWITCH, &shuffle, NULL, "in a random order"},
        {"seed", SHOAL_FLAG_COUNT, &seed, "N",
         "which random order (default 0); Caffe takes another\none each time"},
        {"resize_width", SHOAL_FLAG_COUNT, &width, "N", "make all images so wide,"},
        {"resize_height", SHOAL_FLAG_COUNT, &height, "N",
         "and so high: give both or none (default: as they are)"},
        {"check_size", SHOAL_FLAG_SWITCH, &check_size, NULL,
         "end with an error when images differ in size"},
        {"encoded", SHOAL_FLAG_SWITCH, &encoded, NULL,
         "keep JPEG and PNG files as they are; they are encoded\nanew only when resized"},
        {"encode_type", SHOAL_FLAG_TEXT, &type, "jpg|png",
         "encode what is no such file; implies --encoded"},
        SHOAL_FLAG_BACKEND(&backend),
        {"threads", SHOAL_FLAG_COUNT, &threads, "N",
         "images that are read at a time (default: as many as\nthere are cores)"},
    };
    const ShoalUsage usage = {
        .command = "convert_imageset",
        .purpose =
            "Converts JPEG and PNG images into an LMDB that `Data` layers read, as Caffe's tool "
            "of\n"
            "this name does. LISTFILE has lines `NAME LABEL`; ROOTFOLDER/ is put in front of each\n"
            "name as it is. Images that cannot be read are left out: each is told of, and the "
            "exit\n"
            "code is 0 all the same, unless none is left.",
        .operands = "ROOTFOLDER/ LISTFILE LMDB",
        .n_operands = 3,
        .caffe = true,
        .flags = flags,
        .n_flags = sizeof flags / sizeof flags[0],
        .notes = "Example:\n  shoal convert_imageset --resize_height=256 --resize_width=256 "
                 "--shuffle \\\n      train/ train.txt train_lmdb\n"};
    int code = shoal_flags_parse(&usage, argc, argv, operands);
    if (code >= 0)
        return code;
    ShoalError error = {0};
    if (shoal_cli_check_backend("--backend=", backend, &error))
        return shoal_cli_fail(usage.command, &error);
    const ShoalConvertImagesOptions options = {.root = operands[0],
                                               .list = operands[1],
                                               .lmdb = operands[2],
                                               .gray = gray,
                                               .shuffle = shuffle,
                                               .seed = (uint32_t)seed,
                                               .resize_height = height,
                                               .resize_width = width,
                                               .check_size = check_size,
                                               .encoded = encoded,
                                               .encode_type = *type ? type : NULL,
                                               .threads = threads};
    ShoalConvertImagesResult result;
    ShoalCliWatch watch;
    shoal_cli_watch_begin(&watch, usage.command);
    shoal_convert_images(&options, &watch.watch, &result, &error);
    code = shoal_cli_watch_end(&watch, &error);
    if (code == SHOAL_EXIT_OK)
        print_result(&result);
    return code;
}

const ShoalCommand shoal_command_convert_imageset = {"convert_imageset",
                                                     "convert images into an LMDB", run};
