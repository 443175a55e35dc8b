/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_DOCTOR_DIAGNOSE_H
#define SHOAL_DOCTOR_DIAGNOSE_H

#include "shoal/doctor.h"

/* What the facts of a report mean: fills findings (worst first) and verdict from the rest. Pure.
 * What is unknown makes no finding. */
void shoal_diagnose(ShoalDoctorReport *report);

#endif
