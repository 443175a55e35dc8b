#include "train/coordinator.h"
ShoalStatus shoal_train_coordinator(ShoalJob *job, const ShoalTrainOptions *options, ShoalError *err) { (void)job;(void)options;(void)err; return -1; }
ShoalStatus shoal_worker(const ShoalWorkerOptions *options, ShoalError *error) { (void)options;(void)error; return -1; }
