#!/bin/sh
# Lays out the root file system of our images. What runs is below /layerwright, which
# stays in place in isolation inplace; /kaniko, where pipelines put their logins, is a
# directory of its own, so that it is set aside and no step sees it. /kaniko/.docker leads
# to where the image has nothing: the kernel does not let a directory of the image be
# moved while something is mounted in it, but lets one that the container's runtime has
# made for the mount.
#
#   tree.sh BINARY CERTIFICATES DIRECTORY
set -eu
binary=$1 certificates=$2 root=$3
mkdir -p "$root/layerwright/bin" "$root/kaniko/ssl/certs" "$root/workspace" "$root/cache" "$root/tmp"
chmod 1777 "$root/tmp"
cp "$binary" "$root/layerwright/bin/layerwright"
chmod 755 "$root/layerwright/bin/layerwright"
cp "$certificates" "$root/kaniko/ssl/certs/ca-certificates.crt"
chmod 644 "$root/kaniko/ssl/certs/ca-certificates.crt"
for name in executor warmer; do
    ln -sf ../layerwright/bin/layerwright "$root/kaniko/$name"
done
ln -sfn /kaniko-home/.docker "$root/kaniko/.docker"
