"""Run by the packaging tools' own Python: render a chart, validate every object, print them as JSON.

Arguments: chart, values as JSON.  Exit 1 with the reason if Helm or Kubernetes would refuse it.
"""

import json
import sys

import helm_python
import kubernetes_validate
import yaml

KUBERNETES = ("1.29", "1.37")

chart_path, values = sys.argv[1], json.loads(sys.argv[2])
objects = []
try:
    with helm_python.Chart.load(chart_path) as chart:
        chart.validate_schema(values)
        rendered = chart.render(values, name="gate", namespace="prod")
    notes = ""
    for name, text in sorted(rendered.items()):
        if name.endswith("NOTES.txt"):
            notes = text
            continue
        for document in yaml.safe_load_all(text):
            if document is not None:
                for version in KUBERNETES:
                    kubernetes_validate.validate(document, version, strict=True)
                objects.append(document)
except (helm_python.HelmError, kubernetes_validate.ValidationError) as error:
    sys.exit(f"{type(error).__name__}: {getattr(error, 'message', error)}")
print(json.dumps({"objects": objects, "notes": notes}))
