/* A docker that is a binary and tells all that it was given: words, environment, folder, process, umask, signals, files. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

extern char **environ;

static void list(const char *title, char **words) {
    printf("%s:", title);
    for (; *words; words++) {
        fwrite(*words, 1, strlen(*words), stdout);
        putchar(0);
    }
    putchar('\n');
}

int main(int argc, char **argv) {
    char line[4096];
    (void)argc;
    list("argv", argv);
    list("environ", environ);
    printf("cwd:%s\numask:%o\n", getcwd(line, sizeof line) ? line : "-", umask(0));
    printf("pid:%d group:%d session:%d\n", getpid(), getpgrp(), getsid(0));
    FILE *status = fopen("/proc/self/status", "re");
    while (status && fgets(line, sizeof line, status))
        if (!strncmp(line, "Sig", 3) && strncmp(line, "SigQ", 4)) fputs(line, stdout);
    if (status) fclose(status);
    for (int n = 0; n < 64; n++) {
        char path[64];
        snprintf(path, sizeof path, "/proc/self/fd/%d", n);
        ssize_t size = readlink(path, line, sizeof line - 1);
        if (size > 0 && n > 2) printf("fd %d:%.*s\n", n, (int)size, line);
    }
    const char *code = getenv("EXIT");
    return code ? atoi(code) : 0;
}
