/* Every fsync and fdatasync takes $TRIGGERFLOW_FSYNC_US microseconds more, and is counted in
   the first eight bytes of the file $TRIGGERFLOW_FSYNC_COUNT. Preloaded; Linux only. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static struct timespec delay;
static _Atomic long *count;

__attribute__((constructor)) static void begin(void) {
    const char *us = getenv("TRIGGERFLOW_FSYNC_US");
    const char *path = getenv("TRIGGERFLOW_FSYNC_COUNT");
    long wanted = us ? atol(us) : 0;
    delay.tv_sec = wanted / 1000000;
    delay.tv_nsec = wanted % 1000000 * 1000;
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd >= 0) {
        void *found = mmap(NULL, sizeof *count, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        count = found == MAP_FAILED ? NULL : found;
        close(fd);
    }
}

static int late(long call, int fd) {
    if (count) atomic_fetch_add(count, 1);
    nanosleep(&delay, NULL);
    return (int)syscall(call, fd);
}

int fsync(int fd) { return late(SYS_fsync, fd); }
int fdatasync(int fd) { return late(SYS_fdatasync, fd); }
