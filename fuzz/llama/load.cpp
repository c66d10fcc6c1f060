// What llama.cpp does with the GGUF files of strangers, for sanitizers: each file is loaded in a process of its own, reads
// and writes text, and computes a few tokens.
//
// Usage: load FILE...   prints one line for each file that a sanitizer objects to, and a summary; exit code 1 if there are any.
//
// Refusals, exceptions and failed assertions are what the program around llama.cpp expects and contains; memory errors and
// undefined behaviour are what is looked for here.

#include "ggml.h"
#include "llama.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

namespace {

// Exit codes of a child. Sanitizers end with the last one: see scripts/sanitize-llama.sh.
enum Outcome { COMPUTED = 0, REFUSED = 2, ASSERTED = 3, FOUND = 99 };

constexpr unsigned CPU_SECONDS = 120;
constexpr int CONTEXT = 64;

void on_assertion(const char * message) {
    fprintf(stderr, "%s\n", message);
    _exit(ASSERTED);
}

int compute(llama_model * model, const std::vector<llama_token> & tokens) {
    llama_context_params params = llama_context_default_params();
    params.n_ctx = CONTEXT;
    params.n_batch = params.n_ubatch = CONTEXT;
    params.n_threads = params.n_threads_batch = 1;
    llama_context * context = llama_init_from_model(model, params);
    if (context == nullptr) {
        return REFUSED;
    }
    const int vocabulary = llama_vocab_n_tokens(llama_model_get_vocab(model));
    std::vector<llama_token> next = tokens;
    for (int step = 0; step < 3 && !next.empty(); step++) {
        const llama_batch batch = llama_batch_get_one(next.data(), (int32_t) next.size());
        const int status = llama_model_has_encoder(model) ? llama_encode(context, batch) : llama_decode(context, batch);
        const float * logits = status == 0 ? llama_get_logits_ith(context, -1) : nullptr;
        if (logits == nullptr) {
            break;
        }
        llama_token best = 0;
        for (llama_token token = 1; token < vocabulary; token++) {
            best = logits[token] > logits[best] ? token : best;
        }
        next.assign(1, best);
    }
    llama_free(context);
    return COMPUTED;
}

int load(const char * path) {
    llama_model_params params = llama_model_default_params();
    params.load_mode = LLAMA_LOAD_MODE_NONE;
    params.check_tensors = true;
    llama_model * model = llama_model_load_from_file(path, params);
    if (model == nullptr) {
        return REFUSED;
    }
    const llama_vocab * vocab = llama_model_get_vocab(model);
    const char text[] = "What is a lynx? \xc3\xa4\xf0\x9f\x90\xb1 1234567 <s></s>\n\n";
    std::vector<llama_token> tokens(CONTEXT / 2);
    const int count = llama_tokenize(vocab, text, (int32_t) strlen(text), tokens.data(), (int32_t) tokens.size(), true, true);
    tokens.resize(count > 0 ? count : 0);
    for (const llama_token token : tokens) {
        char piece[64];
        llama_token_to_piece(vocab, token, piece, sizeof(piece), 0, true);
    }
    const char * chat = llama_model_chat_template(model, nullptr);
    const llama_chat_message message = { "user", text };
    std::vector<char> prompt(4096);
    llama_chat_apply_template(chat, &message, 1, true, prompt.data(), (int32_t) prompt.size());
    const int outcome = compute(model, tokens);
    llama_model_free(model);
    return outcome;
}

// Whether a sanitizer only says that there is no more memory: an error of the allocator is what bounds the program, too.
bool is_out_of_memory(const std::string & log) {
    std::ifstream in(log);
    const std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
    for (const char * words : { "out of memory", "rss limit exhausted", "allocation-size-too-big", "exceeds maximum supported" }) {
        if (text.find(words) != std::string::npos) {
            return true;
        }
    }
    return false;
}

int in_child(const char * path, const std::string & log) {
    const pid_t child = fork();
    if (child < 0) {
        perror("fork");
        exit(2);
    }
    if (child == 0) {
        const int out = open(log.c_str(), O_CREAT | O_TRUNC | O_WRONLY, 0600);
        dup2(out, STDOUT_FILENO);
        dup2(out, STDERR_FILENO);
        const rlimit cpu = { CPU_SECONDS, CPU_SECONDS };
        setrlimit(RLIMIT_CPU, &cpu);
        ggml_set_abort_callback(on_assertion);
        int outcome = REFUSED;
        try {
            outcome = load(path);
        } catch (const std::exception & e) {
            fprintf(stderr, "%s\n", e.what());
        }
        _exit(outcome);
    }
    int status = 0;
    waitpid(child, &status, 0);
    return status;
}

} // namespace

int main(int argc, char ** argv) {
    int counts[4] = {}, found = 0, late = 0;
    for (int at = 1; at < argc; at++) {
        const std::string log = std::string(argv[at]) + ".log";
        const int status = in_child(argv[at], log);
        if (WIFEXITED(status) && WEXITSTATUS(status) <= ASSERTED) {
            counts[WEXITSTATUS(status)]++;
            unlink(log.c_str());
        } else if ((WIFSIGNALED(status) && (WTERMSIG(status) == SIGXCPU || WTERMSIG(status) == SIGKILL)) || is_out_of_memory(log)) {
            late++;
            unlink(log.c_str());
        } else {
            found++;
            printf("FOUND: %s: status %d, see %s\n", argv[at], status, log.c_str());
        }
    }
    printf("%d files: %d computed, %d refused, %d failed assertions, %d out of time or memory, %d findings\n", argc - 1,
        counts[COMPUTED], counts[REFUSED], counts[ASSERTED], late, found);
    return found == 0 ? 0 : 1;
}
