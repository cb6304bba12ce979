# SPDX-License-Identifier: GPL-3.0-or-later
FROM shipshape-test/busybox:1 AS first
ARG NUMBER
RUN --network=none echo "$NUMBER" > /number

FROM first AS second
ARG GREETING
ARG PASSED_THROUGH
ENV FROM_IMAGE="$GREETING $PASSED_THROUGH"
COPY --from=shared note.txt /note.txt
RUN --mount=type=secret,id=token test -s /run/secrets/token
USER nobody
STOPSIGNAL SIGINT
HEALTHCHECK --interval=1s CMD test -s /number

FROM second AS third
RUN false
