// A disk that fails on purpose, for tests: LD_PRELOAD=libfaulty_disk.so.
//
// It counts the calls by which a process changes files below one folder. From a given call on it fails them as a full or
// a read-only disk does, or it ends the process there as kill -9 does, with half of the bytes of a write on the disk.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum Mode { kCount, kKill, kFull, kReadOnly };

static char folder[PATH_MAX];
static enum Mode mode;
static long fails_at;
static long calls;

// Watches a folder from here on; an empty name: nothing. The first call is number 0.
void faulty_disk_watch(const char *watched, int how, long at) {
  mode = (enum Mode)how;
  fails_at = at;
  calls = 0;
  strncpy(folder, watched, sizeof(folder) - 1);
}

long faulty_disk_calls(void) { return calls; }

static bool below(const char *path) { return folder[0] != 0 && strncmp(path, folder, strlen(folder)) == 0; }

static bool watches(int descriptor) {
  if (folder[0] == 0) return false;
  char link[64], path[PATH_MAX];
  snprintf(link, sizeof(link), "/proc/self/fd/%d", descriptor);
  const ssize_t length = readlink(link, path, sizeof(path) - 1);
  if (length < 0) return false;
  path[length] = 0;
  return below(path);
}

// Whether this call fails; needs_room: it takes room on the disk, which a rename or a removal does not.
static bool fails(bool needs_room) {
  const bool reached = calls++ >= fails_at;
  if (!reached || mode == kCount) return false;
  if (mode == kFull && !needs_room) return false;
  errno = mode == kReadOnly ? EROFS : ENOSPC;
  return true;
}

static void end(void) { kill(getpid(), SIGKILL); }

#define REAL(name) ((typeof(&name))dlsym(RTLD_NEXT, #name))

ssize_t write(int descriptor, const void *bytes, size_t count) {
  if (watches(descriptor) && fails(true)) {
    if (mode == kReadOnly) return -1;
    const ssize_t half = calls - 1 == fails_at && count > 1 ? REAL(write)(descriptor, bytes, count / 2) : 0;
    if (mode == kKill) end();
    if (half > 0) return half;
    errno = ENOSPC;
    return -1;
  }
  return REAL(write)(descriptor, bytes, count);
}

ssize_t writev(int descriptor, const struct iovec *parts, int count) {
  if (watches(descriptor) && fails(true)) {
    if (mode == kKill) end();
    return -1;
  }
  return REAL(writev)(descriptor, parts, count);
}

ssize_t pwrite64(int descriptor, const void *bytes, size_t count, off64_t at) {
  if (watches(descriptor) && fails(true)) {
    if (mode == kKill) end();
    return -1;
  }
  return REAL(pwrite64)(descriptor, bytes, count, at);
}

size_t fwrite(const void *bytes, size_t size, size_t count, FILE *file) {
  if (watches(fileno(file)) && fails(true)) {
    if (mode == kKill) {
      REAL(fwrite)(bytes, size, count / 2, file);
      fflush(file);
      end();
    }
    return 0;
  }
  return REAL(fwrite)(bytes, size, count, file);
}

#define OPEN(name)                                                                  \
  int name(const char *path, int flags, ...) {                                      \
    va_list more;                                                                   \
    va_start(more, flags);                                                          \
    const mode_t rights = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0; \
    va_end(more);                                                                   \
    const bool changes = flags & (O_CREAT | O_TRUNC | O_WRONLY | O_RDWR);           \
    if (changes && below(path) && fails((flags & O_CREAT) && access(path, F_OK))) { \
      if (mode == kKill) end();                                                     \
      return -1;                                                                    \
    }                                                                               \
    return REAL(name)(path, flags, rights);                                         \
  }
OPEN(open)
OPEN(open64)

int openat64(int base, const char *path, int flags, ...) {
  va_list more;
  va_start(more, flags);
  const mode_t rights = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0;
  va_end(more);
  const bool changes = flags & (O_CREAT | O_TRUNC | O_WRONLY | O_RDWR);
  if (changes && below(path) && fails((flags & O_CREAT) && access(path, F_OK))) {
    if (mode == kKill) end();
    return -1;
  }
  return REAL(openat64)(base, path, flags, rights);
}

// A call that changes what a path names.
#define CHANGE(name, parameters, arguments, path, needs_room) \
  int name parameters {                                       \
    if (below(path) && fails(needs_room)) {                   \
      if (mode == kKill) end();                               \
      return -1;                                              \
    }                                                         \
    return REAL(name) arguments;                              \
  }
CHANGE(rename, (const char *from, const char *to), (from, to), to, false)
CHANGE(unlink, (const char *path), (path), path, false)
CHANGE(rmdir, (const char *path), (path), path, false)
CHANGE(mkdir, (const char *path, mode_t rights), (path, rights), path, true)

int unlinkat(int base, const char *path, int flags) {
  if (watches(base) && fails(false)) {
    if (mode == kKill) end();
    return -1;
  }
  return REAL(unlinkat)(base, path, flags);
}

int ftruncate64(int descriptor, off64_t length) {
  if (watches(descriptor) && fails(false)) {
    if (mode == kKill) end();
    return -1;
  }
  return REAL(ftruncate64)(descriptor, length);
}
