/* `pack`: a folder as a tar archive (POSIX pax), with everything that Linux keeps of a file.
 *
 * Written so that GNU tar restores it by hand: attributes as SCHILY.xattr.*, ACLs as SCHILY.acl.* (with `--acls`, GNU tar sets
 * ACLs from these alone, and would remove those that came as attributes), sparse files as GNU.sparse 1.0.
 */
#include "helper.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

#define RECORD 512u
#define BLOCK (20 * RECORD) /* the archive is padded to a multiple of it, as tar does */
#define MOST_PIECES (1u << 20) /* of a sparse file; what follows is written with its holes */

/* A file with several names, of which the first is in the archive already. */
struct linked {
	dev_t device;
	ino_t inode;
	char *path; /* NULL: this place is free */
};

struct piece {
	off_t offset, length;
};

struct packing {
	struct output out;
	struct changes changes;
	bool live;
	const char *top; /* the first component of each member */
	struct linked *linked;
	size_t linked_count, linked_room;
	unsigned long sockets;
	struct text mounted; /* the path of something that is mounted; empty: nothing is */
	struct text records, name, attribute_names, value, acl; /* kept for their memory */
	struct piece *pieces;
	size_t pieces_count, pieces_room;
};

struct member {
	const char *path, *link; /* whole, from the top on */
	struct stat st;
	char type;
	uint64_t size; /* bytes that follow */
};

/* -- headers -- */

static void octal(char *field, size_t width, uint64_t number)
{
	for (size_t i = width - 1; i-- > 0; number >>= 3)
		field[i] = (char)('0' + (number & 7));
	field[width - 1] = 0;
}

/* Whether a number has room in a field. */
static bool fits(uint64_t number, size_t width)
{
	return number >> (3 * (width - 1)) == 0;
}

static void record_bytes(struct text *records, const char *key, const void *value, size_t length)
{
	/* "LENGTH KEY=VALUE\n", the length counts itself */
	size_t rest = strlen(key) + length + 3, total = rest + 1;
	char number[32];
	int digits;

	while (total != rest + (size_t)(digits = snprintf(number, sizeof number, "%zu", total)))
		total = rest + (size_t)digits;
	text_add(records, number, (size_t)digits);
	text_add(records, " ", 1);
	text_add(records, key, strlen(key));
	text_add(records, "=", 1);
	text_add(records, value, length);
	text_add(records, "\n", 1);
}

static void record_number(struct text *records, const char *key, uint64_t number)
{
	char text[32];
	record_bytes(records, key, text, (size_t)snprintf(text, sizeof text, "%llu", (unsigned long long)number));
}

static void record_time(struct text *records, const struct timespec *time)
{
	char text[64];
	long nanoseconds = time->tv_nsec;
	unsigned long long seconds = (unsigned long long)time->tv_sec;
	bool minus = time->tv_sec < 0;

	if (minus) { /* -2 s + 0.25 s is written as -1.75 */
		seconds = 0 - seconds;
		if (nanoseconds) {
			seconds--;
			nanoseconds = 1000000000 - nanoseconds;
		}
	}
	int size = snprintf(text, sizeof text, "%s%llu.%09ld", minus ? "-" : "", seconds, nanoseconds);
	while (text[size - 1] == '0')
		size--;
	if (text[size - 1] == '.')
		size--;
	record_bytes(records, "mtime", text, (size_t)size);
}

static void write_header(struct packing *packing, const struct member *member, const char *name)
{
	char header[RECORD] = {0};
	const struct stat *st = &member->st;
	unsigned sum = 0;

	memcpy(header, name, strnlen(name, 100));
	octal(header + 100, 8, st->st_mode & 07777);
	octal(header + 108, 8, fits(st->st_uid, 8) ? st->st_uid : 0);
	octal(header + 116, 8, fits(st->st_gid, 8) ? st->st_gid : 0);
	octal(header + 124, 12, fits(member->size, 12) ? member->size : 0);
	octal(header + 136, 12, st->st_mtim.tv_sec >= 0 && fits((uint64_t)st->st_mtim.tv_sec, 12) ? (uint64_t)st->st_mtim.tv_sec : 0);
	memset(header + 148, ' ', 8);
	header[156] = member->type;
	if (member->link)
		memcpy(header + 157, member->link, strnlen(member->link, 100));
	memcpy(header + 257, "ustar\00000", 8);
	if (member->type == '3' || member->type == '4') {
		octal(header + 329, 8, major(st->st_rdev));
		octal(header + 337, 8, minor(st->st_rdev));
	}
	for (size_t i = 0; i < RECORD; i++)
		sum += (unsigned char)header[i];
	octal(header + 148, 7, sum);
	output_add(&packing->out, header, RECORD);
}

static void pad(struct packing *packing, uint64_t size, unsigned unit)
{
	static const char zeros[BLOCK];
	output_add(&packing->out, zeros, (unit - size % unit) % unit);
}

/* A member's header, behind an extended one where it says more than a plain one can; `records` may hold some already. */
static void write_member(struct packing *packing, const struct member *member)
{
	struct text *records = &packing->records;
	const struct stat *st = &member->st;

	if (strlen(member->path) > 100)
		record_bytes(records, "path", member->path, strlen(member->path));
	if (member->link && strlen(member->link) > 100)
		record_bytes(records, "linkpath", member->link, strlen(member->link));
	if (!fits(member->size, 12))
		record_number(records, "size", member->size);
	if (!fits(st->st_uid, 8))
		record_number(records, "uid", st->st_uid);
	if (!fits(st->st_gid, 8))
		record_number(records, "gid", st->st_gid);
	if (st->st_mtim.tv_nsec || st->st_mtim.tv_sec < 0 || !fits((uint64_t)st->st_mtim.tv_sec, 12))
		record_time(records, &st->st_mtim);
	if (records->length) {
		struct member extended = {.type = 'x', .size = records->length, .st.st_mode = 0644};
		if (!fits(extended.size, 12))
			fail("%s has too many extended attributes", shown_text(member->path));
		write_header(packing, &extended, "PaxHeaders/x");
		output_add(&packing->out, records->bytes, records->length);
		pad(packing, records->length, RECORD);
	}
	write_header(packing, member, member->path);
	records->length = 0;
}

/* -- attributes -- */

static void record_attribute(struct packing *packing, const char *name)
{
	struct text *key = &packing->name;

	key->length = 0;
	text_add(key, "SCHILY.xattr.", 13);
	for (const char *at = name; *at; at++) { /* as GNU tar does: `=` would end the key */
		if (*at == '=')
			text_add(key, "%3D", 3);
		else if (*at == '%')
			text_add(key, "%25", 3);
		else
			text_add(key, at, 1);
	}
	record_bytes(&packing->records, key->bytes, packing->value.bytes, packing->value.length);
}

static void record_attributes(struct packing *packing, int fd, bool is_path)
{
	struct text *names = &packing->attribute_names;

	if (!attribute_names(fd, is_path, names))
		return;
	for (size_t at = 0; at < names->length; at += strlen(names->bytes + at) + 1) {
		const char *name = names->bytes + at;
		bool access = strcmp(name, ACL_ACCESS) == 0, fallback = strcmp(name, ACL_DEFAULT) == 0;
		if (!attribute_value(fd, is_path, name, &packing->value))
			continue;
		if ((access || fallback) && acl_to_text(&packing->value, &packing->acl))
			record_bytes(&packing->records, access ? "SCHILY.acl.access" : "SCHILY.acl.default", packing->acl.bytes,
				     packing->acl.length);
		else
			record_attribute(packing, name);
	}
}

/* -- files with several names -- */

static size_t place_of(const struct packing *packing, dev_t device, ino_t inode)
{
	uint64_t hash = ((uint64_t)inode ^ ((uint64_t)device << 32)) * 0x9e3779b97f4a7c15u;
	size_t at = (size_t)(hash >> 20) & (packing->linked_room - 1);

	while (packing->linked[at].path && (packing->linked[at].inode != inode || packing->linked[at].device != device))
		at = (at + 1) & (packing->linked_room - 1);
	return at;
}

/* The earlier path of the same file; without one this path is remembered, and NULL returned. */
static const char *earlier_path(struct packing *packing, const struct stat *st, const char *path)
{
	if (packing->linked_count * 2 >= packing->linked_room) {
		struct linked *old = packing->linked;
		size_t count = packing->linked_room;
		packing->linked_room = count ? count * 2 : 1024;
		packing->linked = allocate(packing->linked_room * sizeof *packing->linked);
		memset(packing->linked, 0, packing->linked_room * sizeof *packing->linked);
		for (size_t i = 0; i < count; i++) {
			if (old[i].path)
				packing->linked[place_of(packing, old[i].device, old[i].inode)] = old[i];
		}
		free(old);
	}
	struct linked *linked = &packing->linked[place_of(packing, st->st_dev, st->st_ino)];
	if (linked->path)
		return linked->path;
	size_t size = strlen(path) + 1;
	*linked = (struct linked){st->st_dev, st->st_ino, memcpy(allocate(size), path, size)};
	packing->linked_count++;
	return NULL;
}

/* -- content -- */

static void pack_changed(struct walk *walk, const char *path, size_t length)
{
	struct packing *packing = walk->context;

	changes_add(&packing->changes, path, length);
	if (!packing->live)
		_exit(FAILED);
}

/* Find the pieces of a file that hold data. False when it is written as a whole. */
static bool find_pieces(struct packing *packing, int fd, const struct stat *st)
{
	packing->pieces_count = 0;
	if (st->st_size == 0 || st->st_blocks >= (st->st_size + 511) / 512)
		return false;
	for (off_t at = 0; at < st->st_size;) {
		off_t data = lseek(fd, at, SEEK_DATA), hole;
		if (data < 0 && errno != ENXIO)
			return false;
		if (data < 0 || data >= st->st_size)
			break;
		hole = lseek(fd, data, SEEK_HOLE);
		if (hole <= data || hole > st->st_size || packing->pieces_count == MOST_PIECES - 1)
			hole = st->st_size;
		if (packing->pieces_count == packing->pieces_room) {
			packing->pieces_room = packing->pieces_room ? packing->pieces_room * 2 : 64;
			packing->pieces = resize(packing->pieces, packing->pieces_room * sizeof *packing->pieces);
		}
		packing->pieces[packing->pieces_count++] = (struct piece){data, hole - data};
		at = hole;
	}
	return packing->pieces_count != 1 || packing->pieces[0].length != st->st_size;
}

/* Copy a piece of a file; where it ends too early the rest are zeros, and the result is false. */
static bool copy_piece(struct packing *packing, int fd, off_t offset, off_t length, const char *path)
{
	struct output *out = &packing->out;

	while (length > 0) {
		size_t room = OUTPUT_ROOM - out->length;
		if ((off_t)room > length)
			room = (size_t)length;
		ssize_t got = pread(fd, out->bytes + out->length, room, offset);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			fail("%s cannot be read: %s", shown_text(path), strerror(errno));
		bool ended = got == 0;
		if (ended) {
			memset(out->bytes + out->length, 0, room);
			got = (ssize_t)room;
		}
		out->length += (size_t)got;
		out->total += (uint64_t)got;
		offset += got;
		length -= got;
		if (out->length == OUTPUT_ROOM)
			output_flush(out);
		if (ended && length > 0) {
			static const char zeros[4096];
			for (; length > (off_t)sizeof zeros; length -= (off_t)sizeof zeros)
				output_add(out, zeros, sizeof zeros);
			output_add(out, zeros, (size_t)length);
			return false;
		}
		if (ended)
			return false;
	}
	return true;
}

/* The header of a sparse file, and the map that stands before its content. */
static void write_sparse(struct packing *packing, struct member *member)
{
	struct text map = {0}, name = {0};
	char line[64];
	uint64_t data = 0;
	const char *base = strrchr(member->path, '/');
	off_t size = member->st.st_size;
	bool hole_last = !packing->pieces_count || packing->pieces[packing->pieces_count - 1].offset +
			 packing->pieces[packing->pieces_count - 1].length < size;

	text_add(&map, line, (size_t)snprintf(line, sizeof line, "%zu\n", packing->pieces_count + hole_last));
	for (size_t i = 0; i < packing->pieces_count; i++) {
		const struct piece *piece = &packing->pieces[i];
		text_add(&map, line, (size_t)snprintf(line, sizeof line, "%lld\n%lld\n", (long long)piece->offset, (long long)piece->length));
		data += (uint64_t)piece->length;
	}
	if (hole_last)
		text_add(&map, line, (size_t)snprintf(line, sizeof line, "%lld\n0\n", (long long)size));
	record_number(&packing->records, "GNU.sparse.major", 1);
	record_number(&packing->records, "GNU.sparse.minor", 0);
	record_bytes(&packing->records, "GNU.sparse.name", member->path, strlen(member->path));
	record_number(&packing->records, "GNU.sparse.realsize", (uint64_t)size);
	text_add(&name, packing->top, strlen(packing->top));
	text_add(&name, "/GNUSparseFile.0", 16);
	text_add(&name, base, strnlen(base, 60));
	const char *path = member->path;
	member->path = name.bytes;
	member->size = (map.length + RECORD - 1) / RECORD * RECORD + data;
	write_member(packing, member);
	member->path = path;
	output_add(&packing->out, map.bytes, map.length);
	pad(packing, map.length, RECORD);
	free(map.bytes);
	free(name.bytes);
}

static bool is_same_time(struct timespec a, struct timespec b)
{
	return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

static void pack_file(struct walk *walk, struct member *member, int path_fd, const struct entry *entry)
{
	struct packing *packing = walk->context;
	struct stat after;
	bool whole = true;
	int fd = reopen(path_fd, O_RDONLY | O_NONBLOCK | O_NOCTTY);

	if (fd < 0)
		fail("%s cannot be opened: %s", shown(entry->path, entry->length), strerror(errno));
	record_attributes(packing, fd, false);
	bool sparse = find_pieces(packing, fd, &member->st);
	if (member->st.st_size > (off_t)OUTPUT_ROOM)
		posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
	if (sparse) {
		write_sparse(packing, member);
		for (size_t i = 0; i < packing->pieces_count; i++)
			whole &= copy_piece(packing, fd, packing->pieces[i].offset, packing->pieces[i].length, entry->path);
	} else {
		member->size = (uint64_t)member->st.st_size;
		write_member(packing, member);
		whole = copy_piece(packing, fd, 0, member->st.st_size, entry->path);
	}
	pad(packing, packing->out.total, RECORD);
	if (!whole || fstat(fd, &after) != 0 || after.st_size != member->st.st_size ||
	    !is_same_time(after.st_mtim, member->st.st_mtim) || !is_same_time(after.st_ctim, member->st.st_ctim))
		pack_changed(walk, entry->path, entry->length);
	close(fd);
}

static void read_target(int path_fd, struct text *target, const struct entry *entry)
{
	text_reserve(target, 65536);
	ssize_t got = readlinkat(path_fd, "", target->bytes, 65536);
	if (got < 0 || got == 65536)
		fail("the link %s cannot be read: %s", shown(entry->path, entry->length), strerror(errno));
	target->length = (size_t)got;
	target->bytes[got] = 0;
}

static void pack_mount(struct packing *packing, const struct entry *entry)
{
	say("%s: something is mounted here, which is not packed", shown(entry->path, entry->length));
	if (!packing->live)
		_exit(FAILED);
	packing->changes.count++;
	if (!packing->mounted.length)
		text_add(&packing->mounted, entry->path, entry->length);
}

static void pack_other(struct walk *walk, struct member *member, const struct entry *entry)
{
	struct packing *packing = walk->context;
	struct text target = {0};
	int fd = open_beneath(entry->parent, entry->name, O_PATH, 0);

	if (fd < 0 && errno == EXDEV) {
		pack_mount(packing, entry);
		return;
	}
	if (fd < 0 && errno != ENOENT)
		fail("%s cannot be opened: %s", shown(entry->path, entry->length), strerror(errno));
	if (fd < 0 || fstat(fd, &member->st) != 0 || S_ISDIR(member->st.st_mode)) {
		pack_changed(walk, entry->path, entry->length);
		if (fd >= 0)
			close(fd);
		return;
	}
	mode_t mode = member->st.st_mode;
	if (S_ISSOCK(mode)) {
		packing->sockets++;
		close(fd);
		return;
	}
	member->link = member->st.st_nlink > 1 ? earlier_path(packing, &member->st, member->path) : NULL;
	if (member->link) {
		member->type = '1';
		write_member(packing, member);
	} else if (S_ISREG(mode)) {
		member->type = '0';
		pack_file(walk, member, fd, entry);
	} else {
		member->type = S_ISLNK(mode) ? '2' : S_ISCHR(mode) ? '3' : S_ISBLK(mode) ? '4' : '6';
		if (S_ISLNK(mode)) {
			read_target(fd, &target, entry);
			member->link = target.bytes;
		}
		record_attributes(packing, fd, true);
		write_member(packing, member);
	}
	free(target.bytes);
	close(fd);
}

static void pack_entry(struct walk *walk, const struct entry *entry)
{
	struct packing *packing = walk->context;
	struct text path = {0};
	struct member member = {.st = entry->st, .type = '5'};

	text_add(&path, packing->top, strlen(packing->top));
	text_add(&path, "/", 1);
	text_add(&path, entry->path, entry->length);
	bool folder = !entry->is_unseen && S_ISDIR(entry->st.st_mode);
	if (folder && entry->length)
		text_add(&path, "/", 1);
	member.path = path.bytes;
	if (entry->mount)
		pack_mount(packing, entry);
	if (folder) {
		if (entry->fd >= 0)
			record_attributes(packing, entry->fd, false);
		write_member(packing, &member);
	} else if (!entry->mount) {
		pack_other(walk, &member, entry);
	}
	free(path.bytes);
}

/* The last component of a path. */
static char *base_of(const char *path)
{
	size_t length = strlen(path), from;

	while (length > 1 && path[length - 1] == '/')
		length--;
	for (from = length; from > 0 && path[from - 1] != '/'; from--)
		;
	char *base = allocate(length - from + 1);
	memcpy(base, path + from, length - from);
	base[length - from] = 0;
	return base;
}

int pack(int count, char **words)
{
	struct packing packing = {0};
	struct walk walk = {.visit = pack_entry, .changed = pack_changed, .context = &packing, .looks = true};
	const char *file = NULL;
	int target = STDOUT_FILENO;

	for (; count > 1; count--, words++) {
		if (strcmp(words[0], "--live") == 0)
			packing.live = true;
		else if (strncmp(words[0], "--file=", 7) == 0)
			file = words[0] + 7;
		else if (strncmp(words[0], "--only=", 7) == 0)
			walk.only = words[0] + 7;
		else
			return USAGE;
	}
	if (count != 1 || strncmp(words[0], "--", 2) == 0)
		return USAGE;
	int root = open_root(words[0]);
	char *top = base_of(words[0]);
	if (!is_plain(top) || strlen(top) > 30)
		return USAGE;
	packing.top = top;
	if (file && (target = open(file, O_WRONLY | O_NOCTTY | O_CLOEXEC)) < 0)
		fail_with(UNTOUCHED, "%s cannot be opened: %s", shown_text(file), strerror(errno));
	output_open(&packing.out, target);
	walk_tree(root, &walk);
	output_add(&packing.out, (const char[2 * RECORD]){0}, (size_t)2 * RECORD);
	pad(&packing, packing.out.total, BLOCK);
	output_flush(&packing.out);
	if (packing.sockets)
		say("%lu sockets were left out; they hold nothing", packing.sockets);
	changes_tell(&packing.changes);
	if (packing.mounted.length) /* the last words, which nothing pushes out of a message */
		say("%s: something is mounted here, which is not packed", shown(packing.mounted.bytes, packing.mounted.length));
	return packing.changes.count ? CHANGED : DONE;
}
