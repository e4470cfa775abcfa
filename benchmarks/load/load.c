/* The clients of benchmarks/gateway.py: HTTP/1.1 on kept connections, one epoll loop; prints one line of JSON.
 *
 *     load -p PORT -b BODY_FILE -c CLIENTS -w WARM_S -d MEASURE_S [-n REQUESTS] [-r PER_S] [-o OSL] [-s SEED] [-x PID,PID]
 *
 * Clients ask again as soon as they are answered; with -r requests come at random instants of that mean rate on idle
 * connections, and their times to the first event are counted from the instant they were due. -n stops after so many
 * requests and measures all of them. In the body "@@@@@@@@@@@@" becomes a word of its own in every request, and "######"
 * the OSL; a client's first OSL is a share of it, so that streams do not end together. -x: processes whose CPU time is
 * read at both ends of the measured time. The clients are plain ones: TCP_NODELAY, no TCP_QUICKACK.
 * An event's first text "w00001234" says how many microseconds the engine took for it: taken off the TTFT.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "options.h"

enum { MAX_READY = 512, READ_BYTES = 1 << 18, HEAD_BYTES = 8192, TAIL_BYTES = 7, NONCE_BYTES = 12 };
enum state { CLOSED, IDLE, SENDING, READING };

struct client {
    int fd, is_watching_write, status, is_stream, after_newline, num_events;
    enum state state;
    size_t sent, num_head, num_body, length;
    int64_t due_us;
    struct buffer request;
    char head[HEAD_BYTES], tail[TAIL_BYTES];
};

struct counts { long answers, errors, events, reads; };

static struct options opt;
static struct client *clients;
static struct sockaddr_in server;
static int epoll_fd, is_measuring, is_over;
static long num_started;
static struct counts counts;
static struct buffer ttft; /* doubles, milliseconds */

static void begin(struct client *c, int64_t due_us, long osl);

static double cpu_s(clockid_t clock)
{
    struct timespec t;
    return clock_gettime(clock, &t) ? 0 : (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static double servers_cpu_s(void)
{
    double sum = 0;
    for (int i = 0; i < opt.num_pids; i++)
        sum += cpu_s(opt.pid_clocks[i]);
    return sum;
}

static uint64_t next_random(void)
{
    opt.random = opt.random * 6364136223846793005ULL + 1442695040888963407ULL;
    return opt.random >> 33;
}

static void watch(struct client *c, int op, int for_write)
{
    struct epoll_event e = {for_write ? EPOLLOUT : EPOLLIN, {.ptr = c}};
    c->is_watching_write = for_write;
    epoll_ctl(epoll_fd, op, c->fd, &e);
}

static void done(struct client *c, int is_good, int is_kept)
{
    if (!is_kept) {
        close(c->fd);
        c->state = CLOSED;
    } else
        c->state = IDLE;
    if (is_measuring || opt.max_requests >= 0) {
        if (is_good && c->status == 200) {
            counts.answers++;
            counts.events -= c->is_stream; /* [DONE] is none */
        } else if (counts.errors++ < 3)
            fprintf(stderr, "load: status %d: %.300s\n", c->status, c->head);
    }
    if (!is_good || c->status != 200)
        usleep(2000); /* do not hammer a server that refuses */
    if (opt.per_s == 0 && !is_over)
        begin(c, 0, opt.osl);
}

static void send_more(struct client *c)
{
    while (c->sent < c->request.len) {
        ssize_t n = send(c->fd, c->request.data + c->sent, c->request.len - c->sent, MSG_NOSIGNAL);
        if (n < 0 && (errno == EAGAIN || errno == ENOTCONN)) {
            if (!c->is_watching_write)
                watch(c, EPOLL_CTL_MOD, 1);
            return;
        }
        if (n < 0) {
            snprintf(c->head, HEAD_BYTES, "(sending: %s)", strerror(errno));
            done(c, 0, 0);
            return;
        }
        c->sent += (size_t)n;
    }
    c->state = READING;
    if (c->is_watching_write)
        watch(c, EPOLL_CTL_MOD, 0);
}

static void write_request(struct client *c, long osl)
{
    c->request.len = 0;
    say(&c->request, "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:%d\r\nuser-agent: load\r\naccept: */*\r\n"
        "authorization: Bearer sk-0123456789abcdef\r\ncontent-type: application/json\r\ncontent-length: %zu\r\n\r\n",
        opt.port, opt.body.len);
    size_t at = c->request.len;
    put(&c->request, opt.body.data, opt.body.len);
    char *nonce = memmem(c->request.data + at, opt.body.len, "@@@@@@@@@@@@", NONCE_BYTES);
    char *number = memmem(c->request.data + at, opt.body.len, "######", 6), digits[16];
    for (int i = 0; nonce && i < NONCE_BYTES; i++)
        nonce[i] = (char)('a' + next_random() % 26);
    snprintf(digits, sizeof digits, "%6ld", osl);
    if (number)
        memcpy(number, digits, 6);
}

static void begin(struct client *c, int64_t due_us, long osl)
{
    if (opt.max_requests >= 0 && num_started >= opt.max_requests)
        return;
    num_started++;
    write_request(c, osl);
    c->sent = c->num_head = c->num_body = 0;
    c->status = c->is_stream = c->after_newline = c->num_events = 0;
    memset(c->tail, 0, TAIL_BYTES);
    c->due_us = due_us ? due_us : now_us();
    if (c->state == CLOSED) {
        int on = 1;
        c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        connect(c->fd, (struct sockaddr *)&server, sizeof server);
        c->state = SENDING;
        watch(c, EPOLL_CTL_ADD, 1);
    } else {
        c->state = SENDING;
        send_more(c);
    }
}

/* Takes the head off what came; NULL while it is not whole. */
static char *after_head(struct client *c, char *data, ssize_t n)
{
    size_t before = c->num_head, room = HEAD_BYTES - 1 - before, len = (size_t)n < room ? (size_t)n : room;
    memcpy(c->head + before, data, len);
    c->num_head += len;
    c->head[c->num_head] = 0;
    char *end = strstr(c->head, "\r\n\r\n");
    if (!end)
        return NULL;
    size_t num_head = (size_t)(end + 4 - c->head);
    *end = 0;
    c->status = atoi(c->head + 9);
    char *length = strcasestr(c->head, "\r\ncontent-length:");
    c->length = length ? (size_t)atol(length + 17) : SIZE_MAX;
    c->is_stream = strcasestr(c->head, "text/event-stream") != NULL;
    return data + (num_head - before);
}

static void count_events(struct client *c, const char *at, const char *end)
{
    int before = c->num_events;
    const char *first = at;
    for (; (at = memchr(at, '\n', (size_t)(end - at))); at++) { /* an event ends with two newlines */
        int is_pair = at == first ? c->after_newline : at[-1] == '\n';
        c->num_events += is_pair;
    }
    c->after_newline = end > first && end[-1] == '\n';
    if (is_measuring) {
        counts.events += c->num_events - before;
        counts.reads += end > first;
        if (!before && c->num_events) {
            const char *stamp = memmem(first, (size_t)(end - first), "\"content\":\"w", 12);
            double ms = (double)(now_us() - c->due_us - (stamp ? atol(stamp + 12) : 0)) / 1e3;
            put(&ttft, (char *)&ms, sizeof ms);
        }
    }
}

/* Whether the answer is whole: by its length, or by its last chunk. */
static int is_whole(struct client *c, const char *data, size_t len)
{
    c->num_body += len;
    if (c->length != SIZE_MAX)
        return c->num_body >= c->length;
    size_t kept = len < TAIL_BYTES ? TAIL_BYTES - len : 0;
    memmove(c->tail, c->tail + TAIL_BYTES - kept, kept);
    memcpy(c->tail + kept, data + len - (TAIL_BYTES - kept), TAIL_BYTES - kept);
    return !memcmp(c->tail, "\r\n0\r\n\r\n", TAIL_BYTES);
}

static void receive(struct client *c)
{
    static char data[READ_BYTES];
    ssize_t n = recv(c->fd, data, sizeof data, 0);
    if (n < 0 && errno == EAGAIN)
        return;
    if (c->state == IDLE || n <= 0) {
        if (c->state == IDLE) {
            close(c->fd);
            c->state = CLOSED;
        } else
            done(c, 0, 0);
        return;
    }
    char *at = data;
    if (!c->status && !(at = after_head(c, data, n)))
        return;
    if (c->is_stream)
        count_events(c, at, data + n);
    if (is_whole(c, at, (size_t)(data + n - at)))
        done(c, 1, strcasestr(c->head, "\r\nconnection: close") == NULL);
}

/* Starts what is due of an open loop; returns when the next is. */
static int64_t start_due(int64_t next_us)
{
    for (; next_us <= now_us(); next_us += (int64_t)(-log(((double)next_random() + 1) / 2147483649.0) / opt.per_s * 1e6)) {
        int i = 0;
        while (i < opt.num_clients && clients[i].state > IDLE)
            i++;
        if (i < opt.num_clients)
            begin(&clients[i], next_us, opt.osl);
        else
            counts.errors++;
    }
    return next_us;
}

static void report(double wall_s, double server_s, double own_s)
{
    printf("{\"answers\":%ld,\"errors\":%ld,\"events\":%ld,\"reads\":%ld,\"wall_s\":%.4f,\"server_cpu_s\":%.6f,"
           "\"load_cpu_s\":%.4f,\"ttft_ms\":[", counts.answers, counts.errors, counts.events, counts.reads, wall_s,
           server_s, own_s);
    const double *ms = (const double *)(void *)ttft.data;
    for (size_t i = 0; i < ttft.len / sizeof *ms; i++)
        printf("%s%.3f", i ? "," : "", ms[i]);
    printf("]}\n");
}

int main(int argc, char **argv)
{
    opt = read_options(argc, argv);
    server = (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons(opt.port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    epoll_fd = epoll_create1(0);
    clients = calloc((size_t)opt.num_clients, sizeof *clients);
    int64_t start_us = now_us(), measure_us = start_us + (int64_t)(opt.warm_s * 1e6);
    int64_t end_us = measure_us + (int64_t)(opt.measure_s * 1e6), next_us = start_us;
    double server_s = 0, own_s = 0;
    for (int i = 0; opt.per_s == 0 && i < opt.num_clients; i++)
        begin(&clients[i], 0, opt.osl * (i + 1) / opt.num_clients > 0 ? opt.osl * (i + 1) / opt.num_clients : 1);
    for (struct epoll_event ready[MAX_READY];;) {
        int64_t now = now_us();
        if (!is_measuring && now >= measure_us) {
            is_measuring = 1;
            measure_us = now;
            server_s = servers_cpu_s();
            own_s = cpu_s(CLOCK_PROCESS_CPUTIME_ID);
        }
        if (is_measuring && opt.max_requests >= 0 ? counts.answers + counts.errors >= opt.max_requests : now >= end_us)
            break;
        if (opt.per_s > 0)
            next_us = start_due(next_us);
        int64_t wake_us = is_measuring ? end_us : measure_us;
        wake_us = opt.per_s > 0 && next_us < wake_us ? next_us : wake_us;
        int64_t wait_ms = (wake_us - now_us()) / 1000;
        int num_ready = epoll_wait(epoll_fd, ready, MAX_READY, wait_ms < 0 ? 0 : wait_ms > 100 ? 100 : (int)wait_ms);
        for (int i = 0; i < num_ready; i++) {
            struct client *c = ready[i].data.ptr;
            c->state == SENDING ? send_more(c) : receive(c);
        }
    }
    double wall_s = (double)(now_us() - measure_us) / 1e6;
    server_s = servers_cpu_s() - server_s;
    own_s = cpu_s(CLOCK_PROCESS_CPUTIME_ID) - own_s;
    report(wall_s, server_s, own_s);
    return 0;
}
