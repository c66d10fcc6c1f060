// The last words of a process that C++ ends: one line on stderr and an exit code, in place of an assertion's dump, an
// uncaught exception's, or a signal.
//
// The exit is immediate: no destructor runs in a process whose memory may be damaged. Everything after `begin` is
// async-signal-safe.

#include "ggml.h"

#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <exception>
#include <initializer_list>

#include <unistd.h>

#ifdef __linux__
#include <sys/syscall.h>
#endif

namespace {

char prefix[512];
int exit_code = 1;
std::atomic_flag speaking = ATOMIC_FLAG_INIT;

// As one line of bounded length.
void say(const char * text, size_t most) {
    char line[1024];
    size_t length = 0;
    for (; text[length] != '\0' && length < most && length < sizeof(line); length++) {
        const char c = text[length];
        line[length] = c == '\n' || c == '\r' ? ' ' : c;
    }
    // Nowhere is left to report that stderr is closed.
    ssize_t ignored = write(STDERR_FILENO, line, length);
    (void) ignored;
}

// What a user can do about it, where that is known.
const char * advice(const char * what) {
    for (const char * words : {"DeviceLost", "OutOfDeviceMemory", "OutOfHostMemory", "out of memory", "CUDA error"}) {
        if (strstr(what, words) != nullptr) {
            return " (the GPU's memory is full: use less of it with --vram; or its driver has lost it)";
        }
    }
    return "";
}

[[noreturn]] void die(const char * what) {
    // The first thread that fails speaks for all.
    while (speaking.test_and_set()) {
        pause();
    }
    say(prefix, sizeof(prefix));
    say(what, 600);
    say(advice(what), 600);
    const char end = '\n';
    ssize_t ignored = write(STDERR_FILENO, &end, 1);
    (void) ignored;
    _exit(exit_code);
}

void on_abort(const char * message) {
    // Without the path of the source.
    const char * file = strrchr(message, '/');
    die(file != nullptr ? file + 1 : message);
}

[[noreturn]] void on_terminate() {
    if (const std::exception_ptr thrown = std::current_exception()) {
        try {
            std::rethrow_exception(thrown);
        } catch (const std::exception & e) {
            die(e.what());
        } catch (...) {
            die("an exception without a message");
        }
    }
    die("terminated");
}

void on_signal(int signal) {
    switch (signal) {
        case SIGSEGV: die("segmentation fault, or the stack is exhausted");
        case SIGBUS: die("bus error: a file that is mapped became shorter, or its disk failed");
        case SIGILL: die("illegal instruction");
        case SIGFPE: die("arithmetic error");
        default: die("aborted");
    }
}

#ifdef __linux__
// System calls that a filter forbids and that have a name people know.
const char * name_of_call(int number) {
    switch (number) {
        case SYS_execve:
        case SYS_execveat: return "execve";
        case SYS_ptrace: return "ptrace";
        case SYS_process_vm_readv: return "process_vm_readv";
        case SYS_process_vm_writev: return "process_vm_writev";
        case SYS_mount: return "mount";
        case SYS_unshare: return "unshare";
        case SYS_setns: return "setns";
        case SYS_bpf: return "bpf";
        case SYS_keyctl: return "keyctl";
        case SYS_init_module:
        case SYS_finit_module: return "init_module";
        default: return nullptr;
    }
}

void on_forbidden_call(int, siginfo_t * info, void *) {
    char what[96];
    const char * name = name_of_call(info->si_syscall);
    if (name == nullptr) {
        // Nobody may call snprintf here.
        strcpy(what, "system call ");
        char digits[16];
        int at = sizeof(digits);
        digits[--at] = '\0';
        for (unsigned left = (unsigned) info->si_syscall; left > 0 && at > 0; left /= 10) {
            digits[--at] = (char) ('0' + left % 10);
        }
        strcat(what, digits + at);
    } else {
        strcpy(what, name);
    }
    strcat(what, ": a system call that no model needs was made, and forbidden");
    die(what);
}
#endif

} // namespace

// Ends the process as a failed assertion would.
extern "C" void hypura_crash(const char * what) {
    die(what);
}

extern "C" void hypura_crash_install(const char * words, int code) {
    snprintf(prefix, sizeof(prefix), "%s", words);
    exit_code = code;
    ggml_set_abort_callback(on_abort);
    std::set_terminate(on_terminate);
    struct sigaction action = {};
    action.sa_handler = on_signal;
    action.sa_flags = SA_ONSTACK;
    sigemptyset(&action.sa_mask);
    for (int signal : {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT}) {
        sigaction(signal, &action, nullptr);
    }
#ifdef __linux__
    struct sigaction forbidden = {};
    forbidden.sa_sigaction = on_forbidden_call;
    forbidden.sa_flags = SA_ONSTACK | SA_SIGINFO;
    sigemptyset(&forbidden.sa_mask);
    sigaction(SIGSYS, &forbidden, nullptr);
#endif
}
