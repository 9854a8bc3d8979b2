"""Our data in the forms of exchanges and charts: a bot changes one URL and speaks on as before.

A dialect is a table of endpoints and streams plus encoders; sessions, limits, the ladder for slow
clients, admission and the encode-once fan-out are the push side's (:mod:`trio_feed.push.mounts`).
Nothing here is shared with the simulator, whose encoders judge these, or knows of ingest.
"""
