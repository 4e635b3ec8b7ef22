# SPDX-License-Identifier: GPL-2.0-only
"""A gRPC client for the tests: one channel, and calls of /guest.Guest/Ask as it is told on its standard input.

    in:  ["unary_stream", ["/stream?chunks=3"]]            a call; the next one may begin before it ends
    out: ["/stream?chunks=3", "OK", [1, 1, 1]]             its first message, how it ended, lengths of the answers
"""

import json
import sys
import threading

import grpc

PRINTING = threading.Lock()


def call(method, kind, messages):
    asked = [message.encode() for message in messages]
    lengths, status = [], "OK"
    try:
        answers = method(iter(asked) if kind.startswith("stream") else asked[0], timeout=60)
        lengths = [len(answer) for answer in ([answers] if kind.endswith("unary") else answers)]
    except grpc.RpcError as error:
        status = f"{error.code().name}: {error.details()}"
    with PRINTING:
        print(json.dumps([messages[0], status, lengths]), flush=True)


def main():
    with grpc.insecure_channel(sys.argv[1]) as channel:
        threads = []
        for line in sys.stdin:
            kind, messages = json.loads(line)
            method = getattr(channel, kind)("/guest.Guest/Ask", request_serializer=bytes, response_deserializer=bytes)
            threads.append(threading.Thread(target=call, args=(method, kind, messages)))
            threads[-1].start()
        for thread in threads:
            thread.join()


if __name__ == "__main__":
    main()
