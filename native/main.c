/* The volume helper: the only program of the only image that safe-compose starts on somebody's volume.
 *
 * It runs as root in a container without network, on a root file system that holds nothing else, with few capabilities. What it
 * reads is hostile until checked: names are bytes, symbolic links are never followed, mounts never crossed, FIFOs and devices
 * never opened, and a tree may change while it is walked. It is written in C because it must be small, static, and able to call
 * openat2, renameat2 and the xattr calls on descriptors.
 *
 * Exit codes: helper.h. The last line on stderr says why it ended otherwise than with 0.
 */
#include "helper.h"

#include <signal.h>
#include <string.h>

/* Wait for SIGTERM or SIGINT, as the first process of a container, where a signal without a handler is ignored. */
static int wait_for_end(int count, char **words)
{
	sigset_t ends;
	int which;

	(void)words;
	if (count != 0)
		return USAGE;
	sigemptyset(&ends);
	sigaddset(&ends, SIGTERM);
	sigaddset(&ends, SIGINT);
	sigaddset(&ends, SIGHUP);
	sigprocmask(SIG_BLOCK, &ends, NULL);
	return sigwait(&ends, &which) == 0 ? DONE : FAILED;
}

static int sync_file_system(int count, char **words)
{
	if (count != 1)
		return USAGE;
	if (syncfs(open_root(words[0])) != 0)
		fail("%s cannot be synced: %s", shown_text(words[0]), strerror(errno));
	return DONE;
}

static int features(int count, char **words)
{
	(void)words;
	if (count != 0)
		return USAGE;
#ifdef WITH_SQLITE
	write_all(STDOUT_FILENO, "sqlite\n", 7);
#endif
	return DONE;
}

static const struct {
	const char *name, *usage;
	int (*run)(int count, char **words);
} commands[] = {
	{"list", "[--only=NAME] DIR", list},
	{"newest", "DIR...", newest},
	{"pack", "[--live] [--file=PATH] [--only=NAME] DIR", pack},
	{"unpack", "[--file=PATH] [--add] [--member NAME]... DIR", unpack},
	{"exchange", "look|out|back VOLUMES_DIR VOLUME TRASH", exchange},
	{"cat", "DIR PATH [--file=OUT]", cat},
	{"stat", "DIR PATH...", stat_entries},
	{"mkdir", "DIR PATH MODE", make_folder},
	{"rename", "DIR FROM TO", rename_entry},
	{"remove", "DIR PATH...", remove_entries},
	{"empty", "DIR", empty_folder},
	{"own", "DIR PATH UID GID MODE", own},
	{"put", "DIR PATH UID GID MODE", put},
	{"sqlite-copy", "DIR PATH [--seconds N]", sqlite_copy},
	{"pause", "", wait_for_end},
	{"sync", "DIR", sync_file_system},
	{"features", "", features},
};

int main(int count, char **words)
{
	signal(SIGPIPE, SIG_IGN); /* a write that fails says so */
	umask(0);
	for (size_t i = 0; count > 1 && i < sizeof commands / sizeof *commands; i++) {
		if (strcmp(words[1], commands[i].name) != 0)
			continue;
		give_up_calls();
		int code = commands[i].run(count - 2, words + 2);
		if (code == USAGE)
			say("usage: %s %s", commands[i].name, commands[i].usage);
		return code;
	}
	say("usage: COMMAND ...");
	for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
		say("  %s %s", commands[i].name, commands[i].usage);
	return USAGE;
}
