# SPDX-License-Identifier: Apache-2.0
"""Image references: the grammar and normalisation of distribution/reference."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pyrun.rootfs import refs
from pyrun.runtime.errors import UsageError

HEX = "0123456789abcdef" * 4
DIGEST = f"sha256:{HEX}"


@pytest.mark.parametrize(
    ("text", "full", "familiar"),
    [
        ("flask-app", "docker.io/library/flask-app:latest", "flask-app:latest"),
        ("flask-app:1.0", "docker.io/library/flask-app:1.0", "flask-app:1.0"),
        ("user/app", "docker.io/user/app:latest", "user/app:latest"),
        ("library/app", "docker.io/library/app:latest", "app:latest"),
        ("docker.io/app", "docker.io/library/app:latest", "app:latest"),
        ("index.docker.io/app", "docker.io/library/app:latest", "app:latest"),
        ("docker.io/user/app", "docker.io/user/app:latest", "user/app:latest"),
        ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
        ("localhost:5000/app", "localhost:5000/app:latest", "localhost:5000/app:latest"),
        ("localhost:5000/app:v1", "localhost:5000/app:v1", "localhost:5000/app:v1"),
        ("ghcr.io/a/b/c:x", "ghcr.io/a/b/c:x", "ghcr.io/a/b/c:x"),
        ("UPPER/app", "UPPER/app:latest", "UPPER/app:latest"),
        ("[::1]:5000/app", "[::1]:5000/app:latest", "[::1]:5000/app:latest"),
        (f"app@{DIGEST}", f"docker.io/library/app@{DIGEST}", f"app@{DIGEST}"),
        (f"app:1@{DIGEST}", f"docker.io/library/app:1@{DIGEST}", f"app:1@{DIGEST}"),
        ("a.b", "docker.io/library/a.b:latest", "a.b:latest"),
        ("a__b", "docker.io/library/a__b:latest", "a__b:latest"),
        ("a---b", "docker.io/library/a---b:latest", "a---b:latest"),
        ("app:_x", "docker.io/library/app:_x", "app:_x"),
    ],
)
def test_a_name_is_filled_in_and_shortened_again(text: str, full: str, familiar: str) -> None:
    """Domain, library/ and latest are added as docker adds them, and left out again for people."""
    found = refs.normalise(text)
    assert str(found) == full
    assert found.familiar == familiar
    assert refs.familiar(full) == familiar


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty"),
        ("App", "lower case"),
        ("Bad:ref:x", "component"),
        ("a b", "component"),
        ("a/../b", "component"),
        ("/a", "registry name|component"),
        ("a/", "component"),
        ("a//b", "component"),
        ("-a", "component"),
        ("a-", "component"),
        ("a___b", "component"),
        ("a..b", "component"),
        ("a._b", "component"),
        ("app:", "tag"),
        ("app:-x", "tag"),
        ("app:a b", "tag"),
        ("app:" + "x" * 129, "tag"),
        ("app@", "digest"),
        ("app@sha256:abc", "digest"),
        (f"app@md5:{HEX}", "digest"),
        (f"app@{DIGEST.upper()}", "digest"),
        (HEX, "image id"),
        ("-reg.io/app", "registry name"),
        ("reg.io:port/app", "registry name"),
        ("café", "component"),
        ("app\n", "component"),
        ("a" * 256, "longer"),
        ("app:١", "tag"),
    ],
)
def test_a_bad_name_says_what_is_wrong(text: str, why: str) -> None:
    """Nothing that the registry protocol could not carry gets through."""
    with pytest.raises(UsageError, match=why):
        refs.normalise(text)


def test_capital_letters_are_corrected_in_the_hint() -> None:
    """The commonest mistake comes with the right spelling."""
    with pytest.raises(UsageError) as caught:
        refs.normalise("Flask-App:V1")
    assert "flask-app" in caught.value.hint


def test_ids_and_their_beginnings() -> None:
    """Hex digits, with or without sha256:, at most 64."""
    assert refs.id_prefix("abc") == "abc"
    assert refs.id_prefix(DIGEST) == HEX
    assert refs.id_prefix("xyz") == ""
    assert refs.id_prefix(HEX + "0") == ""
    assert refs.id_prefix("ABC") == ""
    assert refs.short_id(DIGEST) == HEX[:12]


COMPONENT = st.from_regex(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+){0,2}", fullmatch=True).filter(lambda s: len(s) < 40)
TAG = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True)


@given(
    domain=st.sampled_from(["", "localhost/", "reg.example:5000/", "Reg/", "127.0.0.1/"]),
    path=st.lists(COMPONENT, min_size=1, max_size=3),
    tag=st.one_of(st.just(""), TAG),
    digest=st.sampled_from(["", "@" + DIGEST]),
)
def test_every_valid_name_survives_normalising_twice(domain: str, path: list[str], tag: str, digest: str) -> None:
    """normalise(str(normalise(x))) == normalise(x), and the familiar form means the same."""
    assume(domain or len(path) == 1 or "." not in path[0])  # with a dot it is a registry's name, of another grammar
    text = domain + "/".join(path) + (f":{tag}" if tag else "") + digest
    if refs.is_hex_id(text) or refs.is_hex_id(text.partition(":")[0]):
        return
    found = refs.normalise(text)
    assert refs.normalise(str(found)) == found
    assert refs.normalise(found.familiar) == found


@given(st.text(max_size=60))
def test_any_text_is_a_reference_or_a_usage_error(text: str) -> None:
    """No input raises anything else."""
    try:
        found = refs.normalise(text)
    except UsageError:
        return
    assert str(found).isascii()
    assert ".." not in str(found)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("App", "write 'app'"),
        ("App:V1", "write 'app:V1'"),
        ("reg.io/Team/App:V1", "write 'reg.io/team/app:V1'"),
        ("library/App", "write 'library/app'"),
    ],
)
def test_what_lower_case_would_mend_is_written_out(text: str, hint: str) -> None:
    """The hint is a reference, and differs only where it must: tags and registries may have capitals."""
    with pytest.raises(UsageError) as caught:
        refs.parse(text)
    assert caught.value.hint == hint
    refs.parse(hint.split("'")[1])


@pytest.mark.parametrize("text", ["Bad:ref:x", "A b", "App/../x"])
def test_no_lower_case_is_advised_where_it_does_not_help(text: str) -> None:
    """What is no reference in lower case either has something else wrong with it."""
    with pytest.raises(UsageError) as caught:
        refs.parse(text)
    assert "write '" not in caught.value.hint
