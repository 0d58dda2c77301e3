/* Lists of a link server's sessions: rings whose members carry their own places, one for each list that they
 * may stand in. Nothing is allocated. */
#ifndef COMMON_LINK_PLACES_H
#define COMMON_LINK_PLACES_H

#include <stdbool.h>
#include <stddef.h>

struct session; /* of link_server.c */

/* A place in one of the server's lists. */
struct place {
    struct place *prev, *next;
    struct session *session; /* NULL: the list's own */
};

static inline void list_init(struct place *list)
{
    *list = (struct place){.prev = list, .next = list};
}

/* In no list. */
static inline bool place_is_free(const struct place *place)
{
    return place->next == NULL;
}

/* Out of the list that it is in, if any. */
static inline void place_take(struct place *place)
{
    if (place_is_free(place))
        return;
    place->prev->next = place->next;
    place->next->prev = place->prev;
    place->prev = place->next = NULL;
}

/* Moves it to the end of the list. */
static inline void place_last(struct place *list, struct place *place, struct session *session)
{
    place_take(place);
    place->session = session;
    place->prev = list->prev;
    place->next = list;
    list->prev->next = place;
    list->prev = place;
}

#endif
