# SPDX-License-Identifier: Apache-2.0
"""scripts/lib/pip_conf.py: what of this machine's pip configuration goes into an image."""

from __future__ import annotations

import configparser
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parent.parent.parent / "scripts/lib/pip_conf.py"


def image_conf(home: Path, **environ: str) -> dict[str, str]:
    """What the script prints with only these variables set and this home directory, parsed."""
    done = subprocess.run(
        [sys.executable, "-I", SCRIPT], env={"HOME": str(home), **environ}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    parser = configparser.RawConfigParser()
    parser.read_string(done.stdout)
    return dict(parser.items("global"))


def test_index_and_trust_go_in(tmp_path: Path) -> None:
    """The addresses of indexes, and how to reach them, are the same inside."""
    (tmp_path / ".config/pip").mkdir(parents=True)
    (tmp_path / ".config/pip/pip.conf").write_text(
        "[global]\nindex-url = https://index.example/simple\ntrusted-host = index.example\nproxy = http://proxy.example:3128\n"
    )
    conf = image_conf(tmp_path)
    assert conf["index-url"] == "https://index.example/simple"
    assert conf["trusted-host"] == "index.example"
    assert conf["proxy"] == "http://proxy.example:3128"


def test_a_variable_beats_a_file_and_install_beats_global(tmp_path: Path) -> None:
    """The order is pip's own: files, then PIP_* variables; [install] after [global]; _ and - are one."""
    (tmp_path / ".pip").mkdir()
    (tmp_path / ".pip/pip.conf").write_text(
        "[global]\nindex-url = https://one.example/\nretries = 3\n[install]\nindex_url = https://two.example/\n"
    )
    assert image_conf(tmp_path)["index-url"] == "https://two.example/"
    assert image_conf(tmp_path, PIP_INDEX_URL="https://three.example/")["index-url"] == "https://three.example/"
    assert image_conf(tmp_path, PIP_DEFAULT_TIMEOUT="77")["timeout"] == "77"


def test_folders_of_this_machine_stay_out(tmp_path: Path) -> None:
    """A file: index or a wheel folder would be a broken address inside; what is left of a list stays in order."""
    conf = image_conf(
        tmp_path,
        PIP_FIND_LINKS="/srv/wheels",
        PIP_EXTRA_INDEX_URL="file:///srv/simple https://a.example/ https://b.example/",
    )
    assert "find-links" not in conf
    assert conf["extra-index-url"] == "https://a.example/ https://b.example/"


def test_what_pip_does_here_is_not_what_it_does_there(tmp_path: Path) -> None:
    """Where to install, the authorities' file, and the like are this machine's own affair."""
    conf = image_conf(tmp_path, PIP_TARGET="/somewhere", PIP_USER="1", PIP_CERT="/root/private.pem")
    assert not {"target", "user"} & set(conf)
    assert conf.get("cert") != "/root/private.pem"
