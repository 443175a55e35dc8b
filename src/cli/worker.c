/* SPDX-License-Identifier: Apache-2.0 */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "cli/cli.h"

static void on_event(void *context, const ShoalEvent *event) {
    *(bool *)context = true; /* the first event is that it has joined */
    if (event->text) {
        printf("%s\n", event->text);
        fflush(stdout);
    }
}

/* Fills what flags do not say directly. cache_bytes, rejoin_s: -1 when they were not given. */
static ShoalStatus complete(ShoalWorkerOptions *options, long long cache_bytes, int rejoin_s,
                            ShoalError *error) {
    if (!options->token)
        options->token = getenv("SHOAL_TOKEN");
    if (!options->join && !options->discover)
        return shoal_error_set(error, SHOAL_ERR_ARGUMENT,
                               "--join=ADDR:PORT is missing (or --discover, to look for a "
                               "coordinator on this network)");
    if (!options->token)
        return shoal_error_set(error, SHOAL_ERR_ARGUMENT,
                               "the cluster's secret is missing: give --token or set SHOAL_TOKEN "
                               "to what the coordinator printed");
    if (rejoin_s > INT_MAX / 1000)
        return shoal_error_set(error, SHOAL_ERR_ARGUMENT,
                               "--rejoin-timeout=%d: at most %d seconds work", rejoin_s,
                               INT_MAX / 1000);
    /* In the options, 0 stands for what is usual, and a negative number for none. */
    if (cache_bytes >= 0)
        options->cache_bytes = cache_bytes > 0 ? cache_bytes : -1;
    if (rejoin_s >= 0)
        options->rejoin_timeout_ms = rejoin_s > 0 ? rejoin_s * 1000 : -1;
    return SHOAL_OK;
}

/* --rest-when=used,unplugged */
static ShoalStatus read_rest_when(const char *words, ShoalCareSettings *care, ShoalError *error) {
    for (const char *word = words; word && *word;) {
        size_t length = strcspn(word, ",");
        if (length == 4 && !strncmp(word, "used", 4))
            care->rest_used = 1;
        else if (length == 9 && !strncmp(word, "unplugged", 9))
            care->rest_unplugged = 1;
        else
            return shoal_error_set(error, SHOAL_ERR_ARGUMENT,
                                   "--rest-when=%s: there are used and unplugged", words);
        word += length + (word[length] == ',');
    }
    return SHOAL_OK;
}

/* In the options 0 stands for what is usual, a negative number for no limit; on the command line a
 * limit that was not given is -1, and 0 is none. */
static void read_limits(int max_temp, int max_battery_temp, int min_battery,
                        ShoalCareSettings *care) {
    care->max_temp = max_temp < 0 ? 0 : max_temp > 0 ? (float)max_temp : -1;
    care->max_battery_temp = max_battery_temp < 0   ? 0
                             : max_battery_temp > 0 ? (float)max_battery_temp
                                                    : -1;
    care->min_battery = min_battery < 0 ? 0 : min_battery > 0 ? min_battery : -1;
}

static int run(int argc, char **argv) {
    bool joined = false, discover = false;
    int max_temp = -1, max_battery_temp = -1, min_battery = -1;
    const char *rest_when = NULL;
    long long cache_bytes = -1;
    int rejoin_s = -1;
    ShoalWorkerOptions options = {
        .stop = shoal_cli_catch_signals(), .on_event = on_event, .context = &joined};
    const ShoalFlag flags[] = {
        {"join", SHOAL_FLAG_TEXT, &options.join, "ADDR:PORT", "the coordinator"},
        {"discover", SHOAL_FLAG_SWITCH, &discover, NULL,
         "look for the coordinator on the local network\ninstead; it must know the secret, too"},
        SHOAL_FLAG_TOKEN(&options.token, ""),
        {"name", SHOAL_FLAG_TEXT, &options.name, "TEXT",
         "what people call this worker; several on one machine\nneed different ones (default: the "
         "host's name)"},
        {"cache-dir", SHOAL_FLAG_TEXT, &options.cache_dir, "DIR",
         "keep the samples that were received there, so that\nthey need not be sent again when "
         "this worker comes\nback (default: keep them in memory)"},
        {"cache-size", SHOAL_FLAG_SIZE, &cache_bytes, "SIZE",
         "keep no more of them: bytes, or with K, M, G; 0:\nkeep none (default 256M, in memory at "
         "most an eighth\nof what is free)"},
        {"max-temp", SHOAL_FLAG_COUNT, &max_temp, "C",
         "keep the processor below so many degrees Celsius by\ncomputing less; 0: no limit "
         "(default: a little below\nwhere the system lowers its clock; where that is\nnot told, 80 "
         "on ARM)"},
        {"max-battery-temp", SHOAL_FLAG_COUNT, &max_battery_temp, "C",
         "the same for the battery (default 45)"},
        {"min-battery", SHOAL_FLAG_COUNT, &min_battery, "PERCENT",
         "rest while the battery has less and is not charged;\n0: never (default 15)"},
        {"charge-limit", SHOAL_FLAG_COUNT, &options.care.charge_limit, "PERCENT",
         "do not let the battery be charged further, where the\nsystem lets us say so"},
        {"rest-when", SHOAL_FLAG_TEXT, &rest_when, "used,unplugged",
         "rest while the screen is on, or no charger is\nconnected, or both"},
        {"pace", SHOAL_FLAG_COUNT, &options.pace, "N",
         "compute no more than N images a second, so that the\ndevice stays cool (default: as "
         "fast as possible)"},
        {"rejoin-timeout", SHOAL_FLAG_COUNT, &rejoin_s, "SECONDS",
         "how long to try to come back when the coordinator is\nlost; 0: end at once (default "
         "600)"},
        {"threads", SHOAL_FLAG_COUNT, &options.engine.threads, "N",
         "threads (default: one for each of the fastest cores)"},
        SHOAL_FLAGS_ENGINE(options.engine),
    };
    const ShoalUsage usage = {
        .command = "worker",
        .purpose = "Joins a coordinator (`shoal train --listen=...`) and works until the training "
                   "ends.\nA worker needs no files: net, solver and samples come from the "
                   "coordinator.",
        .flags = flags,
        .n_flags = sizeof flags / sizeof flags[0],
        .notes = "Example:\n  SHOAL_TOKEN=... shoal worker --join=192.168.1.10:4710\n"};
    int code = shoal_flags_parse(&usage, argc, argv, NULL);
    if (code >= 0)
        return code;
    ShoalError error = {0};
    options.discover = discover;
    read_limits(max_temp, max_battery_temp, min_battery, &options.care);
    if (!read_rest_when(rest_when, &options.care, &error) &&
        !complete(&options, cache_bytes, rejoin_s, &error))
        shoal_worker(&options, &error);
    /* The coordinator that started this worker knows of the failure, and tells it once. */
    if (error.status && joined && getenv("SHOAL_OWN_WORKER"))
        return SHOAL_EXIT_FAILURE;
    return error.status ? shoal_cli_fail("worker", &error) : SHOAL_EXIT_OK;
}

const ShoalCommand shoal_command_worker = {"worker", "join a coordinator and work for it", run};
