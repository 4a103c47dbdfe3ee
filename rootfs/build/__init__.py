# SPDX-License-Identifier: Apache-2.0
"""Building images: the Dockerfile language, build contexts, copying."""
