/*
 * Calls that change names: making, linking, renaming and removing files and directories.
 */
#include "preload.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static uint64_t inode_at(const char *path)
{
    struct stat found;
    int saved = errno;
    uint64_t inode = fstatat(AT_FDCWD, path, &found, AT_SYMLINK_NOFOLLOW) == 0 ? found.st_ino : 0;
    errno = saved;
    return inode;
}

static int fail(struct verdict verdict)
{
    if (verdict.die)
        die();
    errno = verdict.error;
    return -1;
}

static int open_at(int directory, const char *path, int flags, mode_t mode)
{
    char whole[PATH_MAX];
    if (!whole_path(directory, path, whole) || !watches(whole))
        return syscall(SYS_openat, directory, path, flags, mode);
    bool may_create = (flags & O_CREAT) != 0;
    bool makes = may_create && inode_at(whole) == 0;
    struct verdict verdict = consult(makes ? CALL_OPEN | CALL_CREATE : CALL_OPEN, whole);
    if (verdict.error)
        return fail(verdict);
    if (!may_create && !(flags & O_TRUNC))
        return syscall(SYS_openat, directory, path, flags, mode);
    journal_lock();
    makes = may_create && inode_at(whole) == 0;
    int fd = syscall(SYS_openat, directory, path, flags, mode);
    struct stat now;
    int saved = errno;
    if (fd >= 0 && fstat(fd, &now) == 0 && S_ISREG(now.st_mode)) {
        if (makes)
            journal_name(RECORD_FILE, now.st_ino, whole, NULL);
        else if (flags & O_TRUNC)
            journal_number(RECORD_LENGTH, now.st_ino, 0);
    }
    errno = saved;
    journal_unlock();
    return fd;
}

static mode_t mode_of(int flags, va_list rest)
{
    return flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
}

#define OPEN(name)                                                                                                     \
    INTERPOSED int name(const char *path, int flags, ...)                                                              \
    {                                                                                                                  \
        va_list rest;                                                                                                  \
        va_start(rest, flags);                                                                                         \
        mode_t mode = mode_of(flags, rest);                                                                            \
        va_end(rest);                                                                                                  \
        return open_at(AT_FDCWD, path, flags, mode);                                                                   \
    }

#define OPENAT(name)                                                                                                   \
    INTERPOSED int name(int directory, const char *path, int flags, ...)                                               \
    {                                                                                                                  \
        va_list rest;                                                                                                  \
        va_start(rest, flags);                                                                                         \
        mode_t mode = mode_of(flags, rest);                                                                            \
        va_end(rest);                                                                                                  \
        return open_at(directory, path, flags, mode);                                                                  \
    }

#define CREAT(name)                                                                                                    \
    INTERPOSED int name(const char *path, mode_t mode)                                                                 \
    {                                                                                                                  \
        return open_at(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode);                                            \
    }

OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)
CREAT(creat)
CREAT(creat64)

INTERPOSED int mkdirat(int directory, const char *path, mode_t mode)
{
    char whole[PATH_MAX];
    if (!whole_path(directory, path, whole) || !watches(whole))
        return syscall(SYS_mkdirat, directory, path, mode);
    /* A disk that is full does not say so of what is there already. */
    struct verdict verdict = inode_at(whole) ? (struct verdict){0} : consult(CALL_MKDIR, whole);
    if (verdict.error)
        return fail(verdict);
    journal_lock();
    int result = syscall(SYS_mkdirat, directory, path, mode);
    if (result == 0)
        journal_name(RECORD_DIRECTORY, inode_at(whole), whole, NULL);
    journal_unlock();
    return result;
}

INTERPOSED int mkdir(const char *path, mode_t mode)
{
    return mkdirat(AT_FDCWD, path, mode);
}

static int remove_at(int directory, const char *path, int flags)
{
    char whole[PATH_MAX];
    if (!whole_path(directory, path, whole) || !watches(whole))
        return syscall(SYS_unlinkat, directory, path, flags);
    struct verdict verdict = consult(CALL_REMOVE, whole);
    if (verdict.error)
        return fail(verdict);
    journal_lock();
    uint64_t inode = inode_at(whole);
    int result = syscall(SYS_unlinkat, directory, path, flags);
    if (result == 0)
        journal_name(RECORD_REMOVE, inode, whole, NULL);
    journal_unlock();
    return result;
}

INTERPOSED int unlinkat(int directory, const char *path, int flags)
{
    return remove_at(directory, path, flags);
}

INTERPOSED int unlink(const char *path)
{
    return remove_at(AT_FDCWD, path, 0);
}

INTERPOSED int rmdir(const char *path)
{
    return remove_at(AT_FDCWD, path, AT_REMOVEDIR);
}

INTERPOSED int linkat(int from_directory, const char *from, int to_directory, const char *to, int flags)
{
    char whole[PATH_MAX];
    if (!whole_path(to_directory, to, whole) || !watches(whole))
        return syscall(SYS_linkat, from_directory, from, to_directory, to, flags);
    struct verdict verdict = consult(CALL_LINK, whole);
    if (verdict.error)
        return fail(verdict);
    journal_lock();
    int result = syscall(SYS_linkat, from_directory, from, to_directory, to, flags);
    if (result == 0)
        journal_name(RECORD_LINK, inode_at(whole), whole, NULL);
    journal_unlock();
    return result;
}

INTERPOSED int link(const char *from, const char *to)
{
    return linkat(AT_FDCWD, from, AT_FDCWD, to, 0);
}

INTERPOSED int renameat2(int from_directory, const char *from, int to_directory, const char *to, unsigned flags)
{
    char whole_from[PATH_MAX], whole[PATH_MAX];
    if (!whole_path(from_directory, from, whole_from) || !whole_path(to_directory, to, whole) || !watches(whole))
        return syscall(SYS_renameat2, from_directory, from, to_directory, to, flags);
    struct verdict verdict = consult(CALL_RENAME, whole);
    if (verdict.error)
        return fail(verdict);
    journal_lock();
    uint64_t inode = inode_at(whole_from);
    /* Between two names of one file a rename does nothing. */
    bool moves = inode != inode_at(whole);
    int result = syscall(SYS_renameat2, from_directory, from, to_directory, to, flags);
    if (result == 0 && moves)
        journal_name(RECORD_RENAME, inode, whole_from, whole);
    journal_unlock();
    return result;
}

INTERPOSED int renameat(int from_directory, const char *from, int to_directory, const char *to)
{
    return renameat2(from_directory, from, to_directory, to, 0);
}

INTERPOSED int rename(const char *from, const char *to)
{
    return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0);
}

INTERPOSED int remove(const char *path)
{
    int result = remove_at(AT_FDCWD, path, 0);
    return result != 0 && errno == EISDIR ? remove_at(AT_FDCWD, path, AT_REMOVEDIR) : result;
}
