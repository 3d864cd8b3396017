/* Extended attributes of what a descriptor refers to, and ACLs as text. */
#include "helper.h"

#include <endian.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>

/* Calls that take a descriptor refuse one of O_PATH, as a symbolic link or a device has; its path in /proc leads to the object. */
static const char *way(int fd, char room[64])
{
	snprintf(room, 64, "/proc/self/fd/%d", fd);
	return room;
}

bool attribute_names(int fd, bool is_path, struct text *names)
{
	char room[64];

	for (size_t size = 1024;; size *= 4) {
		names->length = 0;
		text_reserve(names, size);
		ssize_t got = is_path ? listxattr(way(fd, room), names->bytes, size) : flistxattr(fd, names->bytes, size);
		if (got >= 0) {
			names->length = (size_t)got;
			names->bytes[got] = 0;
			return got > 0;
		}
		if (errno == EOPNOTSUPP || errno == ENOENT)
			return false;
		if (errno != ERANGE || size > (16u << 20))
			fail("extended attributes cannot be listed: %s", strerror(errno));
	}
}

bool attribute_value(int fd, bool is_path, const char *name, struct text *value)
{
	char room[64];

	for (size_t size = 4096;; size *= 4) {
		value->length = 0;
		text_reserve(value, size);
		ssize_t got = is_path ? getxattr(way(fd, room), name, value->bytes, size) : fgetxattr(fd, name, value->bytes, size);
		if (got >= 0) {
			value->length = (size_t)got;
			value->bytes[got] = 0;
			return true;
		}
		if (errno == ENODATA || errno == EOPNOTSUPP)
			return false;
		if (errno != ERANGE || size > (16u << 20))
			fail("the extended attribute %s cannot be read: %s", shown_text(name), strerror(errno));
	}
}

int attribute_set(int fd, bool is_path, const char *name, const void *value, size_t length)
{
	char room[64];
	int done = is_path ? setxattr(way(fd, room), name, value, length, 0) : fsetxattr(fd, name, value, length, 0);

	return done == 0 ? 0 : errno;
}

void attribute_remove(int fd, const char *name, bool may_stay)
{
	if (fremovexattr(fd, name) != 0 && errno != ENODATA && errno != EOPNOTSUPP && !(may_stay && errno == EPERM))
		fail("the extended attribute %s cannot be removed: %s", shown_text(name), strerror(errno));
}

/* -- ACLs: acl(5) for the text, linux/posix_acl_xattr.h for the bytes -- */

#define ACL_VERSION 2u
#define NO_ID 0xffffffffu
enum { OWNER = 1, USER = 2, OWNING_GROUP = 4, GROUP = 8, MASK = 16, OTHER = 32 };

struct acl_entry {
	uint16_t tag, permissions;
	uint32_t id;
};

bool acl_to_text(const struct text *value, struct text *text)
{
	uint32_t version;

	if (value->length < 4 || (value->length - 4) % 8 != 0)
		return false;
	memcpy(&version, value->bytes, 4);
	if (le32toh(version) != ACL_VERSION)
		return false;
	text->length = 0;
	text_reserve(text, 0);
	for (size_t at = 4; at < value->length; at += 8) {
		struct acl_entry entry;
		char line[64];
		memcpy(&entry, value->bytes + at, 8);
		unsigned tag = le16toh(entry.tag), may = le16toh(entry.permissions), id = le32toh(entry.id);
		const char *word = tag == OWNER || tag == USER ? "user" : tag == OWNING_GROUP || tag == GROUP ? "group"
				   : tag == MASK ? "mask" : tag == OTHER ? "other" : NULL;
		if (!word || may > 7)
			return false;
		int size = snprintf(line, sizeof line, "%s:", word);
		if (tag == USER || tag == GROUP)
			size += snprintf(line + size, sizeof line - (size_t)size, "%u", id);
		size += snprintf(line + size, sizeof line - (size_t)size, ":%c%c%c\n", may & 4 ? 'r' : '-', may & 2 ? 'w' : '-',
				 may & 1 ? 'x' : '-');
		text_add(text, line, (size_t)size);
	}
	return true;
}

static int by_tag_and_id(const void *one, const void *other)
{
	const struct acl_entry *a = one, *b = other;

	if (a->tag != b->tag)
		return a->tag < b->tag ? -1 : 1;
	return a->id < b->id ? -1 : a->id > b->id;
}

/* `tag:id:permissions`, without blanks around it. */
static bool parse_entry(const char *at, size_t length, struct acl_entry *entry)
{
	static const struct { const char *word; uint16_t plain, named; } tags[] = {
		{"user", OWNER, USER}, {"u", OWNER, USER}, {"group", OWNING_GROUP, GROUP}, {"g", OWNING_GROUP, GROUP},
		{"mask", MASK, 0}, {"m", MASK, 0}, {"other", OTHER, 0}, {"o", OTHER, 0},
	};
	const char *end = at + length, *colon = memchr(at, ':', length);
	const char *second = colon ? memchr(colon + 1, ':', (size_t)(end - colon - 1)) : NULL;

	if (!second)
		return false;
	*entry = (struct acl_entry){.id = NO_ID};
	for (size_t i = 0; i < sizeof tags / sizeof *tags; i++) {
		if (strlen(tags[i].word) == (size_t)(colon - at) && memcmp(tags[i].word, at, (size_t)(colon - at)) == 0)
			entry->tag = second == colon + 1 ? tags[i].plain : tags[i].named;
	}
	if (second > colon + 1) {
		uint64_t id = 0;
		for (const char *digit = colon + 1; digit < second; digit++) {
			if (*digit < '0' || *digit > '9' || id > NO_ID)
				return false;
			id = id * 10 + (uint64_t)(*digit - '0');
		}
		if (id >= NO_ID)
			return false;
		entry->id = (uint32_t)id;
	}
	for (const char *letter = second + 1; letter < end; letter++) {
		unsigned bit = *letter == 'r' ? 4 : *letter == 'w' ? 2 : *letter == 'x' ? 1 : *letter == '-' ? 0 : 8;
		if (bit == 8)
			return false;
		entry->permissions = (uint16_t)(entry->permissions | bit);
	}
	return entry->tag != 0;
}

bool acl_from_text(const char *text, size_t length, struct text *value)
{
	struct acl_entry *entries = NULL;
	size_t count = 0;
	bool good = true;

	for (size_t at = 0; at < length && good;) {
		size_t end = at;
		while (end < length && text[end] != '\n' && text[end] != ',')
			end++;
		const char *comment = memchr(text + at, '#', end - at); /* `#effective:r--` */
		size_t stop = comment ? (size_t)(comment - text) : end;
		size_t from = at;
		while (from < stop && (text[from] == ' ' || text[from] == '\t'))
			from++;
		while (stop > from && (text[stop - 1] == ' ' || text[stop - 1] == '\t'))
			stop--;
		if (stop > from) {
			if (count > 8000)
				good = false; /* more than 64 KiB, which no file system holds */
			entries = resize(entries, (count + 1) * sizeof *entries);
			good = good && parse_entry(text + from, stop - from, &entries[count++]);
		}
		at = end + 1;
	}
	if (good && count) {
		uint32_t version = htole32(ACL_VERSION);
		qsort(entries, count, sizeof *entries, by_tag_and_id);
		value->length = 0;
		text_add(value, &version, 4);
		for (size_t i = 0; i < count; i++) {
			struct acl_entry entry = {htole16(entries[i].tag), htole16(entries[i].permissions), htole32(entries[i].id)};
			text_add(value, &entry, 8);
		}
	}
	free(entries);
	return good && count;
}
