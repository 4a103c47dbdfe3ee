# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# The virtual environment that scripts/check and scripts/test share. Sourced, after packages.sh and python.sh.
#
# It holds an editable install of the checkout (so the C parts are built in place) with the tools of the [dev] extra. It is
# not the one of scripts/setup: tests never touch an installed pyrun. One per checkout, in $PYRUN_DEV_DIR, else
# /opt/pyrun-dev, or for an ordinary user ~/.cache/pyrun-dev.

# dev_venv CHECKOUT: makes or renews the environment, and sets $venv.
dev_venv() {
  local checkout=$1 python base=/opt/pyrun-dev stamp
  need_packages "${PYRUN_PACKAGES[@]}"
  python=$(system_python)
  clean_python_environment
  ((EUID == 0)) || base=${XDG_CACHE_HOME:-$HOME/.cache}/pyrun-dev
  base=${PYRUN_DEV_DIR:-$base}
  venv=$base/$(basename "$checkout")-$(printf %s "$checkout" | sha256sum | cut -c1-8)
  mkdir -p "$base"
  exec 9>"$base/.lock"
  flock 9
  stamp=$(dev_stamp "$checkout" "$python")
  if [[ $(cat "$venv/.stamp" 2>/dev/null) != "$stamp" ]]; then
    say "making the development environment $venv"
    [[ -x $venv/bin/python ]] || "$python" -I -m venv "$venv"
    rm -f "$venv/.stamp"
    "$venv/bin/python" -I -m pip install --quiet --progress-bar off --use-pep517 --editable "${checkout}[dev]" >&2 ||
      die "pip could not install the checkout and its tools; its messages are above"
    dev_stamp "$checkout" "$python" >"$venv/.stamp" # anew: the build has just put its products there
  fi
  link_layout "$checkout" "$venv/layout"
  exec 9>&-
}

# dev_stamp CHECKOUT PYTHON: changes when the interpreter, the requirements, a C source or a package's folder does.
dev_stamp() {
  (
    cd "$1" || exit
    "$2" -I --version
    sha256sum pyproject.toml
    # What the build makes may be gone (git clean): then it has to be made again.
    find runtime/kernel \( -name '*.c' -o -name '*.h' -o -name '*build.py' -o -name '*_cdef.py' \) ! -name '_*.c' -print0 |
      LC_ALL=C sort -z | xargs -0r sha256sum
    find runtime/kernel -maxdepth 1 \( -name '*.so' -o -name pyrun-init -o -name pyrun-keeper \) | LC_ALL=C sort
  ) | sha256sum | cut -d' ' -f1
}

# link_layout CHECKOUT TARGET: the package as it is installed, in links, for mypy, which knows nothing of package-dir.
link_layout() {
  local part
  mkdir -p "$2/pyrun"
  for part in runtime cgroups netns rootfs; do
    ln -sfn "$1/$part" "$2/pyrun/$part"
  done
}
