# SPDX-License-Identifier: Apache-2.0
"""The registry client: the OCI distribution spec and docker's registry API."""
