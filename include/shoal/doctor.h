/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_DOCTOR_H
#define SHOAL_DOCTOR_H

#include <signal.h>

#include "shoal/status.h"

/* Examines a device that is to be a worker: what it can compute, whether it stays cool, how its
 * battery is, what its links really carry, and which settings of Android would end a worker.
 *
 *     ShoalDoctorOptions options = {.seconds = 10, .join = "192.168.1.10:4710", .token = secret};
 *     ShoalDoctorReport *report = calloc(1, sizeof *report);
 *     ShoalError error = {0};
 *     if (!shoal_doctor(&options, report, &error))
 *         for (int i = 0; i < report->n_findings; i++)
 *             printf("%s: %s\n", report->findings[i].what, report->findings[i].text);
 *
 * What the system does not tell is unknown, never an error. All texts are UTF-8 without control
 * characters. */

#ifdef __cplusplus
extern "C" {
#endif

enum {
    SHOAL_DOCTOR_CLUSTERS = 8,
    SHOAL_DOCTOR_ZONES = 24,
    SHOAL_DOCTOR_SECONDS = 600, /* longest load */
    SHOAL_DOCTOR_LINKS = 12,
    SHOAL_DOCTOR_PROBES = 2,
    SHOAL_DOCTOR_FINDINGS = 64
};

typedef enum ShoalVerdict {
    SHOAL_VERDICT_OK,
    SHOAL_VERDICT_WARNING, /* it works, but less well, or not for long */
    SHOAL_VERDICT_BAD      /* it will not work, or do harm */
} ShoalVerdict;

/* "ok", "warning", "bad"; static storage. */
SHOAL_API const char *shoal_verdict_name(ShoalVerdict verdict);

typedef struct ShoalFinding {
    const char *what; /* "heat", "battery", "link"...; static storage */
    ShoalVerdict verdict;
    char text[320];
    char fix[320]; /* what to do, a command where there is one; "": nothing */
} ShoalFinding;

/* Cores of one kind; fastest first. */
typedef struct ShoalDoctorCluster {
    int cores;       /* that are there */
    int usable;      /* that this process may run on */
    char list[64];   /* "4-7" */
    int mhz;         /* highest clock; 0: unknown */
    int capacity;    /* the system's own measure, 1024 for the fastest; 0: unknown */
    double gflops;   /* all of them together; 0: not measured */
    double one_core; /* one of them */
} ShoalDoctorCluster;

typedef struct ShoalDoctorCores {
    char model[128], level[16]; /* "" : unknown; of the kernels: "neon" */
    ShoalDoctorCluster clusters[SHOAL_DOCTOR_CLUSTERS];
    int n_clusters;
    int present, online, usable; /* cores; 0: unknown */
    double gflops;               /* of all usable cores together; 0: not measured */
} ShoalDoctorCores;

typedef struct ShoalDoctorMemory {
    unsigned long long total, available; /* bytes; 0: unknown */
    double read_gbs, copy_gbs; /* GB/s of all cores, beyond the caches; copy counts bytes read and
                                  bytes written; 0: not measured */
} ShoalDoctorMemory;

typedef struct ShoalDoctorZone {
    char type[32];
    double celsius;
    double limit; /* lowest trip point at which the clock is lowered; 0: unknown */
} ShoalDoctorZone;

/* A second under load. Temperatures and clock as in the report's heat: 0 is unknown. */
typedef struct ShoalDoctorSecond {
    double gflops, temperature, battery_temperature, clock;
} ShoalDoctorSecond;

typedef struct ShoalDoctorHeat {
    ShoalDoctorZone zones[SHOAL_DOCTOR_ZONES];
    int n_zones;
    double temperature, battery_temperature; /* before the load, degrees Celsius */
    double ceiling;                          /* at which the kernel begins to lower the clock */
    double clock; /* before the load: part of the full clock that may be used, 0 .. 1 */
    ShoalDoctorSecond seconds[SHOAL_DOCTOR_SECONDS];
    int n_seconds;
} ShoalDoctorHeat;

typedef struct ShoalDoctorBattery {
    int present;                                 /* 1, 0; -1: unknown */
    int level;                                   /* percent; -1: unknown */
    char status[24], health[32], technology[24]; /* "charging", "good", "li-ion"; "": unknown */
    int current_known, current_ma;               /* > 0: it is being charged */
    int millivolts;                              /* 0: unknown */
    int cycles;                                  /* -1: unknown */
    int capacity_left;         /* percent of what it held when it was new; 0: unknown */
    int plugged;               /* 1, 0; -1: unknown */
    int screen_on;             /* the same */
    char limit_file[256];      /* in which a charge limit can be set; "": none is known */
    int limit_writable, limit; /* percent; -1: unknown */
} ShoalDoctorBattery;

typedef enum ShoalDoctorLinkKind {
    SHOAL_DOCTOR_LINK_OTHER,
    SHOAL_DOCTOR_LINK_ETHERNET,
    SHOAL_DOCTOR_LINK_WIFI,
    SHOAL_DOCTOR_LINK_MOBILE
} ShoalDoctorLinkKind;

typedef struct ShoalDoctorLink {
    char name[32], address[64]; /* numeric; "": it has none */
    ShoalDoctorLinkKind kind;
    int up;          /* 1, 0; -1: unknown */
    int mbit;        /* as the two ends have agreed; 0: unknown */
    int full_duplex; /* 1, 0; -1: unknown */
    char driver[32]; /* "": unknown */
    int usb_mbit;    /* of the bus that the adapter hangs on: 12, 480, 5000...; 0: none, unknown */
    int signal_dbm;  /* of Wi-Fi; 0: unknown */
    int used;        /* 1: the way to the coordinator */
} ShoalDoctorLink;

/* What a link really carried. */
typedef struct ShoalDoctorProbe {
    const char *to;                    /* "coordinator" or "neighbour"; static storage */
    char address[64];                  /* of the other end; "": nobody to measure to */
    char local[64];                    /* the own address, without port */
    int reached;                       /* 1; 0: `error` says why not */
    char error[200];                   /* "": none */
    double up_mbit, down_mbit;         /* to there, from there */
    double latency_us, latency_p99_us; /* there and back: median, and what 1 % exceed */
    double up_gap_ms, down_gap_ms;     /* longest time in which nothing came */
    double up_loss, down_loss;         /* part of the segments that was sent twice; -1: unknown */
} ShoalDoctorProbe;

/* Settings: -1 is unknown. */
typedef struct ShoalDoctorAndroid {
    int is_android;
    char release[24], model[64];
    int sdk;
    int phantom_monitor; /* 1: Android ends children of apps that are too many or too busy */
    int max_phantoms;    /* how many are too many */
    int freezer;         /* 1: apps in the background are frozen */
    int doze;            /* 1: no network for apps while the phone lies still on battery */
    int battery_saver;
    int stay_awake;          /* bits: while plugged to mains 1, USB 2, wireless 4 */
    int wifi_sleep;          /* 0: when the screen goes off; 1: not while plugged; 2: never */
    int wifi_mbit, wifi_mhz; /* 0: unknown */
    int wifi_dbm;            /* 0: unknown */
    char usb[32];            /* what its USB port is for a computer: "mtp,adb"; "": unknown */
} ShoalDoctorAndroid;

typedef struct ShoalDoctorReport {
    char host[64], system[128]; /* "Linux 6.1.0 aarch64" */
    ShoalDoctorCores cores;
    ShoalDoctorMemory memory;
    ShoalDoctorHeat heat;
    ShoalDoctorBattery battery;
    ShoalDoctorLink links[SHOAL_DOCTOR_LINKS];
    int n_links;
    ShoalDoctorProbe probes[SHOAL_DOCTOR_PROBES]; /* to the coordinator, to the next device */
    int n_probes;
    ShoalDoctorAndroid android;
    ShoalFinding findings[SHOAL_DOCTOR_FINDINGS]; /* worst first */
    int n_findings;
    ShoalVerdict verdict; /* of the worst */
} ShoalDoctorReport;

typedef enum ShoalDoctorEventKind {
    SHOAL_DOCTOR_STEP,    /* text: what is done now */
    SHOAL_DOCTOR_LOADED,  /* another second under load is over: the last of heat.seconds */
    SHOAL_DOCTOR_SERVING, /* shoal_doctor_serve: text: where it listens; token: its secret when it
                             was made up, else NULL */
    SHOAL_DOCTOR_GUEST    /* shoal_doctor_serve: text: who measured, and what */
} ShoalDoctorEventKind;

/* Pointers are valid only during the call of the handler. */
typedef struct ShoalDoctorEvent {
    ShoalDoctorEventKind kind;
    const char *text, *token;
    const ShoalDoctorReport *report; /* as far as it is known */
} ShoalDoctorEvent;

typedef void ShoalDoctorHandler(void *context, const ShoalDoctorEvent *event);

typedef struct ShoalDoctorOptions {
    const char *join;   /* "ADDR:PORT" of a coordinator or of shoal_doctor_serve: measure the link
                           there; NULL: measure no link */
    const char *listen; /* shoal_doctor_serve: where */
    const char *token;  /* the cluster's secret; needed with join */
    const char *cpu;    /* level of the kernels; NULL: best */
    int seconds;        /* under load; 0: none. At most SHOAL_DOCTOR_SECONDS */
    ShoalDoctorHandler
        *on_event; /* NULL: none; called by the thread that called us, GUEST by others */
    void *context;
    volatile sig_atomic_t *stop; /* not 0: ends with SHOAL_ERR_STOPPED; NULL: never */
} ShoalDoctorOptions;

/* Examines this device; *report is filled as far as it was measured, also on an error.
 * SHOAL_ERR_ARGUMENT: options; SHOAL_ERR_AUTH: the coordinator has another token; SHOAL_ERR_MEMORY;
 * SHOAL_ERR_STOPPED. A coordinator that cannot be reached is a finding, not an error. */
SHOAL_API ShoalStatus shoal_doctor(const ShoalDoctorOptions *options, ShoalDoctorReport *report,
                                   ShoalError *error);

/* Lets others measure their links to this machine, until it is stopped (SHOAL_OK). */
SHOAL_API ShoalStatus shoal_doctor_serve(const ShoalDoctorOptions *options, ShoalError *error);

#ifdef __cplusplus
}
#endif

#endif
