#!/bin/sh
# The same with containerd alone; its socket is root's.
set -eu
ctr images pull ghcr.io/layerwright/layerwright:v1
ctr run --rm --net-host \
  --mount "type=bind,src=$PWD,dst=/workspace,options=rbind:rw" \
  --mount "type=bind,src=$HOME/.docker/config.json,dst=/kaniko/.docker/config.json,options=rbind:ro" \
  ghcr.io/layerwright/layerwright:v1 build-app \
  /kaniko/executor --context dir:///workspace --destination registry.example/team/app:1
