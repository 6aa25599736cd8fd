"""The settings that chart and kustomization document are those that the operator reads."""

import json
import re
import unittest

import manifests
from test_cluster import EVERYTHING

# The operator's own list: a constant for each key, in the order of their names.
SOURCE = manifests.ROOT / "crates/operator/src/mode/config.rs"


def keys_of_the_operator():
    text = SOURCE.read_text()
    names = dict(re.findall(r'const (\w+): &str = "(\w+)";', text))
    (listed,) = re.findall(r"const KEYS: \[&str; \d+\] = \[(.*?)\];", text, re.DOTALL)
    return {names[constant] for constant in re.findall(r"\w+", listed)}


def flags_of_the_operator():
    """The long flags of `leanserve run`: the fields of its arguments."""
    text = (manifests.ROOT / "crates/operator/src/args.rs").read_text()
    (fields,) = re.findall(r"pub\(crate\) struct RunArgs \{(.*?)\n\}", text, re.DOTALL)
    return {"--" + name.replace("_", "-") for name in re.findall(r"pub\(crate\) (\w+):", fields)}


class Settings(unittest.TestCase):
    def test_every_key_is_known_to_the_chart_and_documented(self):
        keys = keys_of_the_operator()
        self.assertIn("secretAccessMode", keys)
        schema = json.loads((manifests.CHART / "values.schema.json").read_text())
        self.assertEqual(set(schema["properties"]["config"]["properties"]), keys)
        values = (manifests.CHART / "values.yaml").read_text()
        self.assertEqual(set(re.findall(r"^  # (\w+): \S+$", values.split("config: {}")[1].split("\n\n")[0], re.M)), keys)
        base = (manifests.KUSTOMIZE / "base/config.yaml").read_text()
        self.assertEqual(set(re.findall(r"^#   (\w+): \S+$", base, re.M)), keys)

    def test_every_flag_that_the_chart_can_give_exists(self):
        flags = flags_of_the_operator()
        self.assertIn("--leader-elect", flags)
        (deployment,) = (item for item in manifests.chart(EVERYTHING) if item["kind"] == "Deployment")
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        command, *given = container["args"]
        self.assertEqual(command, "run")
        self.assertEqual({flag.split("=")[0] for flag in given} - flags, set())
        template = (manifests.CHART / "templates/deployment.yaml").read_text()
        self.assertGreaterEqual({flag.split("=")[0] for flag in given}, set(re.findall(r"--[a-z-]+(?==|\s)", template)))


if __name__ == "__main__":
    unittest.main()
