/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Headers whose declarations the module needs and the kernel crate's bindings
 * leave out. Which of them: see the allowlist in ../Kbuild.
 */

#include <linux/filter.h>
#include <linux/netdevice.h>
#include <linux/netfilter.h>
#include <linux/rtnetlink.h>

#include "helpers.h"
