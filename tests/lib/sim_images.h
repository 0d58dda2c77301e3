/* Every disk that a loss of power could leave of one that has stopped, or a sample of them. */
#ifndef TESTS_SIM_IMAGES_H
#define TESTS_SIM_IMAGES_H

#include "sim_disk.h"

struct sim_images {
    uint64_t all_below; /* all of them where there are no more */
    uint64_t samples;   /* else so many */
    uint64_t random;    /* seed, and state */
    uint64_t count;     /* built so far */
};

/* Some hundred where there are many; eight times as many with $SHANGHAI_LONG. */
struct sim_images sim_images_open(void);
uint64_t sim_images_random(struct sim_images *images, uint64_t below);
/* Hands each over, at most `most`; it is gone when fn returns. The disk was recorded, and is not changed. */
void sim_images_each(struct sim_images *images, const struct sim_disk *stopped, uint64_t most,
                     void (*fn)(struct sim_disk *image));

#endif
