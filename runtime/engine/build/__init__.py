# SPDX-License-Identifier: Apache-2.0
"""Building images: stages, cache, RUN in containers, results."""
