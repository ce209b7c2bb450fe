/* A wall clock that is wrong and jumps, for a process that loads this before the C library: TRELLIS_CLOCK_OFF seconds
 * off, and up to TRELLIS_CLOCK_JITTER seconds more or less from one look to the next. Other clocks stay as they are. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>

static long number(const char *name) {
    const char *text = getenv(name);
    return text ? atol(text) : 0;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real)
        real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int done = real(clock, now);
    if (done == 0 && clock == CLOCK_REALTIME) {
        long jitter = number("TRELLIS_CLOCK_JITTER");
        long jump = now->tv_nsec / 100 % (2 * jitter + 1) - jitter;
        now->tv_sec += number("TRELLIS_CLOCK_OFF") + jump;
    }
    return done;
}
