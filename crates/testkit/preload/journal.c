/*
 * The journal: every change of the watched part of the disk in the order in which it was made, and every sync with its beginning and
 * its end. It outlives SIGKILL, as the page cache does.
 *
 * A change and its record are one step under one lock, so nothing is made that is not written down; SIGKILL from the
 * inside waits for the lock too (signals, below). A sync covers what was written down before it began.
 *
 * A record, little-endian as the machine is: kind u32, length of what follows the head u32, inode u64, number u64, then a name, two
 * names with a NUL between, or bytes.
 */
#include "preload.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static int journal = -1;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

struct head {
    uint32_t kind;
    uint32_t length;
    uint64_t inode;
    uint64_t number;
};

void journal_open(const char *path)
{
    journal = open_apart(path);
}

bool journal_on(void)
{
    return journal >= 0;
}

void journal_lock(void)
{
    pthread_mutex_lock(&lock);
}

void journal_unlock(void)
{
    pthread_mutex_unlock(&lock);
}

static void put(enum record kind, uint64_t inode, uint64_t number, const struct iovec rest[3])
{
    if (journal < 0) {
        count_operation();
        return;
    }
    int saved = errno;
    size_t length = rest[0].iov_len + rest[1].iov_len + rest[2].iov_len;
    struct head head = {.kind = kind, .length = (uint32_t)length, .inode = inode, .number = number};
    struct iovec all[4] = {{&head, sizeof head}, rest[0], rest[1], rest[2]};
    if (syscall(SYS_writev, journal, all, 4) != (ssize_t)(sizeof head + length)) {
        fprintf(stderr, "the preloaded disk cannot work: its journal cannot be written\n");
        _exit(99);
    }
    errno = saved;
    if (kind != RECORD_SYNC && kind != RECORD_SYNCED && kind != RECORD_SYNC_LOST)
        count_operation();
}

void journal_name(enum record kind, uint64_t inode, const char *path, const char *to)
{
    struct iovec rest[3] = {{(void *)path, strlen(path)}, {NULL, 0}, {NULL, 0}};
    if (to) {
        rest[1] = (struct iovec){(void *)"", 1};
        rest[2] = (struct iovec){(void *)to, strlen(to)};
    }
    put(kind, inode, 0, rest);
}

void journal_bytes(uint64_t inode, uint64_t offset, const void *bytes, size_t length)
{
    struct iovec rest[3] = {{(void *)bytes, length}, {NULL, 0}, {NULL, 0}};
    put(RECORD_WRITE, inode, offset, rest);
}

void journal_number(enum record kind, uint64_t inode, uint64_t number)
{
    struct iovec rest[3] = {{NULL, 0}, {NULL, 0}, {NULL, 0}};
    put(kind, inode, number, rest);
}

/* Kills itself between two steps, never within one. */
static void last_step(int signal)
{
    if (signal == SIGKILL && journal_on())
        journal_lock();
}

INTERPOSED int kill(pid_t pid, int signal)
{
    if (pid == getpid())
        last_step(signal);
    return syscall(SYS_kill, pid, signal);
}

INTERPOSED int raise(int signal)
{
    last_step(signal);
    return syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), signal);
}
