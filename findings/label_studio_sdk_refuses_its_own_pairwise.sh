#!/bin/sh
# label-studio-sdk 2.1.2: the annotation that its own control makes of a pairwise choice is refused by its
# own validator.
#
# `<Pairwise>` is the tag for preference data. `LabelInterface.get_control("better").label("left")` gives a
# region whose `to_name` is the control itself, as the source says ("<Pairwise> tag has equal from_name
# and to_name"). `validate_annotation` of the same interface wants `to_name` among the objects of the
# configuration and answers False, so a check before an import finds every pairwise annotation wrong.
# With `<Choices>` the same steps answer True.
#
# Seen on 2026-11-30, Python 3.11:
#   choices True
#   pairwise False
set -e
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check label-studio-sdk==2.1.2
cat > "$folder/check.py" <<'PY'
from label_studio_sdk.label_interface import LabelInterface

TEXTS = '<Text name="a" value="$a"/><Text name="b" value="$b"/>'
CHOICES = '<Choices name="better" toName="a"><Choice value="left"/><Choice value="right"/></Choices>'
PAIRWISE = '<Pairwise name="better" toName="a,b"/>'
for name, control in (("choices", CHOICES), ("pairwise", PAIRWISE)):
    interface = LabelInterface(f"<View>{TEXTS}{control}</View>")
    interface.validate()
    region = interface.get_control("better").label("left")
    print(name, interface.validate_annotation({"result": [region._dict()]}))
PY
seen=$("$folder/venv/bin/python" "$folder/check.py" 2>/dev/null)
echo "$seen"
[ "$seen" = "choices True
pairwise False" ] || { echo "label-studio-sdk behaves differently now." >&2; exit 1; }
