#!/bin/sh
# Sums over a release and their signature, as gateway/docs/releases.md has them checked.
# sign.sh FOLDER PARTS KEY
set -eu
folder=$1 parts=$2 key=${3:?the fingerprint of the key: make release KEY=...}
cp "$parts" "$folder/"
cd "$folder"
sha256sum anmin_*.deb "$(basename "$parts")" >SHA256SUMS
gpg --batch --yes --local-user "$key" --armor --output SHA256SUMS.asc --detach-sign SHA256SUMS
