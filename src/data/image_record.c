/* SPDX-License-Identifier: Apache-2.0 */
#include "data/image_record.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/memory.h"
#include "data/image.h"

void shoal_image_record_close(ShoalImageRecorder *recorder) {
    shoal_free(recorder->file);
    shoal_free(recorder->packed);
    shoal_free(recorder->path);
    *recorder = (ShoalImageRecorder){0};
}

/* At least `size` bytes; what was in them is lost when they grow. */
static void *grow(void *buffer, size_t *held, size_t size) {
    if (size <= *held)
        return buffer;
    void *larger = shoal_calloc(size, 1);
    if (!larger)
        return NULL;
    shoal_free(buffer);
    *held = size;
    return larger;
}

static ShoalStatus join_path(ShoalImageRecorder *recorder, const char *root, const char *name,
                             ShoalError *err) {
    size_t size = strlen(root) + strlen(name) + 1;
    char *path = grow(recorder->path, &recorder->path_size, size);
    if (!path)
        return shoal_error_memory(err, "a path", size);
    recorder->path = path;
    memcpy(path, root, strlen(root));
    memcpy(path + strlen(root), name, strlen(name) + 1);
    return SHOAL_OK;
}

static ShoalStatus io_error(const char *path, ShoalError *err) {
    return shoal_error_set(err, SHOAL_ERR_IO, "%s: %s", path, strerror(errno));
}

static ShoalStatus check_file(const char *path, int file, size_t *size, ShoalError *err) {
    struct stat info;
    if (fstat(file, &info))
        return io_error(path, err);
    if (!S_ISREG(info.st_mode))
        return shoal_error_set(err, SHOAL_ERR_IO, "%s: not a regular file", path);
    if (info.st_size < 1 || (uint64_t)info.st_size > SHOAL_IMAGE_BYTES_MAX)
        return shoal_error_set(err, SHOAL_ERR_DATA,
                               "%s: %lld bytes; expected a JPEG or PNG image of at most %llu", path,
                               (long long)info.st_size, (unsigned long long)SHOAL_IMAGE_BYTES_MAX);
    *size = (size_t)info.st_size;
    return SHOAL_OK;
}

static ShoalStatus read_open(ShoalImageRecorder *recorder, int file, size_t *size,
                             ShoalError *err) {
    const char *path = recorder->path;
    ShoalStatus status = check_file(path, file, size, err);
    if (status)
        return status;
    unsigned char *bytes = grow(recorder->file, &recorder->file_size, *size);
    if (!bytes)
        return shoal_error_memory(err, "an image file", *size);
    recorder->file = bytes;
    for (size_t done = 0; done < *size;) {
        ssize_t n = read(file, bytes + done, *size - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return io_error(path, err);
        if (n == 0)
            return shoal_error_set(err, SHOAL_ERR_IO, "%s: it became shorter while it was read",
                                   path);
        done += (size_t)n;
    }
    return SHOAL_OK;
}

static ShoalStatus read_file(ShoalImageRecorder *recorder, size_t *size, ShoalError *err) {
    int file = open(recorder->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file < 0)
        return io_error(recorder->path, err);
    ShoalStatus status = read_open(recorder, file, size, err);
    close(file);
    return status;
}

ShoalStatus shoal_image_record_make(ShoalImageRecorder *recorder, const char *root,
                                    const char *name, int label, const float *numbers, size_t n,
                                    ShoalRecord *out, ShoalError *err) {
    size_t size = 0;
    float copies[8];
    ShoalStatus status = join_path(recorder, root, name, err);
    if (!status)
        status = read_file(recorder, &size, err);
    if (status)
        return status;
    Caffe__Datum datum = CAFFE__DATUM__INIT;
    datum.has_data = datum.has_label = datum.has_encoded = 1;
    datum.data = (ProtobufCBinaryData){size, recorder->file};
    datum.label = label;
    datum.encoded = 1;
    datum.n_float_data = n < 8 ? n : 8;
    datum.float_data = copies;
    if (n)
        memcpy(copies, numbers, datum.n_float_data * sizeof *numbers);
    size_t needed = caffe__datum__get_packed_size(&datum);
    unsigned char *packed = grow(recorder->packed, &recorder->packed_size, needed);
    if (!packed)
        return shoal_error_memory(err, "a record", needed);
    recorder->packed = packed;
    *out = (ShoalRecord){packed, caffe__datum__pack(&datum, packed)};
    return SHOAL_OK;
}
