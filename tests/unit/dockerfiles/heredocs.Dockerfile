FROM alpine:3.21 AS scripts
ARG GREETING="hello \"world\""
RUN <<EOF cat >> /etc/motd
$GREETING
EOF
RUN <<FILE1 cat > file1 && <<FILE2 cat > file2
I am
first
FILE1
I am
second
FILE2
RUN python3 <<EOF
import sys
print("x", file=sys.stderr)
EOF
RUN <<PY
#!/usr/bin/env python3
print("a script of its own")
PY
COPY <<robots.txt <<"humans.txt" /www/
User-agent: $GREETING
robots.txt
$GREETING stays
humans.txt
RUN echo $((1 << 3)) && cat <<<"here"
ONBUILD RUN <<EOF
echo later
EOF
