/* What the load is told on its command line; load.c says what each option means. */
#ifndef OPTIONS_H
#define OPTIONS_H
#include <unistd.h>

#include "buffer.h"

enum { MAX_PIDS = 64 };

struct options {
    int port, num_clients;
    double warm_s, measure_s, per_s;
    long max_requests, osl;
    uint64_t random;
    struct buffer body;
    clockid_t pid_clocks[MAX_PIDS];
    int num_pids;
};

static struct options read_options(int argc, char **argv)
{
    struct options opt = {.num_clients = 16, .measure_s = 2, .max_requests = -1, .osl = 1, .random = 1};
    const char *body_file = "";
    for (int o; (o = getopt(argc, argv, "p:b:c:w:d:n:r:o:s:x:")) > 0;)
        switch (o) {
        case 'p': opt.port = atoi(optarg); break;
        case 'b': body_file = optarg; break;
        case 'c': opt.num_clients = atoi(optarg); break;
        case 'w': opt.warm_s = atof(optarg); break;
        case 'd': opt.measure_s = atof(optarg); break;
        case 'n': opt.max_requests = atol(optarg); break;
        case 'r': opt.per_s = atof(optarg); break;
        case 'o': opt.osl = atol(optarg); break;
        case 's': opt.random = strtoull(optarg, NULL, 10); break;
        case 'x':
            for (char *p = strtok(optarg, ","); p && opt.num_pids < MAX_PIDS; p = strtok(NULL, ","))
                opt.num_pids += !clock_getcpuclockid(atoi(p), &opt.pid_clocks[opt.num_pids]);
            break;
        default: exit(2);
        }
    FILE *f = fopen(body_file, "r");
    for (int ch; f && (ch = getc(f)) != EOF;)
        put(&opt.body, &(char){(char)ch}, 1);
    if (!opt.port || !opt.body.len)
        exit(2);
    return opt;
}
#endif
