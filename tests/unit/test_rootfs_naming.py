# SPDX-License-Identifier: Apache-2.0
"""Names of images: what is advised for one that is not here."""

from __future__ import annotations

from pyrun.rootfs import media, naming


def test_a_name_under_a_registry_is_near() -> None:
    """nodeapp was pushed, and is here under its registry's name only."""
    here = [{"digest": "sha256:0", "annotations": {media.REF_NAME: "localhost:5871/team/nodeapp:1.0"}}]
    for text in ("nodeapp", "nodeapp:2"):
        assert naming.no_such_image(text, here).hint == "did you mean localhost:5871/team/nodeapp:1.0?"
    assert "did you mean" not in naming.no_such_image("other/nodeapp", here).hint
