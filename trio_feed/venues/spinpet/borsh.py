"""A cursor over Borsh bytes: https://borsh.io, fixed-size fields only.

Integers are little-endian, a bool is one byte 0 or 1, a Solana public key is 32 bytes (base58 in
text).  Bytes behind the last field are left alone: a later version of an event may have more.
"""

from functools import lru_cache

from attrs import define
from base58 import b58encode

from ...errors import BadMessage

_KEY_BYTES = 32


@define
class BorshReader:
    """Fields in order.  Every method raises BadMessage where the bytes end too early."""

    data: bytes
    at: int = 0

    def u8(self) -> int:
        return self._integer(1)

    def u16(self) -> int:
        return self._integer(2)

    def u32(self) -> int:
        return self._integer(4)

    def u64(self) -> int:
        return self._integer(8)

    def u128(self) -> int:
        return self._integer(16)

    def boolean(self) -> bool:
        """Raises BadMessage for anything but 0 and 1."""
        value = self._integer(1)
        if value > 1:
            raise BadMessage(f"{value} is not a bool")
        return value == 1

    def pubkey(self) -> str:
        """A public key in base58."""
        return _base58(self._take(_KEY_BYTES))

    def _integer(self, size: int) -> int:
        return int.from_bytes(self._take(size), "little")

    def _take(self, size: int) -> bytes:
        end = self.at + size
        if end > len(self.data):
            raise BadMessage(f"{len(self.data)} bytes end inside a field of {size} at {self.at}")
        taken = self.data[self.at : end]
        self.at = end
        return taken


@lru_cache(maxsize=4096)
def _base58(key: bytes) -> str:
    """Most keys come again: the mint, the traders, their accounts."""
    return b58encode(key).decode()
