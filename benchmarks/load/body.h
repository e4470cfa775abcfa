/* What the fake engine reads of a request's body: good enough for the bodies of this benchmark. */
#ifndef BODY_H
#define BODY_H
#include "buffer.h"

enum { LONG_STRING_BYTES = 512 };

/* Copies a body without what stands in its long strings, which then need no search; returns their words. */
static inline long skim(const char *body, struct buffer *skimmed)
{
    long words = 0;
    const char *at = body, *open;
    while ((open = strchr(at, '"'))) {
        const char *close = strchr(open + 1, '"');
        while (close && close[-1] == '\\')
            close = strchr(close + 1, '"');
        if (!close)
            break;
        put(skimmed, at, (size_t)(open + 1 - at));
        if (close - open > LONG_STRING_BYTES)
            for (const char *c = (words++, open + 1); c < close; c++)
                words += *c == ' ';
        else
            put(skimmed, open + 1, (size_t)(close - open - 1));
        put(skimmed, "\"", 1);
        at = close + 1;
    }
    put(skimmed, at, strlen(at) + 1);
    return words;
}

/* The value of a JSON key, wherever it stands; NULL when it is not there. */
static inline const char *value_of(const char *body, const char *key)
{
    const char *at = strstr(body, key);
    if (!at)
        return NULL;
    for (at += strlen(key); *at == ' ' || *at == ':'; at++)
        ;
    return at;
}

static inline long num_words(const char *body)
{
    const char *at = value_of(body, "\"prompt\"");
    if (!at)
        at = value_of(body, "\"content\"");
    if (!at)
        return 1;
    char separator = *at == '[' ? ',' : ' ', end = *at == '[' ? ']' : '"';
    long n = 1;
    for (at++; *at && *at != end; at++) {
        if (*at == '\\' && at[1])
            at++;
        n += *at == separator;
    }
    return n;
}

#endif
