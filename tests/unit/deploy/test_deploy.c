/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "deploy/plan.h"
#include "deploy/probe.h"
#include "deploy/run.h"
#include "deploy/script.h"
#include "deploy/transport.h"

/* ---- quoting ---- */

/* Runs a script in a shell; what it wrote goes to out. False where there is no such shell. */
static bool shell(const char *name, const char *script, char *out, size_t size) {
    ShoalRun run;
    char *argv[] = {(char *)name, "-c", (char *)script, NULL};
    if (shoal_run_start(&run, argv, NULL, -1, 60000, NULL))
        return false;
    while (!run.ended)
        shoal_run_wait((ShoalRun *const[]){&run}, 1, 100);
    assert_int_equal(run.code, 0);
    assert_string_equal(run.errors.bytes, "");
    snprintf(out, size, "%s", run.text.bytes);
    shoal_run_close(&run);
    return true;
}

static void check_word(const char *word) {
    static const char *const SHELLS[] = {"sh", "dash", "bash", "mksh"};
    char out[1024];
    ShoalScript script = {0};
    shoal_script_add(&script, "printf %s ");
    shoal_script_add_quoted(&script, word);
    assert_false(script.overflow);
    for (size_t i = 0; i < sizeof SHELLS / sizeof SHELLS[0]; i++)
        if (shell(SHELLS[i], script.text, out, sizeof out))
            assert_string_equal(out, word);
        else
            assert_int_not_equal(i, 0);
}

static void any_word_stays_as_it_is(void **state) {
    (void)state;
    static const char *const WORDS[] = {
        "",      "plain",     "two words", "'",        "''",       "'\\''", "a'b",
        "\"",    "\\",        "\\'",       "$HOME",    "`id`",     "$(id)", "; rm -rf x",
        "& x |", "*",         "?[a-z]",    "~",        "!!",       "#x",    "-n",
        "%s",    "new\nline", "tab\t.",    "\xff\xfe", "\xc3\xa9", "a=b",   "{a,b}",
        "<x>",   "end'",      "'begin",    "\x01\x7f",
    };
    for (size_t i = 0; i < sizeof WORDS / sizeof WORDS[0]; i++)
        check_word(WORDS[i]);
    char all[256];
    for (int i = 0; i < 255; i++)
        all[i] = (char)(i + 1);
    all[255] = '\0';
    check_word(all);
}

static void flags_are_quoted_in_scripts(void **state) {
    (void)state;
    const char *const flags[] = {"--name=it's; touch /x"};
    ShoalScript script;
    shoal_script_start(&script, true, flags, 1, "stamp", 3);
    assert_non_null(strstr(script.text, "worker '--name=it'\\''s; touch /x' </dev/null"));
    shoal_script_doctor(&script, false, flags, 1);
    assert_non_null(strstr(script.text, "--json '--name=it'\\''s; touch /x' "));
}

/* Old adb takes 4096 bytes; each script leaves room for flags. */
static void scripts_are_short_and_parse(void **state) {
    (void)state;
    static ShoalScript scripts[6];
    char hash[65], check[sizeof scripts[0].text + 32], out[64];
    memset(hash, 'a', 64);
    hash[64] = '\0';
    shoal_script_probe(&scripts[0], true, true);
    shoal_script_install(&scripts[1], true, hash, 123456789);
    shoal_script_start(&scripts[2], true, NULL, 0, hash, 13);
    shoal_script_stop(&scripts[3], true);
    shoal_script_logs(&scripts[4], true, 20);
    shoal_script_doctor(&scripts[5], true, NULL, 0);
    for (int i = 0; i < 6; i++) {
        assert_in_range(scripts[i].used, 100, SHOAL_SCRIPT_ADB_MAX - 1500);
        snprintf(check, sizeof check, "if false; then\n%s\nfi", scripts[i].text);
        assert_true(shell("sh", check, out, sizeof out));
        assert_string_equal(out, "");
    }
}

static void what_is_too_long_is_refused(void **state) {
    (void)state;
    static char word[SHOAL_SCRIPT_SIZE];
    memset(word, '\'', sizeof word - 1);
    ShoalScript script = {0};
    shoal_script_add_quoted(&script, word);
    assert_true(script.overflow);
    ShoalRun run;
    ShoalError error = {0};
    ShoalTarget target = {.adb = true, .name = "x"};
    assert_int_equal(shoal_transport_script(&target, 0, &script, 1000, &run, &error),
                     SHOAL_ERR_ARGUMENT);
    assert_non_null(strstr(error.text, "too long"));
}

/* ---- devices ---- */

static void adb_lines(void **state) {
    (void)state;
    ShoalTarget t;
    assert_true(shoal_probe_adb_line("R58M123ABC             device usb:1-4 product:beyond2 "
                                     "model:SM_G975F device:beyond2 transport_id:3\r\nnext",
                                     &t));
    assert_true(t.adb);
    assert_string_equal(t.name, "R58M123ABC");
    assert_string_equal(t.state, "device");
    assert_true(shoal_probe_adb_line("192.168.1.7:5555\tunauthorized\n", &t));
    assert_string_equal(t.name, "192.168.1.7:5555");
    assert_string_equal(t.state, "unauthorized");
    assert_true(shoal_probe_adb_line("????????????    no permissions (user in plugdev group); see "
                                     "[http://x] usb:1-1",
                                     &t));
    assert_true(!strncmp(t.state, "no permissions (user", 20));
    static const char *const NONE[] = {"",
                                       "\n",
                                       "List of devices attached",
                                       "* daemon started successfully",
                                       "alone",
                                       "alone  ",
                                       " a",
                                       "\033[2Jx device",
                                       "\xff device"};
    for (size_t i = 0; i < sizeof NONE / sizeof NONE[0]; i++)
        assert_false(shoal_probe_adb_line(NONE[i], &t));
    char huge[1000];
    memset(huge, 'x', sizeof huge);
    strcpy(huge + 990, " device");
    assert_false(shoal_probe_adb_line(huge, &t));
    memset(huge, 'x', 990);
    memcpy(huge, "ok ", 3);
    huge[990] = '\0';
    assert_true(shoal_probe_adb_line(huge, &t));
    assert_int_equal(strlen(t.state), sizeof t.state - 1);
}

static void check_host(const char *text, const char *host, int port) {
    ShoalTarget t;
    assert_true(shoal_probe_host(text, strlen(text), &t));
    assert_string_equal(t.name, text);
    assert_string_equal(t.host, host);
    assert_int_equal(t.port, port);
}

static void hosts(void **state) {
    (void)state;
    check_host("phone1", "phone1", 0);
    check_host("u0_a1@10.0.0.7:8022", "u0_a1@10.0.0.7", 8022);
    check_host("[fe80::1%eth0]:22", "fe80::1%eth0", 22);
    check_host("me@[::1]", "me@::1", 0);
    check_host("me@fe80::1", "me@fe80::1", 0);
    static const char *const NONE[] = {"",      "-oProxyCommand=x",
                                       "me@-x", "a b",
                                       "a:0",   "a:65536",
                                       "a:x",   "a:",
                                       ":22",   "@a",
                                       "a@",    "a;b",
                                       "$(x)",  "`x`",
                                       "a'b",   "[::1",
                                       "[]",    "[a]:x",
                                       "[a]b",  "a\nb",
                                       "a\033", "a:123456",
                                       "a:-1",  "a\"b",
                                       "a|b"};
    ShoalTarget t;
    for (size_t i = 0; i < sizeof NONE / sizeof NONE[0]; i++)
        assert_false(shoal_probe_host(NONE[i], strlen(NONE[i]), &t));
    char huge[400];
    memset(huge, 'h', sizeof huge);
    assert_false(shoal_probe_host(huge, sizeof huge, &t));
}

static void probe_output(void **state) {
    (void)state;
    ShoalProbe p = {0};
    shoal_probe_read("dir=/data/local/tmp/shoal\r\nabi=arm64-v8a,armeabi-v7a\r\nmodel=A=B C\r\n"
                     "pid=4711\r\nstate=running\r\nunknown=1\r\n\r\nend=ok\r\n",
                     &p);
    assert_true(p.complete);
    assert_string_equal(p.dir, "/data/local/tmp/shoal");
    assert_string_equal(p.model, "A=B C");
    assert_string_equal(p.state, "running");
    assert_int_equal(p.pid, 4711);
    shoal_probe_read("state=idle\npid=999999999999\npid=-3\npid=\nend=o", &p);
    assert_false(p.complete); /* cut short */
    assert_int_equal(p.pid, 4711);
    char huge[5000] = "model=";
    memset(huge + 6, '\x1b', sizeof huge - 7);
    shoal_probe_read(huge, &p);
    assert_int_equal(strlen(p.model), sizeof p.model - 1);
    shoal_probe_read("=\n==\nend\n=end=ok\nmodel", &p);
    assert_false(p.complete);
}

static void outputs(void **state) {
    (void)state;
    char good[] = "output=begin\r\n{\"a\": 1}\nend=ok\nmore\n\nend=ok\n";
    assert_string_equal(shoal_probe_output(good), "{\"a\": 1}\nend=ok\nmore");
    char empty[] = "output=begin\n\nend=ok\n";
    assert_string_equal(shoal_probe_output(empty), "");
    char cut[] = "output=begin\n{\"a\": 1}\n", none[] = "end=ok\n",
         inner[] = "xoutput=begin\nend=ok";
    assert_null(shoal_probe_output(cut));
    assert_null(shoal_probe_output(none));
    assert_null(shoal_probe_output(inner));
}

static const char *arch(const char *abi, const char *machine) {
    static ShoalProbe p;
    p = (ShoalProbe){0};
    snprintf(p.abi, sizeof p.abi, "%s", abi);
    snprintf(p.machine, sizeof p.machine, "%s", machine);
    return shoal_probe_arch(&p);
}

static void binaries_for_devices(void **state) {
    (void)state;
    assert_string_equal(arch("arm64-v8a,armeabi-v7a,armeabi", "aarch64"), "aarch64");
    assert_string_equal(arch("x86_64,arm64-v8a,x86", "x86_64"), "x86_64");
    assert_string_equal(arch("", "aarch64"), "aarch64");
    assert_null(arch("armeabi-v7a,armeabi", "aarch64")); /* its system is for 32 bits */
    assert_null(arch("", "armv7l"));
    assert_null(arch("", "aarch64_be"));
    assert_null(arch("", ""));
    assert_null(arch(",,", "x86_64"));
}

/* ---- the plan ---- */

/* Goes on until the end; the steps as letters. */
static void walk(ShoalPlan *plan, char *out) {
    static const char LETTERS[] = "pbitaE";
    for (int i = 0; i < 20; i++) {
        ShoalStep step = shoal_plan_next(plan);
        *out++ = LETTERS[step];
        *out = '\0';
        if (step == SHOAL_STEP_END)
            return;
        assert_in_range(shoal_plan_step(plan), 1, shoal_plan_steps(plan));
        shoal_plan_done(plan, step);
    }
    fail();
}

static void check_plan(ShoalPlan plan, const char *want) {
    char steps[32];
    walk(&plan, steps);
    assert_string_equal(steps, want);
}

static void plans(void **state) {
    (void)state;
    check_plan((ShoalPlan){.action = SHOAL_DEPLOY_START, .needs_token = true}, "pbitaE");
    check_plan((ShoalPlan){.action = SHOAL_DEPLOY_START, .needs_token = true, .same_binary = true},
               "ptaE");
    ShoalPlan runs = {.action = SHOAL_DEPLOY_START,
                      .needs_token = true,
                      .there = true,
                      .runs = true,
                      .same_binary = true,
                      .same_stamp = true};
    check_plan(runs, "pE");
    runs.same_stamp = false; /* other flags */
    check_plan(runs, "ptaE");
    runs.same_stamp = true;
    runs.same_binary = false;
    check_plan(runs, "pbitaE");
    runs.same_binary = true;
    runs.runs = false; /* it ended */
    check_plan(runs, "ptaE");
    check_plan((ShoalPlan){.action = SHOAL_DEPLOY_STATUS, .there = true, .runs = true}, "pE");
    check_plan((ShoalPlan){.action = SHOAL_DEPLOY_STOP}, "pE");
    check_plan((ShoalPlan){.action = SHOAL_DEPLOY_STOP, .there = true}, "paE");
    check_plan((ShoalPlan){.action = SHOAL_DEPLOY_LOGS}, "pE");
    check_plan((ShoalPlan){.action = SHOAL_DEPLOY_LOGS, .there = true}, "paE");
    check_plan((ShoalPlan){.action = SHOAL_DEPLOY_DOCTOR}, "pbiaE");
    check_plan((ShoalPlan){.action = SHOAL_DEPLOY_DOCTOR, .needs_token = true, .same_binary = true},
               "ptaE");
    check_plan((ShoalPlan){.action = SHOAL_DEPLOY_START, .failed = true}, "E");
}

static void broken_connections(void **state) {
    (void)state;
    ShoalPlan plan = {.action = SHOAL_DEPLOY_START, .needs_token = true};
    shoal_plan_done(&plan, SHOAL_STEP_PROBE);
    shoal_plan_done(&plan, SHOAL_STEP_PUSH);
    shoal_plan_lost(&plan);
    check_plan(plan, "pbitaE"); /* all over again */
    shoal_plan_lost(&plan);
    check_plan(plan, "E");
}

/* ---- programs ---- */

static void programs(void **state) {
    (void)state;
    ShoalRun runs[4];
    ShoalRun *const all[] = {&runs[0], &runs[1], &runs[2], &runs[3]};
    ShoalError error = {0};
    char *const cat[] = {"cat", NULL}, *const hang[] = {"sh", "-c", "sleep 1000", NULL};
    char *const orphan[] = {"sh", "-c", "echo said; echo wrong >&2; sleep 3 & exit 7", NULL};
    char *const flood[] = {"sh", "-c", "head -c 5000000 /dev/zero | tr '\\0' x", NULL};
    char *const missing[] = {"shoal-there-is-no-such-program", NULL};
    static char text[300001];
    memset(text, 'y', sizeof text - 1); /* more than a pipe holds */
    assert_false(shoal_run_start(&runs[0], cat, text, -1, 60000, &error));
    assert_false(shoal_run_start(&runs[1], hang, NULL, -1, 50, &error));
    assert_false(shoal_run_start(&runs[2], orphan, NULL, -1, 60000, &error));
    assert_false(shoal_run_start(&runs[3], flood, NULL, -1, 60000, &error));
    while (!runs[0].ended || !runs[1].ended || !runs[2].ended || !runs[3].ended)
        shoal_run_wait(all, 4, 100);
    assert_string_equal(runs[0].text.bytes, text);
    assert_true(runs[1].late);
    assert_int_equal(runs[1].code, 128 + SIGKILL);
    assert_string_equal(runs[2].text.bytes, "said\n"); /* though a child of it goes on */
    assert_string_equal(runs[2].errors.bytes, "wrong\n");
    assert_int_equal(runs[2].code, 7);
    assert_int_equal(runs[3].text.used, runs[3].text.limit);
    for (int i = 0; i < 4; i++)
        shoal_run_close(&runs[i]);
    assert_int_equal(shoal_run_start(&runs[0], missing, NULL, -1, 1000, &error),
                     SHOAL_ERR_UNSUPPORTED);
    assert_non_null(strstr(error.text, "there is no program"));
}

static void explanations(void **state) {
    (void)state;
    static const struct {
        const char *said, *want;
    } CASES[] = {
        {"Host key verification failed.\r\n", "ssh -p 8022 me@h"},
        {"me@h: Permission denied (publickey).\r\n", "ssh-copy-id -p 8022 me@h"},
        {"ssh: connect to host h port 22: Connection refused", "--ssh-port=8022"},
        {"cat: write error: No space left on device", "no space"},
        {"error: device unauthorized.\nThis", "allow USB debugging"},
        {"first\nlast\n\n", "last"},
        {"", "said nothing"},
    };
    ShoalTarget target = {.name = "me@h:8022", .host = "me@h", .port = 8022};
    char text[400], tiny[8], empty[] = "";
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        ShoalRun run = {.text.bytes = empty, .errors.bytes = (char *)CASES[i].said};
        shoal_transport_explain(&target, 22, &run, text, sizeof text);
        assert_non_null(strstr(text, CASES[i].want));
        shoal_transport_explain(&target, 22, &run, tiny, sizeof tiny);
        assert_in_range(strlen(tiny), 1, sizeof tiny - 1);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_word_stays_as_it_is),
        cmocka_unit_test(flags_are_quoted_in_scripts),
        cmocka_unit_test(scripts_are_short_and_parse),
        cmocka_unit_test(what_is_too_long_is_refused),
        cmocka_unit_test(adb_lines),
        cmocka_unit_test(hosts),
        cmocka_unit_test(probe_output),
        cmocka_unit_test(outputs),
        cmocka_unit_test(binaries_for_devices),
        cmocka_unit_test(plans),
        cmocka_unit_test(broken_connections),
        cmocka_unit_test(programs),
        cmocka_unit_test(explanations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
