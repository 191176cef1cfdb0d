#!/bin/sh
# Reads our exports by the packages that they are for, each in an environment of its own: their
# trees are heavy, and some of them need other versions of what we use. About 3 GB and ten minutes.
#
#     tools/consumers.sh FOLDER [pytest's options]
#
# FOLDER keeps the environments, so that a second run is short.
set -e
[ -n "$1" ] || { echo "usage: tools/consumers.sh FOLDER" >&2; exit 2; }
mkdir -p "$1"
folder=$(cd "$1" && pwd)
shift
python=${PYTHON:-.venv/bin/python}

environment() { # NAME PACKAGE...
    name=$1
    shift
    [ -e "$folder/$name/done" ] && return
    "$python" -m venv "$folder/$name"
    "$folder/$name/bin/pip" install --quiet "$@"
    touch "$folder/$name/done"
}

environment croissant mlcroissant==1.1.1 pyarrow==26.0.1
environment label_studio label-studio-sdk==2.1.2
environment argilla argilla==2.8.0 requests # which argilla 2.8.0 imports and does not name
environment inspect inspect-ai==0.3.285
environment lm_eval lm-eval==0.4.13
environment s3 'moto[server]==5.2.5'
# The engines need GPUs to be installed; their data code is read from the unpacked wheels.
if [ ! -e "$folder/engines/done" ]; then
    "$python" -m pip download --quiet --no-deps --dest "$folder/engines" openrlhf==0.11.2 verl==0.9.1
    for wheel in "$folder"/engines/*.whl; do
        "$python" -m zipfile -e "$wheel" "$folder/engines/$(basename "$wheel" | cut -d- -f1)"
    done
    touch "$folder/engines/done"
fi
CONSUMERS=$folder "$python" -m pytest -m consumers tests/consumers "$@"
