/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_CLI_DOCTOR_H
#define SHOAL_CLI_DOCTOR_H

#include <stdbool.h>

#include "shoal/doctor.h"

/* The two ways to show a report of `shoal doctor`. */

/* One object on one line. */
void shoal_doctor_print_json(const ShoalDoctorReport *report);
/* Facts, then findings with their fixes. */
void shoal_doctor_print_table(const ShoalDoctorReport *report, bool colour);

/* "ethernet", "wifi", "mobile", "other". */
const char *shoal_doctor_kind_name(ShoalDoctorLinkKind kind);

#endif
