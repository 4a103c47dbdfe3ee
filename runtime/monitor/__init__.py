# SPDX-License-Identifier: Apache-2.0
"""The one process behind the containers that pyrun's own commands start; and how to talk to it.

    client.forward(argv, paths) -> int         run a command line in the monitor, relaying stdio and signals
    client.request(paths, {"call": …}, fds)    one call, one JSON value back
    client.attach(paths, id, …) -> int         this process's stdio on a running container
    server.serve(paths, handlers, ready_fd)    the monitor itself; never returns before it is idle
    handlers.Handlers                          what it needs from above (it imports neither cli nor engine)
    worker.WorkerLink                          what code in a worker says to the monitor: adopt, started, attach, …
    logs.LogWriter, logs.read                  the json-file log of a container

Calls that the monitor answers itself, from client.request() and from link.request() alike:

    ping                                  {"pid": …}
    sessions                              [{"id", "kind", "tty", "pid"?, "attached": n, "state": "running"|…}]
    wait {"id"}                           {"code": n} when the session has finished, finisher included; or NotFound
    resize {"id", "rows", "cols"}         null
    signal {"id", "signal": n}            null: by pidfd, so never to another process
    cancel-restart {"id"}                 {"cancelled": bool}
    timer {"key", "after_s", "run", "args"}   null: handlers.call(run, args) later; a timer of the same key is replaced
    cancel-timer {"key"}                  {"cancelled": bool}
    stop-monitor                          null: ends the monitor, containers go on (tests, upgrades)
    attach {"id", "stdin", …}             client.request() only through client.attach()

Every other name goes to handlers.call() in a worker.

The thin client: client, terminal, spawn (starting a monitor). Both sides: protocol, sockets, answers (errors).
The monitor: server, loop (epoll, timers), client_side and task (connections and workers as it sees them), calls (the
table above), channel (a framed connection), session (a running process), inbox (output that survives kill -9), keeper
(the fd store).
Workers: worker (the fork and the link). Logs: logs (writing), logread.
"""
