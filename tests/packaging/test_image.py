"""Tests of scripts/image. Run: python3 -m unittest discover -s tests/packaging"""

import hashlib
import json
import os
import pathlib
import struct
import subprocess
import sys
import tarfile
import tempfile
import unittest

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "scripts/image"


def elf(machine=62, program_headers=(1,)):
    """A header like a linker's, without any code: what the script looks at, and nothing that could run."""
    header = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    header += struct.pack("<HHIQQQIHHHHHH", 3, machine, 1, 0, 64, 0, 0, 64, 56, len(program_headers), 0, 0, 0)
    return header + b"".join(struct.pack("<I", kind) + bytes(52) for kind in program_headers)


class Image(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = pathlib.Path(directory.name)
        self.binary = self.write("program", elf())
        self.out = self.directory / "out/image.tar"

    def write(self, name, data):
        path = self.directory / name
        path.write_bytes(data)
        return path

    def run_script(self, *options, name="example/program:1.0", binary=None, epoch=None):
        environment = {key: value for key, value in os.environ.items() if key != "SOURCE_DATE_EPOCH"}
        if epoch is not None:
            environment["SOURCE_DATE_EPOCH"] = epoch
        command = [sys.executable, SCRIPT, binary or self.binary, name, self.out, *options]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)

    def image(self, *options, **more):
        """Builds, and returns (index entry, manifest, config, layer entries by name)."""
        done = self.run_script(*options, **more)
        self.assertEqual(done.returncode, 0, done.stderr)
        with tarfile.open(self.out) as tar:
            files = {member.name: tar.extractfile(member).read() for member in tar if member.isfile()}
        for name, content in files.items():
            if name.startswith("blobs/"):
                self.assertEqual(name, "blobs/sha256/" + hashlib.sha256(content).hexdigest())

        def blob(descriptor):
            content = files["blobs/" + descriptor["digest"].replace(":", "/")]
            self.assertEqual(len(content), descriptor["size"])
            return content

        (entry,) = json.loads(files["index.json"])["manifests"]
        self.assertEqual(done.stdout.strip(), entry["digest"])
        manifest = json.loads(blob(entry))
        (layer,) = manifest["layers"]
        config = json.loads(blob(manifest["config"]))
        self.assertEqual(config["rootfs"]["diff_ids"], [layer["digest"]])
        (docker,) = json.loads(files["manifest.json"])
        self.assertEqual(files[docker["Layers"][0]], blob(layer))
        self.assertEqual(json.loads(files[docker["Config"]]), config)
        path = self.write("layer.tar", blob(layer))
        with tarfile.open(path) as tar:
            members = {member.name: member for member in tar}
        return entry, manifest, config, members

    def test_what_is_in_it(self):
        extra = self.write("extra", b"text")
        entry, _, config, members = self.image("--argument", "run", "--port", "80", "--file", f"{extra}:/etc/a/b:600")
        self.assertEqual(entry["annotations"]["io.containerd.image.name"], "docker.io/example/program:1.0")
        self.assertEqual(entry["platform"], {"architecture": "amd64", "os": "linux"})
        self.assertEqual(config["config"]["Entrypoint"], ["/program"])
        self.assertEqual(config["config"]["Cmd"], ["run"])
        self.assertEqual(config["config"]["User"], "65532:65532")
        self.assertEqual(config["config"]["ExposedPorts"], {"80/tcp": {}})
        modes = {name: (member.mode, member.uid, member.gid, member.mtime) for name, member in members.items()}
        self.assertEqual(
            modes,
            {
                "etc": (0o755, 0, 0, 0),
                "etc/a": (0o755, 0, 0, 0),
                "etc/a/b": (0o600, 0, 0, 0),
                "program": (0o755, 0, 0, 0),
            },
        )

    def test_the_same_input_gives_the_same_bytes(self):
        self.image("--label", "b=1", "--label", "a=2")
        first = self.out.read_bytes()
        os.utime(self.binary, (1, 1))
        self.binary.chmod(0o700)
        self.image("--label", "a=2", "--label", "b=1")
        self.assertEqual(self.out.read_bytes(), first)
        self.write("program", elf() + b"more")
        self.image("--label", "a=2", "--label", "b=1")
        self.assertNotEqual(self.out.read_bytes(), first)

    def test_the_time_is_given(self):
        _, _, config, members = self.image(epoch="86400")
        self.assertEqual(config["created"], "1970-01-02T00:00:00Z")
        self.assertEqual(members["program"].mtime, 86400)

    def test_names(self):
        for name, full in {
            "pause:3": "docker.io/library/pause:3",
            "localhost/a:1": "localhost/a:1",
            "registry.example.com/a/b:1": "registry.example.com/a/b:1",
            "localhost:5000/a:v1-x.y_z": "localhost:5000/a:v1-x.y_z",
        }.items():
            entry, *_ = self.image(name=name)
            self.assertEqual(entry["annotations"]["io.containerd.image.name"], full)

    def test_architectures(self):
        entry, *_ = self.image(binary=self.write("arm", elf(machine=183)))
        self.assertEqual(entry["platform"]["architecture"], "arm64")

    def test_what_cannot_be_used(self):
        dynamic = self.write("dynamic", elf(program_headers=(1, 3)))
        for expected, options in {
            "is linked dynamically": {"binary": dynamic},
            "is no Linux binary": {"binary": SCRIPT},
            "machine (ELF number 2)": {"binary": self.write("sparc", elf(machine=2))},
            "No such file": {"binary": self.directory / "nothing"},
            "is not of the form NAME:TAG": {"name": "Example:1"},
        }.items():
            with self.subTest(expected):
                done = self.run_script(**options)
                self.assertEqual(done.returncode, 2)
                self.assertIn(expected, done.stderr)
                self.assertFalse(self.out.exists())
        done = self.run_script("--user", "nobody")
        self.assertIn("has to be numbers", done.stderr)
        done = self.run_script("--file", f"{self.binary}:/a/../../etc/x")
        self.assertIn("is no path in an image", done.stderr)
        self.assertEqual(done.returncode, 2)


if __name__ == "__main__":
    unittest.main()
