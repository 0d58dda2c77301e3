/* A counter that one thread waits at. */
#include "bench_room.h"

#include <linux/futex.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Wakes the taker only when it had no room at all: the answers to a whole frame come in one go, and a wake-up
 * for each of them (sem_post) costs more than the append. */
void bench_room_give(struct bench_room *room)
{
    if (atomic_fetch_add(&room->free, 1) == 0)
        syscall(SYS_futex, &room->free, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

void bench_room_take(struct bench_room *room)
{
    while (atomic_load(&room->free) == 0)
        syscall(SYS_futex, &room->free, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);
    atomic_fetch_sub(&room->free, 1); /* nobody else takes any */
}
