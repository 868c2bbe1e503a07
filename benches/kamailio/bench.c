/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A module for the benchmark: functions that do nothing, as the measure of what any function of a
 * module costs the script, and a stopwatch that the script can press.
 *
 *   noop()               does nothing
 *   nope()               the same, but it is false: the script takes another path then
 *   noop("x")            reads its parameter, with the pseudo-variables in it, and does nothing
 *   bench_start()        starts the stopwatch
 *   bench_stop("name")   stops it and keeps the time under this name
 *   bench_write("file")  writes "name wall cpu start" of every time kept, in ns, and forgets them
 *
 * Built against our own headers; it takes the version strings of the module that was loaded first.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "../../kamailio-headers/module.h"

enum { ROOM = 1 << 18, NAME = 40 };

struct lap {
    char name[NAME];
    ksr_u64 wall, cpu, start;
};

static struct lap laps[ROOM];
static int count;
static ksr_u64 wall_start, cpu_start;

char *module_version = "none";
char *module_flags = "none";

__attribute__((constructor)) static void take_strings(void)
{
    sr_module_t *first = get_loaded_modules();
    if(!first)
        return;
    char **version = dlsym(first->handle, "module_version");
    char **flags = dlsym(first->handle, "module_flags");
    if(version && flags) {
        module_version = *version;
        module_flags = *flags;
    }
}

static ksr_u64 clock_ns(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (ksr_u64)t.tv_sec * 1000000000u + (ksr_u64)t.tv_nsec;
}

static int text(char *to, int room, struct sip_msg *msg, void *param)
{
    str value;
    if(get_str_fparam(&value, msg, param) != 0 || value.len >= room)
        return -1;
    memcpy(to, value.s, (ksr_size)value.len);
    to[value.len] = 0;
    return 0;
}

static int noop(struct sip_msg *msg, void *p1, void *p2)
{
    return 1;
}

static int nope(struct sip_msg *msg, void *p1, void *p2)
{
    return -1;
}

static int noop_text(struct sip_msg *msg, void *p1, void *p2)
{
    str value;
    return get_str_fparam(&value, msg, p1) == 0 ? 1 : -1;
}

static int start(struct sip_msg *msg, void *p1, void *p2)
{
    wall_start = clock_ns(CLOCK_MONOTONIC);
    cpu_start = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    return 1;
}

static int stop(struct sip_msg *msg, void *name, void *p2)
{
    ksr_u64 cpu = clock_ns(CLOCK_THREAD_CPUTIME_ID) - cpu_start;
    ksr_u64 wall = clock_ns(CLOCK_MONOTONIC) - wall_start;
    if(count == ROOM || text(laps[count].name, NAME, msg, name) != 0)
        return -1;
    laps[count].wall = wall;
    laps[count].cpu = cpu;
    laps[count].start = wall_start;
    count++;
    return 1;
}

static int write_laps(struct sip_msg *msg, void *path, void *p2)
{
    char name[4096];
    if(text(name, sizeof name, msg, path) != 0)
        return -1;
    FILE *file = fopen(name, "w");
    if(!file)
        return -1;
    for(int i = 0; i < count; i++)
        fprintf(file, "%s %llu %llu %llu\n", laps[i].name, (unsigned long long)laps[i].wall,
                (unsigned long long)laps[i].cpu, (unsigned long long)laps[i].start);
    count = 0;
    return fclose(file) == 0 ? 1 : -1;
}

static cmd_export_t functions[] = {
    {"noop", noop, 0, 0, 0, 0xffffffff},
    {"nope", nope, 0, 0, 0, 0xffffffff},
    {"noop", noop_text, 1, fixup_spve_all, fixup_free_spve_all, 0xffffffff},
    {"bench_start", start, 0, 0, 0, 0xffffffff},
    {"bench_stop", stop, 1, fixup_spve_all, fixup_free_spve_all, 0xffffffff},
    {"bench_write", write_laps, 1, fixup_spve_all, fixup_free_spve_all, 0xffffffff},
    {0, 0, 0, 0, 0, 0},
};

module_exports_t exports = {"bench", 0, functions, 0, 0, 0, 0, 0, 0, 0};
