# SPDX-License-Identifier: Apache-2.0
"""Platforms in a Dockerfile: FROM --platform, --platform of a build, and the arguments that are there by themselves.

Parsing is the registry's (registry/manifests.py); here the variants that are an architecture's default are left out or
filled in, as containerd/platforms does: linux/arm64/v8 is linux/arm64, linux/arm is linux/arm/v7.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.rootfs.registry.manifests import Platform

# Arguments that a build takes without an ARG instruction, and that go into no cache key and no history.
PROXIES = (
    "HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "FTP_PROXY", "ftp_proxy", "NO_PROXY", "no_proxy",
    "ALL_PROXY", "all_proxy",
)  # fmt: skip
# Arguments that are known before FROM, and after it when an ARG names them.
AUTOMATIC = tuple(
    f"{side}{part}" for side in ("BUILD", "TARGET") for part in ("PLATFORM", "OS", "OSVERSION", "ARCH", "VARIANT")
)
PREDEFINED = (*AUTOMATIC, "TARGETSTAGE")
_NORMAL = {
    ("amd64", "v1"): "",
    ("arm64", "v8"): "",
    ("arm64", "8"): "",
    ("arm", ""): "v7",
    **{("arm", version): f"v{version}" for version in "5678"},
}


def parse(text: str) -> Platform:
    """The platform in `text`, such as linux/arm64/v8 or amd64. Raises UsageError."""
    from pyrun.rootfs.registry.manifests import parse_platform  # hashlib: only who has a platform to parse pays

    return normal(parse_platform(text))


def host() -> Platform:
    """The platform of this machine."""
    from pyrun.rootfs.registry.manifests import host_platform

    return normal(host_platform())


def normal(platform: Platform) -> Platform:
    """The same platform with the variant as it is usually written."""
    variant = _NORMAL.get((platform.architecture, platform.variant))
    return platform if variant is None else platform.replace(variant=variant)


def same(one: Platform, other: Platform) -> bool:
    """Whether the two are one platform, however it is written."""
    return normal(one) == normal(other)


def arguments(build: Platform, target: Platform, stage: str = "") -> dict[str, str]:
    """The predefined arguments: BUILDPLATFORM … TARGETVARIANT, and TARGETSTAGE, the stage that is built."""
    values: dict[str, str] = {}
    for side, platform in (("BUILD", build), ("TARGET", target)):
        values |= {
            f"{side}PLATFORM": str(platform),
            f"{side}OS": platform.os,
            f"{side}OSVERSION": "",
            f"{side}ARCH": platform.architecture,
            f"{side}VARIANT": platform.variant,
        }
    return {**values, "TARGETSTAGE": stage or "default"}
