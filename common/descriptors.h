/* File descriptors of a service. nng's listeners accept as long as there are any (and go on by themselves
 * when there are some again), so a crowd of connections may take all that the soft limit allows. What the
 * service opens itself then comes from a reserve between the soft and the hard limit. */
#ifndef COMMON_DESCRIPTORS_H
#define COMMON_DESCRIPTORS_H

#include <stdbool.h>
#include <stdint.h>

/* Sets the soft limit so that there may be so many connections; less when the hard limit is lower, since the
 * reserve stays below that. Called once, before there are other threads. */
void descriptors_limit(uint64_t connections);
/* Whether a connection that is opened now is sure to be accepted, however many wait at the two listeners of a
 * link before it; where the limit is so low that this would say no too early, whether a quarter of it is
 * left. Takes one descriptor for the time of the call. */
bool descriptors_plenty(void);
/* Makes the reserve usable until the limit is lowered again, for all threads: for one call that opens
 * something. */
void descriptors_lift(void);
void descriptors_lower(void);

#endif
