# SPDX-License-Identifier: Apache-2.0
"""Other tools' forward chains that would stop containers: docker's policy DROP, ufw's, firewalld's final reject.

A packet must be accepted by every base chain on the forward hook, so rules in our own table cannot help. Two accept
rules for the bridge are appended to such a chain (before a final reject or drop, if it ends in one), so that
whatever its owner has decided before still counts. They are marked with a comment, checked by every start, and
removed by close(). Returned notes say which chain was opened; <run>/forward.json remembers what was looked at.
"""

from __future__ import annotations

import os
import subprocess

from pyrun.netns import nfnetlink
from pyrun.runtime.events import step
from pyrun.runtime.files import private_dir, read_json, write_json
from pyrun.runtime.kernel import nftables

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrun.netns.nfnetlink import BaseChain
    from pyrun.runtime.paths import Paths

MARK = "pyrun: "  # the comments of our rules: this and the bridge
LEGACY_TABLES = "/proc/net/ip_tables_names"  # the tables of the old iptables in this network namespace
LEGACY_COMMANDS = ("/usr/sbin/iptables-legacy", "/sbin/iptables-legacy", "/usr/sbin/iptables", "/sbin/iptables")


def ensure_open(paths: Paths, bridge: str) -> tuple[str, ...]:
    """Opens every forward chain that would stop the bridge's traffic and is not open yet; one note for each.

    Raises OSError when a chain cannot be read or changed.
    """
    before = _remembered(paths)
    looks = {look.key: look for look in map(_Look, forward_chains())}
    stops = {key: before[key] if key in before else _would_stop(look.chain) for key, look in looks.items()}
    notes = [_opened(look.chain, bridge) for key, look in looks.items() if stops[key] and not look.is_open(bridge)]
    stops["legacy"] = True
    if stops != before:
        notes += _open_legacy(bridge)
        private_dir(paths.run)
        write_json(f"{paths.run}/forward.json", stops, sync=False)
    return tuple(notes)


def all_open(paths: Paths, bridge: str) -> bool:
    """Whether ensure_open() would find nothing to do, iptables-legacy aside. Only reads. Raises OSError."""
    before = _remembered(paths)
    looks = list(map(_Look, forward_chains()))
    return all(before.get(look.key) is False or (look.key in before and look.is_open(bridge)) for look in looks)


class _Look:
    """A chain as it is now. `key` is another when its policy or the number of its rules (ours apart) is another."""

    def __init__(self, chain: BaseChain) -> None:
        self.chain = chain
        self._rules = nfnetlink.rules(chain.family, chain.table, chain.name)
        others = sum(MARK.encode() not in rule for rule in self._rules)
        self.key = f"{chain} handle {chain.handle} policy {chain.policy} rules {others}"

    def is_open(self, bridge: str) -> bool:
        text = _comment(bridge).encode() + b"\0"
        return any(text in rule for rule in self._rules)


def forward_chains() -> list[BaseChain]:
    """The forward chains that are not pyrun's, this instance's or another's."""
    return [chain for chain in nfnetlink.forward_chains() if not chain.table.startswith("pyrun")]


def close(paths: Paths) -> None:
    """Removes our rules from other tools' chains, those for all bridges of this instance. Raises OSError."""
    for chain in forward_chains():
        for handle, comment in _marked_rules(chain):
            if is_own(comment.removeprefix(MARK), paths.instance):
                with step("firewall", f"nft delete rule {chain} handle {handle}"):
                    nftables.run(f"delete rule {chain} handle {handle}")
    _close_legacy(paths.instance)
    try:
        os.unlink(f"{paths.run}/forward.json")
    except FileNotFoundError:
        pass


def is_own(bridge: str, instance: str) -> bool:
    """Whether a bridge of this name belongs to the instance: pyrun0 to "", pyrun0-0a1b2c to "0a1b2c"."""
    return bridge.partition("-")[2] == instance


def _comment(bridge: str) -> str:
    return MARK + bridge


def _would_stop(chain: BaseChain) -> bool:
    return chain.policy == "drop" or _final_refusal(chain) is not None


def _final_refusal(chain: BaseChain) -> int | None:
    """The handle of the chain's last rule if that refuses whatever is left, else None."""
    rules = _rules(chain)
    if not rules or "expr" not in rules[-1]:
        return None
    verdicts = [next(iter(statement)) for statement in rules[-1]["expr"]]
    if verdicts and verdicts[-1] in ("drop", "reject") and set(verdicts[:-1]) <= {"counter", "log", "limit"}:
        handle: int = rules[-1]["handle"]
        return handle
    return None


def _rules(chain: BaseChain) -> list[dict[str, Any]]:
    import json  # only when a chain is seen for the first time

    answer = json.loads(nftables.run(f"list chain {chain}", json=True, handles=True))
    return [item["rule"] for item in answer["nftables"] if "rule" in item]


def _marked_rules(chain: BaseChain) -> list[tuple[int, str]]:
    """(handle, comment) of our rules in the chain."""
    if not any(MARK.encode() in rule for rule in nfnetlink.rules(chain.family, chain.table, chain.name)):
        return []
    return [(r["handle"], r["comment"]) for r in _rules(chain) if r.get("comment", "").startswith(MARK)]


def _opened(chain: BaseChain, bridge: str) -> str:
    """Opens the chain; the note about it. That it cannot be done is a note too: the container may do without."""
    try:
        return _open(chain, bridge)
    except nftables.NftError as error:
        return f"the forward chain '{chain}' may stop {bridge}'s traffic and could not be opened: {error}"


def _open(chain: BaseChain, bridge: str) -> str:
    final = _final_refusal(chain)
    where = f"insert rule {chain} position {final}" if final is not None else f"add rule {chain}"
    comment = _comment(bridge)
    commands = "".join(
        f'{where} {side} "{bridge}" counter accept comment "{comment}"\n' for side in ("iifname", "oifname")
    )
    with step("firewall", commands.strip().replace("\n", "; ")):
        nftables.run(commands)
    return f"opened the forward chain '{chain}' for {bridge}: it refuses what it does not know"


# --- iptables-legacy: rules that nftables does not see -----------------------------------------------------------


def _legacy_command() -> str:
    """The program for the old tables, "" when they are not in use in this network namespace."""
    try:
        with open(LEGACY_TABLES, encoding="ascii") as file:
            if "filter" not in file.read().split():
                return ""
    except OSError:
        return ""
    return next((path for path in LEGACY_COMMANDS if os.path.exists(path)), "")


def _legacy(command: str, *args: str) -> str:
    done = subprocess.run([command, "-w", "5", *args], capture_output=True, text=True, timeout=20, check=False)
    return done.stdout if done.returncode == 0 else ""


def _open_legacy(bridge: str) -> list[str]:
    command = _legacy_command()
    rules = _legacy(command, "-S", "FORWARD").splitlines() if command else []
    if "-P FORWARD DROP" not in rules or any(_comment(bridge) in rule for rule in rules):
        return []
    with step("firewall", f"{command} -A FORWARD -i {bridge} -j ACCEPT; … -o {bridge} -j ACCEPT"):
        for side in ("-i", "-o"):
            match = ("-m", "comment", "--comment", _comment(bridge))
            _legacy(command, "-A", "FORWARD", side, bridge, *match, "-j", "ACCEPT")
    return [f"opened the iptables-legacy chain FORWARD for {bridge}: its policy is DROP"]


def _close_legacy(instance: str) -> None:
    command = _legacy_command()
    for rule in _legacy(command, "-S", "FORWARD").splitlines() if command else []:
        words = rule.replace('"', "").split()
        if words[:2] != ["-A", "FORWARD"] or "pyrun:" not in words:
            continue
        bridge = words[words.index("pyrun:") + 1]
        if is_own(bridge, instance):
            at = words.index("pyrun:")
            _legacy(command, "-D", *words[1:at], _comment(bridge), *words[at + 2 :])


def _remembered(paths: Paths) -> dict[str, bool]:
    try:
        found: dict[str, bool] = read_json(f"{paths.run}/forward.json")
        return found
    except (FileNotFoundError, ValueError):
        return {}
