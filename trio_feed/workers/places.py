"""How many clients there may be over all workers, and of one address.  Pure."""

from collections import Counter

from attrs import frozen


@frozen
class Room:
    """Of the server of one setting.  ``per_group`` 0: no bound of its own."""

    clients: int
    per_group: int


class Places:
    """Who holds which place.  ``rooms`` by the setting of the server's port."""

    def __init__(self, rooms: dict[str, Room]) -> None:
        self._rooms = rooms
        self._taken: dict[str, Counter[tuple[int, str]]] = {key: Counter() for key in rooms}
        self._groups: dict[str, Counter[str]] = {key: Counter() for key in rooms}

    def taken(self, key: str) -> int:
        return self._taken[key].total()

    def take(self, worker: int, key: str, group: str) -> str:
        """Why there is no place, in the words of the metric; empty: it is taken."""
        room, groups = self._rooms[key], self._groups[key]
        if groups.total() >= room.clients:
            return "connections"
        if 0 < room.per_group <= groups[group]:
            return "connections_per_ip"
        groups[group] += 1
        self._taken[key][worker, group] += 1
        return ""

    def leave(self, worker: int, key: str, group: str) -> None:
        if self._taken[key][worker, group] > 0:
            self._free(worker, key, group, 1)

    def forget(self, worker: int) -> None:
        """The worker is gone, and its clients with it."""
        for key, taken in self._taken.items():
            for (number, group), held in list(taken.items()):
                if number == worker:
                    self._free(worker, key, group, held)

    def _free(self, worker: int, key: str, group: str, held: int) -> None:
        taken, groups = self._taken[key], self._groups[key]
        taken[worker, group] -= held
        groups[group] -= held
        if not taken[worker, group]:
            del taken[worker, group]
        if not groups[group]:
            del groups[group]
