# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# The system's Python, without anything from the caller's environment that would change what it does. Sourced.

# The system's interpreter, never the first one on PATH: that may be pyenv's, conda's or a virtual environment's. Its real
# name (python3.11): an installation is for one minor version, and should say so instead of half working with the next.
system_python() {
  readlink -e /usr/bin/python3 || die "/usr/bin/python3 is missing"
}

# clean_python_environment: pip goes on seeing its own configuration (pip.conf, PIP_INDEX_URL, proxies …), but nothing
# that would put packages elsewhere, load other modules, or leave no bytecode behind.
clean_python_environment() {
  local name
  for name in "${!PYTHON@}" PIP_USER PIP_TARGET PIP_PREFIX PIP_ROOT PIP_REQUIRE_VIRTUALENV PIP_NO_COMPILE VIRTUAL_ENV; do
    unset "$name"
  done
  # pip brings its own list of authorities. Where nobody told it otherwise it should trust those that the machine trusts.
  local bundle=/etc/ssl/certs/ca-certificates.crt
  if [[ -z ${PIP_CERT:-}${REQUESTS_CA_BUNDLE:-}${CURL_CA_BUNDLE:-} && -r $bundle ]] && ! pip_has cert; then
    export PIP_CERT=$bundle
  fi
  export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore
}

# pip_has KEY: whether one of pip's configuration files sets it. Looks at the files: pip may not be there yet.
pip_has() {
  grep -Eqs "^[[:space:]]*$1[[:space:]]*=" /etc/pip.conf /etc/xdg/pip/pip.conf "${PIP_CONFIG_FILE:-/dev/null}" \
    "${HOME:-/root}/.config/pip/pip.conf" "${HOME:-/root}/.pip/pip.conf"
}
