/* Going through the choices of a disk that has stopped. */
#include "sim_images.h"

#include <stdlib.h>
#include <string.h>

/* With AddressSanitizer a start takes some ten times as long. */
#ifdef __SANITIZE_ADDRESS__
enum { ALL_BELOW = 32, SAMPLES = 16 };
#else
enum { ALL_BELOW = 256, SAMPLES = 128 };
#endif
enum { CHOICES_MOST = 1024, LONG_FACTOR = 8 };

struct sim_images sim_images_open(void)
{
    const char *is_long = getenv("SHANGHAI_LONG");
    uint64_t factor = is_long != NULL && strcmp(is_long, "1") == 0 ? LONG_FACTOR : 1;
    return (struct sim_images){.all_below = ALL_BELOW * factor, .samples = SAMPLES * factor, .random = 4711};
}

uint64_t sim_images_random(struct sim_images *images, uint64_t below)
{
    images->random = images->random * UINT64_C(6364136223846793005) + 1442695040888963407;
    return (images->random >> 33) % below;
}

static bool is_next(uint32_t *chosen, const uint32_t *options, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (++chosen[i] < options[i])
            return true;
        chosen[i] = 0;
    }
    return false;
}

static bool are_few(const uint32_t *options, size_t count, uint64_t most)
{
    uint64_t product = 1;
    for (size_t i = 0; i < count && product <= most; i++)
        product *= options[i];
    return product <= most;
}

void sim_images_each(struct sim_images *images, const struct sim_disk *stopped, uint64_t most,
                     void (*fn)(struct sim_disk *image))
{
    uint32_t options[CHOICES_MOST], chosen[CHOICES_MOST] = {0};
    size_t count = sim_disk_choices(stopped, options, CHOICES_MOST);
    bool all = are_few(options, count, most < images->all_below ? most : images->all_below);
    for (uint64_t i = 0; all || i < most; i++) {
        for (size_t c = 0; !all && c < count; c++)
            chosen[c] = (uint32_t)sim_images_random(images, options[c]);
        struct sim_disk *image = sim_disk_image(stopped, chosen);
        images->count++;
        fn(image);
        sim_disk_close(image);
        if (all && !is_next(chosen, options, count))
            return;
    }
}
