/* Preloaded into a test's process: counts what it does to the files below a folder, and at a chosen
 * operation kills the process or lets the operation fail. Whoever writes, Python, Rust (safetensors)
 * or C++ (torch), goes through these functions of the C library. For 64-bit Linux. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <dlfcn.h>
#include <unistd.h>

/* What happens at the chosen operation. */
enum { COUNT, KILL, TEAR, FAIL, FAIL_EVER_AFTER, SHORTEN };

/* Shared with the processes that are forked, so that a killed one leaves its count and its log. */
struct plan {
    atomic_long count;
    atomic_long used;
    atomic_int fired;
    char log[1 << 20];
};

static struct plan *plan;
static char folder[PATH_MAX];
static size_t length;
static long chosen;
static int action, fault;
static volatile int armed;

__attribute__((constructor)) static void share(void) {
    plan = mmap(NULL, sizeof *plan, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
}

/* Begin to count in this process; `at` is the operation at which `what` happens. */
void file_faults_arm(const char *below, long at, int what, int error) {
    snprintf(folder, sizeof folder, "%s", below);
    length = strlen(folder);
    chosen = at;
    action = what;
    fault = error;
    plan->count = plan->used = 0;
    plan->fired = 0;
    armed = 1;
}

void file_faults_disarm(void) { armed = 0; }
int file_faults_fired(void) { return plan->fired; }
const char *file_faults_log(void) {
    plan->log[plan->used] = 0;
    return plan->log;
}

/* Say whether a path, or an open file where the path is NULL, lies below the folder. */
static int below(int at, const char *path, char *full) {
    char link[64];
    size_t used = 0;
    if (!armed) return 0;
    if (path == NULL || path[0] != '/') {
        ssize_t got = 0;
        if (at == AT_FDCWD) {
            if (getcwd(full, PATH_MAX) == NULL) return 0;
            got = (ssize_t)strlen(full);
        } else {
            snprintf(link, sizeof link, "/proc/self/fd/%d", at);
            got = readlink(link, full, PATH_MAX - 1);
        }
        if (got < 0) return 0;
        used = (size_t)got;
        full[used] = 0;
        if (path != NULL && used + 1 < PATH_MAX) full[used++] = '/';
    }
    if (path != NULL) snprintf(full + used, PATH_MAX - used, "%s", path);
    return strncmp(full, folder, length) == 0 && (full[length] == '/' || full[length] == 0);
}

/* Say whether an operation fails on a full disk; files can be removed and renamed there. */
static int takes_room(const char *name) {
    return strchr("owfm", name[0]) != NULL && strcmp(name, "fsync") && strcmp(name, "fchmod");
}

/* Count an operation and act on it: returns the error that it is to fail with, 0 to let it happen,
 * or -1 where half of the bytes are to be written, after which the process ends or goes on. */
static int step(const char *name, const char *full, size_t bytes) {
    long number = atomic_fetch_add(&plan->count, 1);
    char line[PATH_MAX + 64];
    int written = snprintf(line, sizeof line, "%s %zu %s\n", name, bytes, full + length);
    long place = atomic_fetch_add(&plan->used, written);
    if (place + written < (long)sizeof plan->log) memcpy(plan->log + place, line, (size_t)written);
    if (action == COUNT || number < chosen) return 0;
    if (number > chosen)
        return action == FAIL_EVER_AFTER && (fault != ENOSPC || takes_room(name)) ? fault : 0;
    plan->fired = 1;
    switch (action) {
    case KILL: kill(getpid(), SIGKILL); return 0;
    case TEAR:
    case SHORTEN: return -1;
    default: return fault;
    }
}

/* Before a write: how many bytes of it are written, or -1 with errno set. */
static ssize_t allowed(const char *name, int handle, size_t bytes, int *die) {
    char full[PATH_MAX];
    *die = 0;
    if (!below(handle, NULL, full)) return (ssize_t)bytes;
    int found = step(name, full, bytes);
    if (found > 0) return errno = found, -1;
    if (found == 0) return (ssize_t)bytes;
    *die = action == TEAR;
    return (ssize_t)(bytes / 2);
}

static ssize_t ended(ssize_t result, int die) {
    if (die) kill(getpid(), SIGKILL);
    return result;
}

/* Before any other operation: 0, or -1 with errno set. */
static int refused(const char *name, int at, const char *path) {
    char full[PATH_MAX];
    if (!below(at, path, full)) return 0;
    int found = step(name, full, 0);
    if (found == -1) kill(getpid(), SIGKILL);
    return found > 0 ? (errno = found, -1) : 0;
}

static int opened(int at, const char *path, int flags, mode_t mode) {
    int writes = (flags & O_ACCMODE) != O_RDONLY || flags & O_CREAT;
    if (writes && refused("open", at, path)) return -1;
    return (int)syscall(SYS_openat, at, path, flags, mode);
}

static mode_t mode_of(int flags, va_list rest) {
    return flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(rest, mode_t) : 0;
}

#define OPEN(NAME)                                                                                \
    int NAME(const char *path, int flags, ...) {                                                  \
        va_list rest;                                                                             \
        va_start(rest, flags);                                                                    \
        mode_t mode = mode_of(flags, rest);                                                       \
        va_end(rest);                                                                             \
        return opened(AT_FDCWD, path, flags, mode);                                               \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(NAME)                                                                              \
    int NAME(int at, const char *path, int flags, ...) {                                          \
        va_list rest;                                                                             \
        va_start(rest, flags);                                                                    \
        mode_t mode = mode_of(flags, rest);                                                       \
        va_end(rest);                                                                             \
        return opened(at, path, flags, mode);                                                     \
    }
OPENAT(openat)
OPENAT(openat64)

int creat(const char *path, mode_t mode) {
    return opened(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode);
}
int creat64(const char *path, mode_t mode) { return creat(path, mode); }

#define FOPEN(NAME)                                                                               \
    FILE *NAME(const char *path, const char *mode) {                                              \
        FILE *(*real)(const char *, const char *) = dlsym(RTLD_NEXT, #NAME);                      \
        if (strpbrk(mode, "wa+") && refused("open", AT_FDCWD, path)) return NULL;                 \
        return real(path, mode);                                                                  \
    }
FOPEN(fopen)
FOPEN(fopen64)

ssize_t write(int handle, const void *content, size_t bytes) {
    int die;
    ssize_t part = allowed("write", handle, bytes, &die);
    return part < 0 ? -1 : ended(syscall(SYS_write, handle, content, (size_t)part), die);
}

ssize_t pwrite(int handle, const void *content, size_t bytes, off_t offset) {
    int die;
    ssize_t part = allowed("write", handle, bytes, &die);
    return part < 0 ? -1 : ended(syscall(SYS_pwrite64, handle, content, (size_t)part, offset), die);
}
ssize_t pwrite64(int handle, const void *content, size_t bytes, off_t offset) {
    return pwrite(handle, content, bytes, offset);
}

ssize_t writev(int handle, const struct iovec *pieces, int count) {
    size_t bytes = 0;
    int die;
    for (int index = 0; index < count; index++) bytes += pieces[index].iov_len;
    ssize_t part = allowed("write", handle, bytes, &die);
    if (part < 0) return -1;
    if ((size_t)part == bytes) return syscall(SYS_writev, handle, pieces, count);
    for (int index = 0; index < count; index++)
        if (pieces[index].iov_len) {
            size_t some = pieces[index].iov_len;
            some = (size_t)part < some ? (size_t)part : some;
            return ended(syscall(SYS_write, handle, pieces[index].iov_base, some), die);
        }
    return ended(0, die);
}

#define COPY(NAME, PARAMETERS, TO, BYTES, CALL)                                                   \
    ssize_t NAME PARAMETERS {                                                                     \
        int die;                                                                                  \
        ssize_t part = allowed("write", TO, BYTES, &die);                                         \
        if (part < 0) return -1;                                                                  \
        BYTES = (size_t)part;                                                                     \
        return ended(CALL, die);                                                                  \
    }
COPY(sendfile, (int to, int from, off_t *offset, size_t bytes), to, bytes,
     syscall(SYS_sendfile, to, from, offset, bytes))
COPY(sendfile64, (int to, int from, off_t *offset, size_t bytes), to, bytes,
     syscall(SYS_sendfile, to, from, offset, bytes))
COPY(copy_file_range, (int from, off_t *begin, int to, off_t *place, size_t bytes, unsigned flags),
     to, bytes, syscall(SYS_copy_file_range, from, begin, to, place, bytes, flags))

/* Operations on an open file, and on a path. */
#define ON_HANDLE(NAME, PARAMETERS, ...)                                                          \
    int NAME PARAMETERS {                                                                         \
        return refused(#NAME, handle, NULL) ? -1 : (int)syscall(__VA_ARGS__);                     \
    }
ON_HANDLE(fsync, (int handle), SYS_fsync, handle)
ON_HANDLE(fdatasync, (int handle), SYS_fdatasync, handle)
ON_HANDLE(ftruncate, (int handle, off_t size), SYS_ftruncate, handle, size)
ON_HANDLE(ftruncate64, (int handle, off_t size), SYS_ftruncate, handle, size)
ON_HANDLE(fallocate, (int handle, int mode, off_t from, off_t size), SYS_fallocate, handle, mode,
          from, size)
ON_HANDLE(fallocate64, (int handle, int mode, off_t from, off_t size), SYS_fallocate, handle, mode,
          from, size)
ON_HANDLE(fchmod, (int handle, mode_t mode), SYS_fchmod, handle, mode)

#define ON_PATH(NAME, PARAMETERS, AT, PATH, ...)                                                  \
    int NAME PARAMETERS { return refused(#NAME, AT, PATH) ? -1 : (int)syscall(__VA_ARGS__); }
ON_PATH(mkdir, (const char *path, mode_t mode), AT_FDCWD, path, SYS_mkdirat, AT_FDCWD, path, mode)
ON_PATH(mkdirat, (int at, const char *path, mode_t mode), at, path, SYS_mkdirat, at, path, mode)
ON_PATH(rmdir, (const char *path), AT_FDCWD, path, SYS_unlinkat, AT_FDCWD, path, AT_REMOVEDIR)
ON_PATH(unlink, (const char *path), AT_FDCWD, path, SYS_unlinkat, AT_FDCWD, path, 0)
ON_PATH(unlinkat, (int at, const char *path, int flags), at, path, SYS_unlinkat, at, path, flags)
ON_PATH(truncate, (const char *path, off_t size), AT_FDCWD, path, SYS_truncate, path, size)
ON_PATH(truncate64, (const char *path, off_t size), AT_FDCWD, path, SYS_truncate, path, size)
ON_PATH(chmod, (const char *path, mode_t mode), AT_FDCWD, path, SYS_fchmodat, AT_FDCWD, path, mode)
ON_PATH(rename, (const char *old, const char *path), AT_FDCWD, path, SYS_renameat2, AT_FDCWD, old,
        AT_FDCWD, path, 0)
ON_PATH(renameat, (int from, const char *old, int at, const char *path), at, path, SYS_renameat2,
        from, old, at, path, 0)
ON_PATH(renameat2, (int from, const char *old, int at, const char *path, unsigned flags), at, path,
        SYS_renameat2, from, old, at, path, flags)
ON_PATH(link, (const char *old, const char *path), AT_FDCWD, path, SYS_linkat, AT_FDCWD, old,
        AT_FDCWD, path, 0)
ON_PATH(symlink, (const char *to, const char *path), AT_FDCWD, path, SYS_symlinkat, to, AT_FDCWD,
        path)

/* Memory that is a file below the folder, where writes would go unseen. */
#define MAP(NAME)                                                                                 \
    void *NAME(void *where, size_t bytes, int access, int flags, int handle, off_t offset) {      \
        if (handle >= 0 && flags & MAP_SHARED && access & PROT_WRITE && refused("mmap", handle, NULL)) \
            return MAP_FAILED;                                                                    \
        return (void *)syscall(SYS_mmap, where, bytes, access, flags, handle, offset);            \
    }
MAP(mmap)
MAP(mmap64)
