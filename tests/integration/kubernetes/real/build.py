"""``python -m tests.integration.kubernetes.real.build``: builds the programs of a control plane from their modules.

Needs the Go toolchain and a module proxy, some minutes and 6 GB of disk; what is built lies in the user's cache,
outside of the tree, and is used by the tests from then on.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

KUBERNETES = "1.36.3"
KWOK = "0.8.0"
PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok")
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "calque" / "kube"
BUILD_COMMAND = "python -m tests.integration.kubernetes.real.build"

_GO_MOD = """module calque.invalid/{name}

go 1.26.0

godebug default=go1.26

require (
{required}
)

replace (
{replaced}
)
"""


def programs() -> Path | None:
    """The directory that has them all: the one that ``KUBEBUILDER_ASSETS`` names, or that of an earlier build."""
    for place in filter(None, (os.environ.get("KUBEBUILDER_ASSETS"), str(CACHE / "bin"))):
        if all((Path(place) / program).is_file() for program in PROGRAMS):
            return Path(place)
    return None


def build() -> Path:
    """Build what is missing; the directory."""
    go = shutil.which("go")
    if go is None:
        sys.exit("there is no go on the PATH")
    (CACHE / "bin").mkdir(parents=True, exist_ok=True)
    _control_plane(go)
    _kwok(go)
    return CACHE / "bin"


def _control_plane(go: str) -> None:
    # k8s.io/kubernetes names its parts by directories of its own repository; here they are the published modules
    place = CACHE / "control-plane"
    place.mkdir(exist_ok=True)
    (place / "go.mod").write_text("module calque.invalid/empty\n")
    module = f"k8s.io/kubernetes@v{KUBERNETES}"
    found = _go(go, place, "mod", "download", "-json", module)
    described = re.search(r'"GoMod": "([^"]+)"', found)
    if described is None:
        sys.exit(f"{module} has no go.mod")
    text = Path(described[1]).read_text()
    parts = re.findall(r"^\s*(k8s\.io/\S+) => \./staging/", text, re.MULTILINE)
    etcd = re.findall(r"^\s*go\.etcd\.io/etcd/server/v3 (\S+)", text, re.MULTILINE)[0]
    staged = KUBERNETES.replace("1.", "0.", 1)
    (place / "go.mod").write_text(
        _GO_MOD.format(
            name="control-plane",
            required=f"\tk8s.io/kubernetes v{KUBERNETES}\n\tgo.etcd.io/etcd/server/v3 {etcd}",
            replaced="\n".join(f"\t{part} => {part} v{staged}" for part in parts),
        )
    )
    bin_dir = CACHE / "bin"
    _go(go, place, "build", "-ldflags=-s -w", "-o", str(bin_dir / "etcd"), "go.etcd.io/etcd/server/v3")
    major, minor, _ = KUBERNETES.split(".")
    version = "k8s.io/component-base/version"
    marks = f"-X {version}.gitVersion=v{KUBERNETES} -X {version}.gitMajor={major} -X {version}.gitMinor={minor}"
    commands = [f"k8s.io/kubernetes/cmd/{program}" for program in PROGRAMS if program.startswith("kube-")]
    _go(go, place, "build", f"-ldflags=-s -w {marks}", "-o", f"{bin_dir}/", *commands)


def _kwok(go: str) -> None:
    place = CACHE / "kwok"
    place.mkdir(exist_ok=True)
    (place / "go.mod").write_text(f"module calque.invalid/kwok\n\ngo 1.26.0\n\nrequire sigs.k8s.io/kwok v{KWOK}\n")
    marks = f"-ldflags=-s -w -X sigs.k8s.io/kwok/pkg/consts.Version=v{KWOK}"
    _go(go, place, "build", marks, "-o", str(CACHE / "bin" / "kwok"), "sigs.k8s.io/kwok/cmd/kwok")


def _go(go: str, place: Path, *arguments: str) -> str:
    print("go", *arguments, flush=True)
    environment = {**os.environ, "GOFLAGS": "-mod=mod -p=1 -trimpath -buildvcs=false", "CGO_ENABLED": "0"}
    ran = subprocess.run((go, *arguments), cwd=place, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if ran.returncode != 0:
        sys.exit(f"go {arguments[0]} ended with exit code {ran.returncode}")
    return ran.stdout


if __name__ == "__main__":
    print(build())
