/* What the fake engines answer: the texts of vLLM 0.32, a token being a word, the same for the same prompt. */
#ifndef ANSWERS_H
#define ANSWERS_H
#include "buffer.h"

enum { MAX_LOGPROBS = 64 };
#define CHUNK                                                                                                          \
    "data: {\"id\":\"chatcmpl-0123456789abcdef0123456789abcdef\",\"object\":\"chat.completion.chunk\","                \
    "\"created\":1764000000,\"model\":\"m\",\"choices\":["

struct engine { int listener, port, is_prefill; long num_requests, num_computed, num_received; };
struct ask { int is_chat, wants_logprobs; long osl, num_prompt_tokens; };

static void put_logprobs(struct buffer *b, long osl)
{
    osl = osl < MAX_LOGPROBS ? osl : MAX_LOGPROBS;
    say(b, ",\"token_ids\":[");
    for (long i = 0; i < osl; i++)
        say(b, i ? ",%ld" : "%ld", 17 + i);
    say(b, "],\"logprobs\":{\"text_offset\":[],\"tokens\":[],\"token_logprobs\":[");
    for (long i = 0; i < osl; i++)
        say(b, "%s-0.125", i ? "," : "");
    say(b, "],\"top_logprobs\":[");
    for (long i = 0; i < osl; i++)
        say(b, "%s{\" word\":-0.125,\" other\":-4.5}", i ? "," : "");
    say(b, "]}");
}

/* A whole, unstreamed completion; a prefill rank's offers its KV. */
static void put_completion(struct buffer *b, const struct engine *e, const struct ask *a)
{
    say(b, "{\"id\":\"cmpl-0123456789abcdef0123456789abcdef\",\"object\":\"%s\",\"created\":1764000000,\"model\":\"m\","
        "\"choices\":[{\"index\":0,", a->is_chat ? "chat.completion" : "text_completion");
    say(b, a->is_chat ? "\"message\":{\"role\":\"assistant\",\"content\":\"" : "\"text\":\"");
    for (long i = 0; i < a->osl; i++)
        put(b, " word", 5);
    say(b, a->is_chat ? "\"}" : "\"");
    if (a->wants_logprobs)
        put_logprobs(b, a->osl);
    say(b, ",\"finish_reason\":\"length\",\"stop_reason\":null}],\"usage\":{\"prompt_tokens\":%ld,\"total_tokens\":%ld,"
        "\"completion_tokens\":%ld,\"prompt_tokens_details\":null},\"kv_transfer_params\":", a->num_prompt_tokens,
        a->num_prompt_tokens + a->osl, a->osl);
    if (e->is_prefill)
        say(b, "{\"do_remote_prefill\":true,\"do_remote_decode\":false,\"remote_block_ids\":[[17,18,19]],"
            "\"remote_engine_id\":\"5ab9e9b0-6b4e-4c53-a8b6-6d2f3c1f0e%02d\",\"remote_request_id\":\"cmpl-0123456789\","
            "\"remote_host\":\"127.0.0.1\",\"remote_port\":%d,\"tp_size\":1}}", e->port % 100, e->port);
    else
        say(b, "null}");
}

static void put_chunk(struct buffer *out, const struct buffer *event)
{
    say(out, "%zx\r\n", event->len);
    put(out, event->data, event->len);
    put(out, "\r\n", 2);
}

/* One event of a stream; with `waited_us` >= 0 its text is that figure. */
static void put_event(struct buffer *out, int64_t waited_us, int is_last)
{
    struct buffer b = {0};
    say(&b, CHUNK "{\"index\":0,\"delta\":{\"content\":\"");
    if (waited_us >= 0)
        say(&b, "w%08ld", (long)waited_us);
    else
        say(&b, " word");
    say(&b, "\"},\"logprobs\":null,\"finish_reason\":%s,\"token_ids\":null}]}\n\n", is_last ? "\"length\"" : "null");
    put_chunk(out, &b);
    free(b.data);
}

static void put_end(struct buffer *out, int wants_usage, long num_prompt_tokens, long osl)
{
    struct buffer b = {0};
    if (wants_usage) {
        say(&b, CHUNK "],\"usage\":{\"prompt_tokens\":%ld,\"total_tokens\":%ld,\"completion_tokens\":%ld}}\n\n",
            num_prompt_tokens, num_prompt_tokens + osl, osl);
        put_chunk(out, &b);
        b.len = 0;
    }
    say(&b, "data: [DONE]\n\n");
    put_chunk(out, &b);
    say(out, "0\r\n\r\n");
    free(b.data);
}

static void put_metrics(struct buffer *b, const struct engine *e)
{
    say(b, "# TYPE vllm:cache_config_info gauge\n"
        "vllm:cache_config_info{block_size=\"16\",cache_dtype=\"auto\",engine=\"0\",num_gpu_blocks=\"65536\"} 1.0\n"
        "# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running{engine=\"0\",model_name=\"m\"} 0.0\n"
        "# TYPE vllm:num_requests_waiting gauge\nvllm:num_requests_waiting{engine=\"0\",model_name=\"m\"} 0.0\n"
        "# TYPE vllm:prompt_tokens_by_source counter\n");
    const char *sources[] = {"local_compute", "local_cache_hit", "external_kv_transfer"};
    long counts[] = {e->num_computed, 0, e->num_received};
    for (int i = 0; i < 3; i++)
        say(b, "vllm:prompt_tokens_by_source_total{engine=\"0\",model_name=\"m\",source=\"%s\"} %ld.0\n", sources[i],
            counts[i]);
    say(b, "# TYPE fake:requests counter\nfake:requests_total %ld\n", e->num_requests);
}

/* What a router asks of an engine before it sends requests; returns the content type. */
static const char *put_description(struct buffer *b, const struct engine *e, const char *path)
{
    if (!strncmp(path, "/metrics", 8)) {
        put_metrics(b, e);
        return "text/plain; version=0.0.4; charset=utf-8";
    }
    if (!strncmp(path, "/v1/models", 10))
        say(b, "{\"object\":\"list\",\"data\":[{\"id\":\"m\",\"object\":\"model\",\"created\":1,\"owned_by\":\"vllm\","
            "\"root\":\"m\",\"parent\":null,\"max_model_len\":131072}]}");
    else if (!strncmp(path, "/version", 8))
        say(b, "{\"version\":\"0.32.0\"}");
    else
        say(b, "{\"status\":\"ok\",\"model_path\":\"m\",\"model_id\":\"m\",\"served_model_name\":\"m\","
            "\"tokenizer_path\":\"m\",\"is_generation\":true,\"version\":\"0.5\",\"dp_size\":1,\"tp_size\":1,"
            "\"max_running_requests\":4096,\"internal_states\":[{}]}");
    return "application/json";
}
#endif
