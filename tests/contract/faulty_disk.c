/* A disk that fails, for LD_PRELOAD: reads of files whose path ends with FAULTY_NAME go through the faults that the
 * environment names. io_uring is refused, so that every read is a pread that this library sees.
 *
 *   FAULTY_NO_DIRECT=1     O_DIRECT is refused, as some file systems do
 *   FAULTY_EIO=FROM-TO     reads that touch these bytes fail with EIO; FAULTY_TIMES=N: the first N of them only
 *   FAULTY_FLIP=OFFSET     the lowest bit of this byte comes flipped; FAULTY_TIMES likewise
 *   FAULTY_SHORT=1         a read brings at most half of what is asked for, in whole pages; every third is interrupted
 *   FAULTY_DELAY_US=N      a read takes so much longer
 *   FAULTY_COUNT=FILE      how many reads there were, written at the end
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef ssize_t (*PreadFunction)(int, void*, size_t, off_t);
typedef int (*OpenFunction)(const char*, int, ...);

static atomic_long reads_seen;
static atomic_long faults_made;

static const char* setting(const char* name) {
  const char* value = getenv(name);
  return value != NULL && *value != 0 ? value : NULL;
}

static int ends_with(const char* text, const char* end) {
  const size_t all = strlen(text);
  const size_t part = strlen(end);
  return all >= part && strcmp(text + all - part, end) == 0;
}

static int is_faulty(int fd) {
  const char* name = setting("FAULTY_NAME");
  if (name == NULL) return 0;
  char link[64];
  char path[4096];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  const ssize_t length = readlink(link, path, sizeof path - 1);
  if (length <= 0) return 0;
  path[length] = 0;
  return ends_with(path, name);
}

/* Whether one more fault is wanted. */
static int take_fault(void) {
  const char* times = setting("FAULTY_TIMES");
  return times == NULL || atomic_fetch_add(&faults_made, 1) < atol(times);
}

static int touches(const char* range, size_t bytes, off_t offset) {
  char* end = NULL;
  const long long from = strtoll(range, &end, 10);
  const long long to = *end == '-' ? strtoll(end + 1, NULL, 10) : from + 1;
  return offset < to && offset + (long long)bytes > from;
}

static ssize_t faulty_pread(int fd, void* to, size_t bytes, off_t offset) {
  static PreadFunction real;
  if (real == NULL) real = (PreadFunction)dlsym(RTLD_NEXT, "pread64");
  if (!is_faulty(fd)) return real(fd, to, bytes, offset);
  const long count = atomic_fetch_add(&reads_seen, 1);
  const char* delay = setting("FAULTY_DELAY_US");
  if (delay != NULL) usleep((useconds_t)atol(delay));
  const char* failing = setting("FAULTY_EIO");
  if (failing != NULL && touches(failing, bytes, offset) && take_fault()) {
    errno = EIO;
    return -1;
  }
  if (setting("FAULTY_SHORT") != NULL) {
    if (count % 3 == 0) {
      errno = EINTR;
      return -1;
    }
    if (bytes >= 8192) bytes = bytes / 2 / 4096 * 4096;
  }
  const ssize_t got = real(fd, to, bytes, offset);
  const char* flip = setting("FAULTY_FLIP");
  if (flip != NULL && got > 0 && touches(flip, (size_t)got, offset) && take_fault()) {
    ((unsigned char*)to)[atoll(flip) - offset] ^= 1;
  }
  return got;
}

ssize_t pread(int fd, void* to, size_t bytes, off_t offset) { return faulty_pread(fd, to, bytes, offset); }
ssize_t pread64(int fd, void* to, size_t bytes, off_t offset) { return faulty_pread(fd, to, bytes, offset); }

static int faulty_open(const char* path, int flags, int mode) {
  static OpenFunction real;
  if (real == NULL) real = (OpenFunction)dlsym(RTLD_NEXT, "open64");
  const char* name = setting("FAULTY_NAME");
  if ((flags & O_DIRECT) != 0 && setting("FAULTY_NO_DIRECT") != NULL && name != NULL && ends_with(path, name)) {
    errno = EINVAL;
    return -1;
  }
  return real(path, flags, mode);
}

static int mode_of(int flags, va_list rest) { return (flags & O_CREAT) != 0 ? va_arg(rest, int) : 0; }

int open(const char* path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  const int mode = mode_of(flags, rest);
  va_end(rest);
  return faulty_open(path, flags, mode);
}

int open64(const char* path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  const int mode = mode_of(flags, rest);
  va_end(rest);
  return faulty_open(path, flags, mode);
}

int io_uring_queue_init(unsigned depth, void* ring, unsigned flags) {
  (void)depth, (void)ring, (void)flags;
  return -EPERM;
}

__attribute__((destructor)) static void write_count(void) {
  const char* path = setting("FAULTY_COUNT");
  FILE* file = path == NULL ? NULL : fopen(path, "w");
  if (file == NULL) return;
  fprintf(file, "%ld\n", atomic_load(&reads_seen));
  fclose(file);
}
