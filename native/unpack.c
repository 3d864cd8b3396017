/* `unpack`: a tar archive into an empty folder, or the part of it that is asked for; with `--add` into a folder that holds some
 * of it already. What has a name there stays as it is, be it a folder that nobody may change any more (chattr +i).
 *
 * Folders get their owner, mode, attributes and time when the last member below them has been made: a default ACL would be
 * inherited before, and the time would not last.
 */
#include "tar.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST_PIECES (1u << 21)

/* A folder on the way from the root to where the last member was made. */
struct folder {
	int fd; /* -1: closed, because too many were open */
	size_t path; /* length of its path */
	bool known; /* a member has said what it gets */
	bool stays; /* it was there before, and this program may not be allowed to change it */
	uid_t uid;
	gid_t gid;
	mode_t mode;
	struct timespec mtime;
	struct attribute *attributes;
	size_t attributes_count;
};

struct unpacking {
	int root;
	struct archive archive;
	struct member member;
	struct folder *folders;
	size_t depth, room, most; /* depth: of the last one, the root has 0 */
	struct text path; /* of the last folder */
	const char **wanted; /* names of members, without the top; NULL: all */
	bool *found;
	size_t wanted_count;
	unsigned long refused; /* attributes that the kernel did not take */
	bool adds; /* what is there stays */
};

static _Noreturn void fault(const struct unpacking *unpacking, const char *what)
{
	fail("%s cannot be %s: %s", shown(unpacking->member.path.bytes, unpacking->member.path.length), what, strerror(errno));
}

/* -- what an entry gets -- */

static void set_attributes(struct unpacking *unpacking, int fd, bool is_path, bool stays, const struct attribute *attributes,
			   size_t count, const char *path, size_t length)
{
	for (size_t i = 0; i < count; i++) {
		const char *name = attributes[i].name;
		int error = attribute_set(fd, is_path, name, attributes[i].value, attributes[i].length);
		bool optional = strncmp(name, "trusted.", 8) == 0 ||
				(strncmp(name, "security.", 9) == 0 && strcmp(name, "security.capability") != 0);
		/* a file system that has no such attributes (a share, another kind of disk) gets everything else */
		if (error && stays)
			continue;
		if (error == EOPNOTSUPP || (optional && (error == EPERM || error == EACCES)))
			unpacking->refused++;
		else if (error)
			fail("the extended attribute %s of %s cannot be set: %s", shown_text(name), shown(path, length), strerror(error));
	}
}

/* Owner and mode first: a change of the owner takes away set-user-ID and capabilities. */
static void settle_file(struct unpacking *unpacking, int fd)
{
	const struct member *member = &unpacking->member;
	const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, member->mtime};

	if (fchown(fd, member->uid, member->gid) != 0 || fchmod(fd, member->mode) != 0)
		fault(unpacking, "given its owner and mode");
	set_attributes(unpacking, fd, false, false, member->attributes, member->attributes_count, member->path.bytes,
		       member->path.length);
	if (futimens(fd, times) != 0)
		fault(unpacking, "given its time");
}

/* The same for what cannot be opened: links, devices, FIFOs. */
static void settle_other(struct unpacking *unpacking, int parent, const char *name, mode_t type)
{
	const struct member *member = &unpacking->member;
	const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, member->mtime};
	struct stat st;
	char way[64];
	int fd = openat(parent, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);

	if (fd < 0 || fstat(fd, &st) != 0)
		fault(unpacking, "opened");
	if ((st.st_mode & S_IFMT) != type)
		fail("%s was replaced while it was unpacked", shown(member->path.bytes, member->path.length));
	snprintf(way, sizeof way, "/proc/self/fd/%d", fd);
	if (fchownat(fd, "", member->uid, member->gid, AT_EMPTY_PATH) != 0 || (type != S_IFLNK && chmod(way, member->mode) != 0))
		fault(unpacking, "given its owner and mode");
	set_attributes(unpacking, fd, true, false, member->attributes, member->attributes_count, member->path.bytes,
		       member->path.length);
	if (utimensat(parent, name, times, AT_SYMLINK_NOFOLLOW) != 0)
		fault(unpacking, "given its time");
	close(fd);
}

/* -- folders -- */

/* Close those that are not needed soon, so that the deepest tree does not run out of descriptors. */
static void spare_descriptors(struct unpacking *unpacking)
{
	if (unpacking->depth > unpacking->most) {
		struct folder *folder = &unpacking->folders[unpacking->depth - unpacking->most];
		if (folder->fd >= 0)
			close(folder->fd);
		folder->fd = -1;
	}
}

static int current_folder(struct unpacking *unpacking)
{
	struct folder *folder = &unpacking->folders[unpacking->depth];

	if (folder->fd < 0 && folder->path == 0)
		folder->fd = fcntl(unpacking->root, F_DUPFD_CLOEXEC, 0);
	else if (folder->fd < 0)
		folder->fd = open_beneath(unpacking->root, unpacking->path.bytes, O_RDONLY | O_DIRECTORY, 0);
	if (folder->fd < 0)
		fail("%s cannot be opened again: %s", shown(unpacking->path.bytes, unpacking->path.length), strerror(errno));
	return folder->fd;
}

/* Enter a folder that was just opened. Until it is left no default ACL of it is inherited, and it gets back what it has now,
 * unless a member says better. */
static struct folder *enter(struct unpacking *unpacking, int fd)
{
	struct text acl = {0};
	struct stat st;

	if (unpacking->depth + 1 >= unpacking->room) {
		unpacking->room = unpacking->room * 2 + 64;
		unpacking->folders = resize(unpacking->folders, unpacking->room * sizeof *unpacking->folders);
	}
	struct folder *folder = &unpacking->folders[++unpacking->depth];
	if (fstat(fd, &st) != 0)
		fail("%s cannot be looked at: %s", shown(unpacking->path.bytes, unpacking->path.length), strerror(errno));
	*folder = (struct folder){.fd = fd, .path = unpacking->path.length, .mtime = st.st_mtim};
	if (attribute_value(fd, false, ACL_DEFAULT, &acl)) {
		struct attribute *kept = allocate(sizeof *kept);
		*kept = (struct attribute){memcpy(allocate(sizeof ACL_DEFAULT), ACL_DEFAULT, sizeof ACL_DEFAULT), acl.bytes, acl.length};
		folder->attributes = kept;
		folder->attributes_count = 1;
		attribute_remove(fd, ACL_DEFAULT, unpacking->adds);
	} else {
		free(acl.bytes);
	}
	spare_descriptors(unpacking);
	return folder;
}

static void forget_attributes(struct folder *folder)
{
	for (size_t i = 0; i < folder->attributes_count; i++) {
		free(folder->attributes[i].name);
		free(folder->attributes[i].value);
	}
	free(folder->attributes);
	folder->attributes = NULL;
	folder->attributes_count = 0;
}

/* Give the last folder what is its own, and go up. */
static void leave(struct unpacking *unpacking)
{
	int fd = current_folder(unpacking);
	struct folder *folder = &unpacking->folders[unpacking->depth];
	const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, folder->mtime};
	const char *path = unpacking->path.bytes;

	if (folder->known && (fchown(fd, folder->uid, folder->gid) != 0 || fchmod(fd, folder->mode) != 0) && !folder->stays)
		fail("%s cannot be given its owner and mode: %s", shown(path, folder->path), strerror(errno));
	set_attributes(unpacking, fd, false, folder->stays, folder->attributes, folder->attributes_count, path, folder->path);
	if (futimens(fd, times) != 0 && !folder->stays)
		fail("%s cannot be given its time: %s", shown(path, folder->path), strerror(errno));
	forget_attributes(folder);
	if (unpacking->depth == 0)
		return;
	close(fd);
	unpacking->depth--;
	text_cut(&unpacking->path, unpacking->folders[unpacking->depth].path);
}

/* Whether the last folder is `path`, or above it. */
static bool is_at_or_above(const struct unpacking *unpacking, const char *path, size_t length)
{
	size_t own = unpacking->path.length;
	return own == 0 || (own <= length && memcmp(unpacking->path.bytes, path, own) == 0 && (own == length || path[own] == '/'));
}

/* Make the folder whose path is the first `length` bytes of the member's the last one. */
static int go_to(struct unpacking *unpacking, size_t length)
{
	const char *path = unpacking->member.path.bytes;

	while (!is_at_or_above(unpacking, path, length))
		leave(unpacking);
	while (unpacking->path.length < length) {
		size_t from = unpacking->path.length, next = from + (from > 0);
		const char *slash = memchr(path + next, '/', length - next);
		size_t end = slash ? (size_t)(slash - path) : length;
		struct text name = {0};
		text_add(&name, path + next, end - next);
		int fd = open_beneath(current_folder(unpacking), name.bytes, O_RDONLY | O_DIRECTORY, 0);
		if (fd < 0)
			fail("%s in the archive lies below what is no folder of the archive", shown_text(path));
		free(name.bytes);
		text_add(&unpacking->path, path + from, end - from);
		enter(unpacking, fd);
	}
	return current_folder(unpacking);
}

static void make_folder_of_member(struct unpacking *unpacking, int parent, const char *name)
{
	struct member *member = &unpacking->member;

	bool stays = unpacking->adds && !member->path.length;

	if (member->path.length) {
		int made = mkdirat(parent, name, 0700);
		if (made != 0 && errno != EEXIST)
			fault(unpacking, "made");
		stays = unpacking->adds && made != 0;
		go_to(unpacking, member->path.length); /* fails where another thing has the name */
	}
	struct folder *folder = &unpacking->folders[unpacking->depth];
	int fd = current_folder(unpacking);
	if (!member->path.length)
		attribute_remove(fd, ACL_ACCESS, unpacking->adds); /* the root was there already */
	forget_attributes(folder);
	folder->known = true;
	folder->stays = stays;
	folder->uid = member->uid;
	folder->gid = member->gid;
	folder->mode = member->mode;
	folder->mtime = member->mtime;
	folder->attributes = member->attributes;
	folder->attributes_count = member->attributes_count;
	member->attributes = NULL;
	member->attributes_count = 0;
}

/* -- content -- */

static void write_at(struct unpacking *unpacking, int fd, const char *bytes, size_t length, off_t offset)
{
	while (length) {
		ssize_t done = pwrite(fd, bytes, length, offset);
		if (done < 0 && errno == EINTR)
			continue;
		if (done < 0)
			fault(unpacking, "written");
		bytes += done;
		offset += done;
		length -= (size_t)done;
	}
}

static void write_piece(struct unpacking *unpacking, int fd, uint64_t offset, uint64_t length)
{
	while (length) {
		const char *bytes;
		size_t got = archive_take(&unpacking->archive, length, &bytes);
		write_at(unpacking, fd, bytes, got, (off_t)offset);
		offset += got;
		length -= got;
	}
}

static _Noreturn void bad_map(const struct unpacking *unpacking)
{
	fail("the map of the sparse file %s is damaged", shown(unpacking->member.path.bytes, unpacking->member.path.length));
}

/* One number of the map, which ends with a newline; `left` is what the member has left. */
static uint64_t map_number(struct unpacking *unpacking, uint64_t *left, uint64_t *taken)
{
	uint64_t value = 0;

	for (unsigned digits = 0;; digits++) {
		const char *byte;
		if (*left == 0 || digits > 19)
			bad_map(unpacking);
		archive_take(&unpacking->archive, 1, &byte);
		--*left;
		++*taken;
		if (*byte == '\n' && digits > 0)
			return value;
		if (*byte < '0' || *byte > '9' || value > (uint64_t)INT64_MAX / 10 - 1)
			bad_map(unpacking);
		value = value * 10 + (uint64_t)(*byte - '0');
	}
}

static void write_sparse(struct unpacking *unpacking, int fd)
{
	const struct member *member = &unpacking->member;
	uint64_t left = member->size, taken = 0, end = 0, total = 0;
	uint64_t count = map_number(unpacking, &left, &taken);

	if (count > MOST_PIECES || member->real_size > INT64_MAX)
		bad_map(unpacking);
	uint64_t *map = allocate((size_t)count * 2 * sizeof *map);
	for (uint64_t i = 0; i < count; i++) {
		uint64_t offset = map_number(unpacking, &left, &taken), length = map_number(unpacking, &left, &taken);
		if (offset < end || offset > member->real_size || length > member->real_size - offset)
			bad_map(unpacking);
		map[2 * i] = offset;
		map[2 * i + 1] = length;
		end = offset + length;
		total += length;
	}
	uint64_t padding = (512 - taken % 512) % 512;
	if (left < padding || left - padding != total)
		bad_map(unpacking);
	archive_skip(&unpacking->archive, padding);
	if (ftruncate(fd, (off_t)member->real_size) != 0)
		fault(unpacking, "made as long as it is");
	for (uint64_t i = 0; i < count; i++)
		write_piece(unpacking, fd, map[2 * i], map[2 * i + 1]);
	free(map);
}

static void skip_content(struct unpacking *unpacking)
{
	archive_skip(&unpacking->archive, unpacking->member.size);
	archive_align(&unpacking->archive, unpacking->member.size);
}

static void make_file(struct unpacking *unpacking, int parent, const char *name)
{
	const struct member *member = &unpacking->member;
	int fd = openat(parent, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);

	if (fd < 0 && errno == EEXIST && unpacking->adds) {
		skip_content(unpacking);
		return;
	}
	if (fd < 0 && errno == EEXIST)
		fail("%s is in the archive twice", shown(member->path.bytes, member->path.length));
	if (fd < 0)
		fault(unpacking, "made");
	if (member->sparse)
		write_sparse(unpacking, fd);
	else
		write_piece(unpacking, fd, 0, member->size);
	archive_align(&unpacking->archive, member->size);
	settle_file(unpacking, fd);
	if (close(fd) != 0)
		fault(unpacking, "written");
}

static void make_hard_link(struct unpacking *unpacking, int parent, const char *name)
{
	const struct member *member = &unpacking->member;
	const char *target;
	struct stat st;
	int folder = open_parent(unpacking->root, member->link.bytes, &target);

	if (folder < 0 || fstatat(folder, target, &st, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT) != 0 || S_ISDIR(st.st_mode))
		fail("%s is a hard link to %s, which is no earlier file of the archive%s", shown_text(member->path.bytes),
		     shown_text(member->link.bytes), unpacking->wanted ? " that was asked for" : "");
	if (linkat(folder, target, parent, name, 0) != 0 && !(errno == EEXIST && unpacking->adds)) {
		if (errno == EEXIST)
			fail("%s is in the archive twice", shown_text(member->path.bytes));
		fault(unpacking, "linked");
	}
	close(folder);
}

static void make_other(struct unpacking *unpacking, int parent, const char *name)
{
	const struct member *member = &unpacking->member;
	mode_t type = member->type == '2' ? S_IFLNK : member->type == '3' ? S_IFCHR : member->type == '4' ? S_IFBLK : S_IFIFO;
	int done;

	if (type == S_IFLNK && !member->link.length)
		fail("the link %s in the archive leads nowhere", shown_text(member->path.bytes));
	if (type == S_IFLNK)
		done = symlinkat(member->link.bytes, parent, name);
	else
		done = mknodat(parent, name, type | 0600, type == S_IFIFO ? 0 : member->device);
	if (done != 0 && errno == EEXIST && unpacking->adds)
		return;
	if (done != 0 && errno == EEXIST)
		fail("%s is in the archive twice", shown_text(member->path.bytes));
	if (done != 0)
		fault(unpacking, "made");
	settle_other(unpacking, parent, name, type);
}

static void make_member(struct unpacking *unpacking)
{
	struct member *member = &unpacking->member;
	const char *slash = strrchr(member->path.bytes, '/');
	size_t above = slash ? (size_t)(slash - member->path.bytes) : 0;
	int parent = go_to(unpacking, above);
	const char *name = slash ? slash + 1 : member->path.bytes;

	if (member->type != '5' && !member->path.length)
		fail("the archive's first member is no folder");
	switch (member->type) {
	case '0': make_file(unpacking, parent, name); break;
	case '1': make_hard_link(unpacking, parent, name); break;
	case '5': make_folder_of_member(unpacking, parent, name); break;
	default: make_other(unpacking, parent, name); break;
	}
}

/* -- which members -- */

/* Whether a member is to be made: all, or those at and below a wanted name, and the folders above such a name. */
static bool is_wanted(struct unpacking *unpacking)
{
	const struct member *member = &unpacking->member;
	const char *path = member->path.bytes;
	size_t length = member->path.length;
	bool made = false;

	if (!unpacking->wanted)
		return true;
	for (size_t i = 0; i < unpacking->wanted_count; i++) {
		const char *name = unpacking->wanted[i];
		size_t size = strlen(name);
		if (length >= size && memcmp(path, name, size) == 0 && (length == size || path[size] == '/'))
			made = unpacking->found[i] = true;
		else if (member->type == '5' && length && length < size && name[length] == '/' && memcmp(path, name, length) == 0)
			made = true;
	}
	return made;
}

static void take_name(struct unpacking *unpacking, const char *name)
{
	const char *slash = strchr(name, '/');

	if (!is_plain(name) || !slash)
		fail_with(UNTOUCHED, "%s names no member below the top of the archive", shown_text(name));
	unpacking->wanted = resize(unpacking->wanted, (unpacking->wanted_count + 1) * sizeof *unpacking->wanted);
	unpacking->found = resize(unpacking->found, (unpacking->wanted_count + 1) * sizeof *unpacking->found);
	unpacking->found[unpacking->wanted_count] = false;
	unpacking->wanted[unpacking->wanted_count++] = slash + 1;
}

static void unpack_all(struct unpacking *unpacking)
{
	while (archive_next(&unpacking->archive, &unpacking->member)) {
		if (is_wanted(unpacking)) {
			make_member(unpacking);
		} else {
			skip_content(unpacking);
		}
	}
	while (unpacking->depth)
		leave(unpacking);
	leave(unpacking);
	for (size_t i = 0; i < unpacking->wanted_count; i++) {
		if (!unpacking->found[i])
			fail("%s is not in the archive", shown_text(unpacking->wanted[i]));
	}
}

int unpack(int count, char **words)
{
	struct unpacking unpacking = {.most = most_open() - 8};
	const char *file = NULL;
	int source = STDIN_FILENO;

	for (; count > 1; count--, words++) {
		if (strncmp(words[0], "--file=", 7) == 0) {
			file = words[0] + 7;
		} else if (strcmp(words[0], "--add") == 0) {
			unpacking.adds = true;
		} else if (strcmp(words[0], "--member") == 0 && count > 2) {
			take_name(&unpacking, words[1]);
			count--, words++;
		} else {
			return USAGE;
		}
	}
	if (count != 1 || strncmp(words[0], "--", 2) == 0)
		return USAGE;
	unpacking.root = open_root(words[0]);
	if (!unpacking.adds && !is_empty(unpacking.root))
		fail_with(UNTOUCHED, "%s is not empty", shown_text(words[0]));
	if (file && (source = open(file, O_RDONLY | O_NOCTTY | O_CLOEXEC)) < 0)
		fail_with(UNTOUCHED, "%s cannot be opened: %s", shown_text(file), strerror(errno));
	archive_open(&unpacking.archive, source);
	unpacking.depth = SIZE_MAX; /* so that the root becomes the first */
	text_reserve(&unpacking.path, 0);
	enter(&unpacking, fcntl(unpacking.root, F_DUPFD_CLOEXEC, 0));
	unpack_all(&unpacking);
	if (syncfs(unpacking.root) != 0)
		fail("what was unpacked cannot be synced: %s", strerror(errno));
	if (unpacking.refused)
		say("%lu extended attributes were not taken by this system or its file system", unpacking.refused);
	return DONE;
}
