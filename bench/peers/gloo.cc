// SPDX-License-Identifier: Apache-2.0
// Gloo's allreduce, to compare with: one process a rank, over TCP, on full buckets of float32.
//
//   gloo --rank R --size N --host ADDRESS --store FOLDER --bytes B --buckets K --repeat R
//        [--threads T]
//
// The ranks find each other through files in FOLDER. Of several buckets, T (2, as in PyTorch's
// gloo backend) are in flight. Prints a line of JSON per repetition: {"seconds", "cpu_seconds"},
// from a barrier to the end of all buckets.
#include <gloo/allreduce.h>
#include <gloo/barrier.h>
#include <gloo/math.h>
#include <gloo/rendezvous/context.h>
#include <gloo/rendezvous/file_store.h>
#include <gloo/transport/tcp/device.h>

#include <sys/resource.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

namespace {

struct Options {
    int rank = -1, size = 0, buckets = 1, repeat = 5, threads = 2;
    size_t bytes = 100000000;
    std::string host, store;
};

Options parse(int argc, char **argv) {
    Options options;
    for (int i = 1; i + 1 < argc; i += 2) {
        std::string name = argv[i], value = argv[i + 1];
        if (name == "--rank")
            options.rank = std::stoi(value);
        else if (name == "--size")
            options.size = std::stoi(value);
        else if (name == "--host")
            options.host = value;
        else if (name == "--store")
            options.store = value;
        else if (name == "--bytes")
            options.bytes = static_cast<size_t>(std::stod(value));
        else if (name == "--buckets")
            options.buckets = std::stoi(value);
        else if (name == "--repeat")
            options.repeat = std::stoi(value);
        else if (name == "--threads")
            options.threads = std::stoi(value);
        else
            options.size = 0;
    }
    if (options.rank < 0 || options.rank >= options.size || options.buckets < 1) {
        fprintf(stderr, "see the head of gloo.cc for the flags\n");
        exit(1);
    }
    return options;
}

double cpu_seconds() {
    rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           1e-6 * static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

void add(void *sum, const void *a, const void *b, size_t count) {
    gloo::sum<float>(static_cast<float *>(sum), static_cast<const float *>(a),
                     static_cast<const float *>(b), count);
}

void reduce(const std::shared_ptr<gloo::Context> &context, float *values, size_t count,
            int bucket) {
    gloo::AllreduceOptions options(context);
    options.setOutput(values, count);
    options.setReduceFunction(add);
    options.setAlgorithm(gloo::AllreduceOptions::Algorithm::RING);
    options.setTag(static_cast<uint32_t>(bucket + 1));
    gloo::allreduce(options);
}

void reduce_all(const std::shared_ptr<gloo::Context> &context, const Options &options,
                std::vector<float> &values) {
    // Bucket k is thread k % threads's, so the ranks run the same ones at a time.
    int threads = options.threads < options.buckets ? options.threads : options.buckets;
    auto work = [&](int thread) {
        for (int k = thread; k < options.buckets; k += threads) {
            size_t first =
                values.size() * static_cast<size_t>(k) / static_cast<size_t>(options.buckets);
            size_t end =
                values.size() * static_cast<size_t>(k + 1) / static_cast<size_t>(options.buckets);
            reduce(context, values.data() + first, end - first, k);
        }
    };
    std::vector<std::thread> others;
    for (int thread = 1; thread < threads; thread++)
        others.emplace_back(work, thread);
    work(0);
    for (auto &other : others)
        other.join();
}

} // namespace

int main(int argc, char **argv) {
    Options options = parse(argc, argv);
    gloo::transport::tcp::attr attr(options.host.c_str());
    auto device = gloo::transport::tcp::CreateDevice(attr);
    gloo::rendezvous::FileStore store(options.store);
    auto context = std::make_shared<gloo::rendezvous::Context>(options.rank, options.size);
    context->setTimeout(std::chrono::seconds(120));
    context->connectFullMesh(store, device);

    std::vector<float> values(options.bytes / sizeof(float));
    float sum = static_cast<float>(options.size) * static_cast<float>(options.size + 1) / 2;
    for (int i = 0; i < options.repeat; i++) {
        std::fill(values.begin(), values.end(), static_cast<float>(options.rank + 1));
        gloo::BarrierOptions barrier(context);
        gloo::barrier(barrier);
        double cpu = cpu_seconds();
        auto start = std::chrono::steady_clock::now();
        reduce_all(context, options, values);
        std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
        cpu = cpu_seconds() - cpu;
        for (float value : values)
            if (value != sum) {
                fprintf(stderr, "a wrong sum: %g, not %g\n", static_cast<double>(value),
                        static_cast<double>(sum));
                return 1;
            }
        printf("{\"seconds\":%.6f,\"cpu_seconds\":%.6f}\n", took.count(), cpu);
        fflush(stdout);
    }
    gloo::BarrierOptions barrier(context);
    gloo::barrier(barrier);
    return 0;
}
