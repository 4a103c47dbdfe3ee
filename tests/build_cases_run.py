# SPDX-License-Identifier: Apache-2.0
"""RUN, and what it leaves in the layer: Dockerfiles that are built by pyrun and by BuildKit."""

from __future__ import annotations

from build_cases import Case

MAKE = "RUN mkdir -p /d/sub/deep && echo 1 >/d/one && echo 2 >/d/sub/two && echo 3 >/d/sub/deep/three && ln -s one /d/l"


def runs(name: str, *lines: str, fails: str = "", **more: object) -> Case:
    """A case on busybox."""
    text = "".join(f"{line}\n" for line in ("FROM busybox", *lines))
    return Case(name, text, fails=fails, **more)  # type: ignore[arg-type]


POINT = "mount points are no part of the result; BuildKit does not leave them in the layer since 0.11"

CASES = (
    runs("forms", "RUN echo a >/1", 'RUN ["sh", "-c", "echo b >/2"]', 'RUN ["/bin/touch", "/a b", "$HOME"]', "RUN echo 'a  b' >/3"),
    runs("exit-code", "RUN exit 3", fails="both"),
    runs("missing-program", 'RUN ["/missing"]', fails="both"),
    runs("environment", "ENV a=1", "RUN env | grep -v HOSTNAME | sort >/x", "USER daemon", "RUN env | sort | grep -v HOSTNAME >/tmp/y"),
    runs("directory", "RUN pwd >/x", "WORKDIR /w", "RUN pwd >/y; echo $PWD >>/y"),
    runs("umask", "RUN umask >/x; touch /y; mkdir /z"),
    runs("privileges", "RUN grep -E 'Cap|NoNew|Seccomp:|Groups' /proc/self/status >/x"),
    runs("devices", "RUN ls -l /dev | awk '{print $1,$3,$4,$NF}' >/x"),
    runs("home", "RUN echo $HOME >/x", "USER nobody", "RUN echo $HOME >/tmp/y", "USER 4242", "RUN echo $HOME >/tmp/z"),
    runs("groups", "USER 7", "RUN id >/tmp/x", "USER daemon:users", "RUN id >/tmp/y"),
    runs("left-in-the-background", "RUN (sleep 100 &) ; echo ok >/x"),
    runs("output-of-any-bytes", "RUN printf '\\377\\0x\\r\\n'; echo ok >/x"),
    runs("root-directory", "RUN chown 5:6 / && chmod 711 /", "RUN touch /y"),
    # what is removed and replaced
    runs("removed-file", MAKE, "RUN rm /d/one"),
    runs("removed-directory", MAKE, "RUN rm -r /d/sub"),
    runs("removed-and-made-again", MAKE, "RUN rm -r /d/sub && mkdir /d/sub && echo new >/d/sub/new"),
    runs("directory-becomes-a-file", MAKE, "RUN rm -r /d/sub && echo file >/d/sub"),
    runs("directory-becomes-a-link", MAKE, "RUN rm -r /d/sub && ln -s one /d/sub"),
    runs("file-becomes-a-directory", MAKE, "RUN rm /d/one && mkdir -p /d/one/in"),
    runs("link-becomes-a-file", MAKE, "RUN rm /d/l && echo f >/d/l"),
    runs("removed-in-the-same-step", MAKE, "RUN echo t >/t && rm /t && mkdir /u && rmdir /u"),
    runs("removed-over-two-layers", MAKE, "RUN echo 4 >/d/sub/four", "RUN rm -r /d/sub/*"),
    runs("renamed", MAKE, "RUN mv /d/sub /d/moved && mv /d/one /d/sub"),
    runs("removed-from-the-base", "RUN rm -r /usr /bin/ash && rm /etc/group"),
    runs("changed-modes", MAKE, "RUN chmod 4711 /d/one && chmod 1777 /d/sub && chown 5:6 /d/sub/two && chown -h 7:8 /d/l"),
    runs("appended", MAKE, "RUN echo more >>/d/one"),
    runs("hard-links", "RUN mkdir /h && echo 1 >/h/a && ln /h/a /h/b && ln /h/a /c", "RUN ln /h/a /h/later", "RUN echo 2 >>/h/b"),
    runs("fifo-and-device", "RUN mkfifo -m 640 /p && mknod /n c 1 3 && mknod /b b 7 0"),
    runs("long-names", 'RUN touch "/$(printf %0200d 1)" && mkdir -p "/$(printf %0100d 2)/$(printf %0100d 3)" && ln -s "$(printf %0150d 4)" /l'),
    runs("special-names", "RUN touch '/a b' /-x '/new\\nline' /ü \"/$(printf '\\377')\""),
    runs("big-file", "RUN dd if=/dev/zero of=/z bs=1k count=3000 && printf end >>/z"),
    runs("nothing-changed", "RUN true", "RUN cat /etc/passwd >/dev/null"),
    # what belongs to the container and not to the layer
    runs("network-files", "RUN cat /etc/hosts /etc/resolv.conf >/dev/null"),
    runs("network-files-of-the-image", "COPY hosts /etc/hosts", "COPY hosts /etc/resolv.conf", "RUN true", files={"hosts": "mine\n"}),
    runs("system-directories", "RUN echo 1 >/dev/shm/x; touch /dev/mine; ls /proc/1 /sys >/dev/null", "RUN test ! -e /dev/shm/x"),
    runs("no-system-directories", "RUN rmdir /proc /sys /dev 2>/dev/null; ls -d /proc /sys /dev"),
    Case("system-directories-missing", "FROM scratch\nCOPY --from=busybox /bin /bin\nRUN echo 1 >/x\n",
         differs={"file dev": POINT, "file etc": POINT, "file proc": POINT, "file sys": POINT}),
    # mounts
    runs("mount-bind", "RUN --mount=type=bind,target=/m cat /m/f >/x; ls /m >>/x; touch /m/n 2>/dev/null || echo ro >>/x", files={"f": "1"},
         differs={"file m": POINT}),
    runs("mount-bind-default", "RUN --mount=target=/m/n,source=d cat /m/n/a >/x", files={"d/a": "1"}, differs={"file m": POINT}),
    runs("mount-bind-rw", "RUN --mount=target=/m,rw echo new >/m/n && cat /m/n >/x", files={"f": "1"}, differs={"file m": POINT}),
    Case("mount-bind-from", "FROM busybox AS a\nRUN echo 1 >/one\nFROM busybox\nRUN --mount=from=a,target=/m,source=/one cat /m >/x\n"),
    runs("mount-bind-relative", "WORKDIR /w", "RUN --mount=target=m,source=f cat m >x", files={"f": "1"}),
    runs("mount-bind-missing", "RUN --mount=target=/m,source=missing true", files={"f": "1"}, fails="both"),
    runs("mount-over-what-is-there", "RUN mkdir /m && echo below >/m/x", "RUN --mount=target=/m ls /m >/seen", files={"f": "1"}),
    runs("mount-cache", "RUN --mount=type=cache,target=/c,id=T echo 1 >/c/x", "RUN --mount=type=cache,target=/c,id=T cat /c/x >/x",
         differs={"file c": POINT}),
    runs("mount-cache-mode", "RUN --mount=type=cache,target=/c,id=U,uid=5,gid=6,mode=0711 stat -c '%a %u %g' /c >/x", differs={"file c": POINT}),
    runs("mount-tmpfs", "RUN --mount=type=tmpfs,target=/t echo 1 >/t/x; ls /t >/x", differs={"file t": POINT}),
    runs("mount-secret", "RUN --mount=type=secret,id=s cat /run/secrets/s >/x; stat -c %a:%u:%g /run/secrets/s >>/x", files={"s": "hush"},
         flags=("--secret", "id=s,src={context}/s"), differs={"file run": POINT}),
    runs("mount-secret-target", "RUN --mount=type=secret,id=s,target=/k/s,mode=0444,uid=3,gid=4 cat /k/s >/x; stat -c %a:%u:%g /k/s >>/x",
         files={"s": "hush"}, flags=("--secret", "id=s,src={context}/s"), differs={"file k": POINT}),
    runs("mount-secret-absent", "RUN --mount=type=secret,id=none ls /run/secrets/none 2>/dev/null || echo none >/x"),
    runs("mount-secret-required", "RUN --mount=type=secret,id=none,required true", fails="both"),
    runs("mount-unknown-type", "RUN --mount=type=nonsense,target=/x true", fails="both"),
    runs("mount-unknown-key", "RUN --mount=target=/x,nonsense=1 true", fails="both"),
    runs("mount-without-target", "RUN --mount=type=cache true", fails="both"),
)  # fmt: skip
