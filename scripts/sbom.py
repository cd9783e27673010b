"""`make sbom`: the software in an environment as a CycloneDX bill of materials, with what lies inside of wheels.

    python scripts/sbom.py [--out sbom.json]

cyclonedx-bom lists the packages of the environment that runs this. To each of them this adds the shared libraries that
its wheel brings, with versions: asked of the library itself where it tells one, else from its file's name, else the
package's own; and what the wheel's own bill (PEP 770) says of where they were taken from. What a service does not
need (tests, linters, this script) has the scope `excluded`.
"""

import argparse
import base64
import ctypes
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
SERVED = Requirement("vidseq[serve]")
FFMPEG = ("libavcodec", "libavdevice", "libavfilter", "libavformat", "libavutil", "libswresample", "libswscale")
# Of a library, the function that tells its version as a text.
TELLS = {
    "libavutil": "av_version_info",
    "libaom": "aom_codec_version_str",
    "libcrypto": "SSLeay_version,OpenSSL_version",
    "libdav1d": "dav1d_version",
    "libopenblas": "openblas_get_config",
    "libopenblasp-r0": "openblas_get_config",
    "libscipy_openblas": "scipy_openblas_get_config",
    "libscipy_openblas64_": "scipy_openblas_get_config64_",
    "libvpx": "vpx_codec_version_str",
    "libz": "zlibVersion",
    "libzstd": "ZSTD_versionString",
}
_SHARED = re.compile(r"^(lib[\w+.-]*?|[\w-]+?)(?:[.-][0-9a-f]{8})*(?:[.-](\d+(?:\.\d+)+\w*))?\.so(?:\.([\w.]+))?$")
_NUMBER = re.compile(r"\d+\.\d+(?:\.\d+)*[a-z]?")

Component = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("sbom.json"))
    out = parser.parse_args().out
    text = json.dumps(bill(), indent=1)
    assert (wrong := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)) is None, wrong
    out.write_text(text + "\n")
    print(f"{out}: {summary(json.loads(text))}")


def bill() -> dict[str, Any]:
    """The packages of this environment, each with its native libraries."""
    told = [
        sys.executable,
        "-m",
        "cyclonedx_py",
        "environment",
        "--output-reproducible",
        "--no-validate",
        "--sv",
        "1.6",
    ]
    told += ["--pyproject", str(ROOT / "pyproject.toml"), sys.executable]
    found: dict[str, Any] = json.loads(subprocess.run(told, capture_output=True, text=True, check=True).stdout)
    installed = {canonicalize_name(each.name): each for each in distributions()}
    needed = needed_by(SERVED, installed)
    for component in found["components"]:
        name = canonicalize_name(component["name"])
        component["scope"] = "required" if name in needed else "excluded"
        if inside := list(native(installed[name])):
            component["components"] = inside
    return found


def needed_by(root: Requirement, installed: dict[Any, Distribution]) -> set[str]:
    """The names of the packages that it needs here, and those that these need."""
    needed: set[tuple[str, str]] = set()
    waiting = [(canonicalize_name(root.name), extra) for extra in ("", *root.extras)]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in needed or name not in installed:
            continue
        needed.add((name, extra))
        for line in installed[name].requires or ():
            wanted = Requirement(line)
            if wanted.marker is None or wanted.marker.evaluate({"extra": extra}):
                waiting += [(canonicalize_name(wanted.name), each) for each in ("", *wanted.extras)]
    return {name for name, _ in needed}


def native(package: Distribution) -> Iterator[Component]:
    """The shared libraries of one package; those of FFmpeg are parts of one FFmpeg, whose version they tell."""
    libraries = sorted(_libraries(package), key=lambda component: component["bom-ref"])
    ffmpeg = [component for component in libraries if component["name"] in FFMPEG]
    if ffmpeg:
        (version,) = {component["version"] for component in ffmpeg if component["name"] == "libavutil"}
        yield {
            "type": "library",
            "bom-ref": f"{package.name}:ffmpeg",
            "name": "ffmpeg",
            "version": version,
            "purl": f"pkg:generic/ffmpeg@{version}",
            "cpe": f"cpe:2.3:a:ffmpeg:ffmpeg:{version}:*:*:*:*:*:*:*",
            "components": ffmpeg,
        }
    yield from (component for component in libraries if component not in ffmpeg)
    yield from _told_by_the_wheel(package)


def _libraries(package: Distribution) -> Iterator[Component]:
    for file in package.files or ():
        match = _SHARED.match(file.name)
        # An extension module is the package's own code, not a library: it has a tag of Python's in its name, or no lib.
        if match is None or not match[1].startswith("lib") or ".cpython-" in file.name or ".abi3" in file.name:
            continue
        path = Path(str(file.locate()))
        version, source = next(
            (version, source)
            for version, source in (
                (_version(path, match[1]), "the library"),
                (match[2] or match[3], "its file's name"),
                (package.version, "its package"),
            )
            if version
        )
        component: Component = {
            "type": "library",
            "bom-ref": f"{package.name}:{file}",
            "name": match[1],
            "version": version,
            "properties": [
                {"name": "vidseq:file", "value": str(file)},
                {"name": "vidseq:version-told-by", "value": source},
            ],
        }
        if file.hash is not None:
            digest = base64.urlsafe_b64decode(file.hash.value + "==").hex()
            component["hashes"] = [{"alg": "SHA-256", "content": digest}]
        yield component


def _version(path: Path, name: str) -> str | None:
    """As the library itself tells it."""
    for function in filter(None, TELLS.get(name, "").split(",")):
        library = ctypes.CDLL(str(path))
        if hasattr(library, function):
            tell = getattr(library, function)
            tell.restype, tell.argtypes = ctypes.c_char_p, [ctypes.c_int]
            if match := _NUMBER.search((tell(0) or b"").decode("ascii", "replace")):
                return match[0]
    return None


def _told_by_the_wheel(package: Distribution) -> Iterator[Component]:
    """The distribution's packages from which auditwheel says that libraries were taken, and what else a wheel lists."""
    seen = set()
    for file in package.files or ():
        if "sboms" not in file.parts or file.suffix != ".json":
            continue
        for told in json.loads(Path(str(file.locate())).read_text()).get("components", ()):
            purl = told.get("purl", "")
            if purl and not purl.startswith("pkg:pypi/") and purl not in seen:
                seen.add(purl)
                yield {
                    "type": "library",
                    "bom-ref": f"{package.name}:{purl}",
                    "name": told["name"],
                    "version": told.get("version", "unknown"),
                    "purl": purl,
                    "properties": [{"name": "vidseq:told-by", "value": str(file)}],
                }


def every(components: list[Component]) -> Iterator[Component]:
    """With those inside of them."""
    for component in components:
        yield component
        yield from every(component.get("components", []))


def summary(found: dict[str, Any]) -> str:
    """How many of what, and the libraries that parse what strangers send."""
    served = [component for component in found["components"] if component["scope"] == "required"]
    inside = [each for component in served for each in every(component.get("components", []))]
    decoders = [
        f"FFmpeg {each['version']} in {component['name']}"
        for component in served
        for each in component.get("components", [])
        if each["name"] == "ffmpeg"
    ]
    return (
        f"{len(found['components'])} packages, {len(served)} of a service; native libraries in these {len(inside)}; "
        f"{', '.join(decoders)}"
    )


if __name__ == "__main__":
    main()
