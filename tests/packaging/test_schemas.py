"""Every manifest fits its schema, with no field that the schema does not know: kubeconform, with no network."""

import json
import tempfile
import unittest

import manifests
import schemas
from test_cluster import EVERYTHING, KUSTOMIZATIONS

EXAMPLES = manifests.ROOT / "examples"


class Schemas(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.texts = {
            "chart": manifests.chart_text(),
            "chart with everything": manifests.chart_text(EVERYTHING),
            "runtimes": manifests.kustomization_text("runtimes"),
            **{" ".join(folders): manifests.kustomization_text(*folders) for folders in KUSTOMIZATIONS},
            **{path.name: path.read_text() for path in sorted(EXAMPLES.glob("*.yaml"))},
        }
        cls.objects = {name: manifests.documents(text) for name, text in cls.texts.items()}
        definitions = [item for item in cls.objects["chart"] if item["kind"] == "CustomResourceDefinition"]
        kinds = {
            (*(["", item["apiVersion"]] if "/" not in item["apiVersion"] else item["apiVersion"].split("/")), item["kind"])
            for objects in cls.objects.values()
            for item in objects
        }
        directory = tempfile.TemporaryDirectory()
        cls.addClassCleanup(directory.cleanup)
        schemas.write(directory.name, kinds, definitions + manifests.monitoring_definitions())
        cls.location = directory.name + "/{{.ResourceKind}}{{.KindSuffix}}.json"

    def kubeconform(self, text):
        return json.loads(
            manifests.run(
                manifests.tool("kubeconform"),
                "-strict",
                "-summary",
                "-output=json",
                f"-schema-location={self.location}",
                "-",
                input=text,
            )
        )

    def test_every_manifest_fits(self):
        for name, text in self.texts.items():
            with self.subTest(name):
                told = self.kubeconform(text)
                expected = {"valid": len(self.objects[name]), "invalid": 0, "errors": 0, "skipped": 0}
                self.assertEqual(told["summary"], expected, told)

    def test_what_does_not_fit_is_found(self):
        for right, wrong in (
            ("enableServiceLinks:", "enableServiceLink:"),
            ("replicas: 1", "replicas: one"),
            ("failureThreshold: 3", "failureTreshold: 3"),
            ("roleRef:", "roleReference:"),
        ):
            with self.subTest(wrong):
                self.assertIn(right, self.texts["chart"])
                with self.assertRaisesRegex(AssertionError, "statusInvalid"):
                    self.kubeconform(self.texts["chart"].replace(right, wrong))
        with self.assertRaisesRegex(AssertionError, "statusInvalid"):
            self.kubeconform(self.texts["chart with everything"].replace("podMetricsEndpoints:", "podMetricsEndpoint:"))


if __name__ == "__main__":
    unittest.main()
