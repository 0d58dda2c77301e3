/* How many appends a thread may still begin: taken by that thread, given back where they are answered. */
#ifndef CTL_BENCH_ROOM_H
#define CTL_BENCH_ROOM_H

#include <stdatomic.h>

struct bench_room {
    atomic_int free;
};

/* Waits until there is some. One thread alone takes. */
void bench_room_take(struct bench_room *room);
void bench_room_give(struct bench_room *room);

#endif
