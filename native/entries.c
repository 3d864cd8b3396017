/* One entry of a folder, or a few: `cat`, `stat`, `mkdir`, `rename`, `own`, `put`. Paths lead through no symbolic link. */
#include "helper.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

#ifndef RENAME_NOREPLACE
#define RENAME_NOREPLACE 1
#endif

/* Whether an errno of opening a path means that nothing below the folder has it. */
static bool is_missing(int error)
{
	return error == ENOENT || error == ENOTDIR;
}

static _Noreturn void fault(const char *path, const char *what)
{
	if (errno == ELOOP)
		fail("%s leads through a symbolic link", shown_text(path));
	if (errno == EXDEV)
		fail("%s does not lie in the folder, or something is mounted there", shown_text(path));
	fail("%s cannot be %s: %s", shown_text(path), what, strerror(errno));
}

/* A number in a word of the command line; the program ends for any other word. */
static unsigned long number(const char *word, int base, unsigned long most)
{
	char *end;

	errno = 0;
	unsigned long value = strtoul(word, &end, base);
	if (errno || *end || end == word || *word == '-' || *word == '+' || *word == ' ' || value > most)
		fail_with(USAGE, "%s is not a number that is possible here", shown_text(word));
	return value;
}

static int open_target(const char *file)
{
	int fd = open(file, O_WRONLY | O_NOCTTY | O_CLOEXEC);
	if (fd < 0)
		fail_with(UNTOUCHED, "%s cannot be opened: %s", shown_text(file), strerror(errno));
	return fd;
}

int cat(int count, char **words)
{
	const char *file = NULL;
	struct stat st;

	if (count == 3 && strncmp(words[2], "--file=", 7) == 0)
		file = words[2] + 7;
	else if (count != 2)
		return USAGE;
	int root = open_root(words[0]), path_fd = open_beneath(root, words[1], O_PATH, 0);
	if (path_fd < 0 && is_missing(errno))
		fail_with(UNTOUCHED, "no such file");
	if (path_fd < 0 || fstat(path_fd, &st) != 0)
		fault(words[1], "opened");
	if (!S_ISREG(st.st_mode))
		fail("%s is no regular file", shown_text(words[1]));
	int fd = reopen(path_fd, O_RDONLY | O_NOCTTY), target = file ? open_target(file) : STDOUT_FILENO;
	if (fd < 0)
		fault(words[1], "opened");
	struct output out;
	output_open(&out, target);
	for (;;) {
		ssize_t got = read(fd, out.bytes, OUTPUT_ROOM);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			fault(words[1], "read");
		if (got == 0)
			return DONE;
		write_all(target, out.bytes, (size_t)got);
	}
}

int stat_entries(int count, char **words)
{
	struct output out;

	if (count < 2)
		return USAGE;
	int root = open_root(words[0]);
	output_open(&out, STDOUT_FILENO);
	for (int i = 1; i < count; i++) {
		struct stat st;
		int fd = open_entry(root, words[i]);
		if (fd < 0 && !is_missing(errno) && errno != ELOOP)
			fault(words[i], "looked at"); /* what lies behind a link is not in the folder: it is not there */
		if (fd < 0) {
			output_add(&out, "- ", 3);
			continue;
		}
		if (fstat(fd, &st) != 0)
			fault(words[i], "looked at");
		output_record(&out, &st, words[i], strcmp(words[i], ".") ? strlen(words[i]) : 0);
		close(fd);
	}
	output_flush(&out);
	return DONE;
}

static int parent_of(int root, const char *path, const char **name)
{
	int parent = open_parent(root, path, name);

	if (parent < 0 && is_missing(errno))
		fail_with(UNTOUCHED, "the folder of %s is not there", shown_text(path));
	if (parent < 0)
		fault(path, "reached");
	return parent;
}

int make_folder(int count, char **words)
{
	const char *name;

	if (count != 3)
		return USAGE;
	mode_t mode = (mode_t)number(words[2], 8, 07777);
	int root = open_root(words[0]), parent = parent_of(root, words[1], &name);
	if (mkdirat(parent, name, 0700) != 0) {
		if (errno == EEXIST)
			fail_with(UNTOUCHED, "%s is there already", shown_text(words[1]));
		fault(words[1], "made");
	}
	int fd = open_beneath(parent, name, O_RDONLY | O_DIRECTORY, 0);
	if (fd < 0 || fchmod(fd, mode) != 0)
		fault(words[1], "given its mode");
	return DONE;
}

int rename_entry(int count, char **words)
{
	const char *old, *new;

	if (count != 3)
		return USAGE;
	int root = open_root(words[0]), from = parent_of(root, words[1], &old), to = parent_of(root, words[2], &new);
	if (syscall(SYS_renameat2, from, old, to, new, RENAME_NOREPLACE) == 0)
		return DONE;
	if (errno == EEXIST)
		fail_with(UNTOUCHED, "%s is there already", shown_text(words[2]));
	if (errno == ENOENT)
		fail_with(UNTOUCHED, "%s is not there", shown_text(words[1]));
	fail_with(UNTOUCHED, "%s cannot be renamed: %s", shown_text(words[1]), strerror(errno));
}

int own(int count, char **words)
{
	struct stat st;
	char way[64];

	if (count != 5)
		return USAGE;
	uid_t uid = (uid_t)number(words[2], 10, UINT32_MAX - 1);
	gid_t gid = (gid_t)number(words[3], 10, UINT32_MAX - 1);
	mode_t mode = (mode_t)number(words[4], 8, 07777);
	int fd = open_entry(open_root(words[0]), words[1]);
	if (fd < 0 && is_missing(errno))
		fail_with(UNTOUCHED, "no such file");
	if (fd < 0 || fstat(fd, &st) != 0)
		fault(words[1], "opened");
	snprintf(way, sizeof way, "/proc/self/fd/%d", fd);
	if (fchownat(fd, "", uid, gid, AT_EMPTY_PATH) != 0 || (!S_ISLNK(st.st_mode) && chmod(way, mode) != 0))
		fault(words[1], "given its owner and mode");
	return DONE;
}

/* Copy the standard input into a file and sync it; false and errno. */
static bool copy_input(int fd)
{
	char *bytes = allocate(OUTPUT_ROOM);

	for (;;) {
		ssize_t got = read(STDIN_FILENO, bytes, OUTPUT_ROOM);
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0) {
			free(bytes);
			return got == 0 && fsync(fd) == 0;
		}
		for (ssize_t at = 0; at < got;) {
			ssize_t done = write(fd, bytes + at, (size_t)(got - at));
			if (done < 0 && errno != EINTR)
				return false;
			at += done > 0 ? done : 0;
		}
	}
}

int put(int count, char **words)
{
	const char *name;

	if (count != 5)
		return USAGE;
	uid_t uid = (uid_t)number(words[2], 10, UINT32_MAX - 1);
	gid_t gid = (gid_t)number(words[3], 10, UINT32_MAX - 1);
	mode_t mode = (mode_t)number(words[4], 8, 07777);
	int parent = parent_of(open_root(words[0]), words[1], &name);
	int fd = openat(parent, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0 && errno == EEXIST)
		fail_with(UNTOUCHED, "%s is there already", shown_text(words[1]));
	if (fd < 0)
		fault(words[1], "made");
	int folder = openat(parent, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (!copy_input(fd) || fchown(fd, uid, gid) != 0 || fchmod(fd, mode) != 0 || folder < 0 || fsync(fd) != 0 || fsync(folder) != 0) {
		int error = errno;
		unlinkat(parent, name, 0);
		errno = error;
		fault(words[1], "written");
	}
	return DONE;
}
