/* Bytes that grow, and what the fake engine and the load say with them. */
#ifndef BUFFER_H
#define BUFFER_H
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct buffer { char *data; size_t len, cap; };

static inline int64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000LL + t.tv_nsec / 1000;
}

static inline void reserve(struct buffer *b, size_t more)
{
    if (b->len + more <= b->cap)
        return;
    b->cap = 2 * (b->len + more);
    b->data = realloc(b->data, b->cap);
    if (!b->data)
        abort();
}

static inline void put(struct buffer *b, const char *data, size_t len)
{
    reserve(b, len);
    memcpy(b->data + b->len, data, len);
    b->len += len;
}

__attribute__((format(printf, 2, 3))) static inline void say(struct buffer *b, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int len = vsnprintf(NULL, 0, format, args);
    reserve(b, (size_t)len + 1);
    vsnprintf(b->data + b->len, (size_t)len + 1, format, again);
    b->len += (size_t)len;
    va_end(args);
    va_end(again);
}

#endif
