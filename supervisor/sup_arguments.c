/* The command line. Wrong usage ends the process with EXIT_BAD_USAGE. */
#include "sup_arguments.h"

#include <getopt.h>
#include <stdio.h>

static const char help[] =
    "usage: shanghaid --config FILE --node ID\n"
    "       shanghaid --help | --version\n"
    "\n"
    "shanghaid: starts, watches and restarts the services of one node.\n"
    "\n"
    "  --config FILE   topology file, the same on every node\n"
    "  --node ID       which of its nodes this is\n"
    "\n"
    "Signals: SIGTERM and SIGINT stop the node cleanly, SIGHUP takes over reloadable settings\n"
    "and starts the services that are held down for a configuration error.\n"
    "Commands: see `shanghaictl svc --help`.\n"
    "\n"
    "Exit codes:\n"
    "  0   stopped cleanly\n"
    "  1   failed\n"
    "  2   wrong usage\n"
    "  70  gave up: a service failed to start, or was restarted too often\n"
    "  75  another shanghaid uses the data or run directory\n"
    "  78  wrong configuration\n";

static int usage_error(const char *problem)
{
    fprintf(stderr, "shanghaid: %s; see shanghaid --help\n", problem);
    return EXIT_BAD_USAGE;
}

int sup_arguments(int argc, char **argv, struct sup_options *out)
{
    static const struct option options[] = {{"config", required_argument, NULL, 'c'},
                                            {"node", required_argument, NULL, 'n'},
                                            {"help", no_argument, NULL, 'h'},
                                            {"version", no_argument, NULL, 'V'},
                                            {0}};
    int option;
    while ((option = getopt_long(argc, argv, "c:n:hV", options, NULL)) != -1) {
        switch (option) {
        case 'c':
            out->config_file = optarg;
            break;
        case 'n':
            out->node = optarg;
            break;
        case 'h':
            fputs(help, stdout);
            return EXIT_DONE;
        case 'V':
            printf("shanghaid %s\n", SHANGHAI_VERSION);
            return EXIT_DONE;
        default: /* getopt has said what is wrong */
            return EXIT_BAD_USAGE;
        }
    }
    if (optind < argc)
        return usage_error("it takes no arguments besides options");
    if (out->config_file == NULL || out->node == NULL)
        return usage_error("--config and --node are needed");
    return -1;
}
