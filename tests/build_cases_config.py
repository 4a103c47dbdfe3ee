# SPDX-License-Identifier: Apache-2.0
"""The language, variables and the image's config: Dockerfiles that are built by pyrun and by BuildKit."""

from __future__ import annotations

from build_cases import Case


def says(name: str, *lines: str, fails: str = "", flags: tuple[str, ...] = (), **more: object) -> Case:
    """A case on busybox."""
    text = "".join(f"{line}\n" for line in ("FROM busybox", *lines))
    return Case(name, text, fails=fails, flags=flags, **more)  # type: ignore[arg-type]


def refuses(name: str, *lines: str) -> Case:
    """A case on busybox that both refuse."""
    return says(name, *lines, fails="both")


# in docker 20.10, with BuildKit 0.8
GIVEN = "history has the value that was given, as with today's BuildKit; 0.8 had the default"
TWICE = "an ARG that is declared twice is counted once, as today"
INHERITED = "the ARGs of the stage below are in scope too: 0.8 counts them not, but a RUN sees them"
HIDDEN = "a proxy may have a password in it: it is in no history"
NOTHING = "a RUN of nothing is a mistake"

CASES = (
    # ENV and its expansion
    says("env-forms", "ENV a=1 b='two words' c=\"x y\" d=a\\ b e=", "ENV old form of it", "ENV f =g", 'ENV q="a\\"b"'),
    says("env-order", "ENV a=old", "ENV a=new b=$a", "ENV PATH=/x:$PATH", "ENV a=last"),
    says(
        "env-expansion", "ENV a=1 e=", "ENV b=${a} c=${a}x d=$a$a f=${e:-empty} g=${e:+set} h=${a:+set} i=${n:-none} j=${n}",
        "ENV k=\\$a l='$a' m=\"$a\" o=\"\\$a\" p=$ q=a$ r=${a:-$n} s=${n:-${a}}", "ENV t=${n:+x} u=$a-b v=$a_b w=${a}_b",
    ),
    says("env-expansion-quotes", "ENV a=it\\'s b=\"it's\" c='say \"x\"' d=\"a\\\\b\" e=a\\\\b f='a\\b' g=\"a\\nb\""),
    refuses("env-bad-substitution", "ENV a=1", "ENV b=${a"),
    refuses("env-bad-operator", "ENV a=1", "ENV b=${a:x}"),
    refuses("env-without-value", "ENV a"),
    refuses("env-empty-name", "ENV =x"),
    says("env-in-every-place", "ENV a=5 d=/dir", "WORKDIR $d/${a}", "USER $a:$a", "EXPOSE $a 6$a/udp", "VOLUME $d/v",
         "LABEL l$a=$a", "STOPSIGNAL $a", "COPY f$a ${d}/x", files={"f5": "x"}),
    says("env-not-in-commands", "ENV a=1", 'CMD ["echo", "$a"]', "ENTRYPOINT echo $a", "HEALTHCHECK CMD echo $a"),
    # ARG
    says("arg-default", "ARG a=1 b", "ARG c='x y'", "LABEL a=$a b=${b:-none} c=$c", "RUN echo $a-$b-$c >/x"),
    says("arg-given", "ARG a=1", "ARG b", "RUN echo $a-$b >/x", flags=("--build-arg", "a=2", "--build-arg", "b=3"),
         differs={"history 1": GIVEN, "history 2": GIVEN}),
    says("arg-given-empty", "ARG a=1", "RUN echo \"<$a>\" >/x", flags=("--build-arg", "a="), differs={"history 1": GIVEN}),
    says("arg-and-env", "ARG a=1", "ENV a=2", "RUN echo $a >/x", "ARG a=3", "RUN echo $a >/y", "ENV b=$a", differs={"history 5": TWICE}),
    says("arg-of-arg", "ARG a=1", "ARG b=${a}2", "ARG a=${a}3", "RUN echo $a $b >/x", differs={"history 4": TWICE}),
    Case("arg-before-from", "ARG tag=latest x=1\nFROM busybox:${tag}\nARG x\nARG y=$x$tag\nRUN echo $x-$y-$tag >/x\n"),
    Case("arg-before-from-is-of-no-stage", "ARG x=1\nFROM busybox\nRUN echo \"<$x>\" >/x\nARG x=2\nRUN echo $x >/y\n"),
    Case("arg-ends-with-its-stage", "FROM busybox AS a\nARG x=1\nRUN echo $x >/x\nFROM busybox\nRUN echo \"<$x>\" >/x\n"),
    Case("arg-of-the-stage-below", "FROM busybox AS a\nARG x=1\nENV y=$x\nFROM a\nRUN echo \"<$x> $y\" >/x\nLABEL x=$x\n",
         differs={"history 3": INHERITED}),
    Case("arg-before-from-given", "ARG t=none\nFROM busybox:$t\nARG t\nLABEL t=$t\n", flags=("--build-arg", "t=latest"),
         differs={"history 1": GIVEN}),
    Case("arg-empty-from", "ARG t\nFROM $t\n", fails="both"),
    says("arg-predefined", "ARG TARGETPLATFORM", "ARG TARGETOS TARGETARCH TARGETVARIANT", "ARG BUILDPLATFORM BUILDARCH",
         "RUN echo $TARGETPLATFORM,$TARGETOS,$TARGETARCH,$TARGETVARIANT,$BUILDPLATFORM,$BUILDARCH >/x"),
    says("arg-predefined-undeclared", "RUN echo \"<$TARGETPLATFORM>\" >/x", "LABEL t=<$TARGETOS>"),
    Case("arg-predefined-in-from", "FROM --platform=$BUILDPLATFORM busybox\nARG TARGETARCH=mine\nLABEL a=$TARGETARCH\n"),
    says("arg-proxy", "RUN echo $HTTP_PROXY $no_proxy >/x", flags=("--build-arg", "HTTP_PROXY=p:1", "--build-arg", "no_proxy=n")),
    says("arg-proxy-declared", "ARG HTTP_PROXY", "RUN echo $HTTP_PROXY >/x", flags=("--build-arg", "HTTP_PROXY=p:1"),
         differs={"history 2": HIDDEN}),
    refuses("arg-without-name", "ARG"),
    # what is run
    says("cmd-forms", "CMD echo a  b", "CMD [\"a\", \"b c\"]"),
    says("cmd-shell", "CMD echo \"a $b\" && x"),
    says("cmd-bad-json", "CMD [\"a\", 'b']"),
    says("cmd-empty", "CMD []"),
    says("entrypoint-drops-cmd", 'ENTRYPOINT ["x"]', base='FROM busybox\nCMD ["b"]\n'),
    Case("entrypoint-of-base-and-cmd", 'FROM base:1\nCMD ["new"]\n', base='FROM busybox\nENTRYPOINT ["e"]\nCMD ["c"]\n'),
    Case("entrypoint-resets-the-base", 'FROM base:1\nENTRYPOINT ["n"]\n', base='FROM busybox\nENTRYPOINT ["e"]\nCMD ["c"]\n'),
    Case("entrypoint-of-a-stage-below", 'FROM busybox AS a\nCMD ["c"]\nFROM a\nENTRYPOINT ["n"]\n'),
    Case("entrypoint-empty", "FROM base:1\nENTRYPOINT []\n", base='FROM busybox\nENTRYPOINT ["e"]\nCMD ["c"]\n'),
    says("entrypoint-after-cmd", 'CMD ["c"]', 'ENTRYPOINT ["e"]', "ENTRYPOINT e f"),
    says("shell", 'SHELL ["/bin/sh", "-e", "-c"]', "RUN echo $0 >/x", "CMD a b", "ENTRYPOINT c", "HEALTHCHECK CMD d"),
    refuses("shell-without-json", "SHELL /bin/sh -c"),
    says("run-without-command", "RUN", fails="ours", why=NOTHING),
    # the small ones
    says("label-forms", 'LABEL a=1 "b c"="d e" f=\'g h\'', "LABEL multi=one\\", "two", "LABEL old form", 'LABEL e="" q="a\\"b"',
         'LABEL json="{\\"a\\": [1, 2]}"', 'LABEL line="a\\', '  b"'),
    says("label-flag", "LABEL a=1 b=2", flags=("--label", "b=3", "--label", "c=4", "--label", "d")),
    Case("label-of-the-base", "FROM base:1\nLABEL b=2\n", base="FROM busybox\nLABEL a=1 b=1\n"),
    refuses("label-without-value", "LABEL a"),
    says("expose", "EXPOSE 80", "EXPOSE 443/tcp 53/udp 80/TCP", "EXPOSE 9000-9002/udp", "EXPOSE 7 sctp/7 8/sctp", fails="both"),
    says("expose-good", "EXPOSE 80", "EXPOSE 443/tcp 53/udp", "EXPOSE 9000-9002/udp", "EXPOSE 8/sctp 10-11"),
    refuses("expose-word", "EXPOSE http"),
    refuses("expose-too-high", "EXPOSE 65536"),
    refuses("expose-nothing", "EXPOSE"),
    says("volume-forms", "VOLUME /a /b", 'VOLUME ["/c d", "e"]', "VOLUME /x,/y"),
    refuses("volume-empty", 'VOLUME [""]'),
    says("volume-written-to", "RUN mkdir /v && echo 1 >/v/before", "VOLUME /v", "RUN echo 2 >/v/after", "COPY f /v/"
         , files={"f": "x"}),
    says("healthcheck", "HEALTHCHECK --interval=5s --timeout=1m30s --start-period=500ms --retries=3 CMD [\"a\", \"b\"]"),
    says("healthcheck-shell", "HEALTHCHECK CMD curl -f http://localhost/ || exit 1"),
    says("healthcheck-none", "HEALTHCHECK CMD a", "HEALTHCHECK NONE"),
    Case("healthcheck-of-the-base", "FROM base:1\n", base="FROM busybox\nHEALTHCHECK --retries=2 CMD a\n"),
    refuses("healthcheck-without-cmd", "HEALTHCHECK --interval=5s"),
    refuses("healthcheck-bad-time", "HEALTHCHECK --interval=5 CMD a"),
    refuses("healthcheck-negative", "HEALTHCHECK --interval=-5s CMD a"),
    refuses("healthcheck-bad-retries", "HEALTHCHECK --retries=x CMD a"),
    refuses("healthcheck-unknown-type", "HEALTHCHECK RUN a"),
    says("stopsignal", "STOPSIGNAL SIGQUIT", "STOPSIGNAL 9"),
    says("stopsignal-short", "STOPSIGNAL term"),
    refuses("stopsignal-unknown", "STOPSIGNAL SIGNOTHING"),
    says("user-forms", "USER daemon", "RUN id -u >/tmp/1", "USER 7:8", "RUN id -u >/tmp/2; id -g >>/tmp/2", "USER 9"),
    refuses("user-unknown-in-run", "USER nobody-here", "RUN true"),
    says("user-unknown-without-run", "USER nobody-here"),
    says("user-two", "USER a b"),
    says("maintainer", "MAINTAINER Some Body <a@b.c>", "RUN true"),
    # WORKDIR
    says("workdir", "WORKDIR /a/b", "WORKDIR c", "WORKDIR ../d/./e//f", "RUN pwd >x"),
    says("workdir-there", "WORKDIR /tmp", "WORKDIR /", "WORKDIR bin"),
    says("workdir-of-a-user", "USER 12:34", "WORKDIR /w/x", "USER daemon", "WORKDIR /v", "RUN ls -ldn /w /v >/tmp/x"),
    says("workdir-over-a-link", "RUN mkdir /a && ln -s a /l", "WORKDIR /l/x", "RUN pwd >f"),
    says("workdir-trailing-slash", "WORKDIR /a/", "RUN pwd >f", "WORKDIR b/../"),
    refuses("workdir-on-a-file", "RUN echo >/x", "WORKDIR /x/y"),
    refuses("workdir-without-path", "WORKDIR"),
    Case("workdir-of-the-base", "FROM base:1\nCOPY f x\n", {"f": "1"}, base="FROM busybox\nWORKDIR /w\n"),
    says("workdir-with-blanks", 'WORKDIR "/a b"', "RUN pwd >f", "WORKDIR /c d", "RUN pwd >f"),
    # ONBUILD
    Case("onbuild", "FROM base:1\nRUN cat /c >/d\n", {"f": "x"},
         base="FROM busybox\nONBUILD ENV a=1\nONBUILD COPY f /c\nONBUILD RUN echo $a >/r\nONBUILD CMD [\"x\"]\n"),
    Case("onbuild-kept", "FROM base:1 AS a\nFROM a\n", base="FROM busybox\nONBUILD RUN echo 1 >>/r\n"),
    says("onbuild-text", "ONBUILD RUN echo \"a\"  b \\", "  c", "ONBUILD COPY --chown=1 . /x", "ONBUILD add a b"),
    refuses("onbuild-onbuild", "ONBUILD ONBUILD RUN true"),
    refuses("onbuild-from", "ONBUILD FROM busybox"),
    refuses("onbuild-maintainer", "ONBUILD MAINTAINER me"),
    refuses("onbuild-empty", "ONBUILD"),
    # stages
    Case("target", "FROM busybox AS One\nLABEL s=1\nFROM one AS two\nLABEL t=2\nFROM missing-image\n", flags=("--target", "two")),
    Case("target-in-the-middle", "FROM busybox AS a\nRUN echo a >/a\nFROM a AS b\nRUN echo b >/b\nFROM b AS c\nRUN false\n",
         flags=("--target", "b")),
    Case("target-by-number", "FROM busybox\nLABEL s=1\nFROM busybox\nLABEL s=2\n", flags=("--target", "0"), fails="theirs",
         why="COPY --from takes a number too"),
    Case("target-in-other-case", "FROM busybox AS base\nLABEL s=1\nFROM busybox\n", flags=("--target", "BASE")),
    Case("target-unknown", "FROM busybox AS a\n", flags=("--target", "b"), fails="both"),
    Case("unused-stage-is-not-run", "FROM busybox AS broken\nRUN false\nFROM busybox\nRUN true\n"),
    Case("stage-named-as-an-image", "FROM busybox AS busybox\nLABEL a=1\nFROM busybox\nLABEL b=2\n"),
    Case("scratch", "FROM scratch\nCOPY f /\nCMD [\"/f\"]\n", {"f 755": "x"}),
    Case("scratch-workdir", "FROM scratch\nWORKDIR /a/b\nCOPY f .\n", {"f": "x"}),
    Case("stage-bad-name", "FROM busybox AS 1a\n", fails="both"),
    Case("stage-without-name", "FROM busybox AS\n", fails="both"),
    Case("from-two-words", "FROM busybox latest\n", fails="both"),
    Case("from-missing", "RUN true\n", fails="both"),
    Case("from-nothing", "", fails="both"),
    Case("from-only-comments", "# FROM busybox\n", fails="both"),
    Case("from-bad-name", "FROM Busybox:x:y\n", fails="both"),
    Case("from-bad-platform", "FROM --platform=nonsense/x/y/z busybox\n", fails="both"),
    # the language
    says("comments", "# one", "RUN echo a; \\", "  # between", "  echo b # not a comment", " # indented", "LABEL a=\"#x\""),
    says("continuations", "RUN echo a \\", "    b \\", "", "    c >/x", "ENV a=1 \\", "  b=2 \\", "", "# in between", "  c=3", "CMD x \\"),
    says("lower-case", "env a=1", "Run echo $a >/x", "cmd [\"a\"]"),
    Case("escape-backquote", "# escape=`\nFROM busybox\nRUN echo a `\n  b >/x\nENV w=c:\\d e=`$w\nLABEL a=\\$w\n"),
    Case("escape-unknown", "# escape=x\nFROM busybox\n", fails="both"),
    Case("escape-after-a-comment", "# comment\n# escape=`\nFROM busybox\nRUN echo a \\\n  b >/x\n"),
    Case("crlf", "FROM busybox\r\nENV a=1\r\nRUN echo a \\\r\n  b >/x\r\nLABEL c=d\r\nCMD [\"a\"]\r\n"),
    Case("byte-order-mark", "\ufeffFROM busybox\nLABEL a=1\n"),
    Case("tabs-and-blanks", "  FROM\tbusybox  \n\tENV  a=1\t b=2 \n LABEL\ta=b\nRUN\techo x\t>/x\n"),
    Case("no-newline-at-the-end", "FROM busybox\nLABEL a=1"),
    Case("unicode", "FROM busybox\nENV a=grün\nLABEL ü=ß\nRUN echo $a >/ü\n"),
    refuses("unknown-instruction", "RUNN true"),
    refuses("unknown-flag-of-run", "RUN --nonsense=x true"),
    refuses("unknown-flag-of-env", "ENV --x a=1"),
    refuses("cmd-flag", "WORKDIR --x /a"),
)  # fmt: skip
