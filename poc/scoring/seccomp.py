"""A seccomp filter for the sandbox: no new process or thread, no socket, no memory that no limit counts.

RLIMIT_NPROC does not bind root, whatever uid a user namespace shows; this does. What is refused fails with EPERM; a
call under another machine's numbering kills the process. Numbers: the kernel's syscall tables for x86_64 and for
arm64 (asm-generic). Classic BPF, as seccomp(2) wants it and bubblewrap's --seccomp reads it.
"""

import struct

# name: (x86_64, aarch64); None where the machine has no such call
REFUSED = {
    # processes and threads
    "clone": (56, 220), "fork": (57, None), "vfork": (58, None), "clone3": (435, 435),
    # other namespaces, mounts, roots
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41),
    "chroot": (161, 51), "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430),
    "fsconfig": (431, 431), "fsmount": (432, 432), "mount_setattr": (442, 442), "open_by_handle_at": (304, 265),
    # other processes
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438), "kcmp": (312, 272),
    # the network, and sockets of any kind
    "socket": (41, 198), "socketpair": (53, 199),
    # memory outside the address space: shared segments, queues, anonymous files, rings
    "shmget": (29, 194), "msgget": (68, 186), "semget": (64, 190), "mq_open": (240, 180), "memfd_create": (319, 279),
    "memfd_secret": (447, 447), "io_uring_setup": (425, 425), "io_setup": (206, 0),
    # keys and the kernel's own machinery
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219), "bpf": (321, 280),
    "perf_event_open": (298, 241), "userfaultfd": (323, 282), "kexec_load": (246, 104), "init_module": (175, 105),
    "finit_module": (313, 273),
}  # fmt: skip
AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
X32 = 0x40000000  # x86_64's second numbering starts here
PRCTL, PR_SET_PDEATHSIG = (157, 167), 1  # would let a program live on when the kit dies
LOAD, EQUAL, AT_LEAST, RETURN = 0x20, 0x15, 0x35, 0x06
ALLOW, EPERM, KILL = 0x7FFF0000, 0x00050001, 0x80000000


def program(machine: str) -> bytes | None:
    """The filter as BPF instructions for os.uname().machine, None for a machine whose numbers are not known here."""
    if machine not in AUDIT_ARCH:
        return None
    column = machine == "aarch64"
    numbers = [pair[column] for pair in REFUSED.values() if pair[column] is not None]
    checks = [(AT_LEAST, X32), *((EQUAL, number) for number in numbers)]
    lines = [(LOAD, 0, 0, 4), (EQUAL, 1, 0, AUDIT_ARCH[machine]), (RETURN, 0, 0, KILL), (LOAD, 0, 0, 0)]
    lines += [(check, len(checks) - i + 3, 0, number) for i, (check, number) in enumerate(checks)]
    # 16: the low half of the call's first argument, on these two little-endian machines
    lines += [(EQUAL, 0, 2, PRCTL[column]), (LOAD, 0, 0, 16), (EQUAL, 1, 0, PR_SET_PDEATHSIG)]
    lines += [(RETURN, 0, 0, ALLOW), (RETURN, 0, 0, EPERM)]
    return b"".join(struct.pack("=HBBI", *line) for line in lines)
