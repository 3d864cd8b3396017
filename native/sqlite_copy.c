/* `sqlite-copy`: a consistent copy of a SQLite database that may be in use, on the standard output.
 *
 * The online backup API copies all pages in one step, under a read lock that the kernel's file locks show to whoever writes in
 * another container. No SQL is run on the database, so nothing that its schema says is obeyed. The copy is made in /tmp, which the
 * caller mounts, since the API writes pages in no order.
 */
#include "helper.h"

#ifdef WITH_SQLITE

#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HEAP (64 << 20) /* bytes that SQLite may take */
#define PAUSE 50        /* milliseconds between two tries */

static char copy_path[64];

static _Noreturn void fault(sqlite3 *database, const char *path)
{
	const char *why = sqlite3_errmsg(database);
	fail("%s cannot be copied: %s", shown_text(path), shown_text(why && *why ? why : "SQLite does not tell why"));
}

/* SQLite opens by name: there must be no link on the way when it does. It checks so itself too (NOFOLLOW). */
static char *checked_path(const char *folder, const char *path)
{
	struct stat st;
	struct text whole = {0};
	int fd = open_beneath(open_root(folder), path, O_PATH, 0);

	if (fd < 0 && (errno == ENOENT || errno == ENOTDIR))
		fail_with(UNTOUCHED, "no such file");
	if (fd < 0 || fstat(fd, &st) != 0)
		fail("%s cannot be opened: %s", shown_text(path), strerror(errno));
	if (!S_ISREG(st.st_mode))
		fail("%s is no regular file", shown_text(path));
	close(fd);
	text_add(&whole, folder, strlen(folder));
	text_add(&whole, "/", 1);
	text_add(&whole, path, strlen(path));
	return whole.bytes;
}

static sqlite3 *open_database(const char *path, int flags)
{
	sqlite3 *database = NULL;

	if (sqlite3_open_v2(path, &database, flags | SQLITE_OPEN_NOFOLLOW | SQLITE_OPEN_PRIVATECACHE, NULL) != SQLITE_OK)
		fault(database, path);
	return database;
}

static void copy_pages(sqlite3 *from, sqlite3 *to, const char *path, long seconds)
{
	sqlite3_backup *backup = sqlite3_backup_init(to, "main", from, "main");
	long left = seconds * 1000;
	int code;

	if (!backup)
		fault(to, path);
	while ((code = sqlite3_backup_step(backup, -1)) == SQLITE_BUSY || code == SQLITE_LOCKED) {
		if (left <= 0)
			fail("%s is locked by whoever writes to it, for longer than %ld s", shown_text(path), seconds);
		sqlite3_sleep(PAUSE);
		left -= PAUSE;
	}
	if (sqlite3_backup_finish(backup) != SQLITE_OK || code != SQLITE_DONE)
		fail("%s cannot be copied: %s", shown_text(path), sqlite3_errstr(code));
}

static void send_copy(int fd)
{
	struct output out;

	output_open(&out, STDOUT_FILENO);
	for (;;) {
		ssize_t got = read(fd, out.bytes, OUTPUT_ROOM);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			fail("the copy cannot be read: %s", strerror(errno));
		if (got == 0)
			return;
		write_all(STDOUT_FILENO, out.bytes, (size_t)got);
	}
}

int sqlite_copy(int count, char **words)
{
	long seconds = 30;

	if (count == 4 && strcmp(words[2], "--seconds") == 0) {
		char *end;
		seconds = strtol(words[3], &end, 10);
		if (*end || end == words[3] || seconds < 0 || seconds > 86400)
			return USAGE;
	} else if (count != 2) {
		return USAGE;
	}
	char *path = checked_path(words[0], words[1]);
	sqlite3_initialize();
	sqlite3_hard_heap_limit64(HEAP);
	snprintf(copy_path, sizeof copy_path, "/tmp/safe-compose-copy.%ld", (long)getpid());
	if (unlink(copy_path) != 0 && errno != ENOENT)
		fail("the copy cannot be made: %s", strerror(errno));
	sqlite3 *from = open_database(path, SQLITE_OPEN_READONLY);
	sqlite3 *to = open_database(copy_path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_EXCLUSIVE);
	int copy = open(copy_path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (copy < 0 || unlink(copy_path) != 0) /* however this ends, nothing is left */
		fail("the copy cannot be made: %s", strerror(errno));
	if (sqlite3_exec(to, "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF", NULL, NULL, NULL) != SQLITE_OK)
		fault(to, copy_path);
	copy_pages(from, to, words[1], seconds);
	if (sqlite3_close(to) != SQLITE_OK)
		fail("the copy cannot be ended");
	sqlite3_close(from);
	send_copy(copy);
	return DONE;
}

#else

int sqlite_copy(int count, char **words)
{
	(void)count, (void)words;
	fail_with(WITHOUT, "this helper was built without SQLite");
}

#endif
