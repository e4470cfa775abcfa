/* Fake engines for benchmarks/gateway.py: prefill and decode ranks in one process on one epoll loop.
 *
 *     engine STEP_US ROLE:PORT...        ROLE is prefill, or decode (which also serves whole requests alone)
 *
 * A stream's head goes out at once, as vLLM's does; then every running stream gets one event in each step of STEP_US.
 * The first event's text is how long the engine took for it ("w00001234", microseconds), so that the load can take
 * that off. Unstreamed requests are answered at once. A prefill rank that is sent a stream ends it after one event.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "answers.h"
#include "body.h"

enum { MAX_ENGINES = 16, MAX_READY = 512, READ_BYTES = 1 << 16 };

struct conn {
    int fd, waits_to_write, is_dead, wants_usage;
    struct engine *engine;
    struct buffer in, out;
    long left, osl, num_prompt_tokens; /* left: events still to come; 0 when no stream runs */
    int64_t asked_us;
    struct conn *next, *previous; /* in the list of running streams, or (next) of the dead */
};

static int epoll_fd;
static struct engine engines[MAX_ENGINES];
static int num_engines;
static struct conn running = {.next = &running, .previous = &running};
static struct conn *dead; /* freed after the batch of ready events in which they died */

static void stop_stream(struct conn *c)
{
    if (c->next) {
        c->next->previous = c->previous;
        c->previous->next = c->next;
        c->next = c->previous = NULL;
    }
    c->left = 0;
}

static void bury(struct conn *c)
{
    if (c->is_dead)
        return;
    stop_stream(c);
    close(c->fd);
    c->is_dead = 1;
    c->next = dead;
    dead = c;
}

static void flush(struct conn *c)
{
    size_t sent = 0;
    while (sent < c->out.len) {
        ssize_t n = send(c->fd, c->out.data + sent, c->out.len - sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN)
            break;
        if (n < 0) {
            bury(c);
            return;
        }
        sent += (size_t)n;
    }
    c->out.len -= sent;
    if (sent && c->out.len)
        memmove(c->out.data, c->out.data + sent, c->out.len);
    if ((c->out.len > 0) != c->waits_to_write) {
        c->waits_to_write = c->out.len > 0;
        struct epoll_event e = {EPOLLIN | (c->waits_to_write ? EPOLLOUT : 0), {.ptr = c}};
        epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &e);
    }
}

static void answer(struct conn *c, const char *status, const char *type, struct buffer *body)
{
    say(&c->out, "HTTP/1.1 %s\r\nserver: uvicorn\r\ncontent-type: %s\r\ncontent-length: %zu\r\n\r\n", status, type,
        body->len);
    put(&c->out, body->data, body->len);
    free(body->data);
}

static void step(struct conn *c)
{
    static struct buffer same; /* all events but a stream's first and last are the same bytes */
    if (!same.len)
        put_event(&same, -1, 0);
    if (c->left == c->osl || c->left == 1)
        put_event(&c->out, c->left == c->osl ? now_us() - c->asked_us : -1, c->left == 1);
    else
        put(&c->out, same.data, same.len);
    if (--c->left == 0) {
        put_end(&c->out, c->wants_usage, c->num_prompt_tokens, c->osl);
        stop_stream(c);
    }
    flush(c);
}

static void start_stream(struct conn *c)
{
    say(&c->out, "HTTP/1.1 200 OK\r\nserver: uvicorn\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
        "transfer-encoding: chunked\r\n\r\n");
    c->asked_us = now_us();
    if (c->engine->is_prefill)
        c->osl = 1;
    c->left = c->osl;
    if (c->engine->is_prefill) {
        step(c);
        return;
    }
    c->next = running.next;
    c->previous = &running;
    running.next->previous = c;
    running.next = c;
}

static int is_true(const char *body, const char *key)
{
    const char *at = value_of(body, key);
    return at && *at == 't';
}

static void generate(struct conn *c, int is_chat, const char *whole_body)
{
    struct buffer skimmed = {0};
    long num_long_words = skim(whole_body, &skimmed);
    const char *body = skimmed.data, *at = value_of(body, "\"max_completion_tokens\"");
    if (!at)
        at = value_of(body, "\"max_tokens\"");
    c->osl = at && atol(at) > 0 ? atol(at) : 16;
    c->num_prompt_tokens = num_long_words ? num_long_words : num_words(body);
    c->wants_usage = is_true(body, "\"include_usage\"");
    c->engine->num_requests++;
    int is_received = !c->engine->is_prefill && is_true(body, "\"do_remote_prefill\"");
    *(is_received ? &c->engine->num_received : &c->engine->num_computed) += c->num_prompt_tokens;
    struct buffer b = {0};
    if ((at = value_of(body, "\"temperature\"")) && *at == '-') { /* how a gateway has KV released */
        say(&b, "{\"error\":{\"message\":\"temperature must be >= 0\",\"type\":\"BadRequestError\",\"code\":400}}");
        answer(c, "400 Bad Request", "application/json", &b);
    } else if (is_true(body, "\"stream\""))
        start_stream(c);
    else {
        at = value_of(body, "\"logprobs\"");
        struct ask a = {is_chat, at && *at != 'f' && *at != 'n', c->osl, c->num_prompt_tokens};
        put_completion(&b, c->engine, &a);
        answer(c, "200 OK", "application/json", &b);
    }
    free(skimmed.data);
}

/* Serves the requests that are whole; one at a time, as no client here sends the next before the answer. */
static void serve(struct conn *c)
{
    while (!c->left && !c->is_dead) {
        char *end = memmem(c->in.data, c->in.len, "\r\n\r\n", 4);
        if (!end)
            return;
        *end = 0;
        const char *length = strcasestr(c->in.data, "\r\ncontent-length:");
        size_t whole = (size_t)(end + 4 - c->in.data) + (length ? (size_t)atol(length + 17) : 0);
        if (c->in.len < whole) {
            *end = '\r';
            return;
        }
        const char *path = strchr(c->in.data, ' ');
        if (!path++ || !strncmp(c->in.data, "PRI ", 4)) { /* sglang-router tries gRPC, that is HTTP/2, first */
            bury(c);
            return;
        }
        char kept = c->in.data[whole]; /* reserve() leaves a byte for this */
        c->in.data[whole] = 0;
        if (!strncmp(c->in.data, "POST", 4) && memmem(path, 24, "completions", 11))
            generate(c, !strncmp(path, "/v1/chat", 8), end + 4);
        else {
            struct buffer b = {0};
            const char *type = put_description(&b, c->engine, path);
            answer(c, "200 OK", type, &b);
        }
        c->in.data[whole] = kept;
        c->in.len -= whole;
        memmove(c->in.data, c->in.data + whole, c->in.len);
        flush(c);
    }
}

static void receive(struct conn *c)
{
    reserve(&c->in, READ_BYTES + 1);
    ssize_t n = recv(c->fd, c->in.data + c->in.len, READ_BYTES, 0);
    if (n == 0 || (n < 0 && errno != EAGAIN))
        bury(c);
    else if (n > 0) {
        c->in.len += (size_t)n;
        serve(c);
    }
}

static void accept_all(struct engine *e)
{
    int fd, on = 1;
    while ((fd = accept4(e->listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        struct conn *c = calloc(1, sizeof *c);
        c->fd = fd;
        c->engine = e;
        struct epoll_event event = {EPOLLIN, {.ptr = c}};
        epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event);
    }
}

static void tick(int timer)
{
    uint64_t num_steps;
    if (read(timer, &num_steps, sizeof num_steps) < 0)
        return;
    for (struct conn *c = running.next, *next; c != &running; c = next) {
        next = c->next;
        step(c);
        if (!c->left)
            serve(c);
    }
}

static void listen_on(struct engine *e, const char *role_and_port)
{
    int on = 1;
    e->is_prefill = !strncmp(role_and_port, "prefill:", 8);
    e->port = atoi(strchr(role_and_port, ':') + 1);
    e->listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(e->listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(e->port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    if (bind(e->listener, (struct sockaddr *)&at, sizeof at) || listen(e->listener, 4096)) {
        perror(role_and_port);
        exit(1);
    }
    struct epoll_event event = {EPOLLIN, {.ptr = e}};
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, e->listener, &event);
}

int main(int argc, char **argv)
{
    epoll_fd = epoll_create1(0);
    for (int i = 2; i < argc && num_engines < MAX_ENGINES; i++)
        listen_on(&engines[num_engines++], argv[i]);
    long step_us = atol(argv[1]);
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    struct timespec period = {step_us / 1000000, step_us % 1000000 * 1000};
    timerfd_settime(timer, 0, &(struct itimerspec){period, period}, NULL);
    struct epoll_event ready[MAX_READY], ticks = {EPOLLIN, {.ptr = &timer}};
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, timer, &ticks);
    for (;;) {
        int num_ready = epoll_wait(epoll_fd, ready, MAX_READY, -1);
        for (int i = 0; i < num_ready; i++) {
            void *what = ready[i].data.ptr;
            struct conn *c = what;
            if (what == &timer)
                tick(timer);
            else if (what >= (void *)engines && what < (void *)(engines + MAX_ENGINES))
                accept_all(what);
            else if (!c->is_dead && ready[i].events & EPOLLOUT)
                flush(c);
            else if (!c->is_dead)
                receive(c);
        }
        while (dead) {
            struct conn *gone = dead;
            dead = gone->next;
            free(gone->in.data);
            free(gone->out.data);
            free(gone);
        }
    }
}
