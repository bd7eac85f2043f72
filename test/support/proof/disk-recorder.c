/*
 * Stands between a program and the C library (LD_PRELOAD) and does three things with what the program asks of
 * the file system below one folder:
 *
 *   - it notes every change and every sync in a log, so that the disk can be rebuilt as a loss of power may
 *     leave it (FT_PROOF_LOG),
 *   - it kills the program, or its whole process group, at a numbered change,
 *   - it answers with an error, or late, where it is told to; a write may be carried out all the same.
 *
 * FT_PROOF_ROOT is the folder, FT_PROOF_CONTROL a file of 4096 bytes that all processes and the test map:
 * `struct control` below. The sequence counts begins and ends of changes; a change that has begun before a cut and not
 * ended may be on the disk in part.
 *
 * A log entry is `struct entry`, two paths, and the bytes of a write. Files are known by their inode: the reader
 * of the log takes a new file under an old number for what it is, because creation is an entry of its own.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

struct control {
  _Atomic uint64_t sequence;
  _Atomic uint64_t changes;
  _Atomic uint64_t kill_at;     /* the number of the change to die at; 0 for never */
  _Atomic uint32_t kill_torn;   /* of a write 1: half is carried out before, 2: all of it */
  _Atomic uint32_t kill_group;  /* all processes of the group die */
  _Atomic uint32_t fault_errno; /* 0 for none */
  _Atomic uint32_t fault_kinds; /* which kinds of calls fail */
  _Atomic uint64_t fault_from;  /* calls of these kinds are counted from 0 in `matched` */
  _Atomic uint64_t fault_to;
  _Atomic uint64_t matched;
  _Atomic uint32_t slow_microseconds;
  _Atomic uint32_t unused;
  char unused_bytes[48];
  char fault_pattern[128]; /* only paths that hold it */
};

struct entry {
  uint32_t size; /* of the whole entry */
  uint32_t kind;
  uint64_t end;   /* the sequence at its end, which orders entries */
  uint64_t begin; /* and at its beginning */
  uint64_t inode;
  uint64_t offset;
  uint64_t length;
  uint32_t flags; /* 1: durable at its end by itself (O_DSYNC); 2: of a folder */
  uint16_t path_size;
  uint16_t target_size;
};

enum { WRITE = 1, TRUNCATE, SYNC, CREATE, UNLINK, RENAME, LINK, MKDIR, RMDIR };
enum { FAULT_WRITE = 1, FAULT_SYNC = 2, FAULT_READ = 4, FAULT_OPEN = 8, FAULT_NAME = 16, FAULT_TRUNCATE = 32, FAULT_AFTER = 64 };
enum { TRACKED = 1, DSYNC = 2 };
#define DESCRIPTORS 65536
/* Stands above every kind, so that a reader finds the next entry after one that a death has cut short. */
#define ENTRY_MARK 0x46540000u

static struct control *control;
static char root[PATH_MAX];
static size_t root_size;
static int log_descriptor = -1;
static _Atomic uint8_t tracked[DESCRIPTORS];

#define REAL(name) \
  static __typeof__(&name) real; \
  if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

__attribute__((constructor)) static void start(void) {
  const char *folder = getenv("FT_PROOF_ROOT");
  const char *control_path = getenv("FT_PROOF_CONTROL");
  const char *log_path = getenv("FT_PROOF_LOG");
  if (!folder || !control_path) return;
  snprintf(root, sizeof root, "%s", folder);
  root_size = strlen(root);
  int descriptor = syscall(SYS_openat, AT_FDCWD, control_path, O_RDWR | O_CLOEXEC, 0);
  if (descriptor < 0) return;
  void *mapped = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
  syscall(SYS_close, descriptor);
  if (mapped == MAP_FAILED) return;
  if (log_path)
    log_descriptor = syscall(SYS_openat, AT_FDCWD, log_path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
  control = mapped;
}

static int below_root(const char *path) {
  return strncmp(path, root, root_size) == 0 && (path[root_size] == '/' || path[root_size] == 0);
}

/* The absolute path if it lies below the root, else NULL. */
static const char *inside(int folder, const char *path, char *buffer) {
  if (!control || !path) return NULL;
  if (path[0] == '/') return below_root(path) ? path : NULL;
  if (folder != AT_FDCWD) return NULL;
  if (!getcwd(buffer, PATH_MAX / 2)) return NULL;
  size_t size = strlen(buffer);
  snprintf(buffer + size, PATH_MAX - size, "/%s", path);
  return below_root(buffer) ? buffer : NULL;
}

static void path_of(int descriptor, char *buffer) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
  ssize_t size = syscall(SYS_readlinkat, AT_FDCWD, link, buffer, PATH_MAX - 1);
  buffer[size < 0 ? 0 : size] = 0;
}

/* Whatever closes a file past the C library, as libuv does, leaves its number to others: to sockets, too. */
static int is_tracked(int descriptor) {
  char path[PATH_MAX];
  if (!control || descriptor < 0 || descriptor >= DESCRIPTORS || !tracked[descriptor]) return 0;
  int before = errno;
  path_of(descriptor, path);
  errno = before;
  if (!below_root(path)) tracked[descriptor] = 0;
  return tracked[descriptor];
}

static uint64_t inode_of(int descriptor) {
  struct stat stats;
  return syscall(SYS_newfstatat, descriptor, "", &stats, AT_EMPTY_PATH) == 0 ? stats.st_ino : 0;
}

static uint64_t inode_at(const char *path) {
  struct stat stats;
  return syscall(SYS_newfstatat, AT_FDCWD, path, &stats, AT_SYMLINK_NOFOLLOW) == 0 ? stats.st_ino : 0;
}

static void die(void) {
  syscall(SYS_kill, control->kill_group ? 0 : (long)getpid(), SIGKILL);
  for (;;) pause();
}

static uint64_t tick(void) { return atomic_fetch_add(&control->sequence, 1) + 1; }

/* Counts a change; tells whether it is the last one and is to be carried out in part. */
static int begin_change(uint64_t *begin) {
  if (control->slow_microseconds) usleep(control->slow_microseconds);
  *begin = tick();
  uint64_t number = atomic_fetch_add(&control->changes, 1) + 1;
  if (control->kill_at == 0 || number < control->kill_at) return 0;
  if (number == control->kill_at && control->kill_torn) return 1;
  die();
  return 0;
}

static int faulty(uint32_t kind, const char *path) {
  if (!control || !control->fault_errno || !(control->fault_kinds & kind)) return 0;
  if (control->fault_pattern[0] && (!path || !strstr(path, control->fault_pattern))) return 0;
  uint64_t number = atomic_fetch_add(&control->matched, 1);
  if (number < control->fault_from || number >= control->fault_to) return 0;
  errno = control->fault_errno;
  return 1;
}

static int faulty_descriptor(uint32_t kind, int descriptor) {
  char path[PATH_MAX];
  if (!control || !control->fault_errno || !(control->fault_kinds & kind)) return 0;
  path_of(descriptor, path);
  return faulty(kind, path);
}

static void note(uint32_t kind, uint64_t begin, uint64_t inode, uint64_t offset, uint64_t length, uint32_t flags,
                 const char *path, const char *target, const struct iovec *parts, int count) {
  if (log_descriptor < 0) return;
  int before = errno;
  struct entry entry = {.kind = ENTRY_MARK | kind, .begin = begin, .inode = inode, .offset = offset, .length = length,
                        .flags = flags, .path_size = path ? strlen(path) : 0,
                        .target_size = target ? strlen(target) : 0};
  uint64_t data = parts ? length : 0;
  entry.size = sizeof entry + entry.path_size + entry.target_size + data;
  entry.end = tick();
  char *bytes = malloc(entry.size);
  char *at = bytes;
  memcpy(at, &entry, sizeof entry), at += sizeof entry;
  if (path) memcpy(at, path, entry.path_size), at += entry.path_size;
  if (target) memcpy(at, target, entry.target_size), at += entry.target_size;
  for (int part = 0; part < count && data > 0; part++) {
    size_t size = parts[part].iov_len < data ? parts[part].iov_len : data;
    memcpy(at, parts[part].iov_base, size), at += size, data -= size;
  }
  syscall(SYS_write, log_descriptor, bytes, entry.size);
  free(bytes);
  errno = before;
}

/* Writes: all forms come here. `offset` is -1 where the file's own position counts. */
static ssize_t change_bytes(int descriptor, const struct iovec *parts, int count, off64_t offset) {
  static ssize_t (*real_writev)(int, const struct iovec *, int);
  static ssize_t (*real_pwritev)(int, const struct iovec *, int, off64_t);
  if (!real_writev) real_writev = dlsym(RTLD_NEXT, "writev");
  if (!real_pwritev) real_pwritev = dlsym(RTLD_NEXT, "pwritev64");
  int flags = is_tracked(descriptor);
  if (!flags)
    return offset < 0 ? real_writev(descriptor, parts, count) : real_pwritev(descriptor, parts, count, offset);
  int fails = faulty_descriptor(FAULT_WRITE, descriptor), error = errno;
  if (fails && !(control->fault_kinds & FAULT_AFTER)) return -1;
  uint64_t begin;
  if (begin_change(&begin)) {
    struct iovec half = {parts[0].iov_base, control->kill_torn == 2 ? parts[0].iov_len : parts[0].iov_len / 2};
    if (offset < 0) real_writev(descriptor, &half, 1);
    else real_pwritev(descriptor, &half, 1, offset);
    die();
  }
  ssize_t size = offset < 0 ? real_writev(descriptor, parts, count) : real_pwritev(descriptor, parts, count, offset);
  if (size < 0 && (flags & DSYNC)) return size;
  if (size > 0) {
    char path[PATH_MAX];
    int before = errno;
    if (offset < 0) offset = syscall(SYS_lseek, descriptor, 0, SEEK_CUR) - size;
    path_of(descriptor, path);
    note(WRITE, begin, inode_of(descriptor), offset, size, flags & DSYNC ? 1 : 0, path, NULL, parts, count);
    errno = before;
  }
  if (fails) {
    errno = error;
    return -1;
  }
  return size;
}

ssize_t write(int descriptor, const void *bytes, size_t size) {
  REAL(write);
  if (!is_tracked(descriptor)) return real(descriptor, bytes, size);
  struct iovec part = {(void *)bytes, size};
  return change_bytes(descriptor, &part, 1, -1);
}
ssize_t writev(int descriptor, const struct iovec *parts, int count) {
  return change_bytes(descriptor, parts, count, -1);
}
ssize_t pwrite64(int descriptor, const void *bytes, size_t size, off64_t offset) {
  REAL(pwrite64);
  if (!is_tracked(descriptor)) return real(descriptor, bytes, size, offset);
  struct iovec part = {(void *)bytes, size};
  return change_bytes(descriptor, &part, 1, offset);
}
ssize_t pwrite(int descriptor, const void *bytes, size_t size, off_t offset) {
  return pwrite64(descriptor, bytes, size, offset);
}
ssize_t pwritev64(int descriptor, const struct iovec *parts, int count, off64_t offset) {
  return change_bytes(descriptor, parts, count, offset);
}
ssize_t pwritev(int descriptor, const struct iovec *parts, int count, off_t offset) {
  return change_bytes(descriptor, parts, count, offset);
}

/* Copies inside the kernel are noted as writes of what has been copied. */
static void note_copied(int to, uint64_t begin, off64_t offset, ssize_t size) {
  char path[PATH_MAX], name[64];
  path_of(to, path);
  snprintf(name, sizeof name, "/proc/self/fd/%d", to);
  int reader = syscall(SYS_openat, AT_FDCWD, name, O_RDONLY | O_CLOEXEC, 0);
  char *bytes = malloc(size);
  if (syscall(SYS_pread64, reader, bytes, size, offset) == size) {
    struct iovec part = {bytes, size};
    note(WRITE, begin, inode_of(to), offset, size, 0, path, NULL, &part, 1);
  }
  free(bytes);
  syscall(SYS_close, reader);
}
ssize_t sendfile64(int to, int from, off64_t *offset, size_t size) {
  REAL(sendfile64);
  if (!is_tracked(to)) return real(to, from, offset, size);
  if (faulty_descriptor(FAULT_WRITE, to)) return -1;
  uint64_t begin;
  if (begin_change(&begin)) die();
  ssize_t done = real(to, from, offset, size);
  if (done > 0) note_copied(to, begin, syscall(SYS_lseek, to, 0, SEEK_CUR) - done, done);
  return done;
}
ssize_t copy_file_range(int from, off64_t *from_offset, int to, off64_t *offset, size_t size, unsigned flags) {
  REAL(copy_file_range);
  if (!is_tracked(to)) return real(from, from_offset, to, offset, size, flags);
  if (faulty_descriptor(FAULT_WRITE, to)) return -1;
  uint64_t begin;
  if (begin_change(&begin)) die();
  ssize_t done = real(from, from_offset, to, offset, size, flags);
  if (done > 0) note_copied(to, begin, (offset ? *offset : syscall(SYS_lseek, to, 0, SEEK_CUR)) - done, done);
  return done;
}

int ftruncate64(int descriptor, off64_t size) {
  REAL(ftruncate64);
  if (!is_tracked(descriptor)) return real(descriptor, size);
  if (faulty_descriptor(FAULT_TRUNCATE, descriptor)) return -1;
  uint64_t begin;
  if (begin_change(&begin)) die();
  int result = real(descriptor, size);
  char path[PATH_MAX];
  path_of(descriptor, path);
  if (result == 0) note(TRUNCATE, begin, inode_of(descriptor), 0, size, 0, path, NULL, NULL, 0);
  return result;
}
int ftruncate(int descriptor, off_t size) { return ftruncate64(descriptor, size); }

static int sync_with(int (*real)(int), int descriptor) {
  if (!is_tracked(descriptor)) return real(descriptor);
  if (faulty_descriptor(FAULT_SYNC, descriptor)) return -1;
  uint64_t begin;
  if (begin_change(&begin)) die();
  int result = real(descriptor);
  struct stat stats;
  if (result == 0 && syscall(SYS_newfstatat, descriptor, "", &stats, AT_EMPTY_PATH) == 0) {
    char path[PATH_MAX];
    path_of(descriptor, path);
    note(SYNC, begin, stats.st_ino, 0, 0, S_ISDIR(stats.st_mode) ? 2 : 0, path, NULL, NULL, 0);
  }
  return result;
}
int fsync(int descriptor) {
  REAL(fsync);
  return sync_with(real, descriptor);
}
int fdatasync(int descriptor) {
  REAL(fdatasync);
  return sync_with(real, descriptor);
}

static int open_noted(int folder, const char *path, int flags, mode_t mode) {
  char buffer[PATH_MAX];
  const char *known = inside(folder, path, buffer);
  if (!known) return syscall(SYS_openat, folder, path, flags | O_LARGEFILE, mode);
  if (faulty(flags & O_ACCMODE || flags & O_CREAT ? FAULT_OPEN : FAULT_READ, known)) return -1;
  int creates = (flags & O_CREAT) && inode_at(known) == 0;
  uint64_t begin = 0;
  if ((creates || (flags & O_TRUNC)) && begin_change(&begin)) die();
  int descriptor = syscall(SYS_openat, folder, path, flags | O_LARGEFILE, mode);
  if (descriptor < 0 || descriptor >= DESCRIPTORS) return descriptor;
  tracked[descriptor] = TRACKED | ((flags & O_DSYNC) ? DSYNC : 0);
  uint64_t inode = begin ? inode_of(descriptor) : 0;
  if (creates) note(CREATE, begin, inode, 0, 0, 0, known, NULL, NULL, 0);
  else if (flags & O_TRUNC) note(TRUNCATE, begin, inode, 0, 0, 0, known, NULL, NULL, 0);
  return descriptor;
}
#define MODE_OF(flags, mode) \
  mode_t mode = 0; \
  if ((flags) & (O_CREAT | O_TMPFILE)) { \
    va_list list; \
    va_start(list, flags); \
    mode = va_arg(list, mode_t); \
    va_end(list); \
  }
int open(const char *path, int flags, ...) {
  MODE_OF(flags, mode)
  return open_noted(AT_FDCWD, path, flags, mode);
}
int open64(const char *path, int flags, ...) {
  MODE_OF(flags, mode)
  return open_noted(AT_FDCWD, path, flags, mode);
}
int openat(int folder, const char *path, int flags, ...) {
  MODE_OF(flags, mode)
  return open_noted(folder, path, flags, mode);
}
int openat64(int folder, const char *path, int flags, ...) {
  MODE_OF(flags, mode)
  return open_noted(folder, path, flags, mode);
}
int close(int descriptor) {
  REAL(close);
  if (descriptor >= 0 && descriptor < DESCRIPTORS) tracked[descriptor] = 0;
  return real(descriptor);
}

/* Changes of names. */
#define NAME_CHANGE(kind, inode_path, call, path, target) \
  uint64_t begin; \
  if (faulty(FAULT_NAME, path)) return -1; \
  uint64_t inode = inode_at(inode_path); \
  if (begin_change(&begin)) die(); \
  int result = call; \
  if (result == 0) note(kind, begin, inode ? inode : inode_at(path), 0, 0, 0, path, target, NULL, 0); \
  return result;

int rename(const char *from, const char *to) {
  REAL(rename);
  char one[PATH_MAX], two[PATH_MAX];
  const char *source = inside(AT_FDCWD, from, one), *target = inside(AT_FDCWD, to, two);
  if (!source || !target) return real(from, to);
  NAME_CHANGE(RENAME, source, real(from, to), source, target)
}
int link(const char *from, const char *to) {
  REAL(link);
  char one[PATH_MAX], two[PATH_MAX];
  const char *source = inside(AT_FDCWD, from, one), *target = inside(AT_FDCWD, to, two);
  if (!source || !target) return real(from, to);
  NAME_CHANGE(LINK, source, real(from, to), source, target)
}
int unlink(const char *path) {
  REAL(unlink);
  char one[PATH_MAX];
  const char *known = inside(AT_FDCWD, path, one);
  if (!known) return real(path);
  NAME_CHANGE(UNLINK, known, real(path), known, NULL)
}
int rmdir(const char *path) {
  REAL(rmdir);
  char one[PATH_MAX];
  const char *known = inside(AT_FDCWD, path, one);
  if (!known) return real(path);
  NAME_CHANGE(RMDIR, known, real(path), known, NULL)
}
int mkdir(const char *path, mode_t mode) {
  REAL(mkdir);
  char one[PATH_MAX];
  const char *known = inside(AT_FDCWD, path, one);
  if (!known) return real(path, mode);
  NAME_CHANGE(MKDIR, "", real(path, mode), known, NULL)
}

/* Reads, for their errors only. */
ssize_t read(int descriptor, void *bytes, size_t size) {
  REAL(read);
  if (is_tracked(descriptor) && faulty_descriptor(FAULT_READ, descriptor)) return -1;
  return real(descriptor, bytes, size);
}
ssize_t pread64(int descriptor, void *bytes, size_t size, off64_t offset) {
  REAL(pread64);
  if (is_tracked(descriptor) && faulty_descriptor(FAULT_READ, descriptor)) return -1;
  return real(descriptor, bytes, size, offset);
}
ssize_t pread(int descriptor, void *bytes, size_t size, off_t offset) {
  return pread64(descriptor, bytes, size, offset);
}
ssize_t preadv64(int descriptor, const struct iovec *parts, int count, off64_t offset) {
  REAL(preadv64);
  if (is_tracked(descriptor) && faulty_descriptor(FAULT_READ, descriptor)) return -1;
  return real(descriptor, parts, count, offset);
}
