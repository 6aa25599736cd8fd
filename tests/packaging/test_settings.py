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


def flags_of(role):
    """The long flags of a role: the fields of its arguments and of those that all roles have."""
    text = (manifests.ROOT / "crates/operator/src/args.rs").read_text()
    names = []
    for structure in ("Common", role.capitalize()):
        (fields,) = re.findall(rf"pub\(crate\) struct {structure}Args \{{(.*?)\n\}}", text, re.DOTALL)
        names += re.findall(r"pub\(crate\) (\w+):", fields)
    return {"--" + name.replace("_", "-") for name in names}


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
        self.assertIn("--leader-elect", flags_of("run"))
        mounted = {"webhook": {"enabled": True, "certificate": {"secretName": "mounted"}}}
        everything = manifests.chart(EVERYTHING) + manifests.chart(mounted)
        deployments = [item for item in everything if item["kind"] == "Deployment"]
        all_given = set()
        for deployment in deployments:
            (container,) = deployment["spec"]["template"]["spec"]["containers"]
            role, *given = container["args"]
            given = {flag.split("=")[0] for flag in given}
            self.assertEqual(given - flags_of(role), set(), role)
            all_given |= given
        # Nothing that a template can give is left out above.
        for template in (manifests.CHART / "templates").glob("**/*deployment.*"):
            self.assertGreaterEqual(all_given, set(re.findall(r"--[a-z][a-z-]+(?==|\s|\")", template.read_text())))

    def test_the_schema_bounds_what_the_operator_bounds(self):
        properties = json.loads((manifests.CHART / "values.schema.json").read_text())["properties"]
        source = manifests.ROOT / "crates/operator/src"

        def number(file, pattern):
            (found,) = re.findall(pattern, (source / file).read_text())
            return int(found)

        namespaces = number("config.rs", r"const MOST_NAMESPACES: usize = (\d+);")
        self.assertEqual(properties["watchNamespaces"]["maxItems"], namespaces)
        permits = number("webhook.rs", r"const PERMITS: std::ops::RangeInclusive<usize> = 1\.\.=(\d+);")
        self.assertEqual(properties["webhook"]["properties"]["maxServingThreads"]["anyOf"][1]["maximum"], permits)
        audit = properties["audit"]["properties"]
        rate = number("audit.rs", r"\(1\.\.=(\d+)\)\.contains\(&args\.qps\)")
        self.assertEqual(audit["qps"]["anyOf"][1]["maximum"], rate)
        least = number("audit.rs", r'duration\("interval", &args\.interval, (\d+),')
        self.assertRegex(f"{least}s", audit["interval"]["pattern"])
        self.assertNotRegex(f"{least - 1}s", audit["interval"]["pattern"])
        for text in ("", "1m", "6h", "1h30m", "1h30m5s"):
            self.assertRegex(text, audit["interval"]["pattern"])
        for text in ("6", "0h", "500ms", "5s", "1d"):
            self.assertNotRegex(text, audit["interval"]["pattern"])

    def test_what_would_end_at_the_start_is_refused_by_the_schema(self):
        for values in (
            {"audit": {"enabled": True}},
            {"policies": {"enabled": True}, "audit": {"enabled": True, "interval": "30s"}},
            {"watchNamespaces": [f"team-{number}" for number in range(33)]},
            {"webhook": {"enabled": True, "replicas": 0}},
            {"flowControl": {"matchingPrecedence": 1}},
            {"livenessProbe": {"successThreshold": 2}},
            {"readinessProbe": {"terminationGracePeriodSeconds": 5}},
            {"fullnameOverride": 56 * "a"},
        ):
            with self.subTest(values), self.assertRaisesRegex(AssertionError, "values don't meet the specifications"):
                manifests.chart_text(values)


if __name__ == "__main__":
    unittest.main()
