/* Every entry of a tree, which may change meanwhile: no recursion, no symbolic link, no mount is entered. */
#include "helper.h"

#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

/* As getdents64 writes it. */
struct name {
	uint64_t inode;
	int64_t offset;
	unsigned short length;
	unsigned char type;
	char text[];
};

/* One open folder on the way from the root. */
struct level {
	int fd; /* -1: closed, because too many were open; all its names are in memory then */
	struct stat st;
	char *names;
	size_t at, length, room;
	bool ended; /* nothing more to be read */
	size_t path; /* its length */
};

#define NAMES (32u << 10)
#define NAMES_DEEP (4u << 10)
#define DEEP 64
#define SPARE 64 /* descriptors that are left to others */

static bool is_same(const struct stat *a, const struct stat *b)
{
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

size_t most_open(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
		return 256;
	if (limit.rlim_cur < limit.rlim_max) {
		limit.rlim_cur = limit.rlim_max < (1 << 20) ? limit.rlim_max : (1 << 20);
		if (setrlimit(RLIMIT_NOFILE, &limit) != 0 || getrlimit(RLIMIT_NOFILE, &limit) != 0)
			return 256;
	}
	return limit.rlim_cur > 2 * SPARE ? (size_t)limit.rlim_cur - SPARE : SPARE;
}

bool is_empty(int folder)
{
	_Alignas(8) char names[NAMES_DEEP];
	long got;

	if (lseek(folder, 0, SEEK_SET) != 0)
		fail("a folder cannot be read: %s", strerror(errno));
	while ((got = syscall(SYS_getdents64, folder, names, sizeof names)) > 0) {
		for (long at = 0; at < got;) {
			const struct name *name = (const struct name *)(const void *)(names + at);
			if (strcmp(name->text, ".") != 0 && strcmp(name->text, "..") != 0)
				return false;
			at += name->length;
		}
	}
	if (got < 0)
		fail("a folder cannot be read: %s", strerror(errno));
	return true;
}

/* Read more names behind those that are there; false at the end of the folder. */
static bool read_names(struct level *level, struct walk *walk, const struct text *path)
{
	if (level->ended)
		return false;
	if (level->room - level->length < NAMES_DEEP) {
		level->room = level->length + (level->room ? NAMES : NAMES_DEEP);
		level->names = resize(level->names, level->room);
	}
	long got;
	do
		got = syscall(SYS_getdents64, level->fd, level->names + level->length, level->room - level->length);
	while (got < 0 && errno == EINTR);
	if (got < 0 && errno != ENOENT) /* ENOENT: the folder was removed meanwhile */
		fail("%s cannot be read: %s", shown(path->bytes, level->path), strerror(errno));
	if (got <= 0) {
		struct stat now;
		level->ended = true;
		if (walk->only && level->path == 0) /* what else happens there does not matter */
			return false;
		if (fstat(level->fd, &now) != 0 || now.st_mtim.tv_sec != level->st.st_mtim.tv_sec ||
		    now.st_mtim.tv_nsec != level->st.st_mtim.tv_nsec)
			walk->changed(walk, path->bytes, level->path);
		return false;
	}
	level->length += (size_t)got;
	return true;
}

/* The next name of a folder but `.` and `..`; NULL at its end. It lives until the next call. */
static const struct name *next_name(struct level *level, struct walk *walk, const struct text *path)
{
	for (;;) {
		if (level->at == level->length) {
			level->at = level->length = 0;
			if (!read_names(level, walk, path))
				return NULL;
		}
		const struct name *name = (const struct name *)(const void *)(level->names + level->at);
		level->at += name->length;
		if (strcmp(name->text, ".") != 0 && strcmp(name->text, "..") != 0)
			return name;
	}
}

/* Take all the names of a folder into memory, and close it. */
static void close_early(struct level *level, struct walk *walk, const struct text *path)
{
	memmove(level->names, level->names + level->at, level->length - level->at);
	level->length -= level->at;
	level->at = 0;
	while (read_names(level, walk, path))
		;
	close(level->fd);
	level->fd = -1;
}

/* Open a folder again from the one below it. */
static void open_again(struct level *level, const struct level *below, const struct text *path)
{
	struct stat now;

	level->fd = openat(below->fd, "..", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (level->fd < 0 || fstat(level->fd, &now) != 0 || !is_same(&now, &level->st))
		fail("%s was moved while it was read", shown(path->bytes, below->path));
}

static void enter(struct level *level, int fd, const struct stat *st, size_t path, size_t depth)
{
	*level = (struct level){.fd = fd, .st = *st, .path = path};
	level->room = depth < DEEP ? NAMES : NAMES_DEEP;
	level->names = allocate(level->room);
}

/* Look at one name and visit it; a descriptor when it is a folder that is to be entered, else -1. */
static int meet(struct walk *walk, const struct level *level, const struct name *found, struct text *path, struct stat *st)
{
	struct entry entry = {.parent = level->fd, .fd = -1, .path = path->bytes, .length = path->length};
	const char *name = path->bytes + path->length - strlen(found->text);

	entry.name = name;
	if (walk->looks && found->type != DT_DIR && found->type != DT_UNKNOWN) {
		entry.is_unseen = true;
		walk->visit(walk, &entry);
		return -1;
	}
	if (fstatat(level->fd, name, &entry.st, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT) != 0) {
		if (errno != ENOENT)
			fail("%s cannot be looked at: %s", shown(path->bytes, path->length), strerror(errno));
		walk->changed(walk, path->bytes, path->length);
		return -1;
	}
	if (S_ISDIR(entry.st.st_mode)) {
		entry.fd = open_beneath(level->fd, name, O_RDONLY | O_DIRECTORY | O_NOATIME, 0);
		if (entry.fd < 0 && errno == EPERM)
			entry.fd = open_beneath(level->fd, name, O_RDONLY | O_DIRECTORY, 0);
		if (entry.fd < 0 && errno == EXDEV) {
			entry.mount = true;
		} else if (entry.fd < 0 && (errno == ENOENT || errno == ENOTDIR || errno == ELOOP)) {
			walk->changed(walk, path->bytes, path->length);
			return -1;
		} else if (entry.fd < 0 || fstat(entry.fd, &entry.st) != 0) {
			fail("%s cannot be opened: %s", shown(path->bytes, path->length), strerror(errno));
		}
	} else {
		entry.mount = entry.st.st_dev != level->st.st_dev;
	}
	walk->visit(walk, &entry);
	*st = entry.st;
	return entry.fd;
}

void walk_tree(int root, struct walk *walk)
{
	size_t most = most_open(), depth = 0, room = 64, closed = 0;
	struct level *levels = allocate(room * sizeof *levels);
	struct text path = {0};
	struct stat st;

	text_reserve(&path, 0);
	if (fstat(root, &st) != 0)
		fail("the folder cannot be looked at: %s", strerror(errno));
	walk->visit(walk, &(struct entry){.parent = -1, .fd = root, .name = "", .path = path.bytes, .st = st});
	enter(&levels[0], root, &st, 0, 0);
	for (;;) {
		struct level *level = &levels[depth];
		const struct name *name = next_name(level, walk, &path);
		if (!name) {
			free(level->names);
			if (depth == 0)
				break;
			if (levels[depth - 1].fd < 0) {
				open_again(&levels[depth - 1], level, &path);
				closed--;
			}
			close(level->fd);
			depth--;
			continue;
		}
		if (depth == 0 && walk->only && strcmp(name->text, walk->only) != 0)
			continue;
		text_cut(&path, level->path);
		if (level->path)
			text_add(&path, "/", 1);
		text_add(&path, name->text, strlen(name->text));
		int fd = meet(walk, level, name, &path, &st);
		if (fd < 0)
			continue;
		if (depth + 1 - closed >= most && closed < depth)
			close_early(&levels[closed++], walk, &path);
		if (++depth == room) {
			room *= 2;
			levels = resize(levels, room * sizeof *levels);
		}
		enter(&levels[depth], fd, &st, path.length, depth);
	}
	free(levels);
	free(path.bytes);
}

void changes_add(struct changes *changes, const char *path, size_t length)
{
	if (changes->count++ < 3)
		say("%s changed while it was read", shown(path, length));
}

void changes_tell(const struct changes *changes)
{
	if (changes->count > 3)
		say("%lu more changed while they were read", changes->count - 3);
}
