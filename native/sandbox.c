/* What the program itself gives up before it reads its first byte of anything hostile.
 *
 * It runs with CAP_DAC_READ_SEARCH, and for trusted.* attributes with CAP_SYS_ADMIN. Of the calls that these allow it needs few: so
 * the kernel lets it make the calls below and no other, whatever somebody makes it do. There is no execve, no mount, no socket,
 * no ptrace, no ioctl, and no open_by_handle_at (which with CAP_DAC_READ_SEARCH reads every file of the host's disk).
 */
#include "helper.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#ifdef __SANITIZE_ADDRESS__ /* which makes calls of its own */

void give_up_calls(void)
{
}

#else

static const unsigned allowed[] = {
	/* content */
	SYS_read, SYS_write, SYS_pread64, SYS_pwrite64, SYS_lseek, SYS_ftruncate, SYS_fsync, SYS_fdatasync, SYS_syncfs, SYS_fadvise64,
	SYS_fallocate,
	/* opening and looking */
	SYS_openat, SYS_openat2, SYS_close, SYS_fcntl, SYS_fstat, SYS_newfstatat, SYS_statx, SYS_fstatfs, SYS_getdents64, SYS_readlinkat,
	SYS_faccessat, SYS_faccessat2,
	/* changing */
	SYS_fchown, SYS_fchownat, SYS_fchmod, SYS_fchmodat, SYS_utimensat, SYS_mkdirat, SYS_mknodat, SYS_symlinkat, SYS_linkat,
	SYS_unlinkat, SYS_renameat2,
	/* extended attributes */
	SYS_listxattr, SYS_flistxattr, SYS_getxattr, SYS_fgetxattr, SYS_setxattr, SYS_fsetxattr, SYS_fremovexattr,
	/* memory, time, signals, and the end */
	SYS_brk, SYS_mmap, SYS_munmap, SYS_mremap, SYS_mprotect, SYS_madvise, SYS_prlimit64, SYS_clock_gettime, SYS_clock_nanosleep,
	SYS_nanosleep, SYS_gettimeofday, SYS_getrandom, SYS_futex, SYS_sched_yield, SYS_getpid, SYS_gettid, SYS_getuid, SYS_geteuid,
	SYS_getgid, SYS_getegid, SYS_umask, SYS_rt_sigprocmask, SYS_rt_sigaction, SYS_rt_sigtimedwait, SYS_rt_sigreturn,
	SYS_restart_syscall, SYS_tgkill, SYS_exit, SYS_exit_group,
#ifdef __x86_64__
	/* what newer machines have no number for */
	SYS_open, SYS_stat, SYS_lstat, SYS_readlink, SYS_access, SYS_chmod, SYS_unlink, SYS_getrlimit, SYS_setrlimit, SYS_time,
#endif
};

#if defined(__x86_64__)
#define MACHINE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define MACHINE AUDIT_ARCH_AARCH64
#else
#error "the volume helper is made for amd64 and arm64"
#endif

void give_up_calls(void)
{
	enum { COUNT = sizeof allowed / sizeof *allowed };
	struct sock_filter filter[2 * COUNT + 5] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, MACHINE, 1, 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
	};
	size_t at = 4;

	for (size_t i = 0; i < COUNT; i++) {
		filter[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, allowed[i], 0, 1);
		filter[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	}
	filter[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
	struct sock_fprog program = {.len = (unsigned short)at, .filter = filter};
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) {
		if (errno != EINVAL && errno != ENOSYS) /* a kernel without seccomp, or qemu's user mode */
			fail_with(UNTOUCHED, "the kernel does not take away what this program does not need: %s", strerror(errno));
	}
}

#endif
