#!/bin/sh
# On a machine of its own, as root: the static binary and nothing else. Steps run in
# namespaces; the machine's own files are not touched.
set -eu
layerwright build --destination registry.example/team/app:1 .
