/* `safe-compose` itself, and `docker`, `docker-compose` or the compose plugin where a link of that name leads here.
 *
 * It becomes docker when the words are plainly harmless, before any Python starts. Everything else goes to Python: to the
 * script ENTRY in the folder of this program, whose first line names the interpreter. It decides nothing that Python would
 * decide otherwise, and when in doubt Python decides. Nothing that docker inherits is touched: environment, signals,
 * descriptors, umask.
 *
 * `build.py` writes these definitions before it, from `safe_compose.fastpath`:
 *     WAKING, FIRST, PLUMBING, FOREIGN, HELP, KNOWN, COMPLETE
 *                                         words, each with a line break before and behind it
 *     START                               the verb of ours that docker has as well
 *     MARKER, LARGEST                     how one copy knows another (`first_look.is_copy`)
 *     ENTRY, LAUNCHED                     the script, and the first word that it gets (`launch.take_over`)
 *     ASIDE, ORIGIN, PLUGINS              where docker's plugins are (`launch`) */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <unistd.h>

#define HEAD 4096 /* bytes of a program in which the marker counts */

extern char **environ;

/* The marker in an ELF note, which the linker puts into the first page of the program. */
__attribute__((section(".note.safe-compose"), used, aligned(4))) static const struct {
    unsigned name, description, kind;
    char marker[(sizeof MARKER + 3) / 4 * 4];
} NOTE = {sizeof MARKER, 0, 1, MARKER};

/* What this process was started as. */
struct start {
    char **argv, **words;
    const char *path;    /* by which the kernel found it */
    const char *name;    /* the last part of argv[0] */
    const char *program; /* whose place it takes */
    int shim;            /* whether it has no verbs of its own */
    int alias;           /* whether `docker`, the first word, says that it was called by that name */
    enum { NO, MAYBE, YES } plugin; /* whether docker runs it as its compose plugin */
};

/* Read until `size` bytes are there or the file ends. Return how many, or -1. */
static ssize_t fill(int file, char *buffer, size_t size) {
    size_t filled = 0;
    while (filled < size) {
        ssize_t count = read(file, buffer + filled, size - filled);
        if (count < 0 && errno == EINTR) continue;
        if (count < 0) return -1;
        if (count == 0) break;
        filled += (size_t)count;
    }
    return (ssize_t)filled;
}

/* Whether a word is one of a list. */
static int is_one_of(const char *list, const char *word) {
    const size_t size = strlen(word);
    for (const char *line = list + 1; *line; line += strcspn(line, "\n") + 1)
        if (strcspn(line, "\n") == size && !memcmp(line, word, size)) return 1;
    return 0;
}

/* Whether one of the words is in a list: the word itself or, of a flag, `flag=value`. `from` is what the list's words begin with. */
static int has_one_of(const char *list, char **words, const char *from) {
    for (const char *line = list + 1; *line; line += strcspn(line, "\n") + 1) {
        const size_t size = strcspn(line, "\n");
        if (strncmp(line, from, strlen(from))) continue;
        for (char **word = words; *word; word++)
            if (!strncmp(*word, line, size) && (!(*word)[size] || (line[0] == '-' && (*word)[size] == '='))) return 1;
    }
    return 0;
}

/* Whether docker is known to take the word as its first: a command or a global flag. */
static int is_known(const char *word) {
    if (word[0] != '-') return is_one_of(KNOWN, word);
    if (word[1] != '-') return 1; /* a short flag, or several */
    char name[32];
    const size_t size = strcspn(word, "=");
    if (size >= sizeof name) return 0;
    memcpy(name, word, size);
    name[size] = 0;
    return is_one_of(KNOWN, name);
}

/* Whether these words, by our own name, may be for us: a verb, a request for help, or a typing error. */
static int is_ours(const struct start *start) {
    char **words = start->words;
    if (!words[0] || (!words[1] && is_one_of(HELP, words[0]))) return !start->alias;
    if (is_one_of(COMPLETE, words[0]))
        return !start->alias && words[1] && (!words[2] || is_one_of(FIRST, words[1]) || !strcmp(words[1], START));
    if (is_one_of(PLUMBING, words[0])) return 0;
    if (is_one_of(FIRST, words[0]) || !strcmp(words[0], "help")) return 1;
    if (strcmp(words[0], START)) return !is_known(words[0]);
    for (char **word = words + 1; *word; word++) {
        if (!strncmp(*word, "-p", 2) || !strncmp(*word, "-f", 2)) return !start->alias;
        if (strncmp(*word, "--", 2)) return 0;
        if (!strncmp(*word, "--project", 9) || !strncmp(*word, "--file", 6)) return !start->alias;
    }
    return !start->alias;
}

/* Whether docker gets these words unchanged whatever the engine holds. */
static int is_harmless(const struct start *start) {
    const char *first = start->words[0] ? start->words[0] : "";
    if (start->plugin || is_one_of(FOREIGN, start->name)) return 0;
    if (!start->shim && is_ours(start)) return 0;
    return is_one_of(PLUMBING, first) || !has_one_of(WAKING, start->words, "");
}

static int is_elf(const char *head) { return !memcmp(head, "\177ELF", 4); }

/* Read as much of a file as tells whether it is ours; return how many bytes, -1 unless it is a regular file that reads. */
static ssize_t read_head(int file, char *head, struct stat *found) {
    if (fstat(file, found) || !S_ISREG(found->st_mode)) return -1;
    return fill(file, head, found->st_size <= LARGEST ? LARGEST : HEAD);
}

/* Whether a program that begins with these bytes (all of it, up to LARGEST) is one of ours. */
static int is_copy(const char *head, size_t length, off_t size) {
    if (length < 4 || (memcmp(head, "#!", 2) && !is_elf(head))) return 0;
    if (!is_elf(head) || size > LARGEST) length = length < HEAD ? length : HEAD;
    return memmem(head, length, MARKER, sizeof MARKER - 1) != NULL;
}

/* Whether the link leads to one of ours. */
static int leads_to_copy(const char *path) {
    static char head[LARGEST];
    struct stat found;
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file < 0) return 0;
    ssize_t filled = read_head(file, head, &found);
    close(file);
    return filled > 0 && is_copy(head, (size_t)filled, found.st_size);
}

/* The first program of that name on PATH that is not ours, when it is plainly docker's own binary; else NULL. */
static char *find_docker(const char *program) {
    static char path[PATH_MAX], head[LARGEST];
    const char *chosen = getenv("SAFE_COMPOSE_DOCKER"), *folder = getenv("PATH");
    const size_t name = strlen(program) + 1;
    if (!folder || (chosen && *chosen)) return NULL;
    for (size_t length;; folder += length + 1) {
        length = strcspn(folder, ":");
        if (*folder != '/' || length + 1 + name > sizeof path) return NULL;
        memcpy(path, folder, length);
        path[length] = '/';
        memcpy(path + length + 1, program, name);
        if (strstr(path, "//") || strstr(path, "/./") || strstr(path, "/../")) return NULL; /* docker gets a name without these */
        int file = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        if (file >= 0) {
            struct stat found;
            ssize_t filled = read_head(file, head, &found);
            close(file);
            if (filled < 4) return NULL;
            if (!is_copy(head, (size_t)filled, found.st_size)) return is_elf(head) && !access(path, X_OK) ? path : NULL;
        } else if (errno != ENOENT && !(errno == ELOOP && leads_to_copy(path))) {
            return NULL;
        }
        if (!folder[length]) return NULL;
    }
}

/* -- Python ---------------------------------------------------------------------------------------------------------------- */

/* The path of ENTRY, in the folder where this program really is; NULL with errno when that cannot be told. */
static char *find_entry(const struct start *start) {
    static char own[PATH_MAX], entry[PATH_MAX + sizeof ENTRY];
    ssize_t size = readlink("/proc/self/exe", own, sizeof own - 1);
    if (size < 0 && !realpath(start->path, own)) return NULL;
    if (size >= 0) own[size] = 0;
    char *slash = strrchr(own, '/');
    if (!slash) return NULL;
    slash[1] = 0;
    snprintf(entry, sizeof entry, "%s" ENTRY, own);
    return entry;
}

/* The end of a word in a shell's quotes that means itself, or NULL. */
static char *end_of_quotes(char *word) {
    const char *end = strpbrk(word + 1, *word == '\'' ? "'" : "\"\\$`");
    return end && *end == *word ? word + (end - word) : NULL;
}

/* The interpreter of a script, when its first lines name one and nothing else; else NULL.
 *
 * The kernel takes no path with a blank, so installers write such a script for /bin/sh, which then starts the interpreter:
 *     #!/bin/sh
 *     '''exec' "/with blank/python" "$0" "$@"
 * A shell would change the environment, and pip writes `#!/with blank/python` all the same. So the path is read here. */
static char *find_interpreter(const char *script, int *by_shell) {
    static char head[HEAD + 1];
    static const char shell[] = "#!/bin/sh\n'''exec' ", rest[] = " \"$0\" \"$@\"\n";
    int file = open(script, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file < 0) return NULL;
    ssize_t size = fill(file, head, HEAD);
    close(file);
    if (size <= 0 || memchr(head, 0, (size_t)size)) return NULL;
    head[size] = 0;
    char *word = head + 2, *end = strchr(head, '\n');
    if ((*by_shell = !strncmp(head, shell, sizeof shell - 1))) {
        word = head + sizeof shell - 1;
        const int quoted = *word == '"' || *word == '\'';
        end = quoted ? end_of_quotes(word) : strchr(word, ' ');
        if (!end || strncmp(end + quoted, rest, sizeof rest - 1)) return NULL;
        word += quoted;
    }
    if (strncmp(head, "#!", 2) || !end) return NULL;
    *end = 0;
    return *word == '/' ? word : NULL;
}

/* Which of the signals that Python ignores from its start on are ignored already: `P` SIGPIPE, `X` SIGXFSZ. */
static const char *list_ignored(void) {
    static char letters[4] = "-";
    struct sigaction now;
    char *end = letters;
    if (!sigaction(SIGPIPE, NULL, &now) && now.sa_handler == SIG_IGN) *end++ = 'P';
    if (!sigaction(SIGXFSZ, NULL, &now) && now.sa_handler == SIG_IGN) *end++ = 'X';
    return letters;
}

/* Become Python; return with errno, and in `what` the program that does not start. */
static void become_python(const struct start *start, const char **what) {
    char **words = start->words - start->alias;
    size_t count = 0;
    while (words[count]) count++;
    const char **command = malloc((count + 7) * sizeof *command);
    char *entry = find_entry(start);
    if (!command || !entry) return;
    *what = entry;
    const char *front[] = {NULL, entry, LAUNCHED, start->path, start->name, list_ignored()};
    memcpy(command, front, sizeof front);
    memcpy(command + 6, words, (count + 1) * sizeof *command);
    if (access(entry, R_OK)) return;
    int by_shell = 0;
    if ((command[0] = find_interpreter(entry, &by_shell))) execve(*what = command[0], (char **)command, environ);
    /* Otherwise, or where the line holds an argument as well, the kernel reads it. */
    if (!command[0] || (!by_shell && strpbrk(command[0], " \t"))) execve(entry, (char **)command + 1, environ);
}

/* -- without Python -------------------------------------------------------------------------------------------------------- */

/* Whether words plainly delete. Those after `run` and `exec` belong to a container. */
static int deletes(char **words) {
    int volumes = 0, yes = 0;
    for (char **word = words; *word; word++) {
        if (**word != '-') continue;
        int single = (*word)[1] != '-';
        volumes |= single ? strchr(*word, 'v') != NULL : !strncmp(*word, "--vol", 5) || is_one_of("\n--v\n--vo\n", *word);
        yes |= is_one_of("\n-y\n--y\n--yes\n", *word);
    }
    for (const char *before = ""; *words; before = *words++) {
        if (before[0] != '-' && is_one_of("\nrun\nexec\nbuild\n", *words)) return 0;
        if (is_one_of("\nreset\nreset-cluster\nuninstall\nuninstall-runner\n", *words)) return 1;
        if (!strcmp(*words, "volume") && has_one_of("\nrm\nremove\nprune\n", words, "")) return 1;
        if (volumes && is_one_of("\ndown\nrm\nremove\nprune\n", *words)) return 1;
        if (yes && is_one_of("\nup\ncreate\nscale\nwatch\n", *words)) return 1;
    }
    return 0;
}

/* A path, when a program that is not ours stands there. */
static char *other_program(char *path) {
    struct stat found;
    return !stat(path, &found) && S_ISREG(found.st_mode) && !access(path, X_OK) && !leads_to_copy(path) ? path : NULL;
}

/* The first program of that name on PATH that is not ours, of whatever kind; else NULL. */
static char *find_any(const char *program) {
    static char path[PATH_MAX];
    const char *folder = getenv("PATH");
    for (size_t length; folder; folder = folder[length] ? folder + length + 1 : NULL) {
        length = strcspn(folder, ":");
        if (length && length < PATH_MAX && snprintf(path, sizeof path, "%.*s/%s", (int)length, folder, program) < PATH_MAX &&
            other_program(path))
            return path;
    }
    return NULL;
}

/* The compose plugin that was renamed for ours, in the same folder; else NULL. */
static char *find_renamed(const struct start *start) {
    static char path[PATH_MAX];
    const char *slash = strrchr(start->path, '/');
    if (!slash || slash - start->path >= PATH_MAX) return NULL;
    const int size = snprintf(path, sizeof path, "%.*s/" ASIDE, (int)(slash - start->path), start->path);
    return size < PATH_MAX ? other_program(path) : NULL;
}

/* The compose plugin that ours replaces, in its folder or one of the system's; else NULL. */
static char *find_plugin(const struct start *start) {
    static char path[PATH_MAX];
    char *renamed = find_renamed(start);
    if (renamed) return renamed;
    for (const char *line = PLUGINS + 1; *line; line += strcspn(line, "\n") + 1)
        if (snprintf(path, sizeof path, "%.*s/docker-compose", (int)strcspn(line, "\n"), line) < PATH_MAX && other_program(path))
            return path;
    return NULL;
}

/* Become docker, unless these words delete or are for us; return when that is so, or when no docker starts. */
static void become_docker(const struct start *start) {
    const int ours = !start->shim && start->words[0] && is_one_of(FIRST, start->words[0]);
    if (ours || start->plugin == MAYBE || start->argv == start->words || deletes(start->words) || has_one_of(WAKING, start->words, "--")) return;
    char *left = start->plugin ? find_plugin(start) : find_any(start->program);
    if (!left) return;
    start->words[-1] = left;
    execve(left, start->words - 1, environ);
}

/* Say that docker was not run, and what helps. */
static void explain(const struct start *start, const char *what, const char *why) {
    signal(SIGPIPE, SIG_IGN); /* whoever reads stderr may have gone: 127 all the same */
    dprintf(2, "safe-compose: %s, which looks at this command, does not start: %s\n", what, why);
    const char *renamed = start->plugin == YES ? find_renamed(start) : NULL;
    if (renamed && !strchr(start->path, '\''))
        dprintf(2, "  next: install safe-compose again, or put the real plugin back: mv -f '%s' '%s'\n", renamed, start->path);
    else
        dprintf(2, "  next: install safe-compose again\n");
    dprintf(2, "safe-compose: docker was not run (127)\n");
}

/* The last part of a path. */
static const char *last_part(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* Whether a path ends in that. */
static int ends_in(const char *path, const char *end) {
    const size_t size = strlen(path), last = strlen(end);
    return size >= last && !strcmp(path + size - last, end);
}

int main(int count, char **argv) {
    const char *path = (const char *)getauxval(AT_EXECFN), *called = count > 0 ? argv[0] : "";
    if (!path) path = called;
    const char *name = last_part(*called ? called : path);
    const int foreign = is_one_of(FOREIGN, name), compose = !strcmp(name, "docker-compose");
    const int shim = compose || foreign || !strcmp(name, "docker");
    const int alias = !shim && count > 1 && !strcmp(argv[1], "docker");
    const struct start start = {
        argv, argv + (count > 0) + alias, path, name, compose || foreign ? name : "docker", shim, alias,
        !compose ? NO : ends_in(path, "/cli-plugins/docker-compose") ? YES : getenv(ORIGIN) ? MAYBE : NO,
    };
    char *found = count > 0 && is_harmless(&start) ? find_docker(start.program) : NULL;
    if (found) {
        start.words[-1] = found;
        execve(found, start.words - 1, environ);
    }
    const char *what = ENTRY;
    errno = ENOENT;
    become_python(&start, &what);
    const char *why = strerror(errno);
    become_docker(&start);
    explain(&start, what, why);
    return 127;
}
