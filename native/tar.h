/* Reading a tar archive: one checked member after the other. */
#ifndef TAR_H
#define TAR_H

#include "helper.h"

struct attribute {
	char *name;
	char *value;
	size_t length;
};

struct member {
	char type;            /* tar's letter: 0 file, 1 hard link, 2 symbolic link, 3 and 4 devices, 5 folder, 6 FIFO */
	struct text path;     /* below the top, without a slash at its end; the top itself is empty */
	struct text link;     /* of 1: as `path`; of 2: what it points to */
	mode_t mode;          /* without the type */
	uid_t uid;
	gid_t gid;
	struct timespec mtime;
	dev_t device;
	uint64_t size;        /* bytes that follow in the archive */
	bool sparse;          /* what follows is a map and pieces */
	uint64_t real_size;   /* of a sparse file */
	struct attribute *attributes;
	size_t attributes_count;
};

struct archive {
	int fd;
	char *bytes;
	size_t at, length;
	struct text top; /* the first component of every member */
	struct text records, long_name, long_link;
};

void archive_open(struct archive *archive, int fd);
/* The next member; false at the end of the archive, which is then known to be whole. Every fault ends the program. What follows
 * the header must be taken (`archive_take`) or left out (`archive_skip`) before the next call. */
bool archive_next(struct archive *archive, struct member *member);
/* At most `most` bytes of what follows, where they lie in memory until the next call; at least one. */
size_t archive_take(struct archive *archive, uint64_t most, const char **bytes);
void archive_skip(struct archive *archive, uint64_t count);
/* Skip what fills up the last record of a content of that size. */
void archive_align(struct archive *archive, uint64_t size);
void member_clear(struct member *member);

#endif
