"""Confines this process for good: no network, no signals to others, no files but those of its job. Needs no root.

Two kernel features that any process may use on itself: a seccomp filter (seccomp(2)) refuses system calls that open
sockets or reach into other processes, Landlock (landlock(7)) refuses files outside of a list. Children inherit both and
nobody can lift them. What a kernel lacks is told, so that who must have it can refuse. See docs/adr/0015-sandbox.md.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import resource
import struct
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

# From linux/prctl.h, linux/seccomp.h, linux/landlock.h, linux/audit.h.
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_LANDLOCK_VERSION, _RULE_PATH_BENEATH = 1, 1
_ALLOW, _REFUSE_EACCES, _KILL_PROCESS = 0x7FFF0000, 0x00050000 | 13, 0x80000000
_EXECUTE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 2, 1 << 3
_READING: Final = _EXECUTE | _READ_FILE | _READ_DIR
# Rights on files that each version of Landlock knows, and whether it knows network and signals.
_ALL_RIGHTS: Final = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1, 5: (1 << 16) - 1}
_NETWORK_FROM, _SCOPES_FROM = 4, 6
_ON_FILES: Final = _EXECUTE | (1 << 1) | _READ_FILE | (1 << 14) | (1 << 15)

# Calls that open sockets, reach into other processes, or go around this filter. x32 calls (bit 30) are refused whole.
_REFUSED: Final = {
    "x86_64": (0xC000003E, {
        "socket": 41, "connect": 42, "kill": 62, "ptrace": 101, "tkill": 200, "keyctl": 250, "add_key": 248,
        "request_key": 249, "mount": 165, "unshare": 272, "setns": 308, "process_vm_readv": 310,
        "process_vm_writev": 311, "bpf": 321, "perf_event_open": 298, "userfaultfd": 323, "pidfd_send_signal": 424,
        "io_uring_setup": 425, "pidfd_open": 434, "pidfd_getfd": 438,
    }),
    "aarch64": (0xC00000B7, {
        "socket": 198, "connect": 203, "kill": 129, "tkill": 130, "ptrace": 117, "keyctl": 219, "add_key": 217,
        "request_key": 218, "mount": 40, "unshare": 97, "setns": 268, "process_vm_readv": 270,
        "process_vm_writev": 271, "bpf": 280, "perf_event_open": 241, "userfaultfd": 282, "pidfd_send_signal": 424,
        "io_uring_setup": 425, "pidfd_open": 434, "pidfd_getfd": 438,
    }),
}  # fmt: skip
_X32_BIT: Final = 0x40000000
# What programs and libraries need to see of a system: nothing of anybody's home, and of /proc nothing of other
# processes, whose environment a process of the same user could read.
_SYSTEM: Final = (
    "/usr", "/lib", "/lib64", "/bin", "/opt", "/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat",
    "/proc/filesystems", "/proc/version", "/proc/sys/vm", "/proc/sys/kernel", "/sys/devices/system", "/sys/fs/cgroup",
    "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/localtime", "/etc/nsswitch.conf", "/etc/passwd",
    "/etc/alternatives", "/dev/urandom", "/dev/random", "/dev/zero",
)  # fmt: skip
_WRITABLE_DEVICES: Final = ("/dev/null",)


@dataclass(frozen=True, slots=True)
class Confinement:
    """What holds from now on.

    Attributes:
        network: sockets and other processes are out of reach.
        files: only the listed files are in reach.
    """

    network: bool
    files: bool

    @property
    def whole(self) -> bool:
        """Whether code that nobody trusts may run here."""
        return self.network and self.files


def confine(read: Iterable[Path], write: Iterable[Path]) -> Confinement:
    """Confines this process and all it starts.

    Args:
        read: files and folders that may be read, beside those of the system and of Python.
        write: folders that may be written.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform != "linux":
        return Confinement(False, False)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return Confinement(False, False)
    files = _confine_files(libc, [*_python(), *map(Path, _SYSTEM), *read], [*map(Path, _WRITABLE_DEVICES), *write])
    return Confinement(_confine_calls(libc), files)


def _python() -> list[Path]:
    """Where this interpreter and its packages lie."""
    return [Path(entry) for entry in {sys.prefix, sys.base_prefix, sys.exec_prefix, *sys.path} if entry]


def _confine_files(libc: ctypes.CDLL, read: list[Path], write: list[Path]) -> bool:
    version = libc.syscall(_LANDLOCK_CREATE, None, 0, _LANDLOCK_VERSION)
    if version < 1:
        return False
    rights = _ALL_RIGHTS[min(version, max(_ALL_RIGHTS))]
    fields = [rights]
    if version >= _NETWORK_FROM:
        fields.append(3)
    if version >= _SCOPES_FROM:
        fields.append(3)
    attributes = struct.pack(f"={len(fields)}Q", *fields)
    ruleset = libc.syscall(_LANDLOCK_CREATE, attributes, len(attributes), 0)
    if ruleset < 0:
        return False
    try:
        added = [_allow(libc, ruleset, path, _READING & rights) for path in read]
        added += [_allow(libc, ruleset, path, rights) for path in write]
        return all(added) and libc.syscall(_LANDLOCK_RESTRICT, ruleset, 0) == 0
    finally:
        os.close(ruleset)


def _allow(libc: ctypes.CDLL, ruleset: int, path: Path, rights: int) -> bool:
    """Adds a rule; true also for a path that is not there."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            allowed = rights if path.is_dir() else rights & _ON_FILES
            rule = struct.pack("=Qi", allowed, descriptor)
            return bool(libc.syscall(_LANDLOCK_ADD, ruleset, _RULE_PATH_BENEATH, rule, 0) == 0)
        finally:
            os.close(descriptor)
    return True


class _Instruction(ctypes.Structure):
    _fields_ = (("code", ctypes.c_ushort), ("jt", ctypes.c_ubyte), ("jf", ctypes.c_ubyte), ("k", ctypes.c_uint32))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.POINTER(_Instruction)))


def _confine_calls(libc: ctypes.CDLL) -> bool:
    known = _REFUSED.get(platform.machine())
    if known is None:
        return False
    program = _filter_of(*known)
    array = (_Instruction * len(program))(*program)
    return bool(
        libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(_Program(len(program), array)), 0, 0) == 0
    )


def _filter_of(architecture: int, refused: dict[str, int]) -> list[_Instruction]:
    """Classic BPF: another architecture's calls kill, refused ones give EACCES, all others pass."""
    load, equal, at_least, answer = 0x20, 0x15, 0x35, 0x06
    numbers = sorted(refused.values())
    program = [
        _Instruction(load, 0, 0, 4),
        _Instruction(equal, 1, 0, architecture),
        _Instruction(answer, 0, 0, _KILL_PROCESS),
        _Instruction(load, 0, 0, 0),
        _Instruction(at_least, len(numbers) + 1, 0, _X32_BIT),
    ]
    program += [_Instruction(equal, len(numbers) - at, 0, number) for at, number in enumerate(numbers)]
    return [*program, _Instruction(answer, 0, 0, _ALLOW), _Instruction(answer, 0, 0, _REFUSE_EACCES)]
