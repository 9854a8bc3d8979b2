"""What a server's configuration lacks for what we promise, by its INFO (Redis 7.0 and Valkey 8,
https://valkey.io/commands/info/, of 2026-11).  INFO, and not CONFIG, which hosters take away."""

_NEEDED = (7, 0)


def problems_of(version: str, info: str) -> list[str]:
    """``info``: its sections persistence, memory, replication.  A line each, with what to do."""
    said = dict(line.split(":", 1) for line in info.splitlines() if ":" in line)
    found = []
    if _numbers(version) < _NEEDED:
        found.append(f"its version is {version}: Valkey or Redis 7.0 or newer is needed")
    if said.get("role") != "master":
        found.append("it is a replica: name the primary, or its sentinels")
    if said.get("aof_enabled") != "1":
        found.append("it forgets all when it is restarted: set appendonly yes")
    if (policy := said.get("maxmemory_policy", "")) != "noeviction":
        found.append(
            f"it drops keys when it is full: set maxmemory-policy noeviction, not {policy}"
        )
    if said.get("connected_slaves", "0") != "0" and "min_slaves_good_slaves" not in said:
        found.append("it takes writes that no replica has: set min-replicas-to-write 1")
    return found


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
