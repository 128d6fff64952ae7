/*
 * Calls on open files: writing, reading, cutting, taking space, syncing.
 */
#include "preload.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* Whether a file descriptor is a file or directory that is watched, and which. */
static bool is_watched(int fd, char path[PATH_MAX], struct stat *found)
{
    /* What is said to people is no part of the disk. */
    if (fd <= 2)
        return false;
    int saved = errno;
    bool watched = path_of(fd, path) && path[0] == '/' && watches(path) && fstat(fd, found) == 0;
    errno = saved;
    return watched;
}

/* Where a plain write or read of this file goes. */
static off_t place(int fd, const struct stat *found)
{
    int flags = fcntl(fd, F_GETFL);
    return flags >= 0 && flags & O_APPEND ? found->st_size : lseek(fd, 0, SEEK_CUR);
}

static unsigned kind_of_write(const struct stat *found, off_t offset, size_t length)
{
    return offset + (off_t)length > found->st_size ? CALL_WRITE | CALL_GROW : CALL_WRITE;
}

static ssize_t write_all(int fd, const char *bytes, size_t length, off_t offset, bool positioned)
{
    return positioned ? syscall(SYS_pwrite64, fd, bytes, length, offset) : syscall(SYS_write, fd, bytes, length);
}

static ssize_t write_watched(int fd, const void *bytes, size_t length, off_t offset, bool positioned, const char *path,
                             const struct stat *found)
{
    off_t at = positioned ? offset : place(fd, found);
    struct verdict verdict = consult(kind_of_write(found, at, length), path);
    size_t some = verdict.bytes < 0 || (size_t)verdict.bytes > length ? length : (size_t)verdict.bytes;
    ssize_t written = 0;
    journal_lock();
    if (some > 0) {
        at = positioned ? offset : place(fd, found);
        written = write_all(fd, bytes, some, offset, positioned);
        if (!positioned && written > 0)
            at = lseek(fd, 0, SEEK_CUR) - written;
        if (written > 0)
            journal_bytes(found->st_ino, at, bytes, written);
    }
    if (verdict.die)
        die();
    journal_unlock();
    if (verdict.error) {
        errno = verdict.error;
        return -1;
    }
    return written;
}

#define PWRITE(name)                                                                                                   \
    INTERPOSED ssize_t name(int fd, const void *bytes, size_t length, off_t offset)                                    \
    {                                                                                                                  \
        char path[PATH_MAX];                                                                                           \
        struct stat found;                                                                                             \
        if (!is_watched(fd, path, &found))                                                                             \
            return syscall(SYS_pwrite64, fd, bytes, length, offset);                                                   \
        return write_watched(fd, bytes, length, offset, true, path, &found);                                           \
    }
PWRITE(pwrite)
PWRITE(pwrite64)

INTERPOSED ssize_t write(int fd, const void *bytes, size_t length)
{
    char path[PATH_MAX];
    struct stat found;
    if (fd == 2)
        trace_words(bytes, length);
    if (!is_watched(fd, path, &found) || !S_ISREG(found.st_mode))
        return syscall(SYS_write, fd, bytes, length);
    return write_watched(fd, bytes, length, 0, false, path, &found);
}

static ssize_t writev_watched(int fd, const struct iovec *parts, int count, off_t offset, bool positioned,
                              const char *path, const struct stat *found)
{
    size_t length = 0, at = 0;
    for (int i = 0; i < count; i++)
        length += parts[i].iov_len;
    char *bytes = malloc(length ? length : 1);
    if (!bytes) {
        errno = ENOMEM;
        return -1;
    }
    for (int i = 0; i < count; i++)
        for (size_t j = 0; j < parts[i].iov_len; j++)
            bytes[at++] = ((const char *)parts[i].iov_base)[j];
    ssize_t written = write_watched(fd, bytes, length, offset, positioned, path, found);
    int saved = errno;
    free(bytes);
    errno = saved;
    return written;
}

INTERPOSED ssize_t writev(int fd, const struct iovec *parts, int count)
{
    char path[PATH_MAX];
    struct stat found;
    if (!is_watched(fd, path, &found) || !S_ISREG(found.st_mode))
        return syscall(SYS_writev, fd, parts, count);
    return writev_watched(fd, parts, count, 0, false, path, &found);
}

#define PWRITEV(name)                                                                                                  \
    INTERPOSED ssize_t name(int fd, const struct iovec *parts, int count, off_t offset)                                \
    {                                                                                                                  \
        char path[PATH_MAX];                                                                                           \
        struct stat found;                                                                                             \
        if (!is_watched(fd, path, &found))                                                                             \
            return syscall(SYS_pwritev, fd, parts, count, offset, 0L);                                                 \
        return writev_watched(fd, parts, count, offset, true, path, &found);                                           \
    }
PWRITEV(pwritev)
PWRITEV(pwritev64)

/* What the kernel copies is read back for the journal. */
static void journal_copied(int fd, const struct stat *found, off_t at, ssize_t copied)
{
    char link[64], *bytes = malloc(copied);
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    int again = syscall(SYS_openat, AT_FDCWD, link, O_RDONLY | O_CLOEXEC);
    if (bytes && again >= 0 && syscall(SYS_pread64, again, bytes, copied, at) == copied)
        journal_bytes(found->st_ino, at, bytes, copied);
    else
        abort();
    close(again);
    free(bytes);
}

INTERPOSED ssize_t copy_file_range(int from, off64_t *from_at, int to, off64_t *to_at, size_t length, unsigned flags)
{
    char path[PATH_MAX];
    struct stat found;
    if (!is_watched(to, path, &found))
        return syscall(SYS_copy_file_range, from, from_at, to, to_at, length, flags);
    struct verdict verdict = consult(CALL_WRITE | CALL_GROW, path);
    if (verdict.die)
        die();
    if (verdict.error) {
        errno = verdict.error;
        return -1;
    }
    journal_lock();
    off_t at = to_at ? *to_at : place(to, &found);
    ssize_t copied = syscall(SYS_copy_file_range, from, from_at, to, to_at, length, flags);
    if (copied > 0)
        journal_copied(to, &found, at, copied);
    journal_unlock();
    return copied;
}

#define SENDFILE(name)                                                                                                 \
    INTERPOSED ssize_t name(int to, int from, off_t *from_at, size_t length)                                           \
    {                                                                                                                  \
        char path[PATH_MAX];                                                                                           \
        struct stat found;                                                                                             \
        if (!is_watched(to, path, &found) || !S_ISREG(found.st_mode))                                                  \
            return syscall(SYS_sendfile, to, from, from_at, length);                                                   \
        struct verdict verdict = consult(CALL_WRITE | CALL_GROW, path);                                                \
        if (verdict.die)                                                                                               \
            die();                                                                                                     \
        if (verdict.error) {                                                                                           \
            errno = verdict.error;                                                                                     \
            return -1;                                                                                                 \
        }                                                                                                              \
        journal_lock();                                                                                                \
        off_t at = place(to, &found);                                                                                  \
        ssize_t copied = syscall(SYS_sendfile, to, from, from_at, length);                                             \
        if (copied > 0)                                                                                                \
            journal_copied(to, &found, at, copied);                                                                    \
        journal_unlock();                                                                                              \
        return copied;                                                                                                 \
    }
SENDFILE(sendfile)
SENDFILE(sendfile64)

#define FTRUNCATE(name)                                                                                                \
    INTERPOSED int name(int fd, off_t length)                                                                          \
    {                                                                                                                  \
        char path[PATH_MAX];                                                                                           \
        struct stat found;                                                                                             \
        if (!is_watched(fd, path, &found))                                                                             \
            return syscall(SYS_ftruncate, fd, length);                                                                 \
        struct verdict verdict = consult(CALL_TRUNCATE, path);                                                         \
        if (verdict.error) {                                                                                           \
            errno = verdict.error;                                                                                     \
            return -1;                                                                                                 \
        }                                                                                                              \
        journal_lock();                                                                                                \
        int result = syscall(SYS_ftruncate, fd, length);                                                               \
        if (result == 0)                                                                                               \
            journal_number(RECORD_LENGTH, found.st_ino, length);                                                       \
        journal_unlock();                                                                                              \
        return result;                                                                                                 \
    }
FTRUNCATE(ftruncate)
FTRUNCATE(ftruncate64)

static int allocate(int fd, int mode, off_t offset, off_t length)
{
    char path[PATH_MAX];
    struct stat found;
    if (!is_watched(fd, path, &found))
        return syscall(SYS_fallocate, fd, mode, offset, length);
    /* Space may be kept beyond the end, which stays where it is; that is for the disk alone. */
    bool grows = !(mode & FALLOC_FL_KEEP_SIZE) && offset + length > found.st_size;
    struct verdict verdict = consult(CALL_GROW, path);
    if (verdict.error) {
        errno = verdict.error;
        return -1;
    }
    journal_lock();
    int result = syscall(SYS_fallocate, fd, mode, offset, length);
    if (result == 0 && grows)
        journal_number(RECORD_GROW, found.st_ino, offset + length);
    journal_unlock();
    return result;
}

INTERPOSED int fallocate(int fd, int mode, off_t offset, off_t length)
{
    return allocate(fd, mode, offset, length);
}

INTERPOSED int fallocate64(int fd, int mode, off64_t offset, off64_t length)
{
    return allocate(fd, mode, offset, length);
}

INTERPOSED int posix_fallocate(int fd, off_t offset, off_t length)
{
    return allocate(fd, 0, offset, length) == 0 ? 0 : errno;
}

INTERPOSED int posix_fallocate64(int fd, off64_t offset, off64_t length)
{
    return allocate(fd, 0, offset, length) == 0 ? 0 : errno;
}

static int read_fault(int fd)
{
    char path[PATH_MAX];
    struct stat found;
    return is_watched(fd, path, &found) && S_ISREG(found.st_mode) ? consult(CALL_READ, path).error : 0;
}

INTERPOSED ssize_t read(int fd, void *bytes, size_t length)
{
    int error = read_fault(fd);
    if (error) {
        errno = error;
        return -1;
    }
    return syscall(SYS_read, fd, bytes, length);
}

#define PREAD(name)                                                                                                    \
    INTERPOSED ssize_t name(int fd, void *bytes, size_t length, off_t offset)                                          \
    {                                                                                                                  \
        int error = read_fault(fd);                                                                                    \
        if (error) {                                                                                                   \
            errno = error;                                                                                             \
            return -1;                                                                                                 \
        }                                                                                                              \
        return syscall(SYS_pread64, fd, bytes, length, offset);                                                        \
    }
PREAD(pread)
PREAD(pread64)

/*
 * With a journal the disk is not waited for: what survives is decided by the journal, and a page cache that outlives SIGKILL
 * would prove nothing.
 */
static int sync_watched(int fd, long call)
{
    static _Atomic uint64_t syncs;
    char path[PATH_MAX];
    struct stat found;
    if (!is_watched(fd, path, &found))
        return syscall(call, fd);
    /* Another process goes on with the same journal. */
    uint64_t number = (uint64_t)getpid() << 32 | (uint32_t)++syncs;
    if (journal_on()) {
        journal_lock();
        journal_number(RECORD_SYNC, found.st_ino, number);
        journal_unlock();
    }
    struct verdict verdict = consult(S_ISDIR(found.st_mode) ? CALL_SYNC_DIRECTORY : CALL_SYNC, path);
    if (verdict.die)
        die();
    int result = verdict.error || journal_on() ? 0 : syscall(call, fd);
    if (journal_on() && !verdict.lie) {
        journal_lock();
        journal_number(verdict.error ? RECORD_SYNC_LOST : RECORD_SYNCED, found.st_ino, number);
        journal_unlock();
    }
    if (verdict.error) {
        errno = verdict.error;
        return -1;
    }
    return result;
}

INTERPOSED int fsync(int fd)
{
    return sync_watched(fd, SYS_fsync);
}

INTERPOSED int fdatasync(int fd)
{
    return sync_watched(fd, SYS_fdatasync);
}
