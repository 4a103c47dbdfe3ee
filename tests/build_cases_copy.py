# SPDX-License-Identifier: Apache-2.0
"""COPY, ADD and .dockerignore: Dockerfiles that are built by pyrun and by BuildKit."""

from __future__ import annotations

import bz2
import gzip
import lzma

from build_cases import Case
from tars import member, tar

TREE = {"f": "file\n", "g": "other\n", "d/a": "a\n", "d/b.txt": "b\n", "d/sub/c": "c\n", "d/empty": None}
TAR = tar(
    member("t", "dir", mode=0o750, uid=3, gid=4),
    member("t/x", data=b"x\n", mode=0o4711, uid=5, gid=6),
    member("t/s", "symlink", linkname="x"),
    member("t/h", "hardlink", linkname="t/x", mode=0o4711, uid=5, gid=6),
    member("t/p", "fifo", mode=0o600),
)
CAPABLE = tar(
    member(
        "ping",
        data=b"x",
        pax_headers={"SCHILY.xattr.security.capability": "\1\0\0\2\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0"},
    )
)
LINKS = {**TREE, "to-f": ("link", "f"), "to-d": ("link", "d"), "d/up": ("link", "../f"), "dead": ("link", "nowhere")}
SCRIPTS = {"run.sh 755": "#!/bin/sh\n", "odd 604": "o", "set 4755": "s", "sticky": None, "dir 700/in 600": "x"}


def copies(name: str, *lines: str, files: object = None, fails: str = "", **more: object) -> Case:
    """A case on busybox."""
    text = "".join(f"{line}\n" for line in ("FROM busybox", *lines))
    return Case(name, text, files=TREE if files is None else files, fails=fails, **more)  # type: ignore[arg-type]


# of BuildKit 0.8, in docker 20.10: what was changed since, or never meant
OLD_TAR = "--chown has its effect on unpacked files too, since BuildKit 0.9"
LOST_BIT = "an octal mode has four digits: BuildKit loses the first one"
NO_FIFO = "FIFOs of a context are sent since"
EMPTY_ABOVE = "a directory that is excluded with all that is in it is not sent since"

CASES = (
    copies("file-to-file", "COPY f /x"),
    copies("file-to-missing-directories", "COPY f /x/y/z"),
    copies("file-into-directory", "COPY f /x/", "COPY f g /y/", "COPY f /etc"),
    copies("file-over-file", "RUN echo old >/x; chmod 600 /x; chown 7:8 /x", "COPY f /x"),
    copies("file-to-relative", "WORKDIR /w", "COPY f x", "COPY f ./y/", "COPY f .", "COPY g ../v/"),
    copies("several-to-what-is-no-directory", "COPY f g /x", fails="ours",
           why="the reference wants a slash; else only one of the two were there"),
    copies("several-to-a-directory", "RUN mkdir /x", "COPY f g /x", "COPY f g .", "WORKDIR /w", "COPY f g ."),
    copies("directory-content", "COPY d /x", "COPY d/ /y/", "COPY d /etc"),
    copies("directory-dot", "COPY . /x", "COPY ./d/. /y", "COPY / /z"),
    copies("directory-with-others", "COPY d f /x/"),
    copies("directory-two", "COPY d d/sub /x/"),
    copies("wildcard-files", "COPY ?  /x/", "COPY d/*.txt /y/", "COPY [fg] /z/", "COPY d/[a-b]* /v/"),
    copies("wildcard-directories", "COPY d* /x/", "COPY d/* /y/", "COPY */sub /z/"),
    copies("wildcard-one-match-to-a-file", "COPY f* /x"),
    copies("wildcard-without-match", "COPY nothing* /x/"),
    copies("wildcard-with-others-without-match", "COPY f nothing* /x/"),
    copies("wildcard-escaped", "COPY a[[]b] /x/", "COPY a\\*c /y/", files={"a[b]": "1", "a*c": "2", "abc": "3"}),
    copies("json-form", 'COPY ["two words", "/a dir/"]', 'ADD ["two words", "x"]', files={"two words": "1"}),
    copies("missing-source", "COPY missing /x", fails="both"),
    copies("missing-with-others", "COPY f missing /x/", fails="both"),
    copies("outside-the-context", "COPY ../../f /x"),
    copies("absolute-source", "COPY /d/sub /x"),
    copies("trailing-slash-of-a-file", "COPY f/ /x"),
    copies("one-argument", "COPY f", fails="both"),
    copies("modes", "COPY . /x/", "COPY run.sh /bin/", "COPY set /bin/", files=SCRIPTS),
    copies("empty-directory", "COPY d/empty /x", "COPY d/empty /y/"),
    copies("names", "COPY . /x/", files={"grün": "1", " b ": "2", "new\nline": "3", "-dash": "4", ".hidden": "5", "a'b\"": "6"}),
    copies("over-the-root", "COPY . /", files={"tmp/x": "1", "etc/y": "2", "bin/z": "3"}),
    copies("the-same-twice", "COPY f f /x/"),
    copies("the-same-name-twice", "COPY f d/f /x/", files={"f": "1", "d/f": "2"}),
    # symbolic links of the context
    copies("link-in-a-directory", "COPY . /x/", files=LINKS),
    copies("link-to-a-file", "COPY to-f /x", "COPY to-f /y/", files=LINKS),
    copies("link-to-a-directory", "COPY to-d /x", "COPY to-d /y/", files=LINKS),
    copies("link-on-the-way", "COPY to-d/a /x", files=LINKS),
    copies("link-after-a-link", "COPY to-d/up /y", files=LINKS),
    copies("link-by-wildcard", "COPY to-* /x/", "COPY d/u* /y/", files=LINKS),
    copies("link-dangling", "COPY dead /x", files=LINKS, fails="both"),
    copies("link-dangling-by-wildcard", "COPY dea* /x/", files=LINKS, fails="both"),
    copies("link-out-of-the-context", "COPY out /x", files={"out": ("link", "../../../../../etc/passwd")}, fails="both"),
    copies("hard-links", "COPY . /x/", files={"one": "1", "two": ("hard", "one")}),
    copies("fifo", "COPY . /x/", files={"p 600": ("fifo", "")}, differs={"file x/p": NO_FIFO, "layer 1": NO_FIFO}),
    # symbolic links and other things in the image
    copies("into-a-linked-directory", "RUN mkdir -p /a/b && ln -s /a/b /l && ln -s a /m", "COPY f /l/", "COPY d /m/b/"),
    copies("to-a-link-to-a-directory", "RUN mkdir /a && ln -s /a /l", "COPY f /l"),
    copies("directory-to-a-link", "RUN mkdir /a && ln -s a /l", "COPY d /l"),
    copies("over-a-link-to-a-file", "RUN echo t >/t && ln -s t /l", "COPY f /l"),
    copies("over-a-dangling-link", "RUN ln -s /n /l", "COPY f /l"),
    copies("into-a-dangling-link", "RUN ln -s /n /l", "COPY f /l/"),
    copies("below-a-dangling-link", "RUN ln -s /n/m /l", "COPY f /l/x/y"),
    copies("link-out-of-the-image", "RUN mkdir /a && ln -s ../../../a /a/l", "COPY f /a/l/"),
    copies("link-over-a-file", "RUN mkdir /x && echo 1 >/x/to-f", "COPY . /x/", files=LINKS),
    copies("link-over-a-directory", "RUN mkdir -p /x/to-d", "COPY . /x/", files=LINKS, fails="both"),
    copies("directory-over-a-link-within", "RUN mkdir /x /v && ln -s /v /x/sub", "COPY d /x/", fails="both"),
    copies("file-over-a-link-within", "RUN mkdir /x && echo v >/v && ln -s /v /x/a", "COPY d /x/"),
    copies("file-over-a-directory-within", "RUN mkdir -p /x/a/in", "COPY d /x/", fails="both"),
    copies("directory-over-a-file-within", "RUN mkdir /x && echo 1 >/x/sub", "COPY d /x/", fails="both"),
    copies("directory-to-a-file", "RUN echo 1 >/x", "COPY d /x", fails="both"),
    copies("below-a-file", "RUN echo 1 >/x", "COPY f /x/y", fails="both"),
    copies("file-to-a-directory-without-slash", "RUN mkdir /x", "COPY f /x"),
    copies("directories-keep-their-modes", "RUN mkdir -m 700 -p /x/sub && chown 9:9 /x /x/sub", "COPY d /x"),
    # owners and modes
    copies("chown-numbers", "COPY --chown=12:34 d /x/y", "COPY --chown=12 f /", "ADD --chown=0:7 g /"),
    copies(
        "chown-names", "RUN echo 'me:x:12:13::/:/bin/sh' >>/etc/passwd && echo 'us:x:14:' >>/etc/group",
        "COPY --chown=me f /1", "COPY --chown=me:us f /2", "COPY --chown=12:us f /3", "COPY --chown=daemon:users d /d",
        "COPY --chown=me:99 f /4",
    ),
    copies("chown-unknown-user", "COPY --chown=nobody-here f /x", fails="ours", why="BuildKit takes root in silence"),
    copies("chown-unknown-group", "COPY --chown=0:nobody-here f /x", fails="ours", why="BuildKit takes root in silence"),
    copies("chown-with-variables", "ARG U=5", "ENV G=6", "COPY --chown=$U:${G} f /x"),
    copies("chown-ignores-user", "USER 44", "COPY f /x/y", "ADD d /z"),
    copies("chown-into-what-is-there", "RUN mkdir -p /x/sub", "COPY --chown=5:5 d /x"),
    copies("chmod", "COPY --chmod=640 f /x", "ADD --chmod=711 g /z"),
    copies("chmod-setuid", "COPY --chmod=4711 f /x", differs={"file x": LOST_BIT}),
    copies("chmod-directory", "COPY --chmod=0751 d /y/", differs={"file y": "made with the mode since"}),
    copies("chmod-nonsense", "COPY --chmod=nonsense f /x", fails="ours", why="0.8 ignored it, later ones refuse it"),
    copies("unknown-flag", "COPY --nonsense=1 f /x", fails="both"),
    copies("flag-without-value", "COPY --chown f /x", fails="both"),
    # other sources
    Case(
        "from-a-stage",
        "FROM busybox AS one\nWORKDIR /w\nCOPY --chown=3:4 d /w/d\nRUN ln -s d /w/l; chmod 700 /w/d/sub\n"
        "FROM busybox\nCOPY --from=one /w /all\nCOPY --from=0 w/d/a /a\nCOPY --from=one --chown=5 /w/l/b.txt /b\n"
        "COPY --from=one /w/l /link\nCOPY --from=one /w/l/ /link-slash/\n",
        TREE,
    ),
    Case("from-an-image", "FROM scratch\nCOPY --from=busybox /bin/busybox /etc/passwd /x/\nCOPY --from=busybox /bin /bin\n"),
    Case("from-keeps-hard-links", "FROM busybox AS a\nRUN mkdir /x && echo 1 >/x/1 && ln /x/1 /x/2\nFROM scratch\nCOPY --from=a /x /x\n"),
    Case("from-an-unknown-number", "FROM busybox\nCOPY --from=3 /x /y\n", fails="both"),
    Case("from-itself", "FROM busybox AS me\nCOPY --from=me /etc/passwd /y\n", fails="both"),
    Case("from-with-a-missing-file", "FROM busybox AS a\nFROM busybox\nCOPY --from=a /missing /y\n", fails="both"),
    # ADD
    copies("add-plain", "ADD f /x", "ADD d /y/"),
    *(
        copies(f"add-{kind}", "ADD a.tar /x/", "ADD a.tar /y", "COPY a.tar /z", files={"a.tar": data})
        for kind, data in {
            "tar": TAR, "tar.gz": gzip.compress(TAR, mtime=0), "tar.bz2": bz2.compress(TAR), "tar.xz": lzma.compress(TAR),
        }.items()
    ),
    copies("add-tar-with-chown", "ADD --chown=7:8 a.tar /x/", files={"a.tar": TAR}, differs={"file x/t": OLD_TAR}),
    copies("add-tar-with-others", "ADD a.tar f /x/", files={"a.tar": TAR, "f": "1"}),
    copies("add-tar-by-wildcard", "ADD *.tar /x/", files={"a.tar": TAR, "b.tar": tar(member("b", data=b"b"))}),
    copies("add-tar-over-files", "RUN mkdir -p /x/t && echo 1 >/x/t/x", "ADD a.tar /x", files={"a.tar": TAR}),
    copies("add-gz-of-no-tar", "ADD f.gz /x/", files={"f.gz": gzip.compress(b"text", mtime=0)}),
    copies("add-empty-named-tar", "ADD e.tar /x/", files={"e.tar": ""}),
    copies("add-tar-in-a-directory-stays", "ADD . /x/", files={"a.tar": TAR}),
    copies("add-tar-with-capabilities", "ADD c.tar /x/", "RUN cp -a /x /y", files={"c.tar": CAPABLE}),
    copies("add-directory-over-a-file", "RUN echo 1 >/x", "ADD a.tar /x", files={"a.tar": TAR}, fails="both"),
    # .dockerignore
    *(
        copies(
            f"ignore-{name}", "COPY . /x/",
            files={**TREE, ".git/config": "x", "d/.git/y": "y", ".dockerignore": text},
            differs={"file x/d": EMPTY_ABOVE} if name == "order" else {},
        )
        for name, text in {
            "names": "f\nd/sub\n", "slashes": "/f\n./g\nd/\n", "comments": "# f\n\n  g  \n", "stars": "*.txt\nd/*\n",
            "double-stars": "**/*.txt\n**/.git\n", "question": "?\n", "exception": "d\n!d/a\n",
            "all-but": "*\n!d/sub\n!g\n", "order": "!f\nf\n!d/sub/c\nd\n", "class": "[fg]\n", "up": "../f\nd/../g\n",
            "itself": ".dockerignore\nDockerfile\n", "double-star-end": "d/**\n!d/b.txt\n", "crlf": "f\r\ng\r\n",
            "bom": "\ufefff\n", "dot": ".\n", "spaces": "f \n g\n! d\n", "parent-exception": "d/sub\n!d/sub/c\nd/empty\n",
        }.items()
    ),
    copies("ignore-named-source", "COPY f /x", files={**TREE, ".dockerignore": "f\n"}, fails="both"),
    copies("ignore-bad-pattern", "COPY . /x", files={**TREE, ".dockerignore": "[\n"}, fails="both"),
    copies("ignore-no-exclude-of-stage-files", "COPY --from=busybox /etc/passwd /x", files={**TREE, ".dockerignore": "**\n"}),
    Case(
        "ignore-of-a-dockerfile", "FROM busybox\n", {**TREE, "other.Dockerfile": "FROM busybox\nCOPY . /x/\n",
        "other.Dockerfile.dockerignore": "d\n", ".dockerignore": "f\n"}, ("-f", "{context}/other.Dockerfile"),
    ),
)  # fmt: skip
