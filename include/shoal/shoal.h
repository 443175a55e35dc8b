/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_SHOAL_H
#define SHOAL_SHOAL_H

#include <signal.h>
#include <stdint.h>

#include "shoal/status.h"

/* Shoal trains deep neural networks from Caffe's files: in one process, on a cluster of worker
 * processes on this machine, or on a cluster of machines.
 *
 *     ShoalTrainOptions options = {.solver = "lenet_solver.prototxt", .workers = 4};
 *     ShoalError error = {0};
 *     if (shoal_train(&options, &error))
 *         fprintf(stderr, "%s\n", error.text);
 *
 * Every call runs in the calling thread until it is done and tells its progress by events, from
 * that same thread. Paths are relative to the working folder, as in Caffe. Strings in options are
 * only read during the call. Options set to zero mean the default. `error` must be empty before a
 * call: `ShoalError error = {0};`, in C++ `{}`. */

#ifdef __cplusplus
extern "C" {
#endif

/* "0.1.0"; static storage. */
SHOAL_API const char *shoal_version(void);

/* ---- events ---- */

typedef enum ShoalEventKind {
    SHOAL_EVENT_NOTE,       /* text: something to know ("Loading weights from ...") */
    SHOAL_EVENT_WAITING,    /* a coordinator waits for workers; text: where */
    SHOAL_EVENT_START,      /* the run begins: iter, max_iter, batch, workers */
    SHOAL_EVENT_ITERATION,  /* an iteration is complete */
    SHOAL_EVENT_LOSS,       /* the forward pass after the last update */
    SHOAL_EVENT_TESTING,    /* a test begins */
    SHOAL_EVENT_TEST_BATCH, /* `shoal test`: one batch is done; iter is its number */
    SHOAL_EVENT_TEST,       /* a test is complete: outputs are means over all its batches */
    SHOAL_EVENT_SNAPSHOT,   /* text: a file that was written */
    SHOAL_EVENT_JOINED,     /* a worker has joined; text: who; n_workers: members from now on */
    SHOAL_EVENT_LOST,       /* a worker is lost; text: who and why */
    SHOAL_EVENT_RESTING,    /* a worker left to rest, and will come back; text: who and why;
                               n_workers */
    SHOAL_EVENT_PAUSED,     /* too few workers are left; text */
    SHOAL_EVENT_GENERATION, /* the members are others than before: generation, n_workers */
    SHOAL_EVENT_RECOVERED,  /* the first iteration (or test) after a loss is complete; recovery_s */
    SHOAL_EVENT_END         /* the run is over; text: how ("Optimization Done.") */
} ShoalEventKind;

/* One value of an output blob. */
typedef struct ShoalOutput {
    const char *name;
    float value;
    float loss_weight; /* 0: not a loss */
} ShoalOutput;

/* A worker during the last displayed span. */
typedef struct ShoalWorkerStatus {
    const char *name; /* "127.0.0.1 #4711" */
    int share;        /* samples of an iteration's batch */
    double images_per_s;
    double compute, communication, waiting; /* fractions of its time; they add up to 1.
                                               communication: only while nothing was computed */
    double temperature;                     /* degrees Celsius of its hottest part; 0: unknown */
    double clock;                           /* part of its full clock that it may use; 0: unknown */
    double battery_temperature;             /* degrees Celsius; 0: unknown */
    double duty;                            /* 0 .. 1: part of the time that it lets itself compute
                                               to stay cool; 1: all */
    const char *remark; /* why it does, or what its owner should see to ("the battery is charged
                           beyond 80 %: ..."); mostly "" */
    int battery;        /* percent; -1: unknown or none */
    int charging;       /* 0 or 1 */
} ShoalWorkerStatus;

/* A worker that has left to rest, and will come back. */
typedef struct ShoalRestingStatus {
    const char *name, *reason;
} ShoalRestingStatus;

/* The cluster during the last displayed span. */
typedef struct ShoalClusterStatus {
    const ShoalWorkerStatus *workers; /* by rank */
    int n_workers;
    const ShoalRestingStatus *resting;
    int n_resting;
    uint64_t generation;                 /* number of the membership, from 1 */
    double communication_ms, exposed_ms; /* an iteration, mean over workers: sums were under way;
                                            of that, the computation stood still */
    double samples_mb, reduced_mb;       /* an iteration: from the coordinator; between workers,
                                            mean of each one */
    double cached;                       /* part of the samples that workers had already */
} ShoalClusterStatus;

/* Pointers are valid only during the call of the handler. */
typedef struct ShoalEvent {
    ShoalEventKind kind;
    int displayed;       /* ITERATION: this one is due by the solver's `display` */
    int iter, max_iter;  /* updates done before (ITERATION: number of the one just done) */
    int batch;           /* samples of an iteration */
    int samples;         /* ITERATION, LOSS: of the batch, those that loss and outputs are means
                            over; fewer when a worker was lost before it could report, but after its
                            gradient had counted */
    float loss;          /* smoothed over average_loss iterations */
    float rate;          /* learning rate */
    double images_per_s; /* since the last displayed iteration; TEST: of this test */
    double seconds;      /* since START */
    double clipped_norm; /* norm of the gradient when it was clipped, else 0 */
    int test_net;        /* TESTING, TEST */
    const ShoalOutput *outputs;
    int n_outputs;
    const ShoalClusterStatus *cluster; /* ITERATION of a cluster, else NULL */
    int n_workers;                     /* START, JOINED, LOST, GENERATION */
    uint64_t generation;               /* GENERATION, RECOVERED */
    double recovery_s;                 /* RECOVERED: from the first loss until now */
    const char *command; /* WAITING: what to run on a phone, secret included; NULL: the
                            caller has made the secret himself */
    const char *text;
} ShoalEvent;

typedef void ShoalEventHandler(void *context, const ShoalEvent *event);

/* What a signal handler may ask of a running call, by storing it in *stop. */
#define SHOAL_STOP_NOW 1      /* finish the iteration, write a snapshot, end (Ctrl-C) */
#define SHOAL_STOP_SNAPSHOT 2 /* write a snapshot and go on; set back to 0 when seen */

/* ---- how to compute ---- */

typedef struct ShoalEngineOptions {
    int threads;      /* of each process; 0: what is usual for the command */
    const char *cpu;  /* level of the kernels ("c", "avx2", ...); NULL: the best */
    const char *plan; /* "auto" (also NULL): layers are fused where it pays; "fused": wherever it
                         is possible; "plain": never */
    const char *winograd;  /* "on" (also NULL) or "off": 3x3 convolutions by Winograd's transforms,
                              faster and with a little more rounding */
    const char *recompute; /* "on" (also NULL) or "off": keep less from forward to backward, and
                              make again there what is quickly made */
} ShoalEngineOptions;

/* Which layers a net has, besides those of its phase (include and exclude rules with min_level,
 * max_level, stage, not_stage). */
typedef struct ShoalNetChoice {
    int level;
    const char *stages; /* separated by commas; NULL: none */
} ShoalNetChoice;

/* ---- training ---- */

typedef struct ShoalTrainOptions {
    const char *solver;   /* solver.prototxt */
    const char *weights;  /* .caffemodel files to start from, separated by commas */
    const char *snapshot; /* .solverstate to go on from */
    int resume;      /* with snapshot: the samples go on where they were, as if the run had never
                        stopped;      else they start from the first record, as in Caffe. Of a cluster,
                        with      or without      snapshot: workers that hold a newer state of this job
                        go on      from that
                      */
    int workers;     /* 0: train in this process; N: a coordinator, which begins with N workers */
    int min_workers; /* pause when fewer are left; 0: 1 */
    int max_failures_per_hour; /* of one worker (name and address); more: it has to stay away for a
                                  while; 0: any number */
    const char *listen;        /* "ADDR:PORT": wait there for workers from other machines instead of
                                  starting them here */
    const char *announce; /* "on": answer those who look for a coordinator on the local network;
                             "off"; NULL: on with a listen beyond this machine */
    const char *token; /* secret that workers must know; NULL: made up, and given to own workers */
    const char *program;       /* the shoal binary, to start own workers with; NULL: this program */
    ShoalEngineOptions engine; /* threads 0: with own workers their part of the cores, else
                                  one for each of the fastest cores */
    ShoalNetChoice choice;     /* of the train net; with level 0 and no stages: what the solver's
                                  train_state says */
    int fast_decode; /* JPEGs that are made smaller may be decoded smaller: quicker, not the pixels
                        of Caffe */
    int hash_interval;        /* compare the replicas every so many iterations; 0: 100 */
    int heartbeat_timeout_ms; /* silence after which a worker counts as lost; 0: 1000, of own
                                 workers 10000 */
    int stall_timeout_ms; /* a worker that computes without progress for so long is lost; 0: 30000
                           */
    const char *balance;  /* "on": shares follow the workers' measured speeds; "off": equal shares,
                             so that runs can be repeated to the bit; NULL: on with listen */
    const char *collective; /* "ring" (also NULL), or "mpi": every process of an MPI job calls
                               shoal_train; workers and listen must be 0 then. A failure
                               ends the whole job (MPI_Abort, exit code 1); rank 0 alone tells
                               of events */
    const char *wire;       /* how gradients travel: "fp32" (also NULL), "fp16", "bf16" */
    int encrypt;            /* gradients and samples, too; control messages always are */
    const char *shuffle; /* "none" (also NULL): the records in Caffe's order; "global": all of them,
                            in another order each epoch; "shard": within as many parts as the batch
                            has samples, so that workers meet their own records again */
    volatile sig_atomic_t *stop; /* may be NULL */
    ShoalEventHandler *on_event; /* may be NULL */
    void *context;
} ShoalTrainOptions;

/* Trains until max_iter and writes the snapshots that the solver asks for.
 * SHOAL_ERR_STOPPED after SHOAL_STOP_NOW (with its snapshot written). */
SHOAL_API ShoalStatus shoal_train(const ShoalTrainOptions *options, ShoalError *error);

/* ---- working for a coordinator ---- */

/* What a worker does for its device. It computes less, or rests for a while and comes back; the
 * coordinator is told. */
typedef struct ShoalCareSettings {
    float max_temp; /* degrees Celsius of the processor; 0: a little below the kernel's own limit,
                       where that is told, else 80 on ARM; negative: no limit */
    float max_battery_temp; /* degrees Celsius; 0: 45; negative: no limit */
    int min_battery;        /* percent, while it is not charged; 0: 15; negative: no limit */
    int charge_limit;       /* charge the battery no further, percent, where the system lets us say
                               so, and tell where it does not; 0: leave it alone */
    int rest_used;          /* rest while the screen is on */
    int rest_unplugged;     /* rest while no charger is connected */
} ShoalCareSettings;

typedef struct ShoalWorkerOptions {
    const char *join;  /* "ADDR:PORT" of the coordinator; NULL: with discover, look for it */
    int discover;      /* look for a coordinator on the local network; what is found must know the
                          token, too */
    const char *token; /* the cluster's secret */
    const char *name;  /* for people, and to tell workers of one machine apart; NULL: host name */
    const char *cache_dir; /* folder for samples that were received, so that they are there when
                              this worker comes back; NULL: they are kept in memory */
    long long cache_bytes; /* most bytes of them; 0: 256 MiB, in memory at most an eighth of what is
                              free; negative: none are kept */
    ShoalEngineOptions engine;
    ShoalCareSettings care;
    int pace;            /* compute no more than so many images a second; 0: as fast as possible */
    int join_timeout_ms; /* to reach the coordinator; 0: 10000 */
    int rejoin_timeout_ms; /* to reach it again, once it was reached; 0: 600000; negative: does not
                              come back */
    volatile sig_atomic_t *stop;
    ShoalEventHandler *on_event;
    void *context;
} ShoalWorkerOptions;

/* Joins a coordinator and works until it ends the run. */
SHOAL_API ShoalStatus shoal_worker(const ShoalWorkerOptions *options, ShoalError *error);

/* ---- testing and timing ---- */

typedef struct ShoalTestOptions {
    const char *model;   /* net.prototxt, built in phase TEST */
    const char *weights; /* .caffemodel files, separated by commas */
    int iterations;      /* batches; 0: 50, as Caffe */
    ShoalNetChoice choice;
    ShoalEngineOptions engine;
    volatile sig_atomic_t *stop;
    ShoalEventHandler *on_event;
    void *context;
} ShoalTestOptions;

/* Runs a net over its test data: one TEST_BATCH event a batch, then one TEST. */
SHOAL_API ShoalStatus shoal_test(const ShoalTestOptions *options, ShoalError *error);

typedef struct ShoalTimeOptions {
    const char *model;
    int phase_test; /* in phase TEST, and no backward passes; else in phase TRAIN */
    ShoalNetChoice choice;
    int iterations;    /* 0: 50, as Caffe */
    int batch;         /* 0: what the model says */
    int dummy_data;    /* random images and labels in place of Data layers: no dataset is opened */
    const char *shape; /* of those images, "CxHxW"; NULL: crop_size of the model says it */
    ShoalEngineOptions engine; /* threads 0: one for each of the fastest cores */
    volatile sig_atomic_t *stop;
} ShoalTimeOptions;

/* A row of the table. GFLOP: 2 per multiply-add, of Convolution and InnerProduct. GB: what the
 * passes must read and write, each tensor once. What is fused into another layer is done, and
 * counted, there. */
typedef struct ShoalLayerTime {
    const char *name, *type;
    const char *fused_into;         /* name of that layer; NULL: by itself */
    double forward_ms, backward_ms; /* means */
    double forward_gflop, backward_gflop;
    double forward_gb, backward_gb;
} ShoalLayerTime;

typedef struct ShoalTimes {
    ShoalLayerTime *layers;
    int n_layers;
    int iterations, batch, threads;
    const char *level; /* of the kernels; static storage */
    char data[256];    /* with dummy_data: what was put in place of the data */
    double forward_ms, backward_ms, update_ms, iteration_ms; /* means; iteration: all three */
    double peak_gflops;              /* measured: multiply-adds on registers, on all threads */
    unsigned long long memory_bytes; /* of weights, their state and blobs */
    unsigned long long peak_resident_bytes; /* of this process so far */
} ShoalTimes;

/* Times forward and backward passes of every layer, and the update of the weights (SGD with
 * momentum and weight decay). Close *times with shoal_times_close. */
SHOAL_API ShoalStatus shoal_time(const ShoalTimeOptions *options, ShoalTimes *times,
                                 ShoalError *error);
SHOAL_API void shoal_times_close(ShoalTimes *times);

/* ---- nets to begin with ---- */

typedef struct ShoalInitOptions {
    const char *net;    /* one of shoal_init_name */
    const char *folder; /* made where it is missing */
    int force;          /* replace files that are there already */
    int batch;          /* of all workers together; the solver is made for it; 0: the net's own */
} ShoalInitOptions;

/* Writes train_val.prototxt and solver.prototxt of a well-known net into a folder. Paths in them
 * begin with `folder` as it is given. SHOAL_ERR_IO, and nothing written, when one of the files is
 * there already. SHOAL_ERR_ARGUMENT when the net is unknown or the batch is none. */
SHOAL_API ShoalStatus shoal_init(const ShoalInitOptions *options, ShoalError *error);

/* The n-th net ("resnet50") and a line about it; NULL past the end; static storage. */
SHOAL_API const char *shoal_init_name(int n);
SHOAL_API const char *shoal_init_about(int n);

#ifdef __cplusplus
}
#endif
#endif
