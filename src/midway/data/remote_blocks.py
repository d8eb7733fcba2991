"""Cache of the blocks of a file behind a URL, so that each byte is fetched once, in few requests.

Videos are read in jumps: head, tables at the end, then a few frames anywhere. The caches of fsspec
fetch one block per request or keep a single stretch, so that every jump back fetches again.
"""

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import ClassVar

from fsspec.caching import BaseCache, register_cache

BLOCK_BYTES = 2**18
"""Smallest part that is fetched: the tables of a video of minutes, or a few frames."""
MAX_BLOCKS = 32
"""Number of blocks kept of a file, the last ones used."""
MAX_AHEAD = 4
"""Largest number of blocks in a request that goes beyond what is asked for."""


class RemoteBlocks(BaseCache):
    """Cache of the blocks used last; blocks that are missing in a row come by one request.

    While a file is read from start to end, requests double up to `MAX_AHEAD` blocks.

    Args:
        blocksize: Bytes of a block.
        fetcher: Function that returns the bytes of the file from a start to an end.
        size: Bytes of the file.

    Raises:
        OSError: The server sends fewer bytes than it was asked for.
    """

    name: ClassVar[str] = "midway-blocks"

    def __init__(self, blocksize: int, fetcher: Callable[[int, int], bytes], size: int) -> None:
        super().__init__(blocksize, fetcher, size)
        self.nblocks = math.ceil(size / blocksize)
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._following = -1  # the block after those fetched last
        self._ahead = 1

    def _fetch(self, start: int | None, stop: int | None) -> bytes:
        start, stop = start or 0, self.size if stop is None else min(stop, self.size)
        if start >= stop:
            return b""
        first, end = start // self.blocksize, math.ceil(stop / self.blocksize)
        parts: dict[int, bytes] = {}  # the cache may be smaller than what is asked for
        for number in range(first, end):
            if number in parts:
                continue
            if number in self._blocks:
                self._blocks.move_to_end(number)
                parts[number] = self._blocks[number]
            else:
                parts |= self._fetch_blocks(number, end)
        data = b"".join(parts[number] for number in range(first, end))
        offset = first * self.blocksize
        return data[start - offset : stop - offset]

    def _fetch_blocks(self, first: int, needed_end: int) -> dict[int, bytes]:
        """Fetch the missing blocks from `first` on, and further ones in a sequence of reads."""
        self._ahead = min(2 * self._ahead, MAX_AHEAD) if first == self._following else 1
        wanted = range(first, min(max(needed_end, first + self._ahead), self.nblocks))
        missing = []
        for number in wanted:
            if number in self._blocks:
                break
            missing.append(number)
        self._following = missing[-1] + 1
        start, stop = first * self.blocksize, min(self._following * self.blocksize, self.size)
        data = self.fetcher(start, stop)
        if len(data) < stop - start:
            raise OSError(f"the server sent {len(data)} of {stop - start} bytes")
        found = {}
        for number in missing:
            place = number * self.blocksize - start
            found[number] = data[place : place + self.blocksize]
        self._blocks |= found
        while len(self._blocks) > MAX_BLOCKS:
            self._blocks.popitem(last=False)
        return found


register_cache(RemoteBlocks, clobber=True)
