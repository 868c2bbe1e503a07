/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Messages between the servers of a cluster. No symbol of the dmq module is linked: its API comes
 * through find_export("bind_dmq", 0, 0), called with a pointer to dmq_api. */
#ifndef APIBAN_KAMAILIO_DMQ_H
#define APIBAN_KAMAILIO_DMQ_H

#include "msg.h"

/* Ends before status, whose values changed in 6.1; its first member also moved there. */
typedef struct dmq_node {
    ksr_u64 reserved_local;
    str orig_uri;
    /* A parsed URI; 8-byte words to keep its alignment. */
    ksr_u64 uri[48];
    struct ip_addr ip_address;
} dmq_node_t;

/* The answer to a message, zeroed by dmq. Nothing is answered unless resp_code is above 0 and reason
 * is not empty. dmq frees body.s as private memory; reason and content_type must be static. The
 * spelling of the tag is Kamailio's. */
typedef struct peer_reponse {
    int resp_code;
    str content_type;
    str reason;
    str body;
} peer_reponse_t;

/* node is NULL when the sender is unknown. Below 0: no answer. */
typedef int (*peer_callback_t)(struct sip_msg *msg, peer_reponse_t *resp, dmq_node_t *node);

/* Copied by dmq, texts too. peer_id is the user part of the request URI of its messages. */
typedef struct dmq_peer {
    str peer_id;
    str description;
    peer_callback_t callback;
    int (*init_callback)(void);
    struct dmq_peer *next;
} dmq_peer_t;

/* Copied by dmq. msg is (void *)-1 after a timeout. Up to 6.0 dmq reads this structure without a
 * check, so one must always be given; f itself may be NULL. */
typedef struct dmq_resp_cback {
    int (*f)(struct sip_msg *msg, int code, dmq_node_t *node, void *param);
    void *param;
} dmq_resp_cback_t;

/* bind_dmq writes 4 pointers up to 6.0 and 5 in 6.1: the rest is room for it and for more. */
typedef struct dmq_api {
    /* The peer in shared memory; NULL when the name is taken or dmq is not ready. */
    dmq_peer_t *(*register_dmq_peer)(dmq_peer_t *peer);
    int (*bcast_message)(dmq_peer_t *peer, str *body, dmq_node_t *except,
                         dmq_resp_cback_t *callback, int max_forwards, str *content_type);
    int (*send_message)(dmq_peer_t *peer, str *body, dmq_node_t *node,
                        dmq_resp_cback_t *callback, int max_forwards, str *content_type);
    dmq_node_t *(*find_dmq_node_uri)(str *uri);
    void *reserved_room[12];
} dmq_api_t;

typedef int (*bind_dmq_f)(dmq_api_t *api);

/* What the module keeps of its parameters, as exported variables:
 * str dmq_server_address; struct str_list *dmq_notification_address_list;
 * written while the configuration is read and not changed afterwards. */
typedef struct str_list {
    str s;
    struct str_list *next;
} str_list_t;

#endif
