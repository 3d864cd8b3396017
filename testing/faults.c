/* Preloaded into a program by tests: one call on a path of their choice reports an error, or is where the program is killed.

   FAULT_CALL   fsync, close (of a file open for writing), flock, rename, unlink, rmdir; or `any` of these
   FAULT_PATH   a piece of the path that the call is about
   FAULT_ERRNO  the number it fails with; 0: SIGKILL takes the program before the call is made,
                -1: and its whole process group, which it must lead
   FAULT_SKIP   how many such calls are let through before */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

static int skipped;

static int strikes(const char *call, const char *path) {
    const char *wanted = getenv("FAULT_CALL"), *piece = getenv("FAULT_PATH"), *number = getenv("FAULT_ERRNO");
    const char *skip = getenv("FAULT_SKIP");
    if (!wanted || !piece || !number || (strcmp(wanted, call) && strcmp(wanted, "any")) || !strstr(path, piece)) return 0;
    if (skipped < (skip ? atoi(skip) : 0)) {
        skipped++;
        return 0;
    }
    if (atoi(number) < 0 && getpgrp() == getpid()) kill(0, SIGKILL);
    if (atoi(number) <= 0) kill(getpid(), SIGKILL);
    errno = atoi(number);
    return 1;
}

static const char *path_of(int descriptor, char *buffer) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, buffer, PATH_MAX - 1);
    buffer[length > 0 ? length : 0] = 0;
    return buffer;
}

static const char *path_in(int folder, const char *name, char *buffer) {
    if (name[0] == '/' || folder == AT_FDCWD) return name;
    char base[PATH_MAX];
    snprintf(buffer, PATH_MAX, "%s/%s", path_of(folder, base), name);
    return buffer;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int fsync(int descriptor) {
    char path[PATH_MAX];
    return strikes("fsync", path_of(descriptor, path)) ? -1 : REAL(fsync)(descriptor);
}

int close(int descriptor) {
    char path[PATH_MAX];
    int saved = errno, flags = fcntl(descriptor, F_GETFL), failed = 0;
    if (flags >= 0 && (flags & O_ACCMODE) != O_RDONLY) failed = strikes("close", path_of(descriptor, path));
    int fault = errno;
    errno = saved;
    int done = REAL(close)(descriptor);
    if (!failed) return done;
    errno = fault;
    return -1;
}

int flock(int descriptor, int operation) {
    char path[PATH_MAX];
    return strikes("flock", path_of(descriptor, path)) ? -1 : REAL(flock)(descriptor, operation);
}

int rename(const char *from, const char *to) { return strikes("rename", from) ? -1 : REAL(rename)(from, to); }

int unlink(const char *path) { return strikes("unlink", path) ? -1 : REAL(unlink)(path); }

int rmdir(const char *path) { return strikes("rmdir", path) ? -1 : REAL(rmdir)(path); }

int unlinkat(int folder, const char *name, int flags) {
    char path[PATH_MAX];
    const char *call = flags & AT_REMOVEDIR ? "rmdir" : "unlink";
    return strikes(call, path_in(folder, name, path)) ? -1 : REAL(unlinkat)(folder, name, flags);
}
