/* A preloaded library that moves the clocks of one process while it runs, as a suspend and a wrong `date` do.
 *
 *   gcc -O2 -shared -fPIC -o clockshim.so clockshim.c -ldl
 *   LD_PRELOAD=/path/clockshim.so CLOCKSHIM=/path/offsets PROGRAM
 *
 * The file holds three int64 in nanoseconds: what is added to CLOCK_REALTIME, CLOCK_MONOTONIC and CLOCK_BOOTTIME.
 * It is mapped, so that writing it moves the clocks at once. Timers of the kernel (timerfd) are out of reach.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000LL

static const volatile int64_t *offsets;
static int (*real_clock_gettime)(clockid_t, struct timespec *);

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("CLOCKSHIM");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;

    real_clock_gettime = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    if (fd >= 0) {
        void *mapped = mmap(0, 3 * sizeof *offsets, PROT_READ, MAP_SHARED, fd, 0);
        if (mapped != MAP_FAILED)
            offsets = mapped;
        close(fd);
    }
}

static int64_t offset(clockid_t clock)
{
    switch (clock) {
    case CLOCK_REALTIME:
    case CLOCK_REALTIME_COARSE:
        return offsets[0];
    case CLOCK_MONOTONIC:
    case CLOCK_MONOTONIC_COARSE:
    case CLOCK_MONOTONIC_RAW:
        return offsets[1];
    case CLOCK_BOOTTIME:
        return offsets[2];
    default:
        return 0;
    }
}

int clock_gettime(clockid_t clock, struct timespec *t)
{
    int result;
    int64_t ns;

    if (!real_clock_gettime)
        begin();
    result = real_clock_gettime(clock, t);
    if (result || !offsets)
        return result;
    ns = t->tv_sec * SECOND + t->tv_nsec + offset(clock);
    t->tv_sec = ns / SECOND;
    t->tv_nsec = ns % SECOND;
    return 0;
}

int gettimeofday(struct timeval *restrict tv, void *restrict zone)
{
    struct timespec t;

    (void)zone;
    clock_gettime(CLOCK_REALTIME, &t);
    tv->tv_sec = t.tv_sec;
    tv->tv_usec = t.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *where)
{
    struct timespec t;

    clock_gettime(CLOCK_REALTIME, &t);
    if (where)
        *where = t.tv_sec;
    return t.tv_sec;
}
