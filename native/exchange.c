/* `exchange`: the content of two volumes changes places, whatever its size, by one rename.
 *
 * A local volume is the folder `NAME/_data` below the engine's volumes folder, which is mounted here as a whole: two volumes that
 * are mounted apart are apart for rename, too. One call exchanges the two folders, so there is never a state in between.
 */
#include "helper.h"

#include <linux/magic.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/vfs.h>

#ifndef RENAME_EXCHANGE
#define RENAME_EXCHANGE 2
#endif
#define DATA "_data"

struct side {
	const char *name;
	int volume; /* the folder that holds `_data`; -1: it is not there */
	int data;   /* `_data`; -1: it is not there */
	struct stat st;
};

static _Noreturn void no(const char *what)
{
	fail_with(UNTOUCHED, "%s", what);
}

static int open_real(int parent, const char *name)
{
	int fd = open_beneath(parent, name, O_RDONLY | O_DIRECTORY, 0);

	if (fd < 0 && errno == ELOOP)
		no("its folder is a symbolic link");
	if (fd < 0 && errno == ENOTDIR)
		no("its folder is no folder");
	if (fd < 0 && errno == EXDEV)
		no("something is mounted at its folder");
	if (fd < 0 && errno != ENOENT)
		fail_with(UNTOUCHED, "its folder cannot be opened: %s", strerror(errno));
	return fd;
}

static void open_side(struct side *side, int volumes)
{
	side->volume = open_real(volumes, side->name);
	side->data = side->volume < 0 ? -1 : open_real(side->volume, DATA);
	if (side->data >= 0 && fstat(side->data, &side->st) != 0)
		fail_with(UNTOUCHED, "its folder cannot be looked at: %s", strerror(errno));
	if (side->volume >= 0 && faccessat(side->volume, ".", W_OK | X_OK, AT_EACCESS) != 0)
		no("its folder cannot be written (user namespaces, SELinux or a read-only disk)");
}

/* Whether a file system is known to exchange folders. A try that changes nothing does not tell: the kernel asks the file system
 * only when two different folders are to be exchanged. */
static bool is_known_to_exchange(int fd)
{
	struct statfs found;

	if (fstatfs(fd, &found) != 0)
		return false;
	switch ((unsigned long)found.f_type) {
	case EXT4_SUPER_MAGIC:
	case XFS_SUPER_MAGIC:
	case BTRFS_SUPER_MAGIC:
	case F2FS_SUPER_MAGIC:
	case TMPFS_MAGIC:
	case OVERLAYFS_SUPER_MAGIC:
		return true;
	default:
		return false;
	}
}

/* Open both and check all that can be known without a change. */
static void examine(struct side *volume, struct side *trash, int volumes)
{
	open_side(volume, volumes);
	open_side(trash, volumes);
	if (trash->volume < 0 || trash->data < 0)
		no("the trash has no folder");
	if (volume->data >= 0 && volume->st.st_dev != trash->st.st_dev)
		no("its folder is on another file system");
	if (!is_known_to_exchange(trash->data))
		no("its file system is not known to exchange two folders");
	/* A folder exchanged with itself stays as it is; a kernel that does not know the call says so. */
	if (syscall(SYS_renameat2, trash->volume, DATA, trash->volume, DATA, RENAME_EXCHANGE) != 0)
		fail_with(UNTOUCHED, "this system cannot exchange two folders: %s", strerror(errno));
}

static void close_side(struct side *side)
{
	if (side->data >= 0)
		close(side->data);
	if (side->volume >= 0)
		close(side->volume);
}

static bool is_said(const char *expected)
{
	char word[16];
	size_t length = 0;

	while (length < sizeof word - 1) {
		ssize_t got = read(STDIN_FILENO, word + length, 1);
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0 || word[length++] == '\n')
			break;
	}
	word[length] = 0;
	return strcmp(word, expected) == 0;
}

static void swap(const struct side *volume, const struct side *trash)
{
	if (syscall(SYS_renameat2, volume->volume, DATA, trash->volume, DATA, RENAME_EXCHANGE) != 0)
		fail_with(UNTOUCHED, "its folder cannot be exchanged: %s", strerror(errno));
	if (fsync(volume->volume) != 0 || fsync(trash->volume) != 0)
		fail("the folders were exchanged, but cannot be synced: %s", strerror(errno));
}

/* The content goes into the trash; it is done already where the trash has it and the volume has nothing, or is gone. */
static void move_out(const struct side *volume, const struct side *trash)
{
	bool trash_is_empty = is_empty(trash->data);

	if (volume->data < 0 && trash_is_empty)
		no("the volume has no folder");
	if (volume->data < 0 || (!trash_is_empty && is_empty(volume->data)))
		return;
	if (!trash_is_empty)
		no("the trash has other content by now");
	if (fchown(trash->data, volume->st.st_uid, volume->st.st_gid) != 0 || fchmod(trash->data, volume->st.st_mode & 07777) != 0 ||
	    fsync(trash->data) != 0)
		no("owner and mode cannot be set");
	swap(volume, trash);
}

/* The content comes back; it is done already where the trash has nothing. */
static void move_back(const struct side *volume, const struct side *trash)
{
	if (volume->data < 0)
		no("the volume has no folder");
	if (is_empty(trash->data))
		return;
	if (!is_empty(volume->data))
		no("the volume has other content by now");
	swap(volume, trash);
}

int exchange(int count, char **words)
{
	if (count != 4)
		return USAGE;
	bool look = strcmp(words[0], "look") == 0, out = strcmp(words[0], "out") == 0;
	struct side volume = {.name = words[2]}, trash = {.name = words[3]};
	if (!look && !out && strcmp(words[0], "back") != 0)
		return USAGE;
	if (!is_plain(words[2]) || strchr(words[2], '/') || !is_plain(words[3]) || strchr(words[3], '/'))
		no("a volume cannot have such a name");
	int volumes = open_root(words[1]);
	examine(&volume, &trash, volumes);
	if (volume.data < 0 && !out)
		no("the volume has no folder");
	if (look)
		return DONE;
	if (volume.data >= 0 && volume.st.st_ino == trash.st.st_ino)
		no("a volume is not its own trash");
	close_side(&volume);
	close_side(&trash);
	write_all(STDOUT_FILENO, "ready\n", 6);
	if (!is_said("go\n"))
		no("nobody said go");
	examine(&volume, &trash, volumes);
	if (out)
		move_out(&volume, &trash);
	else
		move_back(&volume, &trash);
	write_all(STDOUT_FILENO, "done\n", 5);
	return DONE;
}
