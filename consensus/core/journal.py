"""The durable Raft log: entries, term and vote in one append-only file of framed records, mirrored in memory.

Writes are collected and made durable by one `sync` per turn of the log's loop, before anything that reflects
them is sent. A record that was torn by a crash is cut off; damage to what had been synced refuses to load.
"""

import os
import struct
import zlib
from collections.abc import Sequence
from typing import overload

from consensus.core.disk import Corrupt, Disk

FILE = "journal"
NEW_FILE = "journal.new"
NO_OP = b"\x01"
"""The library's no-op command; also stands in the log for the last entry that a snapshot covers."""
LogEntry = tuple[bytes, int, int]
"""Command, index, term: the library's own layout."""
MAX_RECORD = 32 * 1024 * 1024

_FILE_HEADER = struct.Struct("<8sI")
_MAGIC = b"PVRDJNL1"
_RECORD = struct.Struct("<HBBIQI")  # mark, kind, last of its batch, length of the body, batch, CRC-32
_CHECKED = struct.Struct("<BBIQ")
_MARK = 0x5AD7
_MARK_BYTES = struct.pack("<H", _MARK)
_NUMBERS = struct.Struct("<QQ")
_NUMBER = struct.Struct("<Q")
_ENTRY, _CUT_FROM, _REBASE, _VOTE, _COMMIT = range(1, 6)
_Pending = tuple[int, bytes]
_Record = tuple[int, bool, int, bytes]


class JournalWriteFailed(Exception):
    """The disk refused a write (it is full, or broken). `permanent` when only a restart can tell what is on it."""

    def __init__(self, cause: OSError, *, permanent: bool) -> None:
        super().__init__(f"journal: {cause.strerror or cause} (errno {cause.errno})")
        self.permanent = permanent


class Journal:
    """The log of one node; the library reads it as a sequence of `LogEntry` and adds to it.

    Records carry the number of the batch that was synced as one. A batch is only written after the batch before
    it was synced, so a damaged record with a sound one of a *later* batch behind it is corruption (`Corrupt`),
    while damage with nothing later behind it is what a crash leaves, and is cut off. The first batch is written
    as a whole new file and renamed into place: it is never torn.
    """

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._entries: list[LogEntry] = []
        self._term, self._vote = 0, ""
        self._commit = self._commit_on_disk = 1
        self._pending: list[_Pending] = []
        self._batch, self._offset, self._salt = 0, 0, 0
        self._broken: JournalWriteFailed | None = None
        self.syncs = 0
        """How many batches were made durable."""
        self._unsynced_from: int | None = None
        """Index of the first entry that waits for the next sync."""
        self.torn_bytes = 0
        """Bytes of an unfinished write that were cut off at the start."""
        self._open()

    # ------------------------------------------------------------ loading
    def _open(self) -> None:
        self._disk.discard(NEW_FILE)
        raw = self._disk.read(FILE)
        if raw is None:
            self._replace_file(self._entries)
            return
        self._salt = _read_header(raw)
        end = self._replay_all(raw)
        self.torn_bytes = len(raw) - end
        self._offset = end
        if self.torn_bytes:
            self._disk.truncate(FILE, end)
        # What a crashed process wrote may still be in the page cache only; from here on it counts as durable.
        self._disk.sync(FILE)

    def _replay_all(self, raw: bytes) -> int:
        position, batch, complete = _FILE_HEADER.size, 1, False
        while (record := self._record_at(raw, position)) is not None:
            kind, complete, batch, body = record
            if batch < self._batch:
                raise Corrupt(f"{FILE}: batch {batch} after batch {self._batch} at byte {position}")
            self._replay(kind, body, position)
            self._batch = batch
            position += _RECORD.size + len(body)
        if batch == 1 and not complete:
            raise Corrupt(f"{FILE}: damaged at byte {position}, in the part that was written as a whole")
        self._refuse_later_batches(raw, position, batch + 1 if complete else batch)
        self._batch += 1
        return position

    def _record_at(self, raw: bytes, position: int) -> _Record | None:
        start = position + _RECORD.size
        if start > len(raw):
            return None
        mark, kind, last, length, batch, crc = _RECORD.unpack_from(raw, position)
        if mark != _MARK or length > MAX_RECORD or start + length > len(raw):
            return None
        body = raw[start : start + length]
        return (kind, bool(last), batch, body) if _crc(self._salt, kind, last, batch, body) == crc else None

    def _refuse_later_batches(self, raw: bytes, damaged: int, unfinished: int) -> None:
        position = damaged
        while (position := raw.find(_MARK_BYTES, position + 1)) >= 0:
            record = self._record_at(raw, position)
            if record is not None and record[2] > unfinished:
                raise Corrupt(
                    f"{FILE}: the record at byte {damaged} is damaged, but what was synced after it is sound "
                    f"(byte {position}): the disk lost data. Remove this node's folder and let it join anew."
                )

    def _replay(self, kind: int, body: bytes, position: int) -> None:
        if kind == _ENTRY:
            index, term = _NUMBERS.unpack_from(body)
            if self._entries and index != self._entries[-1][1] + 1:
                raise Corrupt(f"{FILE}: entry {index} after entry {self._entries[-1][1]} at byte {position}")
            self._entries.append((body[_NUMBERS.size :], index, term))
        elif kind == _CUT_FROM:
            self._forget_from(_NUMBER.unpack(body)[0])
        elif kind == _REBASE:
            index, term = _NUMBERS.unpack(body)
            self._entries = [(NO_OP, index, term)]
        elif kind == _VOTE:
            self._term, self._vote = _NUMBER.unpack_from(body)[0], body[_NUMBER.size :].decode()
        elif kind == _COMMIT:
            self._commit = self._commit_on_disk = _NUMBER.unpack(body)[0]
        else:
            raise Corrupt(f"{FILE}: unknown record type {kind} at byte {position}")

    # ------------------------------------------------------------ durability
    @property
    def size(self) -> int:
        """Bytes of the file, without what waits for the next sync."""
        return self._offset

    @property
    def durable_index(self) -> int:
        """The last entry that a loss of power leaves in place."""
        return self._entries[-1][1] if self._unsynced_from is None else self._unsynced_from - 1

    def sync(self) -> None:
        """Make everything added so far durable.

        Raises:
            JournalWriteFailed: nothing may be sent that reflects what was added. Call again later: what could not
                be written is kept, and written at the same place.
        """
        if self._broken is not None:
            raise self._broken
        if not self._pending:
            return
        data = _frame(self._pending, self._batch, self._salt)
        try:
            self._disk.write_at(FILE, self._offset, data)
        except OSError as error:
            raise JournalWriteFailed(error, permanent=False) from error
        try:
            self._disk.sync(FILE)
        except OSError as error:
            # After a failed fsync the kernel may have dropped the pages, and report success the next time.
            self._broken = JournalWriteFailed(error, permanent=True)
            raise self._broken from error
        self._offset += len(data)
        self._pending.clear()
        self._unsynced_from = None
        self._batch += 1
        self.syncs += 1

    def compact(self, keep_from: int) -> None:
        """Drop the entries below index `keep_from`. The caller has a durable snapshot that covers them.

        Raises:
            OSError, JournalWriteFailed: nothing has changed; try again later.
        """
        kept = self._entries[keep_from - self._entries[0][1] :]
        if not kept or kept[0][1] != keep_from:
            raise ValueError(f"entry {keep_from} is not in the log {self._entries[0][1]}..{self._entries[-1][1]}")
        self.sync()
        self._replace_file(kept)
        self._entries = kept

    def _replace_file(self, entries: Sequence[LogEntry]) -> None:
        salt = int.from_bytes(os.urandom(4), "little")
        records = [(_ENTRY, _NUMBERS.pack(index, term) + command) for command, index, term in entries]
        records += [(_COMMIT, _NUMBER.pack(self._commit)), (_VOTE, self._vote_body())]
        data = _FILE_HEADER.pack(_MAGIC, salt) + _frame(records, 1, salt)
        self._disk.prepare(NEW_FILE, data)
        try:
            self._disk.commit(NEW_FILE, FILE)
        except OSError as error:
            self._broken = JournalWriteFailed(error, permanent=True)
            raise self._broken from error
        self._salt, self._batch, self._offset, self._commit_on_disk = salt, 2, len(data), self._commit

    def close(self) -> None:
        """Write what is left, if the disk allows, and close the file."""
        try:
            if self._broken is None:
                self.sync()
        finally:
            self._disk.close()

    def _vote_body(self) -> bytes:
        return _NUMBER.pack(self._term) + self._vote.encode()

    # ------------------------------------------------------------ entries
    def cut_from(self, index: int) -> None:
        """Drop the entries from `index` on: they conflict with the leader's."""
        self._pending.append((_CUT_FROM, _NUMBER.pack(index)))
        self._forget_from(index)

    def rebase(self, index: int, term: int) -> None:
        """Replace the whole log by a placeholder for the last entry of a snapshot, which is durable already."""
        self._pending.append((_REBASE, _NUMBERS.pack(index, term)))
        self._entries = [(NO_OP, index, term)]
        self._unsynced_from = None

    def _forget_from(self, index: int) -> None:
        del self._entries[max(0, index - self._entries[0][1]) :]
        if self._unsynced_from is not None and index <= self._unsynced_from:
            self._unsynced_from = None

    # ------------------------------------------------------------ what the library calls, under its names
    def add(self, command: bytes, index: int, term: int) -> None:
        """Append one entry; `index` follows the last one's."""
        if len(command) + _NUMBERS.size > MAX_RECORD:
            raise ValueError(f"a command of {len(command)} bytes does not fit a journal record of {MAX_RECORD}")
        self._pending.append((_ENTRY, _NUMBERS.pack(index, term) + command))
        self._entries.append((command, index, term))
        if self._unsynced_from is None:
            self._unsynced_from = index

    @overload
    def __getitem__(self, position: int) -> LogEntry: ...
    @overload
    def __getitem__(self, position: slice) -> list[LogEntry]: ...
    def __getitem__(self, position: int | slice) -> LogEntry | list[LogEntry]:
        return self._entries[position]

    def __len__(self) -> int:
        return len(self._entries)

    def setCurrentTerm(self, term: int, vote: str | None) -> None:
        self._term, self._vote = term, vote or ""
        self._pending.append((_VOTE, self._vote_body()))

    def getCurrentTerm(self) -> int:
        return self._term

    def getVotedForNodeId(self) -> str | None:
        return self._vote or None

    def setRaftCommitIndex(self, index: int) -> None:
        self._commit = index

    def getRaftCommitIndex(self) -> int:
        return min(self._commit, self._entries[-1][1]) if self._entries else 1

    def onOneSecondTimer(self) -> None:
        # The commit index may be old after a crash: the leader tells it again. It only saves a restart's time.
        if self._commit != self._commit_on_disk:
            self._pending.append((_COMMIT, _NUMBER.pack(self._commit)))
            self._commit_on_disk = self._commit


def _read_header(raw: bytes) -> int:
    """The salt of the file's checksums."""
    if len(raw) < _FILE_HEADER.size or raw[: len(_MAGIC)] != _MAGIC:
        raise Corrupt(f"{FILE}: begins with {raw[:8]!r} instead of {_MAGIC!r}: not a journal of this format")
    salt: int = _FILE_HEADER.unpack_from(raw)[1]
    return salt


def _crc(salt: int, kind: int, last: int, batch: int, body: bytes) -> int:
    # The salt keeps bytes that a user stores in a command from ever passing for a record.
    return zlib.crc32(body, zlib.crc32(_CHECKED.pack(kind, last, len(body), batch), salt))


def _frame(records: Sequence[_Pending], batch: int, salt: int) -> bytes:
    parts = []
    for number, (kind, body) in enumerate(records, 1):
        last = int(number == len(records))
        parts.append(_RECORD.pack(_MARK, kind, last, len(body), batch, _crc(salt, kind, last, batch, body)))
        parts.append(body)
    return b"".join(parts)
