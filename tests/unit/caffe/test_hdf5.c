/* SPDX-License-Identifier: Apache-2.0 */
#include "helpers.h"

#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include "caffe/hdf5.h"

/* In a build without HDF5 (for phones) its header is not to be found either. */
#if __has_include(<hdf5.h>)
#include <hdf5.h>

#define NET &caffe__net_parameter__descriptor
#define STATE &caffe__solver_state__descriptor

static char path[] = "/tmp/shoal-test-hdf5-XXXXXX";
static char linking[] = "/tmp/shoal-test-hdf5-XXXXXX"; /* has an external link */

/* After the first call of ours external links can no longer be made. */
static int make_files(void **state) {
    (void)state;
    int fds[] = {mkstemp(path), mkstemp(linking)};
    if (fds[0] < 0 || fds[1] < 0 || close(fds[0]) || close(fds[1]))
        return -1;
    hid_t file = H5Fcreate(linking, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    H5Gclose(H5Gcreate2(file, "data", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
    return H5Lcreate_external("/etc/passwd", "/x", file, "data/conv", H5P_DEFAULT, H5P_DEFAULT) <
               0 ||
           H5Fclose(file) < 0;
}

static int remove_files(void **state) {
    (void)state;
    return unlink(path) || unlink(linking);
}

static void ok(ShoalStatus status, const ShoalError *err) {
    if (status)
        fail_msg("status %d: %s", status, err->text);
}

static void write_path(const void *bytes, size_t size) {
    ShoalError err = {0};
    ok(shoal_file_replace(path, bytes, size, &err), &err);
}

typedef ShoalStatus Convert(const void *message, size_t message_size, void **bytes, size_t *size,
                            ShoalError *err);

/* A message, given as text, as an HDF5 file at path. */
static ShoalStatus store(const ProtobufCMessageDescriptor *type, const char *text, Convert *convert,
                         ShoalError *err) {
    ProtobufCMessage *message = parse_ok(type, text);
    void *packed, *image;
    size_t size;
    ok(shoal_caffe_pack(message, &packed, &size, err), err);
    protobuf_c_message_free_unpacked(message, NULL);
    ShoalStatus status = convert(packed, size, &image, &size, err);
    shoal_free(packed);
    if (status)
        return status;
    write_path(image, size);
    shoal_free(image);
    return SHOAL_OK;
}

typedef ShoalStatus Read(const char *file, void **bytes, size_t *size, ShoalError *err);

/* What is read from path, printed. */
static void reads(const ProtobufCMessageDescriptor *type, Read *read_it, const char *expected) {
    ShoalError err = {0};
    void *bytes;
    size_t size;
    ProtobufCMessage *message, *wanted = parse_ok(type, expected);
    ok(read_it(path, &bytes, &size, &err), &err);
    ok(shoal_caffe_unpack(type, bytes, size, "f", &message, &err), &err);
    char *found = printed(message), *want = printed(wanted);
    assert_string_equal(found, want);
    shoal_free(found);
    shoal_free(want);
    shoal_free(bytes);
    protobuf_c_message_free_unpacked(message, NULL);
    protobuf_c_message_free_unpacked(wanted, NULL);
}

static void fails(Read *read_it, ShoalStatus expected, const char *part) {
    ShoalError err = {0};
    void *bytes;
    size_t size;
    ShoalStatus status = read_it(path, &bytes, &size, &err);
    if (status != expected || !strstr(err.text, part))
        fail_msg("status %d: \"%s\", expected %d and \"%s\"", status, err.text, expected, part);
}

static void test_names(void **state) {
    (void)state;
    assert_true(shoal_hdf5_is_name("a.caffemodel.h5"));
    assert_true(shoal_hdf5_is_name(".h5"));
    assert_false(shoal_hdf5_is_name("a.h5.caffemodel"));
    assert_false(shoal_hdf5_is_name("h5"));
    assert_true(shoal_hdf5_holds_name("conv1"));
    assert_false(shoal_hdf5_holds_name("a/conv1"));
    assert_false(shoal_hdf5_holds_name(""));
    assert_false(shoal_hdf5_holds_name("."));
}

/* ---- snapshots ---- */

static void test_net(void **state) {
    (void)state;
    ShoalError err = {0};
    ok(store(NET,
             "name: 'n' layer { name: 'b' type: 'InnerProduct' blobs { shape { dim: 2 dim: 3 } "
             "data: [1, 2, 3, 4, 5, 6.5] } blobs { shape { dim: 2 } data: [-1, 1e-20] } } "
             "layer { name: 'a' type: 'ReLU' } "
             "layer { name: 's' blobs { shape { } data: 7 } blobs { shape { dim: 0 } } }",
             shoal_hdf5_from_net, &err),
       &err);
    /* By name, and without what HDF5 does not store. */
    reads(NET, shoal_hdf5_read_net,
          "layer { name: 'a' } "
          "layer { name: 'b' blobs { data: [1, 2, 3, 4, 5, 6.5] shape { dim: 2 dim: 3 } } "
          "blobs { data: [-1, 1e-20] shape { dim: 2 } } } "
          "layer { name: 's' blobs { data: 7 shape { } } blobs { shape { dim: 0 } } }");
}

static bool has(const char *name) {
    hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    assert_true(file >= 0);
    hid_t id = H5Oopen(file, name, H5P_DEFAULT);
    if (id >= 0)
        H5Oclose(id);
    H5Fclose(file);
    return id >= 0;
}

/* Net::ToHDF5: the values of what is shared once, its diff with each layer. */
static void test_shared_and_diffs(void **state) {
    (void)state;
    ShoalError err = {0};
    ok(store(NET,
             "layer { name: 'a' param { name: 'w' } blobs { shape { dim: 1 } data: 1 diff: 9 } } "
             "layer { name: 'b' param { name: 'w' } blobs { shape { dim: 1 } data: 1 diff: 9 } "
             "blobs { shape { dim: 1 } data: 2 diff: 8 } } "
             "layer { name: 'c' param { name: 'w' } blobs { shape { dim: 1 } data: 1 diff: 9 } }",
             shoal_hdf5_from_net, &err),
       &err);
    reads(NET, shoal_hdf5_read_net,
          "layer { name: 'a' blobs { data: 1 shape { dim: 1 } } } "
          "layer { name: 'b' blobs { } blobs { data: 2 shape { dim: 1 } } } layer { name: 'c' }");
    assert_true(has("data/a/0"));
    assert_false(has("data/b/0"));
    assert_true(has("diff/b/0"));
    assert_true(has("diff/c/0"));
}

static void test_state(void **state) {
    (void)state;
    const char *text =
        "iter: 12 learned_net: 'x_iter_12.caffemodel.h5' history { data: [1, 2] shape { dim: 2 } } "
        "history { data: 3 shape { dim: 1 dim: 1 } } current_step: 2";
    ShoalError err = {0};
    ok(store(STATE, text, shoal_hdf5_from_state, &err), &err);
    reads(STATE, shoal_hdf5_read_state, text);
    fails(shoal_hdf5_read_net, SHOAL_ERR_DATA, "no group 'data' in it");
}

static void test_names_that_hdf5_cannot_hold(void **state) {
    (void)state;
    const char *texts[] = {"layer { name: 'a/b' }", "layer { }", "layer { name: '.' }",
                           "layer { name: 'a' } layer { name: 'a' }"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        ShoalError err = {0};
        assert_int_equal(store(NET, texts[i], shoal_hdf5_from_net, &err), SHOAL_ERR_UNSUPPORTED);
        assert_non_null(strstr(err.text, "cannot hold the name of layer"));
    }
    ShoalError err = {0};
    assert_int_equal(store(NET, "layer { name: 'a' blobs { shape { dim: 3 } data: 1 } }",
                           shoal_hdf5_from_net, &err),
                     SHOAL_ERR_MODEL);
}

/* ---- files of others ---- */

static hid_t file_of_test;

static void begin(void) {
    file_of_test = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(file_of_test >= 0);
}

static void end(void) {
    assert_true(H5Fclose(file_of_test) >= 0);
}

static void group(const char *name) {
    H5Gclose(H5Gcreate2(file_of_test, name, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
}

/* values NULL: none are written. list: 0 for the usual. */
static void dataset(const char *name, hid_t type, int axes, const hsize_t *dims, hid_t list,
                    const double *values) {
    hid_t space = H5Screate_simple(axes, dims, NULL);
    hid_t id = H5Dcreate2(file_of_test, name, type, space, H5P_DEFAULT, list, H5P_DEFAULT);
    assert_true(id >= 0);
    if (values)
        assert_true(H5Dwrite(id, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0);
    H5Dclose(id);
    H5Sclose(space);
}

static hid_t chunks(int axes, const hsize_t *dims, bool deflated) {
    hid_t list = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_chunk(list, axes, dims);
    if (deflated)
        H5Pset_deflate(list, 9);
    return list;
}

static void test_not_hdf5(void **state) {
    (void)state;
    write_path("", 0);
    fails(shoal_hdf5_read_net, SHOAL_ERR_DATA, "not an HDF5 file");
    write_path("\x89HDF\r\n\x1a\nrest", 12);
    fails(shoal_hdf5_read_net, SHOAL_ERR_DATA, "a damaged HDF5 file; is it cut off?");
    ShoalError err = {0};
    void *bytes;
    size_t size;
    assert_int_equal(shoal_hdf5_read_state("/nowhere/x.h5", &bytes, &size, &err), SHOAL_ERR_IO);
    assert_string_equal(err.text, "/nowhere/x.h5: cannot open: No such file or directory");
    shoal_error_clear(&err);
    assert_int_equal(shoal_hdf5_read_state("/dev/null", &bytes, &size, &err), SHOAL_ERR_IO);
}

static void test_cut_off(void **state) {
    (void)state;
    ShoalError err = {0};
    ok(store(STATE, "iter: 1 history { data: [1, 2] shape { dim: 2 } }", shoal_hdf5_from_state,
             &err),
       &err);
    unsigned char *bytes;
    size_t size;
    ok(shoal_file_read(path, &bytes, &size, &err), &err);
    for (size_t length = 0; length < size; length += 61) {
        write_path(bytes, length);
        fails(shoal_hdf5_read_state, SHOAL_ERR_DATA, path);
    }
    shoal_free(bytes);
}

static void test_wrong_members(void **state) {
    (void)state;
    const hsize_t two = 2;
    const double values[] = {1, 2};
    begin();
    end();
    fails(shoal_hdf5_read_net, SHOAL_ERR_DATA, "no group 'data' in it; is it a file of Caffe's?");
    fails(shoal_hdf5_read_state, SHOAL_ERR_DATA, "no dataset 'iter' in it");

    begin();
    dataset("data", H5T_IEEE_F32LE, 1, &two, H5P_DEFAULT, values);
    dataset("iter", H5T_STD_I32LE, 1, &two, H5P_DEFAULT, values);
    end();
    fails(shoal_hdf5_read_net, SHOAL_ERR_DATA, "no group 'data' in it");
    fails(shoal_hdf5_read_state, SHOAL_ERR_DATA, "dataset 'iter' is not one number");

    begin();
    group("data");
    dataset("data/conv", H5T_IEEE_F32LE, 1, &two, H5P_DEFAULT, values);
    end();
    fails(shoal_hdf5_read_net, SHOAL_ERR_DATA, "no group 'conv' in it");

    begin();
    group("data");
    group("data/conv");
    group("data/conv/0");
    end();
    fails(shoal_hdf5_read_net, SHOAL_ERR_DATA, "layer 'conv': ");

    begin();
    group("data");
    group("data/conv");
    dataset("data/conv/0", H5T_IEEE_F32LE, 1, &two, H5P_DEFAULT, values);
    dataset("data/conv/weights", H5T_IEEE_F32LE, 1, &two, H5P_DEFAULT, values);
    end();
    fails(shoal_hdf5_read_net, SHOAL_ERR_DATA, "1 members besides the weights");
}

static void test_wrong_types(void **state) {
    (void)state;
    const hsize_t two = 2;
    hid_t text = H5Tcopy(H5T_C_S1), odd = H5Tcopy(H5T_STD_I32LE);
    H5Tset_size(text, 8);
    H5Tset_precision(odd, 13);
    hid_t types[] = {text, odd, H5T_STD_B8LE, H5T_STD_REF_OBJ};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        begin();
        group("data");
        group("data/conv");
        dataset("data/conv/0", types[i], 1, &two, H5P_DEFAULT, NULL);
        end();
        fails(shoal_hdf5_read_net, SHOAL_ERR_DATA, "holds no plain numbers");
    }
    H5Tclose(text);
    H5Tclose(odd);
}

/* Bytes of memory only for what the file can hold. */
static void test_huge_shapes(void **state) {
    (void)state;
    const hsize_t huge[] = {1 << 20, 1000}, over[] = {1, 1ull << 33}, two = 2;
    begin();
    group("data");
    group("data/conv");
    dataset("data/conv/0", H5T_IEEE_F32LE, 2, huge, H5P_DEFAULT, NULL);
    end();
    fails(shoal_hdf5_read_net, SHOAL_ERR_DATA, "has a shape of more values than its file holds");

    begin();
    group("data");
    group("data/conv");
    dataset("data/conv/0", H5T_IEEE_F32LE, 2, over, H5P_DEFAULT, NULL);
    end();
    fails(shoal_hdf5_read_net, SHOAL_ERR_DATA, "more than 2147483647 values");

    for (int deflated = 0; deflated < 2; deflated++) {
        begin();
        group("data");
        group("data/conv");
        hid_t list = chunks(2, huge, deflated);
        dataset("data/conv/0", H5T_IEEE_F32LE, 2, huge, list, NULL);
        H5Pclose(list);
        end();
        fails(shoal_hdf5_read_net, SHOAL_ERR_DATA, "layer 'conv': ");
    }

    /* One dataset under many names. */
    const hsize_t some = 1 << 16;
    double *values = calloc(some, sizeof *values);
    begin();
    group("data");
    group("data/a");
    dataset("data/a/0", H5T_IEEE_F32LE, 1, &some, H5P_DEFAULT, values);
    free(values);
    for (int i = 1; i < 20; i++) {
        char name[32];
        snprintf(name, sizeof name, "data/a/%d", i);
        assert_true(H5Lcreate_hard(file_of_test, "data/a/0", file_of_test, name, H5P_DEFAULT,
                                   H5P_DEFAULT) >= 0);
    }
    dataset("other", H5T_IEEE_F32LE, 1, &two, H5P_DEFAULT, NULL);
    end();
    fails(shoal_hdf5_read_net, SHOAL_ERR_DATA, "is more than the file can hold");
}

/* A file must not make us open others, nor go in circles. */
static void test_links(void **state) {
    (void)state;
    const hsize_t two = 2;
    ShoalError err = {0};
    unsigned char *bytes;
    size_t size;
    ok(shoal_file_read(linking, &bytes, &size, &err), &err);
    write_path(bytes, size);
    shoal_free(bytes);
    fails(shoal_hdf5_read_net, SHOAL_ERR_DATA, "no group 'conv' in it");

    begin();
    H5Lcreate_soft("/data", file_of_test, "data", H5P_DEFAULT, H5P_DEFAULT);
    end();
    fails(shoal_hdf5_read_net, SHOAL_ERR_DATA, "no group 'data' in it");

    begin();
    group("data");
    H5Lcreate_hard(file_of_test, "data", file_of_test, "data/loop", H5P_DEFAULT, H5P_DEFAULT);
    end();
    fails(shoal_hdf5_read_net, SHOAL_ERR_DATA, "layer 'loop': ");

    begin();
    group("data");
    group("data/conv");
    hid_t list = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_external(list, "/etc/passwd", 0, 8);
    dataset("data/conv/0", H5T_IEEE_F32LE, 1, &two, list, NULL);
    H5Pclose(list);
    end();
    fails(shoal_hdf5_read_net, SHOAL_ERR_DATA, "is stored in a way that is not read here");
}

static void test_text_of_a_state(void **state) {
    (void)state;
    const hsize_t one = 1;
    const double value = 3;
    hid_t text = H5Tcopy(H5T_C_S1);
    H5Tset_size(text, H5T_VARIABLE);
    begin();
    dataset("iter", H5T_STD_I64BE, 1, &one, H5P_DEFAULT, &value);
    dataset("current_step", H5T_STD_U8LE, 1, &one, H5P_DEFAULT, &value);
    group("history");
    end();
    reads(STATE, shoal_hdf5_read_state, "iter: 3 current_step: 3"); /* as Caffe: may be missing */
    file_of_test = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    dataset("learned_net", text, 1, &one, H5P_DEFAULT, NULL);
    end();
    fails(shoal_hdf5_read_state, SHOAL_ERR_DATA, "'learned_net' is no text of fixed length");
    H5Tclose(text);
}

/* ---- rows ---- */

static const double ROWS[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14};
static const char *const TOPS[] = {"data", "label"};

static hid_t half_type(void) {
    hid_t half = H5Tcopy(H5T_IEEE_F32LE);
    H5Tset_fields(half, 15, 10, 5, 0, 10);
    H5Tset_size(half, 2);
    H5Tset_ebias(half, 15);
    return half;
}

static void test_rows(void **state) {
    (void)state;
    const hsize_t dims[] = {7, 2}, chunk[] = {3, 1};
    hid_t half = half_type();
    hid_t types[] = {H5T_IEEE_F32LE, H5T_IEEE_F64BE, H5T_STD_U8LE, H5T_STD_I64LE, half};
    for (int i = 0; i < 15; i++) {
        hid_t list = i % 3 ? chunks(2, chunk, i % 3 == 2) : H5P_DEFAULT;
        begin();
        dataset("data", types[i / 3], 2, dims, list, ROWS);
        dataset("label", H5T_STD_I32LE, 1, dims, H5P_DEFAULT, ROWS);
        end();
        if (i % 3)
            H5Pclose(list);
        ShoalError err = {0};
        ShoalHdf5Rows *rows;
        ok(shoal_hdf5_rows_open(path, TOPS, 2, &rows, &err), &err);
        int axes, shape[SHOAL_HDF5_AXES];
        float values[14];
        assert_int_equal(shoal_hdf5_rows_count(rows), 7);
        assert_int_equal(shoal_hdf5_rows_shape(rows, 0, &axes, shape), 2);
        assert_int_equal(axes, 1);
        assert_int_equal(shape[0], 2);
        assert_int_equal(shoal_hdf5_rows_shape(rows, 1, &axes, shape), 1);
        assert_int_equal(axes, 0);
        assert_int_equal(shoal_hdf5_rows_chunk(rows, 0), i % 3 ? 3 : 1);
        ok(shoal_hdf5_rows_read(rows, 0, 2, 4, values, &err), &err);
        for (int j = 0; j < 8; j++)
            assert_float_equal(values[j], 5 + j, 0);
        ok(shoal_hdf5_rows_read(rows, 1, 6, 1, values, &err), &err);
        assert_float_equal(values[0], 7, 0);
        assert_int_equal(shoal_hdf5_rows_read(rows, 1, 6, 2, values, &err), SHOAL_ERR_ARGUMENT);
        shoal_hdf5_rows_close(rows);
    }
    H5Tclose(half);
}

static void rows_fail(const char *part) {
    ShoalError err = {0};
    ShoalHdf5Rows *rows = NULL;
    assert_int_equal(shoal_hdf5_rows_open(path, TOPS, 2, &rows, &err), SHOAL_ERR_DATA);
    if (!strstr(err.text, part))
        fail_msg("\"%s\" lacks \"%s\"", err.text, part);
    assert_null(rows);
}

static void test_wrong_rows(void **state) {
    (void)state;
    const hsize_t seven = 7, six = 6;
    begin();
    dataset("data", H5T_IEEE_F32LE, 1, &seven, H5P_DEFAULT, ROWS);
    end();
    rows_fail("no dataset 'label' in it");
    file_of_test = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    dataset("label", H5T_IEEE_F32LE, 1, &six, H5P_DEFAULT, ROWS);
    end();
    rows_fail("dataset 'label' has 6 rows, 'data' 7; expected as many");
    begin();
    dataset("data", H5T_IEEE_F32LE, 0, NULL, H5P_DEFAULT, ROWS);
    end();
    rows_fail("dataset 'data' has no axis");
}

/* ---- output ---- */

static void test_writer(void **state) {
    (void)state;
    ShoalError err = {0};
    ShoalHdf5Writer *writer;
    const float values[] = {1, 2, 3, 4, 5, 6};
    ok(shoal_hdf5_writer_create(path, &writer, &err), &err);
    ok(shoal_hdf5_writer_append(writer, "data", 2, (int[]){3, 2}, values, &err), &err);
    ok(shoal_hdf5_writer_append(writer, "label", 1, (int[]){3}, values, &err), &err);
    ok(shoal_hdf5_writer_append(writer, "data", 2, (int[]){1, 2}, values + 4, &err), &err);
    ok(shoal_hdf5_writer_append(writer, "label", 1, (int[]){1}, values + 5, &err), &err);
    assert_int_equal(shoal_hdf5_writer_append(writer, "data", 2, (int[]){2, 3}, values, &err),
                     SHOAL_ERR_ARGUMENT);
    assert_non_null(strstr(err.text, "have another shape than those before"));
    shoal_hdf5_writer_close(writer);
    ShoalHdf5Rows *rows;
    float found[8];
    shoal_error_clear(&err);
    ok(shoal_hdf5_rows_open(path, TOPS, 2, &rows, &err), &err);
    assert_int_equal(shoal_hdf5_rows_count(rows), 4);
    ok(shoal_hdf5_rows_read(rows, 0, 0, 4, found, &err), &err);
    const float data[] = {1, 2, 3, 4, 5, 6, 5, 6}, label[] = {1, 2, 3, 6};
    assert_memory_equal(found, data, sizeof data);
    ok(shoal_hdf5_rows_read(rows, 1, 0, 4, found, &err), &err);
    assert_memory_equal(found, label, sizeof label);
    shoal_hdf5_rows_close(rows);
    assert_int_equal(shoal_hdf5_writer_create("/nowhere/x.h5", &writer, &err), SHOAL_ERR_IO);
}

/* libhdf5 crashes where it has to close a file that it could not write. */
static void test_full_disk(void **state) {
    (void)state;
    ShoalError err = {0};
    struct rlimit old, full = {4096, RLIM_INFINITY};
    const float values[256] = {1};
    ShoalHdf5Writer *writer;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    full.rlim_max = old.rlim_max;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &full), 0);
    ok(shoal_hdf5_writer_create(path, &writer, &err), &err);
    int i = 0;
    while (i < 50 && !shoal_hdf5_writer_append(writer, "data", 1, (int[]){256}, values, &err))
        i++;
    assert_int_equal(err.status, SHOAL_ERR_IO);
    assert_non_null(strstr(err.text, "is the disk full?"));
    shoal_error_clear(&err);
    assert_int_equal(shoal_hdf5_writer_append(writer, "data", 1, (int[]){256}, values, &err),
                     SHOAL_ERR_IO);
    shoal_hdf5_writer_close(writer);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
}

int main(void) {
    H5dont_atexit(); /* as the library of ours, had it been the first */
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_net),
        cmocka_unit_test(test_shared_and_diffs),
        cmocka_unit_test(test_state),
        cmocka_unit_test(test_names_that_hdf5_cannot_hold),
        cmocka_unit_test(test_not_hdf5),
        cmocka_unit_test(test_cut_off),
        cmocka_unit_test(test_wrong_members),
        cmocka_unit_test(test_wrong_types),
        cmocka_unit_test(test_huge_shapes),
        cmocka_unit_test(test_links),
        cmocka_unit_test(test_text_of_a_state),
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_wrong_rows),
        cmocka_unit_test(test_writer),
        cmocka_unit_test(test_full_disk),
    };
    return cmocka_run_group_tests(tests, make_files, remove_files);
}

#else

static void test_none(void **state) {
    (void)state;
    ShoalError err = {0};
    void *bytes;
    size_t size;
    ShoalHdf5Rows *rows;
    ShoalHdf5Writer *writer;
    assert_int_equal(shoal_hdf5_read_net("x.h5", &bytes, &size, &err), SHOAL_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.text, "x.h5: this build of shoal has no HDF5"));
    assert_int_equal(shoal_hdf5_read_state("x.h5", &bytes, &size, &err), SHOAL_ERR_UNSUPPORTED);
    assert_int_equal(shoal_hdf5_from_net("", 0, &bytes, &size, &err), SHOAL_ERR_UNSUPPORTED);
    assert_int_equal(shoal_hdf5_rows_open("x.h5", NULL, 0, &rows, &err), SHOAL_ERR_UNSUPPORTED);
    assert_int_equal(shoal_hdf5_writer_create("x.h5", &writer, &err), SHOAL_ERR_UNSUPPORTED);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_none)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#endif
