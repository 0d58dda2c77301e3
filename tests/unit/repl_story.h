/* What tests of replsvc's core begin with. */
#ifndef REPL_STORY_H
#define REPL_STORY_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "log.h"
#include "repl_rig.h"

static struct repl_rig rig;
static struct model_log origin; /* the log of n2 */

/* n1 of three, all new; n2's log has some frames, of which n1 knows nothing yet. */
static inline int begin(void **state)
{
    (void)state;
    model_log_open(&origin, peer_log(2));
    for (unsigned i = 0; i < 12; i++)
        model_log_append(&origin, 1000, 10, i, i % 5 == 4);
    model_log_sync_all(&origin);
    peer_open(&rig, 3);
    return 0;
}

static inline int end(void **state)
{
    (void)state;
    peer_close(&rig);
    model_log_free(&origin);
    return 0;
}

static inline struct log_chain place_of_frame(size_t index)
{
    return origin.frames[index].before;
}

/* n1 holds n2's log up to there, and has asked its origin for more. */
static inline struct repl_action stand_before(size_t index)
{
    struct log_chain at = index < origin.count ? place_of_frame(index) : model_log_end(&origin);
    peer_restart(&rig);
    peer_hold(&rig, 2, at, 1);
    peer_tell_logs(&rig);
    peer_tell_members(&rig);
    struct repl_action fetch = peer_expect_fetch(&rig, 2, 2);
    assert_int_equal(fetch.fetch.position, at.position);
    return fetch;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

#endif
