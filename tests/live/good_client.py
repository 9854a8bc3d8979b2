"""A well-behaved client in a process of its own: how long an answer takes it, and what it was told.

``python good_client.py URL``: subscribes, then asks 40 times a second until its stdin ends, and
prints one JSON object: ``asked`` (pairs of time.monotonic() and seconds until the answer) and
``offsets`` of the updates in between.
"""

import json
import select
import sys
import time

import websockets.sync.client

EVERY_S = 0.025


def main(url: str) -> None:
    asked: list[tuple[float, float]] = []
    offsets: list[int] = []
    with websockets.sync.client.connect(url, open_timeout=20, compression=None) as client:
        client.send(json.dumps({"type": "subscribe", "symbol": "BTCUSDT", "interval": "1m"}))
        while not select.select([sys.stdin], [], [], EVERY_S)[0]:
            began = time.monotonic()
            client.send(json.dumps({"type": "ping", "id": len(asked)}))
            while True:
                message = json.loads(client.recv(timeout=20))
                if message["type"] == "kline_data":
                    offsets.append(message["data"]["offset"])
                if message["type"] == "pong" and message["id"] == len(asked):
                    break
            asked.append((began, time.monotonic() - began))
    print(json.dumps({"asked": asked, "offsets": offsets}))


if __name__ == "__main__":
    main(sys.argv[1])
