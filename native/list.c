/* `list` and `newest`: what is in a folder, and when it was last written. Only metadata is read. */
#include "helper.h"

#include <stdio.h>
#include <string.h>

struct listing {
	struct output out;
	struct changes changes;
	unsigned long mounts;
};

/* The letter that find's `%y` has for it. */
static char kind(mode_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFREG: return 'f';
	case S_IFDIR: return 'd';
	case S_IFLNK: return 'l';
	case S_IFIFO: return 'p';
	case S_IFCHR: return 'c';
	case S_IFBLK: return 'b';
	case S_IFSOCK: return 's';
	default: return 'U';
	}
}

void output_record(struct output *out, const struct stat *st, const char *path, size_t length)
{
	char head[128];
	int size = snprintf(head, sizeof head, "%c %lld %o %u %u ", kind(st->st_mode), (long long)st->st_size,
			    (unsigned)(st->st_mode & 07777), st->st_uid, st->st_gid);

	output_add(out, head, (size_t)size);
	output_add(out, path, length);
	output_add(out, "", 1);
}

static void list_entry(struct walk *walk, const struct entry *entry)
{
	struct listing *listing = walk->context;

	if (entry->mount && listing->mounts++ < 3)
		say("%s: something is mounted here, which is not entered", shown(entry->path, entry->length));
	output_record(&listing->out, &entry->st, entry->path, entry->length);
}

static void list_changed(struct walk *walk, const char *path, size_t length)
{
	changes_add(&((struct listing *)walk->context)->changes, path, length);
}

int list(int count, char **words)
{
	struct listing listing = {0};
	struct walk walk = {.visit = list_entry, .changed = list_changed, .context = &listing};

	if (count == 2 && strncmp(words[0], "--only=", 7) == 0) {
		walk.only = words[0] + 7;
		count--, words++;
	}
	if (count != 1)
		return USAGE;
	output_open(&listing.out, STDOUT_FILENO);
	walk_tree(open_root(words[0]), &walk);
	output_flush(&listing.out);
	changes_tell(&listing.changes);
	return listing.changes.count ? CHANGED : DONE;
}

static void newest_entry(struct walk *walk, const struct entry *entry)
{
	int64_t *newest = walk->context;

	if (entry->st.st_mtim.tv_sec > *newest)
		*newest = entry->st.st_mtim.tv_sec;
}

static void newest_changed(struct walk *walk, const char *path, size_t length)
{
	(void)walk, (void)path, (void)length; /* whoever writes while it is read has written later than can be told */
}

int newest(int count, char **words)
{
	if (count < 1)
		return USAGE;
	for (int i = 0; i < count; i++) {
		int64_t found = INT64_MIN;
		struct walk walk = {.visit = newest_entry, .changed = newest_changed, .context = &found};
		char line[64];

		struct stat st;
		if (stat(words[i], &st) == 0 && S_ISREG(st.st_mode)) /* a single file of the host is mounted there */
			found = st.st_mtim.tv_sec;
		else
			walk_tree(open_root(words[i]), &walk);
		int length = snprintf(line, sizeof line, "%lld ", (long long)found);
		struct text text = {0};
		text_add(&text, line, (size_t)length);
		text_add(&text, words[i], strlen(words[i]));
		text_add(&text, "\n", 1);
		write_all(STDOUT_FILENO, text.bytes, text.length);
	}
	return DONE;
}
