/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Base types, the version of the running core, memory.
 *
 * These headers are written for this module. They declare only what it uses of Kamailio's binary
 * interface, and only what is the same in 5.6.3, 6.0.1 and 6.1.4 on x86_64; tests/abi compares
 * every declaration with numbers taken from the real headers. Rules:
 *   - members named reserved_* hold a place and are never read or written;
 *   - a structure that differs further on ends before the first difference, and says so. Such a
 *     structure is only ever used behind a pointer that Kamailio gave;
 *   - no system header is included: libclang finds its own builtin headers only where the whole of
 *     clang is installed;
 *   - strings that Kamailio only reads are const here, whatever its own prototype says.
 */
#ifndef APIBAN_KAMAILIO_CORE_H
#define APIBAN_KAMAILIO_CORE_H

typedef __UINT8_TYPE__ ksr_u8;
typedef __UINT16_TYPE__ ksr_u16;
typedef __UINT32_TYPE__ ksr_u32;
typedef __UINT64_TYPE__ ksr_u64;
typedef __INT64_TYPE__ ksr_i64;
typedef __SIZE_TYPE__ ksr_size;

/* Counted text; not NUL-terminated unless a function promises it. */
typedef struct str {
    char *s;
    int len;
} str;

/* What the loader compares with a module's module_version and module_flags. In 6.1 ver_flags has
 * three items more than the string really compared; a copy of it is refused. */
extern const char ver_name[];
extern const char ver_version[];
extern const char ver_arch[];
extern const char ver_os[];
extern const char ver_flags[];

/* The allocator entries take the call site, because all supported packages are built with
 * DBG_SR_MEMORY. `block` is the mem_block of the same table. */
typedef void *(*sr_malloc_f)(void *block, ksr_size size, const char *file, const char *func,
                             unsigned int line, const char *mname);
typedef void (*sr_free_f)(void *block, void *p, const char *file, const char *func,
                          unsigned int line, const char *mname);

/* Private memory of one process; not thread-safe. Ends after xfree: 6.0 added members further on. */
typedef struct sr_pkg_api {
    char *mname;
    char *mem_pool;
    void *mem_block;
    sr_malloc_f xmalloc;
    sr_malloc_f xmallocxz;
    void *reserved_realloc[2];
    sr_free_f xfree;
} sr_pkg_api_t;

/* Memory shared by all processes. Ends after xfree for the same reason. */
typedef struct sr_shm_api {
    char *mname;
    void *mem_pool;
    void *mem_block;
    sr_malloc_f xmalloc;
    sr_malloc_f xmallocxz;
    sr_malloc_f xmalloc_unsafe;
    void *reserved_realloc[3];
    sr_free_f xfree;
} sr_shm_api_t;

extern sr_pkg_api_t _pkg_root;
extern sr_shm_api_t _shm_root;

#endif
