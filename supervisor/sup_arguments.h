/* shanghaid's command line. */
#ifndef SUP_ARGUMENTS_H
#define SUP_ARGUMENTS_H

#include "sup_shell.h"

/* -1: go on with *out; anything else is the exit code. */
int sup_arguments(int argc, char **argv, struct sup_options *out);

#endif
