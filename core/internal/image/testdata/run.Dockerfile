FROM base AS build
RUN echo made > /made
FROM base
ARG V=1
ENV A=b V=$V
LABEL one=two
WORKDIR /srv/app
USER 1000:1000
COPY --from=build /made ./
COPY --link --chown=5:6 a /linked
RUN --mount=type=cache,target=/var/cache/x echo $V > /tmp/v
EXPOSE 80/tcp 53/udp
VOLUME /data
STOPSIGNAL SIGINT
HEALTHCHECK --interval=5s CMD true
SHELL ["/bin/bash", "-c"]
ONBUILD RUN echo later
ENTRYPOINT ["/bin/sh"]
CMD ["-c", "true"]
