# SPDX-License-Identifier: Apache-2.0
"""Which module holds which command, and whether the warm monitor runs it. Read on every start: no imports here.

A warm command needs the network, the images or a container's parent: a fork of the monitor, which has everything
imported, runs it faster than a fresh interpreter could load the modules. A cold one runs in the caller's process.
"""

from __future__ import annotations

WARM, COLD = True, False

# command -> (module in runtime/cli, name of its Command in there, where it runs)
COMMANDS = {
    "run": ("run", "RUN", WARM),
    "create": ("run", "CREATE", WARM),
    "start": ("start", "START", WARM),
    "stop": ("stop", "STOP", WARM),
    "restart": ("stop", "RESTART", WARM),
    "kill": ("stop", "KILL", WARM),
    "rm": ("rm", "RM", WARM),
    "container prune": ("rm", "PRUNE", WARM),
    "exec": ("exec", "EXEC", WARM),
    "attach": ("attach", "ATTACH", WARM),
    "pause": ("pause", "PAUSE", WARM),
    "unpause": ("pause", "UNPAUSE", WARM),
    "wait": ("wait", "WAIT", COLD),
    "ps": ("ps", "PS", COLD),
    "logs": ("logs", "LOGS", COLD),
    "inspect": ("inspect", "INSPECT", COLD),
    "container inspect": ("inspect", "CONTAINER_INSPECT", COLD),
    "top": ("top", "TOP", COLD),
    "stats": ("stats", "STATS", COLD),
    "port": ("port", "PORT", COLD),
    "rename": ("rename", "RENAME", COLD),
    "cp": ("cp", "CP", COLD),
    "commit": ("commit", "COMMIT", COLD),
    "diff": ("diff", "DIFF", COLD),
    "export": ("export", "EXPORT", COLD),
    "build": ("build", "BUILD", WARM),
    "images": ("images", "IMAGES", COLD),
    "image inspect": ("inspect", "IMAGE_INSPECT", COLD),
    "image diff": ("diff", "IMAGE_DIFF", COLD),
    "image mount": ("image_mount", "MOUNT", COLD),
    "image tree": ("image_tree", "TREE", COLD),
    "image prune": ("image_prune", "PRUNE", COLD),
    "rmi": ("rmi", "RMI", COLD),
    "tag": ("tag", "TAG", COLD),
    "pull": ("pull", "PULL", COLD),
    "push": ("push", "PUSH", COLD),
    "login": ("login", "LOGIN", COLD),
    "logout": ("logout", "LOGOUT", COLD),
    "search": ("search", "SEARCH", COLD),
    "manifest create": ("manifest", "CREATE", COLD),
    "manifest annotate": ("manifest", "ANNOTATE", COLD),
    "manifest inspect": ("manifest", "INSPECT", COLD),
    "manifest push": ("manifest", "PUSH", COLD),
    "manifest rm": ("manifest", "RM", COLD),
    "load": ("load", "LOAD", COLD),
    "save": ("save", "SAVE", COLD),
    "import": ("import_", "IMPORT", COLD),
    "history": ("history", "HISTORY", COLD),
    "volume ls": ("volume", "LS", COLD),
    "volume create": ("volume", "CREATE", COLD),
    "volume rm": ("volume", "RM", COLD),
    "volume inspect": ("volume", "INSPECT", COLD),
    "volume prune": ("volume", "PRUNE", COLD),
    "network ls": ("network", "LS", COLD),
    "network inspect": ("network", "INSPECT", COLD),
    "system df": ("system_df", "DF", COLD),
    "system prune": ("system_prune", "PRUNE", WARM),
    "version": ("version", "VERSION", COLD),
    "info": ("info", "INFO", COLD),
    "help": ("help", "HELP", COLD),
}

# docker's management commands, and the ones above that they stand for
GROUPS = {
    "container": {
        **{
            name: name
            for name in ("run", "create", "start", "stop", "restart", "kill", "rm", "exec", "attach", "pause")
        },
        **{name: name for name in ("unpause", "wait", "logs", "top", "stats", "port", "rename", "cp", "commit")},
        "diff": "diff",
        "export": "export",
        "ls": "ps",
        "list": "ps",
        "ps": "ps",
        "remove": "rm",
        "inspect": "container inspect",
        "prune": "container prune",
    },
    "image": {
        "build": "build",
        "ls": "images",
        "list": "images",
        "rm": "rmi",
        "remove": "rmi",
        "tag": "tag",
        "pull": "pull",
        "push": "push",
        "load": "load",
        "save": "save",
        "import": "import",
        "history": "history",
        "diff": "image diff",
        "mount": "image mount",
        "tree": "image tree",
        "inspect": "image inspect",
        "prune": "image prune",
    },
    "manifest": {name: f"manifest {name}" for name in ("create", "annotate", "inspect", "push", "rm")},
    "volume": {
        **{name: f"volume {name}" for name in ("ls", "create", "rm", "inspect", "prune")},
        "list": "volume ls",
        "remove": "volume rm",
    },
    "builder": {"build": "build"},
    "buildx": {"build": "build"},
    "network": {"ls": "network ls", "list": "network ls", "inspect": "network inspect"},
    "system": {"info": "info", "df": "system df", "prune": "system prune"},
}
