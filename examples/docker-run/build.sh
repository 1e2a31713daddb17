#!/bin/sh
# Builds the current directory in an ordinary container and pushes the image, with
# the login that docker login has written.
set -eu
docker run --rm \
  -v "$PWD:/workspace" \
  -v "$HOME/.docker/config.json:/kaniko/.docker/config.json:ro" \
  ghcr.io/layerwright/layerwright:v1 \
  --context dir:///workspace \
  --destination registry.example/team/app:1
