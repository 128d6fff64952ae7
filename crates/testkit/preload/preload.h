/*
 * A disk and a clock that fail on command: a library that is loaded before a process and stands between it and libc.
 *
 * It does nothing unless MILLPOND_DISK names a control file (control.c). Only what lies under MILLPOND_DISK_UNDER is looked
 * at. With MILLPOND_DISK_JOURNAL it also writes down every change of that part of the disk (journal.c), so that the disk that a power
 * failure would have left can be made afterwards.
 *
 * Real work is done by raw system calls, so nothing in here calls itself.
 */
#ifndef MILLPOND_PRELOAD_H
#define MILLPOND_PRELOAD_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Seen by the process; all else in the library is hidden. */
#define INTERPOSED __attribute__((visibility("default")))

/* What a call does, as rules name it. A call can be several of them. */
enum call {
    CALL_OPEN = 1,
    CALL_CREATE = 2,
    CALL_MKDIR = 4,
    CALL_LINK = 8,
    CALL_RENAME = 16,
    CALL_REMOVE = 32,
    CALL_WRITE = 64,
    CALL_GROW = 128, /* a write behind the end of the file, or space taken there: what a full disk refuses */
    CALL_TRUNCATE = 256,
    CALL_READ = 512,
    CALL_SYNC = 1024,
    CALL_SYNC_DIRECTORY = 2048,
};

/* What is to become of a call. */
struct verdict {
    int error;     /* what it fails with, 0 if it does not */
    ssize_t bytes; /* how many bytes it writes before that, -1 for all */
    bool die;      /* and then the process dies */
    bool lie;      /* a sync says that it has ended well, and has not been */
};

/* Kinds of records in the journal; src/chaos/disk/journal.rs reads them. */
enum record {
    RECORD_FILE = 1,       /* inode, path: a file was made */
    RECORD_DIRECTORY = 2,  /* inode, path */
    RECORD_LINK = 3,       /* inode, path: one more name */
    RECORD_RENAME = 4,     /* inode, from NUL to */
    RECORD_REMOVE = 5,     /* inode, path */
    RECORD_WRITE = 6,      /* inode, offset, bytes */
    RECORD_LENGTH = 7,     /* inode, length: cut or grown to it */
    RECORD_GROW = 8,       /* inode, length: at least that long */
    RECORD_SYNC = 9,       /* inode, number of this sync: begun */
    RECORD_SYNCED = 10,    /* inode, number of the sync that has ended well */
    RECORD_SYNC_LOST = 11, /* inode, number of the sync that has failed */
};

/* control.c */
bool watches(const char *path);
struct verdict consult(unsigned calls, const char *path);
void trace_words(const char *words, size_t length);
int64_t clock_offset_ns(void);
int open_apart(const char *path);
void count_operation(void);
_Noreturn void die(void);
bool whole_path(int directory, const char *path, char whole[PATH_MAX]);
bool path_of(int fd, char path[PATH_MAX]);

/* journal.c */
bool journal_on(void);
void journal_open(const char *path);
void journal_lock(void);
void journal_unlock(void);
void journal_name(enum record kind, uint64_t inode, const char *path, const char *to);
void journal_bytes(uint64_t inode, uint64_t offset, const void *bytes, size_t length);
void journal_number(enum record kind, uint64_t inode, uint64_t number);

#endif
