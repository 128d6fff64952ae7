/*
 * What is to fail: rules in a control file that the harness writes and this library sees at once, for both have it in memory.
 *
 *     offset  0  u64  generation: counted up by the harness when it has written new rules
 *             8  i64  what is added to the clock, in nanoseconds
 *            16  u64  changes of the disk that this process has made (written here)
 *            32  u64  for each of 32 rules: how many calls have met it (written here)
 *          4096       the rules, a line each, NUL after the last
 *
 * A rule: calls, joined by commas; what happens; its argument; at which meeting it begins; how often (0: always); for which paths
 * (fnmatch(3)). What happens: `fail ERRNO`, `slow MILLISECONDS`, `short BYTES` (so many bytes are written, then ENOSPC), `torn BYTES`
 * (so many bytes are written, then the process dies), `lie 0` (a sync is answered and not made). A line `cut N` kills the process when it has made N changes.
 *
 * With MILLPOND_DISK_TRACE each call is written down there, as text: its kinds (enum call) as a number, the error that it was given
 * or 0, its path. What the process says on stderr stands there too, as a call of no kind: the first line of it in place of a path.
 */
#include "preload.h"

#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define RULES 32
#define TEXT_AT 4096
#define CONTROL_BYTES 16384

struct control {
    _Atomic uint64_t generation;
    _Atomic int64_t clock_offset_ns;
    _Atomic uint64_t operations;
    uint64_t unused;
    _Atomic uint64_t met[RULES];
};

enum action { FAIL, SLOW, SHORT, TORN, LIE };

struct rule {
    unsigned calls;
    enum action action;
    long argument;
    uint64_t from;
    uint64_t times;
    char paths[PATH_MAX];
};

static struct control *control;
static char under[PATH_MAX];
static size_t under_length;

static pthread_mutex_t rules_lock = PTHREAD_MUTEX_INITIALIZER;
static struct rule rules[RULES];
static int rules_count;
static uint64_t rules_generation;
static uint64_t cut_after;
static int trace_fd = -1;

/* A harness that is told nothing would think that faults do not matter. */
static _Noreturn void refuse(const char *what, const char *which)
{
    fprintf(stderr, "the preloaded disk cannot work: %s: %s\n", what, which);
    _exit(99);
}

/* Out of the way: a process may expect the small numbers for itself. */
int open_apart(const char *path)
{
    int fd = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_APPEND | O_CLOEXEC);
    if (fd < 0)
        refuse("cannot write", path);
    int apart = fcntl(fd, F_DUPFD_CLOEXEC, 500);
    close(fd);
    return apart;
}

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("MILLPOND_DISK"), *part = getenv("MILLPOND_DISK_UNDER");
    const char *journal = getenv("MILLPOND_DISK_JOURNAL"), *trace = getenv("MILLPOND_DISK_TRACE");
    /* Programs that this process starts are not meant. */
    unsetenv("LD_PRELOAD");
    if (!path)
        return;
    if (!part || part[0] != '/' || strlen(part) >= sizeof under)
        refuse("MILLPOND_DISK_UNDER is no absolute path", part ? part : "");
    int fd = syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        refuse("no control file", path);
    void *memory = mmap(NULL, CONTROL_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED)
        refuse("the control file cannot be had in memory", path);
    close(fd);
    strcpy(under, part);
    under_length = strlen(under);
    if (journal)
        journal_open(journal);
    if (trace)
        trace_fd = open_apart(trace);
    control = memory;
    control->operations = 0;
}

static unsigned calls_of(char *text)
{
    static const struct { const char *name; unsigned call; } names[] = {
        {"open", CALL_OPEN}, {"create", CALL_CREATE}, {"mkdir", CALL_MKDIR}, {"link", CALL_LINK},
        {"rename", CALL_RENAME}, {"remove", CALL_REMOVE}, {"write", CALL_WRITE}, {"grow", CALL_GROW},
        {"truncate", CALL_TRUNCATE}, {"read", CALL_READ}, {"sync", CALL_SYNC}, {"sync-directory", CALL_SYNC_DIRECTORY},
    };
    unsigned calls = 0;
    char *rest = NULL;
    for (char *name = strtok_r(text, ",", &rest); name; name = strtok_r(NULL, ",", &rest)) {
        size_t i = 0, count = sizeof names / sizeof *names;
        while (i < count && strcmp(names[i].name, name) != 0)
            i++;
        if (i == count)
            refuse("no such call", name);
        calls |= names[i].call;
    }
    return calls;
}

static enum action action_of(const char *text)
{
    static const char *const names[] = {"fail", "slow", "short", "torn", "lie"};
    for (int i = 0; i < 5; i++)
        if (strcmp(names[i], text) == 0)
            return (enum action)i;
    refuse("no such action", text);
}

/* Reads the rules anew; the lock is held. */
static void read_rules(uint64_t generation)
{
    char text[CONTROL_BYTES - TEXT_AT + 1];
    memcpy(text, (char *)control + TEXT_AT, sizeof text - 1);
    text[sizeof text - 1] = 0;
    rules_count = 0;
    cut_after = 0;
    char *rest = NULL;
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        char calls[256], action[16];
        struct rule *rule = &rules[rules_count];
        if (sscanf(line, "cut %lu", &cut_after) == 1)
            continue;
        if (rules_count == RULES || sscanf(line, "%255s %15s %ld %lu %lu %4095s", calls, action, &rule->argument,
                                           &rule->from, &rule->times, rule->paths) != 6)
            refuse("no rule", line);
        rule->calls = calls_of(calls);
        rule->action = action_of(action);
        control->met[rules_count] = 0;
        rules_count++;
    }
    rules_generation = generation;
}

/* The rules as they are now; the lock is held. */
static void refresh(void)
{
    uint64_t generation = atomic_load_explicit(&control->generation, memory_order_acquire);
    if (generation != rules_generation)
        read_rules(generation);
}

bool watches(const char *path)
{
    return control && strncmp(path, under, under_length) == 0
        && (path[under_length] == '/' || path[under_length] == 0);
}

static void trace(unsigned calls, int error, const char *path)
{
    char line[PATH_MAX + 32];
    int saved = errno, length = snprintf(line, sizeof line, "%u %d %s\n", calls, error, path);
    if (syscall(SYS_write, trace_fd, line, length) != length)
        refuse("cannot write", "the trace");
    errno = saved;
}

void trace_words(const char *words, size_t length)
{
    char line[80];
    size_t end = 0;
    if (trace_fd < 0)
        return;
    while (end < length && end < sizeof line - 1 && words[end] != '\n')
        end++;
    memcpy(line, words, end);
    line[end] = 0;
    trace(0, 0, line);
}

struct verdict consult(unsigned calls, const char *path)
{
    struct verdict verdict = {.error = 0, .bytes = -1, .die = false};
    long wait_ms = 0;
    pthread_mutex_lock(&rules_lock);
    refresh();
    for (int i = 0; i < rules_count; i++) {
        const struct rule *rule = &rules[i];
        if (!(rule->calls & calls) || fnmatch(rule->paths, path, 0) != 0)
            continue;
        uint64_t meeting = ++control->met[i];
        if (meeting < rule->from || (rule->times && meeting >= rule->from + rule->times))
            continue;
        switch (rule->action) {
        case FAIL:
            verdict = (struct verdict){.error = (int)rule->argument, .bytes = 0, .die = false};
            break;
        case SLOW:
            wait_ms += rule->argument;
            break;
        case SHORT:
            verdict = (struct verdict){.error = ENOSPC, .bytes = rule->argument, .die = false};
            break;
        case TORN:
            verdict = (struct verdict){.error = EIO, .bytes = rule->argument, .die = true};
            break;
        case LIE:
            verdict.lie = true;
            break;
        }
    }
    /* Under the lock: the lines stand in the order in which rules were met. */
    if (trace_fd >= 0)
        trace(calls, verdict.error, path);
    pthread_mutex_unlock(&rules_lock);
    if (wait_ms) {
        struct timespec time = {.tv_sec = wait_ms / 1000, .tv_nsec = wait_ms % 1000 * 1000000};
        while (syscall(SYS_nanosleep, &time, &time) != 0 && errno == EINTR)
            ;
    }
    return verdict;
}

int64_t clock_offset_ns(void)
{
    return control ? atomic_load_explicit(&control->clock_offset_ns, memory_order_relaxed) : 0;
}

/* One more change of the disk; the journal's lock is held, so the one at which the process is cut off is the last. */
void count_operation(void)
{
    uint64_t operations = ++control->operations;
    pthread_mutex_lock(&rules_lock);
    refresh();
    bool cut = cut_after && operations >= cut_after;
    pthread_mutex_unlock(&rules_lock);
    if (cut)
        die();
}

_Noreturn void die(void)
{
    syscall(SYS_kill, getpid(), SIGKILL);
    for (;;)
        pause();
}

/* Takes out `//`, `/./` and a `/` at the end. */
static void tidy(char *path)
{
    char *to = path;
    for (const char *from = path; *from; from++) {
        if (from[0] == '/' && (from[1] == '/' || from[1] == 0))
            continue;
        if (from[0] == '/' && from[1] == '.' && (from[2] == '/' || from[2] == 0)) {
            from++;
            continue;
        }
        *to++ = *from;
    }
    *to = 0;
}

bool path_of(int fd, char path[PATH_MAX])
{
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = syscall(SYS_readlinkat, AT_FDCWD, link, path, PATH_MAX - 1);
    if (length <= 0)
        return false;
    path[length] = 0;
    return true;
}

bool whole_path(int directory, const char *path, char whole[PATH_MAX])
{
    int saved = errno;
    bool known = true;
    if (!control || !path)
        return false;
    if (path[0] == '/') {
        known = strlen(path) < PATH_MAX;
        if (known)
            strcpy(whole, path);
    } else {
        known = directory == AT_FDCWD ? getcwd(whole, PATH_MAX) != NULL : path_of(directory, whole);
        known = known && strlen(whole) + 1 + strlen(path) < PATH_MAX;
        if (known) {
            strcat(whole, "/");
            strcat(whole, path);
        }
    }
    if (known)
        tidy(whole);
    errno = saved;
    return known;
}
