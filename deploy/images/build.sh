#!/usr/bin/env bash
# Builds the images connexon-hub and connexon-node with buildah, from Debian packages and the wheels of dist/.
# Needs root or a user namespace, buildah and mmdebstrap. Nothing comes from a registry of images.
set -euo pipefail
cd "$(dirname "$0")/../.."

debian=trixie
python=3.13
mirror=http://deb.debian.org/debian
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
version=$(ls dist/connexon-*.whl | sed 's/.*connexon-\([^-]*\)-.*/\1/')

if [ -z "$(buildah images --quiet localhost/connexon-base 2>/dev/null)" ] || [ "${FRESH_BASE:-}" ]; then
    echo "Base: Debian $debian with Python $python ..."
    mmdebstrap --quiet --variant=minbase --include=python3,python3-venv,ca-certificates "$debian" "$work/base.tar" "$mirror"
    base=$(buildah from scratch)
    buildah add --quiet "$base" "$work/base.tar" / >/dev/null
    buildah commit --quiet --rm "$base" localhost/connexon-base >/dev/null
fi

for party in hub node; do
    echo "connexon-$party $version ..."
    given="$work/$party"
    mkdir "$given"
    cp dist/connexon-*.whl dist/constraints.txt "$given"
    extras=$party
    [ "$party" = node ] && extras=node,learn
    [ "$party" = hub ] && extras=hub,learn
    .venv/bin/python -m pip download --quiet --disable-pip-version-check --only-binary=:all: --python-version "$python" \
        --dest "$given" --constraint dist/constraints.txt "$(ls dist/connexon-*.whl)[$extras]"
    (cd "$given" && sha256sum -- * >../sums && mv ../sums SHA256SUMS)
    # The format of Docker has a health check; that of OCI has none.
    buildah build --quiet --format docker --build-arg "PARTY=$party" --build-arg "EXTRAS=$extras" \
        --build-arg "VERSION=$version" --file deploy/images/Containerfile --tag "connexon-$party:$version" "$given"
done
buildah images
