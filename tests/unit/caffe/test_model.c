/* SPDX-License-Identifier: Apache-2.0 */
#include "helpers.h"

#include <limits.h>

#include "base/rng.h"

/* ---- files that Caffe wrote ---- */

static void check_bytes(const ProtobufCMessageDescriptor *type, const char *path,
                        const unsigned char *bytes, size_t size) {
    ShoalError err = {0};
    ProtobufCMessage *message;
    if (shoal_caffe_unpack(type, bytes, size, path, &message, &err))
        fail_msg("%s", err.text);
    void *packed;
    size_t packed_size;
    assert_int_equal(shoal_caffe_pack(message, &packed, &packed_size, &err), SHOAL_OK);
    if (packed_size != size || memcmp(packed, bytes, size) != 0)
        fail_msg("%s: packs to other bytes", path);
    ProtobufCMessage *copy = shoal_caffe_copy(message);
    assert_non_null(copy);
    assert_same_bytes(copy, message);
    protobuf_c_message_free_unpacked(copy, NULL);
    protobuf_c_message_free_unpacked(message, NULL);
    shoal_free(packed);
}

static bool has_batch_norm(const Caffe__NetParameter *net) {
    for (size_t i = 0; i < net->n_layer; i++)
        if (strcmp(net->layer[i]->type, "BatchNorm") == 0)
            return true;
    return false;
}

static void check_net(const char *path, const unsigned char *bytes, size_t size) {
    check_bytes(&caffe__net_parameter__descriptor, path, bytes, size);
    /* A net of today's form passes the upgrade untouched, but for the rates of BatchNorm. */
    ShoalError err = {0};
    ShoalCaffeNet net;
    if (shoal_caffe_net_from_bytes(bytes, size, path, &net, &err))
        fail_msg("%s", err.text);
    void *packed;
    size_t packed_size;
    assert_int_equal(shoal_caffe_pack(&net.param->base, &packed, &packed_size, &err), SHOAL_OK);
    if (!has_batch_norm(net.param)) {
        assert_int_equal(packed_size, size);
        assert_memory_equal(packed, bytes, size);
    }
    shoal_free(packed);
    for (size_t i = 0; i < net.param->n_layer; i++)
        for (size_t j = 0; j < net.param->layer[i]->n_blobs; j++) {
            int dims[32], axes;
            if (shoal_caffe_blob_shape(net.param->layer[i]->blobs[j], 32, dims, &axes, &err))
                fail_msg("%s: %s", path, err.text);
        }
    shoal_caffe_net_close(&net);
}

static void check_state(const char *path, const unsigned char *bytes, size_t size) {
    check_bytes(&caffe__solver_state__descriptor, path, bytes, size);
}

static void check_blob(const char *path, const unsigned char *bytes, size_t size) {
    check_bytes(&caffe__blob_proto__descriptor, path, bytes, size);
}

static void test_files(void **state) {
    (void)state;
    size_t nets = for_each_file("caffe-goldens/*/*.caffemodel", check_net);
    size_t states = for_each_file("caffe-goldens/*/*.solverstate", check_state);
    size_t blobs = for_each_file("caffe-goldens/*/*.binaryproto", check_blob);
    if (nets + states + blobs == 0)
        skip();
    assert_true(nets && states && blobs);
    print_message("%zu caffemodels, %zu solverstates, %zu blobs\n", nets, states, blobs);
}

static void check_text_net(const char *path, const unsigned char *bytes, size_t size) {
    ShoalError err = {0};
    if (strstr(path, "solver")) {
        Caffe__SolverParameter *solver;
        if (shoal_caffe_solver_from_text((const char *)bytes, size, path, NULL, &solver, &err))
            fail_msg("%s", err.text);
        caffe__solver_parameter__free_unpacked(solver, NULL);
        return;
    }
    ShoalCaffeNet net;
    if (shoal_caffe_net_from_text((const char *)bytes, size, path, &net, &err))
        fail_msg("%s", err.text);
    assert_int_equal(net.param->n_layers, 0);
    assert_int_equal(net.param->n_input, 0);
    assert_true(net.param->n_layer > 0);
    shoal_caffe_net_close(&net);
}

static void test_text_files(void **state) {
    (void)state;
    if (for_each_file("caffe-models/*/*.prototxt", check_text_net) +
            for_each_file("caffe-goldens/*/*.prototxt", check_text_net) ==
        0)
        skip();
}

/* ---- the wire format, byte by byte ---- */

/* Bytes worked out by hand from the encoding's definition: what Caffe writes for these values. */
static void test_known_bytes(void **state) {
    (void)state;
    static const unsigned char bytes[] = {
        0x0a, 0x01, 'n',                                   /* name: "n" */
        0xa2, 0x06, 0x16,                                  /* layer (100), 22 bytes */
        0x12, 0x01, 't',                                   /* type: "t" */
        0x3a, 0x0f,                                        /* blobs (7), 15 bytes */
        0x2a, 0x08, 0,    0,    0x80, 0x3f, 0, 0, 0, 0xc0, /* data (5), packed: 1, -2 */
        0x3a, 0x03, 0x0a, 0x01, 0x02,                      /* shape (7): dim, packed: 2 */
        0x52, 0x00, /* (10 is phase: wrong wire type, see below) */
    };
    ShoalError err = {0};
    ProtobufCMessage *message = NULL;
    /* phase as a string of no bytes does not fit. */
    assert_int_equal(shoal_caffe_unpack(&caffe__net_parameter__descriptor, bytes, sizeof bytes, "f",
                                        &message, &err),
                     SHOAL_ERR_PARSE);
    assert_string_equal(err.text,
                        "f: not a NetParameter; it has a field of the wrong type or lacks one");
    unsigned char good[sizeof bytes];
    memcpy(good, bytes, sizeof good);
    good[5] = 0x14;
    shoal_error_clear(&err);
    assert_int_equal(shoal_caffe_unpack(&caffe__net_parameter__descriptor, good, sizeof good - 2,
                                        "f", &message, &err),
                     SHOAL_OK);
    char *text = printed(message);
    assert_string_equal(text, "name: \"n\"\nlayer {\n  type: \"t\"\n  blobs {\n    data: 1\n"
                              "    data: -2\n    shape {\n      dim: 2\n    }\n  }\n}\n");
    shoal_free(text);
    void *packed;
    size_t size;
    assert_int_equal(shoal_caffe_pack(message, &packed, &size, &err), SHOAL_OK);
    assert_int_equal(size, sizeof good - 2);
    assert_memory_equal(packed, good, size);
    shoal_free(packed);
    protobuf_c_message_free_unpacked(message, NULL);
}

/* Fields that this schema does not know (of forks) survive reading and writing. */
static void test_unknown_fields(void **state) {
    (void)state;
    static const unsigned char bytes[] = {0x0a, 0x01, 'n', 0xfa, 0x3e, 0x02, 'h', 'i'};
    ShoalError err = {0};
    ProtobufCMessage *message;
    assert_int_equal(shoal_caffe_unpack(&caffe__net_parameter__descriptor, bytes, sizeof bytes, "f",
                                        &message, &err),
                     SHOAL_OK);
    void *packed;
    size_t size;
    assert_int_equal(shoal_caffe_pack(message, &packed, &size, &err), SHOAL_OK);
    assert_int_equal(size, sizeof bytes);
    assert_memory_equal(packed, bytes, size);
    shoal_free(packed);
    protobuf_c_message_free_unpacked(message, NULL);
}

/* Repeated numbers that old protobuf wrote one by one instead of packed, and the other way round.
 */
static void test_packed_or_not(void **state) {
    (void)state;
    static const unsigned char loose[] = {0x2d, 0, 0, 0x80, 0x3f, 0x2d, 0, 0, 0, 0x40};
    static const unsigned char dims[] = {0x22, 0x03, 0x01, 0x02, 0x03};
    ShoalError err = {0};
    ProtobufCMessage *message;
    assert_int_equal(shoal_caffe_unpack(&caffe__blob_proto__descriptor, loose, sizeof loose, "f",
                                        &message, &err),
                     SHOAL_OK);
    Caffe__BlobProto *blob = (Caffe__BlobProto *)message;
    assert_int_equal(blob->n_data, 2);
    assert_true(blob->data[1] == 2.0f);
    protobuf_c_message_free_unpacked(message, NULL);
    assert_int_equal(shoal_caffe_unpack(&caffe__net_parameter__descriptor, dims, sizeof dims, "f",
                                        &message, &err),
                     SHOAL_OK);
    assert_int_equal(((Caffe__NetParameter *)message)->n_input_dim, 3);
    protobuf_c_message_free_unpacked(message, NULL);
}

static void unpack_fails(const void *bytes, size_t size, const char *expected) {
    ShoalError err = {0};
    ShoalCaffeNet net = {0};
    assert_int_equal(shoal_caffe_net_from_bytes(bytes, size, "w.caffemodel", &net, &err),
                     SHOAL_ERR_PARSE);
    assert_string_equal(err.text, expected);
    assert_null(net.param);
}

static void test_not_a_net(void **state) {
    (void)state;
    unpack_fails(
        "layer { name: \"data\" }", 22,
        "w.caffemodel: not a NetParameter of 22 bytes, from byte 1 on; it looks like text, "
        "expected a binary file");
    unpack_fails(
        "\x89HDF\r\n\x1a\n\0\0\0\0", 12,
        "w.caffemodel: not a NetParameter of 12 bytes, from byte 11 on; it is an HDF5 file, "
        "whose name must end in .h5");
    unpack_fails("\x0a\x01n\x0a\xff\xff\xff\xff\x0f", 9,
                 "w.caffemodel: not a NetParameter of 9 bytes, from byte 9 on; is it cut off or "
                 "damaged?");
    unpack_fails("\x22\xff\xff\xff\xff\xff\xff", 7,
                 "w.caffemodel: not a NetParameter of 7 bytes, from byte 1 on; is it cut off or "
                 "damaged?");
    /* Field number 0; a group; a tag beyond 32 bits. */
    unpack_fails("\x80\x00\x01", 3,
                 "w.caffemodel: not a NetParameter of 3 bytes, from byte 2 on; is it cut off or "
                 "damaged?");
    unpack_fails("\xfb\x01\xfc\x01", 4,
                 "w.caffemodel: not a NetParameter of 4 bytes, from byte 2 on; is it cut off or "
                 "damaged?");
    unpack_fails("\xff\xff\xff\xff\x7f", 5,
                 "w.caffemodel: not a NetParameter of 5 bytes, from byte 5 on; is it cut off or "
                 "damaged?");
    /* A layer that lacks clip_param.max. */
    unpack_fails("\xa2\x06\x08\xa2\x09\x05\x0d\0\0\0\0", 11,
                 "w.caffemodel: not a NetParameter; it has a field of the wrong type or lacks one");
    /* No bytes at all are an empty net. */
    ShoalError err = {0};
    ShoalCaffeNet net;
    assert_int_equal(shoal_caffe_net_from_bytes(NULL, 0, "w", &net, &err), SHOAL_OK);
    assert_int_equal(net.param->n_layer, 0);
    shoal_caffe_net_close(&net);
}

/* One message many times over, where one is expected: merged while they are few, as protobuf does,
 * and refused before that takes forever. */
static void test_repetitions(void **state) {
    (void)state;
    enum { N = 100000 };
    static char bytes[4 * N];
    for (size_t i = 0; i < N; i++)
        memcpy(bytes + 4 * i, "\x32\x02\x1a\x00", 4); /* state { stage: "" } */
    ShoalError err = {0};
    ShoalCaffeNet net;
    assert_int_equal(shoal_caffe_net_from_bytes(bytes, 4 * 1001, "w", &net, &err), SHOAL_OK);
    assert_int_equal(net.param->state->n_stage, 1001);
    shoal_caffe_net_close(&net);
    unpack_fails(bytes, sizeof bytes,
                 "w.caffemodel: not a NetParameter of 400000 bytes, from byte 4006 on; is it cut "
                 "off or damaged?");
}

/* ---- damaged files ---- */

static const char sample[] =
    "name: 'n' state { phase: TEST stage: 's' } input: 'x' input_dim: [1,2,3,4]\n"
    "layers { type: DATA name: 'd' top: 'a' data_param { source: 's' scale: 0.5 } }\n"
    "layers { type: CONVOLUTION name: 'c' bottom: 'a' top: 'b' blobs_lr: [1,2] param: 'w'\n"
    "  blob_share_mode: PERMISSIVE convolution_param { num_output: 3 kernel_size: 2 }\n"
    "  blobs { num: 1 channels: 2 height: 1 width: 1 data: [1, 2] double_diff: 3 } }\n";

/* The sample's bytes; shoal_free. */
static unsigned char *sample_bytes(size_t *size) {
    ProtobufCMessage *message = parse_ok(&caffe__net_parameter__descriptor, sample);
    ShoalError err = {0};
    void *bytes;
    assert_int_equal(shoal_caffe_pack(message, &bytes, size, &err), SHOAL_OK);
    protobuf_c_message_free_unpacked(message, NULL);
    return bytes;
}

/* Reads, and on success uses everything; never crashes. */
static bool reads(const unsigned char *bytes, size_t size) {
    ShoalError err = {0};
    ShoalCaffeNet net;
    ShoalStatus status = shoal_caffe_net_from_bytes(bytes, size, "f", &net, &err);
    if (status) {
        assert_true(status == SHOAL_ERR_PARSE || status == SHOAL_ERR_MODEL);
        assert_memory_equal(err.text, "f: ", 3);
        return false;
    }
    shoal_free(printed(net.param));
    shoal_caffe_net_close(&net);
    return true;
}

static void test_cut(void **state) {
    (void)state;
    size_t size, good = 0;
    unsigned char *bytes = sample_bytes(&size);
    assert_true(reads(bytes, size));
    for (size_t i = 0; i < size; i++) {
        unsigned char *cut = malloc(i ? i : 1);
        memcpy(cut, bytes, i);
        good += reads(cut, i);
        free(cut);
    }
    /* Whole only where a field ends. */
    assert_in_range(good, 1, 10);
    shoal_free(bytes);
}

static void test_mutated(void **state) {
    (void)state;
    size_t size;
    unsigned char *bytes = sample_bytes(&size), *bad = malloc(size);
    ShoalRng rng;
    shoal_rng_init(&rng, 3, SHOAL_RNG_TEST, 2);
    size_t good = 0;
    for (int round = 0; round < 20000; round++) {
        memcpy(bad, bytes, size);
        for (uint32_t n = 1 + shoal_rng_below(&rng, 3); n; n--)
            bad[shoal_rng_below(&rng, (uint32_t)size)] = (unsigned char)shoal_rng_u32(&rng);
        good += reads(bad, size);
    }
    assert_true(good > 100 && good < 19900);
    free(bad);
    shoal_free(bytes);
}

/* ---- places ---- */

static void test_where(void **state) {
    (void)state;
    const char text[] = "layer { name: 'a' }\n  layer { name: 'b' relu_param { } }";
    ShoalError err = {0};
    ShoalCaffeNet net;
    char where[64];
    assert_int_equal(shoal_caffe_net_from_text(text, strlen(text), "n.prototxt", &net, &err),
                     SHOAL_OK);
    assert_string_equal(shoal_caffe_net_where(&net, net.param->layer[1], where, sizeof where),
                        "n.prototxt:2:3");
    assert_string_equal(
        shoal_caffe_net_where(&net, net.param->layer[1]->relu_param, where, sizeof where),
        "n.prototxt:2:21");
    assert_string_equal(shoal_caffe_net_where(&net, net.param, where, sizeof where), "n.prototxt");
    assert_string_equal(shoal_caffe_net_where(&net, net.param->layer[0], where, 5), "n.pr");
    shoal_caffe_net_close(&net);
    shoal_caffe_net_close(&net);
}

/* ---- blobs ---- */

static ShoalStatus shape_of(const char *text, int max_axes, int *dims, int *axes, ShoalError *err) {
    Caffe__BlobProto *blob = parse_ok(&caffe__blob_proto__descriptor, text);
    *err = (ShoalError){0};
    ShoalStatus status = shoal_caffe_blob_shape(blob, max_axes, dims, axes, err);
    caffe__blob_proto__free_unpacked(blob, NULL);
    return status;
}

static void test_shapes(void **state) {
    (void)state;
    static const struct {
        const char *text;
        int axes, dims[4];
    } cases[] = {
        {"", 0, {0}},
        {"data: 7", 0, {0}},
        {"shape { } double_data: 7", 0, {0}},
        {"shape { dim: 0 }", 1, {0}},
        {"shape { dim: [3, 2] } data: [1,2,3,4,5,6]", 2, {3, 2}},
        {"shape { dim: 2147483647 }", 1, {INT_MAX}},
        {"shape { dim: [0, 2147483647, 2147483647] }", 3, {0, INT_MAX, INT_MAX}},
        {"num: 1 channels: 2 height: 1 width: 1 data: [1,2]", 4, {1, 2, 1, 1}},
        /* As in Caffe, the old axes win, and an absent one is 0. */
        {"num: 5 shape { dim: 3 }", 4, {5, 0, 0, 0}},
        /* double_data, if any, is what counts. */
        {"shape { dim: 2 } data: 1 double_data: [1,2]", 1, {2}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ShoalError err;
        int dims[4] = {0}, axes = -1;
        if (shape_of(cases[i].text, 4, dims, &axes, &err))
            fail_msg("%s: %s", cases[i].text, err.text);
        assert_int_equal(axes, cases[i].axes);
        assert_memory_equal(dims, cases[i].dims, sizeof dims);
    }
}

static void test_bad_shapes(void **state) {
    (void)state;
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"shape { dim: [1,1,1,1,1] }", "a blob of 5 axes, expected at most 4"},
        {"shape { dim: [1, -1] }", "axis 1 of a blob is -1 long, expected 0 to 2147483647"},
        {"shape { dim: -9223372036854775808 }",
         "axis 0 of a blob is -9223372036854775808 long, expected 0 to 2147483647"},
        {"shape { dim: 2147483648 }",
         "axis 0 of a blob is 2147483648 long, expected 0 to 2147483647"},
        {"shape { dim: [65536, 65536] }",
         "a blob of more than 2147483647 values; Caffe has no larger ones"},
        {"shape { dim: [2147483647, 2147483647, 2147483647, 0] }",
         "a blob of more than 2147483647 values; Caffe has no larger ones"},
        {"shape { dim: 3 } data: [1,2]",
         "a blob whose shape has 3 values holds 2; the file is damaged"},
        {"shape { dim: 3 } double_data: 1",
         "a blob whose shape has 3 values holds 1; the file is damaged"},
        {"data: [1,2]", "a blob whose shape has 1 values holds 2; the file is damaged"},
        {"num: 2 data: [1,2]", "a blob whose shape has 0 values holds 2; the file is damaged"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ShoalError err;
        int dims[4] = {9, 9, 9, 9}, axes = 9;
        assert_int_equal(shape_of(cases[i].text, 4, dims, &axes, &err), SHOAL_ERR_MODEL);
        assert_string_equal(err.text, cases[i].message);
        assert_int_equal(axes, 9);
        assert_int_equal(dims[0], 9);
    }
}

/* ---- piece by piece ---- */

typedef struct Pieces {
    unsigned char *bytes;
    size_t used, total, most;
    int left; /* pieces until it wants no more */
} Pieces;

static ShoalStatus take_piece(void *context, const void *bytes, size_t size, size_t total,
                              ShoalError *err) {
    Pieces *pieces = context;
    if (pieces->left-- == 0)
        return shoal_error_set(err, SHOAL_ERR_LOST, "no more");
    assert_in_range(pieces->used + size, 1, pieces->total);
    assert_int_equal(total, pieces->total);
    memcpy(pieces->bytes + pieces->used, bytes, size);
    pieces->used += size;
    pieces->most = size > pieces->most ? size : pieces->most;
    return SHOAL_OK;
}

static void test_stream(void **state) {
    (void)state;
    static float values[700001];
    for (size_t i = 0; i < 700001; i++)
        values[i] = (float)i * 0.37f;
    Caffe__BlobProto blob = CAFFE__BLOB_PROTO__INIT, *history[] = {&blob, &blob};
    blob.data = values;
    blob.n_data = 700001;
    Caffe__SolverState message = CAFFE__SOLVER_STATE__INIT;
    message.history = history;
    message.n_history = 2;
    message.learned_net = (char *)"a net";
    void *packed;
    size_t size;
    ShoalError err = {0};
    assert_int_equal(shoal_caffe_pack(&message.base, &packed, &size, &err), SHOAL_OK);
    Pieces pieces = {.bytes = shoal_calloc(size, 1), .total = size, .left = 1000};
    assert_int_equal(shoal_caffe_stream(&message.base, take_piece, &pieces, &err), SHOAL_OK);
    assert_int_equal(pieces.used, size);
    assert_in_range(pieces.most, 1, 1 << 20);
    assert_memory_equal(pieces.bytes, packed, size);
    pieces.used = 0;
    pieces.left = 2;
    assert_int_equal(shoal_caffe_stream(&message.base, take_piece, &pieces, &err), SHOAL_ERR_LOST);
    assert_string_equal(err.text, "no more");
    assert_int_equal(pieces.left, -1); /* not asked again */
    shoal_free(pieces.bytes);
    shoal_free(packed);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_files),         cmocka_unit_test(test_text_files),
        cmocka_unit_test(test_known_bytes),   cmocka_unit_test(test_unknown_fields),
        cmocka_unit_test(test_packed_or_not), cmocka_unit_test(test_not_a_net),
        cmocka_unit_test(test_cut),           cmocka_unit_test(test_mutated),
        cmocka_unit_test(test_where),         cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_repetitions),   cmocka_unit_test(test_bad_shapes),
        cmocka_unit_test(test_stream),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
