# SPDX-License-Identifier: Apache-2.0
"""What an image says or a container leaves in its file system must not keep it from being stopped or removed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from requires import requires

if TYPE_CHECKING:
    from cli import Pyrun

pytestmark = requires(root=True)

DEEP = "i=0; while [ $i -lt 300 ]; do mkdir d && cd d; i=$((i+1)); done"


def test_names_that_are_in_the_way_of_removing_deep_directories(pyrun: Pyrun, base_image: str) -> None:
    """Deep directories are moved up before they are removed; a container that knows how can take the places."""
    script = (
        "for top in a b c z; do mkdir /$top; "
        "for i in 1 2 3 4 5 6 7 8; do mkdir -p /.pyrun-deep-$i/x; done; "
        f"(cd /$top; {DEEP}); done"
    )
    pyrun.ok("run", "--name", "deep", base_image, "sh", "-c", script)
    container = pyrun.ok("inspect", "--format", "{{.Id}}", "deep")
    pyrun.ok("rm", "deep")
    assert not Path(pyrun.paths.container(container)).exists()


@pytest.mark.parametrize("signal", ["SIGNONE; rm", "9" * 5000, "RTMIN+" + "9" * 5000, "0", "SIGRTMIN+99"])
def test_a_stop_signal_that_there_is_not(pyrun: Pyrun, busybox_tar: str, signal: str) -> None:
    """An image's STOPSIGNAL is not looked at until somebody wants to stop the container."""
    made = pyrun("import", "--change", f"STOPSIGNAL {signal}", "--change", 'CMD ["sleep", "60"]', busybox_tar, "odd")
    if made.rc != 0:
        assert "signal" in made.err.lower(), str(made)
        return
    pyrun.ok("run", "-d", "--name", "odd", "--init", "odd")
    pyrun.ok("stop", "odd")
    pyrun.ok("rm", "odd")
