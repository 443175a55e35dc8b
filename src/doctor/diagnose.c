/* SPDX-License-Identifier: Apache-2.0 */
#include "doctor/diagnose.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

const char *shoal_verdict_name(ShoalVerdict verdict) {
    static const char *const NAMES[] = {"ok", "warning", "bad"};
    return verdict >= SHOAL_VERDICT_OK && verdict <= SHOAL_VERDICT_BAD ? NAMES[verdict] : "?";
}

/* The newest finding, whose text is made like printf's. */
__attribute__((format(printf, 5, 6))) static void find(ShoalDoctorReport *report, const char *what,
                                                       ShoalVerdict verdict, const char *fix,
                                                       const char *format, ...) {
    if (report->n_findings == SHOAL_DOCTOR_FINDINGS)
        return;
    ShoalFinding *finding = &report->findings[report->n_findings++];
    *finding = (ShoalFinding){.what = what, .verdict = verdict};
    snprintf(finding->fix, sizeof finding->fix, "%s", fix);
    va_list list;
    va_start(list, format);
    vsnprintf(finding->text, sizeof finding->text, format, list);
    va_end(list);
}

static ShoalVerdict above(double value, double warning, double bad) {
    return value >= bad       ? SHOAL_VERDICT_BAD
           : value >= warning ? SHOAL_VERDICT_WARNING
                              : SHOAL_VERDICT_OK;
}

/* ---- cores and memory ---- */

static void diagnose_cores(ShoalDoctorReport *report) {
    const ShoalDoctorCores *cores = &report->cores;
    if (cores->present > 0 && cores->usable < cores->present && cores->online == cores->present)
        find(report, "cores", SHOAL_VERDICT_WARNING,
             report->android.is_android
                 ? "start it by `shoal deploy --adb`, or keep Termux in the foreground with "
                   "`termux-wake-lock`"
                 : "start it without taskset or a cpuset",
             "only %d of %d cores may be used: the system keeps this process from the others",
             cores->usable, cores->present);
    if (cores->online > 0 && cores->online < cores->present)
        find(report, "cores", SHOAL_VERDICT_WARNING,
             "switch the battery saver off, let it cool down, and charge it",
             "%d of %d cores are switched off", cores->present - cores->online, cores->present);
    if (cores->gflops > 0)
        find(report, "cores", SHOAL_VERDICT_OK, "", "%.1f GF/s on %d cores", cores->gflops,
             cores->usable);
}

static void diagnose_memory(ShoalDoctorReport *report) {
    const ShoalDoctorMemory *memory = &report->memory;
    double mb = (double)memory->available / 1048576;
    if (!memory->available)
        return;
    if (mb < 800)
        find(report, "memory", mb < 300 ? SHOAL_VERDICT_BAD : SHOAL_VERDICT_WARNING,
             report->android.is_android ? "adb shell am kill-all" : "end other programs",
             "%.0f MB of %.0f MB are free: a worker takes smaller shares, or has no room at all",
             mb, (double)memory->total / 1048576);
    else
        find(report, "memory", SHOAL_VERDICT_OK, "", "%.0f MB of %.0f MB are free", mb,
             (double)memory->total / 1048576);
}

/* ---- heat ---- */

/* Mean speed of some seconds. */
static double mean(const ShoalDoctorSecond *seconds, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++)
        sum += seconds[i].gflops;
    return n > 0 ? sum / n : 0;
}

typedef struct Course {
    double drop;    /* of the speed from the first fifth of the load to the last; 0 .. 1 */
    double clock;   /* lowest; 1: never limited, or unknown */
    double hottest; /* 0: unknown */
} Course;

static Course course_of(const ShoalDoctorHeat *heat) {
    Course course = {.clock = 1, .hottest = heat->temperature};
    int n = heat->n_seconds, part = n >= 10 ? n / 5 : 1;
    if (n >= 3) {
        double begin = mean(heat->seconds, part), end = mean(heat->seconds + n - part, part);
        course.drop = begin > 0 && end < begin ? 1 - end / begin : 0;
    }
    for (int i = 0; i < n; i++) {
        const ShoalDoctorSecond *second = &heat->seconds[i];
        if (second->clock > 0 && second->clock < course.clock)
            course.clock = second->clock;
        if (second->temperature > course.hottest)
            course.hottest = second->temperature;
    }
    return course;
}

/* The clock as the kernel tells it; a fall in speed alone may also come from other work. */
static void diagnose_throttling(ShoalDoctorReport *report, const Course *course) {
    static const char FIX[] =
        "lay it flat on metal or in front of a fan, without its case; a worker "
        "keeps below the limit by itself (shoal worker --max-temp)";
    const ShoalDoctorHeat *heat = &report->heat;
    double less = 1 - course->clock;
    char heated[96] = "";
    if (course->hottest > 0)
        snprintf(heated, sizeof heated, " (%.0f to %.0f C)", heat->temperature, course->hottest);
    bool hot = heat->ceiling > 0 && course->hottest >= heat->ceiling - 3;
    if (less > 0.03 || (hot && course->drop > 0.05)) {
        double worst = less > course->drop ? less : course->drop;
        find(report, "heat", above(worst, 0.03, 0.3), FIX,
             "throttles by %.0f %% within %d s%s: speed -%.0f %%, clock -%.0f %%", 100 * worst,
             heat->n_seconds, heated, 100 * course->drop, 100 * less);
    } else if (course->drop > 0.2) {
        find(report, "heat", SHOAL_VERDICT_WARNING,
             "end other programs and look again; if it stays, it is heat: see the fan",
             "the speed fell by %.0f %% within %d s%s, though the clock was not limited: other "
             "work, or heat that the system does not tell of",
             100 * course->drop, heat->n_seconds, heated);
    } else if (heat->n_seconds > 0) {
        find(report, "heat", SHOAL_VERDICT_OK, "", "no throttling within %d s%s", heat->n_seconds,
             heated);
    }
}

static void diagnose_heat(ShoalDoctorReport *report) {
    const ShoalDoctorHeat *heat = &report->heat;
    Course course = course_of(heat);
    diagnose_throttling(report, &course);
    if (heat->clock > 0 && heat->clock < 0.97)
        find(report, "heat", SHOAL_VERDICT_WARNING,
             "let it cool down, switch the battery saver off, charge it",
             "the clock was limited to %.0f %% before any load", 100 * heat->clock);
    if (heat->temperature >= 65)
        find(report, "heat", above(heat->temperature, 65, 85),
             "end other programs; let it cool down and look again", "%.0f C before any load",
             heat->temperature);
}

/* ---- battery ---- */

/* Lithium cells age fast when they are full and warm, and swell; makers allow to use them up to 45
 * degrees when charging, 60 when not (Battery University, BU-410 and BU-808). */
static void diagnose_battery_heat(ShoalDoctorReport *report) {
    double celsius = report->heat.battery_temperature;
    for (int i = 0; i < report->heat.n_seconds; i++)
        if (report->heat.seconds[i].battery_temperature > celsius)
            celsius = report->heat.seconds[i].battery_temperature;
    if (celsius >= 40)
        find(report, "battery", above(celsius, 40, 45),
             "cool it, take its case off, and charge it to no more than 80 %",
             "the battery has %.0f C; above 45 C it ages fast and may swell", celsius);
}

static void diagnose_health(ShoalDoctorReport *report) {
    static const char *const HARMLESS[] = {"good", "cold", "cool", "warm", "unknown", ""};
    const ShoalDoctorBattery *battery = &report->battery;
    bool harmless = false;
    for (size_t i = 0; i < sizeof HARMLESS / sizeof HARMLESS[0]; i++)
        harmless = harmless || !strcmp(battery->health, HARMLESS[i]);
    if (!harmless)
        find(report, "battery", SHOAL_VERDICT_BAD,
             "do not run it unattended; have the battery replaced, or taken out",
             "the system says of the battery's health: %s", battery->health);
    if (battery->capacity_left > 0 && battery->capacity_left < 80)
        find(report, "battery",
             battery->capacity_left < 60 ? SHOAL_VERDICT_BAD : SHOAL_VERDICT_WARNING,
             "look whether it has swollen; have it replaced",
             "it holds %d %% of what it held when it was new", battery->capacity_left);
}

static void diagnose_charging(ShoalDoctorReport *report) {
    const ShoalDoctorBattery *battery = &report->battery;
    char cap[320];
    if (battery->limit_writable)
        snprintf(cap, sizeof cap, "shoal worker --charge-limit=80");
    else
        snprintf(cap, sizeof cap,
                 "switch on the maker's limit (Settings, Battery: protect battery), or a timer in "
                 "the socket; as root: shoal worker --charge-limit=80");
    if (battery->plugged == 0)
        find(report, "battery",
             battery->level >= 0 && battery->level < 15 ? SHOAL_VERDICT_BAD : SHOAL_VERDICT_WARNING,
             "connect a charger, or a hub that charges", "no charger is connected");
    else if (battery->plugged == 1 && battery->current_known && battery->current_ma < -50)
        find(report, "battery", SHOAL_VERDICT_WARNING,
             "use a stronger charger or hub (USB-C with power delivery), and short cables",
             "it empties by %d mA although a charger is connected", -battery->current_ma);
    if (battery->plugged != 0 && battery->level >= 95 &&
        (battery->limit < 0 || battery->limit > 90))
        find(report, "battery", SHOAL_VERDICT_WARNING, cap,
             "%d %%, and charged on: batteries that are always full and warm swell",
             battery->level);
}

static void diagnose_battery(ShoalDoctorReport *report) {
    const ShoalDoctorBattery *battery = &report->battery;
    if (battery->present != 1)
        return;
    int before = report->n_findings;
    diagnose_battery_heat(report);
    diagnose_health(report);
    diagnose_charging(report);
    if (report->n_findings == before && battery->level >= 0)
        find(report, "battery", SHOAL_VERDICT_OK, "", "%d %%%s%s", battery->level,
             battery->status[0] ? ", " : "", battery->status);
}

/* ---- links as they say they are ---- */

static void diagnose_interface(ShoalDoctorReport *report, const ShoalDoctorLink *link) {
    bool wired = link->kind == SHOAL_DOCTOR_LINK_ETHERNET;
    if (wired && link->full_duplex == 0)
        find(report, "link", SHOAL_VERDICT_BAD,
             "another cable, then another port of the switch, then another adapter; let the switch "
             "negotiate by itself",
             "%s is half duplex: it cannot send and receive at once", link->name);
    if (wired && link->mbit > 0 && link->mbit <= 100)
        find(report, "link", link->mbit < 100 ? SHOAL_VERDICT_BAD : SHOAL_VERDICT_WARNING,
             "a gigabit adapter (RTL8153, AX88179), a cable with all eight wires, a gigabit switch",
             "%s is a link of %d Mbit/s%s%s", link->name, link->mbit,
             link->driver[0] ? ", by " : "", link->driver);
    else if (wired && link->mbit > 480 && link->usb_mbit > 0 && link->usb_mbit <= 480)
        find(report, "link", SHOAL_VERDICT_WARNING,
             "plug the adapter into a USB 3 port or hub, if the phone has USB 3",
             "%s is a gigabit adapter at USB 2: no more than about 300 Mbit/s get through",
             link->name);
    if (link->signal_dbm < -70)
        find(report, "link", above(-link->signal_dbm, 70, 80),
             "move it nearer to the access point, or use a wired adapter",
             "%s hears its access point weakly (%d dBm)", link->name, link->signal_dbm);
}

/* ---- links as they are ---- */

static const ShoalDoctorLink *used_link(const ShoalDoctorReport *report) {
    for (int i = 0; i < report->n_links; i++)
        if (report->links[i].used)
            return &report->links[i];
    return NULL;
}

/* TCP carries 94 % of a link's rate (1448 of 1538 bytes of a full Ethernet frame), and encryption
 * and our frames cost under 1 % more. */
static bool is_rate_of(double mbit, double link) {
    return mbit > 0.85 * link && mbit < 0.97 * link;
}

static void diagnose_rate(ShoalDoctorReport *report, const ShoalDoctorProbe *probe) {
    const ShoalDoctorLink *link = used_link(report);
    double low = probe->up_mbit < probe->down_mbit ? probe->up_mbit : probe->down_mbit;
    double high = probe->up_mbit < probe->down_mbit ? probe->down_mbit : probe->up_mbit;
    bool wifi = link && link->kind == SHOAL_DOCTOR_LINK_WIFI;
    char rates[96];
    snprintf(rates, sizeof rates, "%.1f Mbit/s there, %.1f back", probe->up_mbit, probe->down_mbit);
    if (high > 0 && low < 0.5 * high && low < 600)
        find(
            report, "link", low < 0.2 * high || low < 5 ? SHOAL_VERDICT_BAD : SHOAL_VERDICT_WARNING,
            wifi ? "move it nearer to the access point, or use a wired adapter"
                 : "another adapter, cable and port: often an adapter that half works, or a duplex "
                   "mismatch",
            "to the %s the two directions differ: %s", probe->to, rates);
    else if (is_rate_of(low, 100) && is_rate_of(high, 100))
        find(report, "link", SHOAL_VERDICT_WARNING,
             "look at both ends and between for 100 Mbit/s: adapter, cable with only four wires, "
             "port of the switch, USB hub",
             "to the %s it is a link of 100 Mbit/s: %s%s", probe->to, rates,
             link && link->mbit >= 1000 ? "; the adapter says 1000, so it is further on" : "");
    else if (low < 85)
        find(report, "link", low < 12 ? SHOAL_VERDICT_BAD : SHOAL_VERDICT_WARNING,
             wifi
                 ? "5 GHz, nearer to the access point, fewer phones at one of them; better a wired "
                   "adapter"
                 : "another adapter, cable and port; look for other traffic",
             "to the %s it is slow: %s", probe->to, rates);
    else
        find(report, "link", SHOAL_VERDICT_OK, "", "to the %s: %s, %.2f ms%s", probe->to, rates,
             1e-3 * probe->latency_us,
             wifi ? "; Wi-Fi is shared: it stops scaling at about 30 phones" : "");
}

/* A link at its limit loses some packets by design: that is how TCP finds the limit. */
static void diagnose_quality(ShoalDoctorReport *report, const ShoalDoctorProbe *probe) {
    double loss = probe->up_loss > probe->down_loss ? probe->up_loss : probe->down_loss;
    double gap = probe->up_gap_ms > probe->down_gap_ms ? probe->up_gap_ms : probe->down_gap_ms;
    double late = probe->latency_p99_us;
    if (loss >= 0.02)
        find(report, "link", above(loss, 0.02, 0.05),
             "another cable, port and adapter; with Wi-Fi, another channel",
             "to the %s %.1f %% of the packets were lost", probe->to, 100 * loss);
    if (gap >= 300)
        find(report, "link", above(gap, 300, 1000),
             "another adapter or hub, and a stronger charger: adapters that lack power drop out",
             "the link to the %s stood still for %.0f ms", probe->to, gap);
    if (probe->latency_us >= 10000 || (late >= 20000 && late > 10 * probe->latency_us))
        find(report, "link", above(late, 0, 200000),
             "no Wi-Fi power save, no repeater; better a wired adapter",
             "the way to the %s and back takes %.1f ms, at times %.1f ms", probe->to,
             1e-3 * probe->latency_us, 1e-3 * late);
}

static void diagnose_probe(ShoalDoctorReport *report, const ShoalDoctorProbe *probe) {
    bool neighbour = !strcmp(probe->to, "neighbour");
    if (probe->reached) {
        diagnose_rate(report, probe);
        diagnose_quality(report, probe);
    } else if (!probe->error[0]) {
        find(report, "link", SHOAL_VERDICT_OK, "",
             "to the next worker: no other device is being examined at the moment");
    } else {
        find(report, "link", SHOAL_VERDICT_BAD,
             neighbour ? "workers must reach each other: no guest network, no isolation of clients "
                         "in the access point, no firewall on the devices"
                       : "look at address, network and firewall; ping it from here",
             "the %s cannot be reached or measured: %s", probe->to, probe->error);
    }
}

/* ---- Android ---- */

static void diagnose_android(ShoalDoctorReport *report) {
    const ShoalDoctorAndroid *android = &report->android;
    if (!android->is_android)
        return;
    int before = report->n_findings;
    if (android->phantom_monitor == 1 && android->max_phantoms >= 0 && android->max_phantoms < 1000)
        find(
            report, "android", SHOAL_VERDICT_WARNING,
            android->sdk >= 32
                ? "adb shell settings put global settings_enable_monitor_phantom_procs false"
                : "adb shell \"device_config set_sync_disabled_for_tests persistent; device_config "
                  "put activity_manager max_phantom_processes 2147483647\"",
            "Android ends what apps such as Termux have started, when it is more than %d processes "
            "or busy in the background; what adb started stays",
            android->max_phantoms);
    if (android->freezer == 1)
        find(report, "android", SHOAL_VERDICT_WARNING,
             "adb shell settings put global cached_apps_freezer disabled && adb reboot",
             "Android freezes apps such as Termux in the background; what adb started runs on");
    if (android->doze == 1 && report->battery.plugged != 1)
        find(report, "android", SHOAL_VERDICT_WARNING,
             "connect a charger, or: adb shell dumpsys deviceidle disable",
             "on battery, Android takes the network from apps while the phone lies still (doze)");
    if (android->battery_saver == 1)
        find(report, "android", SHOAL_VERDICT_WARNING, "adb shell settings put global low_power 0",
             "the battery saver is on: it lowers the clock and stops the background");
    if (android->stay_awake == 0)
        find(report, "android", SHOAL_VERDICT_WARNING,
             "adb shell svc power stayon true (screen dark); in Termux: termux-wake-lock",
             "with the screen off the phone may sleep, and its processor with it");
    /* adbd starts again when the USB functions change, and what it has started ends with it (seen
     * by those who start services over adb: github.com/RikkaApps/Shizuku/issues/366 and 379). */
    if (strstr(android->usb, "mtp") || strstr(android->usb, "ptp") ||
        strstr(android->usb, "rndis") || strstr(android->usb, "ncm"))
        find(
            report, "android", SHOAL_VERDICT_WARNING,
            "Developer options, Default USB configuration: No data transfer; then start the worker "
            "again",
            "the USB port offers %s: on some phones, what adb has started ends when the cable is "
            "pulled and that changes",
            android->usb);
    const ShoalDoctorLink *link = used_link(report);
    if (android->wifi_sleep == 0 && link && link->kind == SHOAL_DOCTOR_LINK_WIFI)
        find(report, "android", SHOAL_VERDICT_WARNING,
             "adb shell settings put global wifi_sleep_policy 2",
             "Wi-Fi sleeps when the screen goes off");
    if (report->n_findings == before)
        find(report, "android", SHOAL_VERDICT_OK, "", "no setting is known that ends a worker");
}

static void sort(ShoalDoctorReport *report) {
    for (int i = 1; i < report->n_findings; i++) { /* stable: topics stay in their order */
        ShoalFinding finding = report->findings[i];
        int at = i;
        for (; at > 0 && report->findings[at - 1].verdict < finding.verdict; at--)
            report->findings[at] = report->findings[at - 1];
        report->findings[at] = finding;
    }
}

void shoal_diagnose(ShoalDoctorReport *report) {
    report->n_findings = 0;
    report->verdict = SHOAL_VERDICT_OK;
    diagnose_cores(report);
    diagnose_memory(report);
    diagnose_heat(report);
    diagnose_battery(report);
    for (int i = 0; i < report->n_links; i++)
        if (report->links[i].up != 0)
            diagnose_interface(report, &report->links[i]);
    for (int i = 0; i < report->n_probes; i++)
        diagnose_probe(report, &report->probes[i]);
    diagnose_android(report);
    sort(report);
    if (report->n_findings > 0)
        report->verdict = report->findings[0].verdict;
}
