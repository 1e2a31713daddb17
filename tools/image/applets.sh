#!/bin/sh
# Lays out busybox for the debug image: links of its applets in /layerwright/busybox,
# which is also /busybox.
#
#   applets.sh BUSYBOX DIRECTORY        BUSYBOX must run here
set -eu
busybox=$1 root=$2
# Scripts write their config.json to /kaniko/.docker, a link to here. The executor, which has no
# shell, does without: what is mounted there can be set aside only where the
# directory is not the image's own (docs/security.md).
mkdir -p "$root/layerwright/busybox" "$root/kaniko-home/.docker"
"$busybox" --list | while read -r applet; do
    [ "$applet" = busybox ] || ln -sf busybox "$root/layerwright/busybox/$applet"
done
ln -sfn layerwright/busybox "$root/busybox"
