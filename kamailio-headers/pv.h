/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Pseudo-variables: exporting one, and reading one of the core's. */
#ifndef APIBAN_KAMAILIO_PV_H
#define APIBAN_KAMAILIO_PV_H

#include "core.h"

struct sip_msg;

/* Only the text is at the same place in all releases; the integer and the flags moved in 6.0, and
 * the size grew from 24 to 32. A getter passes it on to a pv_get_* function. To read a variable,
 * zero one: the room behind the text is enough for every release. */
typedef struct pv_value {
    str rs;
    ksr_u64 reserved_room[6];
} pv_value_t;

union pv_name_value {
    void *dname;
    ksr_u64 reserved_room[3];
};

/* The name between the brackets. With PV_NAME_OTHER the core leaves u to the module. nfree is called
 * when a specification is freed, and may be NULL. */
typedef struct pv_name {
    int type;
    void (*nfree)(void *name);
    union pv_name_value u;
} pv_name_t;

static const int PV_NAME_OTHER = 2;

typedef struct pv_param {
    pv_name_t pvn;
    ksr_u64 pvi[2];
} pv_param_t;

typedef int (*pv_getf_t)(struct sip_msg *msg, pv_param_t *param, pv_value_t *res);
typedef int (*pv_setf_t)(struct sip_msg *msg, pv_param_t *param, int op, pv_value_t *value);

typedef struct pv_spec {
    unsigned int type;
    pv_getf_t getf;
    pv_setf_t setf;
    pv_param_t pvp;
    void *trans;
} pv_spec_t;

/* One piece of a text with pseudo-variables in it: plain text, then a variable; either may be missing. */
typedef struct pv_elem {
    str text;
    pv_spec_t *spec;
    struct pv_elem *next;
} pv_elem_t;

/* A row with an empty name ends the table. */
typedef struct pv_export {
    str name;
    unsigned int type;
    pv_getf_t getf;
    pv_setf_t setf;
    /* 0 accepts the name; in points into the configuration. */
    int (*parse_name)(pv_spec_t *spec, str *in);
    int (*parse_index)(pv_spec_t *spec, str *in);
    int (*init_param)(pv_spec_t *spec, int param);
    int iparam;
} pv_export_t;

static const unsigned int PVT_OTHER = 22;

int pv_get_null(struct sip_msg *msg, pv_param_t *param, pv_value_t *res);
int pv_get_strval(struct sip_msg *msg, pv_param_t *param, pv_value_t *res, str *value);
/* 5.6 takes 32-bit integers: it reads the lower half of the register. */
int pv_get_sintval(struct sip_msg *msg, pv_param_t *param, pv_value_t *res, long value);
int pv_get_uintval(struct sip_msg *msg, pv_param_t *param, pv_value_t *res, unsigned long value);

/* Parsed once per name and kept by the core; NULL when the name does not parse. */
pv_spec_t *pv_cache_get(str *name);
/* 0 on success. */
int pv_get_spec_value(struct sip_msg *msg, pv_spec_t *spec, pv_value_t *value);

#endif
