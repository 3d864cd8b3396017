/* `remove` and `empty`: entries with all that is below them. No link is followed, and what is mounted stops it. */
#include "helper.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

#define NAMES (8u << 10)
#define DEEP 200 /* a folder below that is moved up to the top, and removed from there */
#define TRIES 100 /* somebody may go on making entries */

struct name {
	uint64_t inode;
	int64_t offset;
	unsigned short length;
	unsigned char type;
	char text[];
};

struct removal {
	int top; /* folder into which deep ones are moved */
	unsigned long moved;
};

static void empty_once(struct removal *removal, int folder, unsigned depth);

static _Noreturn void fault(const char *name)
{
	if (errno == EXDEV || errno == EBUSY)
		fail("%s cannot be removed: something is mounted there", shown_text(name));
	fail("%s cannot be removed: %s", shown_text(name), strerror(errno));
}

static void move_up(struct removal *removal, int parent, const char *name)
{
	char new[64];

	for (unsigned tries = 0; tries < 1000; tries++) {
		snprintf(new, sizeof new, ".safe-compose-removed-%lu", removal->moved++);
		if (syscall(SYS_renameat2, parent, name, removal->top, new, 1 /* RENAME_NOREPLACE */) == 0 || errno == ENOENT)
			return;
		if (errno != EEXIST)
			break;
	}
	fault(name);
}

static void remove_folder(struct removal *removal, int parent, const char *name, unsigned depth)
{
	if (depth >= DEEP) {
		move_up(removal, parent, name);
		return;
	}
	for (unsigned tries = 0; tries < TRIES; tries++) {
		int fd = open_beneath(parent, name, O_RDONLY | O_DIRECTORY, 0);
		if (fd < 0 && errno == ENOENT)
			return;
		if (fd < 0)
			fault(name);
		struct removal own = {.top = fd};
		empty_once(depth ? removal : &own, fd, depth + 1);
		close(fd);
		if (unlinkat(parent, name, AT_REMOVEDIR) == 0 || errno == ENOENT)
			return;
		if (errno != ENOTEMPTY && errno != EEXIST)
			fault(name);
	}
	fail("%s cannot be removed: new entries are made in it all the time", shown_text(name));
}

static void remove_one(struct removal *removal, int parent, const char *name, bool is_folder, unsigned depth)
{
	if (!is_folder) {
		if (unlinkat(parent, name, 0) == 0 || errno == ENOENT)
			return;
		if (errno != EISDIR)
			fault(name);
	}
	remove_folder(removal, parent, name, depth);
}

static void empty_once(struct removal *removal, int folder, unsigned depth)
{
	char *names = allocate(NAMES);
	long got;

	while ((got = syscall(SYS_getdents64, folder, names, NAMES)) > 0) {
		for (long at = 0; at < got;) {
			const struct name *name = (const struct name *)(const void *)(names + at);
			if (strcmp(name->text, ".") != 0 && strcmp(name->text, "..") != 0)
				remove_one(removal, folder, name->text, name->type == DT_DIR, depth);
			at += name->length;
		}
	}
	if (got < 0 && errno != ENOENT)
		fail("a folder cannot be read: %s", strerror(errno));
	free(names);
}

int remove_entries(int count, char **words)
{
	if (count < 2)
		return USAGE;
	int root = open_root(words[0]);
	for (int i = 1; i < count; i++) {
		const char *name;
		struct removal removal = {.top = root};
		int parent = open_parent(root, words[i], &name);
		if (parent < 0 && (errno == ENOENT || errno == ENOTDIR))
			continue;
		if (parent < 0 && errno == ELOOP)
			fail("%s leads through a symbolic link", shown_text(words[i]));
		if (parent < 0)
			fault(words[i]);
		remove_one(&removal, parent, name, false, 0);
		close(parent);
	}
	return DONE;
}

int empty_folder(int count, char **words)
{
	if (count != 1)
		return USAGE;
	int root = open_root(words[0]);
	struct removal removal = {.top = root};
	for (unsigned tries = 0; tries < TRIES; tries++) {
		if (lseek(root, 0, SEEK_SET) != 0)
			fail("the folder cannot be read: %s", strerror(errno));
		empty_once(&removal, root, 1);
		if (is_empty(root))
			return DONE;
	}
	fail("new entries are made in the folder all the time");
}
