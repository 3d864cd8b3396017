/* What the parts of the volume helper share. See main.c for what the program is. */
#ifndef HELPER_H
#define HELPER_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#define _FILE_OFFSET_BITS 64

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

enum exit_code {
	DONE = 0,
	FAILED = 1,    /* one line on stderr says why */
	USAGE = 2,     /* wrong arguments */
	CHANGED = 3,   /* finished, but files changed while they were read */
	UNTOUCHED = 10, /* it cannot be done, and nothing was changed */
	WITHOUT = 11,  /* this build lacks it */
};

/* -- say.c: messages and memory -- */

/* A name for a message: printable ASCII, cut where it is too long. Four results live at a time. */
const char *shown(const char *name, size_t length);
const char *shown_text(const char *name);
/* One line on stderr. */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* One line on stderr, then the end of the program. */
_Noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
_Noreturn void fail_with(enum exit_code code, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Never NULL: the program ends when there is no memory. */
void *allocate(size_t bytes);
void *resize(void *memory, size_t bytes);

/* Bytes that grow; a NUL that is not counted always follows. */
struct text {
	char *bytes;
	size_t length, room;
};
void text_reserve(struct text *text, size_t more);
void text_add(struct text *text, const void *bytes, size_t length);
void text_cut(struct text *text, size_t length);

/* What is written to a descriptor in large pieces. */
struct output {
	int fd;
	char *bytes;
	size_t length;
	uint64_t total; /* bytes that were given to it */
};
#define OUTPUT_ROOM (128u << 10) /* more falls out of the processor's cache on its way through a pipe (measured) */
void output_open(struct output *out, int fd);
void output_add(struct output *out, const void *bytes, size_t length);
void output_flush(struct output *out);
/* Write everything, whatever the pieces; the program ends when it cannot. */
void write_all(int fd, const void *bytes, size_t length);

/* -- sandbox.c -- */

/* From now on the kernel refuses every system call that this program has no use for. */
void give_up_calls(void);

/* -- beneath.c: opening what lies below a folder, and nothing else -- */

/* The folder that a command was given; its last component is no link. */
int open_root(const char *path);
/* Open what a path below `root` names: no symbolic link on the way, no mount is crossed, never above. -1 and errno: ELOOP for a
 * link, EXDEV for a mount point or for a path that is none. */
int open_beneath(int root, const char *path, int flags, mode_t mode);
/* Open the folder that holds what a path names, O_PATH; `*name` is the last component. */
int open_parent(int root, const char *path, const char **name);
/* Whether a path is relative, and has no empty, `.` or `..` component. */
bool is_plain(const char *path);
/* Open for reading what an O_PATH descriptor refers to; the caller knows that it is a regular file. */
int reopen(int path_fd, int flags);

/* Open what a path below `root` names, O_PATH; `.` is the root itself. */
int open_entry(int root, const char *path);
/* How many folders may be open at a time: as many as the system allows. */
size_t most_open(void);
/* Whether a folder, open for reading, has no entry. */
bool is_empty(int folder);

/* -- walk.c: every entry of a tree -- */

struct entry {
	int parent;           /* descriptor of the folder that holds it; -1 for the root */
	int fd;               /* of a folder: open for reading; else -1 */
	const char *name;     /* in its folder */
	const char *path;     /* from the root, which itself is empty */
	size_t length;        /* of the path */
	struct stat st;       /* unset when `is_unseen` */
	bool mount;           /* something is mounted here: it is not entered */
	bool is_unseen;       /* no folder, and not looked at yet */
};

struct walk {
	void (*visit)(struct walk *walk, const struct entry *entry);
	void (*changed)(struct walk *walk, const char *path, size_t length); /* it changed while it was read */
	void *context;
	bool looks; /* the visitor itself looks at what is no folder */
	const char *only; /* the one name at the root that is visited; NULL: every one */
};
/* Visit the root and everything below it, each folder before what it holds. Memory does not grow with the number of entries. */
void walk_tree(int root, struct walk *walk);

/* Write one entry as `list` does. */
void output_record(struct output *out, const struct stat *st, const char *path, size_t length);

/* Names of what changed while it was read: the first are told at the end. */
struct changes {
	unsigned long count;
};
void changes_add(struct changes *changes, const char *path, size_t length);
void changes_tell(const struct changes *changes);

/* -- attributes.c: extended attributes and ACLs -- */

#define ACL_ACCESS "system.posix_acl_access"
#define ACL_DEFAULT "system.posix_acl_default"

/* The names of an object's attributes, each with a NUL. `fd` is open for reading, or O_PATH. False when it has none. */
bool attribute_names(int fd, bool is_path, struct text *names);
/* The value of one; false when it has gone meanwhile. */
bool attribute_value(int fd, bool is_path, const char *name, struct text *value);
/* Set one; 0 or an errno. */
int attribute_set(int fd, bool is_path, const char *name, const void *value, size_t length);
/* An ACL as the kernel has it, as text (`user:77:rw-` on each line); false when it is none. */
bool acl_to_text(const struct text *value, struct text *text);
/* Take one away; that there is none is fine, and with may_stay that nobody may change the entry (chattr +i). */
void attribute_remove(int fd, const char *name, bool may_stay);
/* The way back. Comments and names for the four basic entries are understood; ids must be numbers. */
bool acl_from_text(const char *text, size_t length, struct text *value);

/* -- the commands; each returns an exit code -- */

int list(int count, char **words);
int newest(int count, char **words);
int pack(int count, char **words);
int unpack(int count, char **words);
int exchange(int count, char **words);
int cat(int count, char **words);
int stat_entries(int count, char **words);
int make_folder(int count, char **words);
int rename_entry(int count, char **words);
int remove_entries(int count, char **words);
int empty_folder(int count, char **words);
int own(int count, char **words);
int put(int count, char **words);
int sqlite_copy(int count, char **words);

#endif
