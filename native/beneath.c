/* Opening what lies below a folder: never through a symbolic link, into a mount, or above. */
#include "helper.h"

#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>

#define RESOLVE (RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV)
#define STEP 4000 /* bytes of a path that are resolved at once; the kernel takes at most 4095 */

static long call_openat2(int folder, const char *path, int flags, mode_t mode, uint64_t resolve)
{
	struct open_how how = {.flags = (unsigned)flags | O_CLOEXEC, .mode = (flags & O_CREAT) ? mode : 0, .resolve = resolve};
	long fd;
	int tries = 0;

	do
		fd = syscall(SYS_openat2, folder, path, &how, sizeof how);
	while (fd < 0 && (errno == EINTR || (errno == EAGAIN && ++tries < 1000))); /* EAGAIN: something was renamed meanwhile */
	return fd;
}

/* Whether the kernel (since 5.6) and its seccomp filter allow openat2. */
static bool knows_openat2(void)
{
	static int known = -1;

	if (known < 0) {
		long fd = call_openat2(AT_FDCWD, "/", O_PATH | O_DIRECTORY, 0, 0);
		known = fd >= 0;
		if (fd >= 0)
			close((int)fd);
	}
	return known;
}

/* What tells mounts apart: the mount's id where the kernel tells it (since 5.8), else the file system. */
static bool is_same_mount(int one, int other)
{
	struct statx a, b;

	if (statx(one, "", AT_EMPTY_PATH, STATX_MNT_ID, &a) == 0 && statx(other, "", AT_EMPTY_PATH, STATX_MNT_ID, &b) == 0) {
		if (a.stx_mask & b.stx_mask & STATX_MNT_ID)
			return a.stx_mnt_id == b.stx_mnt_id;
		return a.stx_dev_major == b.stx_dev_major && a.stx_dev_minor == b.stx_dev_minor;
	}
	struct stat c, d;
	return fstat(one, &c) == 0 && fstat(other, &d) == 0 && c.st_dev == d.st_dev;
}

static int open_once(int folder, const char *path, int flags, mode_t mode)
{
	if (knows_openat2())
		return (int)call_openat2(folder, path, flags | O_NOFOLLOW, mode, RESOLVE);
	int fd;
	do
		fd = openat(folder, path, flags | O_NOFOLLOW | O_CLOEXEC, mode);
	while (fd < 0 && errno == EINTR);
	if (fd >= 0 && !is_same_mount(folder, fd)) {
		close(fd);
		errno = EXDEV;
		return -1;
	}
	return fd;
}

/* One component, or where openat2 is known a few. */
static int open_one(int folder, const char *path, int flags, mode_t mode)
{
	struct stat st;
	int fd = open_once(folder, path, flags, mode);

	if (fd < 0 && errno == ENOTDIR && (flags & O_DIRECTORY)) { /* so a link is called where a folder is wanted */
		int there = open_once(folder, path, O_PATH, 0);
		errno = there >= 0 && fstat(there, &st) == 0 && S_ISLNK(st.st_mode) ? ELOOP : ENOTDIR;
		if (there >= 0) {
			int error = errno;
			close(there);
			errno = error;
		}
	}
	return fd;
}

bool is_plain(const char *path)
{
	const char *at = path;

	for (;;) {
		size_t length = strcspn(at, "/");
		if (length == 0 || (length == 1 && at[0] == '.') || (length == 2 && at[0] == '.' && at[1] == '.'))
			return false;
		if (!at[length])
			return true;
		at += length + 1;
	}
}

/* Open the folder that the first `length` bytes of a plain path name, O_PATH; a duplicate of `root` for none. */
static int open_folder(int root, const char *path, size_t length)
{
	int folder = fcntl(root, F_DUPFD_CLOEXEC, 0);
	size_t most = knows_openat2() ? STEP : 1;

	for (size_t at = 0; folder >= 0 && at < length;) {
		char piece[STEP + 256 + 1];
		size_t end = at;
		/* whole components, as many as are resolved at once */
		do {
			size_t next = end + (end > at);
			const char *slash = memchr(path + next, '/', length - next);
			size_t stop = slash ? (size_t)(slash - path) : length;
			if (stop - next > 255) {
				close(folder);
				errno = ENAMETOOLONG;
				return -1;
			}
			if (end > at && stop - at > STEP)
				break;
			end = stop;
		} while (end < length && end - at < most);
		memcpy(piece, path + at, end - at);
		piece[end - at] = 0;
		int next = open_one(folder, piece, O_PATH | O_DIRECTORY, 0);
		int error = errno;
		close(folder);
		errno = error;
		folder = next;
		at = end + 1;
	}
	return folder;
}

int open_parent(int root, const char *path, const char **name)
{
	const char *slash = strrchr(path, '/');

	if (!is_plain(path)) {
		errno = EXDEV;
		return -1;
	}
	*name = slash ? slash + 1 : path;
	return open_folder(root, path, slash ? (size_t)(slash - path) : 0);
}

int open_beneath(int root, const char *path, int flags, mode_t mode)
{
	const char *name;
	int folder = strchr(path, '/') ? open_parent(root, path, &name) : root;

	if (folder < 0)
		return -1;
	if (folder == root) {
		if (!is_plain(path)) {
			errno = EXDEV;
			return -1;
		}
		return open_one(root, path, flags, mode);
	}
	int fd = open_one(folder, name, flags, mode);
	int error = errno;
	close(folder);
	errno = error;
	return fd;
}

int open_entry(int root, const char *path)
{
	if (strcmp(path, ".") == 0)
		return openat(root, ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	return open_beneath(root, path, O_PATH, 0);
}

int open_root(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC | O_NOATIME);

	if (fd < 0 && errno == EPERM) /* O_NOATIME is for the owner, and for CAP_FOWNER */
		fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		fail_with(UNTOUCHED, "%s cannot be opened: %s", shown_text(path), strerror(errno));
	return fd;
}

int reopen(int path_fd, int flags)
{
	char path[64];

	snprintf(path, sizeof path, "/proc/self/fd/%d", path_fd);
	int fd = open(path, flags | O_CLOEXEC | O_NOATIME);
	if (fd < 0 && errno == EPERM)
		fd = open(path, flags | O_CLOEXEC);
	return fd;
}
