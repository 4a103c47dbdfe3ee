# SPDX-License-Identifier: Apache-2.0
"""pyrun: a Linux container runtime whose start is a plan that can be read.

cli -> engine -> oci -> {cgroups, netns, rootfs} -> runtime.kernel; see docs/architecture.md.
The leaf modules in this folder (errors, record, paths, files, events) import only the standard library.
"""

__version__ = "0.1.0"
