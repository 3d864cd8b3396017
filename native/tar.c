/* Reading a tar archive that may be hostile: POSIX pax as `pack` and GNU tar write it, ustar, and GNU's long names. */
#include "tar.h"

#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

#define RECORD 512u
#define INPUT_ROOM (128u << 10)
#define MOST_RECORDS (16u << 20) /* bytes of an extended header, as volumes/tar.py takes them */
#define MOST_NAME (4u << 20)

/* -- bytes -- */

void archive_open(struct archive *archive, int fd)
{
	*archive = (struct archive){.fd = fd, .bytes = allocate(INPUT_ROOM)};
}

/* Read more; false at the end of the input. */
static bool fill(struct archive *archive)
{
	ssize_t got;

	do
		got = read(archive->fd, archive->bytes, INPUT_ROOM);
	while (got < 0 && errno == EINTR);
	if (got < 0)
		fail("the archive cannot be read: %s", strerror(errno));
	archive->at = 0;
	archive->length = (size_t)got;
	return got > 0;
}

size_t archive_take(struct archive *archive, uint64_t most, const char **bytes)
{
	if (archive->at == archive->length && !fill(archive))
		fail("the archive ends too early");
	size_t there = archive->length - archive->at;
	if (there > most)
		there = (size_t)most;
	*bytes = archive->bytes + archive->at;
	archive->at += there;
	return there;
}

static void read_exactly(struct archive *archive, char *target, size_t count)
{
	while (count) {
		const char *bytes;
		size_t got = archive_take(archive, count, &bytes);
		memcpy(target, bytes, got);
		target += got;
		count -= got;
	}
}

void archive_skip(struct archive *archive, uint64_t count)
{
	const char *bytes;

	while (count)
		count -= archive_take(archive, count, &bytes);
}

void archive_align(struct archive *archive, uint64_t size)
{
	archive_skip(archive, (RECORD - size % RECORD) % RECORD);
}

/* The content of a header's own data, as `x` and `L` have it. */
static void read_text(struct archive *archive, struct text *text, uint64_t size, size_t most)
{
	if (size > most)
		fail("an extended header in the archive is too long");
	text->length = 0;
	text_reserve(text, (size_t)size);
	read_exactly(archive, text->bytes, (size_t)size);
	text->length = (size_t)size;
	text->bytes[size] = 0;
	archive_align(archive, size);
}

/* -- fields -- */

/* Octal digits between blanks, or GNU's binary form. */
static int64_t number(const char *field, size_t width)
{
	uint64_t value = 0;
	size_t at = 0;

	if ((unsigned char)field[0] & 0x80) {
		bool minus = (unsigned char)field[0] & 0x40;
		value = minus ? UINT64_MAX : 0;
		for (size_t i = 0; i < width; i++) {
			unsigned char byte = (unsigned char)field[i];
			if (i == 0 && !minus)
				byte &= 0x7f;
			if (value >> 55 != (minus ? UINT64_MAX >> 55 : 0))
				fail("a header in the archive holds a number that is too big");
			value = value << 8 | byte;
		}
		return (int64_t)value;
	}
	while (at < width && field[at] == ' ')
		at++;
	for (; at < width && field[at] >= '0' && field[at] <= '7'; at++)
		value = value << 3 | (uint64_t)(field[at] - '0'); /* at most 12 digits: no overflow */
	for (; at < width; at++) {
		if (field[at] != 0 && field[at] != ' ')
			fail("a header in the archive holds a number that is none");
		if (field[at] == 0)
			break;
	}
	return (int64_t)value;
}

static int64_t positive(const char *field, size_t width)
{
	int64_t value = number(field, width);
	if (value < 0)
		fail("a header in the archive holds a number below zero");
	return value;
}

/* Decimal digits and nothing else. */
static uint64_t decimal(const char *text, size_t length)
{
	uint64_t value = 0;

	if (length == 0 || length > 18)
		fail("an extended header in the archive holds a number that is none");
	for (size_t i = 0; i < length; i++) {
		if (text[i] < '0' || text[i] > '9')
			fail("an extended header in the archive holds a number that is none");
		value = value * 10 + (uint64_t)(text[i] - '0');
	}
	return value;
}

/* `-12.5` seconds. */
static struct timespec decimal_time(const char *text, size_t length)
{
	bool minus = length && text[0] == '-';
	const char *from = text + minus, *end = text + length;
	const char *point = memchr(from, '.', (size_t)(end - from));
	uint64_t seconds = decimal(from, (size_t)((point ? point : end) - from));
	long nanoseconds = 0, unit = 100000000;

	for (const char *digit = point ? point + 1 : end; digit < end; digit++, unit /= 10) {
		if (*digit < '0' || *digit > '9')
			fail("an extended header in the archive holds a time that is none");
		nanoseconds += (*digit - '0') * unit; /* digits behind the ninth count for nothing */
	}
	struct timespec time = {.tv_sec = minus ? -(time_t)seconds : (time_t)seconds, .tv_nsec = nanoseconds};
	if (minus && nanoseconds) {
		time.tv_sec--;
		time.tv_nsec = 1000000000 - nanoseconds;
	}
	return time;
}

static void set_text(struct text *text, const char *bytes, size_t length)
{
	if (memchr(bytes, 0, length))
		fail("a name in the archive holds a NUL");
	text->length = 0;
	text_add(text, bytes, length);
}

/* -- extended headers -- */

struct sparse_facts {
	int major, minor; /* -1: not told */
	bool has_size, has_name;
};

static void add_attribute(struct member *member, const char *name, size_t name_length, const char *value, size_t length)
{
	struct attribute *attribute;

	member->attributes = resize(member->attributes, (member->attributes_count + 1) * sizeof *attribute);
	attribute = &member->attributes[member->attributes_count++];
	*attribute = (struct attribute){.name = allocate(name_length + 1), .value = allocate(length), .length = length};
	size_t end = 0;
	for (size_t at = 0; at < name_length; at++) { /* GNU tar writes `=` and `%` so */
		if (name_length - at >= 3 && (memcmp(name + at, "%3D", 3) == 0 || memcmp(name + at, "%25", 3) == 0)) {
			attribute->name[end++] = name[at + 1] == '3' ? '=' : '%';
			at += 2;
		} else {
			attribute->name[end++] = name[at];
		}
	}
	attribute->name[end] = 0;
	if (end == 0 || end > 255 || strlen(attribute->name) != end)
		fail("an extended attribute in the archive has an impossible name");
	memcpy(attribute->value, value, length);
}

static void add_acl(struct member *member, const char *name, const char *value, size_t length)
{
	struct text acl = {0};

	if (length == 0)
		return;
	if (!acl_from_text(value, length, &acl))
		fail("an ACL in the archive cannot be understood: %s", shown(value, length));
	add_attribute(member, name, strlen(name), acl.bytes, acl.length);
	free(acl.bytes);
}

static bool starts(const char *key, size_t length, const char *with)
{
	return length > strlen(with) && memcmp(key, with, strlen(with)) == 0;
}

static bool is(const char *key, size_t length, const char *word)
{
	return length == strlen(word) && memcmp(key, word, length) == 0;
}

static void apply_sparse(struct member *member, struct sparse_facts *sparse, const char *key, size_t key_length, const char *value,
			 size_t length)
{
	if (is(key, key_length, "GNU.sparse.major")) {
		sparse->major = (int)(decimal(value, length) & 0xff);
	} else if (is(key, key_length, "GNU.sparse.minor")) {
		sparse->minor = (int)(decimal(value, length) & 0xff);
	} else if (is(key, key_length, "GNU.sparse.name")) {
		sparse->has_name = true;
		set_text(&member->path, value, length);
	} else if (is(key, key_length, "GNU.sparse.realsize")) {
		sparse->has_size = true;
		member->real_size = decimal(value, length);
	} else {
		fail("a sparse file in the archive has an old form that is not understood (%s)", shown(key, key_length));
	}
}

struct facts {
	struct sparse_facts sparse;
	bool path, link, size, uid, gid, mtime;
};

static void apply_record(struct member *member, struct facts *facts, const char *key, size_t key_length, const char *value, size_t length)
{
	if (is(key, key_length, "path")) {
		if (!facts->sparse.has_name)
			set_text(&member->path, value, length);
		facts->path = length > 0;
	} else if (is(key, key_length, "linkpath")) {
		set_text(&member->link, value, length);
		facts->link = length > 0;
	} else if (is(key, key_length, "size")) {
		member->size = decimal(value, length);
		facts->size = true;
	} else if (is(key, key_length, "uid") || is(key, key_length, "gid")) {
		uint64_t id = decimal(value, length);
		if (id >= UINT32_MAX)
			fail("a user or group in the archive is not possible");
		if (key[0] == 'u')
			member->uid = (uid_t)id, facts->uid = true;
		else
			member->gid = (gid_t)id, facts->gid = true;
	} else if (is(key, key_length, "mtime")) {
		member->mtime = decimal_time(value, length);
		facts->mtime = true;
	} else if (starts(key, key_length, "SCHILY.xattr.")) {
		add_attribute(member, key + 13, key_length - 13, value, length);
	} else if (is(key, key_length, "SCHILY.acl.access")) {
		add_acl(member, ACL_ACCESS, value, length);
	} else if (is(key, key_length, "SCHILY.acl.default")) {
		add_acl(member, ACL_DEFAULT, value, length);
	} else if (is(key, key_length, "RHT.security.selinux")) {
		add_attribute(member, "security.selinux", 16, value, length);
	} else if (starts(key, key_length, "GNU.sparse.")) {
		apply_sparse(member, &facts->sparse, key, key_length, value, length);
	}
	/* others (atime, uname, comment, ...) bring nothing that is kept */
}

/* `LENGTH KEY=VALUE\n` again and again; the length counts the whole record. */
static void apply_records(struct member *member, struct facts *facts, const struct text *records)
{
	const char *at = records->bytes, *end = at + records->length;

	while (at < end) {
		const char *blank = memchr(at, ' ', (size_t)(end - at) > 20 ? 20 : (size_t)(end - at));
		if (!blank)
			fail("an extended header in the archive is damaged");
		uint64_t length = decimal(at, (size_t)(blank - at));
		const char *key = blank + 1;
		if (length > (uint64_t)(end - at) || at + length <= key || at[length - 1] != '\n')
			fail("an extended header in the archive is damaged");
		const char *stop = at + length - 1, *equals = memchr(key, '=', (size_t)(stop - key));
		if (!equals)
			fail("an extended header in the archive is damaged");
		apply_record(member, facts, key, (size_t)(equals - key), equals + 1, (size_t)(stop - equals - 1));
		at += length;
	}
}

/* -- headers -- */

static bool is_zero(const char *header)
{
	static const char zero[RECORD];
	return memcmp(header, zero, RECORD) == 0;
}

static void check_sum(const char *header)
{
	int64_t bytes = 0, chars = 0; /* some old programs added up signed characters */

	for (size_t i = 0; i < RECORD; i++) {
		char c = i >= 148 && i < 156 ? ' ' : header[i];
		bytes += (unsigned char)c;
		chars += (signed char)c;
	}
	int64_t stored = number(header + 148, 8);
	if (stored != bytes && stored != chars)
		fail("a header in the archive is damaged (wrong checksum)");
}

static void read_end(struct archive *archive)
{
	char header[RECORD];
	const char *bytes;

	read_exactly(archive, header, RECORD);
	if (!is_zero(header))
		fail("the end of the archive is damaged");
	do {
		bytes = archive->bytes + archive->at;
		for (size_t i = 0; i < archive->length - archive->at; i++) {
			if (bytes[i])
				fail("something follows the end of the archive");
		}
	} while (fill(archive));
}

/* Fill in what the plain header says and no extended one has said. */
static void apply_header(struct archive *archive, struct member *member, const struct facts *facts, const char *header)
{
	if (!facts->path && !facts->sparse.has_name) {
		member->path.length = 0;
		if (archive->long_name.length) {
			set_text(&member->path, archive->long_name.bytes, archive->long_name.length);
		} else {
			if (memcmp(header + 257, "ustar\0", 6) == 0 && header[345]) {
				text_add(&member->path, header + 345, strnlen(header + 345, 155));
				text_add(&member->path, "/", 1);
			}
			text_add(&member->path, header, strnlen(header, 100));
		}
	}
	if (!facts->link) {
		if (archive->long_link.length)
			set_text(&member->link, archive->long_link.bytes, archive->long_link.length);
		else
			set_text(&member->link, header + 157, strnlen(header + 157, 100));
	}
	member->mode = (mode_t)(positive(header + 100, 8) & 07777);
	int64_t uid = facts->uid ? 0 : positive(header + 108, 8), gid = facts->gid ? 0 : positive(header + 116, 8);
	if (uid >= UINT32_MAX || gid >= UINT32_MAX)
		fail("a user or group in the archive is not possible");
	if (!facts->uid)
		member->uid = (uid_t)uid;
	if (!facts->gid)
		member->gid = (gid_t)gid;
	if (!facts->size)
		member->size = (uint64_t)positive(header + 124, 12);
	if (!facts->mtime)
		member->mtime = (struct timespec){.tv_sec = number(header + 136, 12)};
	if (member->type == '3' || member->type == '4')
		member->device = makedev((unsigned)positive(header + 329, 8), (unsigned)positive(header + 337, 8));
}

/* Cut the first component off a member's name, which must be the same for all. */
static void below_top(struct archive *archive, struct text *path, bool folder)
{
	while (folder && path->length > 1 && path->bytes[path->length - 1] == '/')
		text_cut(path, path->length - 1);
	if (!path->length || !is_plain(path->bytes))
		fail("a member of the archive has an impossible name: %s", shown_text(path->length ? path->bytes : ""));
	const char *slash = strchr(path->bytes, '/');
	size_t length = slash ? (size_t)(slash - path->bytes) : path->length;
	if (!archive->top.length)
		text_add(&archive->top, path->bytes, length);
	if (archive->top.length != length || memcmp(archive->top.bytes, path->bytes, length) != 0)
		fail("a member of the archive lies outside of %s: %s", shown_text(archive->top.bytes), shown_text(path->bytes));
	size_t rest = path->length - length - (slash != NULL);
	memmove(path->bytes, path->bytes + path->length - rest, rest);
	text_cut(path, rest);
}

static void check_member(struct archive *archive, struct member *member, const struct facts *facts)
{
	if (member->type == 0 || member->type == '7')
		member->type = '0';
	if (member->type < '0' || member->type > '6')
		fail("%s in the archive has an unknown type", shown_text(member->path.bytes));
	below_top(archive, &member->path, member->type == '5');
	if (member->type == '1') {
		below_top(archive, &member->link, false);
		if (!member->link.length)
			fail("%s in the archive is a hard link to the whole folder", shown_text(member->path.bytes));
	}
	if (member->type != '0' && member->size)
		fail("%s in the archive has content, and is no file", shown_text(member->path.bytes));
	if (member->size > INT64_MAX)
		fail("%s in the archive has an impossible size", shown_text(member->path.bytes));
	member->sparse = facts->sparse.major >= 0 || facts->sparse.minor >= 0 || facts->sparse.has_name || facts->sparse.has_size;
	if (member->sparse && (facts->sparse.major != 1 || facts->sparse.minor != 0 || !facts->sparse.has_size || member->type != '0'))
		fail("%s in the archive has a form of sparse files that is not understood", shown_text(member->path.bytes));
}

void member_clear(struct member *member)
{
	for (size_t i = 0; i < member->attributes_count; i++) {
		free(member->attributes[i].name);
		free(member->attributes[i].value);
	}
	free(member->attributes);
	struct text path = member->path, link = member->link;
	*member = (struct member){.path = path, .link = link};
}

bool archive_next(struct archive *archive, struct member *member)
{
	char header[RECORD];
	struct facts facts = {.sparse = {.major = -1, .minor = -1}};
	bool waiting = false, extended = false; /* a header that wants its member; an `x` */

	member_clear(member);
	text_cut(&member->path, 0);
	text_cut(&member->link, 0);
	text_cut(&archive->long_name, 0);
	text_cut(&archive->long_link, 0);
	for (;;) {
		read_exactly(archive, header, RECORD);
		if (is_zero(header)) {
			if (waiting)
				fail("an extended header in the archive has no member");
			read_end(archive);
			return false;
		}
		check_sum(header);
		uint64_t size = (uint64_t)positive(header + 124, 12);
		member->type = header[156];
		if (member->type == 'x') {
			if (extended)
				fail("two extended headers follow each other in the archive");
			read_text(archive, &archive->records, size, MOST_RECORDS);
			apply_records(member, &facts, &archive->records);
			waiting = extended = true;
		} else if (member->type == 'L' || member->type == 'K') {
			struct text *text = member->type == 'L' ? &archive->long_name : &archive->long_link;
			read_text(archive, text, size, MOST_NAME);
			text_cut(text, strnlen(text->bytes, text->length)); /* it ends with a NUL */
			waiting = true;
		} else {
			break;
		}
	}
	apply_header(archive, member, &facts, header);
	check_member(archive, member, &facts);
	return true;
}
