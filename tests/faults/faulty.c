/* A disk that fails, and a power switch: loaded before libc, it counts what a process changes below one path.
 *
 * `arm` says what is to happen: a kill before, in the midst of or after the n-th change; a power cut before it, with
 * which all goes that was appended and not synced; or, once so many bytes are
 * written, an error for every further one (a full disk); or, after so many changes, for every other (a disk that has
 * become read-only).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { NOTHING, KILL_BEFORE, KILL_WITHIN, KILL_AFTER, FULL, READ_ONLY, POWER_CUT };

static char wanted[4096];
static int mode = NOTHING, code;
static long at;
static long *counts; /* changes and bytes so far, shared with the parent that reads them */

__attribute__((constructor)) static void begin(void) {
    counts = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
}

void arm(const char *path, int what, long when, int error) {
    counts[0] = counts[1] = 0;
    at = when;
    code = error;
    mode = what;
    strncpy(wanted, path, sizeof wanted - 1);
}

long changes(void) { return counts[0]; }
long written(void) { return counts[1]; }

static int below(const char *path) { return wanted[0] && strstr(path, wanted) != 0; }

static int of(int fd) {
    char link[64], path[4096];
    if (!wanted[0]) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return below(path);
}

/* Files that were appended to since they were last synced, and how long they were then. */
static struct {
    char path[1024];
    long size;
} unsynced[256];
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

static void note(int fd, int synced, const char *renamed, const char *to) {
    char link[64], found[1024];
    const char *path = renamed;
    if (mode != POWER_CUT) return;
    if (!renamed) {
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        ssize_t length = readlink(link, found, sizeof found - 1);
        if (length < 0) return;
        found[length] = 0;
        path = found;
    }
    pthread_mutex_lock(&mutex);
    int i = 0, room = -1;
    for (; i < 256 && strcmp(unsynced[i].path, path) != 0; i++)
        if (room < 0 && !unsynced[i].path[0]) room = i;
    if (renamed) {
        if (i < 256) strcpy(unsynced[i].path, to);
    } else if (synced) {
        if (i < 256) unsynced[i].path[0] = 0;
    } else if (i == 256 && room >= 0) {
        struct stat now;
        if (fstat(fd, &now) == 0) {
            strcpy(unsynced[room].path, path);
            unsynced[room].size = now.st_size;
        }
    }
    pthread_mutex_unlock(&mutex);
}

static void die(void) {
    if (mode == POWER_CUT)
        for (int i = 0; i < 256; i++)
            if (unsynced[i].path[0]) syscall(SYS_truncate, unsynced[i].path, unsynced[i].size);
    syscall(SYS_kill, getpid(), SIGKILL);
    for (;;) pause();
}

static int read_only(void) { return mode == READ_ONLY && __atomic_load_n(&counts[0], __ATOMIC_SEQ_CST) >= at; }

static int fails(int growing) {
    if (read_only() || (mode == FULL && growing && __atomic_load_n(&counts[1], __ATOMIC_SEQ_CST) >= at)) {
        errno = code;
        return 1;
    }
    return 0;
}

/* One change: whether this is the one before, within or after which the process dies. */
static int turn(void) {
    long mine = __atomic_add_fetch(&counts[0], 1, __ATOMIC_SEQ_CST);
    if (mine != at || mode == FULL || mode == READ_ONLY) return 0;
    if (mode == KILL_BEFORE || mode == POWER_CUT) die();
    return mode;
}

#define CHANGE(concerned, call)                \
    do {                                       \
        int last = 0;                          \
        if (concerned) {                       \
            if (fails(0)) return -1;           \
            last = turn();                     \
            if (last == KILL_WITHIN) die();    \
        }                                      \
        long result = (call);                  \
        if (last == KILL_AFTER) die();         \
        return result;                         \
    } while (0)

static ssize_t put(int fd, const void *data, size_t size, off_t place, int placed) {
#define WRITE(n) (placed ? syscall(SYS_pwrite64, fd, data, (size_t)(n), place) : syscall(SYS_write, fd, data, (size_t)(n)))
    if (!of(fd)) return WRITE(size);
    if (size && fails(1)) return -1;
    int last = turn();
    if (last == KILL_WITHIN) {
        WRITE(size / 2);
        die();
    }
    note(fd, 0, 0, 0);
    long room = at - counts[1];
    if (mode == FULL && (long)size > room) size = room;
    ssize_t done = WRITE(size);
    if (done > 0) __atomic_add_fetch(&counts[1], done, __ATOMIC_SEQ_CST);
    if (last == KILL_AFTER) die();
    return done;
}

ssize_t write(int fd, const void *data, size_t size) { return put(fd, data, size, 0, 0); }
ssize_t pwrite64(int fd, const void *data, size_t size, off_t place) { return put(fd, data, size, place, 1); }
ssize_t pwrite(int fd, const void *data, size_t size, off_t place) { return put(fd, data, size, place, 1); }

static int synced(int fd, int number) {
    int concerned = of(fd);
    CHANGE(concerned, (concerned ? note(fd, 1, 0, 0) : (void)0, syscall(number, fd)));
}

int fsync(int fd) { return synced(fd, SYS_fsync); }
int fdatasync(int fd) { return synced(fd, SYS_fdatasync); }
int ftruncate64(int fd, off_t size) { CHANGE(of(fd), syscall(SYS_ftruncate, fd, size)); }
int ftruncate(int fd, off_t size) { CHANGE(of(fd), syscall(SYS_ftruncate, fd, size)); }
int rename(const char *from, const char *to) {
    int concerned = below(to);
    CHANGE(concerned, (concerned ? note(-1, 0, from, to) : (void)0, syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0)));
}
int unlink(const char *path) { CHANGE(below(path), syscall(SYS_unlinkat, AT_FDCWD, path, 0)); }
int mkdir(const char *path, mode_t bits) { CHANGE(below(path), syscall(SYS_mkdirat, AT_FDCWD, path, bits)); }
int chmod(const char *path, mode_t bits) { CHANGE(below(path), syscall(SYS_fchmodat, AT_FDCWD, path, bits)); }

static int opened(int folder, const char *path, int flags, mode_t bits) {
    int writes = (flags & O_ACCMODE) != O_RDONLY || flags & (O_CREAT | O_TRUNC);
    int makes = flags & O_CREAT && syscall(SYS_faccessat, folder, path, F_OK) != 0;
    if (read_only() && writes && below(path)) {
        errno = code;
        return -1;
    }
    errno = 0;
    CHANGE(makes && below(path), syscall(SYS_openat, folder, path, flags, bits));
}

#define BITS                                                    \
    mode_t bits = 0;                                            \
    if (flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE) {  \
        va_list more;                                           \
        va_start(more, flags);                                  \
        bits = va_arg(more, mode_t);                            \
        va_end(more);                                           \
    }

int open64(const char *path, int flags, ...) { BITS return opened(AT_FDCWD, path, flags, bits); }
int open(const char *path, int flags, ...) { BITS return opened(AT_FDCWD, path, flags, bits); }
int openat64(int folder, const char *path, int flags, ...) { BITS return opened(folder, path, flags, bits); }
int openat(int folder, const char *path, int flags, ...) { BITS return opened(folder, path, flags, bits); }
