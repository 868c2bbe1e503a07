/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What build.rs turns into Rust. */
#include "kamailio-headers/core.h"
#include "kamailio-headers/msg.h"
#include "kamailio-headers/socket.h"
#include "kamailio-headers/pv.h"
#include "kamailio-headers/rpc.h"
#include "kamailio-headers/module.h"
#include "kamailio-headers/log.h"
#include "kamailio-headers/process.h"
#include "kamailio-headers/kemi.h"
#include "kamailio-headers/dmq.h"
