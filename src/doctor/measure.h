/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_DOCTOR_MEASURE_H
#define SHOAL_DOCTOR_MEASURE_H

#include <stdbool.h>

#include "cpu/cpu.h"
#include "shoal/doctor.h"

/* What a device can do, by doing it. All of it runs on the cores that this process may use, and in
 * the calling thread; the affinity is afterwards as it was. */

/* Which cores there are below root, without speeds. */
void shoal_measure_describe_cores(const char *root, ShoalDoctorCores *cores);

/* Their GF/s: each cluster, one core of it, and all together; some tenths of a second. Only what
 * can be computed on: below a root that shows another machine, what fits. */
void shoal_measure_cores(ShoalCpuLevel level, ShoalDoctorCores *cores);

/* Reading and copying beyond the caches, as fast as all cores together can; less where little
 * memory is free, and not at all where that is nothing. */
void shoal_measure_memory(ShoalDoctorMemory *memory);

/* Called after every second of load; false ends it. */
typedef bool ShoalMeasureSecond(void *context);

/* All cores at full load, with vitals from below root each second. SHOAL_ERR_MEMORY. */
ShoalStatus shoal_measure_heat(const char *root, ShoalCpuLevel level, int seconds,
                               ShoalDoctorHeat *heat, ShoalMeasureSecond *second, void *context,
                               ShoalError *err);

#endif
