/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/doctor.h"

static void clean(const char *text, char out[512]) {
    shoal_text_clean(text, false, out, 512);
}

const char *shoal_doctor_kind_name(ShoalDoctorLinkKind kind) {
    static const char *const NAMES[] = {"other", "ethernet", "wifi", "mobile"};
    return NAMES[kind];
}

static void print_cores(const ShoalDoctorCores *cores) {
    char model[512];
    clean(cores->model, model);
    printf("Processor:     %s, kernels %s\n", model, cores->level);
    for (int i = 0; i < cores->n_clusters; i++) {
        const ShoalDoctorCluster *c = &cores->clusters[i];
        printf("Cluster %d:     %d core%s (%s)", i, c->cores, c->cores == 1 ? "" : "s", c->list);
        if (c->mhz)
            printf(", %.2f GHz", c->mhz * 1e-3);
        if (c->gflops > 0)
            printf(", %.1f GF/s (%.1f on one core)", c->gflops, c->one_core);
        if (c->usable < c->cores)
            printf(", %d usable", c->usable);
        printf("\n");
    }
    if (cores->gflops > 0)
        printf("Together:      %.1f GF/s on %d cores\n", cores->gflops, cores->usable);
}

static void print_memory(const ShoalDoctorMemory *m) {
    printf("Memory:        %llu MB, %llu MB free", m->total >> 20, m->available >> 20);
    if (m->read_gbs > 0)
        printf("; reads %.1f GB/s, copies %.1f GB/s", m->read_gbs, m->copy_gbs);
    printf("\n");
}

static void print_heat(const ShoalDoctorHeat *h) {
    if (h->temperature > 0)
        printf("Temperature:   %.0f C", h->temperature);
    else
        printf("Temperature:   unknown");
    if (h->ceiling > 0)
        printf(", the kernel throttles at %.0f C", h->ceiling);
    if (h->clock > 0)
        printf(", clock %.0f %%", 100 * h->clock);
    printf("\n");
}

static void print_battery(const ShoalDoctorBattery *b, double celsius) {
    if (b->present != 1)
        return;
    printf("Battery:       ");
    if (b->level >= 0)
        printf("%d %%, ", b->level);
    printf("%s, health %s", b->status[0] ? b->status : "status unknown",
           b->health[0] ? b->health : "unknown");
    if (celsius > 0)
        printf(", %.0f C", celsius);
    if (b->current_known)
        printf(", %+d mA", b->current_ma);
    if (b->millivolts)
        printf(", %.2f V", b->millivolts * 1e-3);
    if (b->cycles >= 0)
        printf(", %d cycles", b->cycles);
    if (b->limit_file[0])
        printf(", charge limit in %s (%s)", b->limit_file,
               b->limit_writable ? "can be set" : "only by root");
    printf("\n");
}

static void print_link(const ShoalDoctorLink *l) {
    printf("Link %-9s %s", l->name, shoal_doctor_kind_name(l->kind));
    if (l->up == 0)
        printf(", down");
    if (l->mbit)
        printf(", %d Mbit/s", l->mbit);
    if (l->full_duplex >= 0)
        printf(", %s duplex", l->full_duplex ? "full" : "half");
    if (l->driver[0])
        printf(", driver %s", l->driver);
    if (l->usb_mbit)
        printf(", USB of %d Mbit/s", l->usb_mbit);
    if (l->signal_dbm)
        printf(", %d dBm", l->signal_dbm);
    if (l->address[0])
        printf(", %s", l->address);
    printf("%s\n", l->used ? ", to the coordinator" : "");
}

static void print_probe(const ShoalDoctorProbe *p) {
    if (p->reached)
        printf("To %-11s %s: %.1f Mbit/s there, %.1f back, %.2f ms (1 %%: %.2f ms)\n", p->to,
               p->address, p->up_mbit, p->down_mbit, 1e-3 * p->latency_us,
               1e-3 * p->latency_p99_us);
}

static void print_android(const ShoalDoctorAndroid *a) {
    char release[512], model[512];
    clean(a->release, release);
    clean(a->model, model);
    if (a->is_android)
        printf("Android:       %s (SDK %d), %s\n", release, a->sdk, model);
}

static void print_finding(const ShoalFinding *f, bool colour) {
    static const char *const COLOURS[] = {"32", "33", "31"};
    char text[512];
    clean(f->text, text);
    const char *name = shoal_verdict_name(f->verdict);
    if (colour)
        printf("\033[%sm%-7s\033[0m  %-8s %s\n", COLOURS[f->verdict], name, f->what, text);
    else
        printf("%-7s  %-8s %s\n", name, f->what, text);
    clean(f->fix, text);
    if (text[0])
        printf("%18sfix: %s\n", "", text);
}

void shoal_doctor_print_table(const ShoalDoctorReport *r, bool colour) {
    char host[512], system[512];
    clean(r->host, host);
    clean(r->system, system);
    printf("Device:        %s, %s\n", host, system);
    print_android(&r->android);
    print_cores(&r->cores);
    print_memory(&r->memory);
    print_heat(&r->heat);
    print_battery(&r->battery, r->heat.battery_temperature);
    for (int i = 0; i < r->n_links; i++)
        print_link(&r->links[i]);
    for (int i = 0; i < r->n_probes; i++)
        print_probe(&r->probes[i]);
    printf("\n");
    for (int i = 0; i < r->n_findings; i++)
        print_finding(&r->findings[i], colour);
    printf("\nVerdict: %s\n", shoal_verdict_name(r->verdict));
}
