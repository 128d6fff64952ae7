/*
 * A clock on the wall that somebody sets. What waits until a time of that clock is moved with it, as the kernel does; the
 * monotonic clock goes on.
 */
#include "preload.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/time.h>
#include <time.h>

/* Later than any time of a monotonic clock, earlier than any of a sound clock on the wall. */
#define WALL_SECONDS 1000000000L

static struct timespec moved(struct timespec time, int64_t by_ns)
{
    int64_t ns = time.tv_nsec + by_ns % 1000000000, carry = ns < 0 ? -1 : ns / 1000000000;
    return (struct timespec){.tv_sec = time.tv_sec + by_ns / 1000000000 + carry, .tv_nsec = ns - carry * 1000000000};
}

typedef int clock_function(clockid_t, struct timespec *);

static int real_clock(clockid_t clock, struct timespec *time)
{
    static clock_function *real;
    if (!real)
        real = (clock_function *)dlsym(RTLD_NEXT, "clock_gettime");
    return real(clock, time);
}

INTERPOSED int clock_gettime(clockid_t clock, struct timespec *time)
{
    int result = real_clock(clock, time);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        *time = moved(*time, clock_offset_ns());
    return result;
}

INTERPOSED int gettimeofday(struct timeval *restrict time, void *restrict zone)
{
    (void)zone;
    struct timespec now;
    int result = clock_gettime(CLOCK_REALTIME, &now);
    if (result == 0 && time)
        *time = (struct timeval){.tv_sec = now.tv_sec, .tv_usec = now.tv_nsec / 1000};
    return result;
}

INTERPOSED time_t time(time_t *place)
{
    struct timespec now = {0};
    clock_gettime(CLOCK_REALTIME, &now);
    if (place)
        *place = now.tv_sec;
    return now.tv_sec;
}

INTERPOSED int timespec_get(struct timespec *time, int base)
{
    return base == TIME_UTC && clock_gettime(CLOCK_REALTIME, time) == 0 ? base : 0;
}

/* When the kernel's clock says so, the moved one says `time`. */
static struct timespec on_the_kernels_clock(const struct timespec *time)
{
    return time->tv_sec > WALL_SECONDS ? moved(*time, -clock_offset_ns()) : *time;
}

typedef int wait_function(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);

INTERPOSED int pthread_cond_timedwait(pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex,
                                      const struct timespec *restrict until)
{
    static wait_function *real;
    if (!real) {
        /* There is an older one of this name, for programs of twenty years ago. */
        real = (wait_function *)dlvsym(RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2");
        if (!real)
            real = (wait_function *)dlsym(RTLD_NEXT, "pthread_cond_timedwait");
    }
    struct timespec time = on_the_kernels_clock(until);
    return real(condition, mutex, &time);
}

typedef int clock_wait_function(pthread_cond_t *, pthread_mutex_t *, clockid_t, const struct timespec *);

INTERPOSED int pthread_cond_clockwait(pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex,
                                      clockid_t clock, const struct timespec *restrict until)
{
    static clock_wait_function *real;
    if (!real)
        real = (clock_wait_function *)dlsym(RTLD_NEXT, "pthread_cond_clockwait");
    struct timespec time = on_the_kernels_clock(until);
    return real(condition, mutex, clock, &time);
}
