# SPDX-License-Identifier: Apache-2.0
# What a cffi module in API mode has; kernel_cdef.py says what is in `lib`.
from typing import Any

ffi: Any
lib: Any
