/* SPDX-License-Identifier: Apache-2.0 */
#include "helpers.h"

#include <locale.h>
#include <math.h>
#include <stdio.h>

#include "base/rng.h"

#define NET (&caffe__net_parameter__descriptor)
#define SOLVER (&caffe__solver_parameter__descriptor)
#define LAYER (&caffe__layer_parameter__descriptor)
#define DATUM (&caffe__datum__descriptor)
#define BLOB (&caffe__blob_proto__descriptor)

static void free_message(void *message) {
    protobuf_c_message_free_unpacked(message, NULL);
}

/* ---- a schema with what Caffe's has not: oneof, recursion, all kinds of integers ---- */

typedef struct Node {
    ProtobufCMessage base;
    struct Node *child;
    int32_t need;
    protobuf_c_boolean has_u64;
    uint64_t u64;
    protobuf_c_boolean has_s64;
    int64_t s64;
    uint32_t choice;
    union {
        char *text;
        uint32_t number;
    };
} Node;

static const ProtobufCMessageDescriptor node_type;

#define FIELD(NAME, ID, LABEL, TYPE, QUANTIFIER, MEMBER, TARGET, FLAGS)                            \
    {                                                                                              \
        NAME, ID, PROTOBUF_C_LABEL_##LABEL, PROTOBUF_C_TYPE_##TYPE, QUANTIFIER,                    \
            offsetof(Node, MEMBER), TARGET, NULL, FLAGS, 0, NULL, NULL                             \
    }

static const ProtobufCFieldDescriptor node_fields[] = {
    FIELD("child", 1, OPTIONAL, MESSAGE, 0, child, &node_type, 0),
    FIELD("need", 2, REQUIRED, SFIXED32, 0, need, NULL, 0),
    FIELD("u64", 3, OPTIONAL, FIXED64, offsetof(Node, has_u64), u64, NULL, 0),
    FIELD("s64", 4, OPTIONAL, SINT64, offsetof(Node, has_s64), s64, NULL, 0),
    FIELD("text", 5, OPTIONAL, STRING, offsetof(Node, choice), text, NULL,
          PROTOBUF_C_FIELD_FLAG_ONEOF),
    FIELD("number", 6, OPTIONAL, UINT32, offsetof(Node, choice), number, NULL,
          PROTOBUF_C_FIELD_FLAG_ONEOF),
};
static const unsigned node_by_name[] = {0, 1, 5, 3, 4, 2};
static const ProtobufCIntRange node_ranges[] = {{1, 0}, {0, 6}};

static void node_init(ProtobufCMessage *message) {
    memset(message, 0, sizeof(Node));
    message->descriptor = &node_type;
}

static const ProtobufCMessageDescriptor node_type = {PROTOBUF_C__MESSAGE_DESCRIPTOR_MAGIC,
                                                     "test.Node",
                                                     "Node",
                                                     "Node",
                                                     "test",
                                                     sizeof(Node),
                                                     6,
                                                     node_fields,
                                                     node_by_name,
                                                     1,
                                                     node_ranges,
                                                     node_init,
                                                     NULL,
                                                     NULL,
                                                     NULL};

static void test_other_types(void **state) {
    (void)state;
    Node *node = parse_ok(&node_type, "need: -2147483648 u64: 0xFFFFFFFFFFFFFFFF "
                                      "s64: -9223372036854775808 number: 7");
    assert_int_equal(node->need, INT32_MIN);
    assert_true(node->u64 == UINT64_MAX);
    assert_true(node->s64 == INT64_MIN);
    assert_int_equal(node->choice, 6);
    assert_int_equal(node->number, 7);
    char *text = printed(node);
    assert_string_equal(text, "need: -2147483648\nu64: 18446744073709551615\n"
                              "s64: -9223372036854775808\nnumber: 7\n");
    shoal_free(text);
    free_message(node);
    node = parse_ok(&node_type, "text: 'x' need: 1");
    assert_int_equal(node->choice, 5);
    assert_string_equal(node->text, "x");
    free_message(node);
}

static void node_fails(const char *text, const char *expected) {
    parse_fails(&node_type, text, strlen(text), expected);
}

static void test_other_errors(void **state) {
    (void)state;
    node_fails("u64: 1", "f:1:1: Node needs a value for \"need\" and has none");
    node_fails("need: 1\nchild { u64: 2 }", "f:2:1: Node needs a value for \"need\" and has none");
    node_fails("need: 1 need: 1",
               "f:1:9: \"need\" is given a second time; it takes one value: keep "
               "the one that is meant");
    node_fails("need: 1 text: 'a' number: 1",
               "f:1:19: \"number\" excludes a field that is given above: keep one");
    node_fails("need: 1 text: 'a' text: 'b'",
               "f:1:19: \"text\" is given a second time; it takes one value: keep the one that is "
               "meant");
    node_fails("u64: 18446744073709551616",
               "f:1:6: found 18446744073709551616 for \"u64\", expected "
               "an integer from 0 to 2^64-1");
    node_fails("s64: -9223372036854775809",
               "f:1:7: found -9223372036854775809 for \"s64\", expected "
               "an integer from -2^63 to 2^63-1");
    node_fails("s64: 9223372036854775808", "f:1:6: found 9223372036854775808 for \"s64\", expected "
                                           "an integer from -2^63 to 2^63-1");
    node_fails("u64: -1", "f:1:6: found \"-\", expected an integer of 0 or more");
}

/* depth messages inside the outermost one */
static char *nested(size_t depth) {
    const char open[] = "need:1 child{", last[] = "need:1";
    char *text = malloc(depth * sizeof open + sizeof last + depth);
    char *p = text;
    for (size_t i = 0; i < depth; i++)
        p = (char *)memcpy(p, open, sizeof open - 1) + sizeof open - 1;
    p = (char *)memcpy(p, last, sizeof last - 1) + sizeof last - 1;
    memset(p, '}', depth);
    p[depth] = '\0';
    return text;
}

static void test_depth(void **state) {
    (void)state;
    char *text = nested(100);
    free_message(parse_ok(&node_type, text));
    free(text);
    text = nested(101);
    node_fails(text, "f:1:1313: messages are nested deeper than 100");
    free(text);
    text = nested(1000000);
    node_fails(text, "f:1:1313: messages are nested deeper than 100");
    free(text);
}

/* ---- what parses ---- */

static void test_syntax(void **state) {
    (void)state;
    Caffe__LayerParameter *layer = parse_ok(
        LAYER, "\xef\xbb\xbf# a comment\r\n"
               "name:\"conv1\"type : 'Conv' \"olution\"\t# joined\n"
               "bottom: [ 'a' , \"b\" 'c' ] bottom: \"d\"; top: [];\n"
               "loss_weight: [1, .5],loss_weight: 2.f\n"
               "convolution_param < num_output:20 kernel_size:[5,3]; pad: 1, "
               "weight_filler: { type:\"xavier\" } bias_filler <> >\n"
               "param { lr_mult: 1 }; param: < lr_mult: 2 >, param [ { lr_mult: 3 }, < > ]\n"
               "include: [ { phase: TEST stage: 'x' } ]\n"
               "exp_param { base: 10 }#end");
    assert_string_equal(layer->name, "conv1");
    assert_string_equal(layer->type, "Convolution");
    assert_int_equal(layer->n_bottom, 3);
    assert_string_equal(layer->bottom[1], "bc");
    assert_string_equal(layer->bottom[2], "d");
    assert_int_equal(layer->n_top, 0);
    assert_int_equal(layer->n_loss_weight, 3);
    assert_true(layer->loss_weight[1] == 0.5f && layer->loss_weight[2] == 2.0f);
    Caffe__ConvolutionParameter *conv = layer->convolution_param;
    assert_int_equal(conv->num_output, 20);
    assert_int_equal(conv->n_kernel_size, 2);
    assert_int_equal(conv->kernel_size[1], 3);
    assert_int_equal(conv->n_pad, 1);
    assert_string_equal(conv->weight_filler->type, "xavier");
    assert_int_equal(layer->n_param, 4);
    assert_true(layer->param[2]->lr_mult == 3.0f);
    assert_false(layer->param[3]->has_lr_mult);
    assert_true(layer->include[0]->has_phase && layer->include[0]->phase == CAFFE__PHASE__TEST);
    assert_true(layer->exp_param->base_ == 10.0f);
    free_message(layer);
}

/* What a file does not say has its default and no presence. */
static void test_defaults(void **state) {
    (void)state;
    Caffe__SolverParameter *solver = parse_ok(SOLVER, "");
    assert_string_equal(solver->type, "SGD");
    assert_true(solver->momentum2 == 0.999f && !solver->has_momentum2);
    assert_int_equal(solver->random_seed, -1);
    assert_int_equal(protobuf_c_message_get_packed_size(&solver->base), 0);
    free_message(solver);
    /* A default that is spelled out is stored. */
    solver = parse_ok(SOLVER, "type: 'SGD' momentum2: 0.999");
    assert_true(solver->has_momentum2);
    assert_int_equal(protobuf_c_message_get_packed_size(&solver->base), 6 + 6);
    free_message(solver);
    assert_int_equal(shoal_text_parse(SOLVER, NULL, 0, "f", NULL, (ProtobufCMessage **)&solver,
                                      &(ShoalError){0}),
                     SHOAL_OK);
    free_message(solver);
}

static void test_integers(void **state) {
    (void)state;
    static const struct {
        const char *text;
        int64_t value;
    } cases[] = {
        {"0", 0},
        {"-0", 0},
        {"2147483647", INT32_MAX},
        {"-2147483648", INT32_MIN},
        {"- 5", -5},
        {"0x1f", 31},
        {"0X1F", 31},
        {"-0x80000000", INT32_MIN},
        {"017", 15},
        {"00", 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[64];
        snprintf(text, sizeof text, "max_iter: %s random_seed: %s", cases[i].text, cases[i].text);
        Caffe__SolverParameter *solver = parse_ok(SOLVER, text);
        assert_int_equal(solver->max_iter, cases[i].value);
        assert_int_equal(solver->random_seed, cases[i].value);
        free_message(solver);
    }
}

static void test_floats(void **state) {
    (void)state;
    static const struct {
        const char *text;
        float value;
    } cases[] = {
        {"1", 1},
        {"1.5", 1.5f},
        {".5", 0.5f},
        {"5.", 5},
        {"1e-3", 1e-3f},
        {"1E+3", 1e3f},
        {"-2.5e2f", -250},
        {"1.f", 1},
        {"3F", 3},
        {"-inf", -INFINITY},
        {"Infinity", INFINITY},
        {"1e40", INFINITY},
        {"0", 0},
        {"0.0", 0},
        {"123456789012345678901234567890", 123456789012345678901234567890.f},
        {"1e-50", 0},
        {"0.1", 0.1f},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[96];
        snprintf(text, sizeof text, "base_lr: %s", cases[i].text);
        Caffe__SolverParameter *solver = parse_ok(SOLVER, text);
        assert_memory_equal(&solver->base_lr, &cases[i].value, sizeof(float));
        free_message(solver);
    }
    Caffe__SolverParameter *solver = parse_ok(SOLVER, "base_lr: -nan");
    assert_true(isnan(solver->base_lr));
    free_message(solver);
    Caffe__BlobProto *blob = parse_ok(BLOB, "double_data: [0.1, -1e300]");
    assert_true(blob->double_data[0] == 0.1 && blob->double_data[1] == -1e300);
    free_message(blob);
}

/* A program around the library may use decimal commas. */
static void test_locale(void **state) {
    (void)state;
    static const char *const names[] = {"de_DE.UTF-8", "de_DE.utf8", "fr_FR.UTF-8", "de_DE"};
    bool set = false;
    for (size_t i = 0; i < 4 && !set; i++)
        set = setlocale(LC_ALL, names[i]) != NULL;
    if (!set)
        skip();
    Caffe__SolverParameter *solver = parse_ok(SOLVER, "base_lr: 0.25");
    char *text = printed(solver);
    setlocale(LC_ALL, "C");
    assert_true(solver->base_lr == 0.25f);
    assert_string_equal(text, "base_lr: 0.25\n");
    shoal_free(text);
    free_message(solver);
}

static void test_words(void **state) {
    (void)state;
    static const char *const yes[] = {"true", "True", "t", "1", "0x1", "01"};
    static const char *const no[] = {"false", "False", "f", "0", "00"};
    char text[64];
    for (size_t i = 0; i < sizeof yes / sizeof *yes; i++) {
        snprintf(text, sizeof text, "snapshot_diff: %s", yes[i]);
        Caffe__SolverParameter *solver = parse_ok(SOLVER, text);
        assert_true(solver->has_snapshot_diff && solver->snapshot_diff == 1);
        free_message(solver);
    }
    for (size_t i = 0; i < sizeof no / sizeof *no; i++) {
        snprintf(text, sizeof text, "test_initialization: %s", no[i]);
        Caffe__SolverParameter *solver = parse_ok(SOLVER, text);
        assert_true(solver->has_test_initialization && solver->test_initialization == 0);
        free_message(solver);
    }
    Caffe__SolverParameter *solver = parse_ok(SOLVER, "solver_mode: 0 snapshot_format: HDF5");
    assert_int_equal(solver->solver_mode, CAFFE__SOLVER_PARAMETER__SOLVER_MODE__CPU);
    assert_int_equal(solver->snapshot_format, CAFFE__SOLVER_PARAMETER__SNAPSHOT_FORMAT__HDF5);
    free_message(solver);
}

static void test_strings(void **state) {
    (void)state;
    Caffe__NetParameter *net = parse_ok(NET, "name: \"\\a\\b\\f\\n\\r\\t\\v\\\\\\?\\'\\\" it's\"");
    assert_string_equal(net->name, "\a\b\f\n\r\t\v\\?'\" it's");
    free_message(net);
    net = parse_ok(NET,
                   "name: '\\101\\7\\0608\\x41\\x4g\\X7a' '' \"\\u00e9\\U0001f600\\ud83d\\ude00\"");
    assert_string_equal(net->name, "A\a"
                                   "08A\x04gz\xc3\xa9\xf0\x9f\x98\x80\xf0\x9f\x98\x80");
    free_message(net);
    /* \0 and raw bytes of any value but zero and newline are fine where bytes are. */
    Caffe__Datum *datum = parse_ok(DATUM, "data: \"\\000\\377\x80\xff\\x00\" \"z\" label: 3");
    assert_int_equal(datum->data.len, 6);
    assert_memory_equal(datum->data.data, "\0\377\x80\xff\0z", 6);
    free_message(datum);
    datum = parse_ok(DATUM, "data: ''");
    assert_true(datum->has_data && datum->data.len == 0);
    free_message(datum);
}

/* ---- what does not ---- */

static const struct {
    const char *text, *message;
} net_errors[] = {
    {"nam: 'x'", "f:1:1: NetParameter has no field named \"nam\"; did you mean \"name\"?"},
    {"layer {\n  name: 'a'\n  inner_product_param {\n    num_ouput: 3\n  }\n}",
     "f:4:5: InnerProductParameter has no field named \"num_ouput\"; did you mean \"num_output\"?"},
    {"xyzzy_plugh: 1",
     "f:1:1: NetParameter has no field named \"xyzzy_plugh\"; remove it or correct its name"},
    {"base: 1", "f:1:1: NetParameter has no field named \"base\"; remove it or correct its name"},
    {"layer { exp_param { base_: 1 } }",
     "f:1:21: ExpParameter has no field named \"base_\"; did you mean \"base\"?"},
    {"name 'x'", "f:1:6: found 'x', expected \":\" and a value"},
    {"name: x", "f:1:7: found \"x\", expected a string in quotes"},
    {"name: 'a' name: 'b'", "f:1:11: \"name\" is given a second time; it takes one value: keep the "
                            "one that is meant"},
    {"state {} state {}", "f:1:10: \"state\" is given a second time; it takes one value: keep the "
                          "one that is meant"},
    {"name: ['a']", "f:1:7: found \"[\", expected a string in quotes"},
    {"state [ { } ]", "f:1:7: found \"[\", expected \"{\""},
    {"name: 'a'\n;;", "f:2:2: found \";\", expected a field name"},
    {"input: ['a' 'b' c]", "f:1:17: found \"c\", expected \",\" or \"]\""},
    {"input: ['a',]", "f:1:13: found \"]\", expected a string in quotes"},
    {"input: ['a'", "f:1:12: found the end of the file, expected \",\" or \"]\""},
    {"layer {\n  name: 'x'\n\n",
     "f:4:1: the file ends inside the LayerParameter that begins in line 1; a \"}\" is missing"},
    {"layer <", "f:1:8: the file ends inside the LayerParameter that begins in line 1; a \">\" is "
                "missing"},
    {"layer { >", "f:1:9: found \">\", expected a field name"},
    {"layer < }", "f:1:9: found \"}\", expected a field name"},
    {"}", "f:1:1: found \"}\", expected a field name"},
    {"layer", "f:1:6: found the end of the file, expected \"{\""},
    {"layer: 3", "f:1:8: found \"3\", expected \"{\""},
    {"[caffe.ext]: 3",
     "f:1:1: found \"[\", expected a field name; extensions and Any values are not "
     "supported"},
    {"layer { [type.googleapis.com/caffe.X] { } }",
     "f:1:9: found \"[\", expected a field name; extensions and Any values are not supported"},
    {"name: 'abc", "f:1:7: a string that does not end on its line; add the closing '"},
    {"name: \"abc\n\"", "f:1:7: a string that does not end on its line; add the closing \""},
    {"name: 'abc\\", "f:1:7: a string that does not end on its line; add the closing '"},
    {"name: 'abc\\\n'", "f:1:7: a string that does not end on its line; add the closing '"},
    {"name: 'ab\\q'", "f:1:10: an escape that means nothing; write a backslash as \\\\"},
    {"name: 'a' 'b\\xg'", "f:1:13: an escape that means nothing; write a backslash as \\\\"},
    {"name: '\\400'", "f:1:8: an escape that means nothing; write a backslash as \\\\"},
    {"name: '\\u12'", "f:1:8: an escape that means nothing; write a backslash as \\\\"},
    {"name: '\\ud800'", "f:1:8: an escape that means nothing; write a backslash as \\\\"},
    {"name: '\\ud800\\u0041'", "f:1:8: an escape that means nothing; write a backslash as \\\\"},
    {"name: '\\U00110000'", "f:1:8: an escape that means nothing; write a backslash as \\\\"},
    {"name: 'a\\000b'", "f:1:7: a zero byte in \"name\", expected text without one"},
    {"name: 'a' $", "f:1:11: found \"$\", expected a field name or a value"},
    {"\x89HDF", "f:1:1: found the byte 0x89, expected text; is this a binary file?"},
    {"\n\tname: 'a'\r\n\x01", "f:3:1: found the byte 0x01, expected text; is this a binary file?"},
    {"layer { phase: TRIAN }",
     "f:1:16: found \"TRIAN\" for \"phase\", expected one of TRAIN, TEST; did you mean TRAIN?"},
    {"layer { phase: 7 }", "f:1:16: found \"7\" for \"phase\", expected one of TRAIN, TEST"},
    {"layer { phase: 'TRAIN' }",
     "f:1:16: found 'TRAIN' for \"phase\", expected one of TRAIN, TEST"},
    {"layer { clip_param { min: 1 } }",
     "f:1:9: ClipParameter needs a value for \"max\" and has none"},
    {"layer { clip_param [ ", "f:1:20: found \"[\", expected \"{\""},
    {"layers { type: CONVOLUTON }",
     "f:1:16: found \"CONVOLUTON\" for \"type\", expected one of NONE, ACCURACY, BNLL, CONCAT, "
     "CONVOLUTION, DATA, DROPOUT, EUCLIDEAN_LOSS, FLATTEN, HDF5_DATA, HDF5_OUTPUT, IM2COL, "
     "IMAGE_DATA, INFOGAIN_LOSS, ...; did you mean CONVOLUTION?"},
};

static const struct {
    const char *text, *message;
} solver_errors[] = {
    {"max_iter: 2147483648", "f:1:11: found 2147483648 for \"max_iter\", expected an integer from "
                             "-2147483648 to 2147483647"},
    {"max_iter: -2147483649",
     "f:1:12: found -2147483649 for \"max_iter\", expected an integer from "
     "-2147483648 to 2147483647"},
    {"max_iter: 10.0", "f:1:11: found \"10.0\", expected an integer"},
    {"max_iter: 1e3", "f:1:11: found \"1e3\", expected an integer"},
    {"max_iter: +3", "f:1:11: found \"+\", expected a field name or a value"},
    {"max_iter: '3'", "f:1:11: found '3', expected an integer"},
    {"max_iter: true", "f:1:11: found \"true\", expected an integer"},
    {"max_iter:", "f:1:10: found the end of the file, expected an integer"},
    {"max_iter: 08", "f:1:11: a number that begins with 0 is octal: only digits 0 to 7 can follow"},
    {"max_iter: 0x", "f:1:11: \"0x\" needs hexadecimal digits behind it"},
    {"max_iter: 12abc", "f:1:13: a blank is needed between a number and a name"},
    {"base_lr: 1.2.3", "f:1:13: a number with a second or misplaced decimal point"},
    {"base_lr: 1e", "f:1:11: \"e\" needs an exponent behind it, as in 1e-3"},
    {"base_lr: 1e-", "f:1:11: \"e\" needs an exponent behind it, as in 1e-3"},
    {"base_lr: 0x10", "f:1:10: found \"0x10\", expected a decimal number"},
    {"base_lr: 010", "f:1:10: found \"010\", expected a decimal number"},
    {"base_lr: fast", "f:1:10: found \"fast\", expected a number"},
    {"base_lr: --1", "f:1:11: found \"-\", expected a decimal number"},
    {"debug_info: 2", "f:1:13: found \"2\", expected true or false"},
    {"debug_info: yes", "f:1:13: found \"yes\", expected true or false"},
    {"debug_info: TRUE", "f:1:13: found \"TRUE\", expected true or false"},
    {"solver_mode: -1", "f:1:14: found \"-\" for \"solver_mode\", expected one of CPU, GPU"},
};

static void test_errors(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof net_errors / sizeof *net_errors; i++)
        parse_fails(NET, net_errors[i].text, strlen(net_errors[i].text), net_errors[i].message);
    for (size_t i = 0; i < sizeof solver_errors / sizeof *solver_errors; i++)
        parse_fails(SOLVER, solver_errors[i].text, strlen(solver_errors[i].text),
                    solver_errors[i].message);
    parse_fails(LAYER, "convolution_param { pad: -1 }", 29,
                "f:1:26: found \"-\", expected an integer of 0 or more");
    parse_fails(LAYER, "convolution_param { pad: 4294967296 }", 37,
                "f:1:26: found 4294967296 for \"pad\", expected an integer from 0 to 4294967295");
    /* Zero bytes: outside and inside of a string. */
    parse_fails(NET, "name: 'a'\0", 10,
                "f:1:10: found the byte 0x00, expected text; is this a binary file?");
    parse_fails(NET, "name: 'a\0'", 10,
                "f:1:7: a string that does not end on its line; add the closing '");
}

/* ---- hostile sizes ---- */

static char *filled(size_t size, const char *start, char with) {
    char *text = malloc(size + 1);
    size_t used = strlen(start);
    memcpy(text, start, used);
    memset(text + used, with, size - used);
    text[size] = '\0';
    return text;
}

static void test_huge_words(void **state) {
    (void)state;
    const size_t size = 4u << 20;
    char *text = filled(size, "", 'a');
    parse_fails(NET, text, size,
                "f:1:1: NetParameter has no field named "
                "\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa...\"; remove it or correct its name");
    free(text);
    text = filled(size, "base_lr: ", '7');
    parse_fails(SOLVER, text, size, "f:1:10: a number of 4194295 digits; at most 1099");
    free(text);
    text = filled(size, "max_iter: ", '7');
    parse_fails(SOLVER, text, size,
                "f:1:11: found a huge number for \"max_iter\", expected an integer from "
                "-2147483648 to 2147483647");
    free(text);
    text = filled(size, "max_iter: 0", '0');
    free_message(parse_ok(SOLVER, text));
    free(text);
    text = filled(size, "name: '", 'x');
    text[size - 1] = '\'';
    Caffe__NetParameter *net = parse_ok(NET, text);
    assert_int_equal(strlen(net->name), size - 8);
    free_message(net);
    free(text);
}

/* Many small things: values, adjacent strings, messages, lines. Growth is geometric, so this ends
 * in a moment; were it quadratic, it would run into the time limit of the tests. */
static void test_many(void **state) {
    (void)state;
    const size_t n = 400000;
    char *text = malloc(16 * n), *p = text;
    for (size_t i = 0; i < n; i++)
        p += sprintf(p, "layer{}\n");
    Caffe__NetParameter *net = parse_ok(NET, text);
    assert_int_equal(net->n_layer, n);
    free_message(net);
    p = text + sprintf(text, "name:");
    for (size_t i = 0; i < n; i++)
        p += sprintf(p, "'a'\"b\"");
    net = parse_ok(NET, text);
    assert_int_equal(strlen(net->name), 2 * n);
    free_message(net);
    p = text + sprintf(text, "input_dim:[0");
    for (size_t i = 0; i < n; i++)
        p += sprintf(p, ",-1");
    sprintf(p, "]");
    net = parse_ok(NET, text);
    assert_int_equal(net->n_input_dim, n + 1);
    assert_int_equal(net->input_dim[n], -1);
    free_message(net);
    free(text);
}

static const char sample[] =
    "name: \"N\\x41\" # c\nlayer { name: 'a' type: \"Data\" top: [\"x\",'y'] include: < phase: "
    "TRAIN "
    "> transform_param { scale: 3.9e-3 mirror: true mean_value: [1,2.5f,-inf] crop_size: 0x10 } }\n"
    "layer { clip_param { min: -1 max: nan } blobs { shape { dim: 2; dim: 017, } data: [1,2] } }\n"
    "layers { layer { type: 'conv' pad: 1 } } state { level: -3 stage: '' }";

static bool parses(const char *text, size_t size) {
    ShoalError err = {0};
    ProtobufCMessage *message;
    ShoalTextOrigins origins = {0};
    ShoalStatus status = shoal_text_parse(NET, text, size, "f", &origins, &message, &err);
    if (status == SHOAL_OK) {
        free_message(message);
        shoal_text_origins_close(&origins);
    } else {
        assert_int_equal(status, SHOAL_ERR_PARSE);
        assert_memory_equal(err.text, "f:", 2);
    }
    return status == SHOAL_OK;
}

/* Cut at every byte, in storage of exactly that size. */
static void test_cut(void **state) {
    (void)state;
    const size_t size = sizeof sample - 1;
    size_t good = 0;
    assert_true(parses(sample, size));
    for (size_t i = 0; i < size; i++) {
        char *cut = malloc(i ? i : 1);
        memcpy(cut, sample, i);
        good += parses(cut, i);
        free(cut);
    }
    /* Whole only between top-level fields, and inside the comment. */
    assert_in_range(good, 5, 20);
}

static void test_mutated(void **state) {
    (void)state;
    static const char bytes[] = "{}<>[]:;,'\"\\#\n-.0123456789eEfxXaN_ \0\xff";
    ShoalRng rng;
    shoal_rng_init(&rng, 7, SHOAL_RNG_TEST, 0);
    for (int round = 0; round < 20000; round++) {
        char text[sizeof sample];
        memcpy(text, sample, sizeof text);
        for (uint32_t n = 1 + shoal_rng_below(&rng, 4); n; n--)
            text[shoal_rng_below(&rng, sizeof sample - 1)] =
                bytes[shoal_rng_below(&rng, sizeof bytes - 1)];
        parses(text, sizeof sample - 1);
    }
}

/* ---- origins ---- */

static void test_origins(void **state) {
    (void)state;
    const char text[] = "name: 'n'\n  layer { }\nlayer: <\n\n   relu_param { }\n> layer [{},\n {}]";
    ShoalError err = {0};
    ShoalTextOrigins origins;
    Caffe__NetParameter *net;
    assert_int_equal(
        shoal_text_parse(NET, text, strlen(text), "f", &origins, (ProtobufCMessage **)&net, &err),
        SHOAL_OK);
    static const int lines[] = {2, 3, 6, 7}, columns[] = {3, 1, 10, 2};
    for (size_t i = 0; i < 4; i++) {
        const ShoalTextOrigin *origin = shoal_text_origins_find(&origins, &net->layer[i]->base);
        assert_non_null(origin);
        assert_int_equal(origin->line, lines[i]);
        assert_int_equal(origin->column, columns[i]);
    }
    const ShoalTextOrigin *inner =
        shoal_text_origins_find(&origins, &net->layer[1]->relu_param->base);
    assert_int_equal(inner->line, 5);
    assert_int_equal(inner->column, 4);
    assert_null(shoal_text_origins_find(&origins, &net->base));
    assert_int_equal(origins.count, 5);
    free_message(net);
    shoal_text_origins_close(&origins);
    assert_null(shoal_text_origins_find(&origins, NULL));
}

/* ---- printing ---- */

static void test_print(void **state) {
    (void)state;
    Caffe__NetParameter *net = parse_ok(
        NET, "layer { type: 'X' name: \"a\\\"'\\\\\\n\\t\\x01\\xff\" exp_param { base: 2 } "
             "blobs { data: [1, 0.1, 1e-10, -3.4028235e38, nan, -inf, 16777217] "
             "double_data: 0.1 shape { } } clip_param {min:1 max:2} } name: 'n' "
             "force_backward: true state { phase: TRAIN }");
    char *text = printed(net);
    assert_string_equal(text, "name: \"n\"\n"
                              "force_backward: true\n"
                              "state {\n"
                              "  phase: TRAIN\n"
                              "}\n"
                              "layer {\n"
                              "  name: \"a\\\"\\'\\\\\\n\\t\\001\\377\"\n"
                              "  type: \"X\"\n"
                              "  blobs {\n"
                              "    data: 1\n"
                              "    data: 0.1\n"
                              "    data: 1e-10\n"
                              "    data: -3.40282347e+38\n"
                              "    data: nan\n"
                              "    data: -inf\n"
                              "    data: 16777216\n"
                              "    shape {\n"
                              "    }\n"
                              "    double_data: 0.1\n"
                              "  }\n"
                              "  exp_param {\n"
                              "    base: 2\n"
                              "  }\n"
                              "  clip_param {\n"
                              "    min: 1\n"
                              "    max: 2\n"
                              "  }\n"
                              "}\n");
    shoal_free(text);
    free_message(net);
    Caffe__NetState state_message = CAFFE__NET_STATE__INIT;
    text = printed(&state_message);
    assert_string_equal(text, "");
    shoal_free(text);
    state_message.has_phase = 1;
    state_message.phase = 42; /* as a binary file may say */
    text = printed(&state_message);
    assert_string_equal(text, "phase: 42\n");
    shoal_free(text);
}

/* Every float and double comes back with the same bits. */
static void test_float_round_trip(void **state) {
    (void)state;
    enum { N = 20000 };
    static float floats[N];
    static double doubles[N];
    ShoalRng rng;
    shoal_rng_init(&rng, 11, SHOAL_RNG_TEST, 1);
    for (int i = 0; i < N; i++) {
        do {
            uint32_t bits = shoal_rng_u32(&rng);
            memcpy(&floats[i], &bits, sizeof bits);
        } while (isnan(floats[i]));
        do {
            uint64_t bits = (uint64_t)shoal_rng_u32(&rng) << 32 | shoal_rng_u32(&rng);
            memcpy(&doubles[i], &bits, sizeof bits);
        } while (isnan(doubles[i]));
    }
    Caffe__BlobProto blob = CAFFE__BLOB_PROTO__INIT;
    blob.data = floats;
    blob.double_data = doubles;
    blob.n_data = blob.n_double_data = N;
    char *text = printed(&blob);
    Caffe__BlobProto *back = parse_ok(BLOB, text);
    assert_int_equal(back->n_data, N);
    assert_memory_equal(back->data, floats, sizeof floats);
    assert_memory_equal(back->double_data, doubles, sizeof doubles);
    free_message(back);
    shoal_free(text);
}

/* ---- real files ---- */

static void check_round_trip(const char *path, const unsigned char *bytes, size_t size) {
    const ProtobufCMessageDescriptor *type = strstr(path, "solver") ? SOLVER : NET;
    ShoalError err = {0};
    ProtobufCMessage *first, *second;
    if (shoal_text_parse(type, (const char *)bytes, size, path, NULL, &first, &err))
        fail_msg("%s", err.text);
    char *text = printed(first);
    if (shoal_text_parse(type, text, strlen(text), path, NULL, &second, &err))
        fail_msg("%s", err.text);
    assert_same_bytes(first, second);
    shoal_free(text);
    free_message(first);
    free_message(second);
}

static void test_files(void **state) {
    (void)state;
    size_t n = for_each_file("caffe-models/*/*.prototxt", check_round_trip) +
               for_each_file("caffe-goldens/*/*.prototxt", check_round_trip);
    if (n == 0)
        skip();
    print_message("%zu files\n", n);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_syntax),       cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_integers),     cmocka_unit_test(test_floats),
        cmocka_unit_test(test_locale),       cmocka_unit_test(test_words),
        cmocka_unit_test(test_strings),      cmocka_unit_test(test_other_types),
        cmocka_unit_test(test_other_errors), cmocka_unit_test(test_depth),
        cmocka_unit_test(test_errors),       cmocka_unit_test(test_huge_words),
        cmocka_unit_test(test_many),         cmocka_unit_test(test_cut),
        cmocka_unit_test(test_mutated),      cmocka_unit_test(test_origins),
        cmocka_unit_test(test_print),        cmocka_unit_test(test_float_round_trip),
        cmocka_unit_test(test_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
