#!/bin/sh
# Builds an earlier release out of the history, for tests/tests/releases.rs: target/earlier/anmin.
#
#   sh tests/earlier.sh [REVISION]
#
# Without a revision it is the one of tests/fixtures/earlier-release. A clone without that history goes without the test that
# wants it, and says so. Crates that both releases are made of are compiled once: they are linked over from target/debug.
set -eu
cd "$(dirname "$0")/.."
revision=${1:-$(cat tests/fixtures/earlier-release)}
to=target/earlier
if [ "$(cat $to/revision 2>/dev/null)" = "$revision" ] && [ -x $to/anmin ]; then exit 0; fi
if ! git cat-file -e "$revision^{commit}" 2>/dev/null; then
    echo "left out: $revision is not in this clone's history"
    exit 0
fi
rm -rf $to
mkdir -p $to/source $to/built/debug
git archive "$revision" | tar -x -C $to/source
for part in deps build .fingerprint; do
    [ ! -d target/debug/$part ] || cp -al target/debug/$part $to/built/debug/
done
find $to/built/debug -depth -name '*anmin*' -exec rm -rf {} +
CARGO_TARGET_DIR=$to/built ${CARGO:-cargo} build --locked --quiet --manifest-path $to/source/Cargo.toml -p anmin --bin anmin
cp $to/built/debug/anmin $to/anmin
rm -rf $to/source $to/built
echo "$revision" >$to/revision
