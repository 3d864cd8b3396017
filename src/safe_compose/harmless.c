/* The first look of the programs on PATH, where a C compiler was at hand: what `harmless.pass_on` does, without Python's start.
 *
 * `ways/native.py` compiles it, with these definitions before it:
 *     NAME         docker or docker-compose: whose place it takes, whatever it is started as
 *     WORDS        the file with the words that wake the grammar. Read at every call, so that a newer safe-compose is obeyed
 *                  at once: words that were compiled in would let pass what that one guards.
 *     INTERPRETER, SCRIPT    the closer look: a Python, and the script that stands on PATH where there is no compiler
 *     MARKER, LARGEST        how one copy knows another (`harmless.is_copy`)
 *
 * It decides nothing that `pass_on` would decide otherwise, and when in doubt it takes the closer look. Nothing that docker
 * inherits is touched: environment, signals, descriptors, umask. */
#define _GNU_SOURCE /* memmem */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FIRST "safe-compose words 1\n" /* another number, another meaning of the words: then this program knows nothing */
#define LAST "end of words\n"          /* without it the file was cut */
#define SCRIPT_HEAD 4096               /* bytes of a script in which the marker counts */

extern char **environ;

/* Read until `size` bytes are there or the file ends. Return how many, or -1. */
static ssize_t fill(int file, char *room, size_t size) {
    size_t filled = 0;
    while (filled < size) {
        ssize_t piece = read(file, room + filled, size - filled);
        if (piece < 0 && errno == EINTR) continue;
        if (piece < 0) return -1;
        if (piece == 0) break;
        filled += (size_t)piece;
    }
    return (ssize_t)filled;
}

/* Whether one of them is the word of that length, or the flag, alone or with `=value`. */
static int stands_in(char **words, const char *word, size_t length) {
    int flag = length > 2 && word[0] == '-' && word[1] == '-';
    for (; *words; words++)
        if (!strncmp(*words, word, length) && (!(*words)[length] || (flag && (*words)[length] == '='))) return 1;
    return 0;
}

/* Whether one of the words wakes the grammar. So do all of them while the file with those that do is not in perfect order. */
static int wakes(char **words) {
    static char list[1 << 14];
    int file = open(WORDS, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file < 0) return 1;
    ssize_t size = fill(file, list, sizeof list);
    close(file);
    const ssize_t first = sizeof FIRST - 1, last = sizeof LAST - 1;
    if (size <= first + last || size == sizeof list) return 1;
    const char *line = list + first, *end = list + size - last;
    if (memcmp(list, FIRST, sizeof FIRST - 1) || memcmp(end, LAST, sizeof LAST - 1) || end[-1] != '\n') return 1;
    while (line < end) {
        size_t length = 0;
        while ((line[length] >= 'a' && line[length] <= 'z') || line[length] == '-') length++;
        if (length == 0 || line[length] != '\n' || stands_in(words, line, length)) return 1;
        line += length + 1;
    }
    return 0;
}

static int is_elf(const char *head) { return !memcmp(head, "\177ELF", 4); }

/* Whether the first `length` bytes of a program (at least 4, all of it up to LARGEST) are those of one of ours. */
static int is_copy(const char *head, size_t length, off_t size) {
    if (!memcmp(head, "#!", 2))
        length = length < SCRIPT_HEAD ? length : SCRIPT_HEAD;
    else if (!is_elf(head) || size > LARGEST)
        return 0;
    return memmem(head, length, MARKER, sizeof MARKER - 1) != NULL;
}

/* The first program of our name on PATH that is not us, when it is plainly docker's own binary; else NULL. */
static char *docker(void) {
    static char path[PATH_MAX], head[LARGEST];
    const char *chosen = getenv("SAFE_COMPOSE_DOCKER"), *folder = getenv("PATH");
    if (!folder || (chosen && *chosen)) return NULL;
    for (size_t length;; folder += length + 1) {
        length = strcspn(folder, ":");
        if (*folder != '/' || length + sizeof "/" NAME > sizeof path) return NULL;
        memcpy(path, folder, length);
        memcpy(path + length, "/" NAME, sizeof "/" NAME);
        if (strstr(path, "//") || strstr(path, "/./") || strstr(path, "/../")) return NULL; /* docker gets a name without these */
        int file = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        if (file >= 0) {
            struct stat found;
            ssize_t filled = -1;
            if (!fstat(file, &found) && S_ISREG(found.st_mode))
                filled = fill(file, head, found.st_size <= LARGEST ? LARGEST : SCRIPT_HEAD);
            close(file);
            if (filled < 4) return NULL;
            if (!is_copy(head, (size_t)filled, found.st_size)) return is_elf(head) && !access(path, X_OK) ? path : NULL;
        } else if (errno != ENOENT) {
            return NULL;
        }
        if (!folder[length]) return NULL;
    }
}

/* Become the script, which looks at everything again. */
static int look_closer(char **words) {
    size_t count = 0;
    while (words[count]) count++;
    char **command = malloc((count + 4) * sizeof *command);
    const char *what = SCRIPT;
    if (command && !access(SCRIPT, R_OK)) {
        char *start[] = {INTERPRETER, "-IS", SCRIPT};
        memcpy(command, start, sizeof start);
        memcpy(command + 3, words, (count + 1) * sizeof *command);
        execve(what = INTERPRETER, command, environ);
    }
    const char *why = strerror(errno);
    signal(SIGPIPE, SIG_IGN); /* whoever reads stderr may have gone: 127 all the same */
    dprintf(2,
            "safe-compose: %s, which takes the closer look at a command, does not start: %s\n"
            "  next: install safe-compose again, then: safe-compose shell --install shims\n"
            "safe-compose: docker was not run (127)\n",
            what, why);
    return 127;
}

int main(int count, char **argv) {
    char **words = argv + (count > 0), *found = count > 0 && !wakes(words) ? docker() : NULL;
    if (found) {
        argv[0] = found;
        execve(found, argv, environ);
    }
    return look_closer(words);
}
