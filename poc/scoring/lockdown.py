"""What a process gives up before it reads text that nobody trusts. The verifiers evaluate nothing; this is for the day
one of them, or a library below it, can be made to.

`leave_network` once, in the process that forks; `close_down` in every fork of it, after which a process computes, reads
and writes what it holds open, and nothing else:

    memory       2 GB of addresses
    files        none can be opened, by RLIMIT_NOFILE 0, and none made longer, by RLIMIT_FSIZE 0
    network      none: no socket can be opened; besides, an empty network namespace where the kernel allows one
    processes    none: RLIMIT_NPROC 0, which binds nobody but root: root becomes uid 65534 first
    the rest     seccomp on Linux for x86-64 and ARM64: every system call that is not in CALLS is refused with EPERM, so
                 also what needs no file handle: kill, unlink, rename, chmod
    parent       it ends with it (PR_SET_PDEATHSIG)

Where the system lacks one of these the others stay; what every POSIX system has is the resource limits. The numbers of
CALLS are those of the kernel's headers (asm/unistd_64.h, asm-generic/unistd.h).
"""

import ctypes
import os
import resource
import signal
import struct
import sys

ADDRESS_SPACE = 2 << 30  # bytes
NOBODY = 65534
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, SECCOMP_MODE_FILTER = 1, 22, 38, 2
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06  # BPF
ALLOW, REFUSE = 0x7FFF0000, 0x00050001  # SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO with EPERM
ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}  # AUDIT_ARCH, column of CALLS
CALLS = {
    "read": (0, 63), "write": (1, 64), "writev": (20, 66), "close": (3, 57), "fstat": (5, 80), "lseek": (8, 62),
    "mmap": (9, 222), "mprotect": (10, 226), "munmap": (11, 215), "brk": (12, 214), "mremap": (25, 216),
    "madvise": (28, 233), "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139),
    "sigaltstack": (131, 132), "sched_yield": (24, 124), "futex": (202, 98), "rseq": (334, 293),
    "nanosleep": (35, 101), "clock_nanosleep": (230, 115), "clock_gettime": (228, 113), "gettimeofday": (96, 169),
    "setitimer": (38, 103), "getitimer": (36, 102), "select": (23, None), "pselect6": (270, 72), "ppoll": (271, 73),
    "restart_syscall": (219, 128), "getpid": (39, 172), "getppid": (110, 173), "gettid": (186, 178),
    "getrandom": (318, 278), "getrusage": (98, 165), "sysinfo": (99, 179), "sched_getaffinity": (204, 123),
    "exit": (60, 93), "exit_group": (231, 94),
}  # fmt: skip


def leave_network() -> None:
    """An empty network namespace where the kernel allows one. Root stops being root."""
    if os.getuid() == 0:
        _call("unshare", CLONE_NEWNET)
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    else:
        _call("unshare", CLONE_NEWUSER | CLONE_NEWNET)


def close_down(parent: int | None) -> None:
    """Give up everything else; ends the process if `parent`, which forked it, is gone already.

    None: no tie to a parent. It would end with the *thread* that started it, which may be one of many.
    """
    os.environ.clear()
    limit(resource.RLIMIT_AS, ADDRESS_SPACE)
    for name in ("RLIMIT_CORE", "RLIMIT_FSIZE", "RLIMIT_NPROC", "RLIMIT_NOFILE"):
        resource.setrlimit(getattr(resource, name), (0, 0))
    _call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if parent is not None:
        _call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if parent not in (None, os.getppid()):
        os._exit(0)
    _call("prctl", PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(_HEADER), 0, 0)


def limit(which: int, most: int) -> None:
    """Lower a soft resource limit to `most`, or to the hard limit where that is lower."""
    hard = resource.getrlimit(which)[1]
    resource.setrlimit(which, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def _call(name: str, *arguments) -> bool:
    """A function of the C library by name; False where there is none or it fails."""
    function = getattr(_LIBRARY, name, None)
    words = [ctypes.c_ulong(x) if isinstance(x, int) else x for x in arguments]
    return function is not None and function(*words) == 0


def _program(machine: str) -> bytes:
    """The filter: refuse another architecture, then compare the call's number with each that is allowed."""
    architecture, column = ARCHITECTURES[machine]
    lines = [(LOAD, 0, 0, 4), (JUMP_IF_EQUAL, 1, 0, architecture), (RETURN, 0, 0, REFUSE), (LOAD, 0, 0, 0)]
    for numbers in CALLS.values():
        if numbers[column] is not None:
            lines += [(JUMP_IF_EQUAL, 0, 1, numbers[column]), (RETURN, 0, 0, ALLOW)]
    return b"".join(struct.pack("HBBI", *line) for line in [*lines, (RETURN, 0, 0, REFUSE)])


# Made before the fork: every fork would make them again.
_LINUX = sys.platform.startswith("linux")
_LIBRARY = ctypes.CDLL(None) if _LINUX else None
_FILTER = _program(os.uname().machine) if _LINUX and os.uname().machine in ARCHITECTURES else b""
_CODE = ctypes.create_string_buffer(_FILTER, len(_FILTER) or 1)
_HEADER = ctypes.create_string_buffer(struct.pack("HP", len(_FILTER) // 8, ctypes.addressof(_CODE)))
